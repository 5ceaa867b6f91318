//! The mutants, each with a seed that catches it. A model that misses them is no evidence.

use std::time::Instant;

use super::{
    runner::{long, run},
    trace::Trace,
};
use crate::raft::Mutant;

/// A known bug, and a seed in which it is noticed.
struct Kept {
    mutant: Mutant,
    seed: u64,
    /// What happens there.
    story: &'static str,
}

const KEPT: [Kept; 28] = [
    Kept {
        mutant: Mutant::VoteBeforeDurable,
        seed: 271,
        story: "n1 asks for votes in term 2. The disk of n3 stands still, and n3 says yes \
            before its vote is on it: after a crash it could vote again.",
    },
    Kept {
        mutant: Mutant::AppendBeforeDurable,
        seed: 80,
        story: "n3 leads and sends the entry that opens its term. n1 has it in memory only \
            and says that it matches: a crash of n1 would take back what the leader may \
            commit by it.",
    },
    Kept {
        mutant: Mutant::LeaderCountsItselfEarly,
        seed: 412,
        story: "n1 leads three. n2 has the first entry on disk and says so; the write of n1 \
            itself is still under way. It commits: one disk of three holds the entry.",
    },
    Kept {
        mutant: Mutant::RequestVoteBeforeDurable,
        seed: 99,
        story: "n1 campaigns and asks for votes while its vote for itself is on its way to \
            the disk: after a crash it could vote for another in the same term.",
    },
    Kept {
        mutant: Mutant::TruncationWithoutClipping,
        seed: 142,
        story: "n1 takes five commands as a leader that nobody follows any more, and writes \
            them. n3, leader of the next term, has another entry 3; n1 cuts off its \
            five. Their write ends, and n1 takes its log to be durable up to an entry \
            that it no longer has.",
    },
    Kept {
        mutant: Mutant::StaleAcknowledgement,
        seed: 293,
        story: "n4 matched entry 38 with the leader of term 8. n5, leader of term 9, whose log ends \
            at 35, sends its first heartbeat; once term 9 is on disk, n4 tells n5 that \
            entry 38 matches.",
    },
    Kept {
        mutant: Mutant::TermBeforeDurable,
        seed: 124,
        story: "n1 begins a campaign in term 2, and its disk comes to a stand. n2 asks \
            whether it would get a vote; n1 says no and states term 2, of which a crash \
            would leave nothing.",
    },
    Kept {
        mutant: Mutant::CommitOldTerm,
        seed: 351,
        story: "n3 is elected in term 2. n1 answers that it matches up to the entry of term \
            1, and has not got the entry that opens term 2 on disk yet; n3 commits by \
            that answer (Raft Figure 8).",
    },
    Kept {
        mutant: Mutant::VoteCountedTwice,
        seed: 59,
        story: "n4 campaigns among seven and gets the votes of n2 and n1. The one of n1 is \
            delivered twice: with its own that makes four, and n4 leads with three.",
    },
    Kept {
        mutant: Mutant::VoteWithoutLogCheck,
        seed: 662,
        story: "n2 and n1 have committed entry 2, of which n3 has nothing. n1 crashes, n3 \
            campaigns, n2 votes for it, and n3 leads without the entry.",
    },
    Kept {
        mutant: Mutant::VoteForTheLongerLog,
        seed: 171,
        story: "The log of n2 ends with entry 6, of term 3, and that of n5 with entry 8, of \
            term 2. n5 asks whether it would be elected, and n2 says yes.",
    },
    Kept {
        mutant: Mutant::RefusalCountedAsVote,
        seed: 635,
        story: "n2 asks for votes in term 2. n4 votes for it; n7 campaigns itself and says no, \
            and n2 leads with the two.",
    },
    Kept {
        mutant: Mutant::VoteForgottenInTerm,
        seed: 38,
        story: "n3 has voted for itself in term 3. It goes back to following in the same term, \
            and its vote is gone.",
    },
    Kept {
        mutant: Mutant::VoteForgottenByRestart,
        seed: 626,
        story: "n3 campaigns in term 5 and has its vote for itself on disk. It crashes, and \
            starts with the term and without the vote.",
    },
    Kept {
        mutant: Mutant::LeaderOutlivesItsTerm,
        seed: 310,
        story: "n1 leads term 2 and n3, elected by n2, leads term 3. A heartbeat of n3 reaches \
            n1, which takes term 3 and goes on leading: there are two.",
    },
    Kept {
        mutant: Mutant::HalfIsAQuorum,
        seed: 248,
        story: "n3 leads four. Entry 3 is on its own disk and on that of n2, and it commits: \
            two of four.",
    },
    Kept {
        mutant: Mutant::ReplyBeforeFlush,
        seed: 228,
        story: "n1 leads five, and its own write of entry 3 is under way. n4, n5 and n3 \
            acknowledge it; n1 commits and gives its machine the entry, which its disk \
            does not hold.",
    },
    Kept {
        mutant: Mutant::HeartbeatCommitsUnmatched,
        seed: 50,
        story: "n4 has committed entry 2 with n1 and n3. n2 has heard of nothing yet but the \
            founding, and a heartbeat tells it that entry 2 is committed.",
    },
    Kept {
        mutant: Mutant::TruncationByOldAppend,
        seed: 480,
        story: "n3 has sent entry 8 to n1 twice. Both came: after the first n1 got and \
            committed entry 9, and the second cuts it off.",
    },
    Kept {
        mutant: Mutant::AppendWithoutPrevTerm,
        seed: 524,
        story: "n1 holds nineteen entries of term 2. n2, leader of term 5, sends entry 4 \
            behind its third, of term 3; n1 takes it behind its own third.",
    },
    Kept {
        mutant: Mutant::StaleTermAcknowledged,
        seed: 313,
        story: "n1 led term 5, and n2 acknowledged entry 7 to it then. That arrives when n1 \
            leads term 7 with a log of fewer entries.",
    },
    Kept {
        mutant: Mutant::StaleRejection,
        seed: 652,
        story: "n3 refused an append of n1 behind entry 4, then took the entries and \
            acknowledged them. The refusal comes last, and n1 goes back behind what \
            matched.",
    },
    Kept {
        mutant: Mutant::NoBlankAtElection,
        seed: 30,
        story: "n4 is elected in term 2 by n1, n3 and n2, and its log ends where it did \
            before.",
    },
    Kept {
        mutant: Mutant::RecoveredLogIsCommitted,
        seed: 635,
        story: "Five servers have only just been founded. Each takes the founding membership \
            that its log holds to be committed, and its machine gets it before anybody \
            leads.",
    },
    Kept {
        mutant: Mutant::LogTimeOfOwnClock,
        seed: 350,
        story: "n3 is elected in term 3. Its clock is behind the one of the leader before, and \
            so is the entry that opens the term.",
    },
    Kept {
        mutant: Mutant::LostResponder,
        seed: 173,
        story: "n1 leads and has taken in four proposals. It is deposed before they are \
            committed, and nobody who waits hears of it.",
    },
    Kept {
        mutant: Mutant::WindowIgnored,
        seed: 280,
        story: "One entry may be on its way to a peer. n4 has sent entry 3 to n2 and hears \
            that entry 2 matches: it sends entry 4 without waiting for 3.",
    },
    Kept {
        mutant: Mutant::UncommittedUnbounded,
        seed: 78,
        story: "n1 may take in 100 bytes that are not committed. Two proposals of 110 come, \
            and it takes both.",
    },
];

