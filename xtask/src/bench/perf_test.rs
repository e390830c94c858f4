//! RabbitMQ's own load generator, PerfTest, as a check on `warren perf`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::cpu;
use super::peers::on_core;
use crate::process;

/// Seconds that do not count: PerfTest gets ten times faster while Java compiles it.
const WARM_UP: f64 = 6.0;

/// Time for it to start and to end, beside what it is told to run.
const MARGIN: Duration = Duration::from_mins(1);

/// Runs it and tells the processor time of the broker for each message that it consumed, from one of its lines to
/// another, which it prints each second.
pub(super) fn run(jars: &Path, arguments: &str, uri: &str, pid: u32, seconds: f64) -> anyhow::Result<Value> {
    // One more, since the last line may come too late.
    let total = (WARM_UP + seconds).ceil() + 1.0;
    let mut command = on_core(1, Path::new("java"));
    command.arg("-cp").arg(jars.join("*")).arg("com.rabbitmq.perf.PerfTest").args(arguments.split(' '));
    command.args(["--uri", uri, "--interval", "1", "--time", &total.to_string()]);
    let mut looks = Vec::new();
    let ended = process::run_lines(&mut command, Duration::from_secs_f64(total) + MARGIN, |line| {
        if let Some((time, received)) = progress(line) {
            looks.push((time, received, cpu::used(pid)));
        }
    })?;
    if !ended.success() {
        bail!("{} failed", process::shown(&command));
    }
    let mut counted = looks.into_iter().skip_while(|(time, ..)| *time < WARM_UP);
    let (start, _, before) = counted.next().context("PerfTest did not run long enough")?;
    let (mut consumed, mut end, mut after) = (0.0, start, None);
    for (time, received, used) in counted {
        consumed += received * (time - end);
        (end, after) = (time, Some(used));
    }
    let used = (after.context("PerfTest did not run long enough")?? - before?).as_secs_f64();
    if consumed <= 0.0 {
        bail!("no message came");
    }
    Ok(json!({
        "seconds": end - start,
        "consumed": consumed,
        "consumed_per_second": consumed / (end - start),
        "broker_cpu_us_per_message": used * 1e6 / consumed,
        "broker_cpu_share": used / (end - start),
    }))
}

/// The time of a line, in seconds, and the messages that came in each second before it.
fn progress(line: &str) -> Option<(f64, f64)> {
    let after = |name: &str, unit: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split_once(unit)?.0.trim().parse().ok()
    };
    Some((after(", time ", " s,")?, after(", received: ", " msg/s")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_read() {
        let line = "id: test-1, time 2.013 s, sent: 7172 msg/s, confirmed: 7305 msg/s, nacked: 0 msg/s, received: 5811 \
                    msg/s, min/median/75th/95th/99th consumer latency: 4002/203638/222577/281307/295607 \u{b5}s";
        assert_eq!(progress(line), Some((2.013, 5811.0)));
        assert_eq!(progress("id: test-1, receiving rate avg: 84138 msg/s"), None);
    }
}
