use std::sync::Arc;

use async_trait::async_trait;
use graft_core::{Birth, ClusterId, Epoch, Incarnation, LogStore, Membership, NodeId, NodeInfo};
use graft_storage::conformance::{self, Fixture};

use super::*;
use crate::executor::Executor;

const PACE: Pace = Pace {
    sync: Duration::from_millis(2),
    jitter: Duration::from_millis(3),
    read: Duration::from_millis(1),
};

fn disk(executor: &Executor, pace: Pace, seed: u64) -> Disk {
    let kernel = executor.kernel();
    let oracle = Oracle::blind(kernel.clone(), vec![NodeId::of_name("server0")]);
    Disk::new(0, pace, seed, kernel, oracle)
}

/// The suite compares handles that are open at one time, which a disk of the simulator never has: so each is
/// opened as if it were in the same life.
struct Opened(Disk);

#[async_trait]
impl Fixture for Opened {
    async fn open(&self) -> Arc<dyn LogStore> {
        let mut state = self.0.shared.lock();
        state.life = 1;
        let handle = Arc::new(state.store.clone());
        Arc::new(SimStore { shared: Arc::clone(&self.0.shared), handle, life: 1 })
    }
}

#[test]
fn a_simulated_disk_keeps_the_contract_of_a_store() {
    for check in conformance::checks() {
        let executor = Executor::new(1);
        let fixture = Opened(disk(&executor, PACE, 1));
        let verdict = executor.block_on(async move { check.run(&fixture).await });
        assert!(matches!(verdict, Some(Ok(()))), "{}: {verdict:?}", check.name());
    }
}

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(1),
        epoch: Epoch(0),
        node: NodeId::of_name("server0"),
        name: "server0".into(),
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "none".into(),
        format: 0,
    }
}

#[test]
fn a_crash_in_the_middle_of_a_write_loses_all_of_it_or_nothing() {
    let mut fates = [0, 0];
    for seed in 0..200 {
        let executor = Executor::new(seed);
        let disk = disk(&executor, PACE, seed);
        let store = Arc::new(disk.open());
        let first = Arc::clone(&store);
        let born = executor.block_on(async move {
            first.create(&identity()).await?;
            first.recover().await
        });
        assert!(matches!(born, Some(Ok(Some(_)))), "{born:?}");
        let node = NodeId::of_name("server0");
        let membership = Membership::of_voters([(node, NodeInfo::default())]);
        let crash = disk.clone();
        disk.ambush(move || crash.crash());
        let written =
            executor.block_on(async move { store.write(membership.founding_writes()).await });
        assert!(matches!(written, Some(Err(StoreError::Fenced))), "{written:?}");
        let store = disk.open();
        let found = executor.block_on(async move { store.recover().await });
        let Some(Ok(Some(found))) = found else { panic!("{found:?}") };
        // Hard state and entry go together.
        assert_eq!(found.hard_state.term.0, found.last.term.0);
        fates[usize::from(found.last.index.0 > 0)] += 1;
    }
    assert!(fates.iter().all(|count| *count > 20), "lost {}, kept {}", fates[0], fates[1]);
}
