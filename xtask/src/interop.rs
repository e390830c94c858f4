//! `cargo xtask interop`: RabbitMQ's clients against the broker, one folder of interop/ each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::builder::FalseyValueParser;

use crate::broker::{Address, Broker};
use crate::cases::{Line, Printer};
use crate::process;
use crate::tally::{Tally, table};

/// Time to download and build what a client needs.
const SETUP_LIMIT: Duration = Duration::from_mins(15);

/// A set-up that takes less had nothing to do.
const SETUP_WORTH_TELLING: Duration = Duration::from_secs(5);

/// Time for all cases of a client.
const RUN_LIMIT: Duration = Duration::from_mins(3);

/// Time to build the broker from nothing.
const BUILD_LIMIT: Duration = Duration::from_mins(30);

/// Lines of a log that are shown when something is wrong.
const LOG_LINES_SHOWN: usize = 30;

/// Runs RabbitMQ's clients in interop/, each against a fresh broker.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run these clients only.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Use this broker instead of building and starting one for each client.
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<Address>,

    /// Kill the broker when a client's cases have passed, start it on what it left, and run them again.
    #[arg(long, conflicts_with = "broker")]
    restarts: bool,

    /// Count a client that cannot be set up as failed instead of skipping it.
    #[arg(long, env = "CI", value_parser = FalseyValueParser::new())]
    ci: bool,
}

impl Options {
    /// All clients, each against a broker of its own.
    pub(crate) fn all(ci: bool) -> Self {
        Self { only: Vec::new(), broker: None, restarts: true, ci }
    }
}

/// A folder with `setup` and `run`, as interop/README.md describes them.
#[derive(Debug)]
struct Client {
    name: String,
    folder: PathBuf,
    /// Where the output goes that is no report of a case.
    logs: PathBuf,
}

/// How the run of one client ended.
#[derive(Debug, Default)]
struct Report {
    name: String,
    tally: Tally,
    duration: Duration,
    /// What failed, and why.
    failures: Vec<String>,
    /// Why it was skipped.
    skipped: Option<String>,
}

/// Runs the clients and prints their cases, then a table.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<Tally> {
    let clients = selected(clients(root)?, &options.only)?;
    let program = match &options.broker {
        Some(_) => None,
        None => Some(build_broker(root)?),
    };
    let mut reports = Vec::new();
    for client in clients {
        println!("{}", client.name);
        let start = Instant::now();
        let report = run_client(&client, program.as_deref(), options);
        reports.push(Report { name: client.name, duration: start.elapsed(), ..report });
    }
    Ok(conclude(&reports))
}

fn clients(root: &Path) -> anyhow::Result<Vec<Client>> {
    let folder = root.join("interop");
    let mut clients = Vec::new();
    for entry in fs::read_dir(&folder).context("cannot read interop/")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let folder = entry.path();
        match (folder.join("setup").exists(), folder.join("run").exists()) {
            (true, true) => {}
            (false, false) => continue,
            _ => bail!("interop/{name} needs both setup and run"),
        }
        let logs = root.join("target/interop").join(&name);
        clients.push(Client { name, folder, logs });
    }
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(clients)
}

fn selected(mut clients: Vec<Client>, only: &[String]) -> anyhow::Result<Vec<Client>> {
    let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no client '{unknown}'; there are {}", names.join(", "));
    }
    if !only.is_empty() {
        clients.retain(|client| only.contains(&client.name));
    }
    if clients.is_empty() {
        bail!("interop/ has no clients");
    }
    Ok(clients)
}

/// Builds the broker as users get it and tells where it is.
fn build_broker(root: &Path) -> anyhow::Result<PathBuf> {
    println!("building the broker");
    let mut program = None;
    let mut command = crate::cargo(root);
    command.args(["build", "--quiet", "--release", "--package", "warren", "--bin", "warren"]);
    command.arg("--message-format=json-render-diagnostics");
    let status = process::run_lines(&mut command, BUILD_LIMIT, |line| {
        let message = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
        if message["target"]["name"] == "warren" {
            program = message["executable"].as_str().map(PathBuf::from).or(program.take());
        }
    })?;
    if !status.success() {
        bail!("the broker does not build");
    }
    program.context("cargo does not tell where the broker is")
}

