//! The time that queues see.
//!
//! It goes on as time really passes, whatever the system's clock is set to: while the broker runs by the system's steady
//! clock, from one start to the next by its uptime, and by its clock only if the machine was started in between. Times
//! to live are counted in it, so a clock that jumps neither drops messages early nor keeps them for ever.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 in the time of queues.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    started: Instant,
    started_ms: u64,
    /// Which start of the machine this is; empty if that cannot be told.
    boot: String,
}

/// What all clocks showed at one moment, in milliseconds: kept so that the next start can go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Which start of the machine that was.
    pub boot: String,
    /// Since that start, sleep included.
    pub uptime_ms: u64,
    /// What the system's clock showed, since 1970.
    pub system_ms: u64,
    /// The time of queues.
    pub queues_ms: u64,
}

/// The system's clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jump {
    /// By so many milliseconds.
    Forward(u64),
    Back(u64),
    /// It shows less than before the machine was started, by so many milliseconds at least.
    Behind(u64),
}

impl std::fmt::Display for Jump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |ms: &u64| Duration::from_secs((ms + 500) / 1000);
        match self {
            Self::Forward(ms) => write!(f, "the system's clock was set forward by {:?}", seconds(ms)),
            Self::Back(ms) => write!(f, "the system's clock was set back by {:?}", seconds(ms)),
            Self::Behind(ms) => {
                write!(
                    f,
                    "the system's clock shows {:?} less than before the machine was started",
                    seconds(ms)
                )
            }
        }?;
        f.write_str(
            ": the times to live of messages and queues go on from where they were; set the clock right",
        )
    }
}

/// How far clocks may differ before that is a jump, in milliseconds: a clock that is being corrected runs a bit faster
/// or slower.
const TOLERANCE_MS: u64 = 5000;

/// How often it is looked whether the system's clock was set.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How many looks pass between two readings that are kept.
const LOOKS_PER_READING: u32 = 360;

impl Clock {
    /// Goes on from what was read last; tells if the system's clock was set meanwhile.
    pub(crate) fn start(last: Option<&Reading>) -> (Self, Option<Jump>) {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let (started, uptime_ms, system_ms) = (Instant::now(), uptime_ms(), system_ms());
        let now = Reading { boot: boot.clone(), uptime_ms, system_ms, queues_ms: system_ms };
        let (started_ms, jump) = match last {
            Some(last) => {
                let (passed_ms, jump) = last.passed_until(&now);
                (last.queues_ms + passed_ms, jump)
            }
            None => (system_ms, None),
        };
        (Self { started, started_ms, boot }, jump)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the clock will show `at_ms`.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms.saturating_sub(self.started_ms))
    }

    pub(crate) fn read(&self) -> Reading {
        let boot = self.boot.clone();
        Reading { boot, uptime_ms: uptime_ms(), system_ms: system_ms(), queues_ms: self.now_ms() }
    }

    /// Warns when the system's clock is set, and has a reading kept every hour.
    pub(crate) async fn watch(self, keep: impl Fn(Reading)) {
        let mut last = self.read();
        let mut looks: u32 = 0;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.read();
            let (_, jump) = last.passed_until(&now);
            if let Some(jump) = jump {
                tracing::warn!("{jump}");
            }
            looks += 1;
            if jump.is_some() || looks.is_multiple_of(LOOKS_PER_READING) {
                keep(now.clone());
            }
            last = now;
        }
    }
}

impl Reading {
    /// The milliseconds that have passed until `now`, and whether the system's clock tells otherwise.
    fn passed_until(&self, now: &Self) -> (u64, Option<Jump>) {
        let behind = self.system_ms.saturating_sub(now.system_ms);
        let shown = now.system_ms.saturating_sub(self.system_ms);
        if now.boot != self.boot || now.boot.is_empty() || now.uptime_ms < self.uptime_ms {
            return (shown, (behind > TOLERANCE_MS).then_some(Jump::Behind(behind)));
        }
        let passed = now.uptime_ms - self.uptime_ms;
        if shown > passed + TOLERANCE_MS {
            (passed, Some(Jump::Forward(shown - passed)))
        } else if passed + behind > shown + TOLERANCE_MS {
            (passed, Some(Jump::Back(passed + behind - shown)))
        } else {
            (shown, None)
        }
    }
}

fn system_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn uptime_ms() -> u64 {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    uptime.tv_sec.unsigned_abs() * 1000 + uptime.tv_nsec.unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(boot: &str, uptime_ms: u64, system_ms: u64) -> Reading {
        Reading { boot: boot.to_owned(), uptime_ms, system_ms, queues_ms: 77 }
    }

    #[test]
    fn time_goes_on_as_it_really_passes() {
        let last = reading("a", 50_000, 1_000_000);
        for (now, passed, jump) in [
            (reading("a", 60_000, 1_010_000), 10_000, None),
            // It is being corrected.
            (reading("a", 60_000, 1_012_000), 12_000, None),
            (reading("a", 60_000, 1_008_000), 8_000, None),
            (reading("a", 50_100, 999_000), 0, None),
            (reading("a", 60_000, 4_610_000), 10_000, Some(Jump::Forward(3_600_000))),
            (reading("a", 60_000, 1_000_000), 10_000, Some(Jump::Back(10_000))),
            (reading("a", 60_000, 400_000), 10_000, Some(Jump::Back(610_000))),
            // The machine was started again, and only the system's clock tells how long that took.
            (reading("b", 1000, 4_610_000), 3_610_000, None),
            (reading("b", 900_000, 990_000), 0, Some(Jump::Behind(10_000))),
            (reading("b", 900_000, 999_000), 0, None),
            (reading("a", 1000, 1_030_000), 30_000, None),
            (reading("", 60_000, 4_610_000), 3_610_000, None),
        ] {
            assert_eq!(last.passed_until(&now), (passed, jump), "{now:?}");
        }
        let unknown = reading("", 50_000, 1_000_000);
        assert_eq!(unknown.passed_until(&reading("", 60_000, 4_610_000)), (3_610_000, None));
    }

    #[test]
    fn jumps_are_told_in_plain_words() {
        let told = Jump::Forward(3_599_100).to_string();
        assert!(told.starts_with("the system's clock was set forward by 3599s: the times to live"), "{told}");
    }

    #[test]
    fn a_start_goes_on_from_the_last_reading() {
        let (first, jump) = Clock::start(None);
        assert_eq!(jump, None);
        // As if the system's clock had been an hour behind then.
        let last = Reading { system_ms: system_ms() - 3_600_000, ..first.read() };
        let (second, jump) = Clock::start(Some(&last));
        assert!(matches!(jump, Some(Jump::Forward(3_595_000..=3_605_000))), "{jump:?}");
        let passed = second.now_ms() - last.queues_ms;
        assert!(passed < 60_000, "{passed} ms have passed");
    }
}
