//! What operators do with single messages: look at them, and take them out.
//!
//! Pages are read beside the queue: what only the store has is not made resident by it, and nothing changes. What is
//! taken out was looked at before, so that the caller has its contents and knows where it goes; it leaves its queue in
//! the turn in which the queue says that it is still ready. A message that is moved is nobody's until its new queues
//! have it in their stores, and comes back to its place if none of them takes it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use warren_queue::{Browsed, Command, Fate, Queue, QueueKind};
use warren_store::{Load, LoadError, LoadedMessages, Lsn, ReadCursor};
use warren_types::{Message, QueueRef, StoredMessage};

use super::commands::{Buried, Leaving, ShardCommand};
use super::{Shard, publish_dead_letter};
use crate::delayed;

/// Bytes of a page that are enough.
const PAGE_BYTES: usize = 256 * 1024;

/// Most messages of a page that are resident, and most that are taken out at a time.
pub(crate) const PAGE_MESSAGES: usize = 1000;

/// Asks for ready messages.
#[derive(Debug)]
pub(crate) struct Browse {
    pub queue: QueueRef,
    pub which: Which,
    pub answer: oneshot::Sender<Result<Page, Unbrowsable>>,
}

/// Which messages are asked for.
#[derive(Debug)]
pub(crate) enum Which {
    /// Those behind a position, some of them.
    From(Position),
    /// These of a priority, in rising order.
    These { priority: u8, seqs: Vec<u64> },
}

/// A place between messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    /// What is of higher priorities stands before it.
    pub priority: u8,
    /// The message of this priority that stands before it.
    pub after: Option<u64>,
    /// Where reading came to.
    pub cursor: ReadCursor,
}

impl Position {
    /// Before all messages.
    pub(crate) const START: Self = Self { priority: u8::MAX, after: None, cursor: ReadCursor::START };

    fn behind_priority(priority: u8) -> Option<Self> {
        priority.checked_sub(1).map(|priority| Self { priority, ..Self::START })
    }
}

/// Some messages, by falling priority and rising number; all have their contents.
#[derive(Debug)]
pub(crate) struct Page {
    pub messages: Vec<Browsed>,
    /// Where to go on; none at the end.
    pub next: Option<Position>,
    /// Messages that come from now on have at least this number.
    pub next_seq: u64,
}

/// Why there is nothing to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbrowsable {
    Gone,
    Stopped,
}

/// What was found without the store, and what the store is to add.
#[derive(Debug)]
struct Plan {
    priority: u8,
    resident: Vec<Browsed>,
    loads: Vec<Load>,
    next: Next,
}

/// Where to go on after a page.
#[derive(Debug, Clone, Copy)]
enum Next {
    At(Option<Position>),
    /// Behind what was read, or behind this message.
    BehindRead(Option<u64>),
}

/// A page for which the store was read.
#[derive(Debug)]
pub(crate) struct Read {
    browse: Browse,
    priority: u8,
    resident: Vec<Browsed>,
    next: Next,
    result: Result<LoadedMessages, LoadError>,
}

/// Asks to take out messages that were looked at.
#[derive(Debug)]
pub(crate) struct Take {
    pub queue: QueueRef,
    pub fate: Fate,
    /// With where they go, unless they go nowhere.
    pub chosen: Vec<Chosen>,
    pub answer: oneshot::Sender<Result<Taken, Unbrowsable>>,
}

/// A message to take out.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub priority: u8,
    pub stored: StoredMessage,
    /// The message as others get it, and who.
    pub to: Option<(Message, Vec<QueueRef>)>,
}

/// What became of messages that were to be taken out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many were ready.
    pub ready: u64,
    /// How many of these nobody took: they are where they were.
    pub refused: u64,
    /// What is to be durable before anybody is told.
    pub lsn: Lsn,
}

/// Counts what becomes of messages, and tells when that is clear of all of them.
#[derive(Debug)]
pub(crate) struct Tally {
    ready: AtomicU64,
    refused: AtomicU64,
    lsn: AtomicU64,
    answer: Mutex<Option<oneshot::Sender<Result<Taken, Unbrowsable>>>>,
}

