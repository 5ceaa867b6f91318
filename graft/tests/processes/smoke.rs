//! Servers that found their cluster, serve, and leave.

use crate::{
    cluster::Cluster,
    machine::{Ask, Told},
    soon,
};

#[tokio::test]
async fn processes_found_a_cluster_serve_a_client_that_knows_one_of_them_and_leave_in_order() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client(&[1]).await;
    let ask = Ask::Swap { key: 1, expected: None, value: 5 };
    assert_eq!(soon(client.request(ask)).await, Ok(Told::Swapped { swapped: true, found: None }));
    assert_eq!(client.servers(), ["server1", "server2", "server3"]);
    assert_eq!(soon(client.request(Ask::Append { key: 1, value: 7 })).await, Ok(Told::Appended(0)));
    let leader = cluster.leader().await;
    cluster.shut_down(leader).await;
    assert_eq!(soon(client.request(Ask::Read { key: 1 })).await, Ok(Told::Value(Some(5))));
    cluster.kill(cluster.leader().await);
    cluster.start(leader).await;
    assert_eq!(soon(client.request(Ask::List { key: 1 })).await, Ok(Told::List(vec![7])));
    soon(client.shutdown()).await;
}
