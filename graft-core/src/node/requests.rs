//! What a request must pass before it is proposed, and how a refusal is told to its client.

use std::{panic::catch_unwind, sync::Arc, time::Duration};

use super::{NodeConfig, events::Events};
use crate::{
    CommandCheck, LeaderHint, LinkId, Raft, RejectReason, Request, Token,
    raft::{Proposal, Refusal},
    session::{self, Payload},
};

/// The link of the node's own orders. No transport may give it to a client.
pub(super) const OWN_LINK: LinkId = LinkId(u64::MAX);

/// Decides which requests may be proposed.
pub(super) struct Admission {
    check: CommandCheck,
    max_entry_bytes: usize,
    max_log_bytes: u64,
    /// What [`Transport::newest_version`](crate::Transport::newest_version) says.
    pub(super) newest_version: Option<u16>,
    /// The size of the log that has been applied. What is not applied is bounded by `Raft`.
    pub(super) log_bytes: u64,
}

impl Admission {
    pub(super) const fn new(check: CommandCheck, config: &NodeConfig) -> Self {
        Self {
            check,
            max_entry_bytes: config.max_entry_bytes,
            max_log_bytes: config.max_log_bytes,
            newest_version: None,
            log_bytes: 0,
        }
    }

    /// Notes that entries of this size were applied.
    pub(super) fn on_applied(&mut self, bytes: u64, events: &mut Events) {
        self.log_bytes += bytes;
        events.on_log_size(self.log_bytes, self.max_log_bytes);
    }

    /// Turns a request into a proposal, or says why it never enters the log.
    pub(super) fn admit(&self, request: Request, now: Duration) -> Result<Proposal, Rejected> {
        let token = Token { link: request.link, request_id: request.request_id };
        match self.judge(&request, now) {
            Ok(()) => Ok(Proposal { token, kind: request.kind, payload: request.payload }),
            Err(reason) => Err(Rejected { token, reason }),
        }
    }

    fn judge(&self, request: &Request, now: Duration) -> Result<(), RejectReason> {
        if request.deadline <= now {
            return Err(RejectReason::DeadlinePassed);
        }
        if request.link == OWN_LINK {
            return Err(RejectReason::Invalid(
                "the link number is the server's own: its transport must use another".into(),
            ));
        }
        let bytes = request.payload.len();
        if bytes > self.max_entry_bytes {
            let limit = self.max_entry_bytes;
            return Err(RejectReason::TooLarge { bytes, limit });
        }
        self.check(request).map_err(RejectReason::Invalid)?;
        if self.log_bytes >= self.max_log_bytes {
            return Err(RejectReason::Overloaded);
        }
        Ok(())
    }

    /// The header is the session table's to check, the body the machine's.
    fn check(&self, request: &Request) -> Result<(), String> {
        let (kind, payload) = (request.kind, &request.payload[..]);
        session::check_payload(kind, payload).map_err(|error| error.to_string())?;
        let parsed = Payload::parse(kind, payload).map_err(|error| error.to_string())?;
        match parsed.command() {
            Some((version, body)) => {
                self.check_version(version)?;
                // The check is a user's code: its panic refuses one request and must not end the server, or
                // the client would carry the entry to the next one.
                catch_unwind(|| (self.check)(version, body))
                    .map_err(|_| "its check panicked over it".to_owned())?
                    .map_err(|error| error.reason)
            }
            None => Ok(()),
        }
    }

    fn check_version(&self, version: u16) -> Result<(), String> {
        match self.newest_version {
            Some(newest) if version > newest => Err(format!(
                "it has version {version}, and a server of the cluster reads at most {newest}: upgrade all servers \
                 before their clients"
            )),
            _ => Ok(()),
        }
    }
}

/// A request that is not proposed.
pub(super) struct Rejected {
    pub(super) token: Token,
    pub(super) reason: RejectReason,
}

/// What a client is told where `Raft` refuses its proposal.
pub(super) fn reason_of(refusal: Refusal, raft: &Raft) -> RejectReason {
    let hint = |leader| LeaderHint { leader, members: Some(Arc::clone(raft.membership())) };
    match refusal {
        Refusal::NotLeader { leader } => RejectReason::NotLeader(hint(leader)),
        Refusal::LeadershipLost { leader } => RejectReason::LeadershipLost(hint(leader)),
        // All mean: nothing was done, and the same again in a moment may work.
        Refusal::Overloaded | Refusal::Transferring | Refusal::BadTransferTarget => {
            RejectReason::Overloaded
        }
    }
}
