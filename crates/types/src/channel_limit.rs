use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{ConsumerId, QueueRef};

/// The limit of a channel over all its consumers (`basic.qos` with global=true).
///
/// Queues on any shard ask before they hand a message out, so that none is handed out that the channel cannot take.
/// RabbitMQ has a process for it (`rabbit_limiter`); a lock held for a few instructions does here, and consumers without
/// such a limit never see it.
#[derive(Debug, Default)]
pub struct ChannelLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Most unacked messages; 0 for no limit.
    limit: u32,
    taken: u32,
    /// Who was refused, each once.
    waiting: Vec<(QueueRef, ConsumerId)>,
}

impl State {
    fn has_room(&self) -> bool {
        self.limit == 0 || self.taken < self.limit
    }

    /// Whether there is a place; if not, the consumer waits for one.
    fn admits(&mut self, queue: QueueRef, consumer: ConsumerId) -> bool {
        if self.has_room() {
            return true;
        }
        if !self.waiting.contains(&(queue, consumer)) {
            self.waiting.push((queue, consumer));
        }
        false
    }

    fn admitted(&mut self) -> Vec<(QueueRef, ConsumerId)> {
        if self.has_room() { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}

impl ChannelLimit {
    /// A limit of a channel that has `taken` messages.
    #[must_use]
    pub fn new(limit: u32, taken: u32) -> Self {
        Self { state: Mutex::new(State { limit, taken, waiting: Vec::new() }) }
    }

    /// Takes a place for a message to this consumer. False if there is none: the consumer is remembered, and told of by
    /// [`ChannelLimit::release`] or [`ChannelLimit::set`] when there may be one.
    #[must_use]
    pub fn take(&self, queue: QueueRef, consumer: ConsumerId) -> bool {
        let mut state = self.lock();
        let is_admitted = state.admits(queue, consumer);
        state.taken += u32::from(is_admitted);
        is_admitted
    }

    /// The same for a message that nobody will acknowledge: it needs a free place, but takes none.
    #[must_use]
    pub fn pass(&self, queue: QueueRef, consumer: ConsumerId) -> bool {
        self.lock().admits(queue, consumer)
    }

    /// Whether it limits anything.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.lock().limit > 0
    }

    /// Whether there is a place, which others may take first.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// Counts a message that was handed out before its queue knew of the limit.
    pub fn count(&self) {
        self.lock().taken += 1;
    }

    /// Gives places back; returns who may try again.
    pub fn release(&self, count: u32) -> Vec<(QueueRef, ConsumerId)> {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(count);
        state.admitted()
    }

    /// Changes the limit, 0 for none; returns who may try again.
    pub fn set(&self, limit: u32) -> Vec<(QueueRef, ConsumerId)> {
        let mut state = self.lock();
        state.limit = limit;
        state.admitted()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueId;

    fn queue(slot: u32) -> QueueRef {
        QueueRef { id: QueueId(slot.into()), shard: 0, slot }
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let limit = ChannelLimit::new(2, 1);
        assert!(limit.take(queue(1), ConsumerId(1)));
        assert!(!limit.has_room());
        for _ in 0..2 {
            assert!(!limit.take(queue(1), ConsumerId(1)));
            assert!(!limit.take(queue(2), ConsumerId(2)));
        }
        assert_eq!(limit.release(0), []);
        assert_eq!(limit.release(1), [(queue(1), ConsumerId(1)), (queue(2), ConsumerId(2))]);
        assert_eq!(limit.release(1), [], "nobody waits any more");
        limit.count();
        limit.count();
        assert!(!limit.take(queue(2), ConsumerId(2)));
        assert_eq!(limit.set(1), []);
        assert_eq!(limit.set(0), [(queue(2), ConsumerId(2))]);
        assert!(limit.take(queue(2), ConsumerId(2)));
    }

    #[test]
    fn m24_messages_without_acknowledgement_wait_for_a_place_and_take_none() {
        let limit = ChannelLimit::new(1, 0);
        for _ in 0..3 {
            assert!(limit.pass(queue(1), ConsumerId(1)));
        }
        assert!(limit.take(queue(2), ConsumerId(2)));
        assert!(!limit.pass(queue(1), ConsumerId(1)));
        assert_eq!(limit.release(1), [(queue(1), ConsumerId(1))]);
        assert!(limit.pass(queue(1), ConsumerId(1)));
    }
}
