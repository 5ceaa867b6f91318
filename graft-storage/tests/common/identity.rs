//! Who the stores of the tests are.

use graft_core::{Birth, ClusterId, Epoch, Identity, Incarnation, NodeId};

pub fn identity() -> Identity {
    Identity {
        cluster: ClusterId(1),
        epoch: Epoch(0),
        node: NodeId(1),
        name: "server1".into(),
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "test".into(),
        format: 0,
    }
}
