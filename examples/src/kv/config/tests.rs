//! What wins over what, and what is said of mistakes.

use std::ffi::OsString;

use super::*;
use crate::kv::with_causes;

/// The shared file of the documentation.
const SHARED: &str = r#"
cluster = "shop"
certs = "certs"
ca = "/etc/ca.pem"
data = "data"

[members]
server1 = "10.0.0.1:4400"
server2 = "10.0.0.2:4400"

[client]
deadline = "7s"
"#;

struct Place {
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, OsString)>,
}

impl Place {
    fn new(file: &str, variables: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kv.toml"), file).unwrap();
        let variables = variables.iter().map(|(name, value)| (*name, value.into())).collect();
        Self { directory, variables }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn within<T>(&self, with: impl FnOnce(&Environment<'_>) -> T) -> T {
        let find = |name: &str| {
            let found = self.variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.clone())
        };
        with(&Environment(&find))
    }

    fn server(&self, flags: ServerFlags) -> Result<ServerSettings, ConfigError> {
        let config = Some(self.path("kv.toml"));
        self.within(|environment| {
            ServerSettings::load_from(ServerFlags { config, ..flags }, environment)
        })
    }

    fn client(&self, flags: ClientFlags) -> Result<ClientSettings, ConfigError> {
        let config = Some(self.path("kv.toml"));
        self.within(|environment| {
            ClientSettings::load_from(ClientFlags { config, ..flags }, environment)
        })
    }
}

fn named(name: &str) -> ServerFlags {
    ServerFlags { name: Some(name.into()), ..ServerFlags::default() }
}

fn addresses(servers: &[Address]) -> Vec<&str> {
    servers.iter().map(Address::as_str).collect()
}

#[test]
fn one_file_serves_all_servers_and_clients() {
    let place = Place::new(SHARED, &[]);
    let server = place.server(named("server2")).unwrap();
    assert_eq!((server.name.as_str(), server.cluster.as_str()), ("server2", "shop"));
    assert_eq!(server.listen.as_str(), "10.0.0.2:4400");
    assert_eq!(server.members.len(), 2);
    assert_eq!(server.data, place.path("data"), "paths begin at the file");
    assert_eq!(server.files.ca, PathBuf::from("/etc/ca.pem"));
    assert_eq!(server.files.cert, place.path("certs/server2.pem"));
    assert_eq!(server.files.key, place.path("certs/server2-key.pem"));
    let client = place.client(ClientFlags::default()).unwrap();
    assert_eq!(addresses(&client.servers), ["10.0.0.1:4400", "10.0.0.2:4400"]);
    assert_eq!(client.deadline.as_secs(), 7);
    assert_eq!(client.files.ca, PathBuf::from("/etc/ca.pem"));
    assert_eq!(client.files.cert, place.path("certs/client.pem"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let variables = [
        ("GRAFT_KV_NAME", "server1"),
        ("GRAFT_KV_CLUSTER", "environment"),
        ("GRAFT_KV_LISTEN", "0.0.0.0:1"),
        ("GRAFT_KV_MEMBERS", "server1=10.1.1.1:1, server3=10.1.1.3:3"),
        ("GRAFT_KV_DATA", "from-environment"),
        ("GRAFT_KV_CERT", "environment.pem"),
        ("GRAFT_KV_CA", ""),
    ];
    let place = Place::new(SHARED, &variables);
    let server = place.server(ServerFlags::default()).unwrap();
    assert_eq!((server.name.as_str(), server.cluster.as_str()), ("server1", "environment"));
    assert_eq!(server.listen.as_str(), "0.0.0.0:1");
    assert_eq!(server.members[1], "server3=10.1.1.3:3".parse().unwrap());
    assert_eq!(server.data, PathBuf::from("from-environment"), "other paths begin here");
    assert_eq!(server.files.cert, PathBuf::from("environment.pem"));
    assert_eq!(server.files.ca, PathBuf::from("/etc/ca.pem"), "an empty variable is not set");

    let flags = ServerFlags {
        cluster: Some("flag".into()),
        listen: Some("0.0.0.0:2".parse().unwrap()),
        members: vec!["server4=10.2.2.2:2".parse().unwrap()],
        certs: Some("flags".into()),
        ..named("server4")
    };
    let server = place.server(flags).unwrap();
    assert_eq!((server.name.as_str(), server.cluster.as_str()), ("server4", "flag"));
    assert_eq!(server.listen.as_str(), "0.0.0.0:2");
    assert_eq!(server.members.len(), 1, "lists are not mixed");
    // The directory was said in a stronger place than the single file.
    assert_eq!(server.files.cert, PathBuf::from("flags/server4.pem"));
    assert_eq!(server.files.ca, PathBuf::from("flags/ca.pem"));
}

#[test]
fn a_client_is_told_its_servers_in_the_same_order_of_places() {
    let file = format!("{SHARED}servers = [\"10.9.9.9:9\"]\nname = \"alice\"\n");
    let place = Place::new(&file, &[]);
    let client = place.client(ClientFlags::default()).unwrap();
    assert_eq!(addresses(&client.servers), ["10.9.9.9:9"]);
    assert_eq!(client.files.key, place.path("certs/alice-key.pem"));
    let place = Place::new(&file, &[("GRAFT_KV_SERVERS", "a:1,b:2"), ("GRAFT_KV_DEADLINE", "1s")]);
    let client = place.client(ClientFlags::default()).unwrap();
    assert_eq!(addresses(&client.servers), ["a:1", "b:2"]);
    assert_eq!(client.deadline.as_secs(), 1);
    let flags = ClientFlags { deadline: Some("2s".parse().unwrap()), ..ClientFlags::default() };
    assert_eq!(place.client(flags).unwrap().deadline.as_secs(), 2);
}

#[test]
fn a_server_with_a_certificate_of_its_own_in_the_file_lends_it_to_no_client() {
    let place = Place::new(&format!("cert = \"server1.pem\"\n{SHARED}"), &[]);
    let client = place.client(ClientFlags::default()).unwrap();
    assert_eq!(client.files.cert, place.path("certs/client.pem"));
}

#[test]
fn mistakes_are_told_in_words_with_the_place() {
    let no_members = "name = \"server1\"\ndata = \"data\"\n";
    for (file, variables, words) in [
        ("nmae = \"server1\"", &[][..], &["kv.toml", "nmae", "line 1"][..]),
        ("name = \"server1", &[], &["kv.toml", "not understood"]),
        ("listen = \"10.0.0.1\"", &[], &["kv.toml", "no port", "HOST:PORT"]),
        ("[members]\nserver1 = 5", &[], &["kv.toml", "line 2"]),
        ("[client]\ndeadline = \"5\"", &[], &["kv.toml", "500ms"]),
        ("", &[], &["the server's name", "--name", "GRAFT_KV_NAME"]),
        ("name = \"server1\"", &[], &["log", "--data", "GRAFT_KV_DATA"]),
        (no_members, &[], &["founds", "--member", "[members]"]),
        (SHARED, &[("GRAFT_KV_NAME", "server9")], &["`server9`", "server1, server2"]),
        (SHARED, &[("GRAFT_KV_LISTEN", "here")], &["GRAFT_KV_NAME"]),
        (
            SHARED,
            &[("GRAFT_KV_NAME", "server1"), ("GRAFT_KV_LISTEN", "here")],
            &["GRAFT_KV_LISTEN", "`here`", "no port"],
        ),
        (
            SHARED,
            &[("GRAFT_KV_NAME", "a"), ("GRAFT_KV_MEMBERS", "a=h:1,a=i:2")],
            &["`a` stands twice", "`h:1`", "`i:2`"],
        ),
    ] {
        let error = Place::new(file, variables).server(ServerFlags::default()).unwrap_err();
        let text = with_causes(&error);
        for word in words {
            assert!(text.contains(word), "{word} is missing: {text}");
        }
    }
    let without = Place::new("[members]\na = \"h:1\"", &[]);
    let error = without.client(ClientFlags::default()).unwrap_err().to_string();
    assert!(error.contains("`ca.pem`") && error.contains("--certs"), "{error}");
    let gone = ServerFlags { config: Some("/nowhere/kv.toml".into()), ..ServerFlags::default() };
    let error = Environment::of_process(|environment| ServerSettings::load_from(gone, environment));
    assert!(error.unwrap_err().to_string().contains("/nowhere/kv.toml"));
}
