//! `cargo xtask codegen`: the AMQP methods, from RabbitMQ's specifications to Rust.

mod render;
mod spec;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

const SPEC_08: &str = "spec/amqp-rabbitmq-0.8.json";
const SPEC_091: &str = "spec/amqp-rabbitmq-0.9.1.json";
const METHODS: &str = "crates/amqp091-codec/src/method.rs";
const METHODS_FOR_TESTS: &str = "crates/amqp091-codec/tests/wire/sample/methods.rs";

/// Writes the Rust code that comes from the specifications in spec/.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a generated file differs from what would be written.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    let methods = spec::merge(&read(root, SPEC_08)?, &read(root, SPEC_091)?)?;
    let outputs =
        [(METHODS, render::methods(&methods)), (METHODS_FOR_TESTS, render::methods_for_tests(&methods))];
    let mut stale = Vec::new();
    for (path, code) in outputs {
        let code = rustfmt(root, &code)?;
        if fs::read_to_string(root.join(path)).is_ok_and(|committed| committed == code) {
            continue;
        }
        if options.check {
            stale.push(path);
        } else {
            write(&root.join(path), &code)?;
        }
    }
    if !stale.is_empty() {
        bail!("not what `cargo xtask codegen` writes: {}", stale.join(", "));
    }
    Ok(())
}

fn read(root: &Path, path: &str) -> anyhow::Result<spec::Spec> {
    let text = fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
    spec::Spec::parse(&text).with_context(|| format!("cannot understand {path}"))
}

fn write(path: &PathBuf, code: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, code).with_context(|| format!("cannot write {}", path.display()))
}

/// Formats code with the workspace's settings, so that generated files pass `cargo fmt --check`.
fn rustfmt(root: &Path, code: &str) -> anyhow::Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt")?;
    // rustfmt reads all of its input before it writes, so this cannot deadlock.
    child.stdin.take().context("rustfmt has no input")?.write_all(code.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("rustfmt refuses the generated code");
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_code_is_what_the_specifications_say() {
        run(&Options { check: true }).unwrap();
    }
}
