//! The commands, with rabbitmqctl's names and arguments.

use clap::Subcommand;

use crate::messages::{Chosen, Shown, Transfer};

/// A command for a running broker.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    // ---- the node
    /// Tell how the node is: versions, memory, disk, alarms, listeners.
    #[command(visible_alias = "cluster_status")]
    Status,
    /// Tell whether the node runs and answers.
    Ping,
    /// Tell the version.
    Version,
    /// Wait until the node has started.
    AwaitStartup,
    /// Tell whether the node runs.
    CheckRunning,
    /// Fail if an alarm stands.
    #[command(visible_alias = "check_local_alarms")]
    CheckAlarms,
    /// Fail if a port does not take connections.
    CheckPortConnectivity,
    /// Tell where the node listens.
    Listeners,
    /// End the node in order: what was confirmed is safe.
    #[command(visible_alias = "shutdown")]
    Stop,

    // ---- listings
    /// List queues.
    ListQueues(Columns),
    /// List exchanges.
    ListExchanges(Columns),
    /// List bindings.
    ListBindings(Columns),
    /// List connections.
    ListConnections(Columns),
    /// List channels.
    ListChannels(Columns),
    /// List consumers.
    ListConsumers(Columns),
    /// List virtual hosts.
    ListVhosts(Columns),
    /// List users with their tags.
    ListUsers,
    /// List who may do what in a virtual host.
    ListPermissions,
    /// List what a user may do, and where.
    ListUserPermissions {
        /// The user.
        username: String,
    },
    /// List policies.
    ListPolicies,
    /// List operators' policies.
    ListOperatorPolicies,
    /// List runtime parameters.
    ListParameters,

    // ---- queues
    /// Drop the ready messages of a queue.
    PurgeQueue {
        /// The queue.
        queue: String,
    },
    /// Delete a queue.
    DeleteQueue {
        /// The queue.
        queue: String,
        /// Only if it is empty.
        #[arg(short = 'e', long = "if-empty")]
        if_empty: bool,
        /// Only if it has no consumers.
        #[arg(short = 'u', long = "if-unused")]
        if_unused: bool,
    },

    /// Let nobody get messages from a queue until it is resumed; it goes on taking them.
    PauseQueue {
        /// The queue.
        queue: String,
    },
    /// Let consumers get messages from a paused queue again.
    ResumeQueue {
        /// The queue.
        queue: String,
    },
    /// Change arguments of a queue that is there, as limits and dead-letter settings; null takes one away.
    #[command(
        after_help = "Example:\n  warren ctl set_queue_arguments orders '{\"x-max-length\":1000,\"x-message-ttl\":null}'"
    )]
    SetQueueArguments {
        /// The queue.
        queue: String,
        /// A JSON object.
        arguments: String,
    },

    // ---- policies and parameters
    /// Set or update a policy.
    #[command(
        after_help = "Example:\n  warren ctl set_policy limits '^orders' '{\"max-length\":1000000}' --apply-to queues"
    )]
    SetPolicy(NewPolicy),
    /// Set or update an operator's policy, which bounds users' policies.
    SetOperatorPolicy(NewPolicy),
    /// Remove a policy.
    ClearPolicy {
        /// The policy.
        name: String,
    },
    /// Remove an operator's policy.
    ClearOperatorPolicy {
        /// The policy.
        name: String,
    },
    /// Set a runtime parameter.
    SetParameter {
        /// The component that it is for.
        component_name: String,
        /// Its name.
        name: String,
        /// Its value, in JSON.
        value: String,
    },
    /// Remove a runtime parameter.
    ClearParameter {
        /// The component that it is for.
        component_name: String,
        /// Its name.
        name: String,
    },

    // ---- virtual hosts
    /// Create a virtual host.
    AddVhost {
        /// Its name.
        vhost: String,
    },
    /// Delete a virtual host with everything in it.
    DeleteVhost {
        /// Its name.
        vhost: String,
    },
    /// Copy what is published and delivered to the exchange amq.rabbitmq.trace.
    TraceOn,
    /// Copy nothing to the exchange amq.rabbitmq.trace any more.
    TraceOff,

    // ---- users
    /// Create a user, who may do nothing yet.
    AddUser {
        /// The user.
        username: String,
        /// The password; asked for on standard input if it is not given.
        password: Option<String>,
    },
    /// Delete a user.
    DeleteUser {
        /// The user.
        username: String,
    },
    /// Change a user's password.
    ChangePassword {
        /// The user.
        username: String,
        /// The password; asked for on standard input if it is not given.
        password: Option<String>,
    },
    /// Let a user log in by password no more.
    ClearPassword {
        /// The user.
        username: String,
    },
    /// Set a user's tags, as administrator or monitoring; none takes them all.
    SetUserTags {
        /// The user.
        username: String,
        /// The tags.
        tags: Vec<String>,
    },
    /// Check a user's password.
    AuthenticateUser {
        /// The user.
        username: String,
        /// The password; asked for on standard input if it is not given.
        password: Option<String>,
    },
    /// Set what a user may do in a virtual host: patterns of names.
    #[command(after_help = "Example:\n  warren ctl set_permissions -p orders alice '^alice-' '.*' '.*'")]
    SetPermissions {
        /// The user.
        username: String,
        /// What may be declared and deleted.
        conf: String,
        /// What may be published to and bound.
        write: String,
        /// What may be consumed and bound from.
        read: String,
    },
    /// Let a user into a virtual host no more.
    ClearPermissions {
        /// The user.
        username: String,
    },

    // ---- limits
    /// Set the memory that messages may take: a fraction, or absolute with a number of bytes.
    #[command(after_help = "Examples:\n  warren ctl set_vm_memory_high_watermark 0.4\n  warren ctl \
                      set_vm_memory_high_watermark absolute 2GB")]
    SetVmMemoryHighWatermark {
        /// A fraction of the memory, or `absolute` and bytes (with units as MB or GiB).
        #[arg(required = true, num_args = 1..=2)]
        limit: Vec<String>,
    },
    /// Set the free disk space below which publishers wait: bytes, or `mem_relative` and a fraction.
    SetDiskFreeLimit {
        /// Bytes (with units as MB or GiB), or `mem_relative` and a fraction of the memory.
        #[arg(required = true, num_args = 1..=2)]
        limit: Vec<String>,
    },

    // ---- connections
    /// Close a connection.
    CloseConnection {
        /// The connection, as list_connections shows it under pid.
        connection_pid: String,
        /// What its client is told.
        explanation: String,
    },
    /// Close the connections of a virtual host (-p) or all of them (--global).
    CloseAllConnections {
        /// Those of all virtual hosts.
        #[arg(long)]
        global: bool,
        /// At most so many.
        #[arg(long, default_value_t = 0)]
        limit: u64,
        /// What their clients are told.
        explanation: String,
    },
    /// Close the connections of a user.
    CloseAllUserConnections {
        /// The user.
        username: String,
        /// What the clients are told.
        explanation: String,
    },

    // ---- messages
    /// Show ready messages of a queue; nothing changes. Ages and expirations are in milliseconds.
    #[command(
        after_help = "Columns:\n  id routing_key exchange priority redelivered age expires size properties body\n\n\
                      Example:\n  warren ctl browse_queue orders --count 5 id routing_key body"
    )]
    BrowseQueue {
        /// The queue.
        queue: String,
        /// What to show.
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete ready messages of a queue.
    DeleteMessages {
        /// The queue.
        queue: String,
        /// Which messages.
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Move ready messages to another queue or to an exchange. What nobody takes stays.
    #[command(after_help = "Example:\n  warren ctl move_messages orders --to-queue parked --first 100")]
    MoveMessages(Transfer),
    /// Copy ready messages to another queue or to an exchange.
    CopyMessages(Transfer),
    /// Move dead letters back to the queues in which they died first.
    RedriveQueue {
        /// The queue that has them.
        queue: String,
        /// At most so many.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Show messages that a delayed exchange holds back; they expire when they are due.
    ListDelayed {
        /// The exchange.
        exchange: String,
        /// What to show.
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete messages that a delayed exchange holds back.
    CancelDelayed {
        /// The exchange.
        exchange: String,
        /// Ids of messages, as they are shown.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Columns of a listing.
#[derive(Debug, clap::Args)]
pub struct Columns {
    /// Columns to show, separated by spaces.
    pub columns: Vec<String>,
}

/// A policy to set.
#[derive(Debug, clap::Args)]
pub struct NewPolicy {
    /// Its name.
    pub name: String,
    /// A regular expression over names of queues and exchanges.
    pub pattern: String,
    /// What it sets: a JSON object.
    pub definition: String,
    /// Of several that match, the one with the highest priority counts.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i64,
    /// What it is for: queues, classic_queues, quorum_queues, streams, exchanges or all.
    #[arg(long, default_value = "all")]
    pub apply_to: String,
}
