//! How servers that were never a cluster become one: each learns the births of all others, and all
//! write the same first entry.
//!
//! A cluster begins with a membership that names the birth of every founder's store, as entry 1 of term
//! 1 ([`Membership::founding_writes`]). No server votes before it has that entry. Servers on different
//! machines must agree on it before they have Raft to agree with, over a network that loses, repeats,
//! reorders and delays for as long as it likes, while processes start again and disks are emptied on
//! the way. [`Founding`] is that agreement as a pure state machine; [`found`] drives it over a store and
//! a transport; and [`Raft`](crate::Raft) answers those who come late.
//!
//! # The rules
//!
//! A *life* is one run of one process that founds. A *report* ([`BirthReport`]) says what its sender has
//! come to: for a newborn that is its *map*, all founders as each has described itself.
//!
//! 1. **A map is written once.** Each life draws a random number, and begins with a map of itself alone.
//!    A founder is put into it by a report of its own, and never changed. Who comes with another birth
//!    than the one in the map ends the life with an error.
//! 2. **Only answers count.** A report counts where it echoes the receiver's present life, so it was
//!    sent after that life began. Any other tells no more than what to echo.
//! 3. **All show the same map.** A newborn founds with its complete map when every other founder has
//!    shown exactly that map in a report that counts. It may have shown it as a newborn or from its log.
//! 4. **Who has a log speaks from it.** It answers a newborn that its first entry names with that
//!    membership: as a map while it does not know it committed, and then as *founded*. A newborn whose
//!    birth it does not name is told *already founded*, and stops. A newborn takes over a founded
//!    membership from one report that counts, if it names its own birth and equals its map where that is
//!    complete.
//!
//! After a newborn has decided it says nothing else in that life.
//!
//! # Why two memberships never stand beside each other
//!
//! Births are random and do not repeat, a name has one process at a time, and all founders have the
//! same list (which reports compare). Suppose that *M* and *N*, two different memberships, were both
//! written. The first who wrote *M*, server *R* in its life *L*, did so by rule 3, and on the word of
//! newborns: nobody had it in a log. So every founder has shown *M* as a newborn during *L* (rule 2), and
//! likewise every founder has shown *N* during *K*, the life of *S* that first wrote *N*.
//!
//! *One of the two was emptied, and the other membership is the later one.* A life shows one complete map
//! (rule 1), so *R* showed *N* in a life *before* or *after* *L*. If after, it was a newborn again after
//! it had written *M*. If before, then *K* had begun before *L* had. *S* showed *M* during *L*, and not
//! in *K*: so after *K*, a newborn again after it had written *N*. Let it be *S* then, and *M* the later
//! membership: it names a birth of *S* that came after *N* was written.
//!
//! *When M was first written, N was nowhere.* Let *y* be the moment at which founder *Y* showed *M*,
//! which names the new birth of *S*. At *y* it was newborn, so it held no *N*. Nor does any *Y* write *N*
//! after its *y*: take the first that does. It does so in a life after *y*, since the life of *y* is
//! bound to *M* by rules 1 and 4, and its store has the birth that *N* names. It counts on reports sent
//! in that life:
//!
//! - by rule 3, then *S* showed *N* after *y*, or is itself *Y*. But at *y* the store of *S* had another
//!   birth already than *N* names, and neither a map nor a log of it names an earlier one.
//! - by rule 4, then some *W* held *N* after *y*, written before its own *w*. It was newborn at *w*, so it
//!   was emptied, and *M* names its new birth, which *Y* had heard of at *y*: the same contradiction.
//!
//! All *y* are before *R* decided. So all copies of *N* were lost before there was a copy of *M*, and an
//! emptied disk has no part in a cluster that remembers its former birth.
//!
//! # Two processes of one name
//!
//! Two such processes are a mistake, and nothing is promised to them. But as long as no *other* disk is
//! emptied, all other servers still agree among themselves. Two of them cannot both have come to
//! different memberships by rule 3: each would have had to show the other's before its own last life
//! began. And who takes over by rule 4 does so from an entry that a quorum committed: the first of the
//! others in it had it by rule 3. That is why one server's word is not enough before the commit. One of
//! the two processes may be left with a membership that nobody else has: to the others it is another
//! birth, and nobody listens to it.
//!
//! Where a name is used twice *and* one of the others that committed loses its disk, two clusters are
//! possible: the word of one of the two processes is then all that is left of the first.
//!
//! # What it costs
//!
//! All founders must be up at one time until the founding is committed. Where one of them loses its disk
//! after another has written the membership and before a quorum has, founding cannot end: nothing was
//! ever committed, and emptying all stores begins anew.

