//! Directories that are not the store of this server: each is an error of its own, in words one can act on, and
//! stays as it was.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    mem,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{
    Notes, add,
    directory::{Directory, content},
    soon,
};
use graft::{
    LogStore, Machine, ServerName, StartError, StoreError, Supervisor,
    store::{OpenError, RedbStore},
};

/// What is to be done about damage.
const LEAVE: &str = "leave this server stopped: the others go on as long as they are a majority, and nothing takes a \
                     server in anew yet";

/// Starts `servers`, of which `server1` has its log at `path` and the others have theirs in memory.
async fn start<M: Machine + Default>(
    path: &Path,
    servers: &[&str],
) -> Result<Supervisor<M>, StartError> {
    let path = path.to_owned();
    let first = servers[0].to_owned();
    let open = move |name: &ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        if *name == *first {
            return Ok(graft::store::redb(&path)?);
        }
        Ok(graft::store::memory())
    };
    let cluster = graft::cluster(servers.iter().copied()).stores(open);
    soon(cluster.start(M::default)).await
}

/// A directory in which `server1`, alone, has left a store, and the path of that.
async fn used() -> (Directory, PathBuf) {
    let disk = Directory::new();
    let path = disk.of("server1");
    let notes = start::<Notes>(&path, &["server1"]).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    notes.shutdown().await;
    (disk, path)
}

/// An error and everything behind it.
fn words(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error must name the place and say what to do, once.
fn check_words(error: &dyn Error, path: &Path, advice: &str) {
    let words = words(error);
    let place = path.display().to_string();
    assert!(words.contains(&place), "{place} is not named: {words}");
    assert_eq!(words.matches(advice).count(), 1, "`{advice}`: {words}");
    assert!(!words.contains('\n') && !words.ends_with('.'), "{words}");
}

/// What a start with the store at `path` is refused with, because it is somebody else's. That is known only once
/// it is open, and still no byte of it may change.
async fn refused<M: Machine + Default>(path: &Path, servers: &[&str]) -> StartError {
    let before = content(path);
    let error = start::<M>(path, servers).await.map(drop).unwrap_err();
    assert!(content(path) == before, "files were changed by: {}", words(&error));
    error
}

/// What opening the store at `path` is refused with, by the store itself and by the face of a cluster.
async fn does_not_open_or_start(path: &Path, advice: &str, advice_of_cluster: &str) -> OpenError {
    let before = content(path);
    let error = graft::store::redb(path).map(drop).unwrap_err();
    assert!(content(path) == before, "files were changed by: {}", words(&error));
    check_words(&error, path, advice);
    let started = start::<Notes>(path, &["server1"]).await.map(drop).unwrap_err();
    assert!(content(path) == before, "files were changed by: {}", words(&started));
    let StartError::Store { server, source, .. } = &started else { panic!("{started:?}") };
    assert_eq!(*server, "server1");
    match source {
        StoreError::Open(source) => {
            let source = source.downcast_ref::<OpenError>().unwrap();
            assert_eq!(mem::discriminant(source), mem::discriminant(&error));
        }
        // Damage is the same for all stores.
        StoreError::Corrupt { .. } => assert_eq!(advice_of_cluster, LEAVE),
        other => panic!("{other:?}"),
    }
    check_words(&started, path, advice_of_cluster);
    error
}

/// The same, where both say the same.
async fn does_not_open(path: &Path, advice: &str) -> OpenError {
    does_not_open_or_start(path, advice, advice).await
}

/// The only file of the log.
fn segment(path: &Path) -> PathBuf {
    let mut files = content(path).into_keys();
    files.find(|file| file.extension().is_some_and(|extension| extension == "redb")).unwrap()
}

// -- What is no store ------------------------------------------------------------------------------

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_refused() {
    let disk = Directory::new();
    let path = disk.of("server1");
    fs::write(&path, b"not a directory").unwrap();
    let error = does_not_open(&path, "give the path of one").await;
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused() {
    let disk = Directory::new();
    let path = disk.of("server1");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("letter.txt"), b"dear reader").unwrap();
    let error = does_not_open(&path, "give the path of another directory").await;
    assert!(matches!(&error, OpenError::Foreign { file, .. } if file.contains("letter.txt")));
}

#[tokio::test]
async fn a_file_of_something_else_in_a_store_is_refused() {
    let (_disk, path) = used().await;
    let file = segment(&path);
    let length = fs::metadata(&file).unwrap().len();
    fs::write(&file, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
    // The rest is a store's own, so a server is to be told that it lost something.
    let advice = "give the path of another directory";
    let error = does_not_open_or_start(&path, advice, LEAVE).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

// -- What is no store any more ---------------------------------------------------------------------

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let (_disk, path) = used().await;
    let file = fs::File::options().write(true).open(segment(&path)).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    let error = does_not_open(&path, LEAVE).await;
    let OpenError::Truncated { length: found, expected, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*found, *expected), (length / 2, length));
}

/// Makes the store at `path` say that its format has this version, as a later build would.
fn write_format(path: &Path, version: u32) {
    const FACTS: redb::TableDefinition<'_, &[u8; 9], &[u8]> = redb::TableDefinition::new("facts");
    /// Group 0, fact 0: their places never change.
    const FORMAT: [u8; 9] = [0; 9];
    let file = segment(path);
    let length = fs::metadata(&file).unwrap().len();
    let database = redb::Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut fact = b"graftlog".to_vec();
    fact.extend_from_slice(&version.to_le_bytes());
    fact.extend_from_slice(&7_u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&FORMAT), &fact);
    fact.extend_from_slice(&checksum.to_le_bytes());
    transaction.open_table(FACTS).unwrap().insert(&FORMAT, fact.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    // redb cuts what it does not need.
    let now = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(now.max(length)).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (_disk, path) = used().await;
    write_format(&path, 1000);
    let error = does_not_open(&path, "upgrade this server first").await;
    assert!(matches!(error, OpenError::NewerFormat { found: 1000, .. }), "{error:?}");
}

// -- Somebody else's -------------------------------------------------------------------------------

#[tokio::test]
async fn the_store_of_another_cluster_is_refused() {
    let (_disk, path) = used().await;
    let error = refused::<Notes>(&path, &["server1", "server2", "server3"]).await;
    assert!(matches!(&error, StartError::WrongCluster { server, .. } if *server == "server1"));
    check_words(&error, &path, "give the cluster the name and the founders that it had");
}

#[tokio::test]
async fn the_store_of_another_server_is_refused() {
    let (_disk, path) = used().await;
    let error = refused::<Notes>(&path, &["server2"]).await;
    let StartError::WrongServer { server, stored, .. } = &error else { panic!("{error:?}") };
    assert_eq!((server.as_str(), stored.as_str()), ("server2", "server1"));
    check_words(&error, &path, "give each server the store it had before");
}

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Number(u64);

impl graft::Entry for Number {
    type Response = u64;
}

#[derive(Default)]
struct Numbers;

impl Machine for Numbers {
    type Entry = Number;
    fn handle_entry(&mut self, Number(number): Number) -> u64 {
        number
    }
}

#[tokio::test]
async fn the_store_of_another_machine_is_refused() {
    let (_disk, path) = used().await;
    let error = refused::<Numbers>(&path, &["server1"]).await;
    let StartError::WrongMachine { stored, given, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stored.as_str(), given.as_str()), ("Note", "Number"));
    check_words(&error, &path, "give the server its own store");
}

