use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use warren_store::{Gone, Install, Journal, Lsn, Recovered, RecoveredQueue, Shards, Snapshot, Store, Turn};
use warren_types::session::Event;
use warren_types::{AmqpError, ConnectionId, QueueId};

use crate::admin::check_names;
use crate::alarm::MemoryAlarm;
use crate::auth::{LoopbackUsers, PasswordHash, Permissions, Tag, User};
use crate::changes::Changes;
use crate::clock::{Clock, Reading};
use crate::direct_reply::DirectReplies;
use crate::directory::Directory;
use crate::events::{EVENT_EXCHANGE, Events};
use crate::log_exchange::{LOG_EXCHANGE, LogExchange};
use crate::metadata::{RestoreError, Row};
use crate::place::Place;
use crate::ports::{Alarm, Port, Ports};
use crate::queue_type::QueueType;
use crate::restore;
use crate::shard::{Parts, QueueIds, Shard, ShardCommand, ShardHandle, StoreCommand};
use crate::system_exchange::SystemExchange;

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of shards; as many as worker threads is a good choice.
    pub shards: u16,
    /// Memory that messages may take before publishers must wait, in bytes.
    pub memory_limit: u64,
    /// Free disk space, in bytes, below which publishers must wait.
    pub disk_free_limit: u64,
    /// The virtual host that is created at the first start.
    pub default_vhost: String,
    /// The user that is created at the first start.
    pub default_user: String,
    /// Its password.
    pub default_password: String,
    /// Its permissions in the default virtual host.
    pub default_permissions: Permissions,
    /// Users that may connect from this machine only.
    pub loopback_users: Vec<String>,
    /// The user that clients without credentials act as; none refuses them.
    pub anonymous_user: Option<String>,
    /// The type of queues that are declared without one, and can be of it.
    pub default_queue_type: Option<QueueType>,
    /// How long a consumer may take to acknowledge a message, where neither it nor its queue says.
    pub consumer_timeout: Option<Duration>,
    /// The node's name, as events and traces tell it.
    pub node: String,
    /// The virtual host that has the event exchange, created if it is missing; none for no events.
    pub event_exchange: Option<String>,
    /// Whether the default virtual host has the log exchange.
    pub log_exchange: bool,
}

/// The broker of one node.
#[derive(Debug)]
pub struct Broker {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<Store>,
    pub(crate) alarm: Arc<MemoryAlarm>,
    pub(crate) disk_limit: Arc<DiskLimit>,
    pub(crate) shards: Vec<Arc<ShardHandle>>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) direct_replies: DirectReplies,
    pub(crate) queue_ids: QueueIds,
    pub(crate) default_queue_type: Option<QueueType>,
    pub(crate) anonymous_user: Option<String>,
    pub(crate) loopback_users: LoopbackUsers,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) events: Arc<Events>,
    /// Where tasks run that calls from anywhere leave behind.
    pub(crate) runtime: Handle,
    log_exchange: Option<LogExchange>,
    directory: RwLock<Directory>,
}

impl Broker {
    /// Rebuilds what was found in the store and starts the shards on the runtime that this is called on. If nothing was
    /// found, this is the first start: the default virtual host and user are created.
    ///
    /// # Errors
    /// If what was stored makes no sense, or if the defaults cannot be stored.
    pub fn start(
        settings: Settings,
        store: Arc<Store>,
        recovered: Recovered,
    ) -> Result<Arc<Self>, RestoreError> {
        Self::start_with_journal(settings, store.journal(), store, recovered)
    }

