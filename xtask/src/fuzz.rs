//! A short run of each fuzz target: enough to see that it builds and that nothing fails at once.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;

use crate::process;
use crate::tally::Tally;
use crate::tools;

/// Time to build all targets from nothing.
const BUILD_LIMIT: Duration = Duration::from_mins(20);

/// Time for a target beyond that for which it is asked to run.
const PATIENCE: Duration = Duration::from_mins(2);

/// Seconds after which a single input counts as hanging.
const INPUT_SECONDS_MAX: u32 = 10;

/// Lines of a target's output that are shown when it fails.
const LOG_LINES_SHOWN: usize = 100;

/// Runs every target in fuzz/ for some seconds, starting from its corpus.
pub(crate) fn run(root: &Path, seconds: u64) -> anyhow::Result<Tally> {
    if !root.join("fuzz/Cargo.toml").exists() {
        bail!("there is no fuzz/Cargo.toml");
    }
    // libFuzzer is built from its C++ source.
    if !Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        tools::install_packages(root, &["g++"])?;
    }
    let program = tools::CARGO_FUZZ.install(root)?;
    let cargo_fuzz = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        // The stable compiler has the instrumentation, but only nightly ones offer it without being asked so.
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUST_BACKTRACE", "0")
            .arg("fuzz")
            .args(arguments)
            .current_dir(root);
        command
    };
    let targets = list(&mut cargo_fuzz(&["list"]))?;
    println!("building {}", targets.join(", "));
    process::run(&mut cargo_fuzz(&["build"]), BUILD_LIMIT)?;
    let logs = root.join("target/fuzz-smoke");
    fs::create_dir_all(&logs)?;
    let mut tally = Tally::default();
    for target in targets {
        let mut command = cargo_fuzz(&["run", &target]);
        match smoke(root, &target, &mut command, seconds, &logs) {
            Ok(executions) => {
                println!("  ok {target}: {executions}");
                tally += Tally::ONE_PASSED;
            }
            Err(error) => {
                println!("  FAIL {target}: {error:#}");
                tally += Tally::ONE_FAILED;
            }
        }
    }
    Ok(tally)
}

fn list(command: &mut Command) -> anyhow::Result<Vec<String>> {
    let mut targets = Vec::new();
    let status = process::run_lines(command, PATIENCE, |line| targets.push(line.trim().to_owned()))?;
    targets.retain(|target| !target.is_empty());
    if !status.success() || targets.is_empty() {
        bail!("fuzz/ has no targets ({status})");
    }
    Ok(targets)
}

/// Runs one target; tells how many inputs it has tried.
fn smoke(
    root: &Path,
    target: &str,
    command: &mut Command,
    seconds: u64,
    logs: &Path,
) -> anyhow::Result<String> {
    let path = logs.join(format!("{target}.log"));
    // New inputs go to the first folder: what is committed stays as it is.
    let found = tempfile::Builder::new().prefix("found-").tempdir_in(logs)?;
    command.arg(found.path());
    let corpus = root.join("fuzz/corpus").join(target);
    if corpus.is_dir() {
        command.arg(corpus);
    }
    command.args(["--", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    let log = File::create(&path)?;
    command.stdout(Stdio::from(log.try_clone()?)).stderr(log);
    let limit = Duration::from_secs(seconds) + PATIENCE;
    if let Err(error) = process::run(command, limit) {
        bail!("{error:#}; the end of {}:\n{}", path.display(), process::tail(&path, LOG_LINES_SHOWN));
    }
    let text = fs::read(&path)?;
    let text = String::from_utf8_lossy(&text);
    let executions = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    match executions.map(str::trim) {
        None | Some("0" | "1") => bail!("it has tried nothing; see {}", path.display()),
        Some(executions) => Ok(format!("{executions} inputs")),
    }
}
