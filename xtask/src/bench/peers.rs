//! The brokers that are compared, running on core 0.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::Name;
use super::programs::Programs;
use super::wire::Protocol;
use crate::broker::Broker;
use crate::process::{self, Group};

/// Time for a server to start.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time after that in which servers may still do what they do at first.
const SETTLE: Duration = Duration::from_secs(3);

/// Joins what PUSH sockets send and what PULL sockets get. The loop is the library's own, in C++.
const ZEROMQ_PROXY: &str = "\
import sys, zmq
context = zmq.Context()
frontend, backend = context.socket(zmq.PULL), context.socket(zmq.PUSH)
frontend.bind('tcp://127.0.0.1:' + sys.argv[1])
backend.bind('tcp://127.0.0.1:' + sys.argv[2])
zmq.proxy(frontend, backend)
";

/// What Debian's libactivemq-java has for a broker with STOMP and its store.
const ACTIVEMQ_JARS: [&str; 12] = [
    "activemq-broker",
    "activemq-client",
    "activemq-console",
    "activemq-kahadb-store",
    "activemq-openwire-legacy",
    "activemq-protobuf",
    "activemq-stomp",
    "commons-net",
    "geronimo-j2ee-management-1.1-spec",
    "geronimo-jms_1.1_spec",
    "hawtbuf",
    "slf4j-api",
];

/// A server and how to reach it.
pub(super) struct Peer {
    pub(super) name: Name,
    pub(super) reach: Reach,
    server: Server,
}

#[derive(Debug)]
pub(super) enum Reach {
    Amqp {
        uri: String,
        /// Without a handshake, since it is the relay; where its clients get answers.
        echo: Option<String>,
    },
    Wire {
        protocol: Protocol,
        publish: u16,
        consume: u16,
    },
}

enum Server {
    Warren(Broker),
    Other {
        group: Group,
        /// What it stores is removed when it is gone.
        _data: Option<TempDir>,
    },
}

/// All that are compared at a time.
pub(super) struct Peers {
    pub(super) all: Vec<Peer>,
    /// Where those that are started keep their data, which goes after them.
    _place: TempDir,
}

impl Peers {
    /// Starts the peers with these names. Those of other protocols are stopped at once, as [`Peer::pause`] tells.
    pub(super) fn start(root: &Path, programs: &Programs, names: &BTreeSet<Name>) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("bench-").tempdir_in(root.join("target"))?;
        let mut all = Vec::new();
        for &name in names {
            match Peer::start(name, programs, place.path()) {
                Ok(peer) => all.push(peer),
                // The others are worth nothing without it.
                Err(error) if name == Name::Warren => return Err(error),
                Err(error) => println!("skip {name}: {error:#}"),
            }
        }
        std::thread::sleep(SETTLE);
        for peer in all.iter().filter(|peer| !peer.name.speaks_amqp()) {
            peer.pause()?;
        }
        Ok(Self { all, _place: place })
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        for peer in self.all {
            match peer.server {
                Server::Warren(broker) => broker.stop()?,
                Server::Other { group, .. } => {
                    group.finish()?;
                }
            }
        }
        Ok(())
    }
}

impl Peer {
    fn start(name: Name, programs: &Programs, place: &Path) -> anyhow::Result<Self> {
        let program = |path: &Option<PathBuf>| path.clone().with_context(|| format!("{name} is not there"));
        let (reach, server) = match name {
            Name::Warren => warren(&program(&programs.warren)?, place)?,
            Name::Rabbitmq => rabbitmq()?,
            Name::Relay => relay(&program(&programs.warren)?)?,
            Name::Nats => nats(&program(&programs.nats)?, place)?,
            Name::Zeromq => zeromq(&program(&programs.zeromq)?, place)?,
            Name::Activemq => activemq(place)?,
        };
        Ok(Self { name, reach, server })
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.server {
            Server::Warren(broker) => broker.pid(),
            Server::Other { group, .. } => group.pid(),
        }
    }

    /// Stops it where it is: an idle Java server has timers, which would take time on the core of the others.
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        match &self.server {
            Server::Warren(_) => Ok(()),
            Server::Other { group, .. } => group.pause(),
        }
    }

    /// Lets it go on.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        match &self.server {
            Server::Warren(_) => Ok(()),
            Server::Other { group, .. } => group.resume(),
        }
    }
}