mod answer;
#[cfg(feature = "node")]
mod driver;
mod mutants;
mod progress;
mod refusal;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use answer::answer;
#[cfg(feature = "node")]
pub use driver::{Born, Described, Founded, FoundingError, FoundingParts, found, give_birth};
#[cfg(any(test, feature = "mutants"))]
pub use mutants::Mutant;
#[cfg(not(any(test, feature = "mutants")))]
use mutants::Mutant;
pub use progress::{FounderProgress, Progress};
pub use refusal::FoundingRefusal;

use crate::{
    BirthReport, BirthStage, GroupId, Incarnation, Membership, Message, NodeId, NodeInfo,
    PeerEnvelope,
};

/// One newborn server's part in founding, for one life of its process: see the [module](self).
///
/// Whoever drives it hands in what arrives ([`step`](Self::step)), lets it speak now and then
/// ([`tick`](Self::tick)), sends what it has to say ([`drain`](Self::drain)), and writes the membership
/// that it comes to ([`outcome`](Self::outcome)) before anything else.
#[derive(Debug)]
pub struct Founding {
    group: GroupId,
    node: NodeId,
    life: u64,
    /// The map. All founders of the list; an incarnation of zero where none has been heard of.
    founders: BTreeMap<NodeId, NodeInfo>,
    /// The life that each founder stated last.
    lives: BTreeMap<NodeId, u64>,
    /// The last complete map that each founder has shown in a report that counts.
    shown: BTreeMap<NodeId, Shown>,
    outbox: Vec<PeerEnvelope>,
    outcome: Option<Result<Membership, FoundingRefusal>>,
    #[cfg(any(test, feature = "mutants"))]
    mutant: Option<Mutant>,
}

#[derive(Debug)]
struct Shown {
    founders: BTreeMap<NodeId, NodeInfo>,
    /// It stands in the sender's log: it will not show another.
    from_log: bool,
}

impl Founding {
    /// A newborn with this birth and these addresses, which are in `own`, among `founders`. `life` is a
    /// random number that is not zero, drawn for this run of the process.
    ///
    /// # Errors
    ///
    /// [`FoundingRefusal`] where the list does not name the server as `own` does, or two names share a
    /// [`NodeId`].
    ///
    /// # Panics
    ///
    /// Where `life` or the incarnation in `own` is zero: both mean "not known".
    pub fn new(
        group: GroupId,
        node: NodeId,
        own: NodeInfo,
        founders: &[(NodeId, String)],
        life: u64,
    ) -> Result<Self, FoundingRefusal> {
        assert!(life != 0, "zero is nobody's life");
        assert!(own.incarnation.0 != 0, "zero is nobody's birth");
        let mut map: BTreeMap<NodeId, NodeInfo> = BTreeMap::new();
        for (founder, name) in founders {
            let info = NodeInfo { name: name.clone(), ..NodeInfo::default() };
            if let Some(other) = map.insert(*founder, info) {
                let names = (other.name, name.clone());
                return Err(FoundingRefusal::SameNumber { node: *founder, names });
            }
        }
        if map.get(&node).is_none_or(|listed| listed.name != own.name) {
            return Err(FoundingRefusal::NotListed { server: own.name, founders: names(&map) });
        }
        map.insert(node, own);
        let mut founding = Self {
            group,
            node,
            life,
            founders: map,
            lives: BTreeMap::new(),
            shown: BTreeMap::new(),
            outbox: Vec::new(),
            outcome: None,
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
        };
        founding.conclude();
        Ok(founding)
    }

