//! A connection's way into the broker.

use std::net::SocketAddr;
use std::sync::Arc;

use warren_queue::{Command, Getter, NewConsumer, Publish};
use warren_store::{Lsn, SharedBody};
use warren_types::session::{
    Announcement, Bind, Consume, DeliveryRange, Event, ExchangeDeclare, LoginRefused, Outcome, Peer,
    QueueDeclare, QueueDeclared, Reply, Route, RouteGeneration, RouteRequest, Session, Settle, TracedPublish,
    Tracking,
};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, Message, QueueRef, ReplyCode, ShortString,
};

use crate::auth::{Access, Permissions, Resource, User};
use crate::broker::Broker;
use crate::connections::Portrait;
use crate::direct_reply::ADDRESS_PREFIX;
use crate::firehose::Seen;
use crate::names;
use crate::place::Place;
use crate::ports::Port;
use crate::queue_arguments;
use crate::routes::RouteCache;
use crate::shard::{Call, ShardCommand};
use crate::system_exchange::system_time_ms;
use crate::topology;

mod telling;

/// The broker as one connection sees it. Commands collect here until [`BrokerSession::flush`].
#[derive(Debug)]
pub struct BrokerSession {
    broker: Arc<Broker>,
    client: SocketAddr,
    server: SocketAddr,
    connection: ConnectionId,
    port: Arc<Port>,
    user: Option<Arc<User>>,
    /// Set once a virtual host is open.
    place: Option<Place>,
    /// Commands for each shard.
    batches: Vec<Batch>,
    /// Consumers whose deliveries wait for the socket, and how many bytes.
    owed: Vec<(QueueRef, ConsumerId, usize)>,
    direct_replies_owed: usize,
    /// Bytes of publishes in `batches`.
    submitted: usize,
    exclusive_queues: Vec<(ShortString, QueueRef)>,
    routes: RouteCache,
    /// A declaration whose counts were asked for, to be repeated should the queue vanish meanwhile.
    declaring: Option<(ChannelId, QueueDeclare)>,
    /// Up to where the journal must be durable before the client is told anything more.
    barrier: Lsn,
    /// Up to where the journal was asked to tell when it is durable.
    awaited: Lsn,
    /// What the virtual host's flag was when it was looked at last: for every route, and for every batch of events.
    traced: bool,
    /// What the client has told of itself.
    portrait: Option<Arc<Portrait>>,
    /// The consumer that a queue was asked to take, to be noted when it has.
    consuming: Option<Box<(ChannelId, QueueRef, Consume)>>,
    closed: bool,
}

/// Commands on their way to a shard.
#[derive(Debug, Default)]
struct Batch {
    commands: Vec<ShardCommand>,
    attached: bool,
}

impl Broker {
    /// A session for a new connection.
    #[must_use]
    pub fn session(self: &Arc<Self>, peer: Peer) -> BrokerSession {
        BrokerSession::new(Arc::clone(self), peer)
    }
}

impl BrokerSession {
    fn new(broker: Arc<Broker>, Peer { client, server }: Peer) -> Self {
        let (connection, port) = broker.ports.open();
        let batches = broker.shards.iter().map(|_| Batch::default()).collect();
        Self {
            broker,
            client,
            server,
            connection,
            port,
            user: None,
            place: None,
            batches,
            owed: Vec::new(),
            direct_replies_owed: 0,
            submitted: 0,
            exclusive_queues: Vec::new(),
            routes: RouteCache::default(),
            declaring: None,
            barrier: Lsn::default(),
            awaited: Lsn::default(),
            traced: false,
            portrait: None,
            consuming: None,
            closed: false,
        }
    }

    /// Hands what was collected to the shards. To be called before anything is written to the socket, so that
    /// what a client was told can be relied upon by others.
    pub fn flush(&mut self) {
        self.await_durable();
        self.port.submitted(std::mem::take(&mut self.submitted));
        for (shard, batch) in self.broker.shards.iter().zip(&mut self.batches) {
            shard.mailbox.append(&mut batch.commands);
        }
    }

