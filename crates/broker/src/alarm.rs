//! The memory alarm: publishers wait while messages take more memory than allowed (features.md B1).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Watches memory against a limit.
///
/// Two counts are compared with it and the lower one decides: what queues hold, which counts a message in
/// several queues several times, and what the process has resident, which allocators give back late.
#[derive(Debug)]
pub(crate) struct MemoryAlarm {
    limit: AtomicI64,
    held: AtomicI64,
    raised: AtomicBool,
}

impl MemoryAlarm {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let limit = AtomicI64::new(i64::try_from(limit_bytes).unwrap_or(i64::MAX));
        Self { limit, held: AtomicI64::new(0), raised: AtomicBool::new(false) }
    }

    /// The limit, in bytes.
    pub(crate) fn limit(&self) -> i64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the limit, in bytes; it counts from the next [`MemoryAlarm::check`] on.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// What queues hold, in bytes.
    pub(crate) fn held(&self) -> i64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Adds to what queues hold.
    pub(crate) fn add(&self, bytes: i64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether queues may hold more resident messages than each needs: a quarter of the limit is theirs.
    pub(crate) fn has_room(&self) -> bool {
        self.held() < self.limit() / 4
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Whether the alarm may have to change: cheap enough for every turn.
    pub(crate) fn is_due(&self) -> bool {
        // While it stands every turn looks: memory may be given back without any queue taking part.
        self.is_raised() || self.held() > self.limit()
    }

    /// Looks at the memory again; returns the alarm's new state if it changed.
    pub(crate) fn check(&self) -> Option<bool> {
        let limit = self.limit();
        // It clears well below the limit, or it would rise and clear with every few messages.
        let bound = if self.is_raised() { limit - limit / 8 - 1 } else { limit };
        // A limit below what the process itself takes asks for publishers to wait, whatever is in queues.
        let is_crowded = self.held() > bound || limit < LIMIT_MIN;
        let raise = is_crowded && resident_bytes().is_none_or(|resident| resident > bound);
        (self.raised.swap(raise, Ordering::AcqRel) != raise).then_some(raise)
    }
}

/// A process takes more than so many bytes without any message.
const LIMIT_MIN: i64 = 1024 * 1024;

/// Resident memory of this process, if the system tells.
pub(crate) fn resident_bytes() -> Option<i64> {
    const PAGE_BYTES: i64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_clears_once_each() {
        // More than this process has resident, so that the count of the queues decides alone.
        let limit = 1 << 40;
        let alarm = MemoryAlarm::new(limit);
        alarm.add(limit as i64);
        assert!(!alarm.is_due());
        assert_eq!(alarm.check(), None);
        alarm.add(-1);
        assert_eq!(alarm.check(), None);
        assert!(!alarm.is_raised());
    }

    #[test]
    fn what_is_not_resident_raises_no_alarm() {
        let alarm = MemoryAlarm::new(1 << 40);
        alarm.add(1 << 41);
        assert!(alarm.is_due());
        assert_eq!(alarm.check(), None);
    }

    #[test]
    fn resident_memory_raises_it_and_draining_clears_it() {
        // Less than any process takes.
        let limit = LIMIT_MIN + 1;
        let alarm = MemoryAlarm::new(limit as u64);
        alarm.add(limit + 1);
        assert_eq!(alarm.check(), Some(true));
        assert_eq!(alarm.check(), None);
        alarm.add(-limit - 1);
        assert_eq!(alarm.check(), Some(false));
    }

    #[test]
    fn it_clears_well_below_the_limit() {
        let alarm = MemoryAlarm::new(2 * LIMIT_MIN as u64);
        alarm.add(2 * LIMIT_MIN + 1);
        assert_eq!(alarm.check(), Some(true));
        alarm.add(-LIMIT_MIN / 8);
        assert_eq!(alarm.check(), None);
        alarm.add(-LIMIT_MIN / 8 - 2);
        assert_eq!(alarm.check(), Some(false));
    }

    #[test]
    fn b1_a_limit_below_what_the_process_takes_makes_publishers_wait_at_once() {
        let alarm = MemoryAlarm::new(25);
        assert_eq!(alarm.check(), Some(true));
        alarm.set_limit(1 << 40);
        assert_eq!(alarm.check(), Some(false));
    }
}
