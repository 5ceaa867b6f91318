//! What both sides of a connection must agree on before anything else is said.

use graft_core::NodeId;

use super::stream;
use crate::wire::v1::{Hello, Protocol, Refusal, RefusalCode, Role, Schema};

/// Whether the two speak a common version at all. Everything else may mean something else in another.
fn versions(own: &Hello, theirs: &Hello) -> Result<(), Refusal> {
    if own.protocol.common(theirs.protocol).is_some() {
        return Ok(());
    }
    let range = |protocol: Protocol| format!("{} to {}", protocol.min, protocol.max);
    let (own, theirs) = (range(own.protocol), range(theirs.protocol));
    refuse(
        RefusalCode::UnknownVersion,
        format!("this side speaks versions {own}, the other {theirs}: upgrade the older one"),
    )
}

fn role(theirs: &Hello, wanted: Role) -> Result<(), Refusal> {
    if theirs.role == wanted {
        return Ok(());
    }
    let words = |role| match role {
        Role::Server => "a server",
        Role::Client => "a client",
    };
    let (found, wanted) = (words(theirs.role), words(wanted));
    refuse(
        RefusalCode::WrongRole,
        format!("{:?} says that it is {found}, and speaks where {wanted} does", theirs.name),
    )
}

/// Whether the other side is the server that its certificate names.
fn server(theirs: &Hello, certified: &str) -> Result<(), Refusal> {
    role(theirs, Role::Server)?;
    if theirs.name == certified && theirs.node == NodeId::of_name(certified) {
        return Ok(());
    }
    let Hello { name, node, .. } = theirs;
    refuse(
        RefusalCode::WrongServer,
        format!("it says that it is {name:?} ({node}), its certificate names {certified:?}"),
    )
}

/// Whether entries mean the same on both sides. Who states nothing is not held to it.
fn entries(own: &Hello, theirs: &Hello) -> Result<(), Refusal> {
    let is_stated = |hello: &Hello| !hello.machine.is_empty();
    if is_stated(own) && is_stated(theirs) && own.machine != theirs.machine {
        let (own, theirs) = (&own.machine, stream::cleaned(&theirs.machine));
        return refuse(
            RefusalCode::WrongEntry,
            format!(
                "entries are of type {own} here, and of type {theirs} there: check the addresses, and that both run \
                 the same machine"
            ),
        );
    }
    if own.format != 0 && theirs.format != 0 && own.format != theirs.format {
        let (own, theirs) = (own.format, theirs.format);
        return refuse(
            RefusalCode::WrongFormat,
            format!(
                "entries are archived in form {own:016x} here, {theirs:016x} there: build both alike"
            ),
        );
    }
    Ok(())
}

/// Checks what a peer says of itself, against the name that its certificate states and, where this side
/// chose whom to call, against whom it called.
pub(super) fn check_peer(
    own: &Hello,
    theirs: &Hello,
    certified: &str,
    expected: Option<NodeId>,
) -> Result<(), Refusal> {
    versions(own, theirs)?;
    server(theirs, certified)?;
    if theirs.cluster != own.cluster {
        let (own, theirs) = (own.cluster, theirs.cluster);
        return refuse(
            RefusalCode::WrongCluster,
            format!(
                "this server is of cluster {:016x}, the other of {:016x}: give both the same cluster name \
                 and the same founding members",
                own.0, theirs.0
            ),
        );
    }
    if theirs.epoch != own.epoch {
        let (own, theirs) = (own.epoch, theirs.epoch);
        return refuse(
            RefusalCode::WrongEpoch,
            format!(
                "this server is of the cluster's epoch {own}, the other of {theirs}: the one of the lower \
                 epoch was left behind when the cluster was revived, and must begin anew"
            ),
        );
    }
    if theirs.node == own.node {
        return refuse(
            RefusalCode::WrongServer,
            format!(
                "it is {:?} as this server is: one of two has another's certificate",
                theirs.name
            ),
        );
    }
    if let Some(expected) = expected.filter(|expected| *expected != theirs.node) {
        let Hello { name, node, .. } = theirs;
        return refuse(
            RefusalCode::WrongServer,
            format!("{expected} was called, and {name:?} ({node}) answers: an address is wrong"),
        );
    }
    entries(own, theirs)?;
    let common = own.schema.common(theirs.schema);
    if common.is_none() {
        let range = |schema: Schema| format!("{} to {}", schema.lowest, schema.highest);
        let (own, theirs) = (range(own.schema), range(theirs.schema));
        return refuse(
            RefusalCode::WrongEntry,
            format!(
                "this server reads entries of versions {own}, the other of {theirs}: upgrade the older one, by a \
                 version between where there is one"
            ),
        );
    }
    Ok(())
}

