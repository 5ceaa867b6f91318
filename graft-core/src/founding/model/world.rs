//! Founders on hosts, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::super::{Founding, FoundingRefusal, Mutant, answer};
use crate::{
    BirthStage, GroupId, Incarnation, Membership, Message, NodeId, NodeInfo, PeerEnvelope,
};

pub(super) type Tally = BTreeMap<&'static str, u64>;

/// A store and the process that runs on it.
struct Host {
    node: NodeId,
    birth: Option<Incarnation>,
    /// Entry 1.
    log: Option<Membership>,
    address: u64,
    process: Process,
    /// Whether a node that runs here knows entry 1 committed.
    knows_commit: bool,
    /// Was told that its cluster was founded without it.
    is_outcast: bool,
}

enum Process {
    Down,
    /// Talks.
    Newborn(Box<Founding>),
    /// Has decided, and its disk works.
    Writing(Box<Founding>, Membership),
    /// Has a log, and runs as a node.
    Node,
}

struct Letter {
    from: usize,
    envelope: PeerEnvelope,
}

/// The chances of one seed, each of 1024.
struct Weather {
    loss: u32,
    duplication: u32,
    /// That the newest letter comes next, and not any.
    haste: u32,
    crash: u32,
    block: u32,
    moves: u32,
}

pub(super) struct World {
    rng: Rng,
    mutant: Option<Mutant>,
    founders: Vec<(NodeId, String)>,
    hosts: Vec<Host>,
    letters: Vec<Letter>,
    /// Between which hosts nothing passes, and in which direction.
    blocked: BTreeSet<(usize, usize)>,
    weather: Weather,
    births: u64,
    /// How many disks may still be emptied.
    emptyings: u32,
    /// The name that two hosts have.
    shared: Option<NodeId>,
    pub(super) steps: u32,
    pub(super) tally: Tally,
}

