//! `cargo xtask bench`: Warren and other brokers side by side, each on one core, with the load generator on another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::process;

mod cpu;
mod load;
mod peers;
mod perf_test;
mod programs;
mod wire;

pub(crate) use load::{Options as WireOptions, run as run_wire};
use peers::{Peer, Peers, Reach, on_core};
use programs::Programs;

/// Time for one measurement.
const ROW_LIMIT: Duration = Duration::from_mins(5);

/// Seconds before a measurement over another protocol than AMQP, as with `warren perf`; for Java, time to compile.
const WARM_UP: f64 = 1.0;
const WARM_UP_JAVA: f64 = 8.0;

/// Measures Warren, Debian's RabbitMQ and other brokers in turn and writes tables of medians and of ratios from the same
/// run.
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

    /// Measure this peer only; may be given several times.
    #[arg(long, value_name = "NAME")]
    peer: Vec<Name>,

    /// Where the table (.md) and the raw data (.json) go.
    #[arg(long, value_name = "PATH", default_value = "docs/performance/results")]
    out: PathBuf,
}

/// What is compared, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    Warren,
    Rabbitmq,
    /// `warren perf relay`.
    Relay,
    Nats,
    Zeromq,
    Activemq,
}

impl Name {
    /// Measured by `warren perf`.
    fn speaks_amqp(self) -> bool {
        matches!(self, Self::Warren | Self::Rabbitmq | Self::Relay)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Warren => "warren",
            Self::Rabbitmq => "rabbitmq",
            Self::Relay => "relay",
            Self::Nats => "nats",
            Self::Zeromq => "zeromq",
            Self::Activemq => "activemq",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// What makes the load for brokers of AMQP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generator {
    WarrenPerf,
    PerfTest,
}

/// One line of the table: what the load generator is asked for, and which of its results is compared.
struct Row {
    name: &'static str,
    generator: Generator,
    command: &'static str,
    figure: &'static str,
    unit: &'static str,
    /// Needs brokers that have done nothing yet: what they have left free would be used again, and seem to cost nothing.
    fresh: bool,
    /// What `xtask wire` is asked for, and the peers that can do the same work.
    wire: &'static str,
    wire_peers: &'static [Name],
    /// What `warren perf` is asked for where a bare disk is the floor, not a relay.
    disk: &'static str,
    /// Shows how Warren's cost grows, and is measured on it alone: others take too long to get there.
    growth: bool,
}

impl Row {
    fn is_churn(&self) -> bool {
        self.command.starts_with("churn")
    }

    const fn over_disk(self, disk: &'static str) -> Self {
        Self { disk, ..self }
    }

    const fn and(self, wire_peers: &'static [Name], wire: &'static str) -> Self {
        Self { wire, wire_peers, ..self }
    }

