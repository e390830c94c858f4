use std::collections::VecDeque;
use std::sync::Arc;

use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Effects, Forgotten, Getter, NewConsumer, Overflow, Publish,
    Queue, QueueOptions, Settings,
};
use warren_router::{Binding, DeleteExchangeError, Destination, ExchangeDefinition, ExchangeKind, Router};
use warren_types::session::{
    Bind, BindTarget, Consume, Delivery, DeliveryRange, Event, ExchangeDeclare, LoginRefused, Outcome,
    QueueDeclare, QueueDeclared, Reply, Route, RouteGeneration, RouteRequest, Session, Settle, Tracking,
};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, FieldTable, FieldValue, Message, QueueId,
    QueueRef, ShortString,
};

use crate::memory_store::MemoryStore;

/// The only connection.
const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 1 };

/// The only virtual host.
const VHOST: &str = "/";

/// What addresses of direct reply-to begin with.
const ADDRESS_PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";

/// A broker for a single connection: one virtual host `/`, one user `guest` with password `guest`.
///
/// It does what a dialogue needs and no more: no permissions, no comparison of declarations, and of the
/// arguments of queues only `x-max-length` and `x-overflow`, which make a queue refuse messages. Names are
/// numbered where the broker takes random ones.
#[derive(Debug, Default)]
pub struct FakeSession {
    /// Whether clients may log in without credentials.
    pub anonymous: bool,
    router: Router,
    /// Changes of the router so far.
    generation: u64,
    queues: Vec<Option<Held>>,
    events: VecDeque<Event>,
    /// Deliveries that were encoded and not written yet.
    owed: Vec<(QueueRef, ConsumerId, usize)>,
    reply_addresses: Vec<(ShortString, ChannelId)>,
    names: u32,
    opened: bool,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    queue: Queue,
    store: MemoryStore,
    exclusive: bool,
}

impl FakeSession {
    /// A broker without queues.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event for the connection.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Lets something happen behind everything that has happened so far.
    pub fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Everything that was encoded is written: consumers get their credit back.
    pub fn written(&mut self) {
        for (queue, consumer, bytes) in std::mem::take(&mut self.owed) {
            self.apply(queue, Command::Credit { connection: CONNECTION, consumer, bytes });
        }
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        let queue = self.router.queue(name.as_bytes())?;
        self.queues[queue.slot as usize].as_ref().map(|held| &held.queue)
    }

    /// Whether the connection has ended in an orderly way.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn find(&self, name: &[u8]) -> Result<QueueRef, AmqpError> {
        self.router.queue(name).ok_or_else(|| not_found("queue", name))
    }

    fn apply(&mut self, queue: QueueRef, command: Command) {
        let slot = queue.slot as usize;
        let Some(held) = &mut self.queues[slot] else {
            self.apply_to_none(command);
            return;
        };
        let store = &mut held.store;
        let mut effects = Collected { events: &mut self.events, store, deleted: false };
        held.queue.apply(0, command, &mut effects);
        while !effects.deleted
            && let Some(answer) = effects.store.answer()
        {
            held.queue.apply(0, answer, &mut effects);
        }
        if effects.deleted
            && let Some(held) = self.queues[slot].take()
        {
            self.generation += 1;
            self.router.remove_queue(held.queue.options().name.as_bytes());
        }
    }

    /// What is said to a queue that is gone: what waits for an answer gets one.
    fn apply_to_none(&mut self, command: Command) {
        match command {
            Command::Publish(Publish { channel, tracking: Tracking::Confirm(number), .. }) => {
                self.events.push_back(settled(channel, number, true));
            }
            Command::Publish(Publish { channel, tracking: Tracking::Immediate(number), .. }) => {
                self.events.push_back(Event::Immediate { channel, number, taken: false });
            }
            Command::Cancel { channel, .. } => {
                self.events.push_back(Event::Reply(channel, Ok(Reply::Cancelled)));
            }
            _ => {}
        }
    }

    fn apply_to_all(&mut self, command: impl Fn() -> Command) {
        let queues: Vec<QueueRef> =
            self.queues.iter().flatten().map(|held| held.queue.options().queue).collect();
        for queue in queues {
            self.apply(queue, command());
        }
    }

    fn create(&mut self, name: &ShortString, declare: &QueueDeclare) {
        let slot = u32::try_from(self.queues.len()).expect("tests make few queues");
        let queue = QueueRef { id: QueueId(slot.into()), shard: 0, slot };
        let options = QueueOptions {
            queue,
            name: name.clone(),
            vhost: Arc::from(VHOST),
            durable: declare.durable && !declare.exclusive,
            auto_delete: declare.auto_delete,
            settings: settings(&declare.arguments),
        };
        let (queue_machine, store) = (Queue::new(options, 0), MemoryStore::default());
        self.queues.push(Some(Held { queue: queue_machine, store, exclusive: declare.exclusive }));
        self.generation += 1;
        self.router.add_queue(name, queue);
    }
}