/// The stores of the others are not taken over either where one is refused, wherever that stands in the list.
#[tokio::test]
async fn the_stores_beside_one_that_is_refused_stay_as_they_were() {
    const PAIR: [&str; 2] = ["server1", "server2"];
    let disks = [Directory::new(), Directory::new()];
    let servers_of_others = ["server2", "server3"];
    for (disk, servers) in disks.iter().zip([PAIR, servers_of_others]) {
        let cluster = graft::cluster(servers).stores(disk.opener());
        soon(cluster.start(Notes::default)).await.unwrap().shutdown().await;
    }
    let paths = [disks[0].of("server1"), disks[1].of("server2")];
    let before = paths.each_ref().map(|path| content(path));
    let [own, foreign] = paths.clone();
    let open = move |name: &ServerName| {
        let path = if *name == "server1" { &own } else { &foreign };
        Ok(graft::store::redb(path)?)
    };
    let started = soon(graft::cluster(PAIR).stores(open).start(Notes::default)).await;
    let error = started.map(drop).unwrap_err();
    assert!(matches!(&error, StartError::WrongCluster { server, .. } if *server == "server2"));
    check_words(&error, &paths[1], "give the cluster the name and the founders that it had");
    assert!(paths.each_ref().map(|path| content(path)) == before, "files were changed");
}