    /// Whether too much of what was published is unprocessed: the connection must not read until
    /// [`BrokerSession::wait`] returns.
    #[must_use]
    pub fn must_wait(&self) -> bool {
        self.broker.ports.is_held_back() || self.port.must_wait()
    }

    /// Whether the client publishes faster than consumers take it, so that these should have more of the processor.
    #[must_use]
    pub fn crowds(&self) -> bool {
        self.port.crowds()
    }

    /// Whether the client may be told what it would be told: not while something that it asked for can still be lost.
    /// [`BrokerSession::wait`] returns when that may have changed, if the session was flushed before.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.barrier == Lsn::default() || self.broker.journal.is_durable(self.barrier)
    }

    /// Asks to be woken when the barrier falls: once for all that one read of input has asked for.
    fn await_durable(&mut self) {
        if self.barrier > self.awaited {
            self.awaited = self.barrier;
            let port = Arc::clone(&self.port);
            self.broker.journal.when_durable(self.barrier, Box::new(move || port.outbox.nudge()));
        }
    }

    fn hold_until(&mut self, recorded: Lsn) {
        self.barrier = self.barrier.max(recorded);
    }

    /// Waits until there may be events, room to publish, or leave to write.
    pub async fn wait(&self) {
        self.port.outbox.wait().await;
    }

    /// Takes the events that have come into `events`, which must be empty.
    pub fn take_events(&mut self, events: &mut Vec<Event>) {
        self.port.outbox.take(events);
        self.traced = self.place.as_ref().is_some_and(|place| place.vhost.is_traced());
    }

    /// Looks at an event before the connection machine gets it; some are for the session alone.
    pub fn filter(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Reply(channel, reply) => self.filter_reply(channel, reply),
            Event::DirectReply(channel, message) => {
                self.direct_replies_owed += message.memory();
                Some(Event::DirectReply(channel, message))
            }
            event => Some(event),
        }
    }

    /// A queue that went between its look-up and the count of its messages is declared anew.
    fn filter_reply(&mut self, channel: ChannelId, reply: Result<Reply, AmqpError>) -> Option<Event> {
        if let Some(consuming) = self.consuming.take()
            && matches!(reply, Ok(Reply::Consuming))
            && consuming.0 == channel
        {
            let (_, queue, consume) = *consuming;
            self.port.registry.consumer_added(channel, queue, &consume);
            self.tell_consumer_created(channel, &consume);
        }
        match (&reply, self.declaring.take()) {
            (Err(error), Some((_, declare))) if error.code == ReplyCode::NOT_FOUND && !declare.passive => {
                match self.queue_declare(channel, declare) {
                    Ok(Outcome::Pending) => None,
                    Ok(Outcome::Done(declared)) => {
                        Some(Event::Reply(channel, Ok(Reply::QueueDeclared(declared))))
                    }
                    Err(error) => Some(Event::Reply(channel, Err(error))),
                }
            }
            _ => Some(Event::Reply(channel, reply)),
        }
    }

    /// Notes that the socket took everything that was encoded so far.
    pub fn written(&mut self) {
        self.port.direct_replies_written(std::mem::take(&mut self.direct_replies_owed));
        for (queue, consumer, bytes) in std::mem::take(&mut self.owed) {
            let connection = self.connection;
            self.apply(queue, Command::Credit { connection, consumer, bytes });
        }
    }

    fn log_in(
        &mut self,
        name: &str,
        user: Option<Arc<User>>,
        result: Result<(), String>,
    ) -> Result<(), LoginRefused> {
        self.tell_login(name, result.as_ref().err());
        result.map_err(|cause| {
            tracing::error!(peer = %self.client, "login refused: {cause}");
            LoginRefused::Credentials
        })?;
        self.user = user;
        Ok(())
    }

    fn push(&mut self, shard: u16, command: ShardCommand) {
        let batch = &mut self.batches[usize::from(shard)];
        if !batch.attached {
            batch.attached = true;
            batch.commands.push(ShardCommand::Attach(self.connection, Arc::clone(&self.port)));
        }
        batch.commands.push(command);
    }

    fn apply(&mut self, queue: QueueRef, command: Command) {
        self.push(queue.shard, ShardCommand::Apply(queue, command));
    }

    fn publish(&mut self, channel: ChannelId, queues: &[QueueRef], message: Message, tracking: Tracking) {
        let connection = self.connection;
        let body = is_shared(queues, &message).then(Arc::<SharedBody>::default);
        self.submitted += queues.len() * message.memory();
        let Some((last, others)) = queues.split_last() else { return };
        let mut submit = |queue: QueueRef, message| {
            let publish = Publish { connection, channel, tracking, message };
            match &body {
                None => self.apply(queue, Command::Publish(publish)),
                Some(body) => {
                    let shared = Box::new((publish, Arc::clone(body)));
                    self.push(queue.shard, ShardCommand::Share(queue, shared));
                }
            }
        };
        others.iter().for_each(|queue| submit(*queue, message.clone()));
        submit(*last, message);
    }

    fn call(
        &mut self,
        queue: QueueRef,
        channel: ChannelId,
        name: &[u8],
        command: Command,
    ) -> Result<(), AmqpError> {
        let vhost = Arc::clone(&self.place()?.vhost);
        let (connection, name) = (self.connection, ShortString::truncated(name));
        let call = Call { queue, connection, channel, name, vhost, command };
        self.push(queue.shard, ShardCommand::Call(Box::new(call)));
        Ok(())
    }

    pub(crate) fn place(&self) -> Result<&Place, AmqpError> {
        self.place.as_ref().ok_or_else(|| AmqpError::command_invalid("no virtual host is open"))
    }

    /// The same with the permissions of this moment: for what is about to be checked.
    fn place_now(&mut self) -> Result<&Place, AmqpError> {
        self.refresh_permissions();
        self.place()
    }

    /// Looks the user's permissions up again if they may have changed. RabbitMQ's channels do so too, but for the
    /// dozen that they have asked for last while they were busy (`rabbit_channel:check_resource_access/4`).
    fn refresh_permissions(&mut self) {
        let Some(place) = &mut self.place else { return };
        let version = place.vhost.permissions_version();
        if version == place.permissions_version {
            return;
        }
        let found = self.broker.directory().permissions(&place.user.name, &place.vhost.name).cloned();
        place.permissions = found.unwrap_or_else(|| Arc::new(Permissions::none()));
        place.permissions_version = version;
    }

    fn gone(&mut self, channel: Option<ChannelId>) {
        for shard in 0..self.batches.len() {
            let batch = &mut self.batches[shard];
            if batch.attached {
                batch.commands.push(ShardCommand::Gone(self.connection, channel));
            }
        }
    }

    fn delete_exclusive_queues(&mut self, channel: Option<ChannelId>) -> usize {
        let queues = std::mem::take(&mut self.exclusive_queues);
        let asked_by = channel.map(|channel| (self.connection, channel));
        let mut replies = 0;
        for (name, queue) in queues {
            let close = Command::Close { asked_by };
            if self.call(queue, ChannelId::CONNECTION, name.as_bytes(), close).is_ok() {
                replies += 1;
            }
        }
        replies
    }

    fn remember_exclusive(&mut self, name: &ShortString) {
        let Some(place) = &self.place else { return };
        let owned = place.vhost.read().queues.get(name).map(|entry| (entry.queue, entry.owner));
        if let Some((queue, Some(_))) = owned
            && !self.exclusive_queues.iter().any(|(_, known)| *known == queue)
        {
            self.exclusive_queues.push((name.clone(), queue));
        }
    }
}

