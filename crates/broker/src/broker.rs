use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use warren_types::AmqpError;
use warren_types::session::Event;

use crate::alarm::MemoryAlarm;
use crate::auth::{PasswordHash, Permissions, Tag, User};
use crate::clock::Clock;
use crate::direct_reply::DirectReplies;
use crate::ports::Ports;
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
