//! `warren server`

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use warren_broker::{Broker, LogExchange, Permissions, QueueType, Settings};
use warren_config::{Config, Listener, LogLevel};
use warren_control::COMPATIBLE_VERSION;
use warren_server::{Existing, Interceptors, Limits, Server, ServerIdentity};
use warren_store::{FileSystem, Options as StoreOptions, Recovered, Store};

use crate::data_dir::DataDir;
use crate::log_exchange::LogExchangeLayer;

/// Options of `warren server`. Each can also be given as an environment variable; the command line wins over
/// the environment, and both over the configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Directory for everything the broker keeps; created if missing.
    #[arg(long, env = "WARREN_DATA_DIR", value_name = "DIR", default_value = "warren-data")]
    data_dir: PathBuf,

    /// Configuration file in rabbitmq.conf syntax.
    #[arg(long, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen on [default: every address; the user guest may connect from this machine only].
    #[arg(long, env = "WARREN_BIND", value_name = "ADDRESS")]
    bind: Option<IpAddr>,

    /// Port for AMQP; 0 lets the system choose, the line "ready amqp=HOST:PORT" tells which [default: 5672].
    #[arg(long, env = "WARREN_AMQP_PORT", value_name = "PORT")]
    amqp_port: Option<u16>,

    /// Threads that serve clients and queues [default: one for each processor].
    #[arg(long, env = "WARREN_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Most shards: beyond, batches would become too small.
const SHARDS_MAX: u16 = 32;

/// Time for clients to agree to the connection's end at shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn run(options: &Options) -> ExitCode {
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the causes say.
            let causes = format!("{error:#}");
            eprintln!("warren: {}", causes.lines().map(str::trim).collect::<Vec<_>>().join(" "));
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> anyhow::Result<()> {
    let config = read_config(options)?;
    let log_exchange = start_log(&config);
    raise_file_limit();
    let data_dir = DataDir::open(&options.data_dir)?;
    let threads = options
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(options, &config, &data_dir, threads, &log_exchange))
}

fn read_config(options: &Options) -> anyhow::Result<Config> {
    let Some(path) = &options.config else { return Ok(Config::default()) };
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {shown}"))?;
    Config::parse(&text).with_context(|| format!("the configuration {shown} is not valid"))
}

/// Starts to log. The exchange is to be put in where the result says, once there is a broker that has it.
fn start_log(config: &Config) -> Arc<OnceLock<LogExchange>> {
    let filter = |level| match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    };
    // Standard output belongs to the line that tells scripts where the broker listens.
    let ansi = std::io::stderr().is_terminal();
    let console = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    let exchange = Arc::new(OnceLock::new());
    let published = (config.log_exchange)
        .map(|level| LogExchangeLayer::new(Arc::clone(&exchange)).with_filter(filter(level)));
    tracing_subscriber::registry().with(console.with_filter(filter(config.log_level))).with(published).init();
    exchange
}

/// Every connection needs a file: allow as many as the system lets us.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    grow_file_table(limit.current.unwrap_or(u64::MAX));
}

/// How many clients can be served: a part of the files is kept for the store, which cannot go on without.
fn connections_max() -> usize {
    use rustix::process::{Resource, getrlimit};
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let kept = (files / 4).clamp(FILES_KEPT_MIN, FILES_KEPT_MAX);
    usize::try_from(files.saturating_sub(kept)).unwrap_or(usize::MAX).max(1)
}

/// Files kept for the store, the listeners and the runtime, when the limit is low.
const FILES_KEPT_MIN: u64 = 48;

/// Files kept for the same when the limit is high: compact files of a backlog of about a terabyte.
const FILES_KEPT_MAX: u64 = 32_768;

/// The kernel doubles the table of open files when it is full, and all threads wait for that: a second, in which
/// a burst of connections overflows the backlog. So it gets its size before there is anyone to wait.
fn grow_file_table(limit: u64) {
    const FILES: u64 = 65_536;
    let Some(highest) = FILES.min(limit).checked_sub(1).and_then(|fd| i32::try_from(fd).ok()) else { return };
    // The duplicate is closed at once; the table stays as large as it was.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), highest) {
        tracing::debug!("cannot grow the table of open files: {error}");
    }
}

