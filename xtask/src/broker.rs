//! A broker started for a test, or one that runs anyway.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process::{self, Group};

/// Time to print the line that tells the port.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Time to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Lines of the broker's log that are shown when something is wrong with it.
const LOG_LINES_SHOWN: usize = 40;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (host, port) = text.rsplit_once(':').with_context(|| format!("'{text}' is not HOST:PORT"))?;
        let port = port.parse().with_context(|| format!("'{port}' is not a port"))?;
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" => bail!("'{text}' names no host"),
            // Not every client tries all addresses of a name.
            "localhost" => "127.0.0.1",
            host => host,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// A running `warren server` with a data directory of its own.
#[derive(Debug)]
pub(crate) struct Broker {
    group: Group,
    address: Address,
    log: PathBuf,
    data: TempDir,
}

impl Broker {
    /// Starts a broker on a free port and waits until it is ready. What it writes to standard error goes to the log.
    pub(crate) fn start(warren: Command, log: &Path) -> anyhow::Result<Self> {
        // Beside the log, where nobody minds what an interrupted run leaves behind.
        let place = log.parent().context("the log has no folder")?;
        let data = tempfile::Builder::new().prefix("data-").tempdir_in(place)?;
        Self::start_on(warren, log, data)
    }

    /// Kills the broker and starts it again on what it has left.
    pub(crate) fn kill_and_start(self, warren: Command) -> anyhow::Result<Self> {
        let Self { group, log, data, .. } = self;
        if group.has_ended()? {
            bail!(with_log("the broker ended during the run", &log));
        }
        group.finish()?;
        Self::start_on(warren, &log, data)
    }

    fn start_on(mut warren: Command, log: &Path, data: TempDir) -> anyhow::Result<Self> {
        let stderr = File::options().create(true).append(true).open(log);
        let stderr = stderr.with_context(|| format!("cannot write {}", log.display()))?;
        warren.args(["server", "--amqp-port", "0", "--data-dir"]).arg(data.path().join("data"));
        let mut group = Group::spawn(warren.stdout(Stdio::piped()).stderr(stderr))?;
        let ready = group.lines().and_then(|lines| wait_ready(&group, &lines));
        match ready {
            Ok(address) => Ok(Self { group, address, log: log.to_owned(), data }),
            Err(error) => Err(error.context(with_log("the broker did not start", log))),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// Stops the broker as an operator would.
    ///
    /// # Errors
    /// If it has ended before, takes too long, fails, or has panicked.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        // The data directory goes when the broker is gone.
        let Self { group, log, data: _data, .. } = self;
        let problem = if group.has_ended()? {
            Some(format!("the broker ended during the run, with {}", group.finish()?))
        } else {
            group.terminate()?;
            let in_time = group.wait(STOP_LIMIT)?;
            let status = group.finish()?;
            if !in_time {
                Some(format!("the broker ran on for {} s after SIGTERM", STOP_LIMIT.as_secs()))
            } else if !status.success() {
                Some(format!("the broker ended with {status} after SIGTERM"))
            } else if fs::read(&log).is_ok_and(|text| String::from_utf8_lossy(&text).contains("panicked at"))
            {
                // A panic ends one connection only, which a case may well take for what it expects.
                Some("the broker panicked".to_owned())
            } else {
                None
            }
        };
        problem.map_or(Ok(()), |problem| bail!(with_log(&problem, &log)))
    }
}

/// Waits for the line `ready amqp=HOST:PORT[,HOST:PORT..] ...`.
fn wait_ready(group: &Group, lines: &Receiver<String>) -> anyhow::Result<Address> {
    const POLL: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match lines.recv_timeout(POLL) {
            Ok(line) => {
                if let Some(address) = ready_address(&line) {
                    return address;
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("it closed its output before the line 'ready amqp=...'")
            }
            Err(RecvTimeoutError::Timeout) if group.has_ended()? => bail!("it ended at once"),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                bail!("no line 'ready amqp=...' within {} s", START_LIMIT.as_secs())
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn ready_address(line: &str) -> Option<anyhow::Result<Address>> {
    let fields = line.strip_prefix("ready ")?;
    let addresses = fields.split(' ').find_map(|field| field.strip_prefix("amqp="))?;
    Some(addresses.split(',').next().unwrap_or_default().parse())
}

fn with_log(problem: &str, log: &Path) -> String {
    let text = process::tail(log, LOG_LINES_SHOWN);
    if text.is_empty() {
        return format!("{problem}; its log is empty");
    }
    format!("{problem}; the end of {}:\n{text}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> String {
        match text.parse::<Address>() {
            Ok(Address { host, port }) => format!("{host} {port}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(address("localhost:5672"), "127.0.0.1 5672");
        assert_eq!(address("[::1]:1"), "::1 1");
        assert_eq!(address("broker.example:65535"), "broker.example 65535");
    }

    #[test]
    fn other_text_is_no_address() {
        assert_eq!(address("localhost"), "'localhost' is not HOST:PORT");
        assert_eq!(address(":5672"), "':5672' names no host");
        assert!(address("a:99999").starts_with("'99999' is not a port"));
    }

    /// Starts a shell script as the broker, stops it, and tells what was wrong.
    fn problem(script: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        let problem = Broker::start(shell, &folder.path().join("log")).and_then(|broker| {
            std::thread::sleep(Duration::from_millis(200));
            broker.stop()
        });
        problem.map_or_else(|error| format!("{error:#}"), |()| "nothing".to_owned())
    }

    #[test]
    fn a_good_broker_is_started_and_stopped() {
        let script =
            "trap 'exit 0' TERM; echo hello; echo ready amqp=localhost:1; while :; do sleep 0.1; done";
        assert_eq!(problem(script), "nothing");
    }

    #[test]
    fn what_is_wrong_with_a_broker_is_told() {
        let told = |script: &str, expected: &str| {
            let problem = problem(script);
            assert!(problem.contains(expected), "{problem}");
        };
        told("echo no port >&2; exit 1", "no port");
        told("echo ready amqp=localhost:1; exit 3", "the broker ended during the run, with exit status: 3");
        let serve = "echo ready amqp=localhost:1; while :; do sleep 0.1; done";
        told(serve, "the broker ended with signal: 15");
        told(&format!("trap 'exit 4' TERM; {serve}"), "the broker ended with exit status: 4 after SIGTERM");
        told(&format!("trap '' TERM; {serve}"), "the broker ran on for 5 s after SIGTERM");
        told(&format!("trap 'exit 0' TERM; echo thread x panicked at y >&2; {serve}"), "the broker panicked");
    }

    #[test]
    fn the_ready_line_tells_the_first_address() {
        let line = "ready amqp=localhost:4321,127.0.0.1:1 data=/d pid=7 version=0.1.0";
        let found = ready_address(line).expect("it is the line").expect("it is an address");
        assert_eq!(found, Address { host: "127.0.0.1".to_owned(), port: 4321 });
        assert!(ready_address("getting ready amqp=x").is_none());
    }
}
