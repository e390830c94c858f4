use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::Message;

/// The last messages that went through an exchange, for queues that are bound to it later.
///
/// Routing only names the history: whoever hands the message to its queues also records it here. It lives in memory: a
/// restart empties it, also that of a durable exchange, as in RabbitMQ 3, whose plugin has a table in memory; RabbitMQ 4
/// writes the whole history anew with every message.
#[derive(Debug)]
pub struct History {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<Message>,
    /// Memory of the messages, in bytes.
    memory: usize,
}

impl History {
    /// Most memory that the messages of one history take, in bytes; the last message is kept whatever its size.
    /// A client chooses how many there are, and how large they may be is a setting for queues.
    pub const MEMORY_MAX: usize = 64 * 1024 * 1024;

    /// A history of up to `limit` messages.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Mutex::default() }
    }

    /// Adds a message; the oldest go if there are too many, or too large ones.
    pub fn record(&self, message: Message) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { messages, memory } = &mut *kept;
        *memory += message.memory();
        messages.push_back(message);
        while messages.len() > self.limit || (*memory > Self::MEMORY_MAX && messages.len() > 1) {
            let Some(oldest) = messages.pop_front() else { break };
            *memory -= oldest.memory();
        }
    }

    /// The messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).messages.iter().cloned().collect()
    }
}

impl PartialEq for History {
    /// Whether both are the same history.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for History {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{MessageHead, MessageParts};

    fn bodies(history: &History) -> Vec<u8> {
        history.messages().iter().map(|message| message.body()[0]).collect()
    }

    #[test]
    fn the_oldest_go_first() {
        let history = History::new(3);
        assert_eq!(bodies(&history), []);
        for body in 0..5 {
            history.record(Message::new(&MessageParts::default(), &[body]));
        }
        assert_eq!(bodies(&history), [2, 3, 4]);
    }

    #[test]
    fn memory_is_bounded_but_for_one_message() {
        let history = History::new(1000);
        let large = |first: u8, len: usize| {
            let mut body = vec![0; len];
            body[0] = first;
            MessageHead::of(&MessageParts::default()).message_with(Bytes::from(body))
        };
        let third = History::MEMORY_MAX / 3;
        (0..4).for_each(|body| history.record(large(body, third)));
        assert_eq!(bodies(&history), [2, 3]);
        history.record(large(9, History::MEMORY_MAX + 1));
        assert_eq!(bodies(&history), [9]);
        history.record(large(10, 1));
        assert_eq!(bodies(&history), [10]);
    }
}
