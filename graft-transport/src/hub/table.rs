//! Who is connected to a hub, and the ways to them.
//!
//! A sender offers to a station while it holds its own [`Ways`] for reading, a lock that no other sender
//! touches. Whoever closes a station first marks it, and then takes the ways of every sender for
//! writing, once: after that no offer is under way that has not seen the mark. So the price of closing
//! for good is paid by those who close, and not by every message.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use graft_core::{Inbound, Inbox, LinkId, NodeId, Replies, Reply, ReplyEnvelope};

/// A server's place at the hub, from [`Hub::transport`](super::Hub::transport) until it is closed.
pub(super) struct Station {
    node: NodeId,
    inbox: OnceLock<Inbox>,
    /// Whether it has an inbox and is not closed.
    open: AtomicBool,
    closed: AtomicBool,
    /// Held while it is attached or marked as closed.
    turning: Mutex<()>,
    pub(super) ways: Ways,
}

/// Why an inbox did not take something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The bytes of its class are used up.
    Full,
    /// Nobody is there any more, or not yet.
    Gone,
}

impl Station {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Gives the station its inbox. One that is closed stays closed.
    pub(super) fn attach(&self, inbox: Inbox) {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(self.inbox.set(inbox).is_ok(), "a transport is attached once");
        self.open.store(!self.is_closed(), Ordering::Release);
    }

    /// Offers to the inbox. The caller holds its ways, which holds up those who close the station.
    pub(super) fn offer(&self, inbound: Inbound) -> Result<(), Refused> {
        let Some(inbox) = self.inbox.get().filter(|_| self.is_open()) else {
            return Err(Refused::Gone);
        };
        match inbox.offer(inbound) {
            Ok(()) => Ok(()),
            Err(_) if inbox.is_closed() => Err(Refused::Gone),
            Err(_) => Err(Refused::Full),
        }
    }

    /// Marks it as closed, to those who send to it and for its own sending. Says whether it was open.
    fn mark_closed(&self) -> bool {
        let was_open = {
            let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
            self.closed.store(true, Ordering::Release);
            self.open.swap(false, Ordering::AcqRel)
        };
        self.ways.shut();
        was_open
    }
}

/// A client's place at the hub, as long as its link lives.
pub(super) struct Mailbox {
    id: LinkId,
    replies: OnceLock<Arc<dyn Replies>>,
    closed: AtomicBool,
    pub(super) ways: Ways,
}

impl Mailbox {
    pub(super) fn id(&self) -> LinkId {
        self.id
    }

    pub(super) fn attach(&self, replies: Arc<dyn Replies>) {
        let attached = self.replies.set(replies);
        assert!(attached.is_ok(), "a link is attached once");
    }

    /// Calls the client, without a lock.
    pub(super) fn deliver(&self, from: NodeId, envelope: ReplyEnvelope) {
        let ReplyEnvelope { request_id, reply, .. } = envelope;
        if let Some(replies) = self.attached() {
            replies.on_reply(from, request_id, reply);
        }
    }

    /// As [`deliver`](Self::deliver), and leaves none.
    pub(super) fn deliver_all(
        &self,
        from: NodeId,
        replies: &mut dyn Iterator<Item = (u64, Reply)>,
    ) {
        if let Some(attached) = self.attached() {
            attached.on_replies(from, replies);
        }
        replies.for_each(drop);
    }

    fn tell_gone(&self, server: NodeId) {
        if let Some(replies) = self.attached() {
            replies.on_server_gone(server);
        }
    }

    fn attached(&self) -> Option<&Arc<dyn Replies>> {
        let closed = self.closed.load(Ordering::Acquire);
        self.replies.get().filter(|_| !closed)
    }
}

/// All stations and mailboxes of a hub.
#[derive(Default)]
pub(super) struct Switchboard {
    table: RwLock<Table>,
    last_link: AtomicU64,
    /// The ways of what the hub itself delivers: all that faults have a say in.
    pub(super) ways: Ways,
}

#[derive(Default)]
struct Table {
    servers: BTreeMap<NodeId, Arc<Station>>,
    links: BTreeMap<LinkId, Arc<Mailbox>>,
}

impl Switchboard {
    /// A new station for `node`, in the place of an earlier one, which is closed.
    pub(super) fn open_station(&self, node: NodeId) -> Arc<Station> {
        let station = Arc::new(Station {
            node,
            inbox: OnceLock::new(),
            open: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            turning: Mutex::new(()),
            ways: Ways::default(),
        });
        let earlier = write(&self.table).servers.insert(node, Arc::clone(&station));
        if let Some(earlier) = earlier {
            self.close_station(&earlier);
        }
        station
    }

