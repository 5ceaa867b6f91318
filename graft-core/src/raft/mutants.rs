//! Known historical bugs, by name. In a default build none can be switched on, and the compiler
//! removes every trace of them.

#![cfg_attr(
    not(any(test, feature = "mutants")),
    allow(unreachable_pub, dead_code, reason = "only named here, never switched on")
)]

use std::collections::VecDeque;

use super::{Config, Raft, Token};
use crate::Index;

/// Declares the mutants with what each is and where it is from.
macro_rules! mutants {
    (
        the model catches { $($near:ident $near_meaning:literal $near_origin:literal,)* }
        only the simulator does { $($far:ident $far_meaning:literal $far_origin:literal,)* }
    ) => {
        /// A bug that some implementation of Raft once had. Tests switch one on and must notice.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum Mutant {
            $(#[doc = $near_meaning] $near,)*
            $(#[doc = $far_meaning] $far,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$near,)* $(Self::$far,)*];

            /// Those that the model test of this crate catches. The others are bugs of what is around
            /// `Raft`, or break promises that only a whole cluster with its clients can hold somebody to.
            pub const OF_THE_MODEL: &'static [Self] = &[$(Self::$near,)*];

            /// What it is, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$near => $near_meaning,)*
                    $(Self::$far => $far_meaning,)*
                }
            }

            /// Where it is from: who made the mistake, or who warned of it.
            #[must_use]
            pub const fn origin(self) -> &'static str {
                match self {
                    $(Self::$near => $near_origin,)*
                    $(Self::$far => $far_origin,)*
                }
            }
        }
    };
}

mutants! {
    the model catches {
        VoteBeforeDurable
            "A vote is told before it is durable."
            "Raft, Figure 2: \"updated on stable storage before responding\"",
        AppendBeforeDurable
            "Entries are acknowledged before they are durable."
            "Raft, Figure 2; every store whose sync was left out for speed",
        LeaderCountsItselfEarly
            "A leader counts its own copy before it is durable."
            "thesis §10.2.1, where the leader writes in parallel",
        RequestVoteBeforeDurable
            "Votes are asked for before the candidate's own vote is durable."
            "Raft, Figure 2: a candidate's vote for itself is a vote",
        TruncationWithoutClipping
            "A truncation does not clip the write that is under way."
            "drivers that write beside the protocol, and match completions by index alone",
        StaleAcknowledgement
            "What matched with one leader is acknowledged to the next."
            "pipelined followers that keep what they owe across terms",
        TermBeforeDurable
            "An answer states a term that is not durable."
            "Raft, Figure 2: `currentTerm` is persistent state",
        CommitOldTerm
            "Entries of an older term are committed by counting."
            "Raft, Figure 8",
        VoteCountedTwice
            "A vote that arrives twice counts twice."
            "akka-raft: \"candidates accept duplicate votes\" (DEMi, NSDI 2016)",
        VoteWithoutLogCheck
            "Votes are given without comparing logs."
            "Raft, §5.4.1",
        VoteForTheLongerLog
            "Logs are compared by their length alone, not by the terms of their ends first."
            "Raft, §5.4.1: \"more up-to-date\" is not longer",
        RefusalCountedAsVote
            "An answer to a request for a vote counts as a vote, whatever it says."
            "candidates that count replies",
        VoteForgottenInTerm
            "Whoever becomes a follower forgets its vote, although the term is the same."
            "akka-raft: \"processes forget who they voted for\" (DEMi, NSDI 2016)",
        VoteForgottenByRestart
            "A restart forgets the vote, although it was durable."
            "Raft, Figure 2: `votedFor` is persistent state",
        LeaderOutlivesItsTerm
            "A leader that sees a higher term takes the term and goes on leading."
            "Raft, Figure 2, rules for all servers: \"convert to follower\"",
        HalfIsAQuorum
            "Half of the servers are a quorum, where their number is even."
            "akka-raft: \"quorum computed incorrectly\" (DEMi, NSDI 2016)",
        ReplyBeforeFlush
            "A leader applies, and answers, what others hold durably and it does not."
            "leaders that apply committed entries before their own sync, as a later restart shows",
        HeartbeatCommitsUnmatched
            "A heartbeat tells a follower of commits that it is not known to hold."
            "the warning in etcd's `bcastHeartbeat`",
        TruncationByOldAppend
            "An append whose entries are all there cuts off what follows them."
            "Students' Guide to Raft; akka-raft: \"followers unnecessarily overwrite\"",
        AppendWithoutPrevTerm
            "An append is taken behind an entry of its `prev` index, whatever that one's term."
            "Raft, §5.3: the consistency check",
        StaleTermAcknowledged
            "An acknowledgement counts in whatever term it was given."
            "Students' Guide to Raft, on \"term confusion\"",
        StaleRejection
            "A rejection that was overtaken takes a peer's next entry back behind what it matched."
            "pipelined leaders; the stale-reject rule of etcd's `MaybeDecrTo`",
        NoBlankAtElection
            "A new leader appends no entry of its own term, and waits for a client's."
            "Raft, §8; thesis §3.6.2",
        RecoveredLogIsCommitted
            "A restarted server takes its whole log to be committed."
            "implementations that persist no commit index and guess it",
        LogTimeOfOwnClock
            "A new leader goes on with its own clock, and not from the last entry's time."
            "thesis §6.3, on the clock of sessions",
        LostResponder
            "A deposed leader does not tell those who wait for their proposals."
            "servers that drop their table of callers with their leadership",
        WindowIgnored
            "A leader sends to a peer whatever is not answered yet."
            "the `Inflights` of etcd, and what came before them",
        UncommittedUnbounded
            "A leader takes in proposals although it cannot commit."
            "etcd pull request 10167: unbounded growth without a quorum",
    }
    only the simulator does {
        PreVoteRaisesTerm
            "A pre-vote raises the term of whoever is asked."
            "thesis §9.6: it must change nothing",
        CheckQuorumOff
            "A leader that no quorum answers goes on leading."
            "thesis §6.2; the etcd of the Cloudflare outage of 2020",
        TransferToLaggingTarget
            "A leader hands over to a server that does not have its log yet."
            "thesis §3.10, step 2",
        ProposalAnsweredByIndex
            "A deposed leader answers its callers with what another leader put at the same index."
            "Students' Guide to Raft, on applying client operations",
        AnswersByPosition
            "The driver answers its callers in order, whichever entries these wait for."
            "servers whose queue of callers knows no index",
        StoreErrorIgnored
            "The driver takes a write for durable that failed."
            "PostgreSQL's fsync of 2018, and all who try a failed sync again",
        ReapplyAfterRestart
            "The replies of sessions are not rebuilt as a log is replayed."
            "Students' Guide to Raft: duplicate detection is part of the state",
        OnlyLatestReplyKept
            "A session remembers its latest command alone, although several are under way."
            "duplicate detection by one serial number a client",
        PanicForgotten
            "That the machine panicked over a command is not remembered."
            "thesis §6.3: every outcome is one",
        ExpiryByOwnClock
            "Each server ages sessions, and shows its machine the time, by its own clock."
            "thesis §6.3; keys with a time to live in early replicated stores",
        RetryWithoutSession
            "A client sends a request again without its session."
            "thesis §6.3",
        ExpiredCommandSentAgain
            "A client whose session expired sends what it had sent again under the next one."
            "thesis §6.3, on sessions that expire",
        TimeoutCalledNotApplied
            "A client says of a request without an answer that it was not applied."
            "what Jepsen's tests call an indeterminate operation taken for a failed one",
        SilentLeaderAskedForEver
            "A client whose requests end before an attempt would goes on asking a leader that is silent."
            "graft's own client, until this simulator found it",
        SilenceCalledNoLeader
            "A client tells who waits for a session that nobody leads, where the leader it asked was silent."
            "graft's own client, until this simulator found it",
        WipedDiskVotes
            "An operator gives a server whose disk was lost its old identity back, and it votes."
            "operators who restore a data directory from its identity alone",
    }
}

