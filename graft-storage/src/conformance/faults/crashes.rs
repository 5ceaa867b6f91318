//! The power goes at every boundary, and again while the store recovers.

use std::{ops::Range, sync::Arc};

use super::{
    Suite, Tally, Workload,
    life::{Life, Marks},
    workers::{Case, Progress},
};
use crate::{
    conformance::Failure,
    medium::{FaultyMedium, Replay, random::Random},
};

/// Batches that a workload has beyond those after which the power goes, so that there is something to go
/// on with.
const SPARE: usize = 12;

/// How often in a row the power goes, at most.
const GENERATIONS: u64 = 4;

impl Suite {
    /// Lets the power go, or the process end, at every boundary of the work of each seed: 5 to 50
    /// batches, now and then with a reopening in between.
    ///
    /// # Errors
    ///
    /// The first store that was not in a state between the last acknowledged and the last submitted
    /// write, that did not open, or that took no further writes.
    pub fn crash_points(&self, seeds: Range<u64>) -> Result<Tally, Failure> {
        let suite = self.clone();
        let case = move |seed, progress: &Progress| suite.crash_everywhere(seed, progress);
        self.each("crash_points", seeds, &(Arc::new(case) as Arc<Case>))
    }

    fn crash_everywhere(&self, seed: u64, progress: &Progress) -> Result<Tally, String> {
        let mut random = Random::of(&[seed, 2]);
        let batches = 5 + random.index(46);
        let workload = Workload::generate(seed, batches + SPARE);
        let medium = FaultyMedium::new(seed).recording();
        let mut life = Life::new(self, &workload, medium, 0..=0);
        progress.note(seed, || "the work before any crash".to_owned());
        live(&mut life, batches, &mut random)?;
        let Some(trace) = life.medium.trace() else {
            return Err("nothing was recorded".to_owned());
        };
        let mut tally = Tally { workloads: 1, ..Tally::default() };
        let mut replay = trace.replay();
        loop {
            let place = || {
                let next = replay.next_step().unwrap_or_else(|| "the end".to_owned());
                format!("boundary {} of {}, {next}", replay.boundary(), trace.boundaries())
            };
            progress.note(seed, place);
            let outcome = self.die(&workload, &replay, &life.marks, 0, &mut random, &mut tally);
            outcome.map_err(|what| format!("{}: {what}", place()))?;
            if !replay.advance() {
                return Ok(tally);
            }
        }
    }

    /// Ends the life that led to `replay`, begins the next one, and maybe ends that one too.
    fn die(
        &self,
        workload: &Workload,
        replay: &Replay<'_>,
        marks: &Marks,
        generation: u64,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let allowed = marks.allowed(replay.boundary());
        let choice = random.next();
        let is_exit = random.percent(20);
        let medium = if is_exit { replay.exit(choice) } else { replay.crash(choice) };
        let mut life = Life::new(self, workload, medium.recording(), allowed);
        tally.crashes += 1;
        tally.repeated += u64::from(generation > 0);
        let how =
            if is_exit { "the process ended".to_owned() } else { format!("crash {choice:#x}") };
        let outcome = go_on(&mut life, random);
        outcome.map_err(|what| format!("{how}: {what}"))?;
        let again = if generation == 0 { 60 } else { 40 };
        if generation + 1 >= GENERATIONS || !random.percent(again) {
            return Ok(());
        }
        let Some(trace) = life.medium.trace() else { return Ok(()) };
        let replay = trace.at(random.below(trace.boundaries() + 1));
        let outcome = self.die(workload, &replay, &life.marks, generation + 1, random, tally);
        outcome.map_err(|what| {
            let (at, of) = (replay.boundary(), trace.boundaries());
            format!("{how}, then at boundary {at} of {of}: {what}")
        })
    }
}

/// Does the work until `state`, and closes the store.
fn live(life: &mut Life<'_>, state: usize, random: &mut Random) -> Result<(), String> {
    let mut work = || {
        life.open()?;
        while life.state < state {
            life.work(random)?;
            if random.percent(4) {
                life.close();
                life.open()?;
            } else if random.percent(3) {
                life.check()?;
            }
        }
        Ok(())
    };
    work().map_err(super::life::End::into_words)?;
    life.close();
    Ok(())
}

/// Finds the store in a state in which it may be, and does a little more work.
fn go_on(life: &mut Life<'_>, random: &mut Random) -> Result<(), String> {
    let mut work = || {
        life.open()?;
        for _ in 0..1 + random.below(2) {
            if life.left() > 0 {
                life.work(random)?;
            }
        }
        if random.percent(30) {
            life.check()?;
        }
        Ok(())
    };
    work().map_err(super::life::End::into_words)?;
    life.close();
    Ok(())
}
