//! Calls of the medium fail, and space runs out.

use std::{ops::Range, sync::Arc};

use graft_core::{Index, StoreError};

use super::{
    Suite, Tally, Workload,
    life::{End, Life},
    workers::{Case, Progress},
};
use crate::{
    conformance::Failure,
    medium::{Call, Fault, FaultyMedium, random::Random},
};

/// How many of the calls of each kind are made to fail in one workload. Where there are fewer, all are.
const SAMPLES: u64 = 6;

impl Suite {
    /// Lets calls of the medium fail: once, a few times in a row, or from some moment on for good; lets all
    /// of them fail for a while; and lets the world stop.
    ///
    /// # Errors
    ///
    /// The first store that acknowledged what it could not make durable, that went on after a failed
    /// sync, or whose next process did not find what was acknowledged.
    pub fn failing_calls(&self, seeds: Range<u64>) -> Result<Tally, Failure> {
        let suite = self.clone();
        let case = move |seed, progress: &Progress| suite.fail_each_call(seed, progress);
        self.each("failing_calls", seeds, &(Arc::new(case) as Arc<Case>))
    }

    /// Lets the space on the disk run out somewhere in the work of each seed.
    ///
    /// # Errors
    ///
    /// The first store that acknowledged what it could not make durable, or whose next process, which
    /// has space again, did not find what was acknowledged.
    pub fn full_disk(&self, seeds: Range<u64>) -> Result<Tally, Failure> {
        let suite = self.clone();
        let case = move |seed, progress: &Progress| suite.fill_the_disk(seed, progress);
        self.each("full_disk", seeds, &(Arc::new(case) as Arc<Case>))
    }

    fn fail_each_call(&self, seed: u64, progress: &Progress) -> Result<Tally, String> {
        let mut random = Random::of(&[seed, 3]);
        let batches = 4 + random.index(9);
        let workload = Workload::generate(seed, batches + 2);
        let mut untroubled = Life::new(self, &workload, FaultyMedium::new(seed), 0..=0);
        self.work_until(&mut untroubled, batches, seed).map_err(End::into_words)?;
        untroubled.close();
        let mut tally = Tally { workloads: 1, ..Tally::default() };
        for call in Call::ALL {
            let calls = untroubled.medium.calls(call);
            for sample in 0..calls.min(SAMPLES) {
                let after = if calls <= SAMPLES { sample } else { random.below(calls) };
                let times = [1, 1, 3, u64::MAX][random.index(4)];
                let fault = Fault { call: Some(call), after, times };
                let place = || format!("{call:?} fails {times} times after {after} of {calls}");
                progress.note(seed, place);
                let medium = FaultyMedium::new(seed);
                medium.fail(fault);
                let outcome = self.suffer(&workload, batches, &medium, &mut random, &mut tally);
                outcome.map_err(|what| format!("{}: {what}", place()))?;
            }
        }
        let calls: u64 = Call::ALL.iter().map(|call| untroubled.medium.calls(*call)).sum();
        for _ in 0..SAMPLES {
            let (after, times) = (random.below(calls), 1 + random.below(30));
            let place = || format!("an outage of {times} calls after {after} of {calls}");
            progress.note(seed, place);
            let medium = FaultyMedium::new(seed);
            medium.fail(Fault { call: None, after, times });
            let outcome = self.suffer(&workload, batches, &medium, &mut random, &mut tally);
            outcome.map_err(|what| format!("{}: {what}", place()))?;
        }
        for _ in 0..SAMPLES {
            let stop = random.below(untroubled.medium.boundaries() + 1);
            let place = || format!("the world stops at boundary {stop}");
            progress.note(seed, place);
            let medium = FaultyMedium::new(seed);
            medium.stop_at(stop);
            let outcome = self.suffer(&workload, batches, &medium, &mut random, &mut tally);
            outcome.map_err(|what| format!("{}: {what}", place()))?;
        }
        Ok(tally)
    }