fn settings(arguments: &FieldTable) -> Settings {
    let rejects = arguments.get("x-overflow") == Some(&FieldValue::string("reject-publish"));
    Settings {
        max_length: arguments
            .get("x-max-length")
            .and_then(FieldValue::as_integer)
            .and_then(|length| u64::try_from(length).ok()),
        overflow: if rejects { Overflow::RejectPublish } else { Overflow::DropHead },
        ..Settings::default()
    }
}

fn not_found(what: &str, name: &[u8]) -> AmqpError {
    AmqpError::not_found(format!("no {what} '{}' in vhost '{VHOST}'", String::from_utf8_lossy(name)))
}

fn settled(channel: ChannelId, number: u64, accepted: bool) -> Event {
    Event::Settled { channel, first: number, last: number, accepted }
}

fn binding(bind: Bind) -> Binding {
    let Bind { source, target, destination, routing_key, arguments } = bind;
    let destination = match target {
        BindTarget::Queue => Destination::Queue(destination),
        BindTarget::Exchange => Destination::Exchange(destination),
    };
    Binding { source, destination, routing_key, arguments }
}

impl Session for FakeSession {
    fn login(&mut self, user: &[u8], password: &[u8]) -> Result<(), LoginRefused> {
        if (user, password) == (b"guest", b"guest") { Ok(()) } else { Err(LoginRefused::Credentials) }
    }

    fn offers_anonymous(&self) -> bool {
        self.anonymous
    }

    fn login_anonymous(&mut self) -> Result<(), LoginRefused> {
        if self.anonymous { Ok(()) } else { Err(LoginRefused::Credentials) }
    }

    fn open(&mut self, vhost: &[u8]) -> Result<(), AmqpError> {
        if vhost != VHOST.as_bytes() {
            let name = String::from_utf8_lossy(vhost);
            return Err(AmqpError::not_allowed(format!("vhost {name} not found")));
        }
        assert!(!std::mem::replace(&mut self.opened, true), "a virtual host is opened once");
        Ok(())
    }

    fn update_secret(&mut self, _secret: &[u8]) -> Result<(), AmqpError> {
        Ok(())
    }

    fn exchange_declare(&mut self, declare: ExchangeDeclare) -> Result<(), AmqpError> {
        let ExchangeDeclare { name, kind, passive, durable, auto_delete, internal, arguments } = declare;
        if passive {
            let found = self.router.exchange(name.as_bytes());
            return found.map(|_| ()).ok_or_else(|| not_found("exchange", name.as_bytes()));
        }
        let Some(kind) = ExchangeKind::parse(kind.as_bytes()) else {
            return Err(AmqpError::precondition_failed(format!("unknown exchange type '{kind}'")));
        };
        let definition = ExchangeDefinition { name, kind, durable, auto_delete, internal, arguments };
        let differs = |difference| AmqpError::precondition_failed(format!("{difference:?}"));
        self.generation += 1;
        self.router.declare_exchange(definition).map(drop).map_err(differs)
    }

    fn exchange_delete(&mut self, name: &[u8], if_unused: bool) -> Result<(), AmqpError> {
        self.generation += 1;
        match self.router.delete_exchange(name, if_unused) {
            Ok(_) | Err(DeleteExchangeError::NotFound) => Ok(()),
            Err(error) => Err(AmqpError::precondition_failed(error.to_string())),
        }
    }

    fn bind(&mut self, bind: Bind) -> Result<(), AmqpError> {
        self.generation += 1;
        self.router.bind(binding(bind)).map(drop).map_err(|error| AmqpError::not_found(error.to_string()))
    }

