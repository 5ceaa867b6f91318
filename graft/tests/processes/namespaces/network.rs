//! A network of its own for each test: a namespace for each server, joined by a bridge in one more, which this
//! process reaches by a link of its own.
//!
//! Everything goes when it is dropped. What a process that was killed left behind is removed by the next one.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{self, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// What all names of namespaces begin with; the number of their process follows.
const NAMESPACE: &str = "graft-test-";

/// The port of every server, in a namespace of its own.
const PORT: u16 = 4400;

/// The number of this process's end of the link.
const HERE: usize = 254;

/// By what datagrams are thrown away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filter {
    Nft,
    Iptables,
}

/// What is missing for such networks, if anything: the words of a skip.
pub(super) fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING.get_or_init(|| filter().and_then(|_| try_out()).err()).as_deref()
}

fn filter() -> Result<Filter, String> {
    let user = run(Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        return Err("it needs root".to_owned());
    }
    let has =
        |tool: &str| run(Command::new("sh").args(["-c", &format!("command -v {tool}")])).is_ok();
    if !has("ip") {
        return Err("there is no `ip`: install the package iproute2".to_owned());
    }
    if has("nft") {
        Ok(Filter::Nft)
    } else if has("iptables") {
        Ok(Filter::Iptables)
    } else {
        Err("there is neither `nft` nor `iptables`: install the package nftables or iptables"
            .to_owned())
    }
}

/// Whether the system lets this process make a network, and throw datagrams away.
///
/// # Panics
///
/// Where it does not, for reasons that are none of the system's.
fn try_out() -> Result<(), String> {
    const OF_THE_SYSTEM: [&str; 5] = [
        "Operation not permitted",
        "Permission denied",
        "Operation not supported",
        "Protocol not supported",
        "Unknown device type",
    ];
    let tried = remove_leftovers()
        .and_then(|()| Network::make(2))
        .and_then(|network| network.apply(&[(0, 1)]));
    tried.inspect_err(|error| {
        assert!(OF_THE_SYSTEM.iter().any(|words| error.contains(words)), "{error}");
    })
}

/// Removes the namespaces of processes that are no more.
fn remove_leftovers() -> Result<(), String> {
    for line in run(Command::new("ip").args(["netns", "list"]))?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let owner = name.strip_prefix(NAMESPACE).and_then(|rest| rest.split('-').next());
        let is_left = owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists());
        if is_left {
            // Another process may do the same at this moment.
            let _gone = run(Command::new("ip").args(["netns", "del", name]));
        }
    }
    Ok(())
}

/// A network. Servers are numbered from 0, and all reach each other at first.
#[derive(Debug)]
pub(super) struct Network {
    filter: Filter,
    /// Distinguishes its addresses, and its link, from those of all other networks of this machine; once it has one.
    number: Option<u16>,
    /// Distinguishes its namespaces from those of other networks of this process.
    own: String,
    servers: usize,
}

impl Network {
    pub(super) fn new(servers: usize) -> Self {
        Self::make(servers).unwrap()
    }

    fn make(servers: usize) -> Result<Self, String> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let filter = filter()?;
        let own = format!("{NAMESPACE}{}-{}", process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{own}-switch");
        ip(&format!("netns add {switch}"))?;
        // From here on dropping it removes what is there.
        let mut network = Self { filter, number: None, own, servers };
        network.number = Some(link(&switch)?);
        let link = network.link();
        ip(&format!("addr add {}/24 dev {link}", network.address_of(HERE)))?;
        ip(&format!("link set {link} up"))?;
        ip(&format!("-n {switch} link add bridge type bridge"))?;
        ip(&format!("-n {switch} link set bridge up"))?;
        network.plug_in("here")?;
        for server in 0..servers {
            network.add(server)?;
        }
        Ok(network)
    }

    /// Makes the namespace of a server.
    fn add(&self, server: usize) -> Result<(), String> {
        let (own, switch) = (self.namespace(server), self.switch());
        let port = format!("port{server}");
        ip(&format!("netns add {own}"))?;
        ip(&format!("link add {port} netns {switch} type veth peer name eth0 netns {own}"))?;
        ip(&format!("-n {own} addr add {}/24 dev eth0", self.address_of(server)))?;
        for link in ["lo", "eth0"] {
            ip(&format!("-n {own} link set {link} up"))?;
        }
        self.plug_in(&port)?;
        if self.filter == Filter::Nft {
            let chain = "add chain ip graft input { type filter hook input priority 0; }";
            self.nft(server, &format!("add table ip graft\n{chain}\n"))?;
        }
        Ok(())
    }

