//! Exchanges that hold messages back: what is delayed, and what has to be compared with earlier messages, goes to a
//! queue of the exchange first, which hands it back when it may go on (features.md E7, E8).

use warren_types::{FieldTable, QueueRef};

/// The header that asks for a delay, in milliseconds.
pub const DELAY: &str = "x-delay";

/// The queue before an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// The queue.
    pub queue: QueueRef,
    /// Messages that ask for a delay go through it.
    pub delays: bool,
    /// Messages that have a destination go through it.
    pub deduplicates: bool,
}

/// The delay that a message asks for, in milliseconds; none unless it is above 0.
#[must_use]
pub fn delay_ms(headers: &FieldTable) -> Option<u64> {
    let delay = headers.get(DELAY)?.as_integer()?;
    u64::try_from(delay).ok().filter(|delay| *delay > 0)
}
