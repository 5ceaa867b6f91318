//! The life of one connection of a client, seen from the server.

use std::{sync::Arc, time::Duration};

use graft_core::{ClusterId, LinkId, RejectReason, Reply, Request};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    agreement,
    begun::Begun,
    clients::{ClientLine, ToClient},
    gate::Run,
    queue::Queue,
    shared::{Shared, Way},
    stream::{self, Encode, End, Incoming},
    tls::CertifiedPeer,
};
use crate::wire::v1::{
    FrameReader, Hello, Kind, Kinds, Limits, Outgoing, RefusalCode, decode_hello, decode_requests,
    encode_hello, encode_members, encode_refusal, encode_replies,
};

/// Runs a connection of a client until it ends. The permit is that of its handshake, which ends with the
/// agreement. Returns for how long both sides agreed.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    certified: CertifiedPeer,
    link: LinkId,
    permit: OwnedSemaphorePermit,
) -> Duration {
    let mut answers = None;
    let agreed = timeout(shared.config.timing.agreement, agree(shared, &connection, &mut answers));
    let agreed = agreed.await.unwrap_or_else(|_| {
        Err(stream::refuse(RefusalCode::TooSlow, "it did not say in time who it is"))
    });
    drop(permit);
    let joined = agreed.and_then(|(hello, run, incoming)| {
        let line = Arc::new(ClientLine {
            link,
            run,
            connection: connection.clone(),
            certified: certified.clone(),
            queue: Queue::new(shared.config.bounds.reply_bytes),
            share: shared.clients.intake.share(),
            leaving: tokio::sync::Notify::new(),
        });
        let bound = shared.config.bounds.clients;
        shared.clients.join(&line, bound, &shared.counters).map_err(End::Refuse)?;
        // A run that ended meanwhile did not know of this line.
        if shared.gate.open_run() == Some(run) {
            Ok((hello, line, incoming))
        } else {
            shared.clients.leave(&line);
            Err(not_ready())
        }
    });
    let (hello, line, incoming) = match joined {
        Ok(joined) => joined,
        Err(end) => return end_early(shared, &connection, &certified, answers, end).await,
    };
    let place = Place { shared, line: &line };
    let began = Instant::now();
    shared.counters.clients_connected.add(1);
    // A client calls itself as it likes; whom it is said of must be few.
    shared.say_up(Way::Client, certified.name(), connection.remote_address());
    let mut tasks = JoinSet::new();
    let end = match answers {
        Some(answers) => {
            let limits = shared.config.frames.with_replies_of(hello.max_reply_bytes);
            tasks.spawn(write(Arc::clone(shared), Arc::clone(&line), answers, limits));
            tasks.spawn(read(Arc::clone(shared), Arc::clone(&line), incoming));
            live(&line, &mut tasks, shared.config.timing.farewell).await
        }
        None => End::Stopped,
    };
    // Nothing is let in any more when the line gives back what it has let in.
    tasks.shutdown().await;
    drop(place);
    shared.conclude(Way::Client, &connection, certified.name(), &end);
    began.elapsed()
}

/// A line's place among the connected, which it loses whatever ends it.
struct Place<'a> {
    shared: &'a Shared,
    line: &'a ClientLine,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.clients.leave(self.line);
    }
}

fn not_ready() -> End {
    stream::refuse(RefusalCode::Closing, "the server behind this address is not running now")
}

/// Hears a hello and answers it.
async fn agree(
    shared: &Arc<Shared>,
    connection: &Connection,
    answers: &mut Option<SendStream>,
) -> Result<(Hello, Run, Incoming), End> {
    let own = shared.hello();
    let (send, receive): (SendStream, RecvStream) = connection.accept_bi().await?;
    let answers = answers.insert(send);
    // A client that knows no cluster is told, and states it from its next frame on.
    let mut incoming =
        Incoming::new(receive, FrameReader::new(shared.config.frames, Some(own.cluster)));
    incoming.frames.expect(Kinds::HANDSHAKE);
    let frame = incoming.frame(&shared.counters.bytes_received).await?;
    if frame.kind() == Kind::Refusal {
        return Err(End::stated(&frame));
    }
    let theirs = decode_hello(&frame)?;
    agreement::check_client(&own, &theirs).map_err(End::Refuse)?;
    let run = shared.gate.open_run().ok_or_else(not_ready)?;
    let mut outgoing = Outgoing::new();
    encode_hello(&own, &mut outgoing)?;
    stream::write(answers, &mut outgoing, &shared.counters.bytes_sent).await?;
    incoming.frames.expect(Kinds::FROM_CLIENT);
    Ok((theirs, run, incoming))
}

async fn end_early(
    shared: &Shared,
    connection: &Connection,
    certified: &CertifiedPeer,
    answers: Option<SendStream>,
    end: End,
) -> Duration {
    if let End::Refuse(refusal) = &end {
        let mut outgoing = Outgoing::new();
        // A refusal always fits.
        let _fits = encode_refusal(refusal, shared.config.cluster, &mut outgoing);
        let patience = shared.config.timing.farewell;
        stream::say_refusal(connection, answers, &mut outgoing, refusal, patience).await;
    }
    shared.conclude(Way::Client, connection, certified.name(), &end);
    Duration::ZERO
}

/// Watches over reading and writing until the connection ends or is to end.
async fn live(
    line: &ClientLine,
    tasks: &mut JoinSet<Result<Done, End>>,
    patience: Duration,
) -> End {
    let mut farewell = None;
    loop {
        tokio::select! {
            biased;
            done = tasks.join_next(), if !tasks.is_empty() => match done {
                // The client ends the connection once it has read everything.
                Some(Ok(Ok(Done::Writing))) => {}
                // The client has said everything and wants no more replies.
                Some(Ok(Ok(Done::Reading)) | Err(_)) | None => return End::Stopped,
                Some(Ok(Err(end))) => return end,
            },
            error = line.connection.closed() => return End::of(error),
            () = line.leaving.notified(), if farewell.is_none() => {
                farewell = Some(Instant::now() + patience);
            }
            () = super::shared::until(farewell) => return End::Refuse(stream::closing()),
        }
    }
}

