//! A log outlives a build: entries of older versions are upgraded, and what a build cannot read stops it before
//! it applies anything wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::time::Duration;

use common::{Disks, SERVERS, soon, until_failed};
use graft::{Entry, EntryError, Machine, Status, StopReason, Supervisor};

/// The builds of one program over time. Each has an entry type called `Mark` and a machine that
/// remembers the marks it got, as text.
macro_rules! build {
    ($name:ident, $version:literal, { $($field:ident: $type:ty),* }, $upgrade:item) => {
        mod $name {
            #[allow(unused_imports, reason = "not every build upgrades")]
            use super::*;

            #[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
            #[rkyv(crate = graft::rkyv)]
            pub(super) struct Mark { $(pub(super) $field: $type),* }

            impl Entry for Mark {
                type Response = Vec<String>;
                const VERSION: u16 = $version;
                $upgrade
            }

            #[derive(Default)]
            pub(super) struct Marks(Vec<String>);

            impl Machine for Marks {
                type Entry = Mark;
                fn handle_entry(&mut self, mark: Mark) -> Vec<String> {
                    self.0.push(format!("{mark:?}"));
                    self.0.clone()
                }
            }
        }
    };
}

/// The provided `upgrade` under a name a macro can pass on.
macro_rules! provided {
    () => {};
}

build!(zero, 0, { number: u8 }, provided! {});
build!(one, 1, { text: String }, provided! {});
build!(two, 2, { stars: u32, text: String }, fn upgrade(version: u16, bytes: &[u8]) -> Result<Self, EntryError> {
    match version {
        1 => {
            let one::Mark { text } = graft::decode(bytes)?;
            Ok(Self { stars: 5, text })
        }
        _ => Err(EntryError::unknown::<Self>(version)),
    }
});
build!(two_without_upgrade, 2, { stars: u32, text: String }, provided! {});

async fn start<M: Machine + Default>(disks: &Disks) -> Supervisor<M> {
    let cluster = graft::cluster(SERVERS).stores(disks.opener());
    cluster.start(M::default).await.unwrap()
}

/// Stores with a log that version 1 wrote: two marks.
async fn written_by_one() -> Disks {
    let disks = Disks::default();
    let marks = start::<one::Marks>(&disks).await;
    for text in ["a", "b"] {
        soon(marks.request("server1", one::Mark { text: text.into() })).await.unwrap();
    }
    soon(marks.shutdown()).await;
    disks
}

#[tokio::test]
async fn a_log_of_version_1_is_read_by_version_2_with_upgrade() {
    let disks = written_by_one().await;
    let marks = start::<two::Marks>(&disks).await;
    let mark = two::Mark { stars: 1, text: "c".into() };
    let read = soon(marks.request("server2", mark)).await.unwrap();
    let expected = [
        r#"Mark { stars: 5, text: "a" }"#,
        r#"Mark { stars: 5, text: "b" }"#,
        r#"Mark { stars: 1, text: "c" }"#,
    ];
    assert_eq!(read, expected);
    // The log shows them so, too.
    let data = graft::data("server2").await.unwrap();
    let log = data.state.unwrap().log;
    let shown = log.iter().filter(|line| line.kind == "entry").map(|line| line.text.as_str());
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

/// Every server stops at the first mark, and says so; nobody waits for ever.
async fn all_stop_undecodable<M: Machine>(marks: &Supervisor<M>, advice: &str) {
    for server in SERVERS {
        let status = until_failed(marks, server).await;
        let Status::Failed { reason, restarts: 0 } = &status else { panic!("{status}") };
        let StopReason::Undecodable { index, version: 1, .. } = reason else { panic!("{reason}") };
        let told = reason.to_string();
        assert_eq!(told, format!("entry {index} has version 1, {advice}"));
        let data = marks.data(server).await.unwrap();
        assert!(data.to_string().contains(&told), "{data}");
    }
}

#[tokio::test]
async fn a_log_of_version_1_stops_version_2_without_upgrade_and_stays_whole() {
    let disks = written_by_one().await;
    let marks = start::<two_without_upgrade::Marks>(&disks).await;
    let advice = "this build knows 2: implement `Entry::upgrade` for it";
    all_stop_undecodable(&marks, advice).await;
    soon(marks.shutdown()).await;
    let marks = start::<one::Marks>(&disks).await;
    let read = soon(marks.request("server3", one::Mark { text: "c".into() })).await.unwrap();
    assert_eq!(read.len(), 3, "{read:?}");
}

#[tokio::test]
async fn a_log_of_version_1_stops_version_0_before_it_applies() {
    let disks = written_by_one().await;
    let marks = start::<zero::Marks>(&disks).await;
    let advice = "this build knows 0: upgrade this server first";
    all_stop_undecodable(&marks, advice).await;
    let request = marks.request("server1", zero::Mark { number: 1 });
    let error = soon(request.deadline(Duration::from_millis(100))).await.unwrap_err();
    assert_ne!(error.outcome(), graft::Outcome::Applied, "{error}");
}