impl Session for BrokerSession {
    fn login(&mut self, user: &[u8], password: &[u8]) -> Result<(), LoginRefused> {
        let name = String::from_utf8_lossy(user);
        let found = self.broker.user(&name);
        let result = match &found {
            Some(user) => user
                .check_password(password)
                .and_then(|()| self.broker.loopback_users.check(user, self.client.ip())),
            None => Err(format!("user '{name}' - invalid credentials")),
        };
        self.log_in(&name, found, result)
    }

    fn offers_anonymous(&self) -> bool {
        self.broker.anonymous_user.is_some()
    }

    fn login_anonymous(&mut self) -> Result<(), LoginRefused> {
        let found = self.broker.anonymous_user.as_ref().and_then(|name| self.broker.user(name));
        let result = match &found {
            Some(user) => self.broker.loopback_users.check(user, self.client.ip()),
            None => Err("there is no user for anonymous clients".to_owned()),
        };
        let name = self.broker.anonymous_user.clone().unwrap_or_default();
        self.log_in(&name, found, result)
    }

    fn open(&mut self, vhost: &[u8]) -> Result<(), AmqpError> {
        let name = String::from_utf8_lossy(vhost);
        let user = self.user.clone().ok_or_else(|| AmqpError::command_invalid("not logged in"))?;
        let place = self.broker.enter(&user, &name, (self.connection, &self.port))?;
        if let Some(reason) = self.broker.ports.blocked() {
            self.port.outbox.push(Event::Blocked(reason));
        }
        self.place = Some(place);
        Ok(())
    }