    /// The same with definitions in another place than the store's own journal.
    pub(crate) fn start_with_journal(
        settings: Settings,
        journal: Arc<dyn Journal>,
        store: Arc<Store>,
        mut recovered: Recovered,
    ) -> Result<Arc<Self>, RestoreError> {
        let stored: Vec<_> = std::mem::take(&mut recovered.metadata).into_iter().collect();
        let is_first_start = stored.is_empty();
        let shards: Vec<_> = (0..settings.shards.max(1)).map(|_| Arc::new(ShardHandle::new())).collect();
        let event_exchange =
            settings.event_exchange.as_ref().map(|vhost| SystemExchange::new(vhost, EVENT_EXCHANGE));
        let log_exchange =
            settings.log_exchange.then(|| SystemExchange::new(&settings.default_vhost, LOG_EXCHANGE));
        let system_exchanges: Vec<_> =
            [&event_exchange, &log_exchange].into_iter().flatten().cloned().collect();
        let (mut restored, mut changes) =
            restore::restore(stored, &journal, &shards, system_exchanges.clone())?;
        if is_first_start {
            add_defaults(&mut restored.directory, &settings, &journal, &mut changes)?;
        }
        add_event_vhost(&mut restored.directory, &settings, &journal, &mut changes)?;
        let (queue_ids, clock) = restored.begin(&mut changes);
        let mut directory = restored.directory;
        changes.record(&*journal, &mut directory.recorded);
        drop_orphans(&mut recovered.queues, &directory, &shards);
        let ports = Arc::new(Ports::default());
        let node: Arc<str> = Arc::from(settings.node);
        let events = Arc::new(Events::new(event_exchange, Arc::clone(&node)));
        let alarm = Arc::new(MemoryAlarm::new(settings.memory_limit));
        let disk_limit = Arc::new(DiskLimit::new(settings.disk_free_limit));
        let parts = Parts {
            shards: shards.clone(),
            alarm: Arc::clone(&alarm),
            ports: Arc::clone(&ports),
            store: Arc::clone(&store),
            recovered: Arc::new(Mutex::new(recovered.queues)),
            recovered_keys: Arc::new(Mutex::new(restored.keys)),
            journal: Arc::clone(&journal),
            events: Arc::clone(&events),
            consumer_timeout: settings.consumer_timeout,
        };
        for index in 0..shards.len() {
            let shard = Shard::new(index, parts.clone(), clock.clone());
            // A shard whose state may be half changed must not go on, and neither can the queues without it.
            tokio::spawn(abort_on_panic(shard.run()));
        }
        store
            .start_checkpoints(StoredQueues(shards.clone()))
            .map_err(|error| RestoreError::new("store", format!("there can be no more threads: {error}")))?;
        let watched = (Arc::clone(&store), Arc::clone(&ports), Arc::clone(&events));
        tokio::spawn(watch_disk(watched, Arc::clone(&disk_limit)));
        let kept = Arc::clone(&journal);
        tokio::spawn(clock.clone().watch(move |reading| keep_reading(&*kept, reading)));
        let broker = Arc::new(Self {
            clock,
            store,
            alarm,
            disk_limit,
            shards,
            ports,
            direct_replies: DirectReplies::default(),
            queue_ids,
            default_queue_type: settings.default_queue_type,
            anonymous_user: settings.anonymous_user,
            loopback_users: LoopbackUsers(settings.loopback_users),
            journal,
            events,
            runtime: Handle::current(),
            log_exchange: log_exchange.map(|exchange| LogExchange::new(exchange, node)),
            directory: RwLock::new(directory),
        });
        for exchange in system_exchanges {
            tokio::spawn(exchange.run(Arc::downgrade(&broker)));
        }
        Ok(broker)
    }

    /// The log exchange, if the broker was started with one.
    #[must_use]
    pub fn log_exchange(&self) -> Option<&LogExchange> {
        self.log_exchange.as_ref()
    }

    /// Makes everything durable, and notes what was never delivered. The connections must be gone, and the broker must
    /// not be used any more.
    ///
    /// # Errors
    /// If the disk fails: what was confirmed is safe all the same.
    pub fn stop(&self) -> std::io::Result<()> {
        let undelivered = self.shards.iter().map(|shard| {
            let (answer, answers) = mpsc::channel();
            shard.mailbox.push(ShardCommand::Store(StoreCommand::Stop(answer)));
            answers
        });
        let undelivered: Vec<_> = undelivered.collect();
        let undelivered: Vec<_> =
            undelivered.into_iter().filter_map(|answers| answers.recv().ok()).flatten().collect();
        keep_reading(&*self.journal, self.clock.read());
        let mut turn = Turn::default();
        turn.stop(&undelivered);
        self.store.stop(&mut turn)
    }

    /// Asks every connection to close with 320, as at shutdown.
    pub fn close_connections(&self, reason: &str) {
        let error =
            AmqpError::connection_forced(format!("broker forced connection closure with reason '{reason}'"));
        self.ports.broadcast(|| Event::Close(error.clone()));
    }

    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn user(&self, name: &str) -> Option<Arc<User>> {
        self.directory().users.get(name).cloned()
    }

    /// Lets a connection, whose port is given, into a virtual host.
    ///
    /// # Errors
    /// 530 if it does not exist or the user has no access.
    pub(crate) fn enter(
        &self,
        user: &Arc<User>,
        vhost: &str,
        (connection, port): (ConnectionId, &Port),
    ) -> Result<Place, AmqpError> {
        let directory = self.directory();
        let found = (directory.vhosts.get(vhost))
            .ok_or_else(|| AmqpError::not_allowed(format!("vhost {vhost} not found")))?;
        let permissions = directory.permissions(&user.name, vhost).ok_or_else(|| {
            let user = &user.name;
            AmqpError::not_allowed(format!("access to vhost '{vhost}' refused for user '{user}'"))
        })?;
        // Under the same lock, so that whoever deletes either of them finds the connection. It opens only once.
        port.opened.get_or_init(|| (Arc::clone(found), Arc::clone(user)));
        Ok(Place {
            vhost: Arc::clone(found),
            permissions: Arc::clone(permissions),
            permissions_version: found.permissions_version(),
            user: Arc::clone(user),
            connection,
            events: Arc::clone(&self.events),
        })
    }
}

