//! `cargo xtask bench`: Warren and RabbitMQ side by side, each on one core, with the load generator on another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::broker::Broker;
use crate::process::{self, Group};
use crate::tools;

/// Time for RabbitMQ to start.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time for one measurement.
const ROW_LIMIT: Duration = Duration::from_mins(5);

/// Measures Warren and Debian's RabbitMQ in turn and writes tables of medians and of ratios from the same run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each row is measured on each broker.
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Seconds for each measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,

    /// Rows whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Where the table (.md) and the raw data (.json) go.
    #[arg(long, value_name = "PATH", default_value = "docs/performance/results")]
    out: PathBuf,
}

/// One line of the table: what `warren perf` is asked for, and which of its results is compared.
struct Row {
    name: &'static str,
    command: &'static str,
    figure: &'static str,
    unit: &'static str,
    /// Needs brokers that have done nothing yet: what they have left free would be used again, and seem to cost nothing.
    fresh: bool,
}

const CPU: &str = "broker_cpu_us_per_message";
const OPERATION: &str = "broker_cpu_us_per_operation";

const ROWS: &[Row] = &[
    memory("idle connection with a channel", "idle connections -n 500 --rest 2", "bytes_each"),
    memory("idle durable queue", "idle queues -n 2000 --rest 2", "bytes_each"),
    memory(
        "1 million persistent 100 B messages, resident",
        "backlog -C 1000000",
        "broker_memory_with_the_backlog_bytes",
    ),
    Row { fresh: true, ..cpu("16 B transient, auto-ack", "run -s 16") },
    cpu("1 KB transient, auto-ack", "run -s 1024"),
    cpu("16 B transient, prefetch 1000, ack every 100", "run -s 16 --prefetch 1000 -A 100"),
    cpu(
        "16 B persistent, confirms 1000, ack every 100",
        "run -s 16 --durable --persistent -c 1000 --prefetch 1000 -A 100",
    ),
    cpu(
        "1 KB persistent, confirms 1000, ack every 100",
        "run -s 1024 --durable --persistent -c 1000 --prefetch 1000 -A 100",
    ),
    cpu("fan-out to 10 queues, 100 B, a delivery", "run -s 100 -t fanout -q 10 -y 10"),
    cpu("topic, 1,000 bindings, 10 queues, 100 B", "run -s 100 -t topic --bindings 1000 -q 10 -y 10"),
    cpu("64 KB transient, auto-ack", "run -s 65536"),
    cpu("1 MB transient, auto-ack", "run -s 1048576"),
    operation("open and close a connection with a channel", "churn connections"),
    operation("declare and delete a durable queue", "churn durable-queues"),
    operation("bind, one at a time", "churn bindings"),
    operation("connections as above, 16 clients", "churn connections --clients 16"),
    operation("durable queues as above, 16 clients", "churn durable-queues --clients 16"),
    operation("bind, 16 clients", "churn bindings --clients 16"),
    time("delivery p50 at 5,000/s of 100 B", "run -s 100 -r 5000", "delivery_us.p50"),
    time("delivery p99 at 5,000/s of 100 B", "run -s 100 -r 5000", "delivery_us.p99"),
    time(
        "confirm p50 at 5,000/s, persistent",
        "run -s 100 -r 5000 --durable --persistent -c 1000",
        "confirm_us.p50",
    ),
    time(
        "confirm p99 at 5,000/s, persistent",
        "run -s 100 -r 5000 --durable --persistent -c 1000",
        "confirm_us.p99",
    ),
    time("request and reply p50, direct reply-to", "requests", "round_trip_us.p50"),
];

const fn cpu(name: &'static str, command: &'static str) -> Row {
    Row { name, command, figure: CPU, unit: "us CPU", fresh: false }
}

const fn operation(name: &'static str, command: &'static str) -> Row {
    Row { name, command, figure: OPERATION, unit: "us CPU", fresh: false }
}

const fn time(name: &'static str, command: &'static str, figure: &'static str) -> Row {
    Row { name, command, figure, unit: "us", fresh: false }
}

const fn memory(name: &'static str, command: &'static str, figure: &'static str) -> Row {
    Row { name, command, figure, unit: "B", fresh: true }
}

/// A broker, or the bare relay, on core 0.
struct Peer {
    name: &'static str,
    uri: String,
    pid: u32,
    /// Speaks without a handshake.
    bare: bool,
}

