//! Servers on a network that fails in ways no single machine does: a server is heard and does not hear, one alone
//! reaches both sides, only neighbours reach each other, links come and go, a leader has lost its followers and not
//! its clients.
//!
//! Each server has a namespace of its own; see [`network`]. This needs root, and the tools of the packages `iproute2`
//! and `nftables` or `iptables`. Where one is missing the tests say so and show nothing.

mod network;

use std::time::{Duration, Instant};

use self::network::Network;
use crate::{
    PATIENCE,
    cluster::{Cluster, Place},
    load::{Load, Verdict},
    report, rounds, soon,
};

/// How many tasks ask at once.
const TASKS: usize = 16;

/// Far above an election and a new connection, even on a busy machine: nobody has to fail because of a cut.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

/// Longer than a connection that hears nothing lives, which is 2.5 s.
const LONG_CUT: Duration = Duration::from_millis(2800);

/// Longer than the longest election timeout, and not so long that connections end.
const SHORT_CUT: Duration = Duration::from_millis(900);

fn long_or_short(round: usize) -> Duration {
    if round.is_multiple_of(2) { LONG_CUT } else { SHORT_CUT }
}

/// Servers in a network, and tasks that ask them from outside of it.
struct Field {
    load: Load,
    cluster: Cluster,
    /// Goes last: its namespaces must be empty.
    network: Network,
}

impl Field {
    /// A field at work; `None` where there can be none, which was then said.
    async fn at_work(claim: &str, servers: usize) -> Option<Self> {
        if let Some(missing) = network::missing() {
            report(&format!("SKIPPED: {claim} was not tried in namespaces: {missing}"));
            return None;
        }
        let network = Network::new(servers);
        let places = (0..servers).map(|server| {
            let prefix = network.prefix(server);
            Place::new(network.address(server), &prefix.each_ref().map(String::as_str))
        });
        let mut cluster = Cluster::at(places.collect());
        cluster.start_all().await;
        let clients = [cluster.client(&[0]).await, cluster.client(&[servers - 1]).await];
        let load = Load::start(&clients, TASKS, LONG_ENOUGH);
        let field = Self { load, cluster, network };
        field.goes_on(200).await;
        Some(field)
    }

    /// Waits until so many more requests were answered.
    async fn goes_on(&self, answers: u64) {
        self.load.answers(answers, &self.cluster.running()).await;
    }

    /// Lets requests be answered for so long, and at least so many.
    async fn goes_on_for(&self, time: Duration, answers: u64) {
        let began = Instant::now();
        self.goes_on(answers).await;
        while began.elapsed() < time {
            self.goes_on(1).await;
        }
    }

    /// All servers but this one.
    fn others(&self, server: usize) -> Vec<usize> {
        (0..self.cluster.count()).filter(|other| *other != server).collect()
    }

    /// Waits until all follow one leader, which is then said.
    async fn all_follow(&self) -> usize {
        let all_agree = async {
            loop {
                let leader = self.cluster.leader().await;
                let term = self.cluster.process(leader).said().term;
                let name = self.cluster.name(leader);
                for server in 0..self.cluster.count() {
                    let process = self.cluster.process(server);
                    let follows = process.until("a follower of the leader", |said| {
                        said.term > term
                            || said.term == term && said.leader.as_deref() == Some(name)
                    });
                    follows.await;
                }
                let terms = (0..self.cluster.count())
                    .map(|server| self.cluster.process(server).said().term);
                if terms.into_iter().all(|found| found == term) {
                    return leader;
                }
            }
        };
        soon(all_agree).await
    }

    /// Cuts these off for so long while requests are answered, looks at what `meanwhile` wants to see, and has all
    /// follow one leader again.
    async fn cut(
        &self,
        pairs: &[(usize, usize)],
        time: Duration,
        meanwhile: impl AsyncFnOnce(&Self),
    ) {
        self.network.cut(pairs);
        self.goes_on_for(time, 150).await;
        meanwhile(self).await;
        let lost: u64 = (0..self.cluster.count()).map(|to| self.network.lost_to(to)).sum();
        assert!(lost > 0, "the cut {pairs:?} has cut nothing");
        self.network.heal();
        self.goes_on(150).await;
        self.all_follow().await;
    }

    /// One of these leads, and `former` has stopped.
    async fn is_replaced(&self, former: usize, others: &[usize]) {
        let next = self.cluster.leader_among(others).await;
        assert_ne!(next, former);
        let process = self.cluster.process(former);
        process.until("no leader any more", |said| said.role != "leader").await;
    }

    /// Nobody was failed, nothing lost, nothing done twice.
    async fn judged(self, what: &str) {
        let Self { load, cluster, network } = self;
        let Verdict { tally, failures, longest } = load.judged().await;
        report(&format!("{what}: {tally} longest={longest:?}"));
        assert!(failures.is_empty(), "{failures:?}");
        drop(cluster);
        drop(network);
    }
}

/// Both ways between these.
fn between(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    pairs.iter().flat_map(|&(one, other)| [(one, other), (other, one)]).collect()
}

#[tokio::test]
async fn a_follower_that_is_deaf_or_mute_is_missed_by_nobody_and_disturbs_nobody() {
    let Some(field) = Field::at_work("a follower cut off one way", 3).await else { return };
    for round in 0..rounds(1, 15) {
        for is_deaf in [true, false] {
            let leader = field.all_follow().await;
            let [follower, _] = field.others(leader)[..] else { unreachable!("three servers") };
            let cut = if is_deaf { (leader, follower) } else { (follower, leader) };
            let term = field.cluster.process(leader).said().term;
            let time = long_or_short(round + usize::from(is_deaf));
            field.cut(&[cut], time, async |_| {}).await;
            // It asks whether it might be elected, and hears that there is a leader. On a busy machine a term may
            // end for other reasons.
            let now = field.cluster.process(leader).said().term;
            report(&format!("a follower cut off one way: terms={}", now - term));
        }
    }
    field.judged("a follower cut off one way").await;
}

