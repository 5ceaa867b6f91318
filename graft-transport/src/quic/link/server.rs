//! The life of one connection with a server, seen from the client.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use graft_core::{ClusterId, NodeId, RejectReason, Reply};
use quinn::{Connection, SendStream};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{Shared, waiting::Waiting};
use crate::{
    quic::{
        agreement,
        peers::DONE,
        queue::Queue,
        shared::{is_set, until},
        stream::{self, Encode, End, Incoming},
        tls::CertifiedPeer,
    },
    wire::v1::{
        FrameReader, Hello, Kind, Kinds, Limits, Outgoing, RefusalCode, Schema, decode_hello,
        decode_members, decode_replies, encode_hello, encode_outgoing, encode_refusal,
    },
};

/// One connection with a server, from the agreement of both sides to its end.
#[derive(Debug)]
pub(super) struct ServerLine {
    pub(super) node: NodeId,
    certified: CertifiedPeer,
    /// The versions of entries that it reads.
    pub(super) schema: Schema,
    pub(super) queue: Queue<Waiting>,
}

/// How a connection went.
pub(super) struct Ended {
    /// Who was there.
    pub(super) node: Option<NodeId>,
    /// For how long both sides agreed.
    pub(super) lived: Duration,
}

/// Runs a connection with a server until it ends.
pub(super) async fn run(shared: &Arc<Shared>, connection: Connection, address: &str) -> Ended {
    let mut requests = None;
    let agreed = timeout(shared.config.timing.agreement, agree(shared, &connection, &mut requests));
    let agreed = agreed.await.unwrap_or_else(|_| {
        Err(stream::refuse(RefusalCode::TooSlow, "no agreement was reached in time"))
    });
    let (hello, certified, incoming) = match agreed {
        Ok(agreed) => agreed,
        Err(end) => {
            end_early(shared, &connection, requests, &end).await;
            shared.note(address, describe(&end));
            return Ended { node: None, lived: Duration::ZERO };
        }
    };
    let node = hello.node;
    let queue = Queue::new(shared.config.request_bytes);
    let line = Arc::new(ServerLine { node, certified, schema: hello.schema, queue });
    let Some(requests) = requests.filter(|_| shared.join(&line)) else {
        // It is connected already, by another of its addresses.
        connection.close(DONE, b"");
        return Ended { node: Some(node), lived: Duration::ZERO };
    };
    let began = Instant::now();
    let place = Place { shared, line: &line };
    let mut tasks = JoinSet::new();
    let end = live(shared, &connection, &line, requests, incoming, &mut tasks).await;
    // Nothing is delivered any more when the client hears that the server is gone.
    tasks.shutdown().await;
    drop(place);
    shared.note(address, describe(&end));
    match &end {
        End::Refuse(refusal) => stream::close(&connection, refusal),
        _ => connection.close(DONE, b""),
    }
    Ended { node: Some(node), lived: began.elapsed() }
}

/// A line's place among the connected, which it loses whatever ends it.
struct Place<'a> {
    shared: &'a Shared,
    line: &'a ServerLine,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.line);
    }
}

fn describe(end: &End) -> String {
    match end {
        End::Refuse(refusal) => format!("refused by this client: {refusal}"),
        End::Refused(refusal) => format!("refused by the server: {refusal}"),
        End::Lost(error) => format!("the connection was lost: {}", stream::describe(error)),
        End::Stopped => "the connection was ended".to_owned(),
    }
}

/// Says hello and hears one.
async fn agree(
    shared: &Arc<Shared>,
    connection: &Connection,
    requests: &mut Option<SendStream>,
) -> Result<(Hello, CertifiedPeer, Incoming), End> {
    let own = shared.hello();
    let certified = shared
        .tls
        .certified_peer(connection)
        .map_err(|error| stream::refuse(RefusalCode::WrongServer, error.to_string()))?;
    let (send, receive) = connection.open_bi().await?;
    let requests = requests.insert(send);
    let mut outgoing = Outgoing::new();
    encode_hello(&own, &mut outgoing)?;
    stream::write(requests, &mut outgoing, &shared.bytes_sent).await?;
    let mut incoming = Incoming::new(receive, FrameReader::new(shared.config.frames, None));
    incoming.frames.expect(Kinds::HANDSHAKE);
    let frame = incoming.frame(&shared.bytes_received).await?;
    if frame.kind() == Kind::Refusal {
        return Err(End::stated(&frame));
    }
    let theirs = decode_hello(&frame)?;
    agreement::check_server(&own, &theirs, certified.name()).map_err(End::Refuse)?;
    // The first that answers decides which cluster this is, for as long as the link lives.
    let known =
        shared.cluster.compare_exchange(0, theirs.cluster.0, Ordering::Relaxed, Ordering::Relaxed);
    if let Err(known) = known
        && known != theirs.cluster.0
    {
        let text = format!(
            "the server is of cluster {:016x}, others of {known:016x}: an address is wrong",
            theirs.cluster.0
        );
        return Err(stream::refuse(RefusalCode::WrongCluster, text));
    }
    shared.check_served(&theirs).map_err(End::Refuse)?;
    incoming.frames.set_cluster(theirs.cluster);
    incoming.frames.expect(Kinds::TO_CLIENT);
    Ok((theirs, certified, incoming))
}

