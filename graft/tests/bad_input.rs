//! What a caller can get wrong: each is a typed error that says what to do, nothing is lost, and nothing hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::time::{Duration, Instant};

use common::{Note, Notes, SERVERS, add, soon, until_failed};
use graft::{Config, Outcome, RequestError, StartError, SupervisorError};
use tokio::task::JoinSet;

const MS: Duration = Duration::from_millis(1);

async fn refused(servers: &[&str]) -> StartError {
    graft::start(servers.iter().copied(), Notes::default).await.unwrap_err()
}

#[tokio::test]
async fn no_servers_empty_names_and_duplicate_names_are_named() {
    let error = refused(&[]).await;
    assert!(matches!(error, StartError::NoServers), "{error}");
    let error = refused(&["a", ""]).await;
    assert!(matches!(error, StartError::EmptyName { position: 2 }), "{error}");
    let error = refused(&["a", "b", "a"]).await;
    assert!(matches!(&error, StartError::DuplicateName { name } if *name == "a"), "{error}");
    // None of that has taken a name.
    graft::start(["a", "b"], Notes::default).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_configuration_out_of_range_is_refused_with_the_fields_name() {
    let bad = [
        (Config::default().heartbeat(Duration::ZERO), "`Config::heartbeat`"),
        (Config::default().election_timeout(60 * MS..=600 * MS), "`Config::election_timeout`"),
        (Config::default().deadline(Duration::ZERO), "`Config::deadline`"),
        (Config::default().max_entry_bytes(0), "`Config::max_entry_bytes`"),
    ];
    for (config, named) in bad {
        let start = graft::cluster(SERVERS).config(config).start(Notes::default).await;
        let error = start.unwrap_err();
        assert!(matches!(error, StartError::Config(_)), "{error:?}");
        assert!(error.to_string().starts_with(named), "{error}");
    }
}

#[tokio::test]
async fn a_machine_that_cannot_be_made_is_told_with_its_reason() {
    let failing = || Err::<Notes, _>("the disk of the machine is full");
    let error = graft::start(["init1", "init2"], failing).await.unwrap_err();
    let StartError::Init { server, source } = &error else { panic!("{error}") };
    assert_eq!(*server, "init1");
    assert_eq!(source.to_string(), "the disk of the machine is full");

    let panicking = || -> Notes { panic!("no machine today") };
    let error = graft::start(["init1", "init2"], panicking).await.unwrap_err();
    let StartError::Init { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("no machine today"), "{source}");

    let fallible = || Ok::<_, std::io::Error>(Notes::default());
    graft::start(["init1", "init2"], fallible).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn an_unknown_server_is_named_by_requests_data_and_supervisor() {
    let notes = graft::start(["known"], Notes::default).await.unwrap();
    let unknown = RequestError::UnknownServer { name: "stranger".into() };
    assert_eq!(graft::request("stranger", Note::Read).await.unwrap_err(), unknown);
    assert_eq!(graft::data("stranger").await.unwrap_err(), unknown);
    assert_eq!(notes.request("stranger", Note::Read).await.unwrap_err(), unknown);
    assert_eq!(notes.data("stranger").await.unwrap_err(), unknown);
    let error = notes.stop_server("stranger").await.unwrap_err();
    assert_eq!(error.to_string(), "this supervisor has no server `stranger`, it has known");
    assert!(matches!(
        notes.restart_server("stranger").await,
        Err(SupervisorError::UnknownServer { .. })
    ));
    assert!(matches!(notes.watch("stranger"), Err(SupervisorError::UnknownServer { .. })));
    assert!(matches!(
        notes.transfer_leadership("stranger").await,
        Err(SupervisorError::UnknownServer { .. })
    ));
}

/// The last entry in the log of the leader.
async fn last_index(server: &str) -> u64 {
    graft::data(server).await.unwrap().state.unwrap().last_index
}

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Stranger(u32);

impl graft::Entry for Stranger {
    type Response = u32;
}

#[tokio::test]
async fn an_entry_of_another_machine_never_reaches_the_log() {
    let notes = graft::start(["alone"], Notes::default).await.unwrap();
    soon(notes.request("alone", add("a"))).await.unwrap();
    let before = last_index("alone").await;
    let error = graft::request("alone", Stranger(1)).await.unwrap_err();
    let RequestError::WrongEntry { expected, found } = &error else { panic!("{error}") };
    assert!(expected.ends_with("common::Note") && found.ends_with("Stranger"), "{error}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotApplied, false));
    assert_eq!(last_index("alone").await, before);
    assert_eq!(soon(notes.request("alone", Note::Read)).await.unwrap(), ["a"]);
}

/// A number that archives like any other, and reads back unless it is 13.
mod fussy {
    use std::fmt;

    use graft::rkyv::{
        Archive, Place, Resolver, Serialize,
        primitive::ArchivedU32,
        rancor::{Fallible, Source},
        with::{ArchiveWith, DeserializeWith, SerializeWith},
    };

    pub(crate) struct NotThirteen;

    #[derive(Debug)]
    struct Thirteen;

    impl fmt::Display for Thirteen {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("thirteen is not read")
        }
    }

    impl std::error::Error for Thirteen {}

    impl ArchiveWith<u32> for NotThirteen {
        type Archived = ArchivedU32;
        type Resolver = Resolver<u32>;
        fn resolve_with(field: &u32, resolver: Self::Resolver, out: Place<ArchivedU32>) {
            field.resolve(resolver, out);
        }
    }

    impl<S: Fallible + ?Sized> SerializeWith<u32, S> for NotThirteen {
        fn serialize_with(field: &u32, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
            field.serialize(serializer)
        }
    }

    impl<D: Fallible<Error: Source> + ?Sized> DeserializeWith<ArchivedU32, u32, D> for NotThirteen {
        fn deserialize_with(field: &ArchivedU32, _: &mut D) -> Result<u32, D::Error> {
            match field.to_native() {
                13 => Err(Source::new(Thirteen)),
                number => Ok(number),
            }
        }
    }
}

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Fussy(#[rkyv(with = fussy::NotThirteen)] u32);

impl graft::Entry for Fussy {
    type Response = Fussy;
}

#[derive(Default)]
struct Echo;

impl graft::Machine for Echo {
    type Entry = Fussy;
    fn handle_entry(&mut self, Fussy(number): Fussy) -> Fussy {
        Fussy(if number == 14 { 13 } else { number })
    }
}

#[tokio::test]
async fn an_entry_that_does_not_decode_never_enters_the_log() {
    let echo = graft::start(["echo1", "echo2", "echo3"], Echo::default).await.unwrap();
    assert_eq!(soon(echo.request("echo1", Fussy(12))).await.unwrap().0, 12);
    let before = last_index("echo1").await;
    let error = soon(echo.request("echo1", Fussy(13))).await.unwrap_err();
    let RequestError::InvalidEntry { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("thirteen is not read"), "{reason}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotApplied, false));
    assert_eq!(last_index("echo1").await, before);
}

#[tokio::test]
async fn a_response_that_does_not_decode_says_that_the_entry_was_applied() {
    let echo = graft::start(["echo1", "echo2", "echo3"], Echo::default).await.unwrap();
    let error = soon(echo.request("echo1", Fussy(14))).await.unwrap_err();
    assert!(matches!(error, RequestError::UnreadableResponse { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Applied);
    assert_eq!(soon(echo.request("echo1", Fussy(15))).await.unwrap().0, 15);
}

#[tokio::test]
async fn an_entry_is_taken_at_the_limit_and_refused_above_it() {
    let config = Config::default().max_entry_bytes(1000);
    let cluster = graft::cluster(["big1", "big2", "big3"]).config(config);
    let notes = cluster.start(Notes::default).await.unwrap();
    let long = |length: usize| notes.request("big1", Note::Add("x".repeat(length)));
    // The archive of an entry is a little longer than its text.
    let limit = (900..1000).rev().find(|length| {
        let size = rkyv::to_bytes::<rkyv::rancor::Error>(&Note::Add("x".repeat(*length)));
        size.unwrap().len() <= 1000
    });
    let limit = limit.unwrap();
    soon(long(limit)).await.unwrap();
    let error = soon(long(limit + 4)).await.unwrap_err();
    assert!(matches!(error, RequestError::EntryTooLarge { limit: 1000, bytes } if bytes > 1000));
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotApplied, false));
}

#[tokio::test]
async fn without_a_majority_a_request_ends_at_its_deadline() {
    let servers = ["few1", "few2", "few3"];
    let notes = graft::start(servers, Notes::default).await.unwrap();
    notes.request("few1", add("a")).await.unwrap();
    notes.stop_server("few1").await.unwrap();
    notes.stop_server("few2").await.unwrap();
    let begun = Instant::now();
    let error = notes.request("few3", add("b")).deadline(300 * MS).await.unwrap_err();
    assert!(
        matches!(error, RequestError::NoLeader { .. } | RequestError::Timeout { .. }),
        "{error}"
    );
    assert!(begun.elapsed() >= 300 * MS, "it was tried until the deadline");
    let late = notes.request("few3", add("c")).deadline(Duration::ZERO).await.unwrap_err();
    assert_eq!(late.outcome(), Outcome::NotApplied, "{late}");
    // With a majority all is well again, and what was never applied is not there.
    notes.restart_server("few1").await.unwrap();
    let read = soon(notes.request("few3", Note::Read)).await.unwrap();
    assert_eq!(read.first().map(String::as_str), Some("a"));
    assert!(!read.contains(&"c".to_owned()));
}

/// How many entries a machine got.
#[derive(Default)]
struct Tally(u64);

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Count(Vec<u8>);

impl graft::Entry for Count {
    type Response = u64;
}

impl graft::Machine for Tally {
    type Entry = Count;
    fn handle_entry(&mut self, _: Count) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[tokio::test]
async fn a_flood_is_answered_to_the_last_request_and_what_was_refused_was_not_applied() {
    const FLOOD: usize = 72_000;
    // A leader with little room, and more requests than a client lets wait.
    let config = Config::default()
        .max_entry_bytes(256)
        .max_uncommitted_bytes(64 << 10)
        .deadline(Duration::from_secs(30));
    let servers = ["flood1", "flood2", "flood3"];
    let tally = graft::cluster(servers).config(config).start(Tally::default).await.unwrap();
    let mut open = JoinSet::new();
    for _ in 0..FLOOD {
        open.spawn(tally.request("flood1", Count(vec![7; 100])));
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(ended) = soon(open.join_next()).await {
        match ended.unwrap() {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!(error, RequestError::Overloaded);
                assert_eq!((error.outcome(), error.is_retryable()), (Outcome::NotApplied, true));
                refused += 1;
            }
        }
    }
    assert_eq!(answered + refused, FLOOD);
    assert!(refused > 0, "so many at once should have been too many");
    let counted = soon(tally.request("flood1", Count(Vec::new()))).await.unwrap();
    assert_eq!(counted, answered as u64 + 1);
}

#[tokio::test]
async fn a_log_at_its_largest_size_refuses_requests_and_keeps_what_it_has() {
    let config = Config::default().max_log_bytes(20_000).deadline(500 * MS);
    let notes = graft::cluster(["full"]).config(config).start(Tally::default).await.unwrap();
    let mut counted = 0;
    let error = loop {
        match soon(notes.request("full", Count(vec![0; 1000]))).await {
            Ok(count) => counted = count,
            Err(error) => break error,
        }
    };
    assert_eq!(error, RequestError::Overloaded);
    assert!((10..40).contains(&counted), "{counted} entries of 1 kB in a log of 20 kB");
    assert_eq!(graft::data("full").await.unwrap().status, graft::Status::Running);
}

#[tokio::test]
async fn a_store_that_fails_stops_its_server_for_good_and_says_why() {
    let disks = common::Disks::default();
    let servers = ["disk1", "disk2", "disk3"];
    let cluster = graft::cluster(servers).stores(disks.opener());
    let notes = cluster.start(Notes::default).await.unwrap();
    soon(notes.request("disk1", add("a"))).await.unwrap();
    disks.of("disk2").faults().fail_next_write(graft_storage::fault::Fate::Lost);
    soon(notes.request("disk1", add("b"))).await.unwrap();
    let status = until_failed(&notes, "disk2").await;
    let graft::Status::Failed { reason: graft::StopReason::Store { .. }, restarts: 0 } = &status
    else {
        panic!("{status}")
    };
    let data = graft::data("disk2").await.unwrap();
    assert_eq!((&data.status, &data.state), (&status, &None));
    assert!(data.to_string().contains("status: failed after 0 restarts"), "{data}");
    // What the disk holds is not known, so the server is not started again in this process.
    let error = notes.restart_server("disk2").await.unwrap_err();
    assert!(matches!(error, SupervisorError::Restart { .. }), "{error}");
    assert_eq!(soon(notes.request("disk2", add("c"))).await.unwrap(), ["a", "b", "c"]);
}
