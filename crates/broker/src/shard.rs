//! A shard: a task that owns queues and runs them, one batch of commands at a time.
//!
//! A turn takes what is in the mailbox, applies it in order, appends what must be stored to the log, and hands each
//! touched connection what it gets in one piece. Nothing in a turn waits: confirms follow when the log is durable.

mod browse;
mod commands;
mod connections;
mod effects;
mod inspect;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use warren_queue::{Command, Expiration, Forgotten, Publish, Queue, Restored, RestoredLevel, Settings};
use warren_store::{
    Gone, Journal, LoadError, Lsn, QueueIndex, RecoveredQueue, SharedBody, Snapshot, Store, Turn,
};
use warren_types::session::Tracking;
use warren_types::{AmqpError, ChannelId, ConnectionId, Message, QueueId, QueueRef, StoredMessage};

use crate::alarm::MemoryAlarm;
use crate::auth::Resource;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::dedup::{KeyChanges, RecoveredKeys};
use crate::delayed;
use crate::events::{Events, INTERNAL_USER};
use crate::ports::{Alarm, Ports};
use crate::vhost::Vhost;

pub(crate) use self::browse::{
    Browse, Chosen, PAGE_MESSAGES, Page, Position, Take, Taken, Unbrowsable, Which,
};
use self::browse::{Tally, own_ttl_ms};
use self::commands::{Asked, Buried, Leaving, Loaded};
pub(crate) use self::commands::{Call, Inspect, NewQueue, ShardCommand, ShardHandle, StoreCommand};
use self::connections::Connections;
use self::effects::{Applied, Letter, Wanted, Why};

/// Queues found in the store whose names are not known yet.
pub(crate) type RecoveredQueues = Arc<Mutex<HashMap<QueueId, RecoveredQueue>>>;

struct Slot {
    queue: Queue,
    vhost: Arc<Vhost>,
    /// Where its stored messages are.
    index: QueueIndex,
    /// The deadline that `timers` knows.
    deadline: Option<u64>,
    /// Why the queue does nothing any more.
    stopped: Option<String>,
    /// Bytes that the queue held when it was counted last.
    held: usize,
    /// A command of this turn has been applied to it.
    touched: bool,
    /// It is recorded that messages in its store may expire by themselves.
    has_expirations: bool,
}

/// The state of a shard.
pub(crate) struct Shard {
    handle: Arc<ShardHandle>,
    queues: Vec<Option<Slot>>,
    connections: Connections,
    /// Slots of the queues that this turn has touched.
    touched: Vec<u32>,
    /// By how many bytes this turn has changed what queues hold, as far as it is counted.
    change: i64,
    /// Deadlines of queues: when, and the slot.
    timers: BTreeSet<(u64, u32)>,
    /// Dead letters of this turn, for each shard.
    dead_letters: Vec<Vec<ShardCommand>>,
    /// Dead letters that arrived in this turn: dropped when it is in the log.
    arrived: Vec<Arc<Buried>>,
    /// Messages that an operator's command has just taken.
    taken: Vec<u64>,
    /// What operators have taken in this turn: told when it is in the log.
    tallies: Vec<Arc<Tally>>,
    /// Operators who want to see messages, answered when the turn is in the log.
    browsing: Vec<Browse>,
    /// Where the last records of the shard end.
    appended: Lsn,
    /// What queues ask the store for in this turn.
    wanted: Vec<Wanted>,
    /// Keys that this turn remembers or forgets.
    keys: KeyChanges,
    /// What the store asks in this turn, answered when the turn is in the log.
    store_commands: Vec<StoreCommand>,
    /// Extents of queues that are gone.
    gone: Gone,
    turn: Turn,
    /// What promises of this turn wait for beside its own records.
    turn_lsn: Lsn,
    parts: Parts,
    clock: Clock,
    now_ms: u64,
}

/// What all shards share.
#[derive(Clone)]
pub(crate) struct Parts {
    /// All shards.
    pub shards: Vec<Arc<ShardHandle>>,
    pub alarm: Arc<MemoryAlarm>,
    pub ports: Arc<Ports>,
    pub store: Arc<Store>,
    pub recovered: RecoveredQueues,
    pub recovered_keys: Arc<Mutex<RecoveredKeys>>,
    pub journal: Arc<dyn Journal>,
    pub events: Arc<Events>,
    /// How long a consumer may take to acknowledge a message, where neither it nor its queue says.
    pub consumer_timeout: Option<Duration>,
}