/// In what two peers that agree differ, although they should not; `None` where they do not. It is no reason to
/// part: while settings are changed one server after the other, they differ for a while.
pub(super) fn differences(own: &Hello, theirs: &Hello) -> Option<String> {
    let mut found = Vec::new();
    let (here, there) = (own.election_timeout.as_millis(), theirs.election_timeout.as_millis());
    // Zero states none.
    if there != 0 && here != there {
        found.push(format!(
            "its election timeout is {there} ms, here it is {here} ms: the shorter one disturbs leaders, and reads \
             by lease are refused"
        ));
    }
    for (what, here, there) in [
        ("entry", own.max_entry_bytes, theirs.max_entry_bytes),
        ("frame", own.max_frame_bytes, theirs.max_frame_bytes),
        ("reply", own.max_reply_bytes, theirs.max_reply_bytes),
    ] {
        if here != there {
            found.push(format!("its largest {what} is {there} bytes, here it is {here}"));
        }
    }
    (!found.is_empty()).then(|| found.join("; ") + ": give all servers the same configuration")
}

/// Checks what a client says of itself.
pub(super) fn check_client(own: &Hello, theirs: &Hello) -> Result<(), Refusal> {
    versions(own, theirs)?;
    role(theirs, Role::Client)?;
    if theirs.cluster.0 != 0 && theirs.cluster != own.cluster {
        return refuse(
            RefusalCode::WrongCluster,
            format!(
                "this server is of cluster {:016x}, the client of {:016x}",
                own.cluster.0, theirs.cluster.0
            ),
        );
    }
    entries(own, theirs)
}

/// Checks what a server says of itself to a client that knows only what its certificate states.
pub(super) fn check_server(own: &Hello, theirs: &Hello, certified: &str) -> Result<(), Refusal> {
    versions(own, theirs)?;
    server(theirs, certified)?;
    if own.cluster.0 != 0 && theirs.cluster != own.cluster {
        return refuse(
            RefusalCode::WrongCluster,
            format!(
                "this client is of cluster {:016x}, the server of {:016x}: an address is wrong",
                own.cluster.0, theirs.cluster.0
            ),
        );
    }
    entries(own, theirs)
}