    /// Whether a peer can do its work.
    fn suits(&self, name: Name) -> bool {
        match name {
            Name::Warren => true,
            Name::Rabbitmq => !self.growth,
            Name::Relay if self.growth => false,
            Name::Relay if !self.disk.is_empty() => true,
            Name::Relay => {
                let confirms = self.command.contains("-c ") || self.command.contains("-A ");
                let runs = self.generator == Generator::WarrenPerf
                    && self.command.starts_with("run -s")
                    && !confirms
                    && !self.command.contains("-t ");
                runs || self.is_churn()
            }
            Name::Nats | Name::Zeromq | Name::Activemq => self.wire_peers.contains(&name),
        }
    }
}

const CPU: &str = "broker_cpu_us_per_message";
/// The unit of rates.
const RATE: &str = "/s";
const OPERATION: &str = "broker_cpu_us_per_operation";

const ALL: &[Name] = &[Name::Nats, Name::Zeromq, Name::Activemq];
const LARGE: &[Name] = &[Name::Nats, Name::Zeromq];

const ROWS: &[Row] = &[
    memory("idle connection with a channel", "idle connections -n 500 --rest 2", "bytes_each"),
    memory("idle durable queue", "idle queues -n 2000 --rest 2", "bytes_each"),
    memory(
        "1 million persistent 100 B messages, resident",
        "backlog -C 1000000",
        "broker_memory_with_the_backlog_bytes",
    ),
    rate("the same, published a second", "backlog -C 1000000", "filled_per_s"),
    rate("the same, drained a second", "backlog -C 1000000", "drained_per_s"),
    Row { fresh: true, ..cpu("16 B transient, auto-ack", "run -s 16").and(ALL, "--size 16") },
    cpu("1 KB transient, auto-ack", "run -s 1024").and(ALL, "--size 1024"),
    cpu("16 B transient, prefetch 1000, ack every 100", "run -s 16 --prefetch 1000 -A 100"),
    cpu(
        "16 B persistent, confirms 1000, ack every 100",
        "run -s 16 --durable --persistent -c 1000 --prefetch 1000 -A 100",
    )
    .and(&[Name::Activemq], "--size 16 --persistent"),
    cpu(
        "1 KB persistent, confirms 1000, ack every 100",
        "run -s 1024 --durable --persistent -c 1000 --prefetch 1000 -A 100",
    ),
    cpu("fan-out to 10 queues, 100 B, a delivery", "run -s 100 -t fanout -q 10 -y 10")
        .and(&[Name::Nats], "--size 100 --consumers 10"),
    cpu("topic, 1,000 bindings, 10 queues, 100 B", "run -s 100 -t topic --bindings 1000 -q 10 -y 10"),
    cpu("64 KB transient, auto-ack", "run -s 65536").and(LARGE, "--size 65536"),
    cpu("1 MB transient, auto-ack", "run -s 1048576").and(LARGE, "--size 1048576"),
    perf_test("16 B transient, auto-ack (PerfTest)", "--size 16 --autoack --queue bench"),
    perf_test(
        "1 KB persistent, confirms 1000, ack every 100 (PerfTest)",
        "--size 1024 --flag persistent --confirm 1000 --qos 1000 --multi-ack-every 100 --queue bench",
    ),
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
    )
    .over_disk("sync --size 256"),
    time(
        "confirm p99 at 5,000/s, persistent",
        "run -s 100 -r 5000 --durable --persistent -c 1000",
        "confirm_us.p99",
    )
    .over_disk("sync --size 256"),
    rate(
        "confirmed a second, 100 publishers of 100 B that wait for each confirm",
        "run -s 100 -x 100 --durable --persistent -c 1 --prefetch 1000 -A 100",
        "confirmed_per_s",
    )
    .over_disk("sync --size 256 --group 100"),
    rate(
        "confirmed a second, 100 publishers of 100 B, 100 unconfirmed each",
        "run -s 100 -x 100 --durable --persistent -c 100 --prefetch 1000 -A 100",
        "confirmed_per_s",
    ),
    time("request and reply p50, direct reply-to", "requests", "round_trip_us.p50")
        .and(&[Name::Nats], "--size 16 --requests"),
    growth("16 B, 10 publishers, 10 consumers, 10 queues", "run -s 16 -x 10 -y 10 -q 10"),
    growth("16 B, 100 publishers, 100 consumers, 100 queues", "run -s 16 -x 100 -y 100 -q 100"),
    growth("16 B through one of 1,000 queues", "run -s 16 -q 1000"),
    growth("16 B through one of 50,000 queues", "run -s 16 -q 50000"),
    growth("topic, 10 bindings, 10 queues, 16 B", "run -s 16 -t topic --bindings 10 -q 10 -y 10"),
    growth("topic, 100,000 bindings, 10 queues, 16 B", "run -s 16 -t topic --bindings 100000 -q 10 -y 10"),
    growth("topic, 1,000,000 bindings, 10 queues, 16 B", "run -s 16 -t topic --bindings 1000000 -q 10 -y 10"),
];

