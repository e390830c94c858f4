//! The queue machine against a model: a list of messages, each in exactly one state, in the order of publishing.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use warren_queue::{
    CONSUMER_WINDOW, Command, DeadLetterTarget, DeathReason, Effects, Forgotten, Getter, NewConsumer,
    Publish, Queue, QueueOptions, RESIDENT_MAX, Settings,
};
use warren_testkit::MemoryStore;
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, DeliveryId, Message, MessageParts, QueueId,
    QueueRef,
};

const CONNECTIONS: u32 = 2;
const CHANNELS: u16 = 2;

/// The limit over all consumers of every last channel.
const CHANNEL_LIMIT: u32 = 3;

/// What a queue may keep resident: ready and unacked messages up to a limit each, one message beyond it, and what a read
/// brings.
const MEMORY_MAX: usize = 2 * RESIDENT_MAX + 3 * CONSUMER_WINDOW;

#[derive(Debug, Clone)]
enum Step {
    Publish {
        large: bool,
        tracking: bool,
        immediate: bool,
    },
    Get {
        at: Place,
        no_ack: bool,
    },
    Consume {
        at: Place,
        no_ack: bool,
        prefetch: u32,
    },
    Cancel {
        pick: usize,
    },
    /// Settles a range of deliveries to a channel, whether they are its own or not.
    Settle {
        at: Place,
        pick: usize,
        len: u64,
        settle: Settle,
    },
    Credit {
        pick: usize,
    },
    Purge,
    ChannelGone {
        at: Place,
    },
    ConnectionGone {
        connection: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    connection: u32,
    channel: u16,
}

impl Place {
    /// Whether the channel has a limit over all its consumers.
    fn is_limited(self) -> bool {
        self.channel == CHANNELS
    }

    fn connection(self) -> ConnectionId {
        ConnectionId { slot: self.connection, generation: 0 }
    }

    fn channel(self) -> ChannelId {
        ChannelId { number: self.channel, incarnation: 1 }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Ready,
    Unacked { delivery: u64, at: Place, consumer: Option<u32> },
    Gone,
}

#[derive(Debug)]
struct ModelMessage {
    state: State,
    redelivered: bool,
    memory: usize,
}

#[derive(Debug)]
struct ModelConsumer {
    at: Place,
    no_ack: bool,
    prefetch: u32,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<ModelMessage>,
    consumers: BTreeMap<u32, ModelConsumer>,
}

/// What the machine did, checked against the model as it happens.
struct Checker<'a> {
    model: &'a mut Model,
    store: &'a mut MemoryStore,
    replies: Vec<Result<Reply, AmqpError>>,
    accepted: Vec<u64>,
    immediate: Vec<bool>,
    deleted: bool,
}

fn number_of(message: &Message) -> usize {
    let bytes = message.body()[..8].try_into().expect("every test message begins with its number");
    u64::from_le_bytes(bytes) as usize
}

impl Model {
    fn first_ready(&self) -> Option<usize> {
        self.messages.iter().position(|message| message.state == State::Ready)
    }

    fn count(&self, wanted: impl Fn(&State) -> bool) -> usize {
        self.messages.iter().filter(|message| wanted(&message.state)).count()
    }

    fn unacked_of(&self, id: u32) -> usize {
        self.count(|state| matches!(state, State::Unacked { consumer, .. } if *consumer == Some(id)))
    }

    fn can_take(&self, id: u32) -> bool {
        let consumer = &self.consumers[&id];
        let of_channel = |state: &State| matches!(state, State::Unacked { at, consumer: Some(_), .. } if *at == consumer.at);
        let has_place = !consumer.at.is_limited() || self.count(of_channel) < CHANNEL_LIMIT as usize;
        has_place
            && consumer.in_flight < CONSUMER_WINDOW
            && (consumer.no_ack || consumer.prefetch == 0 || self.unacked_of(id) < consumer.prefetch as usize)
    }

    fn take(
        &mut self,
        number: usize,
        redelivered: bool,
        delivery: u64,
        at: Place,
        consumer: Option<u32>,
        no_ack: bool,
    ) {
        assert_eq!(self.first_ready(), Some(number), "out of order");
        let message = &mut self.messages[number];
        assert_eq!(message.redelivered, redelivered);
        message.state = if no_ack { State::Gone } else { State::Unacked { delivery, at, consumer } };
    }

