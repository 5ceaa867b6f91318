//! The life of one connection with a peer.

use std::{sync::Arc, time::Duration};

use graft_core::{ClusterId, NodeId, PeerEnvelope};
use quinn::{Connection, SendStream};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    agreement, copies,
    peers::{CLASSES, DONE, Joined, PeerLine},
    shared::{Shared, Way},
    stream::{self, Encode, End, Incoming},
    tls::CertifiedPeer,
};
use crate::wire::v1::{
    FrameReader, Hello, Kind, Kinds, Limits, Outgoing, Refusal, RefusalCode, decode_hello,
    decode_peer, encode_hello, encode_peer, encode_refusal,
};

/// What may arrive on the stream of each class. A refusal may come at any time, on the first.
const WELCOME: [Kinds; CLASSES.len()] = [
    Kinds::of(&[Kind::Message, Kind::Birth, Kind::Refusal]),
    Kinds::of(&[Kind::Message, Kind::Append]),
    Kinds::of(&[Kind::Snapshot]),
];

/// Which side of a connection this one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// It called this server.
    Caller(NodeId),
    /// It was called.
    Called,
}

impl Side {
    /// Whether that one of the two called which has the lower number.
    fn is_called_by_lower(self, own: &Hello, theirs: &Hello) -> bool {
        match self {
            Self::Caller(_) => own.node < theirs.node,
            Self::Called => theirs.node < own.node,
        }
    }
}

/// Runs a connection with a peer until it ends. The permit is that of its handshake, which ends with the
/// agreement. Returns for how long both sides agreed.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    certified: CertifiedPeer,
    side: Side,
    permit: Option<OwnedSemaphorePermit>,
) -> Duration {
    let mut control = None;
    let agreed = timeout(
        shared.config.timing.agreement,
        agree(shared, &connection, &certified, side, &mut control),
    );
    let agreed = agreed.await.unwrap_or_else(|_| {
        Err(stream::refuse(RefusalCode::TooSlow, "no agreement was reached in time"))
    });
    drop(permit);
    let (hello, incoming) = match agreed {
        Ok(agreed) => agreed,
        Err(end) => return end_early(shared, &connection, &certified, control, end).await,
    };
    let called_by_lower = side.is_called_by_lower(&shared.hello(), &hello);
    let line = PeerLine::new(connection, certified, hello, called_by_lower, &shared.config.bounds);
    let line = Arc::new(line);
    match shared.peers.join(&line, &shared.config) {
        Ok(Joined::Alone) => {}
        Ok(Joined::Beside(other)) => shared.say_births(&line.hello, other),
        Err(end) => {
            return end_early(shared, &line.connection, &line.certified, control, end).await;
        }
    }
    let place = Place { shared, line: &line };
    let began = Instant::now();
    shared.counters.peers_connected.add(1);
    shared.say_up(Way::Peer, &line.hello.name, line.connection.remote_address());
    shared.compare(&line.hello);
    let (node, newest) = (line.hello.node, line.hello.schema.highest);
    shared.versions.on_said(node, newest, shared.config.bounds.peers);
    let end = live(shared, &line, control, incoming).await;
    drop(place);
    shared.conclude(Way::Peer, &line.connection, &line.hello.name, &end);
    began.elapsed()
}

/// A line's place among the connected, which it loses whatever ends it.
struct Place<'a> {
    shared: &'a Shared,
    line: &'a Arc<PeerLine>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.peers.leave(self.line);
    }
}

