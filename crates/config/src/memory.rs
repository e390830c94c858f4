//! How much memory there is for this process.

/// Used where the system does not tell: small, so that publishers wait rather than the system runs out.
const FALLBACK_BYTES: u64 = 1 << 30;

/// The machine's memory or the control group's limit, whichever is lower.
pub(crate) fn total_bytes() -> u64 {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let group = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => FALLBACK_BYTES,
    }
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        assert_eq!(meminfo_total("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 * 1024));
        assert_eq!(meminfo_total("nothing"), None);
    }
}
