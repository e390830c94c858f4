//! Connections as the rest of the broker sees them: where their events go, and how they are held back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use slab::Slab;
use warren_store::Store;
use warren_types::session::Event;
use warren_types::{AmqpError, ConnectionId, Message};

use crate::auth::User;
use crate::connections::Registry;
use crate::mailbox::Mailbox;
use crate::vhost::Vhost;

/// Where a connection gets its events, and how it is held back.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub outbox: Mailbox<Event>,
    /// Where the connection is and as whom, once it has opened a virtual host.
    pub opened: OnceLock<(Arc<Vhost>, Arc<User>)>,
    /// What operators see of it.
    pub registry: Registry,
    /// Bytes of publishes that were handed to shards and not processed.
    in_flight: AtomicUsize,
    /// What was processed last went to a queue that has more than its consumers take.
    crowds: AtomicBool,
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

    /// Asks the connection to close.
    pub(crate) fn close(&self, error: AmqpError) {
        self.outbox.push(Event::Close(error));
    }

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

    /// Whether the connection publishes faster than consumers take it.
    pub(crate) fn crowds(&self) -> bool {
        self.crowds.load(Ordering::Relaxed)
    }

    pub(crate) fn processed(&self, bytes: usize, crowds: bool) {
        if bytes == 0 {
            return;
        }
        if self.crowds() != crowds {
            self.crowds.store(crowds, Ordering::Relaxed);
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
    held_back: AtomicBool,
}

#[derive(Debug, Default)]
struct PortTable {
    slots: Slab<(u32, Arc<Port>)>,
    next_generation: u32,
    /// By [`Alarm`].
    alarms: [bool; 2],
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

    pub(crate) fn forget(&self, id: ConnectionId) {
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

    /// Asks the connections to close that are where and act as whom `selects` says.
    pub(crate) fn close(&self, selects: impl Fn(&Vhost, &User) -> bool, error: &AmqpError) {
        let table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (_, port)) in &table.slots {
            if port.opened.get().is_some_and(|(vhost, user)| selects(vhost, user)) {
                port.close(error.clone());
            }
        }
    }

    /// Raises or clears an alarm, and tells every connection if publishers must wait now or may go on. Returns whether
    /// the alarm has changed.
    pub(crate) fn tell_alarm(&self, alarm: Alarm, raised: bool) -> bool {
        let (before, after, was_raised) = {
            let mut table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            let before = table.blocked();
            let was_raised = std::mem::replace(&mut table.alarms[alarm as usize], raised);
            (before, table.blocked(), was_raised)
        };
        if before == after {
            return was_raised != raised;
        }
        match after {
            Some(reason) => {
                tracing::warn!("alarm: publishers are blocked: {reason}");
                self.broadcast(|| Event::Blocked(reason));
            }
            None => {
                tracing::info!("alarm cleared: publishers may go on");
                self.broadcast(|| Event::Unblocked);
            }
        }
        was_raised != raised
    }

    /// Why publishers must wait, if they must: the reason in `connection.blocked`.
    pub(crate) fn blocked(&self) -> Option<&'static str> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).blocked()
    }

    /// Whether the alarms of memory and disk stand.
    pub(crate) fn alarms(&self) -> [bool; 2] {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).alarms
    }

    /// All connections.
    pub(crate) fn all(&self) -> Vec<(ConnectionId, Arc<Port>)> {
        let table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = table.slots.iter();
        ports
            .map(|(slot, (generation, port))| {
                let slot = u32::try_from(slot).expect("there are fewer sockets than that");
                (ConnectionId { slot, generation: *generation }, Arc::clone(port))
            })
            .collect()
    }

    /// Connections that have opened a virtual host.
    pub(crate) fn count_opened(&self) -> usize {
        let table = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        table.slots.iter().filter(|(_, (_, port))| port.opened.get().is_some()).count()
    }

    /// Whether nobody may read, because too much waits for the disk.
    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Acquire)
    }

    /// Lets every connection rest while too much waits for the disk.
    pub(crate) fn hold_back_if_full(self: &Arc<Self>, store: &Arc<Store>) {
        if !store.is_full() || self.held_back.swap(true, Ordering::AcqRel) {
            return;
        }
        let (ports, store) = (Arc::clone(self), Arc::clone(store));
        tokio::spawn(async move {
            while store.is_full() {
                tokio::time::sleep(HOLD_BACK_INTERVAL).await;
            }
            ports.held_back.store(false, Ordering::Release);
            let table = ports.ports.lock().unwrap_or_else(PoisonError::into_inner);
            table.slots.iter().for_each(|(_, (_, port))| port.outbox.nudge());
        });
    }
}

/// How often it is looked whether the disk has caught up.
const HOLD_BACK_INTERVAL: Duration = Duration::from_millis(2);

/// What publishers can be blocked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Alarm {
    Memory,
    Disk,
}

impl PortTable {
    /// The words of `rabbit_reader`.
    fn blocked(&self) -> Option<&'static str> {
        match self.alarms {
            [true, true] => Some("low on memory & disk"),
            [true, false] => Some("low on memory"),
            [false, true] => Some("low on disk"),
            [false, false] => None,
        }
    }
}