fn refuse(code: RefusalCode, text: String) -> Result<(), Refusal> {
    Err(Refusal { code, text })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use graft_core::{ClusterId, Epoch, Incarnation};

    use super::*;
    use crate::wire::v1::Schema;

    fn hello(name: &str) -> Hello {
        Hello {
            cluster: ClusterId(7),
            protocol: Protocol::OWN,
            role: Role::Server,
            epoch: Epoch(2),
            node: NodeId::of_name(name),
            name: name.into(),
            incarnation: Incarnation(1),
            client: 0,
            machine: "Stack".into(),
            format: 5,
            schema: Schema::default(),
            max_entry_bytes: 1,
            max_frame_bytes: 1,
            max_reply_bytes: 1,
            election_timeout: Duration::from_millis(300),
        }
    }

    fn code(found: Result<(), Refusal>) -> Option<RefusalCode> {
        found.err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_peer_that_differs_in_what_matters_is_refused_by_name() {
        let own = hello("a");
        let check = |change: &dyn Fn(&mut Hello)| {
            let mut theirs = hello("b");
            change(&mut theirs);
            code(check_peer(&own, &theirs, "b", Some(NodeId::of_name("b"))))
        };
        assert_eq!(check(&|_| {}), None);
        assert_eq!(check(&|theirs| theirs.schema.highest = 9), None);
        assert_eq!(check(&|theirs| theirs.incarnation = Incarnation(9)), None);
        let other = Protocol { min: 200, max: 255 };
        assert_eq!(check(&|theirs| theirs.protocol = other), Some(RefusalCode::UnknownVersion));
        assert_eq!(check(&|theirs| theirs.role = Role::Client), Some(RefusalCode::WrongRole));
        assert_eq!(check(&|theirs| theirs.cluster.0 = 8), Some(RefusalCode::WrongCluster));
        assert_eq!(check(&|theirs| theirs.epoch.0 = 1), Some(RefusalCode::WrongEpoch));
        assert_eq!(check(&|theirs| theirs.epoch.0 = 3), Some(RefusalCode::WrongEpoch));
        assert_eq!(check(&|theirs| theirs.name = "c".into()), Some(RefusalCode::WrongServer));
        assert_eq!(check(&|theirs| theirs.node.0 = 1), Some(RefusalCode::WrongServer));
        let other = |theirs: &mut Hello| theirs.machine = "Queue".into();
        assert_eq!(check(&other), Some(RefusalCode::WrongEntry));
        let newer = Schema { lowest: 1, highest: 2 };
        assert_eq!(check(&|theirs| theirs.schema = newer), Some(RefusalCode::WrongEntry));
        assert_eq!(check(&|theirs| theirs.format = 6), Some(RefusalCode::WrongFormat));
    }

    #[test]
    fn peers_that_agree_may_differ_and_it_is_said_in_what() {
        let own = hello("a");
        let found = |change: &dyn Fn(&mut Hello)| {
            let mut theirs = hello("b");
            change(&mut theirs);
            differences(&own, &theirs)
        };
        assert_eq!(found(&|_| {}), None);
        assert_eq!(found(&|theirs| theirs.election_timeout = Duration::ZERO), None);
        let text = found(&|theirs| {
            theirs.election_timeout = Duration::from_millis(299);
            theirs.max_reply_bytes = 7;
        });
        let text = text.unwrap();
        for words in
            ["timeout is 299 ms, here it is 300 ms", "largest reply is 7 bytes, here it is 1"]
        {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn who_answers_must_be_who_was_called() {
        let own = hello("a");
        let check = |certified: &str, expected| {
            code(check_peer(&own, &hello(certified), certified, expected))
        };
        assert_eq!(check("b", None), None);
        assert_eq!(check("b", Some(NodeId::of_name("c"))), Some(RefusalCode::WrongServer));
        assert_eq!(check("a", None), Some(RefusalCode::WrongServer), "nobody is its own peer");
    }

    #[test]
    fn a_client_may_state_nothing_but_nothing_wrong() {
        let own = hello("a");
        let client = Hello {
            cluster: ClusterId(0),
            role: Role::Client,
            machine: String::new(),
            format: 0,
            ..hello("shop")
        };
        assert_eq!(code(check_client(&own, &client)), None);
        let wrong = Hello { cluster: ClusterId(8), ..client.clone() };
        assert_eq!(code(check_client(&own, &wrong)), Some(RefusalCode::WrongCluster));
        let wrong = Hello { format: 6, ..client.clone() };
        assert_eq!(code(check_client(&own, &wrong)), Some(RefusalCode::WrongFormat));
        assert_eq!(code(check_client(&own, &hello("b"))), Some(RefusalCode::WrongRole));
        assert_eq!(code(check_server(&client, &own, "a")), None);
        assert_eq!(code(check_server(&client, &own, "b")), Some(RefusalCode::WrongServer));
    }
}
