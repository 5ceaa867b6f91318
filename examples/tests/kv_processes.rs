//! The kv example as its users run it: processes that speak over QUIC, with their logs on the disk.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod processes;

use std::{fs, net::UdpSocket};

use processes::{Place, Process, Ran, Server, leader_of, leads};
use serde_json::{Value, json};

#[test]
fn every_command_is_carried_out_and_its_answer_is_shown() {
    let place = Place::new();
    let servers = place.servers();
    let ask = |arguments: &[&str]| place.ask(&servers[0].address, arguments);
    ask(&["put", "colour", "light green"]).is(0, "created\n");
    ask(&["get", "colour"]).is(0, "light green\n");
    ask(&["cas", "colour", "-5", "--expect", "light green"]).is(0, "swapped \"light green\"\n");
    ask(&["cas", "colour", "red", "--absent"])
        .fails(3, &["kv_client: not swapped: `colour` is \"-5\""]);
    ask(&["put", "colour", "blue"]).is(0, "replaced \"-5\"\n");
    ask(&["cas", "col", "", "--absent"]).is(0, "created\n");
    ask(&["list", "col"]).is(0, "col\t\ncolour\tblue\n");
    ask(&["list", "--after", "col"]).is(0, "colour\tblue\n");
    ask(&["--json", "delete", "colour"]).is(0, "{\"previous\":\"blue\"}\n");
    ask(&["--json", "get", "colour"]).is(3, "{\"value\":null}\n");
    ask(&["get", "colour"]).fails(3, &["kv_client: `colour` is absent"]);
    ask(&["delete", "colour"]).is(0, "was absent\n");
    ask(&["get", &"k".repeat(1025)]).fails(1, &["1025 bytes", "(outcome: Refused)"]);
}

#[test]
fn a_client_that_knows_one_server_reaches_the_leader() {
    let place = Place::new();
    let servers = place.servers();
    let mut last = "created\n".to_owned();
    // One of the three leads.
    for Server { name, address, .. } in &servers {
        place.ask(address, &["put", "last", name]).is(0, &last);
        last = format!("replaced {name:?}\n");
        place.ask(address, &["get", "last"]).is(0, &format!("{name}\n"));
    }
}

#[test]
fn a_long_list_comes_in_pages_and_a_script_runs_over_one_connection() {
    let place = Place::new();
    let servers = place.servers();
    let mut shell = place.shell(&servers[1].address);
    // A page ends after 64 KiB.
    let value = "v".repeat(40 << 10);
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(shell.ask(&format!("put {key} {value}")), json!({ "previous": null }));
    }
    let wrong = shell.ask("cas a b");
    assert_eq!(wrong["outcome"], Value::Null);
    assert!(wrong["error"].as_str().unwrap().contains("--expect"), "{wrong}");
    assert_eq!(shell.ask("get nothing"), json!({ "value": null }));
    assert_eq!(shell.ends(), Some(2), "the code of the first line that failed");

    let keys = |page: &str| {
        let page: Value = serde_json::from_str(page).unwrap();
        let pairs = page["pairs"].as_array().unwrap().iter();
        let keys: Vec<_> = pairs.map(|pair| pair["key"].as_str().unwrap().to_owned()).collect();
        (keys.concat(), page["more"].as_bool().unwrap())
    };
    let all = place.ask(&servers[0].address, &["--json", "list"]);
    let pages: Vec<_> = all.out.lines().map(keys).collect();
    let expected = [("ab".to_owned(), true), ("cd".to_owned(), true), ("e".to_owned(), false)];
    assert_eq!(pages, expected, "{}", all.error);
    let some = place.ask(&servers[2].address, &["list", "--pages", "1"]);
    assert_eq!((some.code, some.out.lines().count()), (Some(0), 2));
    assert_eq!(some.error, "kv_client: there is more, after \"b\"\n");

    // What is no terminal ends at the first line that fails.
    let mut script = place.client(&servers[0].address, &["shell"]);
    script.write_line("get e # the last one");
    script.write_line("fetch e");
    script.write_line("delete e");
    let ran = script.ends();
    assert_eq!((ran.code, ran.out), (Some(2), format!("{value}\n")));
    assert!(
        ran.error.starts_with("kv_client: line 2: unrecognized subcommand 'fetch'"),
        "{}",
        ran.error
    );
    place.ask(&servers[0].address, &["cas", "e", "", "--absent"]).fails(3, &["not swapped"]);
}

