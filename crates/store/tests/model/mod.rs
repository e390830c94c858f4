//! What a store must hold.

use std::collections::BTreeMap;

use warren_store::Lsn;
use warren_types::{Message, QueueId};

pub const QUEUES: [QueueId; 3] = [QueueId(1), QueueId(2), QueueId(7)];

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may be lost or not.
    Uncertain,
    /// It must be there.
    Durable,
    /// It may be there or not.
    Forgetting,
    /// It must not be there.
    Forgotten,
}

#[derive(Debug)]
struct Known {
    message: Message,
    persistent: bool,
    fate: Fate,
    /// Where the record of its arrival ends, and of its end.
    stored: Option<Lsn>,
    forgotten: Option<Lsn>,
}

impl Known {
    fn is_live(&self) -> bool {
        matches!(self.fate, Fate::Uncertain | Fate::Durable)
    }
}

type Key = (QueueId, u8, u64);
type Metadata = BTreeMap<Vec<u8>, Vec<u8>>;

pub struct Model {
    /// Whether queues are purged.
    pub has_purges: bool,
    state: u64,
    messages: BTreeMap<Key, Known>,
    next_seq: BTreeMap<QueueId, u64>,
    /// What happened in this turn and has no place in the log yet.
    stored_now: Vec<Key>,
    forgotten_now: Vec<Key>,
    metadata: Metadata,
    /// States of the metadata since the last that is durable, with where they ended.
    metadata_history: Vec<(Lsn, Metadata)>,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self {
            has_purges: true,
            state: seed,
            messages: BTreeMap::new(),
            next_seq: BTreeMap::new(),
            stored_now: Vec::new(),
            forgotten_now: Vec::new(),
            metadata: Metadata::new(),
            metadata_history: vec![(Lsn(0), Metadata::new())],
        }
    }

    /// A number below `below`.
    pub fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub fn some_queues(&mut self) -> Vec<QueueId> {
        let chosen = self.random(7) + 1;
        (0..3).filter(|bit| chosen & (1 << bit) != 0).map(|bit| QUEUES[bit]).collect()
    }

    pub fn publish(&mut self, queue: QueueId, priority: u8, message: &Message, persistent: bool) -> u64 {
        let next = self.next_seq.entry(queue).or_default();
        let seq = *next;
        *next += 1;
        let fate = Fate::Uncertain;
        let known = Known { message: message.clone(), persistent, fate, stored: None, forgotten: None };
        self.messages.insert((queue, priority, seq), known);
        self.stored_now.push((queue, priority, seq));
        seq
    }

    /// Mostly the oldest, as queues do.
    pub fn forget_some(&mut self) -> Vec<(QueueId, u8, u64, bool, u64)> {
        let mut forgotten = Vec::new();
        for _ in 0..self.random(8) {
            let live: Vec<Key> =
                self.messages.iter().filter(|(_, known)| known.is_live()).map(|(key, _)| *key).collect();
            if live.is_empty() {
                break;
            }
            let at = if self.random(3) == 0 { self.random(live.len() as u64) } else { self.random(3) };
            let key = live[(at as usize).min(live.len() - 1)];
            self.forget(key);
            let known = &self.messages[&key];
            forgotten.push((key.0, key.1, key.2, known.persistent, known.message.body_len() as u64));
        }
        forgotten
    }

    pub fn forget_all(&mut self) -> (QueueId, u8, u64, Vec<u64>) {
        let (queue, priority) = (QUEUES[self.random(3) as usize], self.random(2) as u8);
        let live = self.live(queue, priority);
        let last = live.get(self.random(live.len() as u64 + 1) as usize).copied().unwrap_or(u64::MAX >> 8);
        let except: Vec<u64> = live.iter().copied().filter(|_| self.random(4) == 0).collect();
        for seq in live.into_iter().filter(|seq| *seq <= last && !except.contains(seq)) {
            self.forget((queue, priority, seq));
        }
        (queue, priority, last, except)
    }

    fn forget(&mut self, key: Key) {
        if let Some(known) = self.messages.get_mut(&key) {
            known.fate = Fate::Forgetting;
            self.forgotten_now.push(key);
        }
    }

    pub fn change(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = vec![self.random(5) as u8];
        let value = (self.random(3) > 0).then(|| self.random(1 << 40).to_le_bytes().to_vec());
        match &value {
            Some(value) => self.metadata.insert(key.clone(), value.clone()),
            None => self.metadata.remove(&key),
        };
        (key, value)
    }

    pub fn changed(&mut self, lsn: Lsn) {
        self.metadata_history.push((lsn, self.metadata.clone()));
    }

    pub fn appended(&mut self, end: Option<Lsn>) {
        for key in self.stored_now.drain(..) {
            if let Some(known) = self.messages.get_mut(&key) {
                known.stored = end;
            }
        }
        for key in self.forgotten_now.drain(..) {
            if let Some(known) = self.messages.get_mut(&key) {
                known.forgotten = end;
            }
        }
    }

    /// Learns what is durable.
    pub fn durable(&mut self, is_durable: impl Fn(Lsn) -> bool) {
        for known in self.messages.values_mut() {
            match known.fate {
                Fate::Uncertain if known.persistent && known.stored.is_some_and(&is_durable) => {
                    known.fate = Fate::Durable;
                }
                Fate::Forgetting if known.forgotten.is_some_and(&is_durable) => known.fate = Fate::Forgotten,
                _ => {}
            }
        }
        let last = self.metadata_history.iter().rposition(|(lsn, _)| is_durable(*lsn));
        self.metadata_history.drain(..last.unwrap_or(0));
    }

    pub fn live(&self, queue: QueueId, priority: u8) -> Vec<u64> {
        let all = self.messages.range((queue, priority, 0)..=(queue, priority, u64::MAX));
        all.filter(|(_, known)| known.is_live()).map(|(key, _)| key.2).collect()
    }

    /// Bytes of all messages that are there, each with so many on top.
    pub fn live_len(&self, overhead: u64) -> u64 {
        let live = self.messages.values().filter(|known| known.is_live());
        let len = |message: &Message| {
            let (packed, body) = message.stored();
            (packed.len() + body.len()) as u64
        };
        live.map(|known| len(&known.message) + overhead).sum()
    }

    pub fn certain(&self, queue: QueueId, priority: u8) -> Vec<u64> {
        let all = self.messages.range((queue, priority, 0)..=(queue, priority, u64::MAX));
        all.filter(|(_, known)| known.fate == Fate::Durable).map(|(key, _)| key.2).collect()
    }

    pub fn message(&self, queue: QueueId, priority: u8, seq: u64) -> Option<(&Message, Fate)> {
        self.messages.get(&(queue, priority, seq)).map(|known| (&known.message, known.fate))
    }

    /// What was found is there from now on, and nothing else.
    pub fn resume(&mut self, queue: QueueId, priority: u8, found: &[u64]) {
        let all = self.messages.range_mut((queue, priority, 0)..=(queue, priority, u64::MAX));
        for (key, known) in all {
            known.fate = match found.contains(&key.2) {
                true => Fate::Durable,
                false => Fate::Forgotten,
            };
        }
    }

    /// Whether the definitions are as they were at some time since they were last durable.
    pub fn explains(&self, found: &Metadata) -> bool {
        self.metadata_history.iter().any(|(_, state)| state == found)
    }

    pub fn resume_metadata(&mut self, found: &Metadata) {
        self.metadata = found.clone();
        self.metadata_history = vec![(Lsn(0), found.clone())];
    }
}
