//! Panics: of a machine over an entry, and of a server's driver.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc,
};

use common::{Note, Notes, SERVERS, Trap, add, soon, until, until_failed};
use graft::{LogStore, Outcome, RequestError, Status, StopReason, StoreError};
use graft_storage::MemoryStore;
use tokio::sync::watch;

/// The story: in the library this one follows, an entry over which the machine panicked killed the
/// leader, was replayed by the next one, and killed that too, until nobody was left.
#[tokio::test]
async fn a_panicking_entry_does_not_kill_leader_after_leader() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    let leader = notes.leader().await.unwrap();
    let term = notes.watch(&leader).unwrap().borrow().term;

    let error = soon(notes.request("server1", Note::Panic("b".into()))).await.unwrap_err();
    let RequestError::MachinePanicked { message } = &error else { panic!("{error}") };
    assert_eq!(message, "this machine was told to panic");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::Applied, false));

    // The machine keeps what it had done, the same server leads, and nobody was started again.
    assert_eq!(soon(notes.request("server2", add("c"))).await.unwrap(), ["a", "b", "c"]);
    let overview = notes.watch(&leader).unwrap().borrow().clone();
    assert_eq!((overview.role, overview.term), (Some(graft::Role::Leader), term));
    assert!(notes.servers().iter().all(|(_, status)| *status == Status::Running));

    // Neither does replaying it kill anybody.
    for server in SERVERS {
        notes.restart_server(server).await.unwrap();
    }
    assert_eq!(soon(notes.request("server3", Note::Read)).await.unwrap(), ["a", "b", "c"]);
    assert!(notes.servers().iter().all(|(_, status)| *status == Status::Running));
}

/// A cluster whose `server3` has a trap for a store.
struct Trapped {
    notes: graft::Supervisor<Notes>,
    /// How often the trap is still to go off.
    panics: Arc<AtomicUsize>,
    /// How many machines were made.
    made: Arc<AtomicUsize>,
    /// Whether the store keeps whoever opens it waiting.
    silent: watch::Sender<bool>,
}

async fn trapped() -> Trapped {
    let (panics, made) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let set = Arc::clone(&panics);
    let (silent, silence) = watch::channel(false);
    let open = move |name: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        let store = MemoryStore::new();
        if *name == "server3" {
            let trap = Trap::new(store, Arc::clone(&set));
            return Ok(Box::new(trap.silent_while(silence.clone())));
        }
        Ok(Box::new(store))
    };
    let count = Arc::clone(&made);
    let init = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Notes::default()
    };
    let notes = graft::cluster(SERVERS).stores(open).start(init).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    Trapped { notes, panics, made, silent }
}