async fn serve(
    options: &Options,
    config: &Config,
    data_dir: &DataDir,
    threads: usize,
    log_exchange: &OnceLock<LogExchange>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let (store, recovered) = open_store(data_dir)?;
    let broker = Broker::start(settings(config, threads)?, store, recovered)
        .with_context(|| format!("the data directory {} cannot be used", data_dir.path().display()))?;
    if let Some(exchange) = broker.log_exchange() {
        log_exchange.get_or_init(|| exchange.clone());
    }
    let server = bind(options, config, &broker)?;
    let addresses = server.addresses().context("cannot tell the port")?;
    let control = warren_control::bind(data_dir.path())?;
    let (halt, mut halted) = watch::channel(false);
    let node = control_node(options, config, data_dir, &addresses, halt);
    let control = tokio::spawn(warren_control::serve(control, Arc::new(node), Arc::clone(&broker)));
    announce(&addresses, data_dir)?;
    let (stop, stopping) = watch::channel(false);
    let server = tokio::spawn(server.run(stopping, SHUTDOWN_PATIENCE));
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = halted.changed() => "an operator's command",
    };
    control.abort();
    tracing::info!("{signal}: closing connections");
    stop.send_replace(true);
    server.await.context("the server's task failed")?;
    tokio::task::spawn_blocking(move || broker.stop())
        .await
        .context("the broker's task failed")?
        .context("what was not confirmed may be lost: the store cannot be written")?;
    tracing::info!("stopped");
    Ok(())
}

/// What operators are told of the node.
fn control_node(
    options: &Options,
    config: &Config,
    data_dir: &DataDir,
    listeners: &[SocketAddr],
    stop: watch::Sender<bool>,
) -> warren_control::Node {
    warren_control::Node {
        name: node(),
        cluster: config.cluster_name.clone().unwrap_or_else(node),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Instant::now(),
        data_dir: data_dir.path().to_owned(),
        config_file: options.config.clone(),
        listeners: listeners.to_vec(),
        memory: Some(Config::machine_memory()),
        stop,
    }
}

/// Opens the store and tells what was found.
fn open_store(data_dir: &DataDir) -> anyhow::Result<(Arc<Store>, Recovered)> {
    let path = data_dir.store_path();
    let shown = path.display();
    let disk = FileSystem::open(&path).with_context(|| format!("cannot use {shown}"))?;
    let started = Instant::now();
    let progress = |done: usize, all: usize| {
        if started.elapsed() > PROGRESS_AFTER {
            tracing::info!("reading the log: {done} of {all} segments");
        }
    };
    let (store, recovered) =
        Store::open(Arc::new(disk), StoreOptions::default(), Box::new(give_up), &progress)
            .with_context(|| format!("cannot open the store {shown}"))?;
    for line in &recovered.report {
        tracing::warn!("{shown}: {line}");
    }
    let queues = recovered.queues.values();
    let messages: u64 = queues.flat_map(|queue| queue.index.counts().map(|(_, count)| count.messages)).sum();
    if messages > 0 {
        tracing::info!("{shown}: {messages} messages recovered in {} ms", started.elapsed().as_millis());
    }
    Ok((store, recovered))
}

/// Nothing that comes after a failed write or sync can be relied upon: the process ends before it confirms anything.
fn give_up(failure: &str) {
    tracing::error!("{failure}");
    eprintln!(
        "warren: {failure}; everything confirmed so far is safe; put the disk in order and start again"
    );
    std::process::exit(EXIT_IO_ERROR);
}

/// The exit status after a failure of the disk: `EX_IOERR` of `sysexits.h`.
const EXIT_IO_ERROR: i32 = 74;

/// A start that takes longer shows its progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

