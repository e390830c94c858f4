//! Requests and responses.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::cell::Cell;

/// The version of RabbitMQ whose behaviour clients and operators may expect: some look at it before they use a feature.
pub const COMPATIBLE_VERSION: &str = "4.3.5";

/// The version of this vocabulary: client and broker must have the same.
pub const VERSION: u32 = 1;

/// A request and the version of its vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`] of whoever asks.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Is anybody there?
    Ping,
    /// How is the node?
    Status,
    /// Rows of a listing, with these columns.
    List {
        /// What to list.
        listing: Listing,
        /// Names of the columns, of those in [`crate::columns`].
        columns: Vec<String>,
    },
    /// A change.
    Change(Change),
    /// End the broker in order, as SIGTERM does.
    Stop,
    /// Do something with messages: a row tells in [`crate::columns::HANDLED`] what became of them.
    Messages(HandleMessages),
}

/// Something to do with messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandleMessages {
    /// The virtual host.
    pub vhost: String,
    /// Where they are.
    pub place: MessagePlace,
    /// What to do.
    pub action: MessageAction,
    /// With which of them.
    pub choice: MessageChoice,
}

/// Where messages are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessagePlace {
    /// In a queue.
    Queue(String),
    /// Held back by an exchange.
    Delayed(String),
}

/// What to do with messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageAction {
    /// Delete them.
    Delete,
    /// Move them.
    Move(MessageTarget),
    /// Copy them.
    Copy(MessageTarget),
    /// Move them to the queues in which they died first.
    Redrive,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are what their names say")]
pub enum MessageTarget {
    /// To a queue.
    Queue(String),
    /// To an exchange.
    Exchange { name: String, routing_key: String },
}

/// Which messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageChoice {
    /// Those with these ids.
    Ids(Vec<String>),
    /// The first, so many of them.
    First(u64),
}

/// What can be listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listing {
    /// Virtual hosts.
    Vhosts,
    /// Users.
    Users,
    /// The permissions in a virtual host.
    Permissions {
        /// The virtual host.
        vhost: String,
    },
    /// The permissions of a user.
    UserPermissions {
        /// The user.
        user: String,
    },
    /// Queues of a virtual host.
    Queues {
        /// The virtual host.
        vhost: String,
    },
    /// Exchanges of a virtual host.
    Exchanges {
        /// The virtual host.
        vhost: String,
    },
    /// Bindings of a virtual host.
    Bindings {
        /// The virtual host.
        vhost: String,
    },
    /// Policies of a virtual host.
    Policies {
        /// The virtual host.
        vhost: String,
        /// Operators' policies, not users'.
        operator: bool,
    },
    /// Runtime parameters of a virtual host.
    Parameters {
        /// The virtual host.
        vhost: String,
    },
    /// Connections of all virtual hosts.
    Connections,
    /// Channels of all virtual hosts.
    Channels,
    /// Consumers in a virtual host.
    Consumers {
        /// The virtual host.
        vhost: String,
    },
    /// Ready messages.
    Messages {
        /// The virtual host.
        vhost: String,
        /// Where they are.
        place: MessagePlace,
        /// Those behind the message with this id.
        after: Option<String>,
        /// So many at most.
        count: u64,
    },
}

