//! Bits on the disk turn around.

use std::{
    ops::{Range, RangeInclusive},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use graft_core::StoreError;

use super::{
    Suite, Tally, Workload,
    life::{End, Life},
    workers::{Case, Progress, words},
};
use crate::{
    conformance::Failure,
    medium::{FaultyMedium, Image, random::Random},
};

/// Which bits to turn around, one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bits {
    /// So many, at random.
    Sample(u64),
    /// Every one.
    Every,
    /// Every `of`-th one from `part` on: all parts together are every one.
    Part {
        /// Which of them, from zero.
        part: u64,
        /// How many parts there are.
        of: u64,
    },
    /// The one with this number, counted through the files by name: to look at a failure again.
    Only(u64),
}

/// Into how many cases the bits of one store are divided.
const SHARDS: u64 = 64;

impl Suite {
    /// Turns bits around in stores that hold the work of each seed: one that was closed, one whose
    /// process ended at work, and one that saw a power cut. Of the last, a damaged last write may be
    /// missing: no store can tell it from one that was never finished unless it syncs twice for each.
    ///
    /// # Errors
    ///
    /// The first store that returned something that was not written, panicked, or reported the damage
    /// without saying where.
    pub fn bit_flips(&self, seeds: Range<u64>, bits: Bits) -> Result<Tally, Failure> {
        let failure = |reason| Failure { check: "bit_flips", reason };
        let mut tally = Tally::default();
        for seed in seeds {
            let mut random = Random::of(&[seed, 6]);
            let batches = 5 + random.index(16);
            let workload = Workload::generate(seed, batches + 2);
            let closed = Store::closed(self, &workload, batches, seed);
            let ended = Store::torn(self, &workload, batches, true, seed);
            let torn = Store::torn(self, &workload, batches, false, seed);
            for store in [closed, ended, torn] {
                let store = store.map_err(|what| failure(format!("seed {seed}: {what}")))?;
                tally += self.flip(store, bits, seed)?;
            }
            tally.workloads += 1;
        }
        Ok(tally)
    }

    /// Turns bits around in a store that holds all of `workload` and was closed.
    ///
    /// # Errors
    ///
    /// Those of [`bit_flips`](Self::bit_flips).
    pub fn bit_flips_in(
        &self,
        workload: &Workload,
        bits: Bits,
        seed: u64,
    ) -> Result<Tally, Failure> {
        let store = Store::closed(self, workload, workload.batches(), seed);
        let store = store.map_err(|reason| Failure { check: "bit_flips", reason })?;
        Ok(Tally { workloads: 1, ..self.flip(store, bits, seed)? })
    }

    fn flip(&self, store: Store, bits: Bits, seed: u64) -> Result<Tally, Failure> {
        let suite = self.clone();
        let case = move |shard, progress: &Progress| {
            let mut tally = Tally::default();
            let mut one = |number| -> Result<(), String> {
                let (name, bit) = store.place(number);
                let what = store.what;
                let place =
                    || format!("workload {seed}, {what}, bit {bit} of `{name}` (number {number})");
                progress.note(shard, place);
                let mut random = Random::of(&[seed, 7, number]);
                let outcome = suite.look_at_flipped(&store, name, bit, &mut random);
                let is_reported = outcome.map_err(|what| format!("{}: {what}", place()))?;
                tally.flips += 1;
                tally.reported += u64::from(is_reported);
                Ok(())
            };
            let every = |first, step| {
                (first..store.bits).step_by(usize::try_from(step).unwrap_or(usize::MAX))
            };
            match bits {
                Bits::Only(number) if shard == 0 => one(number)?,
                Bits::Only(_) => {}
                Bits::Every => every(shard, SHARDS).try_for_each(&mut one)?,
                Bits::Part { part, of } => {
                    every(part + shard * of, SHARDS * of).try_for_each(&mut one)?;
                }
                Bits::Sample(count) => {
                    let mut choices = Random::of(&[seed, 8, shard]);
                    let count = count / SHARDS + u64::from(shard < count % SHARDS);
                    for _ in 0..count {
                        one(choices.below(store.bits))?;
                    }
                }
            }
            Ok(tally)
        };
        self.each("bit_flips", 0..SHARDS, &(Arc::new(case) as Arc<Case>))
    }