    /// Returns how many deliveries to consumers there were.
    fn settle(&mut self, at: Place, first: u64, last: u64, settle: Settle) -> u32 {
        let mut settled = 0;
        for number in 0..self.messages.len() {
            let State::Unacked { delivery, at: owner, consumer } = self.messages[number].state.clone() else {
                continue;
            };
            if owner != at || delivery < first || delivery > last {
                continue;
            }
            settled += u32::from(consumer.is_some());
            let message = &mut self.messages[number];
            match settle {
                Settle::Ack | Settle::Reject => message.state = State::Gone,
                Settle::Requeue { .. } => {
                    message.state = State::Ready;
                    message.redelivered = true;
                }
            }
        }
        settled
    }

    fn gone(&mut self, is_gone: impl Fn(Place) -> bool) {
        for message in &mut self.messages {
            if let State::Unacked { at, .. } = message.state
                && is_gone(at)
            {
                message.state = State::Ready;
                message.redelivered = true;
            }
        }
        self.consumers.retain(|_, consumer| !is_gone(consumer.at));
    }
}

impl Effects for Checker<'_> {
    fn deliver(&mut self, connection: ConnectionId, delivery: Delivery) {
        let id = delivery.consumer.0;
        assert!(self.model.can_take(id), "consumer {id} has no room");
        let consumer = self.model.consumers.get_mut(&id).expect("a consumer that exists");
        assert_eq!((connection, delivery.channel), (consumer.at.connection(), consumer.at.channel()));
        consumer.in_flight += delivery.message.memory();
        let (at, no_ack) = (consumer.at, consumer.no_ack);
        self.model.take(
            number_of(&delivery.message),
            delivery.redelivered,
            delivery.id.0,
            at,
            Some(id),
            no_ack,
        );
    }

    fn reply(&mut self, _: ConnectionId, _: ChannelId, reply: Result<Reply, AmqpError>) {
        self.replies.push(reply);
    }

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, number: u64, _: bool) {
        self.accepted.push(number);
    }

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {
        panic!("a queue without limits refused a message");
    }

    fn dead_letter(&mut self, _: Message, _: DeathReason, _: &DeadLetterTarget, _: Option<Forgotten>) {
        panic!("a queue without a place for dead letters buried a message");
    }

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, taken: bool) {
        self.immediate.push(taken);
    }

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId, _: u64) {
        panic!("no consumer has a time limit");
    }

    fn deleted(&mut self) {
        self.deleted = true;
    }

    warren_testkit::store_effects!();
}

fn is_persistent(number: usize) -> bool {
    number.is_multiple_of(2)
}

fn message(number: usize, large: bool) -> Message {
    let mut body = (number as u64).to_le_bytes().to_vec();
    if large {
        body.resize(CONSUMER_WINDOW / 2, 0);
    }
    let persistent = is_persistent(number);
    let parts =
        MessageParts { routing_key: b"q", properties: &[0, 0], persistent, ..MessageParts::default() };
    Message::new(&parts, &body)
}

struct Run {
    queue: Queue,
    store: MemoryStore,
    model: Model,
    next_consumer: u32,
    deliveries: u64,
    limits: BTreeMap<Place, Arc<ChannelLimit>>,
}

impl Run {
    fn new() -> Self {
        let queue = QueueRef { id: QueueId(1), shard: 0, slot: 0 };
        let options = QueueOptions {
            queue,
            name: "q".into(),
            vhost: "/".into(),
            durable: true,
            auto_delete: false,
            settings: Settings::default(),
        };
        let (queue, store) = (Queue::new(options, 0), MemoryStore::default());
        Self {
            queue,
            store,
            model: Model::default(),
            next_consumer: 0,
            deliveries: 0,
            limits: BTreeMap::new(),
        }
    }

    fn apply(&mut self, command: Command) -> (Vec<Result<Reply, AmqpError>>, Vec<u64>, Vec<bool>) {
        let mut checker = Checker {
            model: &mut self.model,
            store: &mut self.store,
            replies: Vec::new(),
            accepted: Vec::new(),
            immediate: Vec::new(),
            deleted: false,
        };
        self.queue.apply(0, command, &mut checker);
        while let Some(answer) = checker.store.answer() {
            self.queue.apply(0, answer, &mut checker);
        }
        assert!(!checker.deleted);
        (checker.replies, checker.accepted, checker.immediate)
    }

