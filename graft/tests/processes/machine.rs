//! The machine of these tests: registers with compare-and-swap and lists that are appended to, by key.
//!
//! Every value is written once in a history, so each read says which writes it has seen.

use std::collections::BTreeMap;

use graft::Machine;

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
pub(crate) enum Ask {
    /// The value of a register. Answered with [`Told::Value`].
    Read { key: u32 },
    /// Gives a register a value. Answered with [`Told::Done`].
    Write { key: u32, value: u64 },
    /// Gives a register a value if it has the expected one. Answered with [`Told::Swapped`].
    Swap { key: u32, expected: Option<u64>, value: u64 },
    /// Adds a value at the end of a list. Answered with [`Told::Appended`].
    Append { key: u32, value: u64 },
    /// A whole list. Answered with [`Told::List`].
    List { key: u32 },
    /// Changes nothing: bytes to carry. Answered with [`Told::Done`].
    Nothing { padding: String },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
pub(crate) enum Told {
    Value(Option<u64>),
    Done,
    /// Whether it was swapped, and what was found before.
    Swapped {
        swapped: bool,
        found: Option<u64>,
    },
    /// How many values were in the list before.
    Appended(u64),
    List(Vec<u64>),
}

impl graft::Entry for Ask {
    type Response = Told;
}

#[derive(Default)]
pub(crate) struct Registers {
    registers: BTreeMap<u32, u64>,
    lists: BTreeMap<u32, Vec<u64>>,
}

impl Machine for Registers {
    type Entry = Ask;

    fn handle_entry(&mut self, ask: Ask) -> Told {
        match ask {
            Ask::Read { key } => Told::Value(self.registers.get(&key).copied()),
            Ask::Write { key, value } => {
                self.registers.insert(key, value);
                Told::Done
            }
            Ask::Swap { key, expected, value } => {
                let found = self.registers.get(&key).copied();
                let swapped = found == expected;
                if swapped {
                    self.registers.insert(key, value);
                }
                Told::Swapped { swapped, found }
            }
            Ask::Append { key, value } => {
                let list = self.lists.entry(key).or_default();
                list.push(value);
                Told::Appended(list.len() as u64 - 1)
            }
            Ask::List { key } => Told::List(self.lists.get(&key).cloned().unwrap_or_default()),
            Ask::Nothing { .. } => Told::Done,
        }
    }
}

/// Another machine, for stores that are mixed up.
#[derive(Clone, PartialEq, Eq, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
pub(crate) struct Increment;

impl graft::Entry for Increment {
    type Response = u64;
}

#[derive(Default)]
pub(crate) struct Counter(u64);

impl Machine for Counter {
    type Entry = Increment;

    fn handle_entry(&mut self, Increment: Increment) -> u64 {
        self.0 += 1;
        self.0
    }
}
