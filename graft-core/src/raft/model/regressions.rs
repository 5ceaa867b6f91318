//! Faults that were found once, as stories.

use std::time::Duration;

use fastrand::Rng;

use super::{coverage::Coverage, disk::Disk, server::Server, swarm::Swarm};
use crate::{NodeId, raft::Effects, raft::Input, raft::RoleName};

/// A supervisor keeps one clock for all its servers. One of them crashes after an hour and is started
/// again. Its election timer began at zero of that clock, so the first turn, an hour "later", made it
/// campaign at once, into a cluster with a healthy leader; without pre-vote that deposed the leader.
#[test]
fn a_server_that_starts_on_an_old_clock_waits_before_it_campaigns() {
    let mut rng = Rng::with_seed(1);
    let mut swarm = Swarm::draw(0, &mut rng, None);
    swarm.clock_restarts = false;
    let mut server = Server::new(NodeId(1), Disk::founded(&swarm.membership()), 3);
    server.clock = 360_000;
    server.start(&swarm, &mut rng, &mut Coverage::default());
    let raft = server.raft.as_mut().expect("it was started");
    let shortest = raft.config.election_timeout_min_ticks;
    let mut at = |tick: u64| {
        let now = Duration::from_millis(10) * u32::try_from(tick).expect("small");
        raft.step(Input::Time { now, unix_millis: 0 });
        raft.drain(&mut Effects::default());
        raft.role_name()
    };
    assert_eq!(at(360_000), RoleName::Follower, "it has only just started");
    assert_eq!(at(360_000 + shortest - 1), RoleName::Follower);
    assert_ne!(at(360_000 + swarm.election_timeout()), RoleName::Follower);
}