    fn pick(&self, pick: usize) -> Option<u32> {
        let ids: Vec<u32> = self.model.consumers.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { large, tracking, immediate } => self.publish(large, tracking, immediate),
            Step::Get { at, no_ack } => self.get(at, no_ack),
            Step::Consume { at, no_ack, prefetch } => self.consume(at, no_ack, prefetch),
            Step::Cancel { pick } => {
                let Some(id) = self.pick(pick) else { return };
                let at = self.model.consumers.remove(&id).expect("it was picked").at;
                let (connection, channel) = (at.connection(), at.channel());
                let command = Command::Cancel { connection, channel, consumer: ConsumerId(id) };
                let (replies, ..) = self.apply(command);
                assert!(matches!(replies[..], [Ok(Reply::Cancelled)]));
            }
            Step::Settle { at, pick, len, settle } => {
                let first = pick as u64 % (self.deliveries + 1);
                let settled = self.model.settle(at, first, first + len, settle);
                let range = DeliveryRange { first: DeliveryId(first), last: DeliveryId(first + len) };
                let (connection, channel) = (at.connection(), at.channel());
                self.apply(Command::Settle { connection, channel, range, settle });
                for (_, consumer) in
                    self.limits.get(&at).map(|limit| limit.release(settled)).unwrap_or_default()
                {
                    self.apply(Command::Resume { connection, consumer });
                }
            }
            Step::Credit { pick } => {
                let Some(id) = self.pick(pick) else { return };
                let consumer = self.model.consumers.get_mut(&id).expect("it was picked");
                let bytes = std::mem::take(&mut consumer.in_flight);
                let connection = consumer.at.connection();
                self.apply(Command::Credit { connection, consumer: ConsumerId(id), bytes });
            }
            Step::Purge => {
                let ready = self.model.count(|state| *state == State::Ready);
                for message in &mut self.model.messages {
                    if message.state == State::Ready {
                        message.state = State::Gone;
                    }
                }
                let at = Place { connection: 0, channel: 1 };
                let (replies, ..) =
                    self.apply(Command::Purge { connection: at.connection(), channel: at.channel() });
                assert!(matches!(replies[..], [Ok(Reply::QueuePurged(purged))] if purged as usize == ready));
            }
            Step::ChannelGone { at } => {
                self.model.gone(|place| place == at);
                self.limits.remove(&at);
                self.apply(Command::Gone { connection: at.connection(), channel: Some(at.channel()) });
            }
            Step::ConnectionGone { connection } => {
                self.model.gone(|place| place.connection == connection);
                self.limits.retain(|place, _| place.connection != connection);
                let connection = Place { connection, channel: 1 }.connection();
                self.apply(Command::Gone { connection, channel: None });
            }
        }
    }

    fn publish(&mut self, large: bool, confirm: bool, immediate: bool) {
        let number = self.model.messages.len();
        let message = message(number, large);
        let somebody = (self.model.consumers.keys()).any(|id| self.model.can_take(*id));
        let taken = somebody && self.model.first_ready().is_none();
        let tracking = match (immediate, confirm) {
            (true, _) => Tracking::Immediate(7),
            (false, true) => Tracking::Confirm(9),
            (false, false) => Tracking::None,
        };
        let state = if immediate && !taken { State::Gone } else { State::Ready };
        self.model.messages.push(ModelMessage { state, redelivered: false, memory: message.memory() });
        let at = Place { connection: 0, channel: 1 };
        let (connection, channel) = (at.connection(), at.channel());
        let (_, accepted, outcome) =
            self.apply(Command::Publish(Publish { connection, channel, tracking, message }));
        assert_eq!(accepted, if tracking == Tracking::Confirm(9) { vec![9] } else { vec![] });
        assert_eq!(outcome, if immediate { vec![taken] } else { vec![] });
    }

    fn get(&mut self, at: Place, no_ack: bool) {
        let expected = self.model.first_ready();
        let getter = Getter { connection: at.connection(), channel: at.channel(), no_ack };
        let (mut replies, ..) = self.apply(Command::Get(getter));
        let Some(Ok(Reply::Got(got))) = replies.pop() else { panic!("get was not answered") };
        assert_eq!(got.as_ref().map(|got| number_of(&got.message)), expected);
        if let Some(got) = got {
            self.model.take(number_of(&got.message), got.redelivered, got.id.0, at, None, no_ack);
            assert_eq!(got.remaining as usize, self.model.count(|state| *state == State::Ready));
        }
    }

    fn consume(&mut self, at: Place, no_ack: bool, prefetch: u32) {
        self.next_consumer += 1;
        let id = self.next_consumer;
        let consumer = ModelConsumer { at, no_ack, prefetch, in_flight: 0 };
        self.model.consumers.insert(id, consumer);
        let new = NewConsumer {
            connection: at.connection(),
            channel: at.channel(),
            consumer: ConsumerId(id),
            no_ack,
            exclusive: false,
            prefetch,
            limit: at.is_limited().then(|| {
                Arc::clone(
                    self.limits.entry(at).or_insert_with(|| Arc::new(ChannelLimit::new(CHANNEL_LIMIT, 0))),
                )
            }),
            priority: 0,
            timeout_ms: None,
        };
        let (replies, ..) = self.apply(Command::Consume(Box::new(new)));
        assert!(matches!(replies[..], [Ok(Reply::Consuming)]));
    }

    fn check(&mut self) {
        let unacked = self.model.count(|state| matches!(state, State::Unacked { .. }));
        let ready = self.model.count(|state| *state == State::Ready);
        assert_eq!(self.queue.ready_len(), ready);
        assert_eq!(self.queue.unacked_len(), unacked);
        assert_eq!(self.queue.consumers_len(), self.model.consumers.len());
        let memory: usize =
            self.model.messages.iter().filter(|m| m.state != State::Gone).map(|m| m.memory).sum();
        // What is paged out takes none; what is resident is bounded, whatever there is.
        assert!(self.queue.memory() <= memory, "{} of {memory}", self.queue.memory());
        // Those that do not survive a restart stay while they are unacked, and when they come back.
        let transient = self.model.messages.iter().enumerate().filter(|(number, _)| !is_persistent(*number));
        let transient: usize = transient
            .filter(|(_, m)| m.redelivered || matches!(m.state, State::Unacked { .. }))
            .map(|(_, m)| m.memory)
            .sum();
        assert!(self.queue.memory() <= MEMORY_MAX + transient, "{} bytes are resident", self.queue.memory());
        let stored = self.store.messages().count();
        assert!(stored <= ready + unacked, "{stored} messages are stored");
        if ready > 0 {
            for id in self.model.consumers.keys() {
                assert!(!self.model.can_take(*id), "consumer {id} idles while messages are ready");
            }
        }
        self.deliveries = self.model.messages.len() as u64 * 2;
    }
}