    /// Takes in what arrived. What is no [`Message::Birth`] for this server changes nothing.
    pub fn step(&mut self, envelope: &PeerEnvelope) {
        let from = envelope.from;
        let for_us = envelope.group == self.group && envelope.to == self.node && from != self.node;
        let Message::Birth(report) = &envelope.message else { return };
        if !for_us || self.outcome.is_some() {
            return;
        }
        if !self.founders.contains_key(&from) {
            // It has another list than this server. Once it was answered, both can tell.
            if report.life != 0 {
                self.speak(from, report.life);
            }
        } else if self.lives.insert(from, report.life) != Some(report.life) && report.life != 0 {
            self.speak(from, report.life);
        }
        if report.echo == self.life || self.is_mutant(Mutant::CountsWithoutEcho) {
            self.count(envelope, report);
            self.conclude();
        }
    }

    /// Reports to all other founders. To be called about every 100 ms for as long as there is no outcome,
    /// and once more when the outcome is durable: until this server runs nobody else says it.
    pub fn tick(&mut self) {
        let others: Vec<NodeId> = self.others().collect();
        for node in others {
            self.speak(node, self.lives.get(&node).copied().unwrap_or(0));
        }
    }

    /// Moves what is to be sent to the end of `messages`.
    pub fn drain(&mut self, messages: &mut Vec<PeerEnvelope>) {
        messages.append(&mut self.outbox);
    }

    /// What it has come to, once it has: the membership to write, or why there is none. It stays with it,
    /// and takes nothing in any more.
    #[must_use]
    pub fn outcome(&self) -> Option<&Result<Membership, FoundingRefusal>> {
        self.outcome.as_ref()
    }