impl Peer {
    /// Whether it can do a row's work.
    fn can(&self, row: &Row) -> bool {
        let confirms = row.command.contains("-c ") || row.command.contains("-A ");
        !self.bare || (row.command.starts_with("run -s") && !confirms && !row.command.contains("-t "))
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let build = ["build", "--release", "--quiet", "-p", "warren"];
    process::run(crate::cargo(root).args(build), Duration::from_mins(20))?;
    tools::install_packages(root, &["rabbitmq-server", "util-linux"])?;
    let warren = root.join("target/release/warren");
    let mut peers = None;
    let mut measured: BTreeMap<(usize, &str), Vec<Value>> = BTreeMap::new();
    let rows: Vec<(usize, &Row)> = (ROWS.iter().enumerate())
        .filter(|(_, row)| options.only.as_ref().is_none_or(|text| row.name.contains(text.as_str())))
        .collect();
    for round in 1..=options.rounds {
        for (at, row) in &rows {
            if row.fresh {
                stop(peers.take())?;
            }
            let peers = match &mut peers {
                Some(peers) => peers,
                none => none.insert(Peers::start(root, &warren)?),
            };
            // What the row before has measured by the same command need not be measured again.
            let same = at.checked_sub(1).filter(|before| ROWS[*before].command == row.command);
            for peer in peers.all.iter().filter(|peer| peer.can(row)) {
                let known =
                    same.and_then(|before| measured.get(&(before, peer.name))?.get(round - 1).cloned());
                let result = match known {
                    Some(result) => result,
                    // One row that fails is a hole in the table, not the end of the others.
                    None => perf(&warren, peer, row, options.seconds).unwrap_or_else(|error| {
                        println!("FAIL {}: {error:#}", row.name);
                        Value::Null
                    }),
                };
                println!("{round}/{} {:10} {}: {}", options.rounds, peer.name, row.name, shown(&result, row));
                measured.entry((*at, peer.name)).or_default().push(result);
            }
        }
    }
    stop(peers)?;
    write(root, options, &rows, &measured)?;
    Ok(ExitCode::SUCCESS)
}

/// All that are compared, running.
struct Peers {
    all: [Peer; 3],
    broker: Broker,
    rabbit: Rabbit,
    relay: Group,
    _place: tempfile::TempDir,
}

impl Peers {
    fn start(root: &Path, warren: &Path) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("bench-").tempdir_in(root.join("target"))?;
        let broker = Broker::start(on_core(0, warren), &place.path().join("warren.log"))?;
        let rabbit = Rabbit::start(root)?;
        let mut relay = Group::spawn(on_core(0, warren).args(["perf", "relay"]).stdout(Stdio::piped()))?;
        let ready =
            relay.lines()?.recv_timeout(Duration::from_secs(10)).context("the relay did not start")?;
        let relay_address =
            ready.strip_prefix("ready relay=").context("the relay did not tell where it is")?;
        let address = broker.address();
        let peer = |name, uri, pid, bare| Peer { name, uri, pid, bare };
        let all = [
            peer("warren", format!("amqp://{}:{}/%2f", address.host, address.port), broker.pid(), false),
            peer("rabbitmq", format!("amqp://127.0.0.1:{}/%2f", rabbit.port), rabbit.group.pid(), false),
            peer("relay", format!("amqp://{relay_address}"), relay.pid(), true),
        ];
        Ok(Self { all, broker, rabbit, relay, _place: place })
    }
}

fn stop(peers: Option<Peers>) -> anyhow::Result<()> {
    let Some(Peers { broker, rabbit, relay, .. }) = peers else { return Ok(()) };
    relay.finish()?;
    rabbit.group.finish()?;
    broker.stop()
}

fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Debian's RabbitMQ, as it comes, with data of its own.
struct Rabbit {
    group: Group,
    port: u16,
    _data: tempfile::TempDir,
}

