//! The same requests to clusters of one process on every kind of store: what clients and operators see does not
//! depend on them. `matrix.rs` has the same for servers that are started one by one, over every kind of network.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use common::{Note, Notes, SERVERS, add, soon, stores::Stores};
use graft::{Outcome, RequestError, Status, Supervisor};

/// A cluster of one process, and what is left of it.
struct Place {
    stores: Stores,
    /// What the machine must have been told so far.
    expected: Vec<String>,
}

impl Place {
    async fn start(&self) -> Supervisor<Notes> {
        let cluster = graft::cluster(SERVERS).stores(self.stores.opener());
        soon(cluster.start(Notes::default)).await.unwrap()
    }

    /// Adds a note by way of each server, and looks at all answers.
    async fn add_everywhere(&mut self, notes: &Supervisor<Notes>) {
        for server in SERVERS {
            let note = format!("note {}", self.expected.len());
            self.expected.push(note.clone());
            assert_eq!(soon(notes.request(server, add(&note))).await.unwrap(), self.expected);
        }
        for server in SERVERS {
            assert_eq!(soon(notes.request(server, Note::Read)).await.unwrap(), self.expected);
        }
    }

    /// A request over which the machine panics is applied, and says so.
    async fn panic_once(&mut self, notes: &Supervisor<Notes>) {
        self.expected.push("panics".into());
        let entry = Note::Panic("panics".into());
        let error = soon(notes.request("server2", entry)).await.unwrap_err();
        assert!(matches!(error, RequestError::MachinePanicked { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::Applied);
        assert_eq!(soon(notes.request("server3", Note::Read)).await.unwrap(), self.expected);
    }

    /// Requests at the same time, in any order, each applied once.
    async fn add_at_once(&mut self, notes: &Supervisor<Notes>, count: usize) {
        let first = self.expected.len();
        let added: Vec<String> =
            (first..first + count).map(|note| format!("note {note}")).collect();
        let mut open = tokio::task::JoinSet::new();
        for (at, note) in added.iter().enumerate() {
            open.spawn(notes.request(SERVERS[at % 3], add(note)));
        }
        while let Some(ended) = soon(open.join_next()).await {
            ended.unwrap().unwrap();
        }
        let mut all = soon(notes.request("server1", Note::Read)).await.unwrap();
        self.expected.clone_from(&all);
        assert_eq!(all.len(), first + count);
        all.drain(..first);
        all.sort_unstable();
        let mut added = added;
        added.sort_unstable();
        assert_eq!(all, added);
    }

    /// Another leads, a leader stops, and a server is started again.
    async fn disturb(&mut self, notes: &Supervisor<Notes>) {
        let leader = soon(notes.leader()).await.unwrap();
        let other = SERVERS.into_iter().find(|server| leader != *server).unwrap();
        soon(notes.transfer_leadership(other)).await.unwrap();
        assert_eq!(soon(notes.leader()).await.unwrap(), other);
        self.add_everywhere(notes).await;
        soon(notes.stop_server(other)).await.unwrap();
        let data = soon(graft::data(other)).await.unwrap();
        assert_eq!((data.status, data.state), (Status::Stopped, None));
        self.add_everywhere(notes).await;
        soon(notes.restart_server(other)).await.unwrap();
        self.add_everywhere(notes).await;
    }

    async fn is_told_of_its_entries(&self) {
        for server in SERVERS {
            let data = soon(graft::data(server)).await.unwrap();
            let state = data.state.unwrap();
            assert_eq!((data.me.as_str(), data.status), (server, Status::Running));
            assert!(state.durable_index <= state.last_index, "{state:?}");
            assert!(state.last_applied <= state.durable_index, "{state:?}");
            assert!(!state.log.is_empty(), "{state:?}");
        }
    }
}

/// What is done on stores of every kind.
async fn serve(stores: Stores) {
    let mut place = Place { stores, expected: Vec::new() };
    for _ in 0..2 {
        let notes = place.start().await;
        // What the cluster before left behind is there.
        assert_eq!(soon(notes.request("server1", Note::Read)).await.unwrap(), place.expected);
        place.add_everywhere(&notes).await;
        place.add_at_once(&notes, 100).await;
        place.panic_once(&notes).await;
        place.disturb(&notes).await;
        place.is_told_of_its_entries().await;
        soon(notes.shutdown()).await;
    }
}

macro_rules! places {
    ($($(#[$attribute:meta])* $claim:ident: $stores:expr;)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test]
            async fn $claim() {
                serve($stores).await;
            }
        )*
    };
}

places! {
    memory_stores_serve: Stores::memory();
    #[cfg(feature = "redb")]
    redb_stores_serve: Stores::redb();
    #[cfg(feature = "redb")]
    different_stores_serve_together: Stores::mixed();
}