/// How a mutant was caught.
struct Catch {
    seed: u64,
    steps: u64,
    why: String,
}

/// The first seed at or after `first` that catches a mutant. Ten million steps take far less than a
/// minute, and every mutant is to be caught within one.
fn search(mutant: Mutant, first: u64) -> Option<Catch> {
    const MOST_STEPS: u64 = 10_000_000;
    let mut steps = 0;
    let mut seeds = first..;
    while steps < MOST_STEPS {
        let seed = seeds.next()?;
        let run = run(seed, Some(mutant), Trace::default());
        steps += run.steps;
        if let Some(why) = run.failure {
            return Some(Catch { seed, steps, why });
        }
    }
    None
}

/// A seed tells its story only as long as the core and the model take the course they took when it was
/// kept. Where one has changed, the default run is content with a seed close behind, and the long run
/// asks for the story to be told anew.
#[test]
fn the_kept_seed_of_every_mutant_catches_it() {
    let kept = |mutant: Mutant| KEPT.iter().any(|kept| kept.mutant == mutant);
    assert!(Mutant::OF_THE_MODEL.iter().copied().all(kept), "a mutant has no kept seed");
    let mut stale = String::new();
    for Kept { mutant, seed, story } in KEPT {
        let healthy = run(seed, None, Trace::default()).failure;
        assert!(healthy.is_none(), "seed {seed} fails without {mutant:?}: {healthy:?}");
        let Some(caught) = search(mutant, seed) else { panic!("{mutant:?} is not caught") };
        if caught.seed == seed {
            println!("{mutant:?}: seed {seed}: {}\n    {story}", caught.why);
        } else {
            stale += &format!("{mutant:?}: seed {} instead of {seed}\n", caught.seed);
        }
    }
    println!("{stale}");
    assert!(
        stale.is_empty() || !long(),
        "these kept seeds pass their bug by; keep the others with their stories, as \
         `GRAFT_MUTANT=<name> GRAFT_SEED=<seed>` tells them:\n{stale}"
    );
}

#[test]
fn a_search_from_anywhere_catches_every_mutant() {
    let mut missed = Vec::new();
    for mutant in Mutant::OF_THE_MODEL.iter().copied() {
        let started = Instant::now();
        let Some(Catch { seed, steps, why }) = search(mutant, 1_000_000) else {
            missed.push(mutant);
            continue;
        };
        let took = started.elapsed();
        println!("{mutant:?}: seed {seed} after {steps} steps and {took:?}: {why}");
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
