//! The properties that are checked, by name.

/// Declares the checkers with what each demands.
macro_rules! checkers {
    ($($name:ident $meaning:literal,)*) => {
        /// A property that must hold, whatever goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Checker {
            $(#[doc = $meaning] $name,)*
        }

        impl Checker {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it demands, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

checkers! {
    ElectionSafety "A term has one leader at most (Raft, Figure 3).",
    LeaderAppendOnly "A leader's log only grows while it leads (Raft, Figure 3).",
    LogMatching "Of one term and index there is one entry, behind one predecessor (Raft, Figure 3).",
    LeaderCompleteness "A leader holds every entry that an older term committed (Raft, Figure 3).",
    StateMachineSafety "All servers apply the same commands in the same order (Raft, Figure 3).",
    StateHash "Machines that have applied the same commands are in the same state and gave the same responses.",
    LeaderMakesEntries "An entry is made by the leader of its term and nobody else.",
    TermMonotonic "A server's term never falls.",
    VoteOnce "A server votes for one candidate in a term, across all of its lives.",
    VoteDurable "A vote is on disk before it is told, and before it is asked for.",
    TermDurable "No message states a term that is not on its sender's disk.",
    AcknowledgementDurable "What is acknowledged to a leader is on disk, and is that leader's log.",
    ElectedByQuorum "Whoever leads has the durable votes of a quorum.",
    CommitMonotonic "A server's commit index never falls within a life, and two servers commit the same.",
    CommitNeedsQuorum "What is committed is on the disks of a quorum.",
    CommitOwnTerm "A leader commits by counting only what its own term brought (Raft, §5.4.2).",
    CommitByLeader "A leader knows first that an entry is committed.",
    HeartbeatWithinMatch "A heartbeat tells its receiver of no commit that the receiver's disk does not hold.",
    AppendFromLog "A leader sends what is in its log, and does not call committed what is not.",
    AppliedIsCommitted "What is applied is committed.",
    AppliedIsDurable "What is applied is on the server's own disk.",
    LogTimeMonotonic "The time in the log never goes back.",
    WallClockMonotonic "The wall clock that machines are shown never goes back.",
    PeersWellFormed "No server finds what another says malformed, or meant for somebody else.",
    TermsAreCampaigned "A server takes on a term only once somebody campaigns in it.",
    LeaderHasQuorum "A leader that no quorum answers steps down within a bounded number of election timeouts.",
    HandoverComplete "A leader hands over to a server that has its whole log on disk, unless its own disk stalls.",
    MembershipIsLatest "The membership in force is the latest one in the log.",
    QuorumsIntersect "The quorums of consecutive memberships share a server.",
    RecoveryComplete "What a disk gives back after a crash is what it was told to keep.",
    WipedNeverVotes "A server that lost its disk takes no part before it is told to anew.",
    RaftInvariants "What the protocol core demands of itself holds.",
    WindowsBounded "What is on its way to a peer unanswered is bounded.",
    QueuesBounded "What a leader has taken in and not committed or applied, and what waits at clients, is bounded.",
    AnsweredOnce "A server answers every request that it takes in, once.",
    ExactlyOnce "No request is applied twice.",
    AcknowledgedSurvives "What was answered is in the committed log, with the response that was given.",
    NotAppliedIsTrue "A request that ended as not applied is never applied.",
    AppliedIsTrue "A request that ended as applied was applied.",
    NoLeaderIsTrue "Once everything has healed nobody is told that no server leads while one within reach does.",
    Linearizable "A request takes effect between its sending and its answer.",
    ResponseFits "A response is one that the workload knows to be right.",
    DeadlineKept "A request ends when its deadline says.",
    NeverUnsafe "No server finds proof that safety is broken.",
    NothingUnexplained "No server stops, or fails to start, and no machine panics, without a fault to blame.",
    LeaderInTime "Once everything has healed there is a leader within a bounded number of election timeouts.",
    RequestsResolve "Once everything has healed every open request ends, and new ones succeed.",
    ReplicasConverge "Once everything has healed all servers come to the same log and state.",
}
