//! Why a newborn does not found.

use std::collections::BTreeMap;

use crate::{Incarnation, NodeId, NodeInfo};

/// Why a newborn server does not found its cluster. Nothing was written, and it must not vote.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundingRefusal {
    /// Another server has a log, which does not name this one's birth.
    #[error(
        "{by} says that the cluster is founded already, and not with this store: the store was emptied \
         or is not this server's. Give it its own store as it was when the server stopped, not a copy or a \
         backup; if that is lost, leave this server stopped: the others go on as long as they are a \
         majority, and nothing takes a server in anew yet. Only a cluster that never came to serve may be \
         founded again, by emptying the stores of all"
    )]
    AlreadyFounded {
        /// Who says so.
        by: String,
    },
    /// A founder that was noted came again with another birth.
    #[error(
        "{server} was noted with birth {noted} and came again with birth {came}: its store was emptied, \
         or two processes run under its name. Make sure that there is one, and start this server again"
    )]
    AnotherBirth {
        /// The founder.
        server: String,
        /// The birth noted first.
        noted: Incarnation,
        /// The birth it came with.
        came: Incarnation,
    },
    /// Another founder has noted this server's name with another birth.
    #[error(
        "{by} knows this server by birth {known}, its store has birth {own}: the store was emptied, or \
         another process runs under this server's name. Make sure that there is one, and start {by} again"
    )]
    KnownOtherwise {
        /// Who has noted it.
        by: String,
        /// The birth it has noted.
        known: Incarnation,
        /// This server's birth.
        own: Incarnation,
    },
    /// A founder that was noted came again and describes itself otherwise.
    #[error(
        "{server} was noted at {noted} and came again at {came}: make sure that this is meant, and start \
         this server again"
    )]
    OtherAddress {
        /// The founder.
        server: String,
        /// How it was noted.
        noted: String,
        /// As what it came again.
        came: String,
    },
    /// The cluster is founded otherwise than this server was about to.
    #[error(
        "{by} has founded the cluster with other births or addresses than are noted here, differing in \
         {differing}: start this server again, with the address that it had when the cluster was founded"
    )]
    Contradicted {
        /// Who has a log.
        by: String,
        /// The founders that differ.
        differing: String,
    },
    /// Another founder has another list of founders.
    #[error(
        "the founders are not the same everywhere: {by} has [{}], this server has [{}]; {}. Give all \
         founders the same list",
        .theirs.join(", "), .ours.join(", "), difference(.by, .ours, .theirs)
    )]
    OtherFounders {
        /// Who has another.
        by: String,
        /// This server's list.
        ours: Vec<String>,
        /// The other list.
        theirs: Vec<String>,
    },
    /// The list of founders does not name this server.
    #[error(
        "{server} is not among the founders [{}]: correct its name or the list, or let it join instead",
        .founders.join(", ")
    )]
    NotListed {
        /// This server.
        server: String,
        /// The list.
        founders: Vec<String>,
    },
    /// Two founders have the same number.
    #[error("founders `{}` and `{}` have the same number {node}: give one another name", .names.0, .names.1)]
    SameNumber {
        /// The number.
        node: NodeId,
        /// Both names; they are equal where one is listed twice.
        names: (String, String),
    },
}

impl FoundingRefusal {
    /// `noted` has come again as `came`.
    pub(super) fn another(noted: &NodeInfo, came: &NodeInfo) -> Self {
        let server = noted.name.clone();
        if noted.incarnation != came.incarnation {
            return Self::AnotherBirth { server, noted: noted.incarnation, came: came.incarnation };
        }
        Self::OtherAddress { server, noted: described(noted), came: described(came) }
    }

    /// The cluster was founded with `founded`, and `noted` is what this server has.
    pub(super) fn contradicted(
        by: String,
        noted: &BTreeMap<NodeId, NodeInfo>,
        founded: &BTreeMap<NodeId, NodeInfo>,
    ) -> Self {
        let differing = noted.iter().filter(|(node, info)| founded.get(*node) != Some(info));
        let names: Vec<&str> = differing.map(|(_, info)| info.name.as_str()).collect();
        Self::Contradicted { by, differing: names.join(", ") }
    }
}

fn described(info: &NodeInfo) -> String {
    let NodeInfo { peer_address, client_address, priority, .. } = info;
    format!("`{peer_address}` (for clients `{client_address}`, priority {priority})")
}

fn difference(by: &str, ours: &[String], theirs: &[String]) -> String {
    let only = |these: &[String], those: &[String]| {
        let some = these.iter().filter(|name| !those.contains(name)).cloned();
        some.collect::<Vec<_>>().join(", ")
    };
    match (only(theirs, ours), only(ours, theirs)) {
        (there, here) if here.is_empty() => format!("only {by} names {there}"),
        (there, here) if there.is_empty() => format!("{by} lacks {here}"),
        (there, here) => format!("only {by} names {there}, and it lacks {here}"),
    }
}