#[tokio::test]
async fn a_leader_that_is_deaf_or_mute_is_replaced() {
    let Some(field) = Field::at_work("a leader cut off one way", 3).await else { return };
    for round in 0..rounds(1, 15) {
        for is_deaf in [true, false] {
            let leader = field.all_follow().await;
            let others = field.others(leader);
            let pair = |other: &usize| if is_deaf { (*other, leader) } else { (leader, *other) };
            let pairs: Vec<_> = others.iter().map(pair).collect();
            let meanwhile = async |field: &Field| field.is_replaced(leader, &others).await;
            field.cut(&pairs, long_or_short(round + usize::from(is_deaf)), meanwhile).await;
        }
    }
    field.judged("a leader cut off one way").await;
}

#[tokio::test]
async fn one_server_that_reaches_both_sides_is_bridge_enough() {
    let Some(field) = Field::at_work("a bridge of one server", 3).await else { return };
    for round in 0..rounds(1, 15) {
        // The leader on a side, and then on the bridge itself. With three servers that is a chain, too.
        let leader = field.all_follow().await;
        let [_, other] = field.others(leader)[..] else { unreachable!("three servers") };
        field.cut(&between(&[(leader, other)]), LONG_CUT, async |_| {}).await;
        let leader = field.all_follow().await;
        let [one, other] = field.others(leader)[..] else { unreachable!("three servers") };
        field.cut(&between(&[(one, other)]), long_or_short(round + 1), async |_| {}).await;
    }
    field.judged("a bridge of one server").await;
}

#[tokio::test]
async fn five_servers_go_on_over_a_bridge_and_in_a_chain() {
    let Some(field) = Field::at_work("a chain of five servers", 5).await else { return };
    for round in 0..rounds(1, 10) {
        // On one side `leader` and `a`, on the other `c` and `d`, and `_` reaches all.
        let leader = field.all_follow().await;
        let [a, _, c, d] = field.others(leader)[..] else { unreachable!("five servers") };
        let sides = between(&[(leader, c), (leader, d), (a, c), (a, d)]);
        field.cut(&sides, LONG_CUT, async |_| {}).await;
        // `a`, `b`, `leader`, `c`, `d` reach their neighbours alone: a server and its two neighbours are a quorum. Where
        // the leader stands at an end, a cut in the midst of work may leave nobody whose log is as good as those of
        // a quorum that it reaches, and then Raft elects nobody.
        let leader = field.all_follow().await;
        let [a, b, c, d] = field.others(leader)[..] else { unreachable!("five servers") };
        let chain = between(&[(a, leader), (a, c), (a, d), (b, c), (b, d), (leader, d)]);
        field.cut(&chain, long_or_short(round + 1), async |_| {}).await;
    }
    field.judged("five servers").await;
}

#[tokio::test]
async fn links_that_flap_hold_up_nobody_for_long() {
    let Some(field) = Field::at_work("a link that flaps", 3).await else { return };
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..rounds(6, 200) {
        let leader = field.cluster.leader().await;
        // Leaders more often than others.
        let server = if round % 2 == 0 { leader } else { random.usize(..3) };
        field.network.plug(server, false);
        // For less than an election takes, and for more.
        tokio::time::sleep(Duration::from_millis(random.u64(50..900))).await;
        if round % 4 == 0 {
            field.is_replaced(leader, &field.others(leader)).await;
            field.goes_on(50).await;
        }
        field.network.plug(server, true);
        field.goes_on(50).await;
    }
    field.all_follow().await;
    field.judged("flapping links").await;
}

#[tokio::test]
async fn a_leader_that_has_lost_the_others_and_not_its_clients_serves_nothing_stale() {
    let Some(field) = Field::at_work("a leader cut off from the others alone", 3).await else {
        return;
    };
    for round in 0..rounds(2, 30) {
        let leader = field.all_follow().await;
        let others = field.others(leader);
        let pairs: Vec<_> = others.iter().map(|other| (leader, *other)).collect();
        // Clients still reach it, and find that another leads.
        let meanwhile = async |field: &Field| field.is_replaced(leader, &others).await;
        field.cut(&between(&pairs), long_or_short(round), meanwhile).await;
    }
    field.judged("a leader without followers").await;
}

/// What the others rest on: that a cut cuts one direction and no other.
#[tokio::test]
async fn a_cut_loses_what_it_should_and_nothing_else() {
    let Some(field) = Field::at_work("a cut", 3).await else { return };
    let leader = field.all_follow().await;
    let [one, other] = field.others(leader)[..] else { unreachable!("three servers") };
    field.network.cut(&[(leader, one)]);
    let deadline = Instant::now() + PATIENCE;
    while field.network.lost_to(one) == 0 {
        assert!(Instant::now() < deadline, "the leader's datagrams arrive");
        field.goes_on(10).await;
    }
    assert_eq!((field.network.lost_to(leader), field.network.lost_to(other)), (0, 0));
    field.network.heal();
    assert_eq!(field.network.lost_to(one), 0, "what was lost before is forgotten");
    field.judged("a cut").await;
}
