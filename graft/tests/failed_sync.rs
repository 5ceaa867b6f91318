//! A sync of the disk that fails under a server of a cluster: the server stops for good and says why, and the
//! others go on without it.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{error::Error, sync::Arc};

use common::{Note, Notes, SERVERS, add, soon, until_failed};
use graft::{
    ClusterBuilder, LogStore, ServerName, StartError, Status, StopReason, StoreError, Supervisor,
    SupervisorError, store::RedbStore,
};
use graft_storage::{
    medium::{Call, Fault, FaultyMedium},
    redb::Options,
};

/// What a faulty medium calls itself.
const PLACE: &str = "a faulty medium";

/// A disk that can fail for each server.
#[derive(Clone)]
struct Media([FaultyMedium; 3]);

impl Media {
    fn new() -> Self {
        Self([1, 2, 3].map(FaultyMedium::new))
    }

    fn of(&self, server: &str) -> &FaultyMedium {
        &self.0[SERVERS.iter().position(|name| *name == server).unwrap()]
    }

    fn cluster(&self) -> ClusterBuilder {
        let media = self.clone();
        let open = move |name: &ServerName| -> Result<Box<dyn LogStore>, StoreError> {
            let options =
                Options::new().segment_bytes(128 << 10).preallocated_bytes(0).cache_bytes(1 << 20);
            let medium = Arc::new(media.of(name.as_str()).clone());
            Ok(Box::new(RedbStore::open_on(medium, &options)?))
        };
        graft::cluster(SERVERS).stores(open)
    }

    /// The power goes for all of them at once.
    fn crash(&self) -> Self {
        Self(self.0.each_ref().map(|medium| medium.crash(7)))
    }
}

/// An error and everything behind it.
fn words(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged(Vec<String>);

impl Acknowledged {
    /// Adds `count` notes, by way of each server in turn.
    async fn add(&mut self, notes: &Supervisor<Notes>, count: usize) {
        for _ in 0..count {
            let number = self.0.len();
            let note = number.to_string();
            self.0.push(note.clone());
            let all = soon(notes.request(SERVERS[number % 3], add(&note))).await.unwrap();
            assert_eq!(all, self.0);
        }
    }

    async fn are_all_there(&self, notes: &Supervisor<Notes>) {
        for server in SERVERS {
            assert_eq!(soon(notes.request(server, Note::Read)).await.unwrap(), self.0);
        }
    }
}

/// Makes the next sync under `victim` fail while requests are made, and looks at what is left.
async fn fail_a_sync(media: &Media, notes: &Supervisor<Notes>, victim: &str) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    acknowledged.add(notes, 10).await;
    media.of(victim).fail(Fault { call: Some(Call::Sync), after: 0, times: 1 });
    acknowledged.add(notes, 20).await;
    let status = until_failed(notes, victim).await;
    assert_eq!(media.of(victim).failed(Call::Sync), 1);

    let Status::Failed { reason: StopReason::Store { reason }, restarts: 0 } = &status else {
        panic!("{status}")
    };
    assert!(reason.contains("the disk failed to Sync, as a test wanted"), "{reason}");
    assert!(reason.contains(PLACE), "{reason}");
    for (name, seen) in notes.servers() {
        assert_eq!(seen, if name == victim { status.clone() } else { Status::Running });
    }
    let data = graft::data(victim).await.unwrap();
    assert_eq!((&data.status, &data.state), (&status, &None));
    assert!(data.to_string().contains(reason), "{data}");

    // What the disk holds is not known in this process any more, however often it is asked.
    for _ in 0..2 {
        let error = soon(notes.restart_server(victim)).await.unwrap_err();
        let SupervisorError::Restart { source: StartError::Store { source, .. }, .. } = &error
        else {
            panic!("{error}")
        };
        assert!(matches!(source, StoreError::Poisoned { .. }), "{source:?}");
        let words = words(&error);
        assert!(
            words.contains(victim) && words.contains("failed earlier in this process (sync "),
            "{words}"
        );
        assert!(words.contains(PLACE), "{words}");
        assert!(words.contains("restart the process after checking the disk"), "{words}");
    }
    assert_eq!(notes.watch(victim).unwrap().borrow().status, status);
    acknowledged.add(notes, 20).await;
    acknowledged.are_all_there(notes).await;
    acknowledged
}

/// After the process, and the power with it: everything that was acknowledged is there, once.
async fn next_process_has(media: &Media, acknowledged: &mut Acknowledged, victim: &str) {
    let notes = media.crash().cluster().start(Notes::default).await.unwrap();
    acknowledged.are_all_there(&notes).await;
    // The disk was mended, so its server counts again.
    let other = SERVERS.into_iter().find(|name| *name != victim).unwrap();
    notes.stop_server(other).await.unwrap();
    acknowledged.add(&notes, 5).await;
    notes.shutdown().await;
}

#[tokio::test]
async fn a_failed_sync_stops_a_leader_for_good_and_loses_nothing() {
    let media = Media::new();
    let notes = media.cluster().start(Notes::default).await.unwrap();
    let leader = notes.leader().await.unwrap();
    let mut acknowledged = fail_a_sync(&media, &notes, leader.as_str()).await;
    notes.shutdown().await;
    next_process_has(&media, &mut acknowledged, leader.as_str()).await;
}

#[tokio::test]
async fn a_failed_sync_stops_a_follower_for_good_and_loses_nothing() {
    let media = Media::new();
    let notes = media.cluster().start(Notes::default).await.unwrap();
    let leader = notes.leader().await.unwrap();
    let follower = SERVERS.into_iter().find(|name| leader != *name).unwrap();
    let mut acknowledged = fail_a_sync(&media, &notes, follower).await;
    assert_eq!(notes.leader().await.unwrap(), leader, "nobody else's disk failed");
    notes.shutdown().await;
    next_process_has(&media, &mut acknowledged, follower).await;
}

#[tokio::test]
async fn a_store_whose_sync_failed_does_not_start_a_new_cluster_in_the_same_process() {
    let media = Media::new();
    let notes = media.cluster().start(Notes::default).await.unwrap();
    fail_a_sync(&media, &notes, "server2").await;
    notes.shutdown().await;
    let error = media.cluster().start(Notes::default).await.unwrap_err();
    let StartError::Store { server, source, .. } = &error else { panic!("{error}") };
    assert_eq!(*server, "server2");
    assert!(matches!(source, StoreError::Poisoned { .. }), "{source:?}");
    let words = words(&error);
    assert!(words.contains("restart the process") && words.contains(PLACE), "{words}");
}