const fn row(
    name: &'static str,
    command: &'static str,
    figure: &'static str,
    unit: &'static str,
    fresh: bool,
) -> Row {
    let (generator, wire, wire_peers, disk, growth) = (Generator::WarrenPerf, "", &[], "", false);
    Row { name, generator, command, figure, unit, fresh, wire, wire_peers, disk, growth }
}

const fn cpu(name: &'static str, command: &'static str) -> Row {
    row(name, command, CPU, "us CPU", false)
}

const fn growth(name: &'static str, command: &'static str) -> Row {
    Row { growth: true, ..cpu(name, command) }
}

/// PerfTest sends to an exchange of its own, with a queue bound to it.
const fn perf_test(name: &'static str, arguments: &'static str) -> Row {
    Row { generator: Generator::PerfTest, ..cpu(name, arguments) }
}

const fn operation(name: &'static str, command: &'static str) -> Row {
    row(name, command, OPERATION, "us CPU", false)
}

const fn time(name: &'static str, command: &'static str, figure: &'static str) -> Row {
    row(name, command, figure, "us", false)
}

/// More is better.
const fn rate(name: &'static str, command: &'static str, figure: &'static str) -> Row {
    row(name, command, figure, RATE, false)
}

const fn memory(name: &'static str, command: &'static str, figure: &'static str) -> Row {
    row(name, command, figure, "B", true)
}

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let mut rows: Vec<(usize, &Row)> = (ROWS.iter().enumerate())
        .filter(|(_, row)| options.only.as_ref().is_none_or(|text| row.name.contains(text.as_str())))
        .collect();
    let selected = |name: &Name| options.peer.is_empty() || options.peer.contains(name);
    let mut names: BTreeSet<Name> = Name::value_variants().iter().copied().filter(selected).collect();
    names.retain(|name| rows.iter().any(|(_, row)| row.suits(*name)));
    let by_perf_test = |row: &Row| row.generator == Generator::PerfTest;
    let speaks_amqp = names.iter().any(|name| name.speaks_amqp());
    let perf_test = speaks_amqp && rows.iter().any(|(_, row)| by_perf_test(row));
    let programs = Programs::get(root, &names, perf_test)?;
    names.retain(|name| programs.has(*name));
    rows.retain(|(_, row)| programs.perf_test.is_some() || !by_perf_test(row));
    rows.retain(|(_, row)| names.iter().any(|name| row.suits(*name)));
    let mut peers: Option<Peers> = None;
    let mut measured: BTreeMap<(usize, Name), Vec<Value>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for (position, (at, row)) in rows.iter().enumerate() {
            if row.fresh {
                peers.take().map_or(Ok(()), Peers::stop)?;
            }
            let peers = match &mut peers {
                Some(peers) => peers,
                none => none.insert(Peers::start(root, &programs, &needed(&rows[position..], &names))?),
            };
            // What the row before has measured by the same command need not be measured again.
            let same = at.checked_sub(1).filter(|before| ROWS[*before].command == row.command);
            for peer in peers.all.iter().filter(|peer| row.suits(peer.name)) {
                let known =
                    same.and_then(|before| measured.get(&(before, peer.name))?.get(round - 1).cloned());
                let result = match known {
                    Some(result) => result,
                    // One row that fails is a hole in the table, not the end of the others.
                    None => measure(&programs, peer, row, options.seconds).unwrap_or_else(|error| {
                        println!("FAIL {}: {error:#}", row.name);
                        Value::Null
                    }),
                };
                println!("{round}/{} {:10} {}: {}", options.rounds, peer.name, row.name, shown(&result, row));
                measured.entry((*at, peer.name)).or_default().push(result);
            }
        }
    }
    peers.map_or(Ok(()), Peers::stop)?;
    write(root, options, &programs, &rows, &measured)?;
    Ok(ExitCode::SUCCESS)
}