#[tokio::test]
async fn a_server_is_started_again_after_a_panic_of_its_driver() {
    let Trapped { notes, panics, made, .. } = trapped().await;
    let mut watch = notes.watch("server3").unwrap();
    panics.store(1, Ordering::Relaxed);
    soon(notes.request("server1", add("b"))).await.unwrap();
    while made.load(Ordering::Relaxed) == 3 {
        soon(watch.changed()).await.unwrap();
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    // It takes part again: with it and one other there is a majority.
    notes.stop_server("server2").await.unwrap();
    assert_eq!(soon(notes.request("server3", add("c"))).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(watch.borrow().status, Status::Running);
    assert_eq!(made.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_driver_that_panics_again_and_again_is_left_alone_after_three_restarts() {
    let Trapped { notes, panics, made, .. } = trapped().await;
    panics.store(usize::MAX, Ordering::Relaxed);
    soon(notes.request("server1", add("b"))).await.unwrap();
    let status = until_failed(&notes, "server3").await;
    let Status::Failed { reason: StopReason::Panicked { .. }, restarts: 3 } = &status else {
        panic!("{status}")
    };
    assert_eq!(made.load(Ordering::Relaxed), 6, "three at first, and one a restart");
    let data = notes.data("server3").await.unwrap();
    assert_eq!((&data.status, &data.state), (&status, &None));
    assert_eq!(soon(notes.request("server3", add("c"))).await.unwrap(), ["a", "b", "c"]);
    // Whoever has mended it may start it by hand.
    panics.store(0, Ordering::Relaxed);
    notes.restart_server("server3").await.unwrap();
    until(&notes, "server3", |overview| overview.leader.is_some()).await;
    notes.stop_server("server1").await.unwrap();
    assert_eq!(soon(notes.request("server2", Note::Read)).await.unwrap(), ["a", "b", "c"]);
}

/// Panics the driver of `server3` while its disk does not answer, so that its start waits for that.
async fn starting_on_a_silent_disk() -> Trapped {
    let trapped = trapped().await;
    trapped.silent.send_replace(true);
    trapped.panics.store(1, Ordering::Relaxed);
    soon(trapped.notes.request("server1", add("b"))).await.unwrap();
    until(&trapped.notes, "server3", |seen| matches!(seen.status, Status::Restarting { .. })).await;
    trapped
}

/// The story: a server that was told to stop while it was being opened again after a panic was not heard until its disk
/// had answered, and whoever had told it was told after fifteen seconds that its machine blocks.
#[tokio::test]
async fn a_server_stops_although_its_start_waits_for_a_disk_that_does_not_answer() {
    let Trapped { notes, silent, .. } = starting_on_a_silent_disk().await;
    soon(notes.stop_server("server3")).await.unwrap();
    assert_eq!(notes.servers()[2].1, Status::Stopped);
    // So does one that is started by hand: whoever gives up leaves it stopped.
    {
        let mut restart = std::pin::pin!(notes.restart_server("server3"));
        let limit = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(limit, &mut restart).await.is_err(), "its disk is silent");
    }
    soon(notes.stop_server("server3")).await.unwrap();
    assert_eq!(notes.servers()[2].1, Status::Stopped);

    silent.send_replace(false);
    soon(notes.restart_server("server3")).await.unwrap();
    soon(notes.stop_server("server2")).await.unwrap();
    assert_eq!(soon(notes.request("server3", add("c"))).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_shutdown_lets_go_of_a_store_that_does_not_answer() {
    let Trapped { notes, silent, .. } = starting_on_a_silent_disk().await;
    soon(notes.shutdown()).await;
    // Its start has let go of it too.
    assert_eq!(silent.receiver_count(), 0);
}

/// A machine on a thread of its own that stays at work until it is let go, and counts how many of its
/// server are alive.
struct Lingering {
    alive: Arc<AtomicUsize>,
    /// Whether the next one that is dropped panics over it.
    fails_to_go: Arc<AtomicBool>,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    at_work: tokio::sync::mpsc::UnboundedSender<()>,
}

impl graft::Machine for Lingering {
    type Entry = Note;
    const APPLY: graft::Apply = graft::Apply::Thread;
    fn handle_entry(&mut self, entry: Note) -> Vec<String> {
        if matches!(entry, Note::Add(_)) {
            // The test may have ended: then nobody listens, and nobody holds the gate.
            let _ = self.at_work.send(());
            let _ = self.gate.lock().unwrap().recv();
        }
        Vec::new()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
        assert!(!self.fails_to_go.swap(false, Ordering::SeqCst), "this machine was told to panic");
    }
}

/// A server with a [`Lingering`] machine, on a store that panics as often as `panics` says.
struct Held {
    alone: graft::Supervisor<Lingering>,
    panics: Arc<AtomicUsize>,
    most_alive: Arc<AtomicUsize>,
    fails_to_go: Arc<AtomicBool>,
    open_gate: mpsc::Sender<()>,
    work: tokio::sync::mpsc::UnboundedReceiver<()>,
}

async fn held() -> Held {
    let [panics, alive, most_alive] = std::array::from_fn(|_| Arc::<AtomicUsize>::default());
    let (open_gate, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let (at_work, work) = tokio::sync::mpsc::unbounded_channel();
    let fails_to_go = Arc::<AtomicBool>::default();
    let set = Arc::clone(&panics);
    let open = move |_: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        Ok(Box::new(Trap::new(MemoryStore::new(), Arc::clone(&set))))
    };
    let (most, fails) = (Arc::clone(&most_alive), Arc::clone(&fails_to_go));
    let init = move || {
        let now = alive.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Lingering {
            alive: Arc::clone(&alive),
            fails_to_go: Arc::clone(&fails),
            gate: Arc::clone(&gate),
            at_work: at_work.clone(),
        }
    };
    let alone = graft::cluster(["alone"]).stores(open).start(init).await.unwrap();
    Held { alone, panics, most_alive, fails_to_go, open_gate, work }
}

#[tokio::test]
async fn a_restarted_server_waits_for_its_machines_thread() {
    let Held { alone, most_alive, open_gate, mut work, .. } = held().await;
    let first = soon(alone.request("alone", add("held")));
    let restart = async {
        soon(work.recv()).await.unwrap();
        let mut watch = alone.watch("alone").unwrap();
        let release = async {
            // The node does not wait for its machine for ever.
            soon(watch.wait_for(|overview| !overview.status.is_up())).await.unwrap();
            open_gate.send(()).unwrap();
            // The log is replayed by the machine that is made anew.
            soon(work.recv()).await.unwrap();
            open_gate.send(()).unwrap();
        };
        tokio::join!(soon(alone.restart_server("alone")), release).0
    };
    let (_, restarted) = tokio::join!(first, restart);
    assert!(restarted.is_ok(), "{restarted:?}");
    assert!(soon(alone.request("alone", Note::Read)).await.is_ok());
    assert_eq!(
        most_alive.load(Ordering::SeqCst),
        1,
        "the old machine was at work beside the new one"
    );
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_entry_behind_it() {
    let Held { alone, open_gate, mut work, .. } = held().await;
    let first = soon(alone.request("alone", add("held")));
    let rest = async {
        soon(work.recv()).await.unwrap();
        // These two are taken in while the machine is at work, and go to it together.
        let fast = soon(alone.request("alone", Note::Read));
        let slow = soon(alone.request("alone", add("slow")));
        let release = async {
            open_gate.send(()).unwrap();
            soon(work.recv()).await.unwrap();
        };
        let mut slow = std::pin::pin!(slow);
        let fast = async {
            let (fast, ()) = tokio::join!(fast, release);
            fast
        };
        let answered = tokio::select! {
            biased;
            fast = fast => fast,
            slow = &mut slow => panic!("the gate is closed: {slow:?}"),
        };
        open_gate.send(()).unwrap();
        (answered, slow.await)
    };
    let (first, (fast, slow)) = tokio::join!(first, rest);
    assert!(first.is_ok() && fast.is_ok() && slow.is_ok(), "{first:?} {fast:?} {slow:?}");
}

/// The driver panics while its machine is on the thread, and the server is started again.
async fn starts_again_beside_its_machine(held: Held) {
    let Held { alone, panics, most_alive, open_gate, mut work, .. } = held;
    let mut watch = alone.watch("alone").unwrap();

    let first = soon(alone.request("alone", add("held")));
    let second = async {
        soon(work.recv()).await.unwrap();
        // While the machine works on its thread, the next write panics.
        panics.store(1, Ordering::Relaxed);
        let next = soon(alone.request("alone", Note::Read));
        let release = async {
            while panics.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
            open_gate.send(()).unwrap();
            // The log is replayed by the machine that is made anew.
            soon(work.recv()).await.unwrap();
            open_gate.send(()).unwrap();
        };
        tokio::join!(next, release).0
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(watch.borrow_and_update().status, Status::Running);
    assert_eq!(
        most_alive.load(Ordering::SeqCst),
        1,
        "the old machine was at work beside the new one"
    );
}

#[tokio::test]
async fn a_server_whose_driver_panicked_waits_for_its_machines_thread() {
    starts_again_beside_its_machine(held().await).await;
}

#[tokio::test]
async fn a_machine_that_panics_as_it_is_dropped_on_its_thread_is_at_rest_too() {
    let held = held().await;
    let fails_to_go = Arc::clone(&held.fails_to_go);
    fails_to_go.store(true, Ordering::SeqCst);
    starts_again_beside_its_machine(held).await;
    assert!(!fails_to_go.load(Ordering::SeqCst), "no machine was dropped");
}
