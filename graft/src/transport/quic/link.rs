//! The link of a server's own process.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use graft_core::{ClientRequest, Link, LinkError, NodeId, Replies, Runtime};
use graft_transport::quic::{LinkConfig, QuicLink};
use tokio::runtime::Handle;

use crate::Tls;

/// Where servers are found, as far as is known.
pub(super) type Addresses = Mutex<BTreeSet<String>>;

/// What it takes to make a link.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) tokio: Handle,
    pub(super) tls: Tls,
    pub(super) config: LinkConfig,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) addresses: Arc<Addresses>,
}

/// A link that is made when something is to be sent: most processes that run a server never ask it anything,
/// and need no connections for that.
///
/// It shows the server's own certificate, so requests go to the leader as those of a client elsewhere do.
pub(super) struct OnDemand {
    way: Way,
    replies: OnceLock<Arc<dyn Replies>>,
    link: OnceLock<QuicLink>,
    /// Held by whoever makes the link.
    making: Mutex<()>,
}

impl OnDemand {
    pub(super) fn new(way: Way) -> Self {
        let (replies, link, making) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self { way, replies, link, making }
    }

    /// The link, made now if it was not yet.
    fn link(&self) -> Option<&QuicLink> {
        if let Some(link) = self.link.get() {
            return Some(link);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.link.get().is_none() {
            let link = self.make()?;
            // Nobody else makes one meanwhile.
            let _ = self.link.set(link);
        }
        self.link.get()
    }

    fn make(&self) -> Option<QuicLink> {
        let replies = self.replies.get()?;
        let Way { tokio, tls, config, runtime, addresses } = self.way.clone();
        let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _inside = tokio.enter();
        match QuicLink::connect(addresses, tls, config, runtime) {
            Ok(link) => {
                link.attach(Arc::clone(replies));
                Some(link)
            }
            Err(error) => {
                let error = crate::error::with_causes(&error);
                tracing::warn!(error, "requests of this process find no way to the servers");
                None
            }
        }
    }
}

impl Link for OnDemand {
    fn attach(&self, replies: Arc<dyn Replies>) {
        assert!(self.replies.set(replies).is_ok(), "a link is attached once");
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        self.link().ok_or(LinkError::Unreachable(to))?.send(to, request)
    }

    fn servers(&self) -> Vec<NodeId> {
        self.link().map(Link::servers).unwrap_or_default()
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").field("link", &self.link.get()).finish_non_exhaustive()
    }
}
