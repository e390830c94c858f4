//! A shard: a task that owns queues and runs them, one batch of commands at a time.
//!
//! A turn takes what is in the mailbox, applies it in order, and hands each touched connection what it gets in
//! one piece. Nothing in a turn waits.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use slab::Slab;
use warren_queue::{Command, DeadLetterTarget, DeathReason, Effects, Publish, Queue, QueueOptions};
use warren_types::session::{Delivery, Event, Reply, Tracking};
use warren_types::{AmqpError, ChannelId, ConnectionId, ConsumerId, Message, QueueId, QueueRef, ShortString};

use crate::alarm::MemoryAlarm;
use crate::auth::Resource;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::mailbox::Mailbox;
use crate::ports::{Port, Ports};
use crate::vhost::Vhost;

/// What sessions ask of a shard.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Make the connection known; always the first that a connection sends.
    Attach(ConnectionId, Arc<Port>),
    /// The connection sends nothing any more.
    Detach(ConnectionId),
    /// Add a queue.
    Create(Box<NewQueue>),
    /// A command for a queue that may be gone; then it is settled as far as anyone waits for it.
    Apply(QueueRef, Command),
    /// A command whose reply somebody waits for.
    Call(Box<Call>),
    /// A channel, or the whole connection, is gone.
    Gone(ConnectionId, Option<ChannelId>),
}

#[derive(Debug)]
pub(crate) struct NewQueue {
    pub options: QueueOptions,
    pub vhost: Arc<Vhost>,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub queue: QueueRef,
    pub connection: ConnectionId,
    pub channel: ChannelId,
    /// For the answer if there is no such queue any more.
    pub name: ShortString,
    pub vhost: Arc<Vhost>,
    pub command: Command,
}

/// How sessions reach a shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub mailbox: Mailbox<ShardCommand>,
    /// Which slots of the shard's table are taken.
    slots: Mutex<Slab<()>>,
}

impl ShardHandle {
    pub(crate) fn new() -> Self {
        Self { mailbox: Mailbox::default(), slots: Mutex::new(Slab::new()) }
    }

    /// Takes a free slot.
    pub(crate) fn reserve_slot(&self) -> u32 {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(());
        u32::try_from(slot).expect("four billion queues do not fit into memory")
    }

    fn free_slot(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(slot as usize);
    }
}

struct Slot {
    queue: Queue,
    vhost: Arc<Vhost>,
    /// The deadline that `timers` knows.
    deadline: Option<u64>,
}

/// A connection as the shard sees it.
struct Attached {
    id: ConnectionId,
    port: Arc<Port>,
    /// What it gets at the end of the turn.
    events: Vec<Event>,
    /// Queues where it may have consumers or unacked messages.
    queues: HashSet<QueueRef, RandomState>,
    /// Bytes of its publishes that were processed in this turn.
    processed: usize,
    touched: bool,
}

#[derive(Default)]
struct Connections {
    slots: Vec<Option<Attached>>,
    touched: Vec<u32>,
}

/// The state of a shard.
pub(crate) struct Shard {
    handle: Arc<ShardHandle>,
    queues: Vec<Option<Slot>>,
    connections: Connections,
    /// Deadlines of queues: when, and the slot.
    timers: BTreeSet<(u64, u32)>,
    /// Dead letters of this turn, for each shard.
    dead_letters: Vec<Vec<ShardCommand>>,
    /// All shards, this one included.
    shards: Vec<Arc<ShardHandle>>,
    alarm: Arc<MemoryAlarm>,
    ports: Arc<Ports>,
    clock: Clock,
    now_ms: u64,
}

impl Shard {
    /// Most commands of a turn: what was caused is handed on at least this often.
    const TURN_COMMANDS_MAX: usize = 4096;

    pub(crate) fn new(
        index: usize,
        shards: Vec<Arc<ShardHandle>>,
        alarm: Arc<MemoryAlarm>,
        ports: Arc<Ports>,
        clock: Clock,
    ) -> Self {
        Self {
            handle: Arc::clone(&shards[index]),
            queues: Vec::new(),
            connections: Connections::default(),
            timers: BTreeSet::new(),
            dead_letters: shards.iter().map(|_| Vec::new()).collect(),
            shards,
            alarm,
            ports,
            clock,
            now_ms: clock.now_ms(),
        }
    }

    /// Runs until the task is dropped.
    pub(crate) async fn run(mut self) {
        let handle = Arc::clone(&self.handle);
        let mut batch = Vec::new();
        loop {
            handle.mailbox.take(&mut batch);
            if batch.is_empty() && !self.is_timer_due() {
                self.wait(&handle).await;
                continue;
            }
            let mut commands = batch.drain(..).peekable();
            loop {
                self.turn(commands.by_ref().take(Self::TURN_COMMANDS_MAX));
                if commands.peek().is_none() {
                    break;
                }
            }
            drop(commands);
            tokio::task::yield_now().await;
        }
    }