    fn fill_the_disk(&self, seed: u64, progress: &Progress) -> Result<Tally, String> {
        let mut random = Random::of(&[seed, 4]);
        let batches = 6 + random.index(20);
        let workload = Workload::generate(seed, batches + 2);
        let mut untroubled = Life::new(self, &workload, FaultyMedium::new(seed), 0..=0);
        self.work_until(&mut untroubled, batches, seed).map_err(End::into_words)?;
        let size = untroubled.medium.image().space();
        untroubled.close();
        let mut tally = Tally { workloads: 1, ..Tally::default() };
        for _ in 0..SAMPLES {
            let space = random.below(size + 1);
            let place = || format!("a disk with space for {space} bytes");
            progress.note(seed, place);
            let medium = FaultyMedium::new(seed);
            medium.limit_space(space);
            let outcome = self.suffer(&workload, batches, &medium, &mut random, &mut tally);
            outcome.map_err(|what| format!("{}: {what}", place()))?;
        }
        Ok(tally)
    }

    /// Opens and works, with a reopening in the middle.
    fn work_until(&self, life: &mut Life<'_>, state: usize, seed: u64) -> Result<(), End> {
        let mut random = Random::of(&[seed, 5]);
        life.open()?;
        while life.state < state {
            life.work(&mut random)?;
            if life.state == state / 2 {
                life.close();
                life.open()?;
            }
        }
        life.check()
    }

    /// Works on a medium that fails, until the store reports it, and looks at what is left.
    fn suffer(
        &self,
        workload: &Workload,
        batches: usize,
        medium: &FaultyMedium,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut life = Life::new(self, workload, medium.clone(), 0..=0);
        let outcome = self.work_until(&mut life, batches, random.next());
        if let Err(End::Broken(what)) = outcome {
            return Err(what);
        }
        let had_failed_sync = failed_syncs(medium) > 0;
        if had_failed_sync {
            refuses_service(&mut life)?;
        }
        life.close();
        for call in Call::ALL {
            tally.add_failed(call, medium.failed(call));
        }
        medium.heal();
        if failed_syncs(medium) > 0 {
            stays_poisoned(self, &life)?;
        }
        let allowed = life.allowed_now();
        let medium = if random.percent(50) { medium.crash(random.next()) } else { medium.exit() };
        tally.crashes += 1;
        let mut next = Life::new(self, workload, medium, allowed);
        let outcome = next.open().and_then(|()| next.work(random)).and_then(|()| next.check());
        outcome.map_err(|end| format!("the next process: {}", end.into_words()))
    }
}

fn failed_syncs(medium: &FaultyMedium) -> u64 {
    medium.failed(Call::Sync) + medium.failed(Call::SyncNames)
}

/// A store whose sync failed acknowledges nothing more, and does not recover.
fn refuses_service(life: &mut Life<'_>) -> Result<(), String> {
    let Some(store) = life.store.clone() else { return Ok(()) };
    // What failed may have been beside the work. Once a read has been answered, whatever came of it,
    // a store that does one thing after the other beside its work knows of it.
    let _ = life.wait("read", store.read(Index(1)..Index(2), 1));
    let number = life.state;
    if number < life.workload.batches()
        && life.wait("write", life.workload.perform(&*store, number)).is_ok()
    {
        return Err("a write was acknowledged after a failed sync".to_owned());
    }
    match life.wait("recover", store.recover()) {
        Err(End::Reported(_, Some(StoreError::Poisoned { .. }))) => Ok(()),
        other => Err(format!("after a failed sync `recover` is {other:?} and not `Poisoned`")),
    }
}

/// After a failed sync no store opens on the medium any more in this process, however well the disk is.
fn stays_poisoned(suite: &Suite, life: &Life<'_>) -> Result<(), String> {
    let Ok(store) = (suite.open)(Arc::new(life.medium.clone())) else { return Ok(()) };
    match life.wait("recover", store.recover()) {
        Err(End::Reported(_, Some(StoreError::Poisoned { .. }))) => Ok(()),
        other => {
            Err(format!("reopened after a failed sync, `recover` is {other:?}, not `Poisoned`"))
        }
    }
}
