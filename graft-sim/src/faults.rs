//! What can go wrong, by name, and how often it did.

/// Declares the kinds of faults with what each means.
macro_rules! faults {
    ($($name:ident $meaning:literal,)*) => {
        /// A kind of fault. Each counts how often it struck; a run of many seeds in which one never did is no
        /// evidence against it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum FaultKind {
            $(#[doc = $meaning] $name,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

faults! {
    Loss "A message was lost.",
    Duplication "A message came twice.",
    Reordering "A message overtook one that was sent before it.",
    DelaySpike "A message took far longer than the others.",
    Clogging "A way took in messages and delivered none for a while.",
    OneWayCut "A way was cut in one direction.",
    Partition "The servers were split in two.",
    Bridge "The servers were split in two but for one that reached all.",
    Chain "Each server reached only its neighbours in a row.",
    IsolatedLeader "A leader reached nobody.",
    Flapping "A way was cut and healed in quick succession.",
    ClientCut "A client did not reach some of the servers.",
    OldMessage "A message of a former life arrived after a restart of its receiver.",
    SilentForGood "A server fell silent without a word and did not come back, although all else healed.",
    Crash "A server ended without a word.",
    CrashOfAll "All servers ended at once.",
    CrashInRecovery "A server ended while it was starting.",
    Pause "A server stood still and then went on as if nothing had been.",
    DriverPanic "The driver of a server panicked, and its supervisor started it again.",
    MachinePanic "The machine panicked over an entry.",
    ClientCrash "A client ended with its requests under way.",
    UnsyncedLost "A crash lost what was not synced.",
    UnsyncedKept "A crash kept what was not synced.",
    TornTail "A crash kept some sectors of what was not synced, and the tail was cut.",
    SyncError "A sync failed.",
    FullDisk "A disk had no space left.",
    ReadError "A disk gave an error instead of what it holds.",
    BitRot "A record was not what was written, and its checksum told.",
    SlowDisk "A disk took many times as long.",
    StalledDisk "A disk did not answer for a while.",
    WipedDisk "A server came back under its old name with an empty disk.",
    ClockSkew "A server's clocks were wrong from the beginning.",
    ClockDrift "A server's clock ran a little too fast or too slow.",
    ClockUneven "A server's clock changed its pace.",
    ClockJump "A server's monotonic clock leapt ahead.",
    WallClockStep "A server's wall clock was set, ahead or back.",
    Transfer "A leader was told to hand over.",
    StopRestart "A server was stopped and started again by its supervisor.",
    Overload "More requests came at once than the servers take.",
    Cancellation "A caller did not wait for the answer to its request.",
}

/// How often each kind of fault struck.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultCounts([u64; FaultKind::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; FaultKind::ALL.len()])
    }
}

impl FaultCounts {
    /// How often `kind` struck.
    #[must_use]
    pub const fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// How often anything struck.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The kinds that never struck.
    pub fn missing(&self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.iter().copied().filter(|kind| self.of(*kind) == 0)
    }

    /// Adds what is counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    pub(crate) fn strike(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }
}