fn settings(config: &Config, threads: usize) -> anyhow::Result<Settings> {
    let patterns = &config.default_permissions;
    Ok(Settings {
        shards: u16::try_from(threads).unwrap_or(SHARDS_MAX).min(SHARDS_MAX),
        memory_limit: config.memory_limit(),
        disk_free_limit: config.disk_free_limit,
        default_queue_type: config
            .default_queue_type
            .as_ref()
            .and_then(|name| QueueType::parse(name.as_bytes())),
        consumer_timeout: config.consumer_timeout,
        default_vhost: config.default_vhost.clone(),
        default_user: config.default_user.clone(),
        default_password: config.default_pass.clone(),
        default_permissions: Permissions::new(&patterns.configure, &patterns.write, &patterns.read)
            .context("default_permissions are not regular expressions")?,
        loopback_users: config.loopback_users(),
        anonymous_user: config.anonymous_login_user.clone(),
        node: node(),
        event_exchange: config.event_exchange.clone(),
        log_exchange: config.log_exchange.is_some(),
    })
}

fn bind(options: &Options, config: &Config, broker: &Arc<Broker>) -> anyhow::Result<Server> {
    let listeners = match (options.bind, options.amqp_port) {
        (None, None) => config.listeners(),
        (None, Some(port)) => vec![Listener::Port(port)],
        (Some(address), port) => {
            let port = port.unwrap_or_else(|| match config.listeners()[..] {
                [Listener::Port(port), ..] => port,
                [Listener::Address(configured), ..] => configured.port(),
                [] => Config::DEFAULT_PORT,
            });
            vec![Listener::Address(SocketAddr::new(address, port))]
        }
    };
    let limits = Limits {
        frame_max: config.frame_max,
        channel_max: config.channel_max,
        heartbeat_s: config.heartbeat_s,
        message_len_max: config.max_message_size,
        handshake_timeout: config.handshake_timeout,
        interceptors: interceptors(config),
    };
    let open = |addresses: &[SocketAddr]| {
        let broker = Arc::clone(broker);
        Server::bind(addresses, config.backlog, broker, connections_max(), limits.clone(), identity(config))
    };
    let mut addresses = Vec::new();
    for listener in listeners {
        match listener.addresses()[..] {
            // A v6 socket for every address takes v4 clients too; where there is no v6, v4 alone is right.
            [v6, v4] => addresses.push(if open(&[SocketAddr::new(v6.ip(), 0)]).is_ok() { v6 } else { v4 }),
            ref one => addresses.extend_from_slice(one),
        }
    }
    if addresses.is_empty() {
        bail!("no address to listen on");
    }
    open(&addresses)
        .map_err(|error| anyhow!("{:#}; choose another --bind or --amqp-port", anyhow::Error::from(error)))
}

fn interceptors(config: &Config) -> Interceptors {
    let existing = |overwrite| if overwrite { Existing::Overwritten } else { Existing::Kept };
    let warren_config::Interceptors { timestamp, routing_node } = config.interceptors;
    Interceptors {
        timestamp: timestamp.map(existing),
        routing_node: routing_node.map(|overwrite| (existing(overwrite), Arc::from(node()))),
    }
}

/// The node's name, as RabbitMQ chooses it.
fn node() -> String {
    format!("rabbit@{}", rustix::system::uname().nodename().to_string_lossy())
}

fn identity(config: &Config) -> ServerIdentity {
    ServerIdentity {
        product: "Warren".to_owned(),
        version: COMPATIBLE_VERSION.to_owned(),
        cluster_name: config.cluster_name.clone().unwrap_or_else(node),
        platform: format!("Rust; Warren {}", env!("CARGO_PKG_VERSION")),
        copyright: "The authors of Warren".to_owned(),
        information: "Licensed under the Apache License, Version 2.0".to_owned(),
    }
}

/// Tells scripts on standard output where clients can connect.
fn announce(addresses: &[SocketAddr], data_dir: &DataDir) -> anyhow::Result<()> {
    let shown: Vec<String> = addresses
        .iter()
        .map(|address| match address.ip() {
            ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
            _ => address.to_string(),
        })
        .collect();
    let line = format!(
        "ready amqp={} data={} pid={} version={}\n",
        shown.join(","),
        data_dir.path().display(),
        std::process::id(),
        env!("CARGO_PKG_VERSION")
    );
    let mut stdout = std::io::stdout();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to standard output")
}
