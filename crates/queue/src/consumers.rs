//! The consumers of a queue and the rounds in which they are served.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_types::{ChannelId, ConnectionId, ConsumerId, QueueRef};

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

    /// Whether it could take a message, but for what other queues hand out at this moment.
    fn would_take(&self) -> bool {
        self.can_take() && self.new.limit.as_ref().is_none_or(|limit| limit.has_room())
    }

    /// Takes a place of its channel's limit; if there is none, it waits for one. Who acknowledges nothing waits as
    /// well, but takes no place (`rabbit_limiter:can_send/3`).
    fn take_place(&mut self, queue: QueueRef) -> bool {
        let NewConsumer { consumer, no_ack, limit, .. } = &self.new;
        self.limited = limit.as_ref().is_some_and(|limit| match no_ack {
            true => !limit.pass(queue, *consumer),
            false => !limit.take(queue, *consumer),
        });
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
    /// With a single active consumer: the active one, and behind it the others in the order in which they came.
    line: Option<VecDeque<usize>>,
    /// A consumer of higher priority takes over from the active one, once that has settled what it has.
    preempts: bool,
}

impl Consumers {
    pub(crate) fn new(single_active: bool, preempts: bool) -> Self {
        Self { line: single_active.then(VecDeque::new), preempts, ..Self::default() }
    }

    /// Whether only one consumer at a time gets messages.
    pub(crate) fn is_single_active(&self) -> bool {
        self.line.is_some()
    }

    /// The one that gets messages, if only one does.
    pub(crate) fn active(&self) -> Option<(ConnectionId, ConsumerId)> {
        let consumer = self.slots[*self.line.as_ref()?.front()?].as_ref()?;
        Some((consumer.new.connection, consumer.new.consumer))
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

    /// What the consumer was added as.
    pub(crate) fn get(&self, connection: ConnectionId, consumer: ConsumerId) -> Option<&NewConsumer> {
        let slot = self.by_id.get(&(connection, consumer))?;
        self.slots[*slot].as_ref().map(|consumer| &consumer.new)
    }

    /// Removes the consumers for which `gone` is true and returns them.
    pub(crate) fn remove(&mut self, gone: impl Fn(&NewConsumer) -> bool) -> Vec<NewConsumer> {
        let mut removed = Vec::new();
        let active = self.line.as_ref().and_then(|line| line.front().copied());
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
        if active.is_some_and(|active| self.slots[active].is_none()) {
            self.activate(self.first_in_line());
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
        if self.line.is_none() {
            let slot = self.next_slot(queue)?;
            return self.slots[slot].as_mut();
        }
        let place = self.active_place()?;
        self.activate(Some(place));
        let active = *self.line.as_ref()?.front()?;
        let consumer = self.slots[active].as_mut()?;
        (consumer.can_take() && consumer.take_place(queue)).then_some(consumer)
    }

    /// The place in the line of the consumer that is active now, if any.
    fn active_place(&self) -> Option<usize> {
        if !self.preempts {
            return Some(0);
        }
        let active = self.slots[*self.line.as_ref()?.front()?].as_ref()?;
        self.first_in_line().filter(|first| *first == 0 || active.unacked == 0)
    }

    /// The place in the line of who came first among those of the highest priority.
    fn first_in_line(&self) -> Option<usize> {
        let priority = |slot: &usize| self.slots[*slot].as_ref().map(|consumer| consumer.new.priority);
        let places = self.line.as_ref()?.iter().map(priority).enumerate();
        places.max_by_key(|(place, priority)| (*priority, std::cmp::Reverse(*place))).map(|(place, _)| place)
    }

    fn activate(&mut self, place: Option<usize>) {
        if let Some(line) = &mut self.line
            && let Some(slot) = place.filter(|place| *place > 0).and_then(|place| line.remove(place))
        {
            line.push_front(slot);
        }
    }

    /// This consumer, if it can take a message; it has taken a place of its channel's limit then.
    pub(crate) fn this(&mut self, id: (ConnectionId, ConsumerId), queue: QueueRef) -> Option<&mut Consumer> {
        let consumer = self.slots[*self.by_id.get(&id)?].as_mut()?;
        (consumer.can_take() && consumer.take_place(queue)).then_some(consumer)
    }

    /// Whether [`Consumers::this`] would give this one.
    pub(crate) fn can_take(&self, id: (ConnectionId, ConsumerId)) -> bool {
        let slot = self.by_id.get(&id).and_then(|slot| self.slots[*slot].as_ref());
        slot.is_some_and(Consumer::would_take)
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
            Some(line) => self.active_place().and_then(|place| line.get(place)).is_some_and(can_take),
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
    /// How long it may take to acknowledge, if not as long as the queue allows.
    pub timeout_ms: Option<u64>,
}

impl Consumer {
    /// Accounts for a delivery of so many bytes.
    pub(crate) fn take(&mut self, memory: usize) -> Taker {
        self.in_flight += memory;
        if !self.new.no_ack {
            self.unacked += 1;
        }
        let NewConsumer { connection, channel, consumer, no_ack, timeout_ms, .. } = self.new;
        let limited = !no_ack && self.new.limit.is_some();
        Taker { connection, channel, consumer, no_ack, limited, timeout_ms }
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
