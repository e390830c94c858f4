use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use slab::Slab;
use warren_types::session::Event;
use warren_types::{AmqpError, ConnectionId, Message};

use crate::alarm::MemoryAlarm;
use crate::auth::{PasswordHash, Permissions, Tag, User};
use crate::clock::Clock;
use crate::direct_reply::DirectReplies;
use crate::mailbox::Mailbox;
use crate::session::BrokerSession;
use crate::shard::{QueueIds, Shard, ShardHandle};
use crate::vhost::Vhost;

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of shards; as many as worker threads is a good choice.
    pub shards: u16,
    /// Memory that messages may take before publishers must wait, in bytes.
    pub memory_limit: u64,
    /// The virtual host that exists from the start.
    pub default_vhost: String,
    /// The user that exists from the start.
    pub default_user: String,
    /// Its password.
    pub default_password: String,
    /// Its permissions in the default virtual host.
    pub default_permissions: Permissions,
    /// Users that may connect from this machine only.
    pub loopback_users: Vec<String>,
    /// The user that clients without credentials act as; none refuses them.
    pub anonymous_user: Option<String>,
}

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

    fn broadcast(&self, event: impl Fn() -> Event) {
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

/// The broker of one node.
#[derive(Debug)]
pub struct Broker {
    pub(crate) shards: Vec<Arc<ShardHandle>>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) direct_replies: DirectReplies,
    pub(crate) alarm: Arc<MemoryAlarm>,
    pub(crate) queue_ids: QueueIds,
    pub(crate) anonymous_user: Option<String>,
    vhosts: RwLock<BTreeMap<String, Arc<Vhost>>>,
    users: RwLock<BTreeMap<String, Arc<User>>>,
    permissions: RwLock<BTreeMap<(String, String), Arc<Permissions>>>,
}

impl Broker {
    /// Starts the shards, on the runtime that this is called on.
    #[must_use]
    pub fn start(settings: Settings) -> Arc<Self> {
        let alarm = Arc::new(MemoryAlarm::new(settings.memory_limit));
        let ports = Arc::new(Ports::default());
        let shards: Vec<_> = (0..settings.shards.max(1)).map(|_| Arc::new(ShardHandle::new())).collect();
        let clock = Clock::start();
        for index in 0..shards.len() {
            let shard = Shard::new(index, shards.clone(), Arc::clone(&alarm), Arc::clone(&ports), clock);
            // A shard whose state may be half changed must not go on, and neither can the queues without it.
            tokio::spawn(abort_on_panic(shard.run()));
        }
        let user = User {
            password: PasswordHash::new(settings.default_password.as_bytes()),
            tags: vec![Tag::Administrator],
            loopback_only: settings.loopback_users.contains(&settings.default_user),
            name: settings.default_user.clone(),
        };
        let vhost = Arc::new(Vhost::new(&settings.default_vhost));
        let grant = (settings.default_user.clone(), settings.default_vhost.clone());
        Arc::new(Self {
            shards,
            ports,
            direct_replies: DirectReplies::default(),
            alarm,
            queue_ids: QueueIds::default(),
            anonymous_user: settings.anonymous_user,
            vhosts: RwLock::new(BTreeMap::from([(settings.default_vhost, vhost)])),
            users: RwLock::new(BTreeMap::from([(settings.default_user, Arc::new(user))])),
            permissions: RwLock::new(BTreeMap::from([(grant, Arc::new(settings.default_permissions))])),
        })
    }

    /// A session for a new connection from `client`.
    #[must_use]
    pub fn session(self: &Arc<Self>, client: SocketAddr) -> BrokerSession {
        BrokerSession::new(Arc::clone(self), client)
    }

    /// Asks every connection to close with 320, as at shutdown.
    pub fn close_connections(&self, reason: &str) {
        let error =
            AmqpError::connection_forced(format!("broker forced connection closure with reason '{reason}'"));
        self.ports.broadcast(|| Event::Close(error.clone()));
    }

    pub(crate) fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn permissions(&self, user: &str, vhost: &str) -> Option<Arc<Permissions>> {
        let key = (user.to_owned(), vhost.to_owned());
        self.permissions.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

async fn abort_on_panic(task: impl Future<Output = ()>) {
    struct AbortOnDrop;
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            if std::thread::panicking() {
                tracing::error!("a shard panicked; the node stops, since its queues may be half changed");
                std::process::abort();
            }
        }
    }
    let _guard = AbortOnDrop;
    task.await;
}