/// Has the next start go on from there.
fn keep_reading(journal: &dyn Journal, reading: Reading) {
    // Nobody waits for it: without it, the one before counts.
    let _at = journal.change(vec![Row::Clocks(reading).put()]);
}

/// What RabbitMQ has in an empty database.
fn add_defaults(
    directory: &mut Directory,
    settings: &Settings,
    journal: &Arc<dyn Journal>,
    changes: &mut Changes,
) -> Result<(), RestoreError> {
    let Settings { default_vhost: vhost, default_user: user, default_password: password, .. } = settings;
    check_names(&[vhost, user])
        .map_err(|error| RestoreError::new("default virtual host and user", error.to_string()))?;
    directory.add_vhost(vhost, journal, changes);
    let password = Some(PasswordHash::new(password.as_bytes()));
    let administrator = User { name: user.clone(), password, tags: vec![Tag::Administrator] };
    directory.put_user(administrator, changes);
    directory.grant(user, vhost, settings.default_permissions.clone(), changes);
    Ok(())
}

/// The virtual host of the event exchange need not be the default one (`rabbit_exchange_type_event:ensure_vhost_exists/1`).
fn add_event_vhost(
    directory: &mut Directory,
    settings: &Settings,
    journal: &Arc<dyn Journal>,
    changes: &mut Changes,
) -> Result<(), RestoreError> {
    let Some(vhost) = &settings.event_exchange else { return Ok(()) };
    if directory.vhosts.contains_key(vhost) {
        return Ok(());
    }
    check_names(&[vhost])
        .map_err(|error| RestoreError::new("virtual host of the event exchange", error.to_string()))?;
    directory.add_vhost(vhost, journal, changes);
    Ok(())
}

/// Forgets what is stored of queues that are not defined any more.
fn drop_orphans(
    queues: &mut HashMap<QueueId, RecoveredQueue>,
    directory: &Directory,
    shards: &[Arc<ShardHandle>],
) {
    let known = directory.queue_ids();
    let orphans: Vec<QueueId> = queues.keys().copied().filter(|id| !known.contains(id)).collect();
    let mut gone = Gone::default();
    for orphan in orphans.iter().filter_map(|id| queues.remove(id)) {
        gone.damaged.extend(orphan.damage.is_some().then(|| orphan.index.queue()));
        gone.extents.extend(orphan.index.into_removed());
    }
    shards[0].mailbox.push(ShardCommand::Store(StoreCommand::Gone(gone)));
}

/// All queues, as checkpoints reach them.
struct StoredQueues(Vec<Arc<ShardHandle>>);

impl Shards for StoredQueues {
    fn snapshot(&self, up_to: Lsn, relocate: Option<u32>) -> Option<Vec<Snapshot>> {
        let answers: Vec<_> = (self.0.iter())
            .map(|shard| {
                let (answer, answers) = mpsc::channel();
                let snapshot = StoreCommand::Snapshot { up_to, relocate, answer };
                shard.mailbox.push(ShardCommand::Store(snapshot));
                answers
            })
            .collect();
        answers.into_iter().map(|answers| answers.recv().ok()).collect()
    }

    fn install(&self, install: Arc<Install>) {
        let answers = self.0.iter().map(|shard| {
            let (answer, answers) = mpsc::channel();
            shard.mailbox.push(ShardCommand::Store(StoreCommand::Install(Arc::clone(&install), answer)));
            answers
        });
        let answers: Vec<_> = answers.collect();
        // A shard that is gone has nothing to learn.
        for answers in answers {
            let _done = answers.recv();
        }
    }
}

/// Free disk space below which publishers wait.
#[derive(Debug)]
pub(crate) struct DiskLimit {
    bytes: AtomicU64,
    changed: Notify,
}

impl DiskLimit {
    fn new(bytes: u64) -> Self {
        Self { bytes: AtomicU64::new(bytes), changed: Notify::new() }
    }

    /// In bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets the limit, and has the disk looked at.
    pub(crate) fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// How often the free space is looked at, as RabbitMQ does at most.
const DISK_INTERVAL: Duration = Duration::from_secs(10);

/// The same while there is little of it.
const DISK_INTERVAL_LOW: Duration = Duration::from_millis(200);

/// Raises and clears the disk alarm (features.md B2).
async fn watch_disk((store, ports, events): (Arc<Store>, Arc<Ports>, Arc<Events>), limit: Arc<DiskLimit>) {
    loop {
        let changed = limit.changed.notified();
        let limit = limit.bytes.load(Ordering::Relaxed);
        let free = store.free_bytes();
        if let Err(error) = &free {
            tracing::warn!("cannot tell the free disk space: {error}");
        }
        let free = free.unwrap_or(u64::MAX);
        if ports.tell_alarm(Alarm::Disk, free < limit) {
            events.alarm(Alarm::Disk, free < limit);
        }
        let is_low = free / 4 < limit;
        let interval = if is_low { DISK_INTERVAL_LOW } else { DISK_INTERVAL };
        // Either way it is looked again.
        let _changed = tokio::time::timeout(interval, changed).await;
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