impl Tally {
    /// Everything before `lsn` is part of it.
    pub(super) fn note(&self, lsn: Lsn) {
        self.lsn.fetch_max(lsn.0, Ordering::Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let answer = self.answer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let taken = Taken {
            ready: *self.ready.get_mut(),
            refused: *self.refused.get_mut(),
            lsn: Lsn(*self.lsn.get_mut()),
        };
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _told = answer.send(Ok(taken));
        }
    }
}

/// A message on its way because an operator wants it.
#[derive(Debug)]
pub(crate) struct Moving {
    seq: u64,
    fate: Fate,
    taken: AtomicBool,
    pub(super) tally: Arc<Tally>,
}

impl Moving {
    /// Somebody has it.
    pub(super) fn arrived(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// It is clear who has it: what its queue is to be told.
    pub(super) fn end(&self) -> Option<Command> {
        let taken = self.taken.load(Ordering::Relaxed);
        self.tally.refused.fetch_add(u64::from(!taken), Ordering::Relaxed);
        (self.fate == Fate::Move).then_some(Command::Moved { seq: self.seq, taken })
    }
}

impl Shard {
    // ---- looking -----------------------------------------------------------------------------------------

    /// Answers those who want to see messages, once the turn's own records have their places.
    pub(super) fn browse_all(&mut self) {
        for browse in std::mem::take(&mut self.browsing) {
            self.browse(browse);
        }
    }

    fn browse(&self, browse: Browse) {
        let slot = match self.find(browse.queue) {
            None => return drop(browse.answer.send(Err(Unbrowsable::Gone))),
            Some(slot) if slot.stopped.is_some() => {
                return drop(browse.answer.send(Err(Unbrowsable::Stopped)));
            }
            Some(slot) => slot,
        };
        let plan = match &browse.which {
            Which::From(position) => self.plan_page(slot, *position),
            Which::These { priority, seqs } => self.plan_these(slot, *priority, seqs),
        };
        let Plan { priority, resident, loads, next } = plan;
        if loads.is_empty() {
            let next = match next {
                Next::At(next) => next,
                Next::BehindRead(_) => Position::behind_priority(priority),
            };
            let page = Page { messages: resident, next, next_seq: slot.queue.next_seq() };
            drop(browse.answer.send(Ok(page)));
            return;
        }
        let handle = Arc::clone(&self.handle);
        self.parts.store.load(loads, move |result| {
            let read = Read { browse, priority, resident, next, result };
            handle.mailbox.push(ShardCommand::Browsed(Box::new(read)));
        });
    }

    /// What is resident behind a position; if nothing is, what the store has.
    fn plan_page(&self, slot: &super::Slot, position: Position) -> Plan {
        let store = &self.parts.store;
        let Some(priority) = slot.queue.priority_up_to(position.priority) else {
            return Plan { priority: 0, resident: Vec::new(), loads: Vec::new(), next: Next::At(None) };
        };
        let Position { after, cursor, .. } =
            if priority == position.priority { position } else { Position::START };
        let mut bytes = 0;
        let fits = |message: &Browsed| {
            let before = bytes;
            bytes += message.body_len as usize;
            before < PAGE_BYTES
        };
        let found: Vec<Browsed> =
            slot.queue.browse(priority, after).take_while(fits).take(PAGE_MESSAGES).collect();
        if let Some(last) = found.last() {
            let next = Position { priority, after: Some(last.seq), cursor: ReadCursor::START };
            let (resident, away): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|message| message.message.is_some());
            let away: Vec<u64> = away.into_iter().map(|message| message.seq).collect();
            let loads =
                if away.is_empty() { Vec::new() } else { store.plan_fetch(&slot.index, priority, &away) };
            return Plan { priority, resident, loads, next: Next::At(Some(next)) };
        }
        let paged = slot.queue.paged_behind(priority).and_then(|behind| {
            let after = behind.max(after);
            let load = store.plan_beside(&slot.index, priority, after, PAGE_BYTES, cursor)?;
            Some((load, after))
        });
        match paged {
            Some((load, after)) => {
                Plan { priority, resident: Vec::new(), loads: vec![load], next: Next::BehindRead(after) }
            }
            None => {
                let next = Next::At(Position::behind_priority(priority));
                Plan { priority, resident: Vec::new(), loads: Vec::new(), next }
            }
        }
    }

