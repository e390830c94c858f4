//! `cargo xtask instructions`: how many instructions the steps of the hot path take, compared with what is recorded.
//!
//! Times differ from run to run on a busy machine; instructions hardly do. Each benchmark runs once under callgrind,
//! which counts what is executed below criterion's `Bencher::iter`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::tally::Tally;
use crate::{process, tools};

/// Counts the instructions of the hot path's steps and compares them with xtask/instructions.json.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Record what is counted.
    #[arg(long)]
    update: bool,
}

/// A benchmark, and how many messages one iteration of it handles.
struct Case {
    package: &'static str,
    bench: &'static str,
    name: &'static str,
    messages: u64,
}

const fn case(package: &'static str, bench: &'static str, name: &'static str, messages: u64) -> Case {
    Case { package, bench, name, messages }
}

const CASES: [Case; 15] = [
    case("warren-amqp091-codec", "codec", "decode/publish", 1),
    case("warren-amqp091-codec", "codec", "encode/deliver", 1),
    case("warren-amqp091", "connection", "publish/16 B", 1000),
    case("warren-amqp091", "connection", "publish/16 B, confirms", 1000),
    case("warren-amqp091", "connection", "deliver/16 B, no-ack", 1000),
    case("warren-amqp091", "connection", "deliver/16 B, acknowledged", 1000),
    case("warren-router", "router", "route/default/1000", 1),
    case("warren-router", "router", "route/direct/100000/few", 1),
    case("warren-router", "router", "route/topic/1000/few", 1),
    case("warren-router", "router", "route/fanout/10", 1),
    case("warren-router", "router", "route/headers/100", 1),
    case("warren-queue", "queue", "turn/1 consumers", 1000),
    case("warren-queue", "queue", "turn/10 consumers", 1000),
    case("warren-store", "log", "append/16 B", 1000),
    case("warren-store", "log", "append/1024 B", 1000),
];

/// How much more than recorded is let pass: per cent of what is recorded, since tables are hashed differently each time,
/// and instructions that the runtime of a benchmark adds.
const TOLERANCE_PERCENT: u64 = 5;
const TOLERANCE: u64 = 200;

/// Time for cargo to build the benchmarks, and for one of them to run.
const BUILD_LIMIT: Duration = Duration::from_mins(20);
const RUN_LIMIT: Duration = Duration::from_mins(5);

const RECORD: &str = "xtask/instructions.json";

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<Tally> {
    tools::install_packages(root, &["valgrind"])?;
    let programs = build(root)?;
    let rustc = rustc()?;
    let record =
        std::fs::read_to_string(root.join(RECORD)).with_context(|| format!("cannot read {RECORD}"))?;
    let record: Value = serde_json::from_str(&record).with_context(|| format!("{RECORD} is no JSON"))?;
    // Another compiler makes other instructions of the same program.
    let is_comparable = record["rustc"] == rustc.as_str();
    let mut tally = Tally::default();
    let mut counts = serde_json::Map::new();
    for Case { package, bench, name, messages } in &CASES {
        let program = programs.get(*bench).with_context(|| format!("{package} has no benchmark {bench}"))?;
        let count = count(root, program, name).with_context(|| format!("cannot count {bench}: {name}"))?;
        let recorded = record["counts"][*name].as_u64();
        let allowed = recorded.map(|recorded| recorded + recorded * TOLERANCE_PERCENT / 100 + TOLERANCE);
        let is_more = is_comparable && !options.update && allowed.is_none_or(|allowed| count > allowed);
        let change = recorded.map(|recorded| 100.0 * (count as f64 / recorded as f64 - 1.0));
        let change = change.map_or("not recorded".to_owned(), |change| format!("{change:+.1} %"));
        let verdict = if is_more { "FAIL" } else { "ok  " };
        println!("{verdict} {name:30} {:>8} a message  {change}", count / messages);
        tally += if is_more { Tally::ONE_FAILED } else { Tally::ONE_PASSED };
        counts.insert((*name).to_owned(), count.into());
    }
    if options.update {
        let record = serde_json::json!({ "rustc": rustc, "counts": counts });
        std::fs::write(root.join(RECORD), format!("{record:#}\n"))?;
    } else if !is_comparable {
        println!("{RECORD} was made with {}; this is {rustc}: only counted, not compared", record["rustc"]);
    } else if tally.failed > 0 {
        println!("if it must be so, record it with: cargo xtask instructions --update");
    }
    Ok(tally)
}

/// Builds the benchmarks; returns their programs by name.
fn build(root: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut command = crate::cargo(root);
    command.args(["bench", "--quiet", "--no-run", "--benches", "--message-format=json"]);
    for Case { package, .. } in &CASES {
        command.args(["-p", package]);
    }
    let mut programs = BTreeMap::new();
    let status = process::run_lines(&mut command, BUILD_LIMIT, |line| {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        let is_bench = message["target"]["kind"][0] == "bench";
        let name = message["target"]["name"].as_str().filter(|_| is_bench);
        if let (Some(name), Some(program)) = (name, message["executable"].as_str()) {
            programs.insert(name.to_owned(), program.into());
        }
    })?;
    if !status.success() {
        bail!("the benchmarks cannot be built: {status}");
    }
    Ok(programs)
}

fn rustc() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("cannot run rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs one benchmark once.
fn count(root: &Path, program: &Path, name: &str) -> anyhow::Result<u64> {
    let results = root.join("target/callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--toggle-collect=*Bencher*iter*"]);
    command.arg(format!("--callgrind-out-file={}", results.display()));
    command.arg(program).args(["--bench", "--test", &format!("^{name}$")]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    process::run(&mut command, RUN_LIMIT)?;
    let results = std::fs::read_to_string(&results).context("callgrind has written nothing")?;
    let summary = results.lines().find_map(|line| line.strip_prefix("summary: ")).context("no summary")?;
    let count = summary.trim().parse().context("the summary is no number")?;
    if count == 0 {
        bail!("nothing was counted: is there a benchmark of this name?");
    }
    Ok(count)
}