    fn unbind(&mut self, bind: Bind) -> Result<(), AmqpError> {
        let refused = |error: warren_router::UnbindError| AmqpError::access_refused(error.to_string());
        self.generation += 1;
        self.router.unbind(&binding(bind)).map(drop).map_err(refused)
    }

    fn queue_declare(
        &mut self,
        channel: ChannelId,
        declare: QueueDeclare,
    ) -> Result<Outcome<QueueDeclared>, AmqpError> {
        let generated = declare.name.is_empty() && !declare.passive;
        let name = if generated { self.generate_name("amq.gen-") } else { declare.name.clone() };
        match self.find(name.as_bytes()) {
            Ok(queue) => {
                self.apply(queue, Command::Count { connection: CONNECTION, channel });
                Ok(Outcome::Pending)
            }
            Err(error) if declare.passive => Err(error),
            Err(_) => {
                self.create(&name, &declare);
                Ok(Outcome::Done(QueueDeclared { name, messages: 0, consumers: 0 }))
            }
        }
    }

    fn queue_delete(
        &mut self,
        channel: ChannelId,
        name: &[u8],
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Outcome<u32>, AmqpError> {
        let Ok(queue) = self.find(name) else { return Ok(Outcome::Done(0)) };
        self.apply(queue, Command::Delete { asked_by: Some((CONNECTION, channel)), if_unused, if_empty });
        Ok(Outcome::Pending)
    }

    fn queue_purge(&mut self, channel: ChannelId, name: &[u8]) -> Result<(), AmqpError> {
        let queue = self.find(name)?;
        self.apply(queue, Command::Purge { connection: CONNECTION, channel });
        Ok(())
    }

    fn get(&mut self, channel: ChannelId, queue: &[u8], no_ack: bool) -> Result<(), AmqpError> {
        let queue = self.find(queue)?;
        self.apply(queue, Command::Get(Getter { connection: CONNECTION, channel, no_ack }));
        Ok(())
    }

    fn consume(&mut self, channel: ChannelId, consume: Consume) -> Result<QueueRef, AmqpError> {
        let queue = self.find(consume.queue.as_bytes())?;
        let new = NewConsumer {
            connection: CONNECTION,
            channel,
            consumer: consume.consumer,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: consume.prefetch,
            limit: consume.limit,
            priority: 0,
            timeout_ms: None,
        };
        self.apply(queue, Command::Consume(Box::new(new)));
        Ok(queue)
    }

    fn cancel(&mut self, channel: ChannelId, queue: QueueRef, consumer: ConsumerId) {
        self.apply(queue, Command::Cancel { connection: CONNECTION, channel, consumer });
    }

    /// Queues whose names begin with `forbidden` may not be read any more.
    fn recheck(&mut self, queue: QueueRef, name: &[u8], consumer: ConsumerId) {
        if name.starts_with(b"forbidden") {
            self.apply(queue, Command::Revoke { connection: CONNECTION, consumer });
        }
    }

    fn limit(&mut self, queue: QueueRef, consumer: ConsumerId, limit: Arc<ChannelLimit>) {
        self.apply(queue, Command::Limit { connection: CONNECTION, consumer, limit });
    }

    fn resume(&mut self, queue: QueueRef, consumer: ConsumerId) {
        self.apply(queue, Command::Resume { connection: CONNECTION, consumer });
    }

    fn start_direct_replies(&mut self, channel: ChannelId) -> ShortString {
        let address = self.generate_name("amq.rabbitmq.reply-to.");
        self.reply_addresses.push((address.clone(), channel));
        address
    }

    fn stop_direct_replies(&mut self, address: &[u8]) {
        self.reply_addresses.retain(|(known, _)| known != address);
    }

    fn is_direct_reply_alive(&self, address: &[u8]) -> bool {
        self.reply_addresses.iter().any(|(known, _)| known == address)
    }

    fn route(&mut self, request: &RouteRequest<'_>) -> Result<(Route, Option<RouteGeneration>), AmqpError> {
        if request.exchange.is_empty() && request.routing_key.starts_with(ADDRESS_PREFIX) {
            let found = self.reply_addresses.iter().find(|(address, _)| address == request.routing_key);
            let route = match found {
                Some((_, channel)) => Route::DirectReply(CONNECTION, *channel),
                None => Route::Queues(Arc::from([])),
            };
            return Ok((route, None));
        }
        let mut keys = vec![request.routing_key];
        keys.extend_from_slice(request.extra_keys);
        let mut found = Vec::new();
        let routed = self
            .router
            .route(request.exchange, &keys, request.content, &mut found)
            .ok_or_else(|| not_found("exchange", request.exchange))?;
        // The router promises no order.
        found.sort_unstable();
        let generation = routed.cacheable.then_some(RouteGeneration(self.generation));
        Ok((Route::Queues(Arc::from(found)), generation.filter(|_| request.extra_keys.is_empty())))
    }

    fn is_current(&self, generation: RouteGeneration) -> bool {
        generation.0 == self.generation
    }

    fn submit(&mut self, channel: ChannelId, route: &Route, message: Message, tracking: Tracking) {
        match route {
            Route::Queues(queues) => {
                for queue in queues.iter() {
                    let publish =
                        Publish { connection: CONNECTION, channel, tracking, message: message.clone() };
                    self.apply(*queue, Command::Publish(publish));
                }
            }
            Route::Recorded(_) => unreachable!("this session records nothing"),
            Route::DirectReply(_, to) => self.events.push_back(Event::DirectReply(*to, message)),
        }
    }

    fn settle(&mut self, channel: ChannelId, queue: QueueRef, range: DeliveryRange, settle: Settle) {
        self.apply(queue, Command::Settle { connection: CONNECTION, channel, range, settle });
    }

    fn system_time_ms(&self) -> u64 {
        1_700_000_000_123
    }

    fn generate_name(&mut self, prefix: &str) -> ShortString {
        self.names += 1;
        ShortString::truncated(format!("{prefix}{:022}", self.names).as_bytes())
    }

    fn delivered(&mut self, _channel: ChannelId, queue: QueueRef, consumer: ConsumerId, bytes: usize) {
        self.owed.push((queue, consumer, bytes));
    }

    fn channel_closed(&mut self, channel: ChannelId) {
        self.apply_to_all(|| Command::Gone { connection: CONNECTION, channel: Some(channel) });
    }

    fn close(&mut self) -> usize {
        assert!(!std::mem::replace(&mut self.closed, true), "a connection ends once");
        self.apply_to_all(|| Command::Gone { connection: CONNECTION, channel: None });
        let exclusive: Vec<QueueRef> = (self.queues.iter().flatten())
            .filter(|held| held.exclusive)
            .map(|held| held.queue.options().queue)
            .collect();
        for queue in &exclusive {
            let asked_by = Some((CONNECTION, ChannelId::CONNECTION));
            self.apply(*queue, Command::Close { asked_by });
        }
        exclusive.len()
    }
}

/// Turns effects of queues into events.
struct Collected<'a> {
    events: &'a mut VecDeque<Event>,
    store: &'a mut MemoryStore,
    deleted: bool,
}