/// Says hello and hears one. The caller speaks first; who was called answers only to one it accepts.
async fn agree(
    shared: &Arc<Shared>,
    connection: &Connection,
    certified: &CertifiedPeer,
    side: Side,
    control: &mut Option<SendStream>,
) -> Result<(Hello, Incoming), End> {
    let own = shared.hello();
    let expected = match side {
        Side::Caller(node) => Some(node),
        Side::Called => None,
    };
    let stream = control.insert(connection.open_uni().await?);
    let _closed = stream.set_priority(priority(0));
    if expected.is_some() {
        say_hello(shared, &own, stream).await?;
    }
    let frames = FrameReader::new(shared.config.frames, Some(own.cluster));
    let mut incoming = Incoming::new(connection.accept_uni().await?, frames);
    incoming.frames.expect(Kinds::HANDSHAKE);
    let frame = incoming.frame(&shared.counters.bytes_received).await?;
    if frame.kind() == Kind::Refusal {
        return Err(End::stated(&frame));
    }
    let theirs = decode_hello(&frame)?;
    agreement::check_peer(&own, &theirs, certified.name(), expected).map_err(End::Refuse)?;
    copies::check(shared, &theirs).await?;
    if expected.is_none() {
        // Before it hears that all is well.
        shared.peers.admit(&theirs, side.is_called_by_lower(&own, &theirs), &shared.config)?;
        say_hello(shared, &own, stream).await?;
    }
    incoming.frames.expect(WELCOME[0]);
    Ok((theirs, incoming))
}

async fn say_hello(shared: &Shared, own: &Hello, stream: &mut SendStream) -> Result<(), End> {
    let mut outgoing = Outgoing::new();
    encode_hello(own, &mut outgoing)?;
    stream::write(stream, &mut outgoing, &shared.counters.bytes_sent).await
}

/// Ends a connection on which there was no agreement.
async fn end_early(
    shared: &Shared,
    connection: &Connection,
    certified: &CertifiedPeer,
    control: Option<SendStream>,
    end: End,
) -> Duration {
    if let End::Refuse(refusal) = &end {
        let mut outgoing = Outgoing::new();
        // A refusal always fits.
        let _fits = encode_refusal(refusal, shared.config.cluster, &mut outgoing);
        let patience = shared.config.timing.farewell;
        stream::say_refusal(connection, control, &mut outgoing, refusal, patience).await;
    }
    shared.conclude(Way::Peer, connection, certified.name(), &end);
    Duration::ZERO
}

/// How one of the tasks of a connection ended in order.
enum Done {
    /// The other side says nothing more on that stream.
    Reading,
    /// The other side takes its leave. What it said on other streams may still be on its way.
    Farewell(Refusal),
    /// Everything was sent.
    Writing,
}

/// Reads and writes until the connection ends or is to end.
async fn live(
    shared: &Arc<Shared>,
    line: &Arc<PeerLine>,
    control: Option<SendStream>,
    incoming: Incoming,
) -> End {
    let mut tasks = JoinSet::new();
    tasks.spawn(read(Arc::clone(shared), Arc::clone(line), incoming));
    let mut opened = control;
    for at in 0..CLASSES.len() {
        let stream = match opened.take() {
            Some(control) => control,
            None => match line.connection.open_uni().await {
                Ok(stream) => stream,
                Err(error) => return End::of(error),
            },
        };
        let _closed = stream.set_priority(priority(at));
        tasks.spawn(write(Arc::clone(shared), Arc::clone(line), at, stream));
    }
    let (mut accepted, mut reading) = (1, 1);
    let mut end = End::Refuse(stream::closing());
    let mut farewell = None;
    let deadline = || Some(Instant::now() + shared.config.timing.farewell);
    loop {
        tokio::select! {
            biased;
            done = tasks.join_next(), if !tasks.is_empty() => match done {
                // The other side ends the connection once it has read everything.
                Some(Ok(Ok(Done::Writing))) => {}
                Some(Ok(Ok(done))) => {
                    reading -= 1;
                    if let Done::Farewell(refusal) = done {
                        end = End::Refused(refusal);
                        farewell = farewell.or_else(deadline);
                    }
                    if reading == 0 && accepted == CLASSES.len() {
                        return end;
                    }
                }
                Some(Ok(Err(end))) => return end,
                Some(Err(_)) | None => return End::Stopped,
            },
            error = line.connection.closed() => return End::of(error),
            () = line.leaving.notified(), if farewell.is_none() => farewell = deadline(),
            stream = line.connection.accept_uni(), if accepted < CLASSES.len() => match stream {
                Ok(stream) => {
                    let mut frames =
                        FrameReader::new(shared.config.frames, Some(shared.config.cluster));
                    frames.expect(WELCOME[accepted]);
                    (accepted, reading) = (accepted + 1, reading + 1);
                    let incoming = Incoming::new(stream, frames);
                    tasks.spawn(read(Arc::clone(shared), Arc::clone(line), incoming));
                }
                Err(error) => return End::of(error),
            },
            () = super::shared::until(farewell) => return end,
        }
    }
}

