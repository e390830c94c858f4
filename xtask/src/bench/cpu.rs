//! Processor time of servers, as Linux accounts for it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What a process and its children have used since they started.
pub(super) fn used(pid: u32) -> anyhow::Result<Duration> {
    let mut total = one(pid).with_context(|| format!("there is no process {pid}"))?;
    for child in descendants(pid) {
        // A child may end at any moment.
        total += one(child).unwrap_or_default();
    }
    Ok(total)
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn fields(pid: u32) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no name in its status")?;
    Ok(rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
}

fn one(pid: u32) -> anyhow::Result<Duration> {
    let fields = fields(pid)?;
    // Fields 14 and 15 of proc(5), in ticks.
    let ticks: u64 = fields.iter().skip(11).take(2).sum();
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let parent = fields(process).ok().and_then(|fields| u32::try_from(*fields.get(1)?).ok());
        if let Some(parent) = parent {
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
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn children_count_with_their_parents() {
        let mut parent = Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 10'; :"])
            .spawn()
            .expect("there is a shell");
        let (start, mut time) = (Instant::now(), Duration::ZERO);
        while time < Duration::from_millis(50) && start.elapsed() < Duration::from_secs(20) {
            time = used(parent.id()).expect("it runs");
        }
        let found = descendants(parent.id());
        for pid in found.iter().filter_map(|pid| rustix::process::Pid::from_raw(i32::try_from(*pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = parent.kill();
        parent.wait().expect("it is our child");
        assert!(time >= Duration::from_millis(50), "{time:?}");
    }
}
