//! The simulator's own workload: registers that remember how often they were written.
//!
//! Every write brings a value that no other brings, and every response says which value stands at which
//! place of a register's history. So each response is a claim about that history, claims are held
//! against each other as they come, and linearizability costs a look into a table: a place never gets a
//! second value, a swap stands right behind the value it replaced, and nothing stands before what
//! had been answered when it was asked for.

use std::collections::BTreeMap;

use graft::{Archive, Deserialize, Entry, Machine, Serialize};

use super::{Rng, Workload};

/// What registers are asked.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[rkyv(crate = graft::rkyv)]
pub enum RegisterEntry {
    /// Write a value. The text makes entries of different sizes.
    Append {
        /// Which register.
        register: u8,
        /// What it is to hold.
        value: u64,
        /// Of no meaning.
        text: String,
    },
    /// Write a value if another one stands there.
    Swap {
        /// Which register.
        register: u8,
        /// What must stand there.
        expected: u64,
        /// What it is to hold.
        value: u64,
    },
    /// Say what stands there.
    Read {
        /// Which register.
        register: u8,
    },
}

/// What registers answer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[rkyv(crate = graft::rkyv)]
pub enum RegisterReply {
    /// The value was written, as number `place` of this register.
    Written {
        /// Counted from 1.
        place: u64,
    },
    /// Nothing was written: this stands there.
    Holds {
        /// How often it was written, zero for never.
        place: u64,
        /// What stands there, zero for nothing.
        value: u64,
    },
}

impl Entry for RegisterEntry {
    type Response = RegisterReply;
}

/// The machine: some registers.
#[derive(Clone, Debug, Default)]
pub struct RegisterStore {
    /// How often each was written, and what it holds.
    registers: Vec<(u64, u64)>,
    hash: u64,
}

impl RegisterStore {
    fn register(&mut self, register: u8) -> &mut (u64, u64) {
        let at = usize::from(register);
        if at >= self.registers.len() {
            self.registers.resize(at + 1, (0, 0));
        }
        &mut self.registers[at]
    }

    fn write(&mut self, register: u8, value: u64) -> RegisterReply {
        let held = self.register(register);
        held.0 += 1;
        held.1 = value;
        let place = held.0;
        self.hash = mix(self.hash ^ mix(value ^ (place << 8) ^ u64::from(register)));
        RegisterReply::Written { place }
    }

    fn read(&mut self, register: u8) -> RegisterReply {
        let (place, value) = *self.register(register);
        RegisterReply::Holds { place, value }
    }
}

impl Machine for RegisterStore {
    type Entry = RegisterEntry;

    fn handle_entry(&mut self, entry: RegisterEntry) -> RegisterReply {
        match entry {
            RegisterEntry::Append { register, value, .. } => self.write(register, value),
            RegisterEntry::Swap { register, expected, value } => {
                if self.register(register).1 == expected {
                    self.write(register, value)
                } else {
                    self.read(register)
                }
            }
            RegisterEntry::Read { register } => self.read(register),
        }
    }
}

/// The workload: appends, swaps and reads of a few registers.
#[derive(Debug)]
pub struct Registers {
    histories: Vec<History>,
    next_value: u64,
    longest_text: usize,
}

/// What is known of a register by what was answered.
#[derive(Debug, Default)]
struct History {
    /// The value at each place that somebody has spoken of.
    claims: BTreeMap<u64, u64>,
    /// Swaps that stand at a place whose predecessor nobody has spoken of yet: what it must be.
    behind: BTreeMap<u64, u64>,
    /// The highest place that an answer has spoken of, and what stands there.
    told: (u64, u64),
}

/// A request under way.
#[derive(Debug)]
pub struct OpenRequest {
    register: usize,
    /// What had been answered when it was sent.
    told: u64,
    writes: Option<u64>,
    expects: Option<u64>,
}

impl Registers {
    /// Some registers, with entries of some length.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Self {
        let count = rng.usize(1..=8);
        let longest_text = if rng.bool() { 0 } else { rng.usize(1..600) };
        let histories = (0..count).map(|_| History::default()).collect();
        Self { histories, next_value: 0, longest_text }
    }
}

impl Workload for Registers {
    type Machine = RegisterStore;
    type Open = OpenRequest;

    fn machine(&self) -> RegisterStore {
        RegisterStore::default()
    }

    fn request(&mut self, rng: &mut Rng) -> (RegisterEntry, OpenRequest) {
        let at = rng.usize(..self.histories.len());
        let register = u8::try_from(at).unwrap_or(0);
        let (told, held) = self.histories[at].told;
        let mut open = OpenRequest { register: at, told, writes: None, expects: None };
        let mut value = || {
            self.next_value += 1;
            open.writes = Some(self.next_value);
            self.next_value
        };
        let entry = match rng.u32(..8) {
            0 | 1 => RegisterEntry::Read { register },
            2..=4 => {
                let value = value();
                open.expects = Some(held);
                RegisterEntry::Swap { register, expected: held, value }
            }
            _ => {
                let length = rng.usize(..=self.longest_text);
                RegisterEntry::Append { register, value: value(), text: "x".repeat(length) }
            }
        };
        (entry, open)
    }

