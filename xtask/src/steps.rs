//! `cargo xtask test`: everything that must hold before a change is accepted, one step after the other.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::FalseyValueParser;

use crate::tally::{Tally, table};
use crate::{fuzz, instructions, interop, process, tools};

/// Time for a step that is one run of cargo, which may have all to build.
const STEP_LIMIT: Duration = Duration::from_mins(20);

/// Runs all checks and tests, and installs what they need. This is the one test command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run these steps only.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<Step>,

    /// Leave these steps out.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    skip: Vec<Step>,

    /// Run fmt, clippy and tests only.
    #[arg(long, conflicts_with = "only")]
    quick: bool,

    /// Seconds for each fuzz target.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    fuzz_seconds: u64,

    /// Count what cannot be set up as failed instead of skipping it.
    #[arg(long, env = "CI", value_parser = FalseyValueParser::new())]
    ci: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The code is formatted.
    Fmt,
    /// The linter has nothing to say.
    Clippy,
    /// The generated code is what would be generated.
    Codegen,
    /// The documentation builds without warnings.
    Doc,
    /// Unit, property and integration tests.
    Tests,
    /// The dependencies' licences and sources are allowed.
    Deny,
    /// A short run of each fuzz target.
    Fuzz,
    /// The hot path takes no more instructions than recorded.
    Instructions,
    /// RabbitMQ's clients against the broker.
    Interop,
}

impl Step {
    const QUICK: [Self; 3] = [Self::Fmt, Self::Clippy, Self::Tests];

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn help(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    fn run(self, root: &Path, options: &Options) -> anyhow::Result<Tally> {
        match self {
            Self::Fmt => cargo_check(root, &["fmt", "--all", "--check"]),
            Self::Clippy => cargo_check(
                root,
                &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
            ),
            Self::Codegen => {
                let mut command = Command::new(std::env::current_exe()?);
                check(command.args(["codegen", "--check"]).current_dir(root))
            }
            Self::Doc => {
                let mut command = crate::cargo(root);
                command.env("RUSTDOCFLAGS", "-D warnings");
                check(command.args(["doc", "--quiet", "--no-deps", "--workspace"]))
            }
            Self::Tests => cargo_test(root),
            Self::Deny => {
                let mut command = Command::new(tools::CARGO_DENY.install(root)?);
                check(
                    command
                        .args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
                        .current_dir(root),
                )
            }
            Self::Fuzz => fuzz::run(root, options.fuzz_seconds),
            Self::Instructions => instructions::run(root, &instructions::Options::default()),
            Self::Interop => interop::run(root, &interop::Options::all(options.ci)),
        }
    }
}

/// How a step ended.
#[derive(Debug)]
struct Report {
    step: Step,
    tally: Tally,
    duration: Duration,
}

/// Runs the steps, prints how each ended, and goes on after one that failed.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<Tally> {
    let steps = selected(options);
    if steps.is_empty() {
        bail!("no step is left to run");
    }
    let mut reports = Vec::new();
    for (index, step) in steps.iter().copied().enumerate() {
        println!("\n=== {} ({} of {}): {}", step.name(), index + 1, steps.len(), step.help());
        let start = Instant::now();
        let tally = step.run(root, options).unwrap_or_else(|error| {
            println!("FAIL {}: {error:#}", step.name());
            Tally::ONE_FAILED
        });
        let report = Report { step, tally, duration: start.elapsed() };
        println!("--- {}: {} in {}", step.name(), report.outcome(), shown(report.duration));
        reports.push(report);
    }
    Ok(conclude(&reports))
}

fn selected(options: &Options) -> Vec<Step> {
    let wanted = |step: &Step| match (options.quick, options.only.as_slice()) {
        (true, _) => Step::QUICK.contains(step),
        (false, []) => true,
        (false, only) => only.contains(step),
    };
    let all = Step::value_variants().iter().copied();
    all.filter(|step| wanted(step) && !options.skip.contains(step)).collect()
}

/// A step that is one command, which says itself what is wrong.
fn check(command: &mut Command) -> anyhow::Result<Tally> {
    process::run(command, STEP_LIMIT)?;
    Ok(Tally::ONE_PASSED)
}

fn cargo_check(root: &Path, arguments: &[&str]) -> anyhow::Result<Tally> {
    check(crate::cargo(root).args(arguments))
}

fn cargo_test(root: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut command = crate::cargo(root);
    command.args(["test", "--workspace", "--no-fail-fast"]);
    let status = process::run_lines(&mut command, STEP_LIMIT, |line| {
        // A line for each of the many tests that pass would hide the others.
        if !(line.starts_with("test ") && line.ends_with(" ... ok")) {
            println!("{line}");
        }
        if let Some(result) = test_result(line) {
            tally += result;
        }
    })
    .with_context(|| format!("after {tally}"))?;
    match (status.success(), tally.passed, tally.failed) {
        (false, 0, 0) => bail!("cargo test ended with {status} before the first test"),
        (true, 0, 0) => bail!("there are no tests"),
        (false, _, 0) => {
            println!("FAIL: cargo test ended with {status}, though no test failed");
            tally += Tally::ONE_FAILED;
        }
        _ => {}
    }
    Ok(tally)
}

/// The counts in a line such as `test result: ok. 7 passed; 0 failed; 1 ignored; ...`.
fn test_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let mut fields = counts.split("; ");
        fields.find_map(|field| field.strip_suffix(word)).and_then(|number| number.trim().parse().ok())
    };
    Some(Tally { passed: count(" passed")?, failed: count(" failed")?, ..Default::default() })
}

impl Report {
    fn outcome(&self) -> &'static str {
        if self.tally.failed > 0 { "FAILED" } else { "ok" }
    }
}

/// Prints the table and adds up.
fn conclude(reports: &[Report]) -> Tally {
    let mut rows = vec![["step", "passed", "failed", "time", ""].map(str::to_owned).to_vec()];
    let mut total = Tally::default();
    let mut duration = Duration::ZERO;
    for report in reports {
        let tally = report.tally;
        let mut note = report.outcome().to_owned();
        if tally.skipped > 0 {
            note += &format!(", {} skipped", tally.skipped);
        }
        rows.push(row(&report.step.name(), tally, report.duration, note));
        total += tally;
        duration += report.duration;
    }
    rows.push(row("total", total, duration, String::new()));
    print!("\n{}\n", table(&rows));
    total
}

fn row(name: &str, tally: Tally, duration: Duration, note: String) -> Vec<String> {
    vec![name.to_owned(), tally.passed.to_string(), tally.failed.to_string(), shown(duration), note]
}

fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn steps(line: &str) -> String {
        let line = Line::parse_from(["test"].into_iter().chain(line.split_whitespace()));
        selected(&line.options).iter().map(|step| step.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn steps_are_selected_in_their_order() {
        assert_eq!(steps(""), "fmt clippy codegen doc tests deny fuzz instructions interop");
        assert_eq!(steps("--only tests,fmt"), "fmt tests");
        assert_eq!(steps("--skip fuzz --skip interop,doc"), "fmt clippy codegen tests deny instructions");
        assert_eq!(steps("--quick"), "fmt clippy tests");
        assert_eq!(steps("--quick --skip clippy"), "fmt tests");
    }

    #[test]
    fn results_of_cargo_test_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(test_result(line), Some(Tally { passed: 12, failed: 3, ..Default::default() }));
        assert_eq!(test_result("test a::b ... ok"), None);
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(shown(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(shown(Duration::from_secs(125)), "2 min 05 s");
    }
}