    async fn wait(&self, handle: &ShardHandle) {
        match self.timers.first() {
            None => handle.mailbox.wait().await,
            Some((at, _)) => {
                let deadline = self.clock.instant(*at).into();
                // Either way the loop looks again at what there is to do.
                let _elapsed = tokio::time::timeout_at(deadline, handle.mailbox.wait()).await;
            }
        }
    }

    fn is_timer_due(&self) -> bool {
        self.timers.first().is_some_and(|(at, _)| *at <= self.clock.now_ms())
    }

    fn turn(&mut self, commands: impl Iterator<Item = ShardCommand>) {
        self.now_ms = self.now_ms.max(self.clock.now_ms());
        let mut held = self.run_timers();
        for command in commands {
            held += self.apply(command);
        }
        for (shard, letters) in self.shards.iter().zip(&mut self.dead_letters) {
            shard.mailbox.append(letters);
        }
        self.alarm.add(held);
        if self.alarm.is_due()
            && let Some(raised) = self.alarm.check()
        {
            self.ports.tell_alarm(raised);
        }
        self.connections.flush();
    }

    /// Lets queues whose deadline has come act, each at most once in a turn.
    fn run_timers(&mut self) -> i64 {
        let mut held = 0;
        let due: Vec<u32> = (self.timers.range(..=(self.now_ms, u32::MAX))).map(|(_, slot)| *slot).collect();
        for slot in due {
            if let Some(queue) = self.queues[slot as usize].as_ref().map(|slot| slot.queue.options().queue) {
                held += self.apply_to_queue(queue, Command::Tick);
            }
        }
        held
    }

    /// Applies a command; returns by how much it changed the memory that queues hold.
    fn apply(&mut self, command: ShardCommand) -> i64 {
        match command {
            ShardCommand::Apply(queue, command) => {
                if let Command::Publish(publish) = &command {
                    self.connections.processed(publish.connection, publish.message.memory());
                }
                if self.find(queue).is_none() {
                    self.connections.settle_for_missing(&command);
                    return 0;
                }
                self.apply_to_queue(queue, command)
            }
            ShardCommand::Call(call) => {
                if self.find(call.queue).is_none() {
                    let label = Resource::Queue(call.name.as_bytes()).label(&call.vhost.name);
                    let missing = Err(AmqpError::not_found(format!("no {label}")));
                    self.connections.reply(call.connection, call.channel, missing);
                    return 0;
                }
                if matches!(call.command, Command::Consume(_) | Command::Get(_))
                    && let Some(attached) = self.connections.touch(call.connection)
                {
                    attached.queues.insert(call.queue);
                }
                self.apply_to_queue(call.queue, call.command)
            }
            ShardCommand::Create(new) => {
                let slot = new.options.queue.slot as usize;
                if self.queues.len() <= slot {
                    self.queues.resize_with(slot + 1, || None);
                }
                let queue = Queue::new(new.options, self.now_ms);
                self.queues[slot] = Some(Slot { queue, vhost: new.vhost, deadline: None });
                self.watch_deadline(slot);
                0
            }
            ShardCommand::Gone(connection, channel) => self.gone(connection, channel),
            ShardCommand::Attach(id, port) => {
                self.connections.attach(id, port);
                0
            }
            ShardCommand::Detach(id) => {
                self.connections.detach(id);
                0
            }
        }
    }

    fn find(&self, queue: QueueRef) -> Option<&Slot> {
        let slot = self.queues.get(queue.slot as usize)?.as_ref()?;
        (slot.queue.options().queue.id == queue.id).then_some(slot)
    }

    fn apply_to_queue(&mut self, queue: QueueRef, command: Command) -> i64 {
        let Some(slot) = &mut self.queues[queue.slot as usize] else { return 0 };
        let before = slot.queue.memory();
        let mut turn = Turn { connections: &mut self.connections, letters: Vec::new(), deleted: false };
        slot.queue.apply(self.now_ms, command, &mut turn);
        let Turn { letters, deleted, .. } = turn;
        let change = slot.queue.memory() as i64 - before as i64;
        for (message, reason, target) in letters {
            let queue = slot.queue.options().name.clone();
            let letter = DeadLetter { message, reason, target, queue };
            if let Some((message, queues)) = letter.route(&slot.vhost, self.now_ms) {
                publish_dead_letter(&mut self.dead_letters, &message, &queues);
            }
        }
        if deleted {
            self.remove(queue);
        } else {
            self.watch_deadline(queue.slot as usize);
        }
        change
    }

    fn remove(&mut self, queue: QueueRef) {
        let Some(slot) = self.queues[queue.slot as usize].take() else { return };
        if let Some(deadline) = slot.deadline {
            self.timers.remove(&(deadline, queue.slot));
        }
        // The name is free before anyone is told.
        slot.vhost.remove_queue(&slot.queue.options().name, queue);
        self.handle.free_slot(queue.slot);
    }