const LETTERS: usize = 300;

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let size = pick(&mut rng, &[2, 2, 3, 3, 3, 3, 4, 5]);
        let nodes: Vec<NodeId> = (1..=size).map(NodeId).collect();
        let shared = (rng.u32(..4) == 0).then(|| nodes[rng.usize(..nodes.len())]);
        let host = |node| Host {
            node,
            birth: None,
            log: None,
            address: 1,
            process: Process::Down,
            knows_commit: false,
            is_outcast: false,
        };
        let weather = Weather {
            loss: pick(&mut rng, &[0, 50, 200, 400]),
            duplication: pick(&mut rng, &[0, 100, 300, 500]),
            haste: pick(&mut rng, &[0, 300, 700, 900]),
            crash: pick(&mut rng, &[0, 10, 30, 60, 100]),
            block: pick(&mut rng, &[0, 0, 10, 40]),
            moves: pick(&mut rng, &[0, 0, 0, 200]),
        };
        let founders = nodes.iter().map(|node| (*node, format!("{node}"))).collect();
        Self {
            founders,
            hosts: nodes.iter().copied().chain(shared).map(host).collect(),
            letters: Vec::new(),
            blocked: BTreeSet::new(),
            weather,
            births: 0,
            emptyings: pick(&mut rng, &[0, 0, 1, 1, 2, 4]),
            shared,
            steps: pick(&mut rng, &[100, 200, 400]),
            tally: Tally::new(),
            mutant,
            rng,
        }
    }

    fn chance(&mut self, of_1024: u32) -> bool {
        self.rng.u32(..1024) < of_1024
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(super) fn step(&mut self) {
        let at = self.rng.usize(..self.hosts.len());
        if self.chance(self.weather.crash) {
            self.crash(at);
            return;
        }
        if self.chance(self.weather.block) {
            self.block();
            return;
        }
        match self.rng.u32(..16) {
            0..2 => self.start(at),
            2..3 => self.speak(at),
            3..5 => self.finish_write(at),
            5 => self.commit(),
            _ => self.deliver_one(),
        }
    }

    /// Ends a process, and sometimes its disk with it.
    fn crash(&mut self, at: usize) {
        // With two processes under one name no other disk may be lost: more is not promised.
        let may_be_emptied = self.shared.is_none_or(|shared| shared == self.hosts[at].node);
        let empties = self.emptyings > 0 && may_be_emptied && self.rng.u32(..4) == 0;
        if empties {
            self.emptyings -= 1;
            if self.hosts[at].log.is_some() {
                self.count("emptied after it founded");
            }
        }
        let moves = self.chance(self.weather.moves);
        // The hint of the commit may be on the disk, or not.
        let forgets = self.rng.bool();
        let host = &mut self.hosts[at];
        host.process = Process::Down;
        host.knows_commit &= !forgets;
        if empties {
            (host.birth, host.log, host.knows_commit) = (None, None, false);
        }
        if moves {
            host.address += 1;
        }
    }

    fn block(&mut self) {
        let pair = (self.rng.usize(..self.hosts.len()), self.rng.usize(..self.hosts.len()));
        if self.rng.u32(..4) == 0 {
            self.blocked.clear();
        } else {
            self.blocked.insert(pair);
        }
    }

    fn start(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if !matches!(host.process, Process::Down) {
            return;
        }
        host.is_outcast = false;
        if host.log.is_some() {
            host.process = Process::Node;
            return;
        }
        let birth = *host.birth.get_or_insert_with(|| {
            self.births += 1;
            Incarnation(self.births)
        });
        let own = NodeInfo {
            name: format!("{}", host.node),
            peer_address: format!("{}", host.address),
            incarnation: birth,
            ..NodeInfo::default()
        };
        let life = self.rng.u64(1..);
        let founding = Founding::new(GroupId(0), host.node, own, &self.founders, life);
        let mut founding = founding.expect("the list is good");
        founding.set_mutant(self.mutant);
        host.process = Process::Newborn(Box::new(founding));
        self.speak(at);
    }

    fn speak(&mut self, at: usize) {
        if let Process::Newborn(founding) = &mut self.hosts[at].process {
            founding.tick();
        }
        self.post(at);
    }

    /// Puts what the founding at `at` has to say on its way, and looks at what it has come to.
    fn post(&mut self, at: usize) {
        let (Process::Newborn(founding) | Process::Writing(founding, _)) =
            &mut self.hosts[at].process
        else {
            return;
        };
        let mut said = Vec::new();
        founding.drain(&mut said);
        let outcome = founding.outcome().cloned();
        self.letters.extend(said.into_iter().map(|envelope| Letter { from: at, envelope }));
        while self.letters.len() > LETTERS {
            let lost = self.rng.usize(..self.letters.len());
            self.letters.swap_remove(lost);
        }
        match outcome {
            Some(Ok(membership)) => {
                let host = &mut self.hosts[at];
                if let Process::Newborn(founding) =
                    std::mem::replace(&mut host.process, Process::Down)
                {
                    host.process = Process::Writing(founding, membership);
                }
            }
            Some(Err(refusal)) => {
                let outcast = matches!(refusal, FoundingRefusal::AlreadyFounded { .. });
                self.hosts[at].process = Process::Down;
                self.hosts[at].is_outcast = outcast;
                self.count(word_for(&refusal));
            }
            None => {}
        }
    }

    fn finish_write(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if !matches!(host.process, Process::Writing(..)) {
            return;
        }
        if let Process::Writing(mut founding, membership) =
            std::mem::replace(&mut host.process, Process::Node)
        {
            host.log = Some(membership);
            founding.tick();
            let mut said = Vec::new();
            founding.drain(&mut said);
            self.letters.extend(said.into_iter().map(|envelope| Letter { from: at, envelope }));
        }
    }

    /// A membership that a quorum of nodes run by is committed, and they come to know it.
    fn commit(&mut self) {
        let at = self.rng.usize(..self.hosts.len());
        let Some(membership) = self.hosts[at].log.clone() else { return };
        let holders = self.holders(&membership);
        let names: BTreeSet<NodeId> = holders.iter().map(|host| self.hosts[*host].node).collect();
        if names.len() > membership.voters.len() / 2 {
            let blind = self.rng.usize(..holders.len() * 2);
            for (place, host) in holders.into_iter().enumerate() {
                if place != blind {
                    self.hosts[host].knows_commit = true;
                }
            }
        }
    }

    /// The nodes that run with this log and are who it says.
    fn holders(&self, membership: &Membership) -> Vec<usize> {
        let holds = |host: &Host| {
            matches!(host.process, Process::Node)
                && host.log.as_ref() == Some(membership)
                && host.birth == Some(membership.incarnation(host.node))
        };
        (0..self.hosts.len()).filter(|at| holds(&self.hosts[*at])).collect()
    }

    fn deliver_one(&mut self) {
        if self.letters.is_empty() {
            return;
        }
        let newest = self.letters.len() - 1;
        let at = if self.chance(self.weather.haste) { newest } else { self.rng.usize(..=newest) };
        let stays = self.chance(self.weather.duplication);
        let Letter { from, envelope } = &self.letters[at];
        let (from, envelope) = (*from, envelope.clone());
        if !stays {
            self.letters.remove(at);
        }
        if !self.chance(self.weather.loss) {
            self.deliver(from, &envelope);
        }
    }

    /// Brings a letter to one of those who have the name that it is for.
    fn deliver(&mut self, from: usize, envelope: &PeerEnvelope) {
        let named: Vec<usize> =
            (0..self.hosts.len()).filter(|at| self.hosts[*at].node == envelope.to).collect();
        let at = named[self.rng.usize(..named.len())];
        if self.blocked.contains(&(from, at)) {
            return;
        }
        match &mut self.hosts[at].process {
            Process::Newborn(founding) => {
                founding.step(envelope);
                let founded = matches!(founding.outcome(), Some(Ok(_)));
                let adopts = says_founded(envelope);
                if founded {
                    self.count(if adopts { "adopted" } else { "founded by all" });
                }
                self.post(at);
            }
            Process::Node => self.answer_as_node(at, envelope),
            Process::Down | Process::Writing(..) => {}
        }
    }

    fn answer_as_node(&mut self, at: usize, envelope: &PeerEnvelope) {
        let Message::Birth(report) = &envelope.message else { return };
        let host = &self.hosts[at];
        let Some(log) = &host.log else { return };
        let committed = host.knows_commit || self.mutant == Some(Mutant::FoundedBeforeCommit);
        let (from, birth) = (envelope.from, envelope.from_incarnation);
        let Some(mut report) = answer(Some(log), log, committed, from, birth, report) else {
            return;
        };
        let is_blind = self.mutant == Some(Mutant::TakesBackTheEmptied);
        if is_blind && report.stage == BirthStage::AlreadyFounded {
            report.stage = BirthStage::Founded { membership: log.clone() };
        }
        let envelope = PeerEnvelope {
            group: GroupId(0),
            from: host.node,
            to: from,
            from_incarnation: host.birth.unwrap_or_default(),
            to_incarnation: birth,
            message: Message::Birth(Box::new(report)),
        };
        self.letters.push(Letter { from: at, envelope });
    }

    /// Every promise that must hold at any time.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut alone = false;
        let logs: Vec<(&Host, &Membership)> =
            self.hosts.iter().filter_map(|host| Some((host, host.log.as_ref()?))).collect();
        for (host, log) in &logs {
            if Some(log.incarnation(host.node)) != host.birth {
                return Err(format!("{} has a log that names another birth: {log:?}", host.node));
            }
            for (other, theirs) in &logs {
                if log == theirs {
                    continue;
                }
                // Of two processes with one name one may be left alone: nobody listens to it.
                let is_shared = |host: &Host| self.shared == Some(host.node);
                let nobody_listens = is_shared(host)
                    && Some(theirs.incarnation(host.node)) != host.birth
                    || is_shared(other) && Some(log.incarnation(other.node)) != other.birth;
                if !nobody_listens {
                    let (one, two) = (host.node, other.node);
                    return Err(format!("{one} has founded {log:?}, and {two} {theirs:?}"));
                }
                alone = true;
            }
        }
        if alone && !self.tally.contains_key("left alone under its name") {
            self.count("left alone under its name");
        }
        Ok(())
    }

    /// Ends all trouble, and sees who comes to found.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        if self.shared.is_some() {
            // What becomes of it depends on which of the two goes.
            return Ok(());
        }
        self.blocked.clear();
        for at in 0..self.hosts.len() {
            self.hosts[at].is_outcast = false;
            self.finish_write(at);
        }
        let from_nothing = self.hosts.iter().all(|host| host.log.is_none());
        for _ in 0..60 {
            self.move_back();
            // Whoever told an outcast so may have been emptied since.
            let nobody_has_founded = self.hosts.iter().all(|host| host.log.is_none());
            for at in 0..self.hosts.len() {
                if nobody_has_founded || !self.hosts[at].is_outcast {
                    self.start(at);
                }
                self.speak(at);
            }
            for Letter { from, envelope } in std::mem::take(&mut self.letters) {
                self.deliver(from, &envelope);
            }
            for at in 0..self.hosts.len() {
                self.finish_write(at);
            }
            self.commit();
            self.check()?;
        }
        self.check_healed(from_nothing)
    }

    /// Whoever has moved since the cluster was founded is told to come back as it was.
    fn move_back(&mut self) {
        let Some(founded) = self.hosts.iter().find_map(|host| host.log.clone()) else { return };
        for host in self.hosts.iter_mut().filter(|host| host.log.is_none()) {
            let address = founded.nodes[&host.node].peer_address.parse().expect("a number");
            if host.address != address {
                host.address = address;
                host.process = Process::Down;
            }
        }
    }

    fn check_healed(&mut self, from_nothing: bool) -> Result<(), String> {
        let holders = self.hosts.iter().filter(|host| host.log.is_some()).count();
        let Some(founded) = self.hosts.iter().find_map(|host| host.log.clone()) else {
            return Err("all is well, and nobody has founded".into());
        };
        let is_named = |host: &Host| host.birth == Some(founded.incarnation(host.node));
        let emptied = self.hosts.iter().any(|host| !is_named(host));
        if emptied && holders <= founded.voters.len() / 2 {
            self.count("stuck");
            return Ok(());
        }
        for host in &self.hosts {
            let (node, has_log, outcast) = (host.node, host.log.is_some(), host.is_outcast);
            if is_named(host) != has_log || has_log == outcast {
                return Err(format!("{node}: has a log {has_log}, was refused {outcast}"));
            }
        }
        self.count(if from_nothing { "healed from nothing" } else { "healed from some" });
        Ok(())
    }
}

fn says_founded(envelope: &PeerEnvelope) -> bool {
    let Message::Birth(report) = &envelope.message else { return false };
    matches!(report.stage, BirthStage::Founded { .. })
}

fn word_for(refusal: &FoundingRefusal) -> &'static str {
    match refusal {
        FoundingRefusal::AlreadyFounded { .. } => "already founded",
        FoundingRefusal::AnotherBirth { .. } => "another birth",
        FoundingRefusal::KnownOtherwise { .. } => "known otherwise",
        FoundingRefusal::OtherAddress { .. } => "other address",
        FoundingRefusal::Contradicted { .. } => "contradicted",
        FoundingRefusal::OtherFounders { .. }
        | FoundingRefusal::NotListed { .. }
        | FoundingRefusal::SameNumber { .. } => "a bad list",
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}
