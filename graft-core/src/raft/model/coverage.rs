//! What the model has seen happen. A random test that never reaches a corner says nothing about it,
//! so the default run asserts that each of these came up.

/// Declares the corners with what each means.
macro_rules! corners {
    ($($name:ident $meaning:literal,)*) => {
        /// A corner of the protocol that the model must reach.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Corner {
            $($name,)*
        }

        impl Corner {
            /// All of them, with what each means.
            pub(super) const ALL: &[(Self, &'static str)] = &[$((Self::$name, $meaning),)*];
        }
    };
}

corners! {
    Elected "a leader was elected",
    ElectedOfEven "a leader was elected in a cluster of even size",
    ElectedByBoth "a leader was elected by both majorities of a joint membership",
    ElectedByTransfer "the target of a transfer was elected",
    ElectedLate "a leader of an older term was elected after one of a newer term",
    PreVoteTimedOut "a pre-candidate heard from no quorum and tried again",
    PreVoteLost "a pre-candidate was refused by a quorum",
    CandidateTimedOut "a candidate heard from no quorum and tried again",
    CandidateLost "a candidate was refused by a quorum",
    CandidateFollowed "a candidate found that another leads its term",
    CandidateOvertaken "a candidate met a higher term before its own vote was durable",
    CampaignIgnored "a server that heard its leader ignored a campaign",
    VoteDropped "a vote was owed when a higher term came, and was never told",
    QuorumLost "a leader stepped down because no quorum answered",
    LeaderDeposed "a leader stepped down for a higher term",
    LeaderStalled "a leader stepped down because its disk stood still",
    TransferStalled "a transfer was under way when the leader's disk stood still",
    TransferGivenUp "a transfer was given up",
    TransferRefused "a transfer to who cannot lead was refused",
    ProposedInTransfer "a proposal was refused during a transfer",
    ProposedToFollower "a proposal was refused by who does not lead",
    Overloaded "a proposal was refused because too much was uncommitted",
    Unapplied "proposals were refused because too much was not applied",
    LeadershipLost "a proposal in the log lost its leader",
    ProposalApplied "a proposal was handed to the machine with its token",
    Truncated "a log was truncated",
    TruncatedTwice "a truncated log was truncated again before anything of it was durable",
    TruncatedDurable "entries were truncated that were durable",
    TruncatedInFlight "a log was truncated below the end of a write under way",
    TruncatedUnderWrite "a log was truncated below the beginning of a write under way",
    TruncatedAtCommit "a log was truncated right behind its commit index",
    TruncatedUnderLoad "a log was truncated while a load was under way",
    TruncatedMembership "a membership was truncated",
    QuorumOverwritten "an entry that a quorum had on disk was overwritten (Raft Figure 8)",
    StaleSuffixRecovered "a restart brought back entries that had been truncated in memory only",
    ConflictSent "an append was refused with a hint",
    HintSkipped "a hint skipped more than one entry",
    StaleAppendAnswered "an append of a lower term was answered",
    StaleHeartbeatAnswered "a heartbeat of a lower term was answered",
    OldPrefixAppended "an append began below the commit index of its receiver",
    AcknowledgementHeld "an append was taken that was not acknowledged in the same turn",
    AcknowledgementDropped "an acknowledgement was owed when a higher term came",
    PartlyAcknowledged "less was acknowledged than had matched",
    FollowerCommitAhead "a follower knew of a commit that its own disk did not hold yet",
    InheritedCommitted "an entry of an older term was committed by a newer leader",
    WindowFull "a window was closed in entries",
    WindowFullInBytes "a window was closed in bytes",
    Pipelined "several appends were on their way to one peer",
    BackToProbe "a peer went from replicating back to probing",
    ProbeRepeated "a probe was sent again",
    LoadedForApply "entries were loaded to be applied",
    LoadedForPeer "entries were loaded for a peer",
    LoadedNothing "a load gave nothing",
    LoadedLess "a load gave less than was asked for",
    LoadedStale "a load gave entries that were no longer in the log",
    LoadedLate "a load for a peer ended in another term",
    WriteOfVoteAlone "a write held nothing but a hard state",
    WritePartial "the log did not fit into one write",
    WriteSlow "a write was under way for longer than the stall limit",
    CrashedWriteLost "a crash lost the write under way",
    CrashedWriteKept "a crash kept the write under way",
    CrashedUndrained "a server crashed between a step and its drain",
    CrashedLeader "a leader crashed",
    AllCrashed "all servers were down at once",
    RecoveredCommit "a server restarted with a commit hint",
    RecoveredVote "a server restarted in a term in which it had voted",
    RecoveredUncommitted "a server restarted with entries behind its commit hint",
    MessageLost "a message was lost",
    MessageCut "a message met a cut",
    MessageDuplicated "a message was delivered twice",
    MessageOvertaken "a message was overtaken",
    MessageOutlived "a message arrived after a restart of its receiver",
    HalfCutLed "a leader stood within four election timeouts while much was cut",
    HalfCutDark "nobody could lead because too much was cut",
    StallOvercome "another leader stood in time after a leader's disk had come to a stand",
    Diverged "a machine that differed was found",
    CheckpointCompared "a follower compared its machine with the leader's",
}

/// How often each corner was reached.
#[derive(Clone, Debug)]
pub(super) struct Coverage {
    counts: [u64; Corner::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self { counts: [0; Corner::ALL.len()] }
    }
}

impl Coverage {
    pub(super) fn note(&mut self, corner: Corner) {
        self.counts[corner as usize] += 1;
    }

    pub(super) fn note_if(&mut self, happened: bool, corner: Corner) {
        self.counts[corner as usize] += u64::from(happened);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// Each corner and how often it was reached, one a line.
    pub(super) fn table(&self) -> String {
        let lines = Corner::ALL.iter().map(|(corner, meaning)| {
            format!("{:>10}  {corner:?}: {meaning}\n", self.counts[*corner as usize])
        });
        lines.collect()
    }

    /// The corners that were never reached.
    pub(super) fn missing(&self) -> Vec<Corner> {
        let all = Corner::ALL.iter().map(|(corner, _)| *corner);
        all.filter(|corner| self.counts[*corner as usize] == 0).collect()
    }
}