/// What can be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are what their names say")]
pub enum Change {
    /// Create a virtual host, unless it is there.
    AddVhost { name: String },
    /// Delete a virtual host with everything in it.
    DeleteVhost { name: String },
    /// Create a user without permissions.
    AddUser { name: String, password: String },
    /// Delete a user.
    DeleteUser { name: String },
    /// Set a user's password.
    ChangePassword { name: String, password: String },
    /// Let a user log in by password no more.
    ClearPassword { name: String },
    /// Check a user's password.
    Authenticate { name: String, password: String },
    /// Set a user's tags.
    SetUserTags { name: String, tags: Vec<String> },
    /// Set what a user may do in a virtual host.
    SetPermissions { vhost: String, user: String, configure: String, write: String, read: String },
    /// Let a user into a virtual host no more.
    ClearPermissions { vhost: String, user: String },
    /// Create or change a policy.
    SetPolicy { vhost: String, operator: bool, policy: NamedPolicy },
    /// Remove a policy.
    ClearPolicy { vhost: String, operator: bool, name: String },
    /// Create or change a runtime parameter.
    SetParameter { vhost: String, parameter: NamedParameter },
    /// Remove a runtime parameter.
    ClearParameter { vhost: String, component: String, name: String },
    /// Let nobody get messages from a queue, or everybody again.
    PauseQueue { vhost: String, name: String, paused: bool },
    /// Give arguments of a queue other values: a JSON object, where null takes an argument away.
    SetQueueArguments { vhost: String, name: String, arguments: String },
    /// Drop the ready messages of a queue; answered with their number.
    PurgeQueue { vhost: String, name: String },
    /// Delete a queue; answered with the number of its messages.
    DeleteQueue { vhost: String, name: String, if_empty: bool, if_unused: bool },
    /// Copy what is published and delivered in a virtual host to its firehose, or do so no more.
    SetTracing { vhost: String, traced: bool },
    /// Close a connection, by what stands for its process.
    CloseConnection { pid: String, explanation: String },
    /// Close connections, those of a virtual host or a user alone if they are given; answered with their number.
    CloseConnections { vhost: Option<String>, user: Option<String>, limit: u64, explanation: String },
    /// Set the memory that messages may take.
    SetMemoryLimit(Limit),
    /// Set the free disk space below which publishers wait.
    SetDiskFreeLimit(Limit),
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Bytes.
    Absolute(u64),
    /// A part of the memory that the machine or container has.
    OfMemory(f64),
}

/// A policy as it is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedPolicy {
    /// Its name.
    pub name: String,
    /// A regular expression over names.
    pub pattern: String,
    /// The settings, as a JSON object.
    pub definition: String,
    /// Which policy counts of several.
    pub priority: i64,
    /// What it is for, by RabbitMQ's name.
    pub apply_to: String,
}

/// A runtime parameter as it is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedParameter {
    /// The component that it is for.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its value, in JSON.
    pub value: String,
}

/// Values of the columns that were asked for, in their order.
pub type Row = Vec<Cell>;

/// A piece of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Some rows; more may follow.
    Rows(Vec<Row>),
    /// How the node is; the end follows.
    Status(Box<Status>),
    /// The end: it is done. Some changes tell of how much.
    Done(Option<u64>),
    /// The end: it is not done, or not listed to the end.
    Failed(Failure),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// What it is about is not there.
    NotFound {
        /// What kind of thing, as `user`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// What was to be created is there.
    Exists {
        /// What kind of thing.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A value is not possible.
    Invalid(String),
    /// The state of things forbids it.
    Refused(String),
    /// A user may not log in so.
    Denied(String),
    /// Client and broker are of different versions.
    Version(u32),
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub node: String,
    /// The name of its cluster.
    pub cluster: String,
    /// Its process.
    pub pid: u32,
    /// Warren's version.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// The data directory.
    pub data_dir: String,
    /// The configuration file, if there is one.
    pub config_file: Option<String>,
    /// Where AMQP is served.
    pub listeners: Vec<SocketAddr>,
    /// Alarms that stand: `memory`, `disk`.
    pub alarms: Vec<String>,
    /// Memory of the process, in bytes.
    pub memory: u64,
    /// Memory of messages in queues, in bytes.
    pub queue_memory: u64,
    /// Memory that messages may take, in bytes.
    pub memory_limit: u64,
    /// Free disk space, in bytes, if the system tells.
    pub disk_free: Option<u64>,
    /// Free disk space, in bytes, below which publishers wait.
    pub disk_free_limit: u64,
    /// Files that the process may have open.
    pub file_limit: u64,
    /// Open connections.
    pub connections: u64,
    /// Queues.
    pub queues: u64,
    /// Virtual hosts.
    pub vhosts: u64,
}
