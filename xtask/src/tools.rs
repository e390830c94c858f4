//! Programs that the checks need and that do not come with Rust.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process;

/// Time to build a tool from its source.
const INSTALL_LIMIT: Duration = Duration::from_mins(30);

/// A program that cargo can install.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    /// Exactly this version, so that a check means the same everywhere.
    version: &'static str,
}

pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

impl Tool {
    /// The program, which is installed into target/tools/ unless it is there already.
    pub(crate) fn install(self, root: &Path) -> anyhow::Result<PathBuf> {
        let folder = root.join("target/tools");
        let program = folder.join("bin").join(self.name);
        if self.is_at(&program) {
            return Ok(program);
        }
        println!("installing {} {}", self.name, self.version);
        let mut command = crate::cargo(root);
        command.args(["install", "--quiet", "--locked", "--force", "--version", self.version, "--root"]);
        command.arg(folder).arg(self.name);
        process::run(&mut command, INSTALL_LIMIT)?;
        if !self.is_at(&program) {
            bail!("{} is not {} {}", program.display(), self.name, self.version);
        }
        Ok(program)
    }

    fn is_at(self, program: &Path) -> bool {
        let output = Command::new(program).arg("--version").stderr(Stdio::null()).output();
        let expected = format!("{} {}", self.name, self.version);
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
    }
}

/// Installs Debian packages that are missing.
pub(crate) fn install_packages(root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", ". interop/lib/apt.sh; need_packages \"$@\"", "bash"]);
    command.args(packages).current_dir(root);
    process::run(&mut command, INSTALL_LIMIT)
        .with_context(|| format!("cannot install {}", packages.join(", ")))
}
