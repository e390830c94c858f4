//! What a broker's processes have used, as Linux tells.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// A process with all its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pid: u32,
}

/// What they have used at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time since they started.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// What the watched processes have used, if any are watched.
pub(crate) fn usage(watched: Option<Watched>) -> anyhow::Result<Option<Usage>> {
    watched.map(Watched::usage).transpose()
}

/// Processor time from one look to the next.
pub(crate) fn cpu_between(before: Option<Usage>, after: Option<Usage>) -> Option<Duration> {
    before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu))
}

impl Watched {
    pub(crate) fn new(pid: u32) -> anyhow::Result<Self> {
        let watched = Self { pid };
        watched.usage().with_context(|| format!("there is no process {pid}"))?;
        Ok(watched)
    }

    /// Adds up what the process and its children have used.
    pub(crate) fn usage(self) -> anyhow::Result<Usage> {
        let mut total = one(self.pid)?;
        for child in descendants(self.pid) {
            // A child may end at any moment.
            if let Ok(usage) = one(child) {
                total.cpu += usage.cpu;
                total.memory += usage.memory;
            }
        }
        Ok(total)
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn fields(pid: u32) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no name in its status")?;
    Ok(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}

fn one(pid: u32) -> anyhow::Result<Usage> {
    let fields = fields(pid)?;
    let field = |number: usize| fields.get(number).copied().unwrap_or(0);
    // Fields 14 and 15 of proc(5), in ticks, and 24, in pages.
    let ticks = field(11) + field(12);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let cpu = Duration::from_nanos(ticks * 1_000_000_000 / per_second);
    Ok(Usage { cpu, memory: field(21) * rustix::param::page_size() as u64 })
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Ok(fields) = fields(process) {
            let parent = fields.get(1).copied().unwrap_or(0) as u32;
            children.entry(parent).or_default().push(process);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        let of_parent = children.remove(&parent).unwrap_or_default();
        next.extend(&of_parent);
        found.extend(of_parent);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_children_are_counted() {
        let watched = Watched::new(std::process::id()).expect("it runs");
        let before = watched.usage().expect("it runs");
        assert!(before.memory > 100_000);
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 10"])
            .spawn()
            .expect("there is a shell");
        let start = std::time::Instant::now();
        let mut used = Duration::ZERO;
        while used < Duration::from_millis(50) && start.elapsed() < Duration::from_secs(20) {
            used = watched.usage().expect("it runs").cpu.saturating_sub(before.cpu);
        }
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        assert!(used >= Duration::from_millis(50), "{used:?}");
    }
}