fn place() -> impl Strategy<Value = Place> {
    (0..CONNECTIONS, 1..=CHANNELS).prop_map(|(connection, channel)| Place { connection, channel })
}

fn settle() -> impl Strategy<Value = Settle> {
    prop_oneof![
        4 => Just(Settle::Ack),
        1 => Just(Settle::Reject),
        3 => Just(Settle::Requeue { failed: false }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::bool::weighted(0.1), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(large, tracking, immediate)| Step::Publish { large, tracking, immediate }),
        2 => (place(), any::<bool>()).prop_map(|(at, no_ack)| Step::Get { at, no_ack }),
        2 => (place(), prop::bool::weighted(0.3), 0..4u32)
            .prop_map(|(at, no_ack, prefetch)| Step::Consume { at, no_ack, prefetch }),
        1 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        6 => (place(), any::<usize>(), 0..6u64, settle())
            .prop_map(|(at, pick, len, settle)| Step::Settle { at, pick, len, settle }),
        1 => any::<usize>().prop_map(|pick| Step::Credit { pick }),
        1 => Just(Step::Purge),
        1 => place().prop_map(|at| Step::ChannelGone { at }),
        1 => (0..CONNECTIONS).prop_map(|connection| Step::ConnectionGone { connection }),
    ]
}

proptest! {
    #[test]
    fn every_message_is_in_one_state_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
    }
}
