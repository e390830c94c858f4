//! The columns of listings: RabbitMQ's names, of those for which Warren has values.

use crate::protocol::Listing;

/// The columns that a listing can have.
#[must_use]
pub fn of(listing: &Listing) -> &'static [&'static str] {
    match listing {
        Listing::Vhosts => VHOSTS,
        Listing::Users => USERS,
        Listing::Permissions { .. } => PERMISSIONS,
        Listing::UserPermissions { .. } => USER_PERMISSIONS,
        Listing::Queues { .. } => QUEUES,
        Listing::Exchanges { .. } => EXCHANGES,
        Listing::Bindings { .. } => BINDINGS,
        Listing::Policies { .. } => POLICIES,
        Listing::Parameters { .. } => PARAMETERS,
        Listing::Connections => CONNECTIONS,
        Listing::Channels => CHANNELS,
        Listing::Consumers { .. } => CONSUMERS,
        Listing::Messages { .. } => MESSAGES,
    }
}

/// Columns of queues.
pub const QUEUES: &[&str] = &[
    "name",
    "durable",
    "auto_delete",
    "arguments",
    "policy",
    "operator_policy",
    "effective_policy_definition",
    "pid",
    "owner_pid",
    "exclusive",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "consumers",
    "consumer_count",
    "memory",
    "state",
    "type",
    "vhost",
];

/// Columns of exchanges.
pub const EXCHANGES: &[&str] =
    &["name", "type", "durable", "auto_delete", "internal", "arguments", "policy", "vhost"];

/// Columns of bindings.
pub const BINDINGS: &[&str] = &[
    "source_name",
    "source_kind",
    "destination_name",
    "destination_kind",
    "routing_key",
    "arguments",
    "vhost",
];

/// Columns of virtual hosts.
pub const VHOSTS: &[&str] = &["name", "tracing"];

/// Columns of users.
pub const USERS: &[&str] = &["user", "tags"];

/// Columns of the permissions in a virtual host.
pub const PERMISSIONS: &[&str] = &["user", "configure", "write", "read"];

/// Columns of the permissions of a user.
pub const USER_PERMISSIONS: &[&str] = &["vhost", "configure", "write", "read"];

/// Columns of policies.
pub const POLICIES: &[&str] = &["vhost", "name", "pattern", "apply-to", "definition", "priority"];

/// Columns of runtime parameters.
pub const PARAMETERS: &[&str] = &["component", "name", "value"];

/// Columns of connections.
pub const CONNECTIONS: &[&str] = &[
    "pid",
    "name",
    "user",
    "vhost",
    "host",
    "port",
    "peer_host",
    "peer_port",
    "state",
    "channels",
    "protocol",
    "auth_mechanism",
    "user_provided_name",
    "client_properties",
    "timeout",
    "frame_max",
    "channel_max",
    "connected_at",
    "ssl",
];

/// Columns of channels.
pub const CHANNELS: &[&str] =
    &["pid", "connection", "name", "number", "user", "vhost", "consumer_count", "messages_unacknowledged"];

/// Columns of consumers.
pub const CONSUMERS: &[&str] =
    &["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"];

/// Columns of messages: `age` and `expires` in milliseconds, `size` in bytes.
pub const MESSAGES: &[&str] = &[
    "id",
    "routing_key",
    "exchange",
    "priority",
    "redelivered",
    "age",
    "expires",
    "size",
    "properties",
    "body",
];

/// What became of messages: how many were handled, are not ready, go nowhere, and were taken by nobody.
pub const HANDLED: &[&str] = &["done", "not_ready", "unroutable", "refused"];