/// How one of the tasks of a connection ended in order.
enum Done {
    Reading,
    Writing,
}

async fn write(
    shared: Arc<Shared>,
    line: Arc<ClientLine>,
    stream: SendStream,
    limits: Limits,
) -> Result<Done, End> {
    let encoder = Answers { shared: &shared, cluster: shared.config.cluster, limits };
    stream::write_queue(&line.queue, stream, encoder, &shared.counters.bytes_sent).await?;
    Ok(Done::Writing)
}

struct Answers<'a> {
    shared: &'a Shared,
    cluster: ClusterId,
    /// This server's, and those of the client where they are narrower.
    limits: Limits,
}

impl Answers<'_> {
    /// Says of answers that are too large that they are: who heard nothing would wait until its deadline, and
    /// ask again in vain.
    fn excuse(&self, left_out: &[u64], items: &[ToClient], outgoing: &mut Outgoing) {
        let limit = self.limits.max_reply_bytes();
        let answers = items.iter().filter_map(|item| match item {
            ToClient::Reply(id, Reply::Applied(answer) | Reply::Panicked(answer))
                if left_out.contains(id) && answer.len() > limit =>
            {
                Some((*id, Reply::ResponseTooLarge { bytes: answer.len(), limit }))
            }
            _ => None,
        });
        let excuses: Vec<_> = answers.collect();
        let excuses = excuses.iter().map(|(id, reply)| (*id, reply));
        let unsaid = encode_replies(excuses, self.cluster, &self.limits, outgoing);
        debug_assert!(unsaid.is_empty(), "two numbers always fit");
        self.shared.counters.oversized_replies.add(left_out.len() as u64);
        let text = format!(
            "a reply is larger than {limit} bytes, and its client is told so: let the machine answer in parts, or \
             raise the largest reply on both sides"
        );
        self.shared.say("a reply cannot be sent", "clients", &text);
    }
}

impl Encode<ToClient> for Answers<'_> {
    const TOGETHER: usize = Limits::MAX_BATCH;

    fn encode(&mut self, items: &[ToClient], outgoing: &mut Outgoing) {
        for part in items.chunk_by(|a, b| is_reply(a) && is_reply(b)) {
            if let [ToClient::Members(members)] = part {
                if let Err(error) = encode_members(members, self.cluster, outgoing) {
                    self.shared.say("the membership cannot be sent", "clients", &error);
                }
                continue;
            }
            let replies = part.iter().filter_map(|item| match item {
                ToClient::Reply(request_id, reply) => Some((*request_id, reply)),
                ToClient::Members(_) => None,
            });
            let left_out = encode_replies(replies, self.cluster, &self.limits, outgoing);
            if !left_out.is_empty() {
                self.excuse(&left_out, part, outgoing);
            }
        }
    }

    fn conclude(&mut self, outgoing: &mut Outgoing) {
        // A refusal always fits.
        let _fits = encode_refusal(&stream::closing(), self.cluster, outgoing);
    }
}

fn is_reply(item: &ToClient) -> bool {
    matches!(item, ToClient::Reply(..))
}

async fn read(
    shared: Arc<Shared>,
    line: Arc<ClientLine>,
    mut incoming: Incoming,
) -> Result<Done, End> {
    let counters = &shared.counters;
    let mut requests = Vec::new();
    let mut begun = Begun::new(&shared.clients.room, &line, shared.config.timing);
    loop {
        let now = shared.runtime.now();
        let mut is_whole = false;
        while let Some(frame) = incoming.frames.next()? {
            is_whole = true;
            if frame.kind() == Kind::Refusal {
                return Err(End::stated(&frame));
            }
            if requests.is_empty() {
                requests = decode_requests(&frame, line.link, now)?;
            } else {
                requests.append(&mut decode_requests(&frame, line.link, now)?);
            }
        }
        while !requests.is_empty() {
            // A frame may be large, so each part of it, although it holds its room meanwhile.
            line.share.rest(&counters.rests_of_clients).await;
            offer(&shared, &line, &mut requests).await;
        }
        if is_whole {
            begun.end();
        }
        // Not in the midst of a large frame: others wait for its room, and this server may lead by now.
        if !begun.has_room() {
            line.share.rest(&counters.rests_of_clients).await;
        }
        begun.may_read(&incoming, &shared.clients.intake).await;
        if !begun.fill(&mut incoming, &counters.bytes_received).await? {
            return Ok(Done::Reading);
        }
    }
}

/// Lets the first of these requests in, as soon as they may be, and leaves the others.
async fn offer(shared: &Shared, line: &ClientLine, requests: &mut Vec<Request>) {
    let (counters, intake) = (&shared.counters, &shared.clients.intake);
    let count = intake.let_in(&line.share, requests, &counters.waits_of_clients).await;
    let rest = (count < requests.len()).then(|| requests.split_off(count));
    let mut overloaded = Vec::new();
    let taken = shared.gate.offer_requests(line.run, requests, counters, |request| {
        overloaded.push(request.request_id);
    });
    if let Some(rest) = rest {
        *requests = rest;
    }
    if taken == count {
        return;
    }
    intake.answered(&line.share, count - taken, count - taken);
    let mut refusals = overloaded
        .into_iter()
        .map(|request_id| ToClient::Reply(request_id, Reply::Rejected(RejectReason::Overloaded)));
    line.push_all(&mut refusals, counters);
}