/// The peers that have something to do in the first of these rows or in those after it that use the same ones.
fn needed(rows: &[(usize, &Row)], names: &BTreeSet<Name>) -> BTreeSet<Name> {
    let used = |name: &Name| {
        let mut together = rows.iter().enumerate().take_while(|(at, (_, row))| *at == 0 || !row.fresh);
        together.any(|(_, (_, row))| row.suits(*name))
    };
    names.iter().copied().filter(used).collect()
}

fn measure(programs: &Programs, peer: &Peer, row: &Row, seconds: f64) -> anyhow::Result<Value> {
    match (&peer.reach, row.generator) {
        (Reach::Amqp { uri, .. }, Generator::PerfTest) => {
            let jars = programs.perf_test.as_ref().context("PerfTest is not there")?;
            perf_test::run(jars, row.command, uri, peer.pid(), seconds)
        }
        (Reach::Amqp { echo: Some(_), .. }, Generator::WarrenPerf) if !row.disk.is_empty() => {
            let warren = programs.warren.as_ref().context("warren is not there")?;
            let mut command = on_core(0, warren);
            command.arg("perf").args(row.disk.split(' ')).args([
                "--json",
                "--duration",
                &seconds.to_string(),
            ]);
            command.arg("--dir").arg(warren.parent().context("it is in a folder")?);
            json_of(&mut command, peer)
        }
        (Reach::Amqp { uri, echo }, Generator::WarrenPerf) => {
            let uri = echo.as_ref().filter(|_| row.is_churn()).unwrap_or(uri);
            let warren = programs.warren.as_ref().context("warren is not there")?;
            let mut command = on_core(1, warren);
            command.arg("perf").args(row.command.split(' '));
            command.args(["--json", "--quiet", "--uri", uri, "--broker-pid", &peer.pid().to_string()]);
            if !row.command.starts_with("idle") && !row.command.starts_with("backlog") {
                command.args(["--duration", &seconds.to_string()]);
            }
            if echo.is_some() {
                command.arg("--bare");
            }
            json_of(&mut command, peer)
        }
        (Reach::Wire { protocol, publish, consume }, _) => {
            let generator = programs.generator.as_ref().context("the load generator is not there")?;
            let protocol = protocol.to_possible_value().context("it is a hidden protocol")?;
            let warm_up = if peer.name == Name::Activemq { WARM_UP_JAVA } else { WARM_UP };
            let mut command = on_core(1, generator);
            command.args(["wire", "--protocol", protocol.get_name()]).args(row.wire.split(' '));
            command.args(["--publish", &format!("127.0.0.1:{publish}")]);
            command.args(["--consume", &format!("127.0.0.1:{consume}")]);
            command.args(["--pid", &peer.pid().to_string(), "--seconds", &seconds.to_string()]);
            command.args(["--warm-up", &warm_up.to_string()]);
            peer.resume()?;
            let result = json_of(&mut command, peer);
            peer.pause()?;
            result
        }
    }
}

