//! The clients that are connected, and the replies that wait for each.

use std::{
    collections::BTreeMap,
    iter,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use graft_core::{LinkId, Reply, ReplyEnvelope};
use quinn::Connection;
use tokio::sync::Notify;

use super::{
    gate::Run,
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
#[derive(Debug, Default)]
pub(super) struct Clients {
    lines: RwLock<BTreeMap<LinkId, Arc<ClientLine>>>,
    /// What each is told when it connects.
    members: Mutex<Option<Members>>,
}

impl Clients {
    /// Takes in a new line and puts what each client is told first into its queue.
    pub(super) fn join(
        &self,
        line: &Arc<ClientLine>,
        bound: usize,
        counters: &Counters,
    ) -> Result<(), Refusal> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= bound {
            let text = format!("{bound} clients are connected here, which is the limit");
            return Err(Refusal { code: RefusalCode::TooMany, text });
        }
        lines.insert(line.link, Arc::clone(line));
        drop(lines);
        let members = members.clone().map(ToClient::Members);
        line.push_all(&mut members.into_iter(), counters);
        Ok(())
    }

    /// Forgets a line that has ended.
    pub(super) fn leave(&self, line: &ClientLine) {
        let gone = self.lines.write().unwrap_or_else(PoisonError::into_inner).remove(&line.link);
        drop(gone);
        line.queue.close();
    }

    /// Sends replies of this run and leaves none.
    pub(super) fn send(&self, run: Run, replies: &mut Vec<ReplyEnvelope>, counters: &Counters) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let mut rest = replies.drain(..).peekable();
        while let Some(link) = rest.peek().map(|reply| reply.link) {
            let mut same = iter::from_fn(|| rest.next_if(|reply| reply.link == link))
                .map(|reply| ToClient::Reply(reply.request_id, reply.reply));
            match lines.get(&link).filter(|line| line.run == run) {
                Some(line) => line.push_all(&mut same, counters),
                None => counters.unwanted_replies.add(same.count() as u64),
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
        self.all().iter().filter(|line| line.run == run).for_each(|line| line.leave());
    }

    /// Those of every other run leave in order.
    pub(super) fn close_except(&self, run: Run) {
        self.all().iter().filter(|line| line.run != run).for_each(|line| line.leave());
    }

    /// All leave in order.
    pub(super) fn close_all(&self) {
        self.all().iter().for_each(|line| line.leave());
    }

    pub(super) fn count(&self) -> usize {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).len()
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
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.values().map(Arc::clone).collect()
    }
}
