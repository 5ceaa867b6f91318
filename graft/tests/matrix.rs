//! Servers that are started one by one serve the same requests on every store and over every network: what clients
//! see, and what is left after servers have stopped and come back, does not depend on them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{PATIENCE, SERVERS, networks::Networks, soon, stores::Stores};
use graft::{
    Config, Entry, EntryError, Machine, Outcome, Request, RequestError, Server, ServerBuilder,
    StartError, Status,
};
use tokio::{sync::watch, task::JoinSet};

/// Values and lists under names.
#[derive(Default)]
struct Shelf {
    values: BTreeMap<String, Vec<u8>>,
    lists: BTreeMap<String, Vec<u32>>,
}

#[derive(Clone, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
enum Ask {
    Put(String, Vec<u8>),
    Get(String),
    /// Puts the second where the first is found.
    Swap(String, Option<Vec<u8>>, Vec<u8>),
    Append(String, u32),
    List(String),
    /// Puts, then panics.
    Panic(String, Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
enum Told {
    Done,
    Value(Option<Vec<u8>>),
    /// Another value than the expected one is there, and stays.
    Kept(Option<Vec<u8>>),
    List(Vec<u32>),
}

impl Entry for Ask {
    type Response = Told;
    const VERSION: u16 = 1;
    fn upgrade(version: u16, bytes: &[u8]) -> Result<Self, EntryError> {
        match version {
            0 => graft::decode(bytes).map(|older::Ask(name, value)| Self::Put(name, value)),
            _ => Err(EntryError::unknown::<Self>(version)),
        }
    }
}

impl Machine for Shelf {
    type Entry = Ask;
    fn handle_entry(&mut self, ask: Ask) -> Told {
        match ask {
            Ask::Put(name, value) => {
                self.values.insert(name, value);
                Told::Done
            }
            Ask::Get(name) => Told::Value(self.values.get(&name).cloned()),
            Ask::Swap(name, expected, value) => {
                let found = self.values.get(&name).cloned();
                if found != expected {
                    return Told::Kept(found);
                }
                self.values.insert(name, value);
                Told::Done
            }
            Ask::Append(name, number) => {
                self.lists.entry(name).or_default().push(number);
                Told::Done
            }
            Ask::List(name) => Told::List(self.lists.get(&name).cloned().unwrap_or_default()),
            Ask::Panic(name, value) => {
                self.values.insert(name, value);
                panic!("this machine was told to panic");
            }
        }
    }
}

/// What an earlier build of the same program sends.
mod older {
    #[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
    #[rkyv(crate = graft::rkyv)]
    pub(super) struct Ask(pub(super) String, pub(super) Vec<u8>);

    impl graft::Entry for Ask {
        type Response = super::Told;
    }
}

/// What a later one sends.
mod newer {
    #[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
    #[rkyv(crate = graft::rkyv)]
    pub(super) struct Ask(pub(super) u64);

    impl graft::Entry for Ask {
        type Response = super::Told;
        const VERSION: u16 = 2;
    }
}

/// Another program's.
#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Other(u64);

impl Entry for Other {
    type Response = u64;
}

#[derive(Default)]
struct Sum(u64);

impl Machine for Sum {
    type Entry = Other;
    fn handle_entry(&mut self, Other(more): Other) -> u64 {
        self.0 += more;
        self.0
    }
}

/// The usual one; but a machine that has much else to do decides nothing.
fn config() -> Config {
    Config::default().deadline(PATIENCE / 2)
}

/// One place of the matrix.
struct Place {
    stores: Stores,
    networks: Networks,
}

impl Place {
    fn server(&self, name: &str) -> ServerBuilder {
        let server = self.networks.give_to(name, graft::server(name));
        server.store(self.stores.open(name).unwrap()).config(config())
    }

    async fn start(&self, name: &str) -> Server<Shelf> {
        soon(self.server(name).start(Shelf::default)).await.unwrap()
    }

    async fn start_all(&self) -> Vec<Server<Shelf>> {
        let [one, two, three] = SERVERS.map(|name| self.start(name));
        let (one, two, three) = tokio::join!(one, two, three);
        vec![one, two, three]
    }

    /// Everybody who may ask: the servers, and over QUIC a client which knows the address of each alone.
    async fn ways(&self, servers: &[Server<Shelf>]) -> Vec<Way> {
        #[allow(unused_mut, reason = "without QUIC there are no others")]
        let mut ways: Vec<Way> = servers
            .iter()
            .map(|server| -> Way {
                let name = server.name().to_string();
                Box::new(move |ask| graft::request(&name, ask))
            })
            .collect();
        #[cfg(feature = "quic")]
        if let Networks::Quic(sites) = &self.networks {
            for server in servers {
                let address = sites.address(server.name().as_str()).to_string();
                let tls = sites.client_tls("client");
                let client = graft::Client::builder().config(config());
                let client = soon(client.connect([address], tls)).await.unwrap();
                ways.push(Box::new(move |ask| client.request(ask)));
            }
        }
        ways
    }
}

/// How somebody asks.
type Way = Box<dyn Fn(Ask) -> Request<Ask> + Send + Sync>;

async fn told(way: &Way, ask: Ask) -> Told {
    soon(way(ask)).await.unwrap()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Each way writes, and all of them read it.
async fn all_write_and_all_read(ways: &[Way], round: &str) {
    for (at, way) in ways.iter().enumerate() {
        let name = format!("{round}, way {at}");
        assert_eq!(told(way, Ask::Put(name.clone(), text(&name))).await, Told::Done);
        for other in ways {
            let read = told(other, Ask::Get(name.clone())).await;
            assert_eq!(read, Told::Value(Some(text(&name))));
        }
    }
}

/// Of those who compare and swap at the same time from the same value, exactly one does.
async fn one_of_all_swaps(ways: &[Way], name: &str) {
    let mut expected = None;
    for round in 0..5 {
        let asked = ways.iter().enumerate().map(|(at, way)| {
            let value = text(&format!("way {at} of round {round}"));
            (value.clone(), way(Ask::Swap(name.to_owned(), expected.clone(), value)))
        });
        let mut open = JoinSet::new();
        for (value, request) in asked {
            open.spawn(async move { (value, soon(request).await.unwrap()) });
        }
        let ended = open.join_all().await;
        let (swapped, kept): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|(_, told)| *told == Told::Done);
        let [(winner, _)] = &swapped[..] else { panic!("these swapped: {swapped:?}") };
        expected = Some(winner.clone());
        for (_, told) in kept {
            assert_eq!(told, Told::Kept(expected.clone()), "the winner's value is what they find");
        }
    }
    assert_eq!(told(&ways[0], Ask::Get(name.to_owned())).await, Told::Value(expected));
}

/// An entry of the largest size is taken and comes back whole; one that is any larger is refused.
async fn the_largest_entry_is_taken_and_no_larger_one(ways: &[Way], name: &str) {
    let limit = config().max_entry_bytes;
    let ask = |bytes: usize| Ask::Put(name.to_owned(), vec![7; bytes]);
    // A server's, and over QUIC a client's.
    for way in [&ways[0], &ways[ways.len() - 1]] {
        let Err(RequestError::EntryTooLarge { bytes, limit: said }) = soon(way(ask(limit))).await
        else {
            panic!("an entry above the limit was taken");
        };
        assert_eq!(said, limit);
        let largest = limit - (bytes - limit);
        assert_eq!(told(way, ask(largest)).await, Told::Done);
        let read = told(way, Ask::Get(name.to_owned())).await;
        assert!(read == Told::Value(Some(vec![7; largest])), "the value comes back whole");
        // Archives grow in steps of their alignment.
        let error = soon(way(ask(largest + 4))).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        assert_eq!(told(way, Ask::Put(name.to_owned(), Vec::new())).await, Told::Done);
    }
}

/// A machine that panics over an entry has applied it, and says so.
async fn a_panic_is_an_outcome(ways: &[Way], name: &str) {
    for (at, way) in ways.iter().enumerate() {
        let value = text(&format!("way {at}"));
        let error = soon(way(Ask::Panic(name.to_owned(), value.clone()))).await.unwrap_err();
        assert!(matches!(error, RequestError::MachinePanicked { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::Applied);
        assert_eq!(told(way, Ask::Get(name.to_owned())).await, Told::Value(Some(value)));
    }
}

/// Tasks that append numbers, each once, until they are told to stop.
struct Load {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<u32>>,
}

impl Load {
    const TASKS: u32 = 16;

    /// By all of these ways.
    fn begin(ways: Vec<Way>, name: &str) -> Self {
        let stop = watch::Sender::new(false);
        let ways = std::sync::Arc::new(ways);
        let mut tasks = JoinSet::new();
        for task in 0..Self::TASKS {
            let (ways, name, stop) = (ways.clone(), name.to_owned(), stop.subscribe());
            tasks.spawn(async move {
                let mut appended = Vec::new();
                // One more is asked for after the end, so that each was at it while something happened.
                for number in 0.. {
                    let is_last = *stop.borrow();
                    let number = task + number * Self::TASKS;
                    let way = &ways[number as usize / Self::TASKS as usize % ways.len()];
                    assert_eq!(told(way, Ask::Append(name.clone(), number)).await, Told::Done);
                    appended.push(number);
                    if is_last {
                        break;
                    }
                }
                appended
            });
        }
        Self { stop, tasks }
    }

    /// Every number that was acknowledged is in the list once, those of a task in their order.
    async fn end(self, way: &Way, name: &str) {
        self.stop.send_replace(true);
        let all = self.tasks.join_all().await;
        let Told::List(list) = told(way, Ask::List(name.to_owned())).await else {
            panic!("a list is answered by a list")
        };
        assert_eq!(list.len(), all.iter().map(Vec::len).sum::<usize>());
        for (task, appended) in all.into_iter().map(|all| (all[0] % Self::TASKS, all)) {
            let mut of_task = list.iter().filter(|number| *number % Self::TASKS == task);
            assert!(of_task.by_ref().eq(appended.iter()), "those of task {task} are not in order");
        }
    }
}

/// What the servers are not made for is refused by name, and harms nobody.
async fn others_are_refused(place: &Place, ways: &[Way], name: &str) {
    for server in SERVERS {
        let error = soon(graft::request(server, Other(1))).await.unwrap_err();
        let RequestError::WrongEntry { expected, found } = &error else { panic!("{error}") };
        assert!(expected.ends_with("::Ask") && found.ends_with("::Other"), "{error}");
    }
    #[cfg(feature = "quic")]
    if let Networks::Quic(sites) = &place.networks {
        let address = || [sites.address("server2").to_string()];
        let tls = || sites.client_tls("client");
        // A client of another program is not even connected, and hears why.
        let mut patience = Duration::from_millis(500);
        let error = loop {
            let other = graft::Client::<Other>::builder().patience(patience);
            let error = soon(other.connect(address(), tls())).await.unwrap_err().to_string();
            if error.contains("wrong entry") {
                break error;
            }
            // A machine with much else to do has not come to it.
            patience *= 4;
            assert!(patience < PATIENCE, "nobody said why: {error}");
        };
        for words in ["type Ask here", "type Other there"] {
            assert!(error.contains(words), "{error}");
        }
        let newer = graft::Client::<newer::Ask>::builder().config(config());
        let newer = soon(newer.connect(address(), tls())).await.unwrap();
        let error = soon(newer.request(newer::Ask(1))).await.unwrap_err();
        assert!(matches!(error, RequestError::InvalidEntry { .. }), "{error}");
        for words in ["it has version 2", "reads at most 1", "upgrade all servers"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let older = graft::Client::<older::Ask>::builder().config(config());
        let older = soon(older.connect(address(), tls())).await.unwrap();
        let ask = older::Ask(name.to_owned(), text("an old client's"));
        assert_eq!(soon(older.request(ask)).await.unwrap(), Told::Done);
        let read = told(&ways[0], Ask::Get(name.to_owned())).await;
        assert_eq!(read, Told::Value(Some(text("an old client's"))));
    }
    let _ = (place, name);
    assert!(matches!(told(&ways[0], Ask::Get("nothing".into())).await, Told::Value(None)));
}

/// The leader leaves under load, hands over, and comes back.
async fn a_leader_leaves_and_comes_back(
    place: &Place,
    servers: &mut Vec<Server<Shelf>>,
    name: &str,
) {
    let leader = soon(servers[0].leader()).await.unwrap();
    let at = servers.iter().position(|server| *server.name() == leader).unwrap();
    let leaving = servers.remove(at);
    let load = Load::begin(place.ways(servers).await, name);
    soon(leaving.shutdown()).await;
    let mut watch = servers[0].watch();
    let is_followed =
        |overview: &graft::Overview| overview.leader.as_ref().is_some_and(|other| *other != leader);
    soon(watch.wait_for(is_followed)).await.unwrap();
    servers.insert(at, place.start(leader.as_str()).await);
    let ways = place.ways(servers).await;
    load.end(&ways[at], name).await;
}

/// Each server in turn is started again from its store, the leader among them.
async fn each_is_restarted(place: &Place, servers: &[Server<Shelf>]) {
    for server in servers {
        let name = format!("while {} restarts", server.name());
        let others: Vec<_> = servers.iter().filter(|other| other.name() != server.name()).collect();
        let ways = others.iter().map(|other| -> Way {
            let name = other.name().to_string();
            Box::new(move |ask| graft::request(&name, ask))
        });
        let load = Load::begin(ways.collect(), &name);
        soon(server.restart()).await.unwrap();
        assert_eq!(server.status(), Status::Running);
        let ways = place.ways(std::slice::from_ref(server)).await;
        load.end(&ways[0], &name).await;
    }
}

/// A machine of other entries is not started on the store of a server.
async fn another_machine_is_refused(place: &Place) {
    let error = soon(place.server("server1").start(Sum::default)).await.unwrap_err();
    let StartError::WrongMachine { stored, given, .. } = &error else { panic!("{error}") };
    assert_eq!((stored.as_str(), given.as_str()), ("Ask", "Other"));
}

/// All leave at the same time.
async fn all_shut_down(servers: Vec<Server<Shelf>>) {
    let leaving: JoinSet<()> = servers.into_iter().map(Server::shutdown).collect();
    soon(leaving.join_all()).await;
}

/// What is done in every place of the matrix.
async fn serves(stores: Stores, networks: Networks) {
    let place = Place { stores, networks };
    let mut servers = place.start_all().await;
    let ways = place.ways(&servers).await;
    all_write_and_all_read(&ways, "before").await;
    one_of_all_swaps(&ways, "swapped").await;
    a_panic_is_an_outcome(&ways, "panic").await;
    the_largest_entry_is_taken_and_no_larger_one(&ways, "large").await;
    others_are_refused(&place, &ways, "other").await;
    a_leader_leaves_and_comes_back(&place, &mut servers, "leaving").await;
    each_is_restarted(&place, &servers).await;
    let swapped = told(&ways[0], Ask::Get("swapped".into())).await;
    let appended = told(&ways[0], Ask::List("leaving".into())).await;
    drop(ways);
    all_shut_down(servers).await;
    another_machine_is_refused(&place).await;

    let servers = place.start_all().await;
    let ways = place.ways(&servers).await;
    for way in &ways {
        assert_eq!(told(way, Ask::Get("swapped".into())).await, swapped);
        assert_eq!(told(way, Ask::List("leaving".into())).await, appended);
    }
    all_write_and_all_read(&ways, "after").await;
    all_shut_down(servers).await;
}

macro_rules! places {
    ($($(#[$attribute:meta])* $claim:ident: $stores:expr, $networks:expr;)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                serves($stores, $networks).await;
            }
        )*
    };
}

places! {
    memory_stores_serve_over_memory: Stores::memory(), Networks::memory();
    #[cfg(feature = "redb")]
    redb_stores_serve_over_memory: Stores::redb(), Networks::memory();
    #[cfg(feature = "redb")]
    different_stores_serve_over_memory: Stores::mixed(), Networks::memory();
    #[cfg(feature = "quic")]
    memory_stores_serve_over_quic: Stores::memory(), Networks::quic();
    #[cfg(all(feature = "quic", feature = "redb"))]
    redb_stores_serve_over_quic: Stores::redb(), Networks::quic();
    #[cfg(all(feature = "quic", feature = "redb"))]
    different_stores_serve_over_quic: Stores::mixed(), Networks::quic();
}
