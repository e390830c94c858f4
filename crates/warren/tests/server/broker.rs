//! A broker as a process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for anything that should happen at once: generous, since tests share the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker with a directory of its own; both go when it is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    pub ready: Ready,
    stderr: PathBuf,
    _directory: TempDir,
}

/// The line that tells where the broker is.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub line: String,
    /// From the start of the process to the line.
    pub after: Duration,
}

/// What became of a process that was expected to end by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ready {
    /// The value of one of the line's fields.
    pub(crate) fn field(&self, name: &str) -> &str {
        let value = self.line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no field '{name}' in '{}'", self.line))
    }
}

/// The program, with an environment that has no settings for it.
pub(crate) fn warren() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for name in ["DATA_DIR", "CONFIG", "BIND", "AMQP_PORT", "THREADS"] {
        command.env_remove(format!("WARREN_{name}"));
    }
    command
}

/// Runs a command that is expected to end by itself.
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut child = (command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
        .expect("the program can be started");
    // It may print more than fits into a pipe.
    let stdout = read_all(child.stdout.take().expect("it is a pipe"));
    let stderr = read_all(child.stderr.take().expect("it is a pipe"));
    let Some(status) = wait(&mut child, PATIENCE) else {
        child.kill().expect("it is our process");
        panic!("it did not end: {}", stdout.join().expect("it was read"));
    };
    let text = |printed: JoinHandle<String>| printed.join().expect("it was read");
    Ended { status, stdout: text(stdout), stderr: text(stderr) }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("it prints text");
        text
    })
}

/// Waits for a process to end.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let mut ended = None;
    poll(patience, || {
        ended = child.try_wait().expect("it is our process");
        ended.is_some()
    });
    ended
}

/// Looks again and again until `done` or until `patience` ends; returns whether it is done.
pub(crate) fn poll(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Broker {
    /// Starts a broker on a port of its own.
    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// Starts a broker with lines of configuration.
    pub(crate) fn with_config(config: &str) -> Self {
        Self::launch(config, |command, _| {
            command.args(["--bind", "127.0.0.1", "--amqp-port", "0"]);
        })
    }

    /// Starts a broker; `options` may add to its command line and environment, and is told its directory.
    pub(crate) fn launch(config: &str, options: impl FnOnce(&mut Command, &Path)) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let stderr = directory.path().join("stderr");
        let mut command = warren();
        command.arg("server").env("WARREN_DATA_DIR", directory.path().join("data"));
        if !config.is_empty() {
            let path = directory.path().join("warren.conf");
            fs::write(&path, config).expect("there is room for a file");
            command.arg("--config").arg(path);
        }
        options(&mut command, directory.path());
        let log = fs::File::create(&stderr).expect("there is room for a file");
        let start = Instant::now();
        let mut child = (command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn())
            .expect("the program can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it prints text");
        if line.is_empty() {
            let status = child.wait().expect("it is our process");
            panic!("the broker ended with {status}: {}", fs::read_to_string(&stderr).unwrap_or_default());
        }
        let ready = Ready { line: line.trim_end().to_owned(), after: start.elapsed() };
        Self { child, ready, stderr, _directory: directory }
    }

    /// Where AMQP is served.
    pub(crate) fn address(&self) -> SocketAddr {
        let listed = self.ready.field("amqp");
        let first = listed.split(',').next().unwrap_or(listed);
        let mut found = first.to_socket_addrs().expect("the line has addresses that exist");
        found.next().expect("there is one at least")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).expect("the file is ours")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is our process");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self, patience: Duration) -> ExitStatus {
        wait(&mut self.child, patience).unwrap_or_else(|| panic!("it still runs: {}", self.log()))
    }

    /// The most memory it ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    /// The memory it has resident now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        files.count()
    }

    /// How many of its threads have this name.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|found| found.trim_end() == name).count()
    }

    fn status(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let value = text.lines().find_map(|line| line.strip_prefix(field)).expect("the system tells");
        let number = value.split_whitespace().next().expect("there is a number");
        number.parse().expect("it is a number")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A broker that has ended needs no end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let log = fs::read_to_string(&self.stderr).unwrap_or_default();
        if std::thread::panicking() {
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the broker's last words, latest first:\n{}", last.join("\n"));
        } else {
            assert!(!log.contains("panicked"), "the broker panicked: {log}");
        }
    }
}