/// The bug that is switched on, if any: of no size in a default build.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Switch {
    #[cfg(any(test, feature = "mutants"))]
    mutant: Option<Mutant>,
}

impl Switch {
    /// What `config` switches on.
    pub(crate) const fn of(config: &Config) -> Self {
        #[cfg(not(any(test, feature = "mutants")))]
        let _ = config;
        Self {
            #[cfg(any(test, feature = "mutants"))]
            mutant: config.mutant,
        }
    }

    /// Whether this bug is switched on. Never, outside of tests.
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether this bug is switched on. Never, outside of tests.
    #[cfg(not(any(test, feature = "mutants")))]
    #[expect(clippy::unused_self, reason = "the same call must compile with mutants")]
    pub(crate) const fn is(self, _mutant: Mutant) -> bool {
        false
    }
}

impl Raft {
    /// Whether this bug is switched on. Never, outside of tests.
    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        Switch::of(&self.config).is(mutant)
    }

    /// Keeps those who wait for what a deposed leader proposed.
    pub(super) fn keep_orphans(&mut self, open: VecDeque<(Index, Token)>) {
        #[cfg(any(test, feature = "mutants"))]
        self.orphans.extend(open);
        #[cfg(not(any(test, feature = "mutants")))]
        drop(open);
    }

    /// Those among them who wait for entries up to `index`.
    pub(super) fn take_orphans(&mut self, index: Index) -> Vec<(Index, Token)> {
        #[cfg(any(test, feature = "mutants"))]
        {
            let count = self.orphans.partition_point(|(waiting, _)| *waiting <= index);
            self.orphans.drain(..count).collect()
        }
        #[cfg(not(any(test, feature = "mutants")))]
        {
            let _ = index;
            Vec::new()
        }
    }
}