    /// Who has been heard of, and who has agreed.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let complete = is_complete(&self.founders);
        let agreed = |node: &NodeId| {
            let shown = self.shown.get(node);
            complete
                && (*node == self.node
                    || shown.is_some_and(|shown| shown.founders == self.founders))
        };
        let of_one = |(node, info): (&NodeId, &NodeInfo)| {
            let birth = Some(info.incarnation).filter(|birth| birth.0 != 0);
            let progress = FounderProgress { name: info.name.clone(), birth, agreed: agreed(node) };
            (*node, progress)
        };
        Progress { founders: self.founders.iter().map(of_one).collect() }
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.founders.keys().copied().filter(|node| *node != self.node)
    }

    fn own_birth(&self) -> Incarnation {
        self.founders[&self.node].incarnation
    }

    fn speak(&mut self, to: NodeId, echo: u64) {
        let founders = match &self.outcome {
            Some(Ok(membership)) => membership.nodes.clone(),
            _ => self.founders.clone(),
        };
        let stage = BirthStage::Newborn { founders };
        let report = BirthReport { life: self.life, echo, stage };
        self.outbox.push(PeerEnvelope {
            group: self.group,
            from: self.node,
            to,
            from_incarnation: self.own_birth(),
            // Whoever has another birth than this server noted must hear of it all the more.
            to_incarnation: Incarnation(0),
            message: Message::Birth(Box::new(report)),
        });
    }

    /// Takes in a report that was sent to this life (rule 2).
    fn count(&mut self, envelope: &PeerEnvelope, report: &BirthReport) {
        let from = envelope.from;
        match &report.stage {
            BirthStage::Newborn { founders } => {
                let own = founders.get(&from).filter(|own| own.incarnation.0 != 0);
                let Some(own) = own.filter(|own| own.incarnation == envelope.from_incarnation)
                else {
                    // It is no founder, or malformed. A founder states its own birth.
                    return;
                };
                if self.accepts(from, own, founders) && is_complete(founders) {
                    let from_log = report.life == 0;
                    self.shown.insert(from, Shown { founders: founders.clone(), from_log });
                }
            }
            BirthStage::Founded { membership } => self.on_founded(from, membership),
            BirthStage::AlreadyFounded => {
                if let Some(by) = self.name_of(from) {
                    self.refuse(from, report.life, FoundingRefusal::AlreadyFounded { by });
                }
            }
        }
    }

    /// Compares the lists, and notes what `from` says of itself (rule 1). Says whether all is well.
    fn accepts(
        &mut self,
        from: NodeId,
        own: &NodeInfo,
        founders: &BTreeMap<NodeId, NodeInfo>,
    ) -> bool {
        let life = self.lives.get(&from).copied().unwrap_or(0);
        let has_our_list = self.has_our_list(founders);
        let Some(noted) = self.founders.get(&from).filter(|_| has_our_list) else {
            let refusal = self.other_founders(&own.name, founders);
            self.refuse(from, life, refusal);
            return false;
        };
        let known = founders[&self.node].incarnation;
        if known.0 != 0 && known != self.own_birth() {
            let (by, own) = (own.name.clone(), self.own_birth());
            self.refuse(from, life, FoundingRefusal::KnownOtherwise { by, known, own });
            return false;
        }
        if noted.incarnation.0 == 0 || self.is_mutant(Mutant::RewritesTheMap) {
            if noted != own {
                self.founders.insert(from, own.clone());
                self.tick();
            }
            return true;
        }
        if noted == own {
            return true;
        }
        let refusal = FoundingRefusal::another(noted, own);
        self.refuse(from, life, refusal);
        false
    }

    /// The cluster is founded, by the word of one who has committed it (rule 4).
    fn on_founded(&mut self, from: NodeId, membership: &Membership) {
        let Some(by) = self.name_of(from) else { return };
        if *membership != Membership::of_voters(membership.nodes.clone()) {
            // No founding membership looks like this.
            return;
        }
        if !self.has_our_list(&membership.nodes) {
            let refusal = self.other_founders(&by, &membership.nodes);
            self.refuse(from, 0, refusal);
            return;
        }
        let names_us = membership.incarnation(self.node) == self.own_birth();
        if !names_us && !self.is_mutant(Mutant::TakesBackTheEmptied) {
            return;
        }
        let bound = is_complete(&self.founders) && !self.is_mutant(Mutant::AdoptsAgainstItsMap);
        if bound && membership.nodes != self.founders {
            let refusal = FoundingRefusal::contradicted(by, &self.founders, &membership.nodes);
            self.refuse(from, 0, refusal);
        } else {
            self.outcome = Some(Ok(membership.clone()));
        }
    }

    /// Founds if all have shown this server's own complete map (rule 3).
    fn conclude(&mut self) {
        if self.outcome.is_some() || !is_complete(&self.founders) {
            return;
        }
        let blind = self.is_mutant(Mutant::FoundsUnseen);
        let mut agree = true;
        for node in self.others() {
            let shown = self.shown.get(&node);
            agree &= blind || shown.is_some_and(|shown| shown.founders == self.founders);
        }
        if agree {
            self.outcome = Some(Ok(Membership::of_voters(self.founders.clone())));
            self.tick();
            return;
        }
        let mut logs = self.shown.iter().filter(|(_, shown)| shown.from_log);
        if let Some((by, log)) = logs.find(|(_, shown)| shown.founders != self.founders) {
            let by = self.founders[by].name.clone();
            let refusal = FoundingRefusal::contradicted(by, &self.founders, &log.founders);
            self.outcome = Some(Err(refusal));
        }
    }

    /// Ends without a membership. `from` is told where that leaves this server, so that both ends can
    /// name what is wrong.
    fn refuse(&mut self, from: NodeId, life: u64, refusal: FoundingRefusal) {
        if life != 0 {
            self.speak(from, life);
        }
        self.outcome = Some(Err(refusal));
    }

    fn name_of(&self, node: NodeId) -> Option<String> {
        self.founders.get(&node).map(|info| info.name.clone())
    }

    fn has_our_list(&self, founders: &BTreeMap<NodeId, NodeInfo>) -> bool {
        let list = |(node, info): (&NodeId, &NodeInfo)| (*node, info.name.clone());
        self.founders.iter().map(list).eq(founders.iter().map(list))
    }

    fn other_founders(&self, by: &str, theirs: &BTreeMap<NodeId, NodeInfo>) -> FoundingRefusal {
        let (ours, theirs) = (names(&self.founders), names(theirs));
        FoundingRefusal::OtherFounders { by: by.to_owned(), ours, theirs }
    }
}

/// Whether every founder has been heard of.
fn is_complete(founders: &BTreeMap<NodeId, NodeInfo>) -> bool {
    founders.values().all(|info| info.incarnation.0 != 0)
}

fn names(founders: &BTreeMap<NodeId, NodeInfo>) -> Vec<String> {
    let mut names: Vec<String> = founders.values().map(|info| info.name.clone()).collect();
    names.sort();
    names
}
