//! The time that queues see.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by the clock of the system at the start and by the steady one since: it never jumps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Instant::now(),
            started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the clock will show `at_ms`.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + std::time::Duration::from_millis(at_ms.saturating_sub(self.started_ms))
    }
}