    /// Closes `station` and tells the links, where that was not done before. Another one that has taken
    /// its place stays. Nothing is offered to it any more once this returns.
    pub(super) fn close_station(&self, station: &Arc<Station>) {
        let was_open = station.mark_closed();
        let (stations, mailboxes) = {
            let mut table = write(&self.table);
            let current = table.servers.get(&station.node);
            if current.is_some_and(|current| Arc::ptr_eq(current, station)) {
                table.servers.remove(&station.node);
            }
            let stations: Vec<_> = table.servers.values().cloned().collect();
            let mailboxes: Vec<_> = table.links.values().cloned().collect();
            (stations, mailboxes)
        };
        // A station that is not in the table is closed, and waited for its own sending as it closed.
        let senders = stations.iter().map(|station| &station.ways);
        let senders = senders.chain(mailboxes.iter().map(|mailbox| &mailbox.ways));
        for ways in senders.chain([&self.ways]) {
            ways.forget();
        }
        if was_open {
            for mailbox in mailboxes {
                mailbox.tell_gone(station.node);
            }
        }
    }

    pub(super) fn open_mailbox(&self) -> Arc<Mailbox> {
        // Zero is left out because it is what a number that was never set looks like.
        let id = LinkId(self.last_link.fetch_add(1, Ordering::Relaxed) + 1);
        let (replies, closed, ways) = (OnceLock::new(), AtomicBool::new(false), Ways::default());
        let mailbox = Arc::new(Mailbox { id, replies, closed, ways });
        write(&self.table).links.insert(id, Arc::clone(&mailbox));
        mailbox
    }

    /// Closes `mailbox`, and has nobody hold on to it.
    pub(super) fn close_mailbox(&self, mailbox: &Mailbox) {
        mailbox.closed.store(true, Ordering::Release);
        let (gone, stations) = {
            let mut table = write(&self.table);
            let gone = table.links.remove(&mailbox.id);
            (gone, table.servers.values().cloned().collect::<Vec<_>>())
        };
        for ways in stations.iter().map(|station| &station.ways).chain([&self.ways]) {
            ways.forget_mailbox(mailbox.id);
        }
        drop(gone);
    }

    pub(super) fn station(&self, node: NodeId) -> Option<Arc<Station>> {
        read(&self.table).servers.get(&node).cloned()
    }

    fn mailbox(&self, link: LinkId) -> Option<Arc<Mailbox>> {
        read(&self.table).links.get(&link).cloned()
    }

    /// The servers that can be reached, in order.
    pub(super) fn servers(&self) -> Vec<NodeId> {
        let table = read(&self.table);
        let open = table.servers.values().filter(|station| station.is_open());
        open.map(|station| station.node).collect()
    }
}

/// The ways that one sender has used: its own copy of a part of the table, so that senders do not meet.
#[derive(Default)]
pub(super) struct Ways {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// Whether this sender may send no more.
    shut: bool,
    stations: Vec<Arc<Station>>,
    mailboxes: BTreeMap<LinkId, Arc<Mailbox>>,
}

impl Ways {
    /// Calls `offer` with the station of `node`, if there is one. Nobody finishes closing that station
    /// meanwhile; `offer` must not close any.
    pub(super) fn with_station<R>(
        &self,
        board: &Switchboard,
        node: NodeId,
        offer: impl FnOnce(&Station) -> R,
    ) -> Option<R> {
        loop {
            let known = read(&self.known);
            if known.shut {
                return None;
            }
            let found = known.stations.iter().find(|station| station.node == node);
            if let Some(station) = found {
                return Some(offer(station));
            }
            drop(known);
            let found = board.station(node)?;
            let mut known = write(&self.known);
            // Whoever closes a station marks it before it comes here to have it forgotten, so one that
            // is not marked now will be forgotten in time.
            if known.shut || found.is_closed() {
                return None;
            }
            if !known.stations.iter().any(|station| station.node == node) {
                known.stations.push(found);
            }
        }
    }

    /// Calls `offer` while nobody finishes closing any station.
    pub(super) fn hold<R>(&self, offer: impl FnOnce() -> R) -> R {
        let _known = read(&self.known);
        offer()
    }

    /// The mailbox of `link`, if there is one.
    pub(super) fn mailbox(&self, board: &Switchboard, link: LinkId) -> Option<Arc<Mailbox>> {
        {
            let known = read(&self.known);
            if known.shut {
                return None;
            }
            if let Some(found) = known.mailboxes.get(&link) {
                return Some(Arc::clone(found));
            }
        }
        let found = board.mailbox(link)?;
        let mut known = write(&self.known);
        // As with stations.
        if !known.shut && !found.closed.load(Ordering::Acquire) {
            known.mailboxes.insert(link, Arc::clone(&found));
        }
        Some(found)
    }

    /// Whether this sender may send no more.
    pub(super) fn is_shut(&self) -> bool {
        read(&self.known).shut
    }

    /// Waits until what is being sent is sent, and lets nothing follow.
    fn shut(&self) {
        let shut = Known { shut: true, ..Known::default() };
        let known = std::mem::replace(&mut *write(&self.known), shut);
        drop(known);
    }

    /// Waits until what is being sent is sent, and forgets all stations.
    fn forget(&self) {
        let stations = std::mem::take(&mut write(&self.known).stations);
        drop(stations);
    }

    fn forget_mailbox(&self, link: LinkId) {
        let mailbox = write(&self.known).mailboxes.remove(&link);
        drop(mailbox);
    }
}

/// No user's code runs while these are held, except wakers, so a poisoned one is as good as any.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