/// After all of that refusing, the store is still what it was.
#[tokio::test]
async fn a_store_that_was_refused_to_others_serves_its_own_server() {
    let (_disk, path) = used().await;
    refused::<Notes>(&path, &["server2"]).await;
    refused::<Numbers>(&path, &["server1"]).await;
    let notes = start::<Notes>(&path, &["server1"]).await.unwrap();
    assert_eq!(soon(notes.request("server1", add("b"))).await.unwrap(), ["a", "b"]);
    notes.shutdown().await;
}

// -- In use, or not to be written ------------------------------------------------------------------

/// What a child of these tests is asked to do.
const TASK: &str = "GRAFT_TEST_STORE_TASK";
const CHILD: &str = "child";

/// No test: what [`TASK`] asks for, `hold PATH` or `start PATH`, in a process of its own.
#[tokio::test]
async fn child() {
    let Ok(task) = env::var(TASK) else { return };
    let (task, path) = task.split_once(' ').unwrap();
    if task == "hold" {
        let store = RedbStore::open(path).unwrap();
        say("held");
        // Until the parent lets go of the other end.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        drop(store);
        return;
    }
    let opened = graft::store::redb(path).map(drop);
    let is_refused = matches!(opened, Err(OpenError::Inaccessible { .. }));
    match (opened, start::<Notes>(Path::new(path), &["server1"]).await) {
        (Err(opened), Err(started)) => {
            say(&format!("{is_refused}\n{}\n{}", words(&opened), words(&started)));
        }
        (opened, started) => say(&format!("false\n{opened:?}\n{:?}", started.map(drop))),
    }
}

/// Past the test framework, which writes to the same stream.
fn say(text: &str) {
    for line in text.lines() {
        writeln!(std::io::stdout().lock(), "\nchild: {line}").unwrap();
    }
}

/// Another process with one of these tasks. Killed when dropped.
struct Other(Child);

impl Other {
    fn start(command: &mut Command, task: &str, path: &Path) -> Self {
        command.env(TASK, format!("{task} {}", path.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it says, until it ends.
    fn lines(&mut self) -> impl Iterator<Item = String> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.filter_map(|line| Some(line.strip_prefix("child: ")?.to_owned()))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child_arguments() -> [&'static str; 4] {
    [CHILD, "--exact", "--nocapture", "--test-threads=1"]
}

#[tokio::test]
async fn a_store_in_use_by_another_process_is_refused() {
    let (_disk, path) = used().await;
    let mut command = Command::new(env::current_exe().unwrap());
    let mut other = Other::start(command.args(child_arguments()), "hold", &path);
    assert_eq!(other.lines().next().as_deref(), Some("held"));
    let error = does_not_open(&path, "stop that one first").await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(other);
    // The system takes the lock from whoever ends, however that is.
    let notes = start::<Notes>(&path, &["server1"]).await.unwrap();
    assert_eq!(soon(notes.request("server1", add("b"))).await.unwrap(), ["a", "b"]);
    notes.shutdown().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_cannot_be_made_is_refused() {
    // Not even root makes directories there.
    let path = Path::new("/proc/graft-store");
    let error = graft::store::redb(path).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Inaccessible { .. }), "{error:?}");
    check_words(&error, path, "check owner and permissions");
    let error = start::<Notes>(path, &["server1"]).await.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Store { .. }), "{error:?}");
    check_words(&error, path, "check owner and permissions");
}

/// Root may write whatever the permissions say, so the directory is mounted for reading alone, in a name space
/// of the child's own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_store_that_cannot_be_written_is_refused() {
    const MOUNT: &str = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" || exit 77; shift; exec \"$@\"";
    let (_disk, path) = used().await;
    let before = content(&path);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", MOUNT, "sh"]).arg(&path);
    command.arg(env::current_exe().unwrap()).args(child_arguments());
    let mut other = Other::start(&mut command, "start", &path);
    let said: Vec<String> = other.lines().collect();
    let status = other.0.wait().unwrap();
    if said.is_empty() && !status.success() {
        return skipped("mounting a directory for reading alone is not allowed here");
    }
    let [is_refused, opened, started] = &said[..] else { panic!("{said:?}") };
    assert_eq!(is_refused, "true", "{opened}");
    for words in [opened, started] {
        assert!(words.contains(&path.display().to_string()), "{words}");
        assert!(words.contains("check owner and permissions"), "{words}");
        assert!(words.contains("Read-only file system"), "what the system said: {words}");
    }
    assert!(content(&path) == before, "files were changed");
}

/// Says past the test framework that a test did not look.
#[cfg(target_os = "linux")]
fn skipped(why: &str) {
    writeln!(std::io::stderr().lock(), "\nSKIPPED: {why}").unwrap();
}