    fn update_secret(&mut self, _secret: &[u8]) -> Result<(), AmqpError> {
        // The internal backend has no secret that could expire (`rabbit_auth_backend_internal` accepts any), but
        // access to the virtual host is checked again.
        let place = self.place()?;
        let (user, vhost) = (&place.user.name, &place.vhost.name);
        if self.broker.directory().permissions(user, vhost).is_none() {
            return Err(AmqpError::not_allowed(format!(
                "access to vhost '{vhost}' refused for user '{user}'"
            )));
        }
        Ok(())
    }

    fn exchange_declare(&mut self, declare: ExchangeDeclare) -> Result<(), AmqpError> {
        self.refresh_permissions();
        let recorded = topology::declare_exchange(self.place()?, &self.broker, declare)?;
        self.hold_until(recorded);
        Ok(())
    }

    fn exchange_delete(&mut self, name: &[u8], if_unused: bool) -> Result<(), AmqpError> {
        let recorded = topology::delete_exchange(self.place_now()?, name, if_unused)?;
        self.hold_until(recorded);
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), AmqpError> {
        self.refresh_permissions();
        let recorded = topology::bind(self.place()?, &self.broker, bind)?;
        self.hold_until(recorded);
        Ok(())
    }

    fn unbind(&mut self, bind: Bind) -> Result<(), AmqpError> {
        let recorded = topology::unbind(self.place_now()?, bind)?;
        self.hold_until(recorded);
        Ok(())
    }

    fn queue_declare(
        &mut self,
        channel: ChannelId,
        declare: QueueDeclare,
    ) -> Result<Outcome<QueueDeclared>, AmqpError> {
        if declare.name.as_bytes().starts_with(ADDRESS_PREFIX) {
            if !self.is_direct_reply_alive(declare.name.as_bytes()) {
                return Err(self.place()?.not_found(Resource::Queue(declare.name.as_bytes())));
            }
            return Ok(Outcome::Done(QueueDeclared { name: declare.name, messages: 0, consumers: 1 }));
        }
        self.refresh_permissions();
        let exclusive = declare.exclusive;
        let declared = topology::declare_queue(self.place()?, &self.broker, &declare)?;
        self.hold_until(declared.recorded);
        if exclusive {
            self.remember_exclusive(&declared.name);
        }
        if declared.is_new {
            return Ok(Outcome::Done(QueueDeclared { name: declared.name, messages: 0, consumers: 0 }));
        }
        let count = Command::Count { connection: self.connection, channel };
        self.call(declared.queue, channel, declared.name.as_bytes(), count)?;
        self.declaring = Some((channel, declare));
        Ok(Outcome::Pending)
    }