impl Rabbit {
    fn start(root: &Path) -> anyhow::Result<Self> {
        // Its own user must reach it, and /tmp may be in memory.
        let data = tempfile::Builder::new().prefix("warren-bench-").tempdir_in("/var/tmp")?;
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o777))?;
        let (port, distribution) = (free_port()?, free_port()?);
        let mut command = on_core(0, Path::new("/usr/sbin/rabbitmq-server"));
        command
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_NODENAME", format!("bench-{port}@localhost"))
            .env("RABBITMQ_MNESIA_BASE", data.path())
            .env("RABBITMQ_LOG_BASE", data.path())
            .current_dir(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let group = Group::spawn(&mut command).with_context(|| format!("in {}", root.display()))?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > START_LIMIT || group.has_ended()? {
                bail!("RabbitMQ did not start");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(3));
        Ok(Self { group, port, _data: data })
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Runs `warren perf` for a row and returns what it prints.
fn perf(warren: &Path, peer: &Peer, row: &Row, seconds: f64) -> anyhow::Result<Value> {
    let mut command = on_core(1, warren);
    command.arg("perf").args(row.command.split(' '));
    command.args(["--json", "--quiet", "--uri", &peer.uri, "--broker-pid", &peer.pid.to_string()]);
    if !row.command.starts_with("idle") && !row.command.starts_with("backlog") {
        command.args(["--duration", &seconds.to_string()]);
    }
    if peer.bare {
        command.arg("--bare");
    }
    let mut text = String::new();
    let ended = process::run_lines(&mut command, ROW_LIMIT, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    if !ended.success() {
        bail!("{} failed on {}", process::shown(&command), peer.name);
    }
    serde_json::from_str(&text).with_context(|| format!("{} printed no JSON", process::shown(&command)))
}

/// A result by its name, such as `delivery_us.p50`.
fn figure(result: &Value, name: &str) -> Option<f64> {
    name.split('.').try_fold(result, |value, key| value.get(key))?.as_f64()
}

fn shown(result: &Value, row: &Row) -> String {
    let value = figure(result, row.figure).unwrap_or(f64::NAN);
    format!("{} {}", number(value), row.unit)
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100_000.0 => format!("{:.1} M", value / 1e6),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

fn median(results: &[Value], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = results.iter().filter_map(|result| figure(result, name)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The first line that a program prints.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn write(
    root: &Path,
    options: &Options,
    rows: &[(usize, &Row)],
    measured: &BTreeMap<(usize, &str), Vec<Value>>,
) -> anyhow::Result<()> {
    let rabbitmq = first_line("dpkg-query", &["-W", "-f", "${Version}", "rabbitmq-server"]);
    let commit = first_line("git", &["-C", &root.display().to_string(), "rev-parse", "--short", "HEAD"]);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (processor, kernel) = (processor(), first_line("uname", &["-sr"]));
    let (rounds, seconds) = (options.rounds, options.seconds);
    let mut table = format!(
        "Made by `cargo xtask bench`: medians of {rounds} rounds of {seconds} s, brokers on one core, the generator on \
         another.\nWarren {commit}, RabbitMQ {rabbitmq}; {cores} cores, {processor}, {kernel}.\n\n\
         | work | Warren | RabbitMQ | RabbitMQ / Warren | bare relay |\n|---|---|---|---|---|\n"
    );
    let mut raw = Vec::new();
    for (at, row) in rows {
        let of = |peer: &'static str| measured.get(&(*at, peer)).map_or(&[][..], Vec::as_slice);
        let value = |peer| median(of(peer), row.figure);
        let cell = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |it| format!("{} {}", number(it), row.unit))
        };
        let ratio = value("rabbitmq")
            .zip(value("warren").filter(|ours| *ours > 0.0))
            .map(|(theirs, ours)| number(theirs / ours));
        writeln!(
            table,
            "| {} | {} | {} | {} | {} |",
            row.name,
            cell(value("warren")),
            cell(value("rabbitmq")),
            ratio.unwrap_or_default(),
            cell(value("relay"))
        )?;
        let results: Map<String, Value> = ["warren", "rabbitmq", "relay"]
            .map(|peer| (peer.to_owned(), Value::from(of(peer))))
            .into_iter()
            .collect();
        raw.push(json!({ "work": row.name, "command": format!("warren perf {}", row.command), "results": results }));
    }
    let raw = json!({
        "warren": commit, "rabbitmq": rabbitmq, "cores": cores, "processor": processor, "kernel": kernel,
        "rounds": rounds, "seconds": seconds, "rows": raw,
    });
    let out = root.join(&options.out);
    fs::create_dir_all(out.parent().context("the path has no folder")?)?;
    fs::write(out.with_extension("md"), &table)?;
    fs::write(out.with_extension("json"), serde_json::to_string_pretty(&raw)? + "\n")?;
    println!("\n{table}\n{} and .json were written", out.with_extension("md").display());
    Ok(())
}
