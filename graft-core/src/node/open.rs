//! Who waits for what `Raft` holds, so that everybody hears of it when the node stops.

use std::collections::VecDeque;

use crate::{
    Index, Token,
    raft::{Answer, Proposal},
};

/// The tokens of proposals that were stepped in and have neither been answered nor handed to the
/// machine, in the order they were proposed.
///
/// `Raft` gives tokens back in that order too, so keeping up with it is copying at both ends.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    tokens: VecDeque<Token>,
    /// How many at the end were proposed since the last drain.
    fresh: usize,
}

impl OpenRequests {
    pub(super) fn on_proposed(&mut self, proposals: &[Proposal]) {
        self.fresh += proposals.len();
        self.tokens.extend(proposals.iter().map(|proposal| proposal.token));
    }

    /// `Raft` refused these.
    pub(super) fn on_answers(&mut self, answers: &[Answer]) {
        let fresh = std::mem::take(&mut self.fresh);
        if answers.is_empty() {
            return;
        }
        // What is refused at once is among the latest; only a lost leadership ends older ones.
        let settled = self.tokens.len() - fresh;
        let rest = self.remove_in_order(settled, answers);
        let rest = if rest.is_empty() { rest } else { self.remove_in_order(0, rest) };
        // Whatever came out of order is looked up one by one.
        for answer in rest {
            self.tokens.retain(|token| *token != answer.token);
        }
    }

    /// These went to the machine with their entries.
    pub(super) fn on_handed_over(&mut self, waiting: &[(Index, Token)]) {
        for (_, token) in waiting {
            if self.tokens.front() == Some(token) {
                self.tokens.pop_front();
            } else {
                self.tokens.retain(|open| open != token);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Token> {
        self.fresh = 0;
        self.tokens.drain(..)
    }

    /// Walks both lists once from `start` and removes what is in both. Gives back the answers from the
    /// first one that was not found.
    fn remove_in_order<'a>(&mut self, start: usize, answers: &'a [Answer]) -> &'a [Answer] {
        let mut rest = answers;
        let mut kept = start;
        for at in start..self.tokens.len() {
            let token = self.tokens[at];
            match rest.split_first() {
                Some((answer, more)) if answer.token == token => rest = more,
                _ => {
                    self.tokens[kept] = token;
                    kept += 1;
                }
            }
        }
        self.tokens.truncate(kept);
        rest
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{EntryKind, LinkId, raft::Refusal};

    fn token(request_id: u64) -> Token {
        Token { link: LinkId(1), request_id }
    }

    fn propose(open: &mut OpenRequests, ids: std::ops::Range<u64>) {
        let proposals: Vec<Proposal> = ids
            .map(|id| Proposal { token: token(id), kind: EntryKind::Plain, payload: Bytes::new() })
            .collect();
        open.on_proposed(&proposals);
    }

    fn answers(ids: &[u64]) -> Vec<Answer> {
        let answer = |id: &u64| Answer { token: token(*id), refusal: Refusal::Overloaded };
        ids.iter().map(answer).collect()
    }

    fn left(open: &mut OpenRequests) -> Vec<u64> {
        open.drain().map(|token| token.request_id).collect()
    }

    #[test]
    fn refused_and_handed_over_requests_are_no_longer_open() {
        let mut open = OpenRequests::default();
        propose(&mut open, 0..4);
        open.on_answers(&[]);
        propose(&mut open, 4..8);
        open.on_answers(&answers(&[6, 7]));
        open.on_handed_over(&[(Index(1), token(0)), (Index(2), token(1))]);
        assert_eq!(left(&mut open), [2, 3, 4, 5]);
    }

    #[test]
    fn a_lost_leadership_ends_the_old_and_the_new_in_any_order() {
        let mut open = OpenRequests::default();
        propose(&mut open, 0..3);
        open.on_answers(&[]);
        propose(&mut open, 3..5);
        open.on_answers(&answers(&[4, 3, 0, 2]));
        assert_eq!(left(&mut open), [1]);
    }
}