    fn plug_in(&self, port: &str) -> Result<(), String> {
        ip(&format!("-n {} link set {port} master bridge up", self.switch()))
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.own)
    }

    /// The namespace of a server.
    fn namespace(&self, server: usize) -> String {
        format!("{}-{server}", self.own)
    }

    /// The link of this process.
    fn link(&self) -> String {
        link_of(self.number.expect("it has one"))
    }

    fn address_of(&self, host: usize) -> String {
        let last = if host == HERE { HERE } else { host + 1 };
        format!("{}{last}", addresses_of(self.number.expect("it has one")))
    }

    /// Where a server is found.
    pub(super) fn address(&self, server: usize) -> String {
        format!("{}:{PORT}", self.address_of(server))
    }

    /// The command that starts a process in the namespace of a server.
    pub(super) fn prefix(&self, server: usize) -> [String; 4] {
        ["ip", "netns", "exec", &self.namespace(server)].map(str::to_owned)
    }

    /// From now on datagrams from the first to the second server of each pair are lost, and no others. What those
    /// before lost is forgotten.
    pub(super) fn cut(&self, pairs: &[(usize, usize)]) {
        self.apply(pairs).unwrap();
    }

    fn apply(&self, pairs: &[(usize, usize)]) -> Result<(), String> {
        for server in 0..self.servers {
            let from = pairs.iter().filter(|(_, to)| *to == server);
            let from: Vec<String> = from.map(|(from, _)| self.address_of(*from)).collect();
            match self.filter {
                Filter::Nft => {
                    let mut rules = "flush chain ip graft input\n".to_owned();
                    for address in from {
                        let rule = format!("ip saddr {address} counter drop");
                        writeln!(rules, "add rule ip graft input {rule}").unwrap();
                    }
                    self.nft(server, &rules)?;
                }
                Filter::Iptables => {
                    self.inside(server, "iptables -w -F INPUT")?;
                    for address in from {
                        self.inside(server, &format!("iptables -w -A INPUT -s {address} -j DROP"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All reach each other again.
    pub(super) fn heal(&self) {
        self.cut(&[]);
    }

    /// How many datagrams the cut of now has lost on the way to this server.
    pub(super) fn lost_to(&self, server: usize) -> u64 {
        let count = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        match self.filter {
            Filter::Nft => {
                let rules = self.inside(server, "nft list chain ip graft input").unwrap();
                let packets = rules.lines().filter_map(|line| {
                    count(line.split_once("packets ")?.1.split_whitespace().next())
                });
                packets.sum()
            }
            Filter::Iptables => {
                let rules = self.inside(server, "iptables -w -nvxL INPUT").unwrap();
                rules.lines().filter_map(|line| count(line.split_whitespace().next())).sum()
            }
        }
    }

    /// Takes the link of a server down, or up again.
    pub(super) fn plug(&self, server: usize, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        ip(&format!("-n {} link set eth0 {state}", self.namespace(server))).unwrap();
    }

    fn inside(&self, server: usize, command: &str) -> Result<String, String> {
        let inside = self.prefix(server);
        run(Command::new(&inside[0]).args(&inside[1..]).args(command.split_whitespace()))
    }

    /// All of these rules at once.
    fn nft(&self, server: usize, rules: &str) -> Result<(), String> {
        let inside = self.prefix(server);
        let mut command = Command::new(&inside[0]);
        fed(command.args(&inside[1..]).args(["nft", "-f", "-"]), rules).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link would go with its other end; this frees its number at once.
        if self.number.is_some() {
            let _gone = ip(&format!("link del {}", self.link()));
        }
        let servers = (0..self.servers).map(|server| self.namespace(server));
        for namespace in servers.chain([self.switch()]) {
            // It may not be there yet, where something went wrong at the beginning.
            let _gone = ip(&format!("netns del {namespace}"));
        }
    }
}

fn link_of(number: u16) -> String {
    format!("graft{number}")
}

/// The beginning of all addresses of a network: of 198.18.0.0/15, which is for tests and routed nowhere.
fn addresses_of(number: u16) -> String {
    let [half, third] = number.to_be_bytes();
    format!("198.{}.{third}.", 18 + half)
}

/// Makes a link from here into the namespace `switch`, and gives its number: one that nobody else has.
fn link(switch: &str) -> Result<u16, String> {
    let addresses = run(Command::new("ip").args(["-o", "-4", "addr", "show"]))?;
    let taken: BTreeSet<&str> = addresses.split_whitespace().collect();
    for number in 0..512 {
        let (link, own) = (link_of(number), addresses_of(number));
        if taken.iter().any(|address| address.starts_with(&own)) {
            continue;
        }
        match ip(&format!("link add {link} type veth peer name here netns {switch}")) {
            Ok(()) => return Ok(number),
            // Somebody else has just made it.
            Err(error) if error.contains("File exists") => {}
            Err(error) => return Err(error),
        }
    }
    Err("all 512 networks of 198.18.0.0/15 are taken".to_owned())
}

fn ip(arguments: &str) -> Result<(), String> {
    run(Command::new("ip").args(arguments.split_whitespace())).map(drop)
}

/// What the command prints, or what was wrong with it.
fn run(command: &mut Command) -> Result<String, String> {
    fed(command, "")
}

/// The same, with something to read.
fn fed(command: &mut Command, input: &str) -> Result<String, String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| error.to_string();
    let ended = piped.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it says why not by its end.
            let _unread = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    });
    let output = ended.map_err(failed).map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()))
}
