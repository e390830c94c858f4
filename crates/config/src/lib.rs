//! Typed configuration, read from `rabbitmq.conf` syntax.
//!
//! A file is lines of `key = value`; `#` starts a comment. Keys are RabbitMQ's. A key that is not known, or a
//! value that does not fit, refuses the whole file, with the line: a setting that is silently ignored is worse
//! than a broker that does not start.

mod memory;
mod parse;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub use parse::ConfigError;
pub use value::bytes;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where AMQP is served (`listeners.tcp.*`); empty means both families of every address, port 5672.
    pub listeners: Vec<Listener>,
    /// Connections that may wait to be accepted (`tcp_listen_options.backlog`).
    pub backlog: u32,
    /// Time from accept to `connection.open` (`handshake_timeout`, in milliseconds).
    pub handshake_timeout: Duration,
    /// Heartbeat interval offered, in seconds (`heartbeat`).
    pub heartbeat_s: u16,
    /// Largest frame, in bytes (`frame_max`).
    pub frame_max: u32,
    /// Most channels of a connection (`channel_max`).
    pub channel_max: u16,
    /// Largest message body, in bytes (`max_message_size`).
    pub max_message_size: u64,
    /// The virtual host that exists from the start (`default_vhost`).
    pub default_vhost: String,
    /// The type of queues that are declared without one (`default_queue_type`).
    pub default_queue_type: Option<String>,
    /// The user that exists from the start (`default_user`).
    pub default_user: String,
    /// Its password (`default_pass`).
    pub default_pass: String,
    /// Its permissions in the default virtual host (`default_permissions.*`).
    pub default_permissions: PermissionPatterns,
    /// Users that may connect from this machine only (`loopback_users.*`).
    pub loopback_users: BTreeMap<String, bool>,
    /// The user that clients without credentials act as (`anonymous_login_user`, `none` to refuse them).
    pub anonymous_login_user: Option<String>,
    /// How long a consumer may take to acknowledge a message, where neither it nor its queue says (`consumer_timeout`).
    pub consumer_timeout: Option<Duration>,
    /// When publishers must wait (`vm_memory_high_watermark.*`).
    pub memory_high_watermark: Watermark,
    /// Free disk space, in bytes, below which publishers must wait (`disk_free_limit.*`).
    pub disk_free_limit: u64,
    /// Name of the cluster, told to clients (`cluster_name`).
    pub cluster_name: Option<String>,
    /// What is logged (`log.console.level`).
    pub log_level: LogLevel,
    /// What is published to the exchange `amq.rabbitmq.log` of the default virtual host (`log.exchange`,
    /// `log.exchange.level`); without it there is no such exchange.
    pub log_exchange: Option<LogLevel>,
    /// The virtual host that has the exchange `amq.rabbitmq.event`, if any has (`event_exchange.enabled`,
    /// `event_exchange.vhost`).
    pub event_exchange: Option<String>,
    /// What is added to messages that come in (`message_interceptors.incoming.*`).
    pub interceptors: Interceptors,
}

/// What is added to messages that come in: whether what the publisher has given is overwritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interceptors {
    /// The time (`message_interceptors.incoming.set_header_timestamp.overwrite`).
    pub timestamp: Option<bool>,
    /// The node (`message_interceptors.incoming.set_header_routing_node.overwrite`).
    pub routing_node: Option<bool>,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// On every address of both families.
    Port(u16),
    /// On one address.
    Address(SocketAddr),
}

/// Patterns over names of exchanges and queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionPatterns {
    /// Declaring and deleting.
    pub configure: String,
    /// Publishing and binding to.
    pub write: String,
    /// Consuming and binding from.
    pub read: String,
}

/// Memory that messages may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Watermark {
    /// A part of the memory there is.
    Relative(f64),
    /// Bytes.
    Absolute(u64),
}

/// How much is logged: RabbitMQ's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Lifecycle and more important.
    Info,
    /// Refused clients and limits, and more important.
    Warning,
    /// What an operator must act on.
    Error,
    /// Nothing.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            backlog: 1024,
            handshake_timeout: Duration::from_secs(10),
            heartbeat_s: 60,
            frame_max: 131_072,
            channel_max: 2047,
            max_message_size: 16 * 1024 * 1024,
            default_vhost: "/".to_owned(),
            default_queue_type: None,
            default_user: "guest".to_owned(),
            default_pass: "guest".to_owned(),
            default_permissions: PermissionPatterns {
                configure: ".*".to_owned(),
                write: ".*".to_owned(),
                read: ".*".to_owned(),
            },
            loopback_users: BTreeMap::from([("guest".to_owned(), true)]),
            anonymous_login_user: Some("guest".to_owned()),
            consumer_timeout: None,
            memory_high_watermark: Watermark::Relative(0.6),
            disk_free_limit: 50_000_000,
            cluster_name: None,
            log_level: LogLevel::Info,
            log_exchange: None,
            event_exchange: None,
            interceptors: Interceptors::default(),
        }
    }
}

impl Config {
    /// The port of AMQP.
    pub const DEFAULT_PORT: u16 = 5672;

    /// Reads the text of a `rabbitmq.conf`.
    ///
    /// # Errors
    /// At the first line that cannot be understood.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        parse::parse(text)
    }

    /// Memory that messages may take, in bytes.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        match self.memory_high_watermark {
            Watermark::Absolute(bytes) => bytes,
            Watermark::Relative(part) => (memory::total_bytes() as f64 * part) as u64,
        }
    }

    /// Memory of the machine or container, in bytes.
    #[must_use]
    pub fn machine_memory() -> u64 {
        memory::total_bytes()
    }

    /// Users that may connect from this machine only.
    #[must_use]
    pub fn loopback_users(&self) -> Vec<String> {
        self.loopback_users.iter().filter(|(_, only)| **only).map(|(name, _)| name.clone()).collect()
    }
}

impl Listener {
    /// The addresses to listen on, the first one required, the others where the system can.
    #[must_use]
    pub fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![address],
            Self::Port(port) => vec![
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            ],
        }
    }
}