pub(super) fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn warren(program: &Path, place: &Path) -> anyhow::Result<(Reach, Server)> {
    let broker = Broker::start(on_core(0, program), &place.join("warren.log"))?;
    let address = broker.address();
    let uri = format!("amqp://{}:{}/%2f", address.host, address.port);
    Ok((Reach::Amqp { uri, echo: None }, Server::Warren(broker)))
}

fn relay(program: &Path) -> anyhow::Result<(Reach, Server)> {
    let mut command = on_core(0, program);
    command.args(["perf", "relay", "--dir"]).arg(program.parent().context("it is in a folder")?);
    let mut group = Group::spawn(command.stdout(Stdio::piped()))?;
    let ready = group.lines()?.recv_timeout(Duration::from_secs(10)).context("the relay did not start")?;
    let addresses = ready.strip_prefix("ready relay=").and_then(|rest| rest.split_once(" echo="));
    let (relay, echo) = addresses.context("the relay did not tell where it is")?;
    let (uri, echo) = (format!("amqp://{relay}"), Some(format!("amqp://{echo}")));
    Ok((Reach::Amqp { uri, echo }, Server::Other { group, _data: None }))
}

/// Debian's RabbitMQ, as it comes, with data of its own.
fn rabbitmq() -> anyhow::Result<(Reach, Server)> {
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
    let group = Group::spawn(&mut command)?;
    wait_listening(&group, port, None)?;
    let uri = format!("amqp://127.0.0.1:{port}/%2f");
    Ok((Reach::Amqp { uri, echo: None }, Server::Other { group, _data: Some(data) }))
}

fn nats(program: &Path, place: &Path) -> anyhow::Result<(Reach, Server)> {
    let port = free_port()?;
    let mut command = on_core(0, program);
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    other(command, Protocol::Nats, [port; 2], place)
}

fn zeromq(python: &Path, place: &Path) -> anyhow::Result<(Reach, Server)> {
    let ports = [free_port()?, free_port()?];
    let mut command = on_core(0, python);
    command.args(["-c", ZEROMQ_PROXY]).args(ports.map(|port| port.to_string()));
    other(command, Protocol::Zmtp, ports, place)
}

/// Debian's ActiveMQ with the memory and the store of its `main` instance. Its launcher starts a broker for OpenWire
/// only, whose configuration in XML needs Spring; a broker URI serves for one with STOMP.
fn activemq(place: &Path) -> anyhow::Result<(Reach, Server)> {
    let port = free_port()?;
    let jars = ACTIVEMQ_JARS.map(|jar| format!("/usr/share/java/{jar}.jar"));
    let home = place.display();
    let mut command = on_core(0, Path::new("java"));
    command
        .args(["-Xms512M", "-Xmx512M", "-Dorg.apache.activemq.UseDedicatedTaskRunner=true"])
        .arg(format!("-Dactivemq.home={home}"))
        .args(["-cp", &jars.join(":"), "org.apache.activemq.console.Main", "start"])
        .arg(format!(
            "broker:(stomp://127.0.0.1:{port})/bench?persistent=true&useJmx=false&dataDirectory={home}/activemq"
        ));
    other(command, Protocol::Stomp, [port; 2], place)
}

/// Starts a server whose ports are for publishers and for consumers.
fn other(
    mut command: Command,
    protocol: Protocol,
    [publish, consume]: [u16; 2],
    place: &Path,
) -> anyhow::Result<(Reach, Server)> {
    let data = tempfile::Builder::new().prefix("data-").tempdir_in(place)?;
    let log = data.path().join("log");
    let output = File::create(&log)?;
    command.current_dir(data.path()).stdout(output.try_clone()?).stderr(output);
    let group = Group::spawn(&mut command)?;
    for port in [publish, consume] {
        wait_listening(&group, port, Some(&log))?;
    }
    Ok((Reach::Wire { protocol, publish, consume }, Server::Other { group, _data: Some(data) }))
}

fn wait_listening(group: &Group, port: u16, log: Option<&Path>) -> anyhow::Result<()> {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > START_LIMIT || group.has_ended()? {
            bail!("it did not start\n{}", log.map(|log| process::tail(log, 20)).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
