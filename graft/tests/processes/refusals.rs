//! Servers that are not those they claim to be, or have a store that is not theirs: each is refused by name, by what it
//! says itself and by what the others log, and the others go on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use graft_transport::{certs::Authority, quic::tls::CertifiedName};

use crate::{
    child::Task,
    cluster::{Cluster, Place, certify},
    load::Load,
    machine::{Ask, Told},
    process::{Process, Said},
    report, rounds, soon,
};

/// The servers whose places others want to take. Of two servers the one of the lower number calls the other: the first of
/// these calls both others, and the last is called by both.
const VICTIMS: [usize; 2] = [0, 2];

/// This one, or all of them with `GRAFT_LONG=1`.
fn victims(short: usize) -> Vec<usize> {
    if rounds(1, VICTIMS.len()) == 1 { vec![short] } else { VICTIMS.to_vec() }
}

/// A cluster that has done something.
async fn busy() -> Cluster {
    let cluster = Cluster::started(3).await;
    write(&cluster, 1).await;
    cluster
}

/// Has a client that knows one server write a value.
async fn write(cluster: &Cluster, value: u64) {
    let client = cluster.client(&[1]).await;
    let done = soon(client.request(Ask::Write { key: 0, value })).await;
    assert_eq!(done, Ok(Told::Done));
    soon(client.shutdown()).await;
}

/// The cluster needs the server that somebody wanted to replace, and it is there.
async fn goes_on_with(cluster: &mut Cluster, victim: usize) {
    let other = if victim == 0 { 2 } else { 0 };
    cluster.kill(other);
    write(cluster, 2).await;
    cluster.start(other).await;
}

/// What a process is told that claims to be the victim, from another place and with a store of its own.
fn impostor(cluster: &Cluster, victim: usize, place: &Place) -> Task {
    let listen = place.listen.clone();
    Task { listen, store: cluster.directory().join("impostor"), ..cluster.task(victim) }
}

fn check_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

/// What those who belong together log of one who came with a birth that is not known.
const FOREIGN: &str = "its disk was emptied, or another uses its name; it was refused";

// -- Births ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_server_with_a_wiped_disk_is_refused_by_name_on_both_sides() {
    let mut cluster = busy().await;
    for victim in victims(2) {
        let name = cluster.name(victim).to_owned();
        let store = cluster.task(victim).store;
        let kept = store.with_extension("kept");
        cluster.kill(victim);
        fs::rename(&store, &kept).unwrap();
        cluster.launch(victim);
        let text = cluster.process(victim).refused().await;
        let own = format!("server `{name}` does not take part in its cluster");
        check_words(
            &text,
            &[
                &own,
                "says that the cluster is founded already",
                "its own store as it was when the server stopped, not a copy or a backup",
                "leave this server stopped",
            ],
        );
        cluster.logged_by_any(&["WARN", &format!("server=\"{name}\""), FOREIGN]).await;
        write(&cluster, 2).await;
        // What it should have been started with.
        cluster.kill(victim);
        fs::remove_dir_all(&store).unwrap();
        fs::rename(&kept, &store).unwrap();
        cluster.start(victim).await;
        goes_on_with(&mut cluster, victim).await;
    }
}

#[tokio::test]
async fn a_second_process_of_the_same_name_is_refused_and_the_first_goes_on() {
    let mut cluster = busy().await;
    let (victim, address) = (0, cluster.address(0));
    // With the first one's store.
    let text = Process::start(&cluster.task(victim), &[]).refused().await;
    let store = cluster.task(victim).store;
    check_words(&text, &[store.to_str().unwrap(), "in use by another server or process"]);
    // With a store of its own, at the first one's address.
    let place = Place::here();
    let task = impostor(&cluster, victim, &place);
    let here = Task { listen: address.clone(), ..task.clone() };
    let text = Process::start(&here, &[]).refused().await;
    check_words(&text, &["`server1`", &address, "another program has it"]);
    // With a store and an address of its own.
    let text = Process::start(&task, &[]).refused().await;
    check_words(
        &text,
        &["`server1` does not take part", "is founded already, and not with this store"],
    );
    cluster.logged_by_any(&["WARN", "server=\"server1\"", FOREIGN]).await;
    goes_on_with(&mut cluster, victim).await;
}

#[tokio::test]
async fn a_second_process_of_a_name_that_others_call_is_refused_although_nobody_calls_it() {
    let mut cluster = busy().await;
    let (victim, place) = (2, Place::here());
    // All others call the first one; the second must call them to be heard.
    let text = Process::start(&impostor(&cluster, victim, &place), &[]).refused().await;
    check_words(
        &text,
        &["`server3` does not take part", "is founded already, and not with this store"],
    );
    cluster.logged_by_any(&["WARN", "server=\"server3\"", FOREIGN]).await;
    cluster.logged_by_any(&["WARN", "a peer is there twice", "server3"]).await;
    goes_on_with(&mut cluster, victim).await;
}

