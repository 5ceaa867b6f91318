//! A deterministic simulator: production code of graft under simulated network, disk and time.
//!
//! A run is made of one number, its seed. It draws a cluster of one to seven servers, with their numbers, their
//! clients and what goes wrong and how often, and lives through simulated minutes of it: the servers are
//! those of `graft`, founded over the network, supervised, with a user's machine behind the typed face; the
//! clients are those of `graft-client`, with their sessions and retries, on machines of their own and in
//! the processes of the servers. Only the four seams are the simulator's own:
//!
//! - time and tasks: an [`Executor`] of one thread picks the next ready task by the seed and moves its time
//!   forward only when none is ready; each machine has a clock of its own, which is wrong, drifts, jumps and stands still;
//! - the network between servers and clients, which loses, repeats, reorders, delays, clogs and is cut;
//! - the disks, which outlive their servers, lose what was not synced, fail, fill up, rot and are lost;
//! - the processes, which end at any moment, and an operator who starts them again.
//!
//! After the faults everything heals, and then there must be a leader in time, every open request must
//! end, and all servers must come to the same log and state. Two runs with the same seed are the same
//! run, to the hash; another seed is another one.
//!
//! ```text
//! cargo run --release -p graft-sim -- run --seeds 0..1000    # all is well, or which seeds failed, and why
//! cargo run --release -p graft-sim -- replay --seed 17       # what happened in one
//! cargo run --release -p graft-sim -- measure                # how fast
//! cargo run --release -p graft-sim -- run --seeds 1000.. --for 90    # as many as fit into 90 seconds
//! cargo run --release -p graft-sim --features mutants -- mutants    # whether known bugs are caught
//! ```
//!
//! # A machine of one's own
//!
//! Implement [`Workload`] for it: what is asked, and what only you know of the answers.
//!
//! ```
//! use std::time::Duration;
//! use graft_sim::{Options, Registers, simulate};
//!
//! let options = Options::default().length(Duration::from_secs(20));
//! let outcome = simulate(7, &options, Registers::new);
//! assert_eq!(outcome.violation, None);
//! assert_eq!(outcome.hash, simulate(7, &options, Registers::new).hash);
//! ```
//!
//! Where a seed fails, [`Outcome::violation`] says which property did not hold and how that showed. The same seed with
//! the same length and [`Options::trace`] is the same run, with the same [`Outcome::hash`], and [`Outcome::trace`] says
//! what happened in it, a line an event:
//!
//! ```
//! use std::time::Duration;
//! use graft_sim::{Options, Registers, simulate};
//!
//! let options = Options::default().length(Duration::from_secs(20));
//! let outcome = simulate(7, &options.trace(true), Registers::new);
//! outcome.trace.iter().for_each(|line| println!("{line}"));
//! assert!(outcome.trace.iter().any(|line| line.ends_with("everything heals")));
//! ```
//!
//! A machine that panics fails its seed, although graft makes an outcome of that which is the same on all servers; only
//! the panics that the simulator injects do not.
//!
//! `examples/own_machine.rs` is a whole one: it runs some seeds, and with `--seed 3` it shows the trace of one.
//!
//! # What is checked
//!
//! After every turn of every server, for every message before it leaves, every durable write, every command that
//! a machine carries out, and every end of a request. What is new is held against what was known before, so
//! a check costs what has changed and never a look at a whole log.
//!
//! | property | what it demands |
//! | --- | --- |
//! | [`ElectionSafety`](Checker::ElectionSafety) | A term has one leader at most (Raft, Figure 3). |
//! | [`LeaderAppendOnly`](Checker::LeaderAppendOnly) | A leader's log only grows while it leads (Raft, Figure 3). |
//! | [`LogMatching`](Checker::LogMatching) | Of one term and index there is one entry, behind one predecessor (Raft, Figure 3). |
//! | [`LeaderCompleteness`](Checker::LeaderCompleteness) | A leader holds every entry that an older term committed (Raft, Figure 3). |
//! | [`StateMachineSafety`](Checker::StateMachineSafety) | All servers apply the same commands in the same order (Raft, Figure 3). |
//! | [`StateHash`](Checker::StateHash) | Machines that have applied the same commands are in the same state and gave the same responses. |
//! | [`LeaderMakesEntries`](Checker::LeaderMakesEntries) | An entry is made by the leader of its term and nobody else. |
//! | [`TermMonotonic`](Checker::TermMonotonic) | A server's term never falls. |
//! | [`VoteOnce`](Checker::VoteOnce) | A server votes for one candidate in a term, across all of its lives. |
//! | [`VoteDurable`](Checker::VoteDurable) | A vote is on disk before it is told, and before it is asked for. |
//! | [`TermDurable`](Checker::TermDurable) | No message states a term that is not on its sender's disk. |
//! | [`AcknowledgementDurable`](Checker::AcknowledgementDurable) | What is acknowledged to a leader is on disk, and is that leader's log. |
//! | [`ElectedByQuorum`](Checker::ElectedByQuorum) | Whoever leads has the durable votes of a quorum. |
//! | [`CommitMonotonic`](Checker::CommitMonotonic) | A server's commit index never falls within a life, and two servers commit the same. |
//! | [`CommitNeedsQuorum`](Checker::CommitNeedsQuorum) | What is committed is on the disks of a quorum. |
//! | [`CommitOwnTerm`](Checker::CommitOwnTerm) | A leader commits by counting only what its own term brought (Raft, §5.4.2). |
//! | [`CommitByLeader`](Checker::CommitByLeader) | A leader knows first that an entry is committed. |
//! | [`HeartbeatWithinMatch`](Checker::HeartbeatWithinMatch) | A heartbeat tells its receiver of no commit that the receiver's disk does not hold. |
//! | [`AppendFromLog`](Checker::AppendFromLog) | A leader sends what is in its log, and does not call committed what is not. |
//! | [`AppliedIsCommitted`](Checker::AppliedIsCommitted) | What is applied is committed. |
//! | [`AppliedIsDurable`](Checker::AppliedIsDurable) | What is applied is on the server's own disk. |
//! | [`LogTimeMonotonic`](Checker::LogTimeMonotonic) | The time in the log never goes back. |
//! | [`WallClockMonotonic`](Checker::WallClockMonotonic) | The wall clock that machines are shown never goes back. |
//! | [`PeersWellFormed`](Checker::PeersWellFormed) | No server finds what another says malformed, or meant for somebody else. |
//! | [`TermsAreCampaigned`](Checker::TermsAreCampaigned) | A server takes on a term only once somebody campaigns in it. |
//! | [`LeaderHasQuorum`](Checker::LeaderHasQuorum) | A leader that no quorum answers steps down within a bounded number of election timeouts. |
//! | [`HandoverComplete`](Checker::HandoverComplete) | A leader hands over to a server that has its whole log on disk, unless its own disk stalls. |
//! | [`MembershipIsLatest`](Checker::MembershipIsLatest) | The membership in force is the latest one in the log. |
//! | [`QuorumsIntersect`](Checker::QuorumsIntersect) | The quorums of consecutive memberships share a server. |
//! | [`RecoveryComplete`](Checker::RecoveryComplete) | What a disk gives back after a crash is what it was told to keep. |
//! | [`WipedNeverVotes`](Checker::WipedNeverVotes) | A server that lost its disk takes no part before it is told to anew. |
//! | [`RaftInvariants`](Checker::RaftInvariants) | What the protocol core demands of itself holds. |
//! | [`WindowsBounded`](Checker::WindowsBounded) | What is on its way to a peer unanswered is bounded. |
//! | [`QueuesBounded`](Checker::QueuesBounded) | What a leader has taken in and not committed or applied, and what waits at clients, is bounded. |
//! | [`AnsweredOnce`](Checker::AnsweredOnce) | A server answers every request that it takes in, once. |
//! | [`ExactlyOnce`](Checker::ExactlyOnce) | No request is applied twice. |
//! | [`AcknowledgedSurvives`](Checker::AcknowledgedSurvives) | What was answered is in the committed log, with the response that was given. |
//! | [`NotAppliedIsTrue`](Checker::NotAppliedIsTrue) | A request that ended as not applied is never applied. |
//! | [`AppliedIsTrue`](Checker::AppliedIsTrue) | A request that ended as applied was applied. |
//! | [`NoLeaderIsTrue`](Checker::NoLeaderIsTrue) | Once everything has healed nobody is told that no server leads while one within reach does. |
//! | [`Linearizable`](Checker::Linearizable) | A request takes effect between its sending and its answer. |
//! | [`ResponseFits`](Checker::ResponseFits) | A response is one that the workload knows to be right. |
//! | [`DeadlineKept`](Checker::DeadlineKept) | A request ends when its deadline says. |
//! | [`NeverUnsafe`](Checker::NeverUnsafe) | No server finds proof that safety is broken. |
//! | [`NothingUnexplained`](Checker::NothingUnexplained) | No server stops, or fails to start, and no machine panics, without a fault to blame. |
//! | [`LeaderInTime`](Checker::LeaderInTime) | Once everything has healed there is a leader within a bounded number of election timeouts. |
//! | [`RequestsResolve`](Checker::RequestsResolve) | Once everything has healed every open request ends, and new ones succeed. |
//! | [`ReplicasConverge`](Checker::ReplicasConverge) | Once everything has healed all servers come to the same log and state. |
//!
//! # What goes wrong
//!
//! Each seed has a part of it. Each kind counts how often it struck, and `run` fails where one of them never did
//! in 1,000 seeds.
//!
//! | fault | what it is |
//! | --- | --- |
//! | [`Loss`](FaultKind::Loss) | A message was lost. |
//! | [`Duplication`](FaultKind::Duplication) | A message came twice. |
//! | [`Reordering`](FaultKind::Reordering) | A message overtook one that was sent before it. |
//! | [`DelaySpike`](FaultKind::DelaySpike) | A message took far longer than the others. |
//! | [`Clogging`](FaultKind::Clogging) | A way took in messages and delivered none for a while. |
//! | [`OneWayCut`](FaultKind::OneWayCut) | A way was cut in one direction. |
//! | [`Partition`](FaultKind::Partition) | The servers were split in two. |
//! | [`Bridge`](FaultKind::Bridge) | The servers were split in two but for one that reached all. |
//! | [`Chain`](FaultKind::Chain) | Each server reached only its neighbours in a row. |
//! | [`IsolatedLeader`](FaultKind::IsolatedLeader) | A leader reached nobody. |
//! | [`Flapping`](FaultKind::Flapping) | A way was cut and healed in quick succession. |
//! | [`ClientCut`](FaultKind::ClientCut) | A client did not reach some of the servers. |
//! | [`OldMessage`](FaultKind::OldMessage) | A message of a former life arrived after a restart of its receiver. |
//! | [`SilentForGood`](FaultKind::SilentForGood) | A server fell silent without a word and did not come back, although all else healed. |
//! | [`Crash`](FaultKind::Crash) | A server ended without a word. |
//! | [`CrashOfAll`](FaultKind::CrashOfAll) | All servers ended at once. |
//! | [`CrashInRecovery`](FaultKind::CrashInRecovery) | A server ended while it was starting. |
//! | [`Pause`](FaultKind::Pause) | A server stood still and then went on as if nothing had been. |
//! | [`DriverPanic`](FaultKind::DriverPanic) | The driver of a server panicked, and its supervisor started it again. |
//! | [`MachinePanic`](FaultKind::MachinePanic) | The machine panicked over an entry. |
//! | [`ClientCrash`](FaultKind::ClientCrash) | A client ended with its requests under way. |
//! | [`UnsyncedLost`](FaultKind::UnsyncedLost) | A crash lost what was not synced. |
//! | [`UnsyncedKept`](FaultKind::UnsyncedKept) | A crash kept what was not synced. |
//! | [`TornTail`](FaultKind::TornTail) | A crash kept some sectors of what was not synced, and the tail was cut. |
//! | [`SyncError`](FaultKind::SyncError) | A sync failed. |
//! | [`FullDisk`](FaultKind::FullDisk) | A disk had no space left. |
//! | [`ReadError`](FaultKind::ReadError) | A disk gave an error instead of what it holds. |
//! | [`BitRot`](FaultKind::BitRot) | A record was not what was written, and its checksum told. |
//! | [`SlowDisk`](FaultKind::SlowDisk) | A disk took many times as long. |
//! | [`StalledDisk`](FaultKind::StalledDisk) | A disk did not answer for a while. |
//! | [`WipedDisk`](FaultKind::WipedDisk) | A server came back under its old name with an empty disk. |
//! | [`ClockSkew`](FaultKind::ClockSkew) | A server's clocks were wrong from the beginning. |
//! | [`ClockDrift`](FaultKind::ClockDrift) | A server's clock ran a little too fast or too slow. |
//! | [`ClockUneven`](FaultKind::ClockUneven) | A server's clock changed its pace. |
//! | [`ClockJump`](FaultKind::ClockJump) | A server's monotonic clock leapt ahead. |
//! | [`WallClockStep`](FaultKind::WallClockStep) | A server's wall clock was set, ahead or back. |
//! | [`Transfer`](FaultKind::Transfer) | A leader was told to hand over. |
//! | [`StopRestart`](FaultKind::StopRestart) | A server was stopped and started again by its supervisor. |
//! | [`Overload`](FaultKind::Overload) | More requests came at once than the servers take. |
//! | [`Cancellation`](FaultKind::Cancellation) | A caller did not wait for the answer to its request. |
//!
//! # What it catches
//!
//! A simulator that misses what is wrong is no evidence, so bugs that implementations of Raft and those around
//! them once had can be switched on, in production code: each is a choice at run time, compiled only with the
//! feature `mutants`, and no checker knows of any. `mutants` hunts each with seeds of 30 simulated seconds and says
//! how many it took; `mutants --recorded` replays the seeds of this table, with the bug, which they must catch, and
//! without it, where all must be well; `mutants --record` writes the table anew.
//!
#![doc = include_str!("../mutants.md")]
//!
//! # The executor by itself
//!
//! Everything in graft that waits or spawns does it through [`graft_core::Runtime`], so any part of it runs here:
//!
//! ```
//! use std::time::Duration;
//! use graft_core::Runtime;
//! use graft_sim::Executor;
//!
//! let executor = Executor::new(7);
//! let runtime = executor.runtime();
//! let slept = executor.block_on(async move {
//!     runtime.sleep_until(Duration::from_secs(3600)).await;
//!     runtime.now()
//! });
//! assert_eq!(slept, Some(Duration::from_secs(3600))); // and no time passed at all
//! ```

mod clock;
mod customers;
mod disk;
mod executor;
mod faults;
mod hosts;
mod journal;
mod machine;
mod nemesis;
mod network;
mod oracle;
mod report;
mod swarm;
mod trace;
mod workload;
mod world;

pub use executor::{Executor, SimRuntime};
pub use faults::{FaultCounts, FaultKind};
pub use oracle::{Checker, Violation};
pub use report::{Summary, simulate_all};
pub use trace::Trace;
pub use workload::{RegisterEntry, RegisterReply, RegisterStore, Registers, Rng, Workload};
pub use world::{Options, Outcome, simulate};