    fn response(&mut self, open: OpenRequest, response: &RegisterReply) -> Result<(), String> {
        let history = &mut self.histories[open.register];
        let place = match *response {
            RegisterReply::Written { place } => {
                let Some(value) = open.writes else {
                    return Err(format!("a read was answered with {response:?}"));
                };
                if place <= open.told {
                    return Err(format!(
                        "{open:?} was written at {place}, before what was answered"
                    ));
                }
                history.claim(place, value)?;
                if let Some(expected) = open.expects {
                    history.claim_before(place, expected)?;
                }
                place
            }
            RegisterReply::Holds { place, value } => {
                if open.writes.is_some() && open.expects.is_none() {
                    return Err(format!("an append was answered with {response:?}"));
                }
                if open.expects == Some(value) {
                    return Err(format!("a swap of {value} was refused although it stands there"));
                }
                if place < open.told {
                    return Err(format!("{open:?} saw {place}, which was over when it was sent"));
                }
                history.claim(place, value)?;
                place
            }
        };
        if place > history.told.0 {
            history.told = (place, history.claims.get(&place).copied().unwrap_or(0));
        }
        Ok(())
    }

    fn state_hash(machine: &RegisterStore) -> u64 {
        machine.hash
    }

    fn response_hash(response: &RegisterReply) -> u64 {
        match *response {
            RegisterReply::Written { place } => mix(place),
            RegisterReply::Holds { place, value } => mix(mix(place) ^ value),
        }
    }
}

impl History {
    /// `value` stands at `place`.
    fn claim(&mut self, place: u64, value: u64) -> Result<(), String> {
        let known = *self.claims.entry(place).or_insert(value);
        if known != value {
            return Err(format!(
                "place {place} holds {known} by one answer and {value} by another"
            ));
        }
        match self.behind.remove(&place) {
            Some(wanted) if wanted != value => {
                Err(format!("a swap of {wanted} stands behind place {place}, which holds {value}"))
            }
            _ => Ok(()),
        }
    }

    /// A swap that replaced `expected` stands at `place`.
    fn claim_before(&mut self, place: u64, expected: u64) -> Result<(), String> {
        if place == 1 {
            let first = expected == 0;
            return first
                .then_some(())
                .ok_or_else(|| format!("the first value replaced {expected}"));
        }
        if self.claims.contains_key(&(place - 1)) {
            return self.claim(place - 1, expected);
        }
        self.behind.insert(place - 1, expected);
        Ok(())
    }
}

const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(told: u64, writes: Option<u64>, expects: Option<u64>) -> OpenRequest {
        OpenRequest { register: 0, told, writes, expects }
    }

    fn registers() -> Registers {
        Registers { histories: vec![History::default()], next_value: 0, longest_text: 0 }
    }

    #[test]
    fn histories_that_no_order_explains_are_refused() {
        use RegisterReply::{Holds, Written};
        let place = |place| Written { place };
        let cases: [(&str, Vec<(OpenRequest, RegisterReply)>); 6] = [
            (
                "by another",
                vec![(open(0, Some(7), None), place(1)), (open(0, Some(8), None), place(1))],
            ),
            (
                "before what was answered",
                vec![(open(0, Some(7), None), place(2)), (open(2, Some(8), None), place(1))],
            ),
            (
                "which was over",
                vec![
                    (open(0, Some(7), None), place(2)),
                    (open(2, None, None), Holds { place: 1, value: 6 }),
                ],
            ),
            (
                "by another",
                vec![(open(0, Some(7), None), place(1)), (open(1, Some(8), Some(6)), place(2))],
            ),
            (
                "stands behind",
                vec![
                    (open(0, Some(8), Some(6)), place(2)),
                    (open(0, None, None), Holds { place: 1, value: 7 }),
                ],
            ),
            (
                "although it stands there",
                vec![(open(0, Some(8), Some(6)), Holds { place: 1, value: 6 })],
            ),
        ];
        for (words, steps) in cases {
            let mut registers = registers();
            let mut steps = steps.into_iter().map(|(open, reply)| registers.response(open, &reply));
            let failed = steps.find_map(Result::err).expect("one of them cannot be");
            assert!(failed.contains(words), "{failed}");
        }
    }

    #[test]
    fn what_the_machine_answers_fits_whatever_is_asked() {
        let mut rng = Rng::with_seed(3);
        let mut registers = Registers::new(&mut rng);
        let mut machine = registers.machine();
        for _ in 0..1000 {
            let (entry, open) = registers.request(&mut rng);
            let reply = machine.handle_entry(entry);
            assert_eq!(registers.response(open, &reply), Ok(()));
        }
    }
}