    /// Opens a store with one wrong bit, and says whether it noticed.
    fn look_at_flipped(
        &self,
        store: &Store,
        name: &str,
        bit: u64,
        random: &mut Random,
    ) -> Result<bool, String> {
        let mut image = store.image.clone();
        image.flip(name, bit);
        let medium = FaultyMedium::holding(image, bit);
        let mut life = Life::new(self, &store.workload, medium, store.allowed.clone());
        // A panic is reported with the bit, which the one who runs the cases does not know.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            life.open()?;
            // What is damaged now and looked at only later must not come out either.
            if life.left() > 0 && random.percent(10) {
                life.work(random)?;
                life.close();
                life.open()?;
            }
            Ok(())
        }));
        match outcome.map_err(|panic| words(&*panic))? {
            Ok(()) => Ok(false),
            Err(End::Broken(what)) => Err(what),
            Err(End::Reported(what, error)) => match error {
                Some(StoreError::Corrupt { location, .. }) if (self.names_a_place)(&location) => {
                    Ok(true)
                }
                None if (self.names_a_place)(&what) => Ok(true),
                _ => Err(format!("the damage was reported without saying where it is: {what}")),
            },
        }
    }
}

/// A disk with a store on it.
struct Store {
    what: &'static str,
    workload: Workload,
    image: Image,
    allowed: RangeInclusive<usize>,
    /// Names and sizes in bits.
    files: Vec<(String, u64)>,
    bits: u64,
}

impl Store {
    /// One that was closed in state `state`.
    fn closed(suite: &Suite, workload: &Workload, state: usize, seed: u64) -> Result<Self, String> {
        let medium = FaultyMedium::new(seed);
        let life = fill(suite, workload, state, medium, seed)?;
        let image = life.medium.image();
        Ok(Self::new("closed", workload.clone(), image, life.state..=life.state))
    }

    /// One that was at work when its process ended, or when the power went.
    fn torn(
        suite: &Suite,
        workload: &Workload,
        state: usize,
        is_exit: bool,
        seed: u64,
    ) -> Result<Self, String> {
        let medium = FaultyMedium::new(seed).recording();
        let life = fill(suite, workload, state, medium, seed)?;
        let Some(trace) = life.medium.trace() else {
            return Err("nothing was recorded".to_owned());
        };
        let mut random = Random::of(&[seed, 9]);
        let boundaries = trace.boundaries();
        let replay = trace.at(boundaries / 2 + random.below(boundaries / 2 + 1));
        let (first, last) = life.marks.allowed(replay.boundary()).into_inner();
        if is_exit {
            let image = replay.exit(seed).image();
            return Ok(Self::new("not closed", workload.clone(), image, first..=last));
        }
        // Nothing but the last write itself may tell of it once the power went, and damaged it looks as
        // if it had never been finished. Every write before it is known by the next.
        let image = replay.crash(seed).image();
        let allowed = life.marks.before_commit(first)..=last;
        Ok(Self::new("after a power cut", workload.clone(), image, allowed))
    }

    fn new(
        what: &'static str,
        workload: Workload,
        image: Image,
        allowed: RangeInclusive<usize>,
    ) -> Self {
        let size = |name: &str| (name.to_owned(), image.len(name).unwrap_or(0) * 8);
        let files: Vec<_> = image.names().map(size).collect();
        let bits = files.iter().map(|(_, bits)| bits).sum();
        Self { what, workload, image, allowed, files, bits }
    }

    /// Which file's bit the one with this number is.
    fn place(&self, mut bit: u64) -> (&str, u64) {
        for (name, bits) in &self.files {
            if bit < *bits {
                return (name, bit);
            }
            bit -= bits;
        }
        ("", 0)
    }
}

/// Does the work until `state`, or one batch more where two were given at once, and closes the store.
fn fill<'a>(
    suite: &'a Suite,
    workload: &'a Workload,
    state: usize,
    medium: FaultyMedium,
    seed: u64,
) -> Result<Life<'a>, String> {
    let mut random = Random::of(&[seed, 10]);
    let mut life = Life::new(suite, workload, medium, 0..=0);
    let mut work = || {
        life.open()?;
        while life.state < state {
            life.work(&mut random)?;
        }
        Ok(())
    };
    work().map_err(End::into_words)?;
    life.close();
    Ok(life)
}