async fn end_early(
    shared: &Shared,
    connection: &Connection,
    requests: Option<SendStream>,
    end: &End,
) {
    if let End::Refuse(refusal) = end {
        let mut outgoing = Outgoing::new();
        // A refusal always fits.
        let _fits = encode_refusal(refusal, shared.cluster(), &mut outgoing);
        let patience = shared.config.timing.farewell;
        stream::say_refusal(connection, requests, &mut outgoing, refusal, patience).await;
    } else {
        connection.close(DONE, b"");
    }
}

/// How one of the tasks of a connection ended in order.
enum Done {
    Reading,
    Writing,
}

/// Reads and writes until the connection ends or the link is dropped.
async fn live(
    shared: &Arc<Shared>,
    connection: &Connection,
    line: &Arc<ServerLine>,
    requests: SendStream,
    incoming: Incoming,
    tasks: &mut JoinSet<Result<Done, End>>,
) -> End {
    tasks.spawn(read(Arc::clone(shared), line.node, incoming));
    tasks.spawn(write(Arc::clone(shared), Arc::clone(line), requests));
    let mut closing = shared.closing.subscribe();
    let mut revocations = shared.tls.changed();
    let mut farewell = None;
    loop {
        tokio::select! {
            biased;
            done = tasks.join_next(), if !tasks.is_empty() => match done {
                // The server ends the connection once it has read everything.
                Some(Ok(Ok(Done::Writing))) => {}
                Some(Ok(Ok(Done::Reading)) | Err(_)) | None => return End::Stopped,
                Some(Ok(Err(end))) => return end,
            },
            error = connection.closed() => return End::of(error),
            // One that is gone means that the identity is, too.
            Ok(()) = revocations.changed() => {
                if let Err(refusal) = shared.tls.still_valid(&line.certified) {
                    return stream::refuse(RefusalCode::Revoked, refusal.to_string());
                }
            }
            () = is_set(&mut closing), if farewell.is_none() => {
                line.queue.finish();
                farewell = Some(Instant::now() + shared.config.timing.farewell);
            }
            () = until(farewell) => return End::Stopped,
        }
    }
}

async fn write(
    shared: Arc<Shared>,
    line: Arc<ServerLine>,
    stream: SendStream,
) -> Result<Done, End> {
    let encoder = Requests {
        shared: &shared,
        node: line.node,
        cluster: shared.cluster(),
        limits: shared.config.frames,
    };
    stream::write_queue(&line.queue, stream, encoder, &shared.bytes_sent).await?;
    Ok(Done::Writing)
}

struct Requests<'a> {
    shared: &'a Shared,
    node: NodeId,
    cluster: ClusterId,
    limits: Limits,
}

impl Encode<Waiting> for Requests<'_> {
    const TOGETHER: usize = Limits::MAX_BATCH;

    fn encode(&mut self, items: &[Waiting], outgoing: &mut Outgoing) {
        let now = self.shared.runtime.now();
        let requests = items.iter().map(Waiting::outgoing);
        let left_out = encode_outgoing(requests, now, self.cluster, &self.limits, outgoing);
        if left_out.is_empty() {
            return;
        }
        let Some(replies) = self.shared.replies() else {
            return;
        };
        // No server would take them in either.
        let limit = self.limits.max_entry_bytes();
        for request in items.iter().filter(|request| left_out.contains(&request.request_id)) {
            let reason = RejectReason::TooLarge { bytes: request.payload_bytes(), limit };
            replies.on_reply(self.node, request.request_id, Reply::Rejected(reason));
        }
    }
}

async fn read(shared: Arc<Shared>, node: NodeId, mut incoming: Incoming) -> Result<Done, End> {
    loop {
        while let Some(frame) = incoming.frames.next()? {
            match frame.kind() {
                Kind::Replies => {
                    let found = decode_replies(&frame)?;
                    if let Some(replies) = shared.replies() {
                        replies.on_replies(node, &mut found.into_iter());
                    }
                }
                Kind::Members => shared.learn(decode_members(&frame)?),
                _ => return Err(End::stated(&frame)),
            }
        }
        if !incoming.fill(&shared.bytes_received).await? {
            return Ok(Done::Reading);
        }
    }
}