    fn queue_delete(
        &mut self,
        channel: ChannelId,
        name: &[u8],
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Outcome<u32>, AmqpError> {
        let place = self.place_now()?;
        place.check(Access::Configure, Resource::Queue(name))?;
        let queue = match place.queue(name) {
            Ok(queue) => queue,
            Err(error) if error.code == ReplyCode::NOT_FOUND => {
                // It may have been deleted just now.
                let recorded = place.vhost.read().recorded_if(true);
                self.hold_until(recorded);
                return Ok(Outcome::Done(0));
            }
            Err(error) => return Err(error),
        };
        let delete = Command::Delete { asked_by: Some((self.connection, channel)), if_unused, if_empty };
        self.call(queue, channel, name, delete)?;
        self.exclusive_queues.retain(|(_, exclusive)| *exclusive != queue);
        Ok(Outcome::Pending)
    }

    fn queue_purge(&mut self, channel: ChannelId, name: &[u8]) -> Result<(), AmqpError> {
        let place = self.place_now()?;
        place.check(Access::Read, Resource::Queue(name))?;
        let queue = place.queue(name)?;
        self.call(queue, channel, name, Command::Purge { connection: self.connection, channel })
    }

    fn get(&mut self, channel: ChannelId, name: &[u8], no_ack: bool) -> Result<(), AmqpError> {
        let place = self.place_now()?;
        place.check(Access::Read, Resource::Queue(name))?;
        let queue = place.queue(name)?;
        let getter = Getter { connection: self.connection, channel, no_ack };
        self.call(queue, channel, name, Command::Get(getter))
    }

    fn consume(&mut self, channel: ChannelId, consume: Consume) -> Result<QueueRef, AmqpError> {
        let place = self.place_now()?;
        let name = consume.queue.as_bytes();
        place.check(Access::Read, Resource::Queue(name))?;
        let queue = place.queue(name)?;
        let label = place.label(Resource::Queue(name));
        let asked = Box::new((channel, queue, consume.clone()));
        let consumer = NewConsumer {
            priority: queue_arguments::consumer_priority(&consume.arguments, &label)?,
            timeout_ms: queue_arguments::consumer_timeout(&consume.arguments, &label)?,
            connection: self.connection,
            channel,
            consumer: consume.consumer,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: consume.prefetch,
            limit: consume.limit,
        };
        self.call(queue, channel, name, Command::Consume(Box::new(consumer)))?;
        self.consuming = Some(asked);
        Ok(queue)
    }

    fn cancel(&mut self, channel: ChannelId, queue: QueueRef, consumer: ConsumerId) {
        let cancel = Command::Cancel { connection: self.connection, channel, consumer };
        // Without a virtual host there are no consumers.
        let _no_place = self.call(queue, channel, b"", cancel);
    }

    fn recheck(&mut self, queue: QueueRef, name: &[u8], consumer: ConsumerId) {
        // Without a virtual host there are no consumers.
        let Ok(place) = self.place_now() else { return };
        let Err(refusal) = place.check(Access::Read, Resource::Queue(name)) else { return };
        tracing::warn!("consumer is cancelled after an update of the secret: {}", refusal.explanation);
        self.apply(queue, Command::Revoke { connection: self.connection, consumer });
    }

    fn limit(&mut self, queue: QueueRef, consumer: ConsumerId, limit: Arc<ChannelLimit>) {
        self.apply(queue, Command::Limit { connection: self.connection, consumer, limit });
    }

    fn resume(&mut self, queue: QueueRef, consumer: ConsumerId) {
        self.apply(queue, Command::Resume { connection: self.connection, consumer });
    }

    fn start_direct_replies(&mut self, channel: ChannelId) -> ShortString {
        self.broker.direct_replies.open(self.connection, channel)
    }

    fn stop_direct_replies(&mut self, address: &[u8]) {
        self.broker.direct_replies.close(address);
    }

    fn is_direct_reply_alive(&self, address: &[u8]) -> bool {
        // The bare prefix names the requester's own channel, which is alive.
        address == ADDRESS_PREFIX || self.broker.direct_replies.find(address).is_some()
    }

    fn route(&mut self, request: &RouteRequest<'_>) -> Result<(Route, Option<RouteGeneration>), AmqpError> {
        // In this order: a route that is found with permissions that change meanwhile is not found again.
        let generation = self.place()?.vhost.generation();
        self.refresh_permissions();
        let place =
            self.place.as_ref().ok_or_else(|| AmqpError::command_invalid("no virtual host is open"))?;
        if request.exchange.is_empty() && request.routing_key.starts_with(ADDRESS_PREFIX) {
            self.traced = place.vhost.is_traced();
            place.check(Access::Write, Resource::Exchange(b""))?;
            let route = match self.broker.direct_replies.find(request.routing_key) {
                Some((connection, channel)) => Route::DirectReply(connection, channel),
                None => Route::Queues(Arc::from([])),
            };
            return Ok((route, None));
        }
        // After the generation: a route that is found untraced while tracing begins is not used again.
        self.traced = place.vhost.is_traced();
        let (route, generation) = self.routes.find(place, generation, request)?;
        Ok((route, generation.filter(|_| !self.traced)))
    }

    fn is_current(&self, generation: RouteGeneration) -> bool {
        self.place.as_ref().is_some_and(|place| place.vhost.generation() == generation.0)
    }

    fn submit(&mut self, channel: ChannelId, route: &Route, message: Message, tracking: Tracking) {
        match route {
            Route::Queues(queues) => self.publish(channel, queues, message, tracking),
            Route::Recorded(recorded) => {
                recorded.histories.iter().for_each(|history| history.record(message.clone()));
                self.publish(channel, &recorded.queues, message, tracking);
            }
            Route::DirectReply(requester, to) => {
                if let Some(port) = self.broker.ports.find(*requester) {
                    port.direct_reply(Event::DirectReply(*to, message.clone()), &message);
                }
            }
        }
    }

    fn settle(&mut self, channel: ChannelId, queue: QueueRef, range: DeliveryRange, settle: Settle) {
        self.apply(queue, Command::Settle { connection: self.connection, channel, range, settle });
    }

    fn generate_name(&mut self, prefix: &str) -> ShortString {
        names::generate(prefix)
    }

    fn delivered(&mut self, _channel: ChannelId, queue: QueueRef, consumer: ConsumerId, bytes: usize) {
        match self.owed.last_mut() {
            Some((_, last, owed)) if *last == consumer => *owed += bytes,
            _ => self.owed.push((queue, consumer, bytes)),
        }
    }

    fn channel_closed(&mut self, channel: ChannelId) {
        self.gone(Some(channel));
    }

    fn close(&mut self) -> usize {
        self.closed = true;
        self.gone(None);
        self.delete_exclusive_queues(Some(ChannelId::CONNECTION))
    }

    fn system_time_ms(&self) -> u64 {
        system_time_ms()
    }

    fn announce(&mut self, news: Announcement<'_>) {
        self.hear(news);
    }

    fn is_traced(&self) -> bool {
        self.traced
    }

    fn trace_publish(&mut self, publish: &TracedPublish<'_>) {
        let queues = self.names_of(publish);
        let seen = Seen::Published { routing_keys: publish.routing_keys, queues: &queues };
        self.trace(publish.channel, &seen, publish.message);
    }

    fn trace_delivery(&mut self, channel: ChannelId, queue: &[u8], redelivered: bool, message: &Message) {
        self.trace(channel, &Seen::Delivered { queue, redelivered }, message);
    }
}

impl Drop for BrokerSession {
    /// Whatever ended the connection, nothing of it stays.
    fn drop(&mut self) {
        if !self.closed {
            self.gone(None);
            self.delete_exclusive_queues(None);
        }
        self.tell_closed();
        for batch in self.batches.iter_mut().filter(|batch| batch.attached) {
            batch.commands.push(ShardCommand::Detach(self.connection));
        }
        self.flush();
        self.broker.ports.forget(self.connection);
    }
}

/// Whether several shards will store the message.
fn is_shared(queues: &[QueueRef], message: &Message) -> bool {
    let [first, rest @ ..] = queues else { return false };
    message.is_persistent() && rest.iter().any(|queue| queue.shard != first.shard)
}

/// The commands are pushed once for each message and queue: they must stay small.
const _: () = assert!(size_of::<ShardCommand>() <= 80);
