//! The client on real threads, against the real session table: many tasks, futures that are dropped, a
//! leader that goes. What virtual time cannot show are races.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use common::{body, ms};
use graft_client::{Client, ClientConfig, Outcome, RequestOptions, Stats};
use graft_core::{
    ClientRequest, Entry, LeaderHint, Link, LinkError, LogId, LogTime, NodeId, RejectReason,
    Replies, Reply, TokioRuntime, session::Applier,
};

const TASKS: u64 = 64;
const REQUESTS: u64 = 500;
const SERVERS: u64 = 3;

/// Three servers behind one queue, served by one task; the log is applied as it comes.
#[derive(Default)]
struct Service {
    replies: OnceLock<Arc<dyn Replies>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(NodeId, ClientRequest)>,
    waker: Option<Waker>,
}

impl Link for Service {
    fn attach(&self, replies: Arc<dyn Replies>) {
        assert!(self.replies.set(replies).is_ok());
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let mut queue = self.queue.lock().unwrap();
        queue.waiting.push((to, request));
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        (1..=SERVERS).map(NodeId).collect()
    }
}

struct Server {
    service: Arc<Service>,
    rng: fastrand::Rng,
    applier: Applier,
    index: u64,
    leader: u64,
    /// How often each command was applied, and where last.
    applied: BTreeMap<u64, (u64, u64)>,
}

impl Server {
    async fn serve(mut self, applied: Arc<Mutex<BTreeMap<u64, (u64, u64)>>>) {
        loop {
            let batch = self.take().await;
            for (server, request) in batch {
                self.on_request(server, &request);
            }
            applied.lock().unwrap().clone_from(&self.applied);
            tokio::task::yield_now().await;
        }
    }

    async fn take(&self) -> Vec<(NodeId, ClientRequest)> {
        poll_fn(|context| {
            let mut queue = self.service.queue.lock().unwrap();
            if queue.waiting.is_empty() {
                queue.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut queue.waiting))
        })
        .await
    }

    fn on_request(&mut self, server: NodeId, request: &ClientRequest) {
        let replies = Arc::clone(self.service.replies.get().unwrap());
        let answer = |reply| replies.on_reply(server, request.request_id, reply);
        let hint = LeaderHint {
            leader: Some(NodeId(self.leader)).filter(|_| self.rng.bool()),
            members: None,
        };
        if server != NodeId(self.leader) {
            answer(Reply::Rejected(RejectReason::NotLeader(hint)));
            return;
        }
        if self.rng.u32(0..1000) == 0 {
            self.leader = self.leader % SERVERS + 1;
            // What it was asked meanwhile is in the log or not; nobody is told which.
            if self.rng.bool() {
                self.apply(request);
            }
            match self.rng.u32(0..3) {
                0 => answer(Reply::Rejected(RejectReason::LeadershipLost(hint))),
                1 => replies.on_server_gone(server),
                _ => {}
            }
            return;
        }
        let reply = self.apply(request);
        if self.rng.u32(0..20) == 0 {
            replies.on_reply(server, request.request_id, reply.clone());
        }
        replies.on_reply(server, request.request_id, reply);
    }

    fn apply(&mut self, request: &ClientRequest) -> Reply {
        self.index += 1;
        let entry = Entry {
            log_id: LogId::new(1, self.index),
            time: LogTime(0),
            kind: request.kind,
            payload: request.payload.clone(),
        };
        let (applied, index) = (&mut self.applied, self.index);
        let outcome = self.applier.apply_with(&entry, |command| {
            let number: u64 = std::str::from_utf8(command.body).unwrap().parse().unwrap();
            let (times, at) = applied.entry(number).or_default();
            *times += 1;
            *at = index;
            Ok(Bytes::from(format!("{number} at {index}")))
        });
        outcome.unwrap().unwrap().into()
    }
}

/// One task: half of its futures are dropped, some before they are sent, some after.
async fn issue(client: Client, task: u64) -> Vec<(u64, Bytes)> {
    let mut rng = fastrand::Rng::with_seed(task);
    let mut answers = Vec::new();
    for request in 0..REQUESTS {
        let number = task * REQUESTS + request;
        let mut future = pin!(client.request(body(&number.to_string()), RequestOptions::new(0)));
        if rng.bool() {
            let polls = rng.u32(0..3);
            for _ in 0..polls {
                let ended = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
                if ended.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            continue;
        }
        match future.await {
            Ok(answer) => answers.push((number, answer)),
            Err(error) => panic!("{number}: {error} ({:?})", error.outcome()),
        }
    }
    answers
}

async fn run() -> Stats {
    let service = Arc::new(Service::default());
    let runtime = Arc::new(TokioRuntime::current().unwrap());
    let config = ClientConfig {
        deadline: Duration::from_secs(60),
        attempt_timeout: ms(20),
        backoff_min: ms(1),
        backoff_max: ms(10),
        session_window: 48,
        ..ClientConfig::default()
    };
    let client = Client::new(Arc::clone(&service) as _, runtime, config).unwrap();
    let applied = Arc::default();
    let server = Server {
        service,
        rng: fastrand::Rng::with_seed(7),
        applier: Applier::new(),
        index: 0,
        leader: 1,
        applied: BTreeMap::new(),
    };
    let server = tokio::spawn(server.serve(Arc::clone(&applied)));
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(issue(client.clone(), task))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    server.abort();
    let _ended = server.await;
    let applied = applied.lock().unwrap();
    for (number, (times, _)) in applied.iter() {
        assert_eq!(*times, 1, "{number} was applied {times} times");
    }
    for (number, answer) in answers {
        let (_, at) = applied[&number];
        assert_eq!(answer, format!("{number} at {at}"), "the answer to {number}");
    }
    client.stats()
}

#[test]
fn many_tasks_on_threads_share_a_client_and_each_command_is_applied_once() {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    let stats = threads.unwrap().block_on(async { tokio::spawn(run()).await.unwrap() });
    assert!(stats.retries > 0, "{stats:?}");
    assert_eq!((stats.open, stats.waiting), (0, 0));
}

#[test]
fn a_runtime_of_one_thread_serves_as_well() {
    let thread = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let stats = thread.unwrap().block_on(run());
    assert!(stats.retries > 0, "{stats:?}");
    assert_eq!((stats.open, stats.waiting), (0, 0));
}

/// Dropping a runtime drops the driver: whoever still awaits a request elsewhere must hear of it.
#[test]
fn a_request_outlives_the_runtime_of_its_client() {
    let thread = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let client = thread.block_on(async {
        let runtime = Arc::new(TokioRuntime::current().unwrap());
        Client::new(Arc::new(Service::default()), runtime, ClientConfig::default()).unwrap()
    });
    drop(thread);
    let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ended = other.block_on(client.request(body("1"), RequestOptions::new(0)));
    assert_eq!(ended.unwrap_err().outcome(), Outcome::NotApplied);
}