/// The most urgent class goes first wherever there is a choice.
fn priority(at: usize) -> i32 {
    i32::try_from(CLASSES.len() - at).unwrap_or_default()
}

async fn write(
    shared: Arc<Shared>,
    line: Arc<PeerLine>,
    at: usize,
    stream: SendStream,
) -> Result<Done, End> {
    let encoder = Messages {
        shared: &shared,
        cluster: shared.config.cluster,
        limits: shared.config.frames,
        peer: &line.hello.name,
        is_first: at == 0,
    };
    let counter = &shared.counters.bytes_sent;
    stream::write_queue(&line.queues[at], stream, encoder, counter).await?;
    Ok(Done::Writing)
}

struct Messages<'a> {
    shared: &'a Shared,
    cluster: ClusterId,
    limits: Limits,
    peer: &'a str,
    /// Whether it writes to the stream on which refusals travel.
    is_first: bool,
}

impl Encode<PeerEnvelope> for Messages<'_> {
    /// What is large goes out before the next is looked at.
    const TOGETHER: usize = 16;

    fn encode(&mut self, items: &[PeerEnvelope], outgoing: &mut Outgoing) {
        for envelope in items {
            if let Err(error) = encode_peer(envelope, self.cluster, &self.limits, outgoing) {
                self.shared.counters.dropped[envelope.message.class() as usize].add(1);
                self.shared.say("a message cannot be sent", self.peer, &error);
            }
        }
    }

    fn conclude(&mut self, outgoing: &mut Outgoing) {
        if self.is_first {
            // A refusal always fits.
            let _fits = encode_refusal(&stream::closing(), self.cluster, outgoing);
        }
    }
}

async fn read(
    shared: Arc<Shared>,
    line: Arc<PeerLine>,
    mut incoming: Incoming,
) -> Result<Done, End> {
    let mut messages = Vec::new();
    loop {
        while let Some(frame) = incoming.frames.next()? {
            if frame.kind() == Kind::Refusal {
                shared.gate.offer_peers(&mut messages, &shared.counters);
                return match End::stated(&frame) {
                    End::Refused(refusal) if refusal.code == RefusalCode::Closing => {
                        Ok(Done::Farewell(refusal))
                    }
                    end => Err(end),
                };
            }
            let envelope = decode_peer(&frame)?;
            if envelope.from != line.hello.node {
                shared.counters.misaddressed.add(1);
                let text = format!(
                    "{:?} sent a message in the name of {}",
                    line.hello.name, envelope.from
                );
                return Err(stream::refuse(RefusalCode::WrongServer, text));
            }
            if envelope.to == shared.node {
                messages.push(envelope);
            } else {
                shared.counters.misaddressed.add(1);
            }
        }
        if !messages.is_empty() {
            shared.gate.offer_peers(&mut messages, &shared.counters);
        }
        if !incoming.fill(&shared.counters.bytes_received).await? {
            return Ok(Done::Reading);
        }
    }
}

/// Ends a connection whose other side this server does not need any more.
pub(super) fn hang_up(connection: &Connection) {
    connection.close(DONE, b"");
}
