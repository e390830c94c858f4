//! The memory alarm: publishers wait while messages take more memory than allowed (features.md B1).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Watches memory against a limit.
///
/// Two counts are compared with it and the lower one decides: what queues hold, which counts a message in
/// several queues several times, and what the process has resident, which allocators give back late.
#[derive(Debug)]
pub(crate) struct MemoryAlarm {
    limit: i64,
    /// Below this the alarm clears: well below the limit, or it would rise and clear with every few messages.
    clear_below: i64,
    held: AtomicI64,
    raised: AtomicBool,
}

impl MemoryAlarm {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let limit = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
        Self {
            limit,
            clear_below: limit - limit / 8,
            held: AtomicI64::new(0),
            raised: AtomicBool::new(false),
        }
    }

    /// Adds to what queues hold.
    pub(crate) fn add(&self, bytes: i64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether queues may hold more resident messages than each needs: a quarter of the limit is theirs.
    pub(crate) fn has_room(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.limit / 4
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Whether the alarm may have to change: cheap enough for every turn.
    pub(crate) fn is_due(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        // While it stands every turn looks: memory may be given back without any queue taking part.
        self.is_raised() || held > self.limit
    }

    /// Looks at the memory again; returns the alarm's new state if it changed.
    pub(crate) fn check(&self) -> Option<bool> {
        let held = self.held.load(Ordering::Relaxed);
        let bound = if self.is_raised() { self.clear_below - 1 } else { self.limit };
        let raise = held > bound && resident_bytes().is_none_or(|resident| resident > bound);
        (self.raised.swap(raise, Ordering::AcqRel) != raise).then_some(raise)
    }
}

/// Resident memory of this process, if the system tells.
fn resident_bytes() -> Option<i64> {
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
        let alarm = MemoryAlarm::new(1);
        alarm.add(2);
        assert_eq!(alarm.check(), Some(true));
        assert_eq!(alarm.check(), None);
        alarm.add(-2);
        assert_eq!(alarm.check(), Some(false));
    }

    #[test]
    fn it_clears_well_below_the_limit() {
        let alarm = MemoryAlarm::new(800);
        alarm.add(801);
        assert_eq!(alarm.check(), Some(true));
        alarm.add(-50);
        assert_eq!(alarm.check(), None);
        alarm.add(-52);
        assert_eq!(alarm.check(), Some(false));
    }
}