#[test]
fn what_was_acknowledged_is_there_exactly_once_when_leaders_are_killed() {
    let place = Place::new();
    let mut servers = place.servers();
    let mut shell = place.shell(&servers[0].address);
    let mut last = Value::Null;
    for round in 0..3 {
        for step in 0..5 {
            let next = format!("{round}.{step}");
            // What the put before has left is found: it happened, and once.
            assert_eq!(shell.ask(&format!("put last {next}")), json!({ "previous": last }));
            last = json!(next);
            assert_eq!(
                shell.ask(&format!("cas {next} done --absent")),
                json!({ "swapped": true, "found": null })
            );
        }
        let killed = servers.remove(leader_of(&servers));
        let name = killed.name;
        killed.process.kill();
        assert_eq!(shell.ask("get last"), json!({ "value": last }), "{name} was killed");
        let again = place.server(name);
        again.serves();
        servers.push(again);
        // It has come back with all that it missed: a client that knows it alone sees that.
        place
            .ask(place.address_of(name), &["--json", "get", "last"])
            .is(0, &format!("{}\n", json!({ "value": last })));
    }
    assert_eq!(shell.ends(), Some(0));
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_and_exits_with_0() {
    let place = Place::new();
    let mut servers = place.servers();
    let mut shell = place.shell(&servers[0].address);
    assert_eq!(shell.ask("put a 1"), json!({ "previous": null }));
    for _ in 0..10 {
        let leader = servers.remove(leader_of(&servers));
        let name = leader.name;
        leader.process.signal("TERM");
        let ran = leader.process.ends();
        assert_eq!((ran.code, ran.out), (Some(0), format!("ready {name} {}\n", leader.address)));
        let asked = "handing over and shutting down";
        let (before, after) = ran.error.split_once(asked).unwrap();
        assert!(after.contains(&format!("{name} has shut down")), "{after}");
        assert_eq!(shell.ask("get a"), json!({ "value": "1" }));
        // On a busy machine another may have been elected just before it was asked, or be too late to take over.
        let in_vain = ["stops without handing over", "nobody took over"];
        let in_vain = in_vain.iter().any(|words| after.contains(words));
        if let Some(term) = leads(before).filter(|_| !in_vain) {
            let next = &servers[leader_of(&servers)];
            assert!(next.leads() > Some(term), "{}", next.process.said());
            let told = |server: &Server| server.process.said().contains("told to campaign");
            assert!(servers.iter().any(told), "{}", next.process.said());
            return;
        }
        servers.push(place.server(name));
        servers[2].serves();
    }
    panic!("no leader has handed over");
}

#[test]
fn a_second_signal_ends_a_server_at_once() {
    let place = Place::new();
    let mut servers = place.servers();
    let asked = servers.remove(0);
    // Nobody takes over, and nobody hears a farewell: shutting down would take seconds.
    for server in &servers {
        server.process.signal("STOP");
    }
    // Both are there when it wakes.
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        asked.process.signal(signal);
    }
    let ran = asked.process.ends();
    assert!([Some(130), Some(143)].contains(&ran.code), "{ran:?}");
    assert!(ran.error.contains("a second signal ends it at once"), "{ran:?}");
    assert!(!ran.error.contains("has shut down"), "{ran:?}");
}

#[test]
fn a_server_says_for_whom_it_waits_at_its_first_start_and_later() {
    let place = Place::new();
    let one = place.server("server1");
    one.process.says("waiting to hear of server2, server3\n");
    let two = place.server("server2");
    one.process.says("waiting to hear of server3\n");
    assert!(!one.is_ready() && !two.is_ready());
    // What was begun is gone on with.
    one.process.signal("INT");
    let ran = one.process.ends();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.error);
    assert!(
        ran.error.contains("server1 has stopped before its cluster was founded"),
        "{}",
        ran.error
    );
    let servers = [place.server("server1"), two, place.server("server3")];
    servers.iter().for_each(Server::serves);
    assert!(servers[0].process.said().contains("the cluster is founded\n"));
    place.ask(&servers[2].address, &["put", "a", "1"]).is(0, "created\n");
    for server in servers {
        server.process.signal("TERM");
        assert_eq!(server.process.ends().code, Some(0), "{}", server.name);
    }

    let three = place.server("server3");
    let waiting = "waiting for a leader: that takes 2 of server1, server2, server3\n";
    three.process.says(waiting);
    assert!(!three.is_ready());
    let alone = place.ask(&three.address, &["--deadline", "1s", "get", "a"]);
    alone.fails(1, &["kv_client: no ", " in 1s: ", "(outcome: NotApplied)"]);
    let one = place.server("server1");
    three.serves();
    one.serves();
    assert!(!one.process.said().contains("founded"), "{}", one.process.said());
    place.ask(&three.address, &["get", "a"]).is(0, "1\n");
}

#[test]
fn a_hangup_makes_a_server_read_its_certificates_again() {
    let place = Place::new();
    let servers = place.servers();
    let certificate = place.path("certs/server1.pem");
    let former = fs::read(&certificate).unwrap();
    fs::write(&certificate, "nothing").unwrap();
    servers[0].process.signal("HUP");
    servers[0].process.says("the certificates were not reloaded");
    servers[0].process.says("certs/server1.pem");
    fs::write(&certificate, former).unwrap();
    place.authority.server("server1").unwrap().replace_in(place.path("certs")).unwrap();
    servers[0].process.signal("HUP");
    servers[0].process.says("certificates are in force identity=server `server1`");
    place.ask(&servers[0].address, &["put", "a", "1"]).is(0, "created\n");
}