#[tokio::test]
async fn two_processes_of_one_name_are_noticed_before_a_cluster_is_founded() {
    for (victim, absent) in [(0, "server3"), (2, "server1")] {
        let mut cluster = Cluster::new(3);
        let place = Place::here();
        let witness = 1;
        cluster.launch(witness);
        cluster.launch(victim);
        let missing = format!("waiting to hear of {absent}");
        let knows = |said: &Said| said.waiting.as_deref() == Some(&missing);
        cluster.process(witness).until("acquainted with the first", knows).await;
        let second = Process::start(&impostor(&cluster, victim, &place), &[]);
        // Who has heard of both cannot know which is right.
        let text = cluster.process(witness).refused().await;
        let noted = format!("{} was noted with birth", cluster.name(victim));
        check_words(&text, &[&noted, "two processes run under its name"]);
        drop(second);
        // Once there is one, all is well.
        cluster.kill(witness);
        cluster.start_all().await;
        write(&cluster, 1).await;
    }
}

/// A server like the victim at another place, with a copy of its store as it is now.
fn with_copy(cluster: &Cluster, victim: usize, place: &Place) -> Task {
    let task = Task { store: cluster.directory().join("copy"), ..impostor(cluster, victim, place) };
    copy_directory(&cluster.task(victim).store, &task.store).unwrap();
    task
}

/// Copies a directory with all that is in it, as an operator would who keeps it for later.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_of_a_store_is_refused_beside_the_server_it_was_taken_of_and_nothing_is_lost() {
    for victim in victims(2) {
        let mut cluster = Cluster::started(3).await;
        let load = Load::start(&[cluster.client(&[1]).await], 16, Duration::from_secs(40));
        load.answers(200, &cluster.running()).await;
        let name = cluster.name(victim).to_owned();
        cluster.kill(victim);
        let task = with_copy(&cluster, victim, &Place::here());
        cluster.start(victim).await;
        // What is acknowledged from here on the copy does not have.
        load.answers(200, &cluster.running()).await;
        let copy = Process::start(&task, &[]);
        let address = cluster.address(victim);
        let noted = format!("\"{name}\" of this very birth is connected here from {address}");
        let words = ["WARN", "refused", "wrong server", "a copy of its store", &noted];
        copy.logged(&words).await;
        cluster.logged_by_any(&words).await;
        // The cluster needs the server itself, while its copy goes on calling.
        let other = if victim == 0 { 2 } else { 0 };
        cluster.kill(other);
        load.answers(200, &cluster.running()).await;
        cluster.start(other).await;
        load.answers(200, &cluster.running()).await;
        let Said { leader, role, .. } = copy.said();
        assert!(leader.is_none() && role != "candidate", "it is in touch: {leader:?}, {role}");
        let verdict = load.judged().await;
        report(&format!("copy of {name}: {} longest={:?}", verdict.tally, verdict.longest));
        assert!(verdict.failures.is_empty(), "{:?}", verdict.failures);
    }
}

/// Nothing tells a copy from the server itself while that one is silent. What was copied has to be all that it had: what a
/// server acknowledges after it was copied, its copy knows nothing of.
#[tokio::test]
async fn a_server_whose_copy_took_its_place_while_it_stood_still_is_refused_when_it_goes_on() {
    for victim in victims(0) {
        let cluster = Cluster::started(3).await;
        let load = Load::start(&[cluster.client(&[1]).await], 16, Duration::from_secs(40));
        load.answers(200, &cluster.running()).await;
        let name = cluster.name(victim).to_owned();
        let place = Place::here();
        cluster.process(victim).pause();
        let task = with_copy(&cluster, victim, &place);
        load.answers(200, &cluster.running()).await;
        let copy = Process::start(&task, &[]);
        for other in (0..3).filter(|other| *other != victim) {
            let peer = format!("peer=\"{}\"", cluster.name(other));
            copy.logged(&["a peer is connected", &peer]).await;
        }
        cluster.process(victim).resume();
        let noted =
            format!("\"{name}\" of this very birth is connected here from {}", place.address);
        let words = ["WARN", "refused", "wrong server", "a copy of its store", &noted];
        cluster.process(victim).logged(&words).await;
        let other = if victim == 0 { 2 } else { 0 };
        cluster.process(other).logged(&words).await;
        cluster.process(victim).until("out of touch", |said| said.leader.is_none()).await;
        load.answers(200, &cluster.running()).await;
        let verdict = load.judged().await;
        report(&format!(
            "copy of {name} in its place: {} longest={:?}",
            verdict.tally, verdict.longest
        ));
        assert!(verdict.failures.is_empty(), "{:?}", verdict.failures);
        drop(copy);
    }
}

// -- Clusters --------------------------------------------------------------------------------------