impl Effects for Collected<'_> {
    fn deliver(&mut self, _: ConnectionId, delivery: Delivery) {
        self.events.push_back(Event::Deliver(delivery));
    }

    fn reply(&mut self, _: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>) {
        self.events.push_back(Event::Reply(channel, reply));
    }

    fn accepted(&mut self, _: ConnectionId, channel: ChannelId, number: u64, _durable: bool) {
        self.events.push_back(settled(channel, number, true));
    }

    fn refused(&mut self, _: ConnectionId, channel: ChannelId, number: u64) {
        self.events.push_back(settled(channel, number, false));
    }

    fn dead_letter(&mut self, _: Message, _: DeathReason, _: &DeadLetterTarget, stored: Option<Forgotten>) {
        stored.into_iter().for_each(|gone| self.store.forget(gone));
    }

    fn immediate(&mut self, _: ConnectionId, channel: ChannelId, number: u64, taken: bool) {
        self.events.push_back(Event::Immediate { channel, number, taken });
    }

    fn consumer_cancelled(&mut self, _: ConnectionId, channel: ChannelId, consumer: ConsumerId) {
        self.events.push_back(Event::ConsumerCancelled(channel, consumer));
    }

    fn consumer_timed_out(
        &mut self,
        _: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
        timeout_ms: u64,
    ) {
        self.events.push_back(Event::ConsumerTimedOut(channel, consumer, timeout_ms));
    }

    fn deleted(&mut self) {
        self.deleted = true;
    }

    crate::store_effects!();
}