#[test]
fn a_server_that_lost_its_log_is_told_so_and_the_others_go_on() {
    let place = Place::new();
    let mut servers = place.servers();
    place.ask(&servers[0].address, &["put", "a", "1"]).is(0, "created\n");
    servers.pop().unwrap().process.kill();
    fs::remove_dir_all(place.data("server3")).unwrap();
    let ran = place.server("server3").process.ends();
    ran.fails(1, &["kv_server: server `server3` does not take part in its cluster"]);
    place.ask(&servers[1].address, &["get", "a"]).is(0, "1\n");
}

/// Runs a server that cannot start.
fn server(place: &Place, arguments: &[&str]) -> Ran {
    let (config, data) = (place.path("kv.toml"), place.path("data"));
    let mut all = vec!["--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()];
    all.extend(arguments);
    Process::start("kv_server", &all).ends()
}

#[test]
fn a_server_says_what_is_wrong_with_its_configuration() {
    let place = &Place::new();
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let other = Place::new();
    let other_ca = other.path("certs/ca.pem").to_str().unwrap().to_owned();
    server(place, &[]).fails(2, &["the server's name was not said", "--name", "GRAFT_KV_NAME"]);
    server(place, &["--name", "server4"]).fails(2, &["`server4`", "server1, server2, server3"]);
    server(place, &["--nonsense"]).fails(2, &["--nonsense", "Usage: kv_server"]);
    let data = path("data");
    let without_members = ["--name", "server1", "--data", &data];
    Process::start("kv_server", &without_members)
        .ends()
        .fails(2, &["who founds the cluster", "--member"]);
    let alike = ["server1=127.0.0.1:4401", "server2=127.0.0.1:4402", "server3=127.0.0.1:4401"];
    let [one, two, three] = alike;
    server(place, &["--name", "server1", "--member", one, "--member", two, "--member", three])
        .fails(2, &["`server1` and `server3`", "the address 127.0.0.1:4401", "give each server"]);
    let certs = path("nowhere");
    server(place, &["--name", "server1", "--certs", &certs])
        .fails(1, &["nowhere/ca.pem", "graft certs"]);
    let (cert, key) = (path("certs/server2.pem"), path("certs/server2-key.pem"));
    server(place, &["--name", "server1", "--cert", &cert, "--key", &key])
        .fails(1, &["is of server `server2`", "this is server `server1`"]);
    server(place, &["--name", "server1", "--cert", &cert])
        .fails(1, &["private key", "does not belong"]);
    server(place, &["--name", "server1", "--ca", &other_ca])
        .fails(1, &["was not issued by the authority"]);
    server(place, &["--name", "server1", "--cluster", "shop"]).fails(1, &["of cluster `shop`"]);
    let _taken = UdpSocket::bind(&place.addresses[0]).unwrap();
    server(place, &["--name", "server1"])
        .fails(1, &["cannot listen", &place.addresses[0], "another program has it"]);
    let strange = path("certs");
    Process::start(
        "kv_server",
        &["--config", &path("kv.toml"), "--name", "server2", "--data", &strange],
    )
    .ends()
    .fails(1, &["was not written by a store of graft"]);
}

#[test]
fn a_client_says_what_is_wrong_with_its_configuration_and_whom_it_did_not_reach() {
    let place = Place::new();
    let [nobody, ..] = &place.addresses;
    place.ask(nobody, &[]).fails(2, &["Usage: kv_client", "get, put, delete, cas, list, shell"]);
    place.ask(nobody, &["fetch", "a"]).fails(2, &["unrecognized subcommand 'fetch'"]);
    place.ask(nobody, &["get", "a", "--deadline", "5"]).fails(2, &["--deadline", "500ms"]);
    let without = ["get", "a"];
    Process::start("kv_client", &without).ends().fails(2, &["which server to ask", "--server"]);
    place.ask(nobody, &["get", "a", "--client", "bob"]).fails(1, &["certs/bob.pem", "graft certs"]);
    let unreached = format!("kv_client: no server was reached in 300ms: {nobody} ");
    place
        .ask(nobody, &["put", "a", "1", "--deadline", "300ms"])
        .fails(1, &[&unreached, "answer", "(outcome: NotApplied)"]);
    let ran = place.ask(nobody, &["put", "a", "1", "--deadline", "300ms", "--json"]);
    assert_eq!((ran.code, ran.error.as_str()), (Some(1), ""));
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&said["outcome"], &said["retryable"]), (&json!("NotApplied"), &json!(true)));
    let stranger = Place::new();
    let ca = place.path("certs/ca.pem");
    let _servers = place.servers();
    stranger
        .ask(nobody, &["--ca", ca.to_str().unwrap(), "get", "a"])
        .fails(1, &["was not issued by the authority"]);
    // A client tries until its deadline: only then it says what is in the way, if it has come so far.
    let mut said = String::new();
    let is_refused = ["1s", "5s", "20s"].into_iter().any(|deadline| {
        let ran = stranger.ask(nobody, &["--deadline", deadline, "get", "a"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        said = ran.error;
        said.contains("authority")
    });
    assert!(is_refused, "{said}");
}