    fn plan_these(&self, slot: &super::Slot, priority: u8, seqs: &[u64]) -> Plan {
        let mut resident = Vec::new();
        let mut away = Vec::new();
        for seq in seqs {
            match slot.queue.look_at(priority, *seq) {
                Some(message) if message.message.is_some() => resident.push(message),
                _ => away.push(*seq),
            }
        }
        let loads = self.parts.store.plan_fetch(&slot.index, priority, &away);
        Plan { priority, resident, loads, next: Next::At(None) }
    }

    /// Answers with what was read, as far as it is still ready.
    pub(super) fn browsed(&mut self, read: Read) {
        let Read { browse, priority, mut resident, next, result } = read;
        let Some(slot) = Self::find_mut(&mut self.queues, browse.queue) else {
            return drop(browse.answer.send(Err(Unbrowsable::Gone)));
        };
        let found = match result {
            Ok(found) => found,
            Err(LoadError::Moved) => {
                self.browsing.push(browse);
                return;
            }
            Err(error) => {
                self.stop_queue(browse.queue.slot as usize, error.to_string());
                return drop(browse.answer.send(Err(Unbrowsable::Stopped)));
            }
        };
        let (queue, index) = (&slot.queue, &slot.index);
        let is_ready = |seq| queue.is_ready(priority, seq, |priority, seq| index.has(priority, seq));
        let next = match next {
            Next::At(next) => next,
            Next::BehindRead(after) if found.last.is_some() => {
                Some(Position { priority, after: found.last.max(after), cursor: found.cursor() })
            }
            Next::BehindRead(_) => Position::behind_priority(priority),
        };
        resident.retain(|message| is_ready(message.seq));
        let found = found.messages.into_iter().filter(|stored| is_ready(stored.seq));
        resident.extend(found.map(|stored| seen(queue, priority, stored)));
        resident.sort_unstable_by_key(|message| message.seq);
        let page = Page { messages: resident, next, next_seq: queue.next_seq() };
        drop(browse.answer.send(Ok(page)));
    }

    // ---- taking out --------------------------------------------------------------------------------------

    /// Takes messages out that are still ready, and sends them where they go.
    pub(super) fn take(&mut self, take: Take) {
        let Take { queue, fate, chosen, answer } = take;
        match self.find(queue) {
            None => return drop(answer.send(Err(Unbrowsable::Gone))),
            Some(slot) if slot.stopped.is_some() => return drop(answer.send(Err(Unbrowsable::Stopped))),
            Some(_) => {}
        }
        let mut letters = Vec::with_capacity(chosen.len());
        let mut messages = Vec::with_capacity(chosen.len());
        for Chosen { priority, stored, to } in chosen {
            letters.push((stored.seq, to));
            messages.push((priority, stored));
        }
        self.apply_to_queue(queue, Command::Take { chosen: messages, fate }, None);
        let taken = std::mem::take(&mut self.taken);
        let tally = Arc::new(Tally {
            ready: AtomicU64::new(taken.len() as u64),
            refused: AtomicU64::new(0),
            lsn: AtomicU64::new(0),
            answer: Mutex::new(Some(answer)),
        });
        let mut taken = taken.into_iter().peekable();
        for (seq, to) in letters {
            // They are taken in the order in which they were chosen.
            if taken.next_if_eq(&seq).is_none() {
                continue;
            }
            let Some((message, queues)) = to else { continue };
            let moving = Moving { seq, fate, taken: AtomicBool::new(false), tally: Arc::clone(&tally) };
            let leaving = Leaving::Moving(moving);
            let buried = Arc::new(Buried { shard: Arc::clone(&self.handle), queue, leaving });
            publish_dead_letter(&mut self.dead_letters, &message, &queues, Some(&buried));
        }
        self.tallies.push(tally);
    }
}

/// A message that was read, as an operator sees it.
fn seen(queue: &Queue, priority: u8, stored: StoredMessage) -> Browsed {
    match queue.look_at(priority, stored.seq) {
        Some(known) => Browsed { message: Some(stored.message), ..known },
        None => {
            let ttl_ms = own_ttl_ms(queue, &stored.message);
            queue.look_at_paged(priority, stored, ttl_ms)
        }
    }
}

/// After how many milliseconds a message of the queue expires by itself.
pub(super) fn own_ttl_ms(queue: &Queue, message: &Message) -> Option<u64> {
    match queue.options().settings.kind {
        QueueKind::Gate => Some(delayed::delay_ms(message)),
        QueueKind::Classic | QueueKind::Quorum => message.expiration_ms(),
    }
}
