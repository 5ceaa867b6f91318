//! The clients that are connected, and the replies that wait for each.

use std::{
    collections::BTreeMap,
    iter,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use graft_core::{LinkId, Reply, ReplyEnvelope};
use quinn::Connection;
use tokio::sync::Notify;

use super::{
    begun::Room,
    config::Bounds,
    gate::Run,
    intake::{Intake, Share},
    queue::{Queue, Refused},
    stats::Counters,
    stream,
    tls::CertifiedPeer,
};
use crate::wire::v1::{Members, Refusal, RefusalCode};

/// What goes to a client.
#[derive(Clone, Debug)]
pub(super) enum ToClient {
    Reply(u64, Reply),
    Members(Members),
}

impl ToClient {
    /// About how many bytes it takes. A membership that replies share is in memory once, and sent once a
    /// frame: it does not count.
    pub(super) fn size(&self) -> usize {
        const HEADER: usize = 64;
        const MEMBER: usize = 128;
        let members = |nodes: usize| HEADER + nodes * MEMBER;
        match self {
            Self::Reply(_, Reply::Applied(bytes) | Reply::Panicked(bytes)) => HEADER + bytes.len(),
            Self::Reply(..) => HEADER,
            Self::Members(found) => members(found.membership.nodes.len()),
        }
    }
}

/// One connection of a client, from the agreement of both sides to its end.
#[derive(Debug)]
pub(super) struct ClientLine {
    pub(super) link: LinkId,
    pub(super) run: Run,
    pub(super) connection: Connection,
    pub(super) certified: CertifiedPeer,
    pub(super) queue: Queue<ToClient>,
    /// What of its requests was let in.
    pub(super) share: Arc<Share>,
    /// Told once it is to end in order.
    pub(super) leaving: Notify,
}

impl ClientLine {
    /// Lets nothing more in; what waits is still sent.
    fn leave(&self) {
        self.queue.finish();
        self.leaving.notify_one();
    }

    fn close(&self, refusal: &Refusal) {
        self.queue.close();
        stream::close(&self.connection, refusal);
    }

    /// Puts something into its queue. One that lets too much wait does not read, and is disconnected.
    pub(super) fn push_all(&self, items: &mut dyn Iterator<Item = ToClient>, counters: &Counters) {
        let mut sized = items.map(|item| {
            let size = item.size();
            (item, size)
        });
        match self.queue.push_all(&mut sized) {
            Ok(()) => {}
            Err(Refused::Closed) => counters.unwanted_replies.add(1),
            Err(Refused::Full) => {
                counters.slow_clients.add(1);
                let text = "its replies wait and it does not read them".to_owned();
                self.close(&Refusal { code: RefusalCode::TooSlow, text });
            }
        }
    }
}

/// All clients that are connected.
#[derive(Debug)]
pub(super) struct Clients {
    lines: RwLock<Lines>,
    /// What each is told when it connects.
    members: Mutex<Option<Members>>,
    /// What of their requests was let in.
    pub(super) intake: Intake,
    /// What frames that they have begun may hold before that.
    pub(super) room: Room,
}

#[derive(Debug, Default)]
struct Lines {
    by_link: BTreeMap<LinkId, Arc<ClientLine>>,
    /// Those who left before all that they had asked was answered: it is at work still, so it counts. Otherwise who
    /// left and came again could have any amount at work.
    departed: BTreeMap<LinkId, (Run, Arc<Share>)>,
    /// The run that answers, if one does.
    run: Option<Run>,
}

impl Lines {
    /// Nobody but this run answers any more.
    fn begin(&mut self, run: Option<Run>, intake: &Intake) {
        self.run = run;
        self.departed.retain(|_, (of, share)| {
            let is_answered = Some(*of) == run;
            if !is_answered {
                intake.forget(share);
            }
            is_answered
        });
    }

    fn leave(&mut self, line: &ClientLine, intake: &Intake) -> Option<Arc<ClientLine>> {
        self.departed.retain(|_, (_, share)| !share.is_free());
        let gone = self.by_link.remove(&line.link)?;
        if self.run != Some(line.run) {
            intake.forget(&line.share);
        } else if !line.share.is_free() {
            self.departed.insert(line.link, (line.run, Arc::clone(&line.share)));
        }
        Some(gone)
    }
}

impl Clients {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let (lines, members) = (RwLock::default(), Mutex::default());
        Self { lines, members, intake: Intake::new(bounds), room: Room::new(bounds) }
    }

    /// Takes in a new line and puts what each client is told first into its queue.
    pub(super) fn join(
        &self,
        line: &Arc<ClientLine>,
        bound: usize,
        counters: &Counters,
    ) -> Result<(), Refusal> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = self.write();
        if lines.by_link.len() >= bound {
            let text = format!("{bound} clients are connected here, which is the limit");
            return Err(Refusal { code: RefusalCode::TooMany, text });
        }
        lines.by_link.insert(line.link, Arc::clone(line));
        drop(lines);
        let members = members.clone().map(ToClient::Members);
        line.push_all(&mut members.into_iter(), counters);
        Ok(())
    }

    /// Forgets a line that has ended.
    pub(super) fn leave(&self, line: &ClientLine) {
        let gone = self.write().leave(line, &self.intake);
        drop(gone);
        line.queue.close();
    }

    /// Sends replies of this run and leaves none.
    pub(super) fn send(&self, run: Run, replies: &mut Vec<ReplyEnvelope>, counters: &Counters) {
        let lines = self.read();
        let mut rest = replies.drain(..).peekable();
        while let Some(link) = rest.peek().map(|reply| reply.link) {
            let (mut count, mut refused) = (0, 0);
            let mut same =
                iter::from_fn(|| rest.next_if(|reply| reply.link == link)).map(|reply| {
                    count += 1;
                    refused += usize::from(matches!(reply.reply, Reply::Rejected(_)));
                    ToClient::Reply(reply.request_id, reply.reply)
                });
            if let Some(line) = lines.by_link.get(&link).filter(|line| line.run == run) {
                line.push_all(&mut same, counters);
                self.intake.answered(&line.share, count, refused);
                continue;
            }
            same.for_each(drop);
            counters.unwanted_replies.add(count as u64);
            if let Some((_, share)) = lines.departed.get(&link).filter(|(of, _)| *of == run) {
                self.intake.answered(share, count, refused);
            }
        }
    }

    /// Tells all clients, now and as they connect.
    pub(super) fn announce(&self, members: &Members, counters: &Counters) {
        let mut known = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(members.clone());
        for line in self.all() {
            line.push_all(&mut iter::once(ToClient::Members(members.clone())), counters);
        }
    }

    /// Those of a run that is over leave in order.
    pub(super) fn close(&self, run: Run) {
        let mut lines = self.write();
        if lines.run == Some(run) {
            lines.begin(None, &self.intake);
        }
        drop(lines);
        self.all().iter().filter(|line| line.run == run).for_each(|line| line.leave());
    }

    /// From now on this run answers. Those of every other run leave in order.
    pub(super) fn close_except(&self, run: Run) {
        self.write().begin(Some(run), &self.intake);
        self.all().iter().filter(|line| line.run != run).for_each(|line| line.leave());
    }

    /// All leave in order.
    pub(super) fn close_all(&self) {
        self.all().iter().for_each(|line| line.leave());
    }

    pub(super) fn count(&self) -> usize {
        self.read().by_link.len()
    }

    /// Ends at once the lines whose certificates are not valid any more.
    pub(super) fn close_where(&self, is_over: impl Fn(&CertifiedPeer) -> Option<String>) {
        for line in self.all() {
            if let Some(text) = is_over(&line.certified) {
                line.close(&Refusal { code: RefusalCode::Revoked, text });
            }
        }
    }

    fn all(&self) -> Vec<Arc<ClientLine>> {
        self.read().by_link.values().map(Arc::clone).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lines> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }
}