/// All of one client but its name and its duration.
fn run_client(client: &Client, program: Option<&Path>, options: &Options) -> Report {
    if let Err(error) = client.set_up() {
        println!("  {} {error:#}", if options.ci { "FAIL" } else { "SKIPPED" });
        let reason = first_line(&error);
        return match options.ci {
            true => Report { tally: Tally::ONE_FAILED, failures: vec![reason], ..Report::default() },
            false => Report { tally: Tally::ONE_SKIPPED, skipped: Some(reason), ..Report::default() },
        };
    }
    let mut printer = Printer::default();
    let result = match (&options.broker, program) {
        (Some(address), _) => client.run(address, &mut printer),
        (None, Some(program)) => client.run_with_own_broker(program, options.restarts, &mut printer),
        (None, None) => Err(anyhow::anyhow!("no broker was built")),
    };
    let (mut tally, mut failures) = printer.finish();
    if let Err(error) = result {
        println!("  FAIL {}", format!("{error:#}").replace('\n', "\n    "));
        tally += Tally::ONE_FAILED;
        failures.push(first_line(&error));
    }
    Report { tally, failures, ..Report::default() }
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

impl Client {
    fn set_up(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.logs)?;
        let path = self.logs.join("setup.log");
        let log = File::create(&path)?;
        let mut command = Command::new(self.folder.join("setup"));
        command.current_dir(&self.folder).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        process::run(&mut command, SETUP_LIMIT).map_err(|error| with_log(&error, &path))?;
        if start.elapsed() >= SETUP_WORTH_TELLING {
            println!("  set up in {} s", start.elapsed().as_secs());
        }
        Ok(())
    }

    /// The broker, with what cases need beside the defaults.
    fn broker(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let config = self.folder.with_file_name("warren.conf");
        command.env("WARREN_CONFIG", config);
        command
    }

    fn run_with_own_broker(
        &self,
        program: &Path,
        restarts: bool,
        printer: &mut Printer,
    ) -> anyhow::Result<()> {
        let log = self.logs.join("broker.log");
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut broker = Broker::start(self.broker(program), &log)?;
        let mut cases = self.run(broker.address(), printer);
        if restarts && cases.is_ok() {
            broker = broker.kill_and_start(self.broker(program))?;
            printer.end_line();
            println!("  killed and started again");
            let mut again = Printer::default();
            cases = self.run(broker.address(), &mut again);
            printer.add(again);
        }
        // What is wrong with the broker explains more than what the client says about it.
        match (broker.stop(), cases) {
            (Err(broker), Err(cases)) => bail!("{broker:#}\n{cases:#}"),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Runs the cases. An error is what no case has reported.
    fn run(&self, address: &Address, printer: &mut Printer) -> anyhow::Result<()> {
        let path = self.logs.join("run.log");
        let mut command = Command::new(self.folder.join("run"));
        command.args([&address.host, &address.port.to_string()]).current_dir(&self.folder);
        command.stderr(File::create(&path)?);
        command.stdout(Stdio::piped());
        let mut summary = None;
        let mut after_summary = None;
        let ended = process::run_lines(&mut command, RUN_LIMIT, |text| {
            let line = Line::parse(text);
            if summary.is_some() && !text.is_empty() {
                after_summary = Some(text.to_owned());
            }
            if let Line::Summary { passed, failed } = line {
                summary = Some((passed, failed));
            }
            printer.print(&line);
        });
        let status = ended.map_err(|error| with_log(&error, &path))?;
        let tally = printer.tally();
        let problem = match summary {
            None => format!("the run ended without its last line, with {status}"),
            Some(_) if after_summary.is_some() => "there are lines after the last one".to_owned(),
            Some(counts) if counts != (tally.passed, tally.failed) => {
                format!("the last line tells {} passed, {} failed; there were {tally}", counts.0, counts.1)
            }
            Some((0, 0)) => "no case was run".to_owned(),
            Some((_, 0)) if !status.success() => format!("no case failed, but the run ended with {status}"),
            Some((_, 1..)) if status.success() => "cases failed, but the run ended as if none did".to_owned(),
            Some(_) => return Ok(()),
        };
        Err(with_log(&anyhow::anyhow!(problem), &path))
    }
}

fn with_log(error: &anyhow::Error, path: &Path) -> anyhow::Error {
    let text = process::tail(path, LOG_LINES_SHOWN);
    anyhow::anyhow!("{error:#}; the end of {}:\n{text}", path.display())
}

/// Prints what failed, then a table, and adds up.
fn conclude(reports: &[Report]) -> Tally {
    let mut rows = vec![["client", "passed", "failed", "n/a", "seconds", ""].map(str::to_owned).to_vec()];
    let mut total = Tally::default();
    let mut duration = Duration::ZERO;
    println!();
    for report in reports {
        for failure in &report.failures {
            println!("FAIL {} {failure}", report.name);
        }
        let note = report.skipped.as_ref().map(|reason| format!("SKIPPED: {reason}"));
        rows.push(row(&report.name, report.tally, report.duration, note));
        total += report.tally;
        duration += report.duration;
    }
    let note = (total.skipped > 0).then(|| format!("{} SKIPPED", total.skipped));
    rows.push(row("total", total, duration, note));
    let blank = if total.failed > 0 { "\n" } else { "" };
    print!("{blank}{}", table(&rows));
    total
}

fn row(name: &str, tally: Tally, duration: Duration, note: Option<String>) -> Vec<String> {
    vec![
        name.to_owned(),
        tally.passed.to_string(),
        tally.failed.to_string(),
        tally.not_applicable.to_string(),
        format!("{:.1}", duration.as_secs_f64()),
        note.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A client whose two programs are programs of the system.
    fn report(setup: &str, run: &str, ci: bool) -> Report {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("interop/client");
        fs::create_dir_all(&folder).expect("it can be written");
        symlink(setup, folder.join("setup")).expect("it can be written");
        symlink(run, folder.join("run")).expect("it can be written");
        let clients = clients(root.path()).expect("there is one");
        let broker = Some(Address { host: "127.0.0.1".to_owned(), port: 1 });
        run_client(&clients[0], None, &Options { only: Vec::new(), broker, restarts: false, ci })
    }

    #[test]
    fn a_client_without_set_up_is_skipped_but_not_in_ci() {
        let skipped = report("/bin/false", "/bin/true", false);
        assert_eq!(skipped.tally, Tally::ONE_SKIPPED);
        assert!(skipped.skipped.expect("a reason").starts_with("setup ended with exit status: 1"));
        assert_eq!(report("/bin/false", "/bin/true", true).tally, Tally::ONE_FAILED);
    }

    #[test]
    fn a_run_that_reports_nothing_has_failed() {
        let report = report("/bin/true", "/bin/true", false);
        assert_eq!(report.tally, Tally::ONE_FAILED);
        assert!(
            report.failures[0].starts_with("the run ended without its last line"),
            "{:?}",
            report.failures
        );
    }

    #[test]
    fn clients_are_selected_by_name() {
        let client =
            |name: &str| Client { name: name.to_owned(), folder: PathBuf::new(), logs: PathBuf::new() };
        let found = selected(vec![client("a"), client("b")], &["b".to_owned()]).expect("it is there");
        assert_eq!(found.len(), 1);
        let error = selected(vec![client("a"), client("b")], &["c".to_owned()]).expect_err("it is not there");
        assert_eq!(error.to_string(), "no client 'c'; there are a, b");
    }
}
