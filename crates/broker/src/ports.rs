//! Connections as the rest of the broker sees them: where their events go, and how they are held back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;
use warren_types::session::Event;
use warren_types::{ConnectionId, Message};

use crate::mailbox::Mailbox;

/// Where a connection gets its events, and how it is held back.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub outbox: Mailbox<Event>,
    /// Bytes of publishes that were handed to shards and not processed.
    in_flight: AtomicUsize,
    /// The connection waits for `in_flight` to fall.
    waiting: AtomicBool,
    /// Bytes of direct replies that were not written to the socket.
    direct_replies: AtomicUsize,
}

impl Port {
    /// Bytes of a connection's publishes that may be unprocessed.
    const IN_FLIGHT_MAX: usize = 4 * 1024 * 1024;

    /// Bytes of direct replies that may wait for a client that does not read; more are dropped.
    const DIRECT_REPLIES_MAX: usize = 64 * 1024 * 1024;

    pub(crate) fn submitted(&self, bytes: usize) {
        self.in_flight.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the connection must stop reading; it is woken when it may go on.
    pub(crate) fn must_wait(&self) -> bool {
        if self.in_flight.load(Ordering::Relaxed) <= Self::IN_FLIGHT_MAX {
            return false;
        }
        self.waiting.store(true, Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst) > Self::IN_FLIGHT_MAX
    }

    pub(crate) fn processed(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let before = self.in_flight.fetch_sub(bytes, Ordering::SeqCst);
        if before - bytes <= Self::IN_FLIGHT_MAX && self.waiting.swap(false, Ordering::SeqCst) {
            self.outbox.nudge();
        }
    }

    /// Sends a direct reply unless too many wait already.
    pub(crate) fn direct_reply(&self, event: Event, message: &Message) {
        let bytes = message.memory();
        if self.direct_replies.fetch_add(bytes, Ordering::Relaxed) > Self::DIRECT_REPLIES_MAX {
            self.direct_replies.fetch_sub(bytes, Ordering::Relaxed);
            tracing::warn!("a direct reply was dropped: its requester does not read");
            return;
        }
        self.outbox.push(event);
    }

    pub(crate) fn direct_replies_written(&self, bytes: usize) {
        self.direct_replies.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    ports: Mutex<PortTable>,
}

#[derive(Debug, Default)]
struct PortTable {
    slots: Slab<(u32, Arc<Port>)>,
    next_generation: u32,
}

impl Ports {
    pub(crate) fn open(&self) -> (ConnectionId, Arc<Port>) {
        let mut table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = table.next_generation;
        table.next_generation = generation.wrapping_add(1);
        let port = Arc::new(Port::default());
        let slot = table.slots.insert((generation, Arc::clone(&port)));
        let slot = u32::try_from(slot).expect("there are fewer sockets than that");
        (ConnectionId { slot, generation }, port)
    }

    pub(crate) fn close(&self, id: ConnectionId) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).slots.remove(id.slot as usize);
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Port>> {
        let table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, port) = table.slots.get(id.slot as usize)?;
        (*generation == id.generation).then(|| Arc::clone(port))
    }

    pub(crate) fn broadcast(&self, event: impl Fn() -> Event) {
        let table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (_, port)) in &table.slots {
            port.outbox.push(event());
        }
    }

    /// Tells every connection whether publishers must wait.
    pub(crate) fn tell_alarm(&self, raised: bool) {
        if raised {
            tracing::warn!("memory alarm: publishers are blocked until consumers have made room");
        } else {
            tracing::info!("memory alarm cleared: publishers may go on");
        }
        self.broadcast(|| if raised { Event::Blocked(LOW_ON_MEMORY) } else { Event::Unblocked });
    }
}

/// The reason in `connection.blocked`.
pub(crate) const LOW_ON_MEMORY: &str = "low on memory";