/// Starts somebody in the place of each victim in turn, and waits until he and one of the others have logged that he is
/// refused: `words` with the victim's name in the place of NAME.
async fn is_kept_out(
    mut cluster: Cluster,
    victims: &[usize],
    change: impl Fn(&mut Task),
    [words, own, others]: [&[&str]; 3],
) {
    for victim in victims.iter().copied() {
        let name = cluster.name(victim).to_owned();
        let of = |side: &[&str]| -> Vec<String> {
            let all = ["WARN"].iter().chain(words).chain(side);
            all.map(|text| text.replace("NAME", &name)).collect()
        };
        cluster.kill(victim);
        let mut task = cluster.task(victim);
        task.store = cluster.directory().join(format!("stranger{victim}"));
        change(&mut task);
        let stranger = Process::start(&task, &[]);
        stranger.logged(&of(own)).await;
        cluster.logged_by_any(&of(others)).await;
        assert!(!stranger.said().ready, "it takes part");
        drop(stranger);
        // The victim itself is welcome, after whoever came in its name.
        cluster.start(victim).await;
        cluster.process(victim).until("with the others", |said| said.leader.is_some()).await;
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_on_both_sides() {
    let cluster = busy().await;
    let certs = cluster.directory().join("other-certs");
    certify(&certs, "registers", &["server1".to_owned(), "server3".to_owned()]);
    let foreign = "was not issued by the authority that server";
    let words = ["refused", "the certificate of server `", "of cluster `registers`", foreign];
    let change = |task: &mut Task| task.certs.clone_from(&certs);
    is_kept_out(cluster, &VICTIMS, change, [&words, &[], &["`NAME`"]]).await;
}

/// A directory with the certificates of servers of another cluster, by the same authority.
fn certs_of_another_cluster(cluster: &Cluster) -> PathBuf {
    let certs = cluster.directory().join("certs");
    let authority = Authority::load(&certs).unwrap().unwrap();
    let other = cluster.directory().join("other-certs");
    for victim in VICTIMS {
        let name = CertifiedName::server(cluster.name(victim), "ledgers").unwrap();
        authority.issue(name).unwrap().write_to(&other).unwrap();
    }
    fs::copy(certs.join("ca.pem"), other.join("ca.pem")).unwrap();
    other
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused_on_both_sides_although_the_authority_is_the_same() {
    let cluster = busy().await;
    let certs = certs_of_another_cluster(&cluster);
    let change = |task: &mut Task| {
        task.certs.clone_from(&certs);
        "ledgers".clone_into(&mut task.cluster);
    };
    let words =
        ["refused", "of cluster `ledgers`", "of cluster `registers`", "speaks to cluster", "alone"];
    is_kept_out(cluster, &victims(2), change, [&words, &[], &["`NAME`"]]).await;
}

#[tokio::test]
async fn a_server_that_was_told_of_other_founders_is_refused_on_both_sides() {
    let cluster = busy().await;
    let change =
        |task: &mut Task| task.members.push(("server4".to_owned(), "127.0.0.1:1".to_owned()));
    let words = ["refused", "give both the same cluster name and the same founding members"];
    is_kept_out(cluster, &victims(0), change, [&words, &[], &["NAME"]]).await;
}

#[tokio::test]
async fn a_server_of_another_machine_is_refused_on_both_sides() {
    let cluster = busy().await;
    let words = ["refused", "entries are of type", "Increment", "Ask", "run the same machine"];
    let change = |task: &mut Task| task.other_machine = true;
    is_kept_out(cluster, &victims(0), change, [&words, &[], &["NAME"]]).await;
}

// -- Stores ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_server_with_the_store_of_another_server_does_not_start() {
    let mut cluster = busy().await;
    cluster.kill(0);
    cluster.kill(2);
    let task = Task { store: cluster.task(0).store, ..cluster.task(2) };
    let text = Process::start(&task, &[]).refused().await;
    let store = task.store.to_str().unwrap();
    check_words(&text, &["`server3`", store, "belongs to `server1`"]);
    // Both stores are as they were.
    cluster.start_all().await;
    goes_on_with(&mut cluster, 2).await;
}

#[tokio::test]
async fn a_server_with_the_store_of_another_cluster_does_not_start() {
    let mut cluster = busy().await;
    let mut other = Cluster::started(1).await;
    other.shut_down(0).await;
    cluster.kill(0);
    let task = Task { store: other.task(0).store, ..cluster.task(0) };
    let text = Process::start(&task, &[]).refused().await;
    let store = task.store.to_str().unwrap();
    check_words(
        &text,
        &["`server1`", store, "belongs to a cluster of another name or of other founders"],
    );
    cluster.start(0).await;
    other.start(0).await;
}

#[tokio::test]
async fn a_server_with_the_store_of_another_machine_does_not_start() {
    let mut cluster = busy().await;
    cluster.kill(2);
    let task = Task { other_machine: true, ..cluster.task(2) };
    let text = Process::start(&task, &[]).refused().await;
    check_words(
        &text,
        &["`server3`", "holds entries of type `Ask`, this machine takes `Increment`"],
    );
    cluster.start(2).await;
    goes_on_with(&mut cluster, 2).await;
}