    fn watch_deadline(&mut self, index: usize) {
        let Some(slot) = &mut self.queues[index] else { return };
        let deadline = slot.queue.deadline();
        if deadline == slot.deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut slot.deadline, deadline) {
            self.timers.remove(&(old, index as u32));
        }
        if let Some(new) = deadline {
            self.timers.insert((new, index as u32));
        }
    }

    fn gone(&mut self, connection: ConnectionId, channel: Option<ChannelId>) -> i64 {
        let concerned: Vec<QueueRef> = match self.connections.touch(connection) {
            Some(attached) if channel.is_none() => attached.queues.drain().collect(),
            Some(attached) => attached.queues.iter().copied().collect(),
            None => return 0,
        };
        let mut change = 0;
        for queue in concerned {
            if self.find(queue).is_some() {
                change += self.apply_to_queue(queue, Command::Gone { connection, channel });
            }
        }
        change
    }
}

impl Connections {
    fn attach(&mut self, id: ConnectionId, port: Arc<Port>) {
        let slot = id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        let (events, queues) = (Vec::new(), HashSet::default());
        self.slots[slot] = Some(Attached { id, port, events, queues, processed: 0, touched: false });
    }

    fn detach(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize)
            && slot.as_ref().is_some_and(|attached| attached.id == id)
        {
            *slot = None;
        }
    }

    fn touch(&mut self, id: ConnectionId) -> Option<&mut Attached> {
        let attached = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        if attached.id != id {
            return None;
        }
        if !attached.touched {
            attached.touched = true;
            self.touched.push(id.slot);
        }
        Some(attached)
    }

    fn processed(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(attached) = self.touch(id) {
            attached.processed += bytes;
        }
    }

    fn event(&mut self, id: ConnectionId, event: Event) {
        if let Some(attached) = self.touch(id) {
            attached.events.push(event);
        }
    }

    fn reply(&mut self, id: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>) {
        self.event(id, Event::Reply(channel, reply));
    }

    /// A deleted queue has nothing to lose: what comes too late for it counts as taken and dropped.
    fn settle_for_missing(&mut self, command: &Command) {
        let Command::Publish(publish) = command else { return };
        match publish.tracking {
            Tracking::None => {}
            Tracking::Confirm(number) => self.accepted(publish.connection, publish.channel, number),
            Tracking::Immediate(number) => {
                let channel = publish.channel;
                self.event(publish.connection, Event::Immediate { channel, number, taken: false });
            }
        }
    }

    fn accepted(&mut self, id: ConnectionId, channel: ChannelId, number: u64) {
        let Some(attached) = self.touch(id) else { return };
        if let Some(Event::Settled { channel: same, last, accepted: true, .. }) = attached.events.last_mut()
            && *same == channel
            && *last + 1 == number
        {
            *last = number;
            return;
        }
        attached.events.push(Event::Settled { channel, first: number, last: number, accepted: true });
    }

    /// Hands every touched connection its events.
    fn flush(&mut self) {
        for slot in self.touched.drain(..) {
            let Some(attached) = &mut self.slots[slot as usize] else { continue };
            attached.touched = false;
            attached.port.processed(std::mem::take(&mut attached.processed));
            attached.port.outbox.append(&mut attached.events);
        }
    }
}

/// Hands a dead letter to its queues, which take it in a later turn: a circle of queues cannot keep a shard in
/// one turn for ever.
fn publish_dead_letter(batches: &mut [Vec<ShardCommand>], message: &Message, queues: &[QueueRef]) {
    for queue in queues {
        let publish = Publish {
            connection: ConnectionId::NONE,
            channel: ChannelId::CONNECTION,
            tracking: Tracking::None,
            message: message.clone(),
        };
        batches[usize::from(queue.shard)].push(ShardCommand::Apply(*queue, Command::Publish(publish)));
    }
}

/// The effects of a command go straight to the connections.
struct Turn<'a> {
    connections: &'a mut Connections,
    letters: Vec<(Message, DeathReason, DeadLetterTarget)>,
    deleted: bool,
}

impl Effects for Turn<'_> {
    fn deliver(&mut self, connection: ConnectionId, delivery: Delivery) {
        self.connections.event(connection, Event::Deliver(delivery));
    }

    fn reply(&mut self, connection: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>) {
        self.connections.reply(connection, channel, reply);
    }

    fn accepted(&mut self, connection: ConnectionId, channel: ChannelId, number: u64) {
        self.connections.accepted(connection, channel, number);
    }

    fn refused(&mut self, connection: ConnectionId, channel: ChannelId, number: u64) {
        let event = Event::Settled { channel, first: number, last: number, accepted: false };
        self.connections.event(connection, event);
    }

    fn dead_letter(&mut self, message: Message, reason: DeathReason, target: &DeadLetterTarget) {
        self.letters.push((message, reason, target.clone()));
    }

    fn immediate(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, taken: bool) {
        self.connections.event(connection, Event::Immediate { channel, number, taken });
    }

    fn consumer_cancelled(&mut self, connection: ConnectionId, channel: ChannelId, consumer: ConsumerId) {
        self.connections.event(connection, Event::ConsumerCancelled(channel, consumer));
    }

    fn deleted(&mut self) {
        self.deleted = true;
    }
}

/// Numbers queues.
#[derive(Debug, Default)]
pub(crate) struct QueueIds(std::sync::atomic::AtomicU64);

impl QueueIds {
    pub(crate) fn next(&self) -> QueueId {
        QueueId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