/// Runs a load generator and returns what it prints.
fn json_of(command: &mut Command, peer: &Peer) -> anyhow::Result<Value> {
    let mut text = String::new();
    let ended = process::run_lines(command, ROW_LIMIT, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    if !ended.success() {
        bail!("{} failed on {}", process::shown(command), peer.name);
    }
    serde_json::from_str(&text).with_context(|| format!("{} printed no JSON", process::shown(command)))
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
    programs: &Programs,
    rows: &[(usize, &Row)],
    measured: &BTreeMap<(usize, Name), Vec<Value>>,
) -> anyhow::Result<()> {
    let commit = first_line("git", &["-C", &root.display().to_string(), "rev-parse", "--short", "HEAD"]);
    let versions = programs.versions();
    let others: String = versions.iter().map(|(name, version)| format!(", {name} {version}")).collect();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (processor, kernel) = (processor(), first_line("uname", &["-sr"]));
    let (rounds, seconds) = (options.rounds, options.seconds);
    let mut table = format!(
        "Made by `cargo xtask bench`: medians of {rounds} rounds of {seconds} s, brokers on one core, the generator on \
         another.\nWarren {commit}{others}; {cores} cores, {processor}, {kernel}.\n\n\
         | work | Warren | RabbitMQ | Warren is better by | bare relay or disk | NATS | ZeroMQ | ActiveMQ |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    let mut raw = Vec::new();
    for (at, row) in rows {
        let of = |peer| measured.get(&(*at, peer)).map_or(&[][..], Vec::as_slice);
        let value = |peer| median(of(peer), row.figure);
        let cell = |peer| {
            value(peer).map_or_else(|| "-".to_owned(), |value| format!("{} {}", number(value), row.unit))
        };
        let ratio = value(Name::Rabbitmq)
            .zip(value(Name::Warren).filter(|ours| *ours > 0.0))
            .map(|(theirs, ours)| if row.unit == RATE { ours / theirs } else { theirs / ours })
            .map_or_else(|| "-".to_owned(), number);
        writeln!(
            table,
            "| {} | {} | {} | {ratio} | {} | {} | {} | {} |",
            row.name,
            cell(Name::Warren),
            cell(Name::Rabbitmq),
            cell(Name::Relay),
            cell(Name::Nats),
            cell(Name::Zeromq),
            cell(Name::Activemq),
        )?;
        let results: Map<String, Value> =
            (Name::value_variants().iter()).map(|peer| (peer.to_string(), Value::from(of(*peer)))).collect();
        let generator = match row.generator {
            Generator::WarrenPerf => "warren perf",
            Generator::PerfTest => "PerfTest",
        };
        let mut line = json!({ "work": row.name, "command": format!("{generator} {}", row.command), "results": results });
        if !row.disk.is_empty() {
            line["command_of_disk"] = format!("warren perf {}", row.disk).into();
        }
        if !row.wire.is_empty() {
            line["command_of_others"] = format!("xtask wire {}", row.wire).into();
        }
        raw.push(line);
    }
    let versions: Map<String, Value> =
        versions.into_iter().map(|(name, version)| (name.to_lowercase(), version.into())).collect();
    let mut raw = json!({
        "warren": commit, "cores": cores, "processor": processor, "kernel": kernel,
        "rounds": rounds, "seconds": seconds, "rows": raw,
    });
    raw.as_object_mut().context("it is an object")?.extend(versions);
    let out = root.join(&options.out);
    fs::create_dir_all(out.parent().context("the path has no folder")?)?;
    fs::write(out.with_extension("md"), &table)?;
    fs::write(out.with_extension("json"), serde_json::to_string_pretty(&raw)? + "\n")?;
    println!("\n{table}\n{} and .json were written", out.with_extension("md").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_load_generator_understands_every_row() {
        for row in ROWS.iter().filter(|row| !row.wire.is_empty()) {
            let arguments = "xtask wire --protocol nats --publish 127.0.0.1:1 --consume 127.0.0.1:1 --pid 1 --seconds 1 \
                             --warm-up 1";
            let arguments = arguments.split(' ').chain(row.wire.split(' '));
            assert!(crate::Options::try_parse_from(arguments).is_ok(), "{}", row.wire);
        }
    }

    #[test]
    fn only_peers_with_work_are_started() {
        let names: BTreeSet<Name> = Name::value_variants().iter().copied().collect();
        let rows: Vec<(usize, &Row)> = ROWS.iter().enumerate().collect();
        let started = needed(&rows, &names);
        assert_eq!(started.into_iter().collect::<Vec<_>>(), [Name::Warren, Name::Rabbitmq]);
        let load = rows.iter().position(|(_, row)| !row.wire.is_empty()).expect("there is one");
        assert_eq!(needed(&rows[load..], &names), names);
    }
}
