//! Programs run with a time limit, whose children end with them.
//!
//! Each program leads a process group. That does not hold its children together: `timeout`, for one, makes a group of
//! its own. So each gets a mark in its environment too, which children inherit, and which Linux shows in /proc.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::signal::unix::{SignalKind, signal};

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Time for output that was written before the end to arrive after it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How often marked processes are looked for and killed before those that are left are left alone.
const KILL_ROUNDS: u32 = 100;

/// The environment variable that holds the mark.
const MARK: &str = "XTASK_GROUP";

/// The groups that now run, for [`end_with_children`].
static RUNNING: Mutex<Vec<Id>> = Mutex::new(Vec::new());

/// Counts groups, so that each mark is another one.
static MARKS: AtomicU32 = AtomicU32::new(0);

/// A child process and all that it starts. When this is dropped, nothing of it lives on.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: Id,
}

/// How to find the processes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Id {
    /// The child, which leads the process group.
    pid: Pid,
    mark: String,
}

impl Group {
    /// Starts the command, with nothing to read on its standard input.
    pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mark = format!("{}-{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
        command.stdin(Stdio::null()).process_group(0).env(MARK, &mark);
        let mut running = running();
        let child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
        let id = Id { pid: Pid::from_child(&child), mark };
        running.push(id.clone());
        Ok(Self { child, id })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines of its standard output, which the command must have piped.
    pub(crate) fn lines(&mut self) -> anyhow::Result<Receiver<String>> {
        Ok(read_lines(self.child.stdout.take().context("standard output is not piped")?))
    }

    pub(crate) fn has_ended(&self) -> anyhow::Result<bool> {
        // It stays a zombie: as long as its id is not free, signals to it cannot hit a stranger.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(self.id.pid), options).context("cannot wait for a child")?.is_some())
    }

    /// Waits until it has ended; false if the time is over before.
    pub(crate) fn wait(&self, limit: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            if self.has_ended()? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the process, but not its children, to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        kill_process(self.id.pid, Signal::TERM).context("cannot send SIGTERM")
    }

    /// Stops all of the process group where it is.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        kill_process_group(self.id.pid, Signal::STOP).context("cannot send SIGSTOP")
    }

    /// Lets a stopped process group go on.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        kill_process_group(self.id.pid, Signal::CONT).context("cannot send SIGCONT")
    }

    /// Kills what is left of the group and tells how the process ended.
    pub(crate) fn finish(mut self) -> anyhow::Result<ExitStatus> {
        self.kill()
    }

    fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.id.kill();
        running().retain(|id| *id != self.id);
        self.child.wait().context("cannot wait for a child")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After finish, running does not have it any more, and its id may be a stranger's.
        let runs = running().contains(&self.id);
        if runs {
            let _ = self.kill();
        }
    }
}

impl Id {
    fn kill(&self) {
        // It fails only if nothing is left.
        let _ = kill_process_group(self.pid, Signal::KILL);
        for _ in 0..KILL_ROUNDS {
            let marked = self.marked();
            if marked.is_empty() {
                return;
            }
            for pid in marked {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(POLL);
        }
    }

    /// The processes with the mark. Those that have ended do not show their environment any more.
    fn marked(&self) -> Vec<Pid> {
        let expected = format!("{MARK}={}", self.mark);
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == expected.as_bytes())
        };
        pids.filter(is_marked).filter_map(Pid::from_raw).collect()
    }
}

/// Lets no child outlive this program when SIGINT or SIGTERM ends it: they are in groups of their own, where the
/// terminal's Ctrl-C does not reach them.
pub(crate) fn end_with_children() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        let status = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        // The lock is kept until the end, so that nothing is started meanwhile.
        let groups = running();
        groups.iter().for_each(Id::kill);
        std::process::exit(status);
    });
    Ok(())
}

/// Runs a program and passes on each line that it prints.
///
/// # Errors
/// If it cannot be started or does not end within the limit.
pub(crate) fn run_lines(
    command: &mut Command,
    limit: Duration,
    mut each: impl FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut group = Group::spawn(command.stdout(Stdio::piped()))?;
    let lines = group.lines()?;
    let mut open = true;
    let in_time = loop {
        if open {
            match lines.recv_timeout(POLL) {
                Ok(line) => each(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        } else {
            thread::sleep(POLL);
        }
        if group.has_ended()? {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
    };
    let status = group.finish()?;
    while let Ok(line) = lines.recv_timeout(LAST_OUTPUT) {
        each(&line);
    }
    if !in_time {
        bail!("{} did not end within {} s", shown(command), limit.as_secs());
    }
    Ok(status)
}

/// Runs a program whose output goes where ours goes, or where the command says.
///
/// # Errors
/// If it cannot be started, does not end within the limit, or fails.
pub(crate) fn run(command: &mut Command, limit: Duration) -> anyhow::Result<()> {
    let group = Group::spawn(command)?;
    let in_time = group.wait(limit)?;
    let status = group.finish()?;
    if !in_time {
        bail!("{} did not end within {} s", shown(command), limit.as_secs());
    }
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// The last lines of a text file, for a report.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    /// More than anyone reads, and little to hold in memory.
    const BYTES_MAX: u64 = 64 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("cannot read {}: {error}", path.display()),
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str())];
    words.extend(command.get_args());
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            // Nobody may be interested any more; then the rest is read and dropped, so that the writer goes on.
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    receiver
}

fn running() -> MutexGuard<'static, Vec<Id>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn lines_of(script: &str, limit_ms: u64) -> (anyhow::Result<ExitStatus>, Vec<String>) {
        let mut lines = Vec::new();
        let end = run_lines(&mut shell(script), Duration::from_millis(limit_ms), |line| {
            lines.push(line.to_owned())
        });
        (end, lines)
    }

    #[test]
    fn lines_and_status_arrive() {
        let (end, lines) = lines_of("echo one; echo two; printf three; exit 3", 10_000);
        assert_eq!(end.expect("it ends").code(), Some(3));
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn a_child_left_behind_holds_up_nothing() {
        let start = Instant::now();
        let (end, lines) = lines_of("echo one; sleep 100 &", 50_000);
        assert!(end.expect("it ends").success());
        assert_eq!(lines, ["one"]);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn the_limit_ends_all_of_the_group() {
        ends_with_its_parent("sleep 100 & echo $!; sleep 100");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_ends_children_in_groups_of_their_own() {
        ends_with_its_parent("timeout 100 sh -c 'echo $$; sleep 100'");
        ends_with_its_parent("setsid sh -c 'echo $$; sleep 100' & sleep 100");
    }

    /// Runs a script that prints the id of a child, for longer than it may.
    fn ends_with_its_parent(script: &str) {
        let (end, lines) = lines_of(script, 300);
        let why = end.expect_err("it takes too long").to_string();
        assert!(why.contains("did not end within"), "{why}");
        let child = lines[0].parse().ok().and_then(Pid::from_raw).expect("the child's process id");
        let deadline = Instant::now() + Duration::from_secs(10);
        while rustix::process::test_kill_process(child).is_ok() {
            assert!(Instant::now() < deadline, "the child still runs");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut shell("exit 7"), Duration::from_secs(10)).expect_err("it fails");
        assert_eq!(error.to_string(), "sh -c exit 7 ended with exit status: 7");
    }
}