impl Shard {
    /// Most commands of a turn: what was caused is handed on at least this often.
    const TURN_COMMANDS_MAX: usize = 4096;

    pub(crate) fn new(index: usize, parts: Parts, clock: Clock) -> Self {
        Self {
            handle: Arc::clone(&parts.shards[index]),
            queues: Vec::new(),
            connections: Connections::default(),
            touched: Vec::new(),
            change: 0,
            timers: BTreeSet::new(),
            dead_letters: parts.shards.iter().map(|_| Vec::new()).collect(),
            arrived: Vec::new(),
            taken: Vec::new(),
            tallies: Vec::new(),
            browsing: Vec::new(),
            appended: Lsn::default(),
            wanted: Vec::new(),
            keys: KeyChanges::default(),
            store_commands: Vec::new(),
            gone: Gone::default(),
            turn: Turn::default(),
            turn_lsn: Lsn::default(),
            parts,
            now_ms: clock.now_ms(),
            clock,
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
        self.run_timers();
        for command in commands {
            self.apply(command);
        }
        self.look_at_touched();
        self.append();
        for (shard, letters) in self.parts.shards.iter().zip(&mut self.dead_letters) {
            shard.mailbox.append(letters);
        }
        self.tell_tallies();
        let alarm = &self.parts.alarm;
        alarm.add(std::mem::take(&mut self.change));
        if alarm.is_due()
            && let Some(raised) = alarm.check()
            && self.parts.ports.tell_alarm(Alarm::Memory, raised)
        {
            self.parts.events.alarm(Alarm::Memory, raised);
        }
        self.flush();
        self.ask_store();
        self.browse_all();
        self.answer_store();
    }

    /// Appends the turn's records to the log.
    fn append(&mut self) {
        let queues = &mut self.queues;
        let end = self.turn.append(&self.parts.store, |slot, placed| {
            if let Some(Some(slot)) = queues.get_mut(slot as usize) {
                placed.note(&mut slot.index);
            }
        });
        if let Some(end) = end {
            self.turn_lsn = self.turn_lsn.max(end);
            self.appended = end;
            self.parts.ports.hold_back_if_full(&self.parts.store);
        }
        // Behind their messages, and before those are forgotten where they came from.
        self.turn_lsn = self.turn_lsn.max(self.keys.record(&*self.parts.journal));
        for buried in self.arrived.drain(..) {
            if let Leaving::Moving(moving) = &buried.leaving {
                moving.tally.note(self.appended);
            }
        }
    }

    /// Tells operators of what they have taken, once all of it is in the mailboxes of those who get it.
    fn tell_tallies(&mut self) {
        self.tallies.drain(..).for_each(|tally| tally.note(self.appended));
    }

    /// Hands connections their events; what is promised follows when the log is durable.
    fn flush(&mut self) {
        let promises = self.connections.flush();
        let lsn = std::mem::take(&mut self.turn_lsn);
        if promises.is_empty() {
            return;
        }
        let keep = move || {
            for (port, mut events) in promises {
                port.outbox.append(&mut events);
            }
        };
        self.parts.store.when_durable(lsn, Box::new(keep));
    }

    /// Lets queues whose deadline has come act, each at most once in a turn.
    fn run_timers(&mut self) {
        let due: Vec<u32> = (self.timers.range(..=(self.now_ms, u32::MAX))).map(|(_, slot)| *slot).collect();
        for slot in due {
            if let Some(queue) = self.queues[slot as usize].as_ref().map(|slot| slot.queue.options().queue) {
                self.apply_to_queue(queue, Command::Tick, None);
            }
        }
    }

    /// What need not be known after every command: how much the queues hold, and when they want to act next.
    fn look_at_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            let index = slot as usize;
            if let Some(slot) = &mut self.queues[index] {
                slot.touched = false;
                let before = std::mem::replace(&mut slot.held, slot.queue.memory());
                self.change += slot.held as i64 - before as i64;
                self.watch_deadline(index);
            }
        }
        self.touched = touched;
    }

    fn apply(&mut self, command: ShardCommand) {
        match command {
            ShardCommand::Apply(queue, Command::Publish(publish)) => self.publish(queue, publish, None),
            ShardCommand::Apply(queue, Command::Configure(mut settings)) => {
                self.add_defaults(&mut settings);
                self.apply_to_queue(queue, Command::Configure(settings), None);
            }
            ShardCommand::Apply(queue, command) => self.apply_to_queue(queue, command, None),
            ShardCommand::Share(queue, shared) => {
                let (publish, body) = *shared;
                self.publish(queue, publish, Some(&body))
            }
            ShardCommand::DeadLetter(queue, letter) => {
                let (publish, buried) = *letter;
                let is_wanted = self.is_wanted(queue, &publish, buried.as_deref());
                self.arrived.extend(buried);
                if is_wanted {
                    self.publish(queue, publish, None)
                }
            }
            ShardCommand::Forget(queue, gone) => self.forget(queue, gone),
            ShardCommand::Loaded(queue, loaded) => self.loaded(queue, *loaded),
            ShardCommand::Call(call) => self.call(*call),
            ShardCommand::Create(new) => self.create(*new),
            ShardCommand::Gone(connection, channel) => self.gone(connection, channel),
            ShardCommand::Attach(id, port) => self.connections.attach(id, port),
            ShardCommand::Detach(id) => self.connections.detach(id),
            ShardCommand::Store(command) => self.store_commands.push(command),
            ShardCommand::CountUnacked(answer) => self.count_unacked(answer),
            ShardCommand::Inspect(inspect) => self.inspect(*inspect),
            ShardCommand::Browse(browse) => self.browsing.push(*browse),
            ShardCommand::Browsed(read) => self.browsed(*read),
            ShardCommand::Take(take) => self.take(*take),
        }
    }

    /// Whether a message that comes from another queue is to be published: what an operator has moved goes back to its
    /// queue if it is refused.
    fn is_wanted(&self, queue: QueueRef, publish: &Publish, buried: Option<&Buried>) -> bool {
        let Some(Leaving::Moving(moving)) = buried.map(|buried| &buried.leaving) else { return true };
        let takes = self
            .find(queue)
            .is_some_and(|slot| slot.stopped.is_none() && !slot.queue.would_refuse(&publish.message));
        if takes {
            moving.arrived();
        }
        takes
    }

    fn publish(&mut self, queue: QueueRef, publish: Publish, shared: Option<&SharedBody>) {
        let (connection, memory) = (publish.connection, publish.message.memory());
        match self.find(queue) {
            None => self.connections.settle_for_missing(&publish),
            Some(slot) if slot.stopped.is_some() => self.connections.refuse(&publish),
            Some(_) => self.apply_to_queue(queue, Command::Publish(publish), shared),
        }
        let is_crowded = self.find(queue).is_some_and(|slot| slot.queue.is_crowded());
        self.connections.processed(connection, memory, is_crowded);
    }

    fn call(&mut self, call: Call) {
        let label = || Resource::Queue(call.name.as_bytes()).label(&call.vhost.name);
        let refusal = match self.find(call.queue) {
            None => Some(format!("no {}", label())),
            // As RabbitMQ says of a queue whose process has failed for good (`rabbit_amqqueue:not_found_or_absent`).
            Some(slot)
                if slot.stopped.is_some()
                    && !matches!(call.command, Command::Delete { .. } | Command::Close { .. }) =>
            {
                Some(format!("{} process is stopped by supervisor", label()))
            }
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            self.connections.reply(call.connection, call.channel, Err(AmqpError::not_found(refusal)));
            return;
        }
        if matches!(call.command, Command::Consume(_) | Command::Get(_))
            && let Some(attached) = self.connections.touch(call.connection)
        {
            attached.queues.insert(call.queue);
        }
        self.apply_to_queue(call.queue, call.command, None);
    }

    /// What the node asks of queues, where neither their arguments nor policies say.
    fn add_defaults(&self, settings: &mut Settings) {
        let timeout = self.parts.consumer_timeout.map(|timeout| timeout.as_millis() as u64);
        settings.consumer_timeout_ms = settings.consumer_timeout_ms.or(timeout);
    }

    fn create(&mut self, mut new: NewQueue) {
        self.add_defaults(&mut new.options.settings);
        let reference = new.options.queue;
        let id = reference.id;
        let slot = new.options.queue.slot as usize;
        if self.queues.len() <= slot {
            self.queues.resize_with(slot + 1, || None);
        }
        let found = self.parts.recovered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let is_restored = found.is_some();
        let keys = self.parts.recovered_keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let (mut queue, index, stopped) = match found {
            None => (Queue::new(new.options, self.now_ms), QueueIndex::new(id), None),
            Some(found) => {
                let levels = found.index.counts().map(|(priority, count)| RestoredLevel {
                    priority,
                    messages: count.messages,
                    bytes: count.bytes,
                });
                let restored = Restored {
                    levels: levels.collect(),
                    next_seq: found.next_seq,
                    redelivered_below: found.redelivered_below,
                    has_expirations: new.has_expirations,
                };
                (Queue::restore(new.options, self.now_ms, restored), found.index, found.damage)
            }
        };
        for hash in queue.restore_keys(keys.unwrap_or_default()) {
            self.keys.forget(id, hash);
        }
        let vhost = new.vhost;
        self.queues[slot] = Some(Slot {
            queue,
            vhost,
            index,
            deadline: None,
            stopped: None,
            held: 0,
            touched: false,
            has_expirations: new.has_expirations,
        });
        match stopped {
            Some(damage) => self.stop_queue(slot, damage),
            // What is stored may have expired meanwhile.
            None if is_restored => self.apply_to_queue(reference, Command::Tick, None),
            None => self.watch_deadline(slot),
        }
    }

    fn find(&self, queue: QueueRef) -> Option<&Slot> {
        let slot = self.queues.get(queue.slot as usize)?.as_ref()?;
        (slot.queue.options().queue.id == queue.id).then_some(slot)
    }

    fn find_mut(queues: &mut [Option<Slot>], queue: QueueRef) -> Option<&mut Slot> {
        let slot = queues.get_mut(queue.slot as usize)?.as_mut()?;
        (slot.queue.options().queue.id == queue.id).then_some(slot)
    }

    fn apply_to_queue(&mut self, queue: QueueRef, command: Command, shared: Option<&SharedBody>) {
        let Some(slot) = Self::find_mut(&mut self.queues, queue) else { return };
        if !slot.touched {
            slot.touched = true;
            self.touched.push(queue.slot);
        }
        let asked_by = match &command {
            Command::Delete { asked_by, .. } | Command::Close { asked_by } => {
                asked_by.map(|(connection, _)| connection)
            }
            _ => None,
        };
        let mut applied = Applied {
            queue,
            connections: &mut self.connections,
            store: &self.parts.store,
            turn: &mut self.turn,
            index: &mut slot.index,
            wanted: &mut self.wanted,
            keys: &mut self.keys,
            shared,
            has_room: self.parts.alarm.has_room(),
            has_expirations: slot.has_expirations,
            letters: Vec::new(),
            taken: &mut self.taken,
            deleted: false,
        };
        slot.queue.apply(self.now_ms, command, &mut applied);
        let Applied { letters, deleted, has_expirations, .. } = applied;
        if has_expirations && !slot.has_expirations {
            slot.has_expirations = true;
            // Recorded before the message: it is not confirmed without.
            slot.vhost.note_expirations(&slot.queue.options().name, queue);
        }
        for letter in letters {
            self.post(queue, letter);
        }
        if deleted {
            self.remove(queue, asked_by);
        }
    }

    /// Sends a message that leaves its queue where it goes.
    fn post(&mut self, from: QueueRef, letter: Letter) {
        let Some(slot) = &self.queues[from.slot as usize] else { return };
        let Letter { message, why, stored } = letter;
        let options = slot.queue.options();
        let routed = match why {
            Why::Died(reason, target) => {
                let letter = DeadLetter { message, reason, target, queue: options.name.clone() };
                letter.route(&slot.vhost, self.now_ms)
            }
            Why::Due => options
                .settings
                .dead_letter
                .as_ref()
                .and_then(|target| delayed::route_due(&message, target.exchange.as_bytes(), &slot.vhost)),
        };
        let routed = routed.filter(|(_, queues)| !queues.is_empty());
        match (routed, stored) {
            (Some((message, queues)), stored) => {
                let shard = &self.handle;
                let buried = stored.map(|gone| {
                    let leaving = Leaving::DeadLetter(gone);
                    Arc::new(Buried { shard: Arc::clone(shard), queue: from, leaving })
                });
                publish_dead_letter(&mut self.dead_letters, &message, &queues, buried.as_ref());
            }
            (None, Some(stored)) => self.forget(from, stored),
            (None, None) => {}
        }
    }

    fn forget(&mut self, queue: QueueRef, gone: Forgotten) {
        if let Some(slot) = Self::find_mut(&mut self.queues, queue) {
            let Forgotten { seq, priority, persistent, body_len } = gone;
            slot.queue.forgotten(&gone);
            self.turn.forget(&mut slot.index, priority, seq, persistent, u64::from(body_len));
        }
    }

    fn remove(&mut self, queue: QueueRef, asked_by: Option<ConnectionId>) {
        let Some(slot) = self.queues[queue.slot as usize].take() else { return };
        self.change -= slot.held as i64;
        if let Some(deadline) = slot.deadline {
            self.timers.remove(&(deadline, queue.slot));
        }
        // The name is free before anyone is told, and whoever asked is told when that is durable.
        let name = &slot.queue.options().name;
        let (recorded, removed) = slot.vhost.remove_queue(name, queue);
        if let Some(removed) = removed
            && self.parts.events.are_wanted()
        {
            let port = asked_by.and_then(|connection| self.parts.ports.find(connection));
            let user = port.as_ref().and_then(|port| port.opened.get()).map(|(_, user)| &*user.name);
            self.parts.events.removed(&slot.vhost.name, &removed, INTERNAL_USER);
            self.parts.events.queue_deleted(&slot.vhost.name, name, user.unwrap_or(INTERNAL_USER));
        }
        if let Some(lsn) = recorded {
            self.turn_lsn = self.turn_lsn.max(lsn);
            if let Some(connection) = asked_by {
                self.connections.promise_deletion(connection);
            }
        }
        let id = slot.queue.options().queue.id;
        slot.queue.stored_keys().for_each(|hash| self.keys.forget(id, hash));
        self.gone.damaged.extend(slot.stopped.is_some().then_some(id));
        self.gone.extents.extend(slot.index.into_removed());
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

    fn gone(&mut self, connection: ConnectionId, channel: Option<ChannelId>) {
        let concerned: Vec<QueueRef> = match self.connections.touch(connection) {
            Some(attached) if channel.is_none() => attached.queues.drain().collect(),
            Some(attached) => attached.queues.iter().copied().collect(),
            None => return,
        };
        for queue in concerned {
            self.apply_to_queue(queue, Command::Gone { connection, channel }, None);
        }
    }

    // ---- the store ---------------------------------------------------------------------------------------

    /// Asks for the messages that queues want, once the turn's own records have their places.
    fn ask_store(&mut self) {
        for wanted in std::mem::take(&mut self.wanted) {
            self.ask(wanted);
        }
    }

    fn ask(&mut self, Wanted { queue, priority, asked }: Wanted) {
        let Some(slot) = self.find(queue) else { return };
        let store = &self.parts.store;
        let loads = match &asked {
            Asked::Next { after, bytes } | Asked::Expirations { after, bytes } => {
                store.plan(&slot.index, priority, *after, *bytes).into_iter().collect()
            }
            Asked::These(seqs) => store.plan_fetch(&slot.index, priority, seqs),
        };
        let handle = Arc::clone(&self.handle);
        if loads.is_empty() {
            let loaded = Loaded { priority, asked, result: Ok(Default::default()) };
            handle.mailbox.push(ShardCommand::Loaded(queue, Box::new(loaded)));
            return;
        }
        store.load(loads, move |result| {
            let loaded = Loaded { priority, asked, result };
            handle.mailbox.push(ShardCommand::Loaded(queue, Box::new(loaded)));
        });
    }

    /// Hands a queue the messages that were read, or asks again if they have moved or gone meanwhile.
    fn loaded(&mut self, queue: QueueRef, loaded: Loaded) {
        let Some(slot) = Self::find_mut(&mut self.queues, queue) else { return };
        let Loaded { priority, asked, result } = loaded;
        let found = match result {
            Ok(found) => found,
            Err(LoadError::Moved) => {
                self.wanted.push(Wanted { queue, priority, asked });
                return;
            }
            Err(error) => {
                self.stop_queue(queue.slot as usize, error.to_string());
                return;
            }
        };
        let last = found.last;
        match asked {
            Asked::Next { .. } | Asked::These(_) => slot.index.loaded(priority, &found),
            // What is looked through for expirations is not what is loaded next.
            Asked::Expirations { .. } => {}
        }
        let index = &slot.index;
        let live = found.messages.into_iter().filter(|message| index.has(priority, message.seq));
        let messages: Vec<StoredMessage> = live.collect();
        let command = match asked {
            // Everything in this stretch was gone: what follows?
            Asked::Next { bytes, .. } if messages.is_empty() && last.is_some() => {
                self.wanted.push(Wanted { queue, priority, asked: Asked::Next { after: last, bytes } });
                return;
            }
            // Nothing was there when it was looked; but since?
            Asked::Next { after, bytes }
                if messages.is_empty() && self.parts.store.plan(index, priority, after, bytes).is_some() =>
            {
                self.wanted.push(Wanted { queue, priority, asked: Asked::Next { after, bytes } });
                return;
            }
            Asked::Next { .. } => Command::Loaded { priority, end: messages.is_empty(), messages },
            Asked::Expirations { .. } => {
                let ttl = |message: &Message| own_ttl_ms(&slot.queue, message);
                let expirations = messages.iter();
                let expirations = expirations
                    .filter_map(|stored| Some(Expiration::after(ttl(&stored.message)?, stored)))
                    .collect();
                Command::Scanned { priority, expirations, last }
            }
            Asked::These(asked) => Command::Fetched { priority, asked, messages },
        };
        self.apply_to_queue(queue, command, None);
    }

    /// A queue whose messages cannot be read does nothing any more; the others go on.
    fn stop_queue(&mut self, index: usize, damage: String) {
        let Some(slot) = &mut self.queues[index] else { return };
        let (name, vhost) = (&slot.queue.options().name, &slot.vhost.name);
        tracing::error!(
            queue = %name, %vhost,
            "the queue is stopped: {damage}; restore the data directory from a backup, or delete the queue"
        );
        slot.stopped = Some(damage);
    }

    fn answer_store(&mut self) {
        for command in std::mem::take(&mut self.store_commands) {
            match command {
                StoreCommand::Snapshot { up_to, relocate, answer } => {
                    // A store that is being stopped does not listen any more.
                    drop(answer.send(self.snapshot(up_to, relocate)));
                }
                StoreCommand::Install(install, answer) => {
                    self.install(&install);
                    let _told = answer.send(());
                }
                StoreCommand::Gone(Gone { extents, damaged }) => {
                    self.gone.extents.extend(extents);
                    self.gone.damaged.extend(damaged);
                }
                StoreCommand::Stop(answer) => drop(answer.send(self.undelivered())),
            }
        }
    }

    fn snapshot(&mut self, up_to: Lsn, relocate: Option<u32>) -> Snapshot {
        let mut snapshot = Snapshot::new(std::mem::take(&mut self.gone));
        for slot in self.queues.iter_mut().flatten() {
            slot.index.snapshot(up_to, relocate, &mut snapshot);
        }
        snapshot
    }

    fn install(&mut self, install: &warren_store::Install) {
        for slot in self.queues.iter_mut().flatten() {
            slot.index.install(install);
        }
        let shards = self.parts.shards.len() as u64;
        let own =
            self.parts.shards.iter().position(|shard| Arc::ptr_eq(shard, &self.handle)).unwrap_or(0) as u64;
        let known: BTreeSet<QueueId> = self.queue_ids().map(|(id, _)| id).collect();
        self.gone.extents.extend(install.orphans(|queue| queue.0 % shards != own || known.contains(&queue)));
        for (queue, damage) in &install.damaged {
            let found = self.queue_ids().find(|(id, _)| id == queue).map(|(_, slot)| slot);
            if let Some(slot) = found {
                self.stop_queue(slot, damage.clone());
            }
        }
    }

    fn queue_ids(&self) -> impl Iterator<Item = (QueueId, usize)> + '_ {
        let slots = self.queues.iter().enumerate();
        slots.filter_map(|(at, slot)| Some((slot.as_ref()?.queue.options().queue.id, at)))
    }

    fn undelivered(&self) -> Vec<(QueueId, u64)> {
        let queues = self.queues.iter().flatten().filter(|slot| slot.queue.options().durable);
        queues.map(|slot| (slot.queue.options().queue.id, slot.queue.undelivered_from())).collect()
    }
}

/// Hands a dead letter to its queues, which take it in a later turn: a circle of queues cannot keep a shard in
/// one turn for ever.
fn publish_dead_letter(
    batches: &mut [Vec<ShardCommand>],
    message: &Message,
    queues: &[QueueRef],
    buried: Option<&Arc<Buried>>,
) {
    for queue in queues {
        let publish = Publish {
            connection: ConnectionId::NONE,
            channel: ChannelId::CONNECTION,
            tracking: Tracking::None,
            message: message.clone(),
        };
        let letter = Box::new((publish, buried.cloned()));
        batches[usize::from(queue.shard)].push(ShardCommand::DeadLetter(*queue, letter));
    }
}

/// Numbers queues.
#[derive(Debug)]
pub(crate) struct QueueIds(AtomicU64);

impl QueueIds {
    /// Begins with this number.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self(first.into())
    }

    pub(crate) fn next(&self) -> QueueId {
        QueueId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
