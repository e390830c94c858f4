//! The consumers of a queue and the rounds in which they are served.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_types::{ChannelId, ChannelLimit, ConnectionId, ConsumerId, QueueRef};

use crate::NewConsumer;

/// Bytes (by [`warren_types::Message::memory`]) that may be on their way to a consumer's socket at a time.
///
/// It bounds what a client that does not read can pile up. A message larger than what is left still goes.
pub const CONSUMER_WINDOW: usize = 512 * 1024;

#[derive(Debug)]
pub(crate) struct Consumer {
    pub new: NewConsumer,
    /// Messages delivered and not settled; stays 0 with no-ack.
    pub unacked: u32,
    /// Bytes on their way to the socket.
    in_flight: usize,
    /// Found no room in its channel's limit and waits for `Resume`.
    limited: bool,
    /// Whether it stands in the round.
    in_round: bool,
}

impl Consumer {
    fn can_take(&self) -> bool {
        !self.limited
            && self.in_flight < CONSUMER_WINDOW
            && (self.new.no_ack || self.new.prefetch == 0 || self.unacked < self.new.prefetch)
    }

    /// The limit that deliveries to it count for.
    fn limit(&self) -> Option<&ChannelLimit> {
        self.new.limit.as_deref().filter(|_| !self.new.no_ack)
    }

    /// Whether it could take a message, but for what other queues hand out at this moment.
    fn would_take(&self) -> bool {
        self.can_take() && self.limit().is_none_or(ChannelLimit::has_room)
    }

    /// Takes a place of its channel's limit; if there is none, it waits for one.
    fn take_place(&mut self, queue: QueueRef) -> bool {
        self.limited = self.limit().is_some_and(|limit| !limit.take(queue, self.new.consumer));
        !self.limited
    }
}

/// All consumers of a queue.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    slots: Vec<Option<Consumer>>,
    by_id: HashMap<(ConnectionId, ConsumerId), usize, RandomState>,
    /// For each priority, the highest first: slots of the consumers that may be able to take a message, the next
    /// one first.
    rounds: Vec<(i64, VecDeque<usize>)>,
    /// With a single active consumer: consumers in the order in which they came, the active one first.
    line: Option<VecDeque<usize>>,
}

impl Consumers {
    pub(crate) fn new(single_active: bool) -> Self {
        Self { line: single_active.then(VecDeque::new), ..Self::default() }
    }

    /// Whether only one consumer at a time gets messages.
    pub(crate) fn is_single_active(&self) -> bool {
        self.line.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn has_exclusive(&self) -> bool {
        self.slots.iter().flatten().any(|consumer| consumer.new.exclusive)
    }

    pub(crate) fn add(&mut self, new: NewConsumer) {
        let id = (new.connection, new.consumer);
        let consumer = Consumer { new, unacked: 0, in_flight: 0, limited: false, in_round: true };
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        let priority = consumer.new.priority;
        self.slots[slot] = Some(consumer);
        self.by_id.insert(id, slot);
        if let Some(line) = &mut self.line {
            line.push_back(slot);
        }
        self.join_round(priority, slot);
    }

    /// Removes the consumers for which `gone` is true and returns them.
    pub(crate) fn remove(&mut self, gone: impl Fn(&NewConsumer) -> bool) -> Vec<NewConsumer> {
        let mut removed = Vec::new();
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|consumer| gone(&consumer.new))
                && let Some(consumer) = self.slots[slot].take()
            {
                for (_, round) in &mut self.rounds {
                    round.retain(|other| *other != slot);
                }
                if let Some(line) = &mut self.line {
                    line.retain(|other| *other != slot);
                }
                self.by_id.remove(&(consumer.new.connection, consumer.new.consumer));
                removed.push(consumer.new);
            }
        }
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
        self.rounds.retain(|(_, round)| !round.is_empty());
        removed
    }

    /// The consumer whose turn it is, if any can take a message; it goes to the end of its round, and has taken a
    /// place of its channel's limit.
    pub(crate) fn next(&mut self, queue: QueueRef) -> Option<&mut Consumer> {
        let active = match &self.line {
            Some(line) => Some(*line.front()?),
            None => None,
        };
        let slot = match active {
            Some(active) => {
                let consumer = self.slots[active].as_mut()?;
                (consumer.can_take() && consumer.take_place(queue)).then_some(active)?
            }
            None => self.next_slot(queue)?,
        };
        self.slots[slot].as_mut()
    }

    fn next_slot(&mut self, queue: QueueRef) -> Option<usize> {
        for (_, round) in &mut self.rounds {
            // The only one in its round has the next turn as well.
            if let [slot] = round.as_slices().0
                && round.len() == 1
                && let slot = *slot
                && let Some(consumer) = self.slots[slot].as_mut()
                && consumer.can_take()
                && consumer.take_place(queue)
            {
                return Some(slot);
            }
            while let Some(slot) = round.pop_front() {
                let Some(consumer) = self.slots[slot].as_mut() else { continue };
                if consumer.can_take() && consumer.take_place(queue) {
                    round.push_back(slot);
                    return Some(slot);
                }
                consumer.in_round = false;
            }
        }
        None
    }

    fn join_round(&mut self, priority: i64, slot: usize) {
        match self.rounds.binary_search_by(|(other, _)| priority.cmp(other)) {
            Ok(found) => self.rounds[found].1.push_back(slot),
            Err(place) => self.rounds.insert(place, (priority, VecDeque::from([slot]))),
        }
    }

    /// Whether [`Consumers::next`] would find one.
    pub(crate) fn any_can_take(&self) -> bool {
        let can_take = |slot: &usize| self.slots[*slot].as_ref().is_some_and(Consumer::would_take);
        match &self.line {
            Some(line) => line.front().is_some_and(can_take),
            None => self.rounds.iter().any(|(_, round)| round.iter().any(can_take)),
        }
    }

    /// Changes a consumer and lets it rejoin the round if it can take messages again.
    pub(crate) fn update(
        &mut self,
        connection: ConnectionId,
        consumer: ConsumerId,
        change: impl FnOnce(&mut Consumer),
    ) {
        let Some(slot) = self.by_id.get(&(connection, consumer)).copied() else { return };
        let Some(found) = self.slots[slot].as_mut() else { return };
        change(found);
        if !found.in_round && found.can_take() {
            found.in_round = true;
            let priority = found.new.priority;
            self.join_round(priority, slot);
        }
    }
}

/// Who takes a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taker {
    pub connection: ConnectionId,
    pub channel: ChannelId,
    pub consumer: ConsumerId,
    pub no_ack: bool,
    /// The delivery takes a place of its channel's limit.
    pub limited: bool,
}

impl Consumer {
    /// Accounts for a delivery of so many bytes.
    pub(crate) fn take(&mut self, memory: usize) -> Taker {
        self.in_flight += memory;
        if !self.new.no_ack {
            self.unacked += 1;
        }
        let NewConsumer { connection, channel, consumer, no_ack, .. } = self.new;
        Taker { connection, channel, consumer, no_ack, limited: self.limit().is_some() }
    }

    /// The socket took so many bytes.
    pub(crate) fn credit(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// So many deliveries were settled.
    pub(crate) fn settled(&mut self, count: u32) {
        self.unacked = self.unacked.saturating_sub(count);
    }

    /// The channel's limit may have room for it.
    pub(crate) fn resume(&mut self) {
        self.limited = false;
    }
}
