//! How far a founding is, for people who wait for it.

use std::{collections::BTreeMap, fmt};

use crate::{Incarnation, NodeId};

/// How far a founding is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// All founders, this server included.
    pub founders: BTreeMap<NodeId, FounderProgress>,
}

/// How far one founder is, as far as this server knows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FounderProgress {
    /// Its name.
    pub name: String,
    /// Its birth, if it was heard of.
    pub birth: Option<Incarnation>,
    /// Whether it has shown that it would found with the same births of all.
    pub agreed: bool,
}

impl Progress {
    /// The names of those who were never heard of.
    #[must_use]
    pub fn unheard(&self) -> Vec<&str> {
        self.named(|founder| founder.birth.is_none())
    }

    /// The names of those who were heard of and have not agreed yet.
    #[must_use]
    pub fn undecided(&self) -> Vec<&str> {
        self.named(|founder| founder.birth.is_some() && !founder.agreed)
    }

    fn named(&self, condition: impl Fn(&FounderProgress) -> bool) -> Vec<&str> {
        let some = self.founders.values().filter(|founder| condition(founder));
        let mut names: Vec<&str> = some.map(|founder| founder.name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unheard, undecided) = (self.unheard(), self.undecided());
        match (unheard.is_empty(), undecided.is_empty()) {
            (true, true) => write!(f, "all {} founders agree", self.founders.len()),
            // Nobody can agree before all are there.
            (false, _) => write!(f, "waiting to hear of {}", unheard.join(", ")),
            (true, false) => write!(f, "waiting for {} to agree", undecided.join(", ")),
        }
    }
}
