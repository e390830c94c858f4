//! Listings, a page at a time.

use std::io;

use std::net::SocketAddr;

use warren_broker::{
    AdminError, Broker, ChannelInfo, ConnectionInfo, ConsumerInfo, Grant, Parameter, Policy, PolicyKind,
    QueueInfo, User,
};
use warren_router::{Binding, Destination, ExchangeDefinition};

use warren_types::FieldValue;
use warren_types::session::Peer;

use crate::cell::Cell;
use crate::columns;
use crate::messages;
use crate::protocol::{Failure, Listing, Response, Row};
use crate::server::Answers;

/// Bytes of a page that are enough: a longer listing goes on with the next.
const PAGE_BYTES: usize = 256 * 1024;

/// Rows of a page.
const PAGE_ROWS: usize = 1000;

/// Sends the rows of a listing; the end is left to the caller.
pub(crate) async fn list(
    listing: Listing,
    columns: &[String],
    broker: &Broker,
    answers: &mut Answers,
) -> io::Result<Result<(), Failure>> {
    match rows(listing, columns, broker, answers).await {
        Ok(()) => Ok(Ok(())),
        Err(Stopped::Client(error)) => Err(error),
        Err(Stopped::Failed(failure)) => Ok(Err(failure)),
    }
}

/// Why a listing is not complete.
enum Stopped {
    Client(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Client(error)
    }
}

impl From<AdminError> for Stopped {
    fn from(error: AdminError) -> Self {
        Self::Failed(error.into())
    }
}

async fn rows(
    listing: Listing,
    columns: &[String],
    broker: &Broker,
    answers: &mut Answers,
) -> Result<(), Stopped> {
    let known = columns::of(&listing);
    let unknown: Vec<&str> =
        columns.iter().map(String::as_str).filter(|column| !known.contains(column)).collect();
    if !unknown.is_empty() {
        let text = format!("Info key(s) {} are not supported", unknown.join(","));
        return Err(Stopped::Failed(Failure::Invalid(text)));
    }
    let mut page = Page { columns, answers, rows: Vec::new(), bytes: 0 };
    match listing {
        Listing::Vhosts => page.all(broker.vhosts(), |name, column| vhost(name, column, broker)).await?,
        Listing::Connections => page.all(broker.connections(), connection).await?,
        Listing::Channels => page.all(broker.channels().await, channel).await?,
        Listing::Consumers { vhost } => page.all(broker.consumers(&vhost).await?, consumer).await?,
        Listing::Users => page.all(broker.users(), |found, column| user(found, column)).await?,
        Listing::Permissions { vhost } => {
            broker.list_exchanges(&vhost)?;
            let of_vhost = broker.grants().into_iter().filter(|grant| grant.vhost == vhost);
            page.all(of_vhost, permissions).await?;
        }
        Listing::UserPermissions { user } => {
            if !broker.users().iter().any(|known| known.name == user) {
                let kind = "user".to_owned();
                return Err(Stopped::Failed(Failure::NotFound { kind, name: user }));
            }
            let of_user = broker.grants().into_iter().filter(|grant| grant.user == user);
            page.all(of_user, permissions).await?;
        }
        Listing::Queues { vhost } => {
            let mut queues = broker.list_queues(&vhost)?;
            while let Some(infos) = queues.next_page(broker).await {
                page.all(infos, |info, column| queue(info, column, &vhost, broker)).await?;
            }
        }
        Listing::Exchanges { vhost } => {
            let exchanges = broker.list_exchanges(&vhost)?;
            page.all(exchanges, |info, column| exchange(info, column, &vhost, broker)).await?;
        }
        Listing::Bindings { vhost } => {
            // Every queue is bound to the default exchange, which keeps no bindings.
            let mut queues = broker.list_queues(&vhost)?;
            while !queues.is_empty() {
                let implicit = queues.next_names().into_iter().map(|name| Binding {
                    source: Default::default(),
                    destination: Destination::Queue(name.clone()),
                    routing_key: name,
                    arguments: Default::default(),
                });
                page.all(implicit, |info, column| binding(info, column, &vhost)).await?;
            }
            let bindings = broker.list_bindings(&vhost)?;
            page.all(bindings, |info, column| binding(info, column, &vhost)).await?;
        }
        Listing::Policies { vhost, operator } => {
            let kind = if operator { PolicyKind::Operator } else { PolicyKind::User };
            page.all(broker.policies(&vhost, kind)?, |info, column| policy(info, column, &vhost)).await?;
        }
        Listing::Messages { vhost, place, after, count } => {
            let listing = messages::listing(broker, &vhost, &place, after.as_deref(), count);
            let mut listing = listing.map_err(Stopped::Failed)?;
            loop {
                let next = listing.next_page(broker).await;
                let Some(found) = next.map_err(|error| Stopped::Failed(error.into()))? else { break };
                page.all(found, messages::cell).await?;
            }
        }
        Listing::Parameters { vhost } => page.all(broker.parameters(&vhost)?, parameter).await?,
    }
    page.send().await?;
    Ok(())
}

/// Rows on their way to the client.
struct Page<'a> {
    columns: &'a [String],
    answers: &'a mut Answers,
    rows: Vec<Row>,
    bytes: usize,
}

impl Page<'_> {
    async fn all<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        cell: impl Fn(&T, &str) -> Cell,
    ) -> io::Result<()> {
        for item in items {
            let row: Row = self.columns.iter().map(|column| cell(&item, column)).collect();
            self.bytes += row.iter().map(Cell::len).sum::<usize>();
            self.rows.push(row);
            if self.bytes > PAGE_BYTES || self.rows.len() >= PAGE_ROWS {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.answers.send(&Response::Rows(std::mem::take(&mut self.rows))).await
    }
}

fn vhost(name: &str, column: &str, broker: &Broker) -> Cell {
    match column {
        "name" => Cell::Text(name.to_owned()),
        "tracing" => broker.tracing(name).map_or(Cell::Empty, Cell::Flag),
        _ => Cell::Empty,
    }
}

fn user(user: &User, column: &str) -> Cell {
    match column {
        "user" => Cell::Text(user.name.clone()),
        "tags" => Cell::Words(user.tags.iter().map(|tag| tag.name().to_owned()).collect()),
        _ => Cell::Empty,
    }
}

fn permissions(grant: &Grant, column: &str) -> Cell {
    let [configure, write, read] = grant.permissions.patterns();
    Cell::Text(match column {
        "user" => grant.user.clone(),
        "vhost" => grant.vhost.clone(),
        "configure" => configure.to_owned(),
        "write" => write.to_owned(),
        "read" => read.to_owned(),
        _ => return Cell::Empty,
    })
}

fn queue(info: &QueueInfo, column: &str, vhost: &str, broker: &Broker) -> Cell {
    let counts = &info.counts;
    match column {
        "name" => Cell::bytes(info.name.as_bytes()),
        "durable" => Cell::Flag(info.durable),
        "auto_delete" => Cell::Flag(info.auto_delete),
        "arguments" => Cell::arguments(&info.arguments),
        "policy" => Cell::optional(info.policies.policy.as_deref()),
        "operator_policy" => Cell::optional(info.policies.operator_policy.as_deref()),
        "effective_policy_definition" => Cell::optional(info.policies.definition.as_deref()),
        "pid" => Cell::Pid(format!("<{}.{}.0.0>", broker.node(), info.queue.id.0)),
        "owner_pid" => info.owner.map_or(Cell::Empty, |owner| Cell::Pid(broker.pid(owner))),
        "exclusive" => Cell::Flag(info.owner.is_some()),
        "messages_ready" => Cell::count(counts.ready),
        "messages_unacknowledged" => Cell::count(counts.unacked),
        "messages" => Cell::count(counts.ready + counts.unacked),
        "consumers" | "consumer_count" => Cell::count(counts.consumers),
        "memory" => Cell::count(counts.memory),
        "state" => Cell::Word(
            match (counts.stopped, counts.paused) {
                (true, _) => "stopped",
                (false, true) => "paused",
                (false, false) => "running",
            }
            .to_owned(),
        ),
        "type" => Cell::Word(info.kind()),
        "vhost" => Cell::Text(vhost.to_owned()),
        _ => Cell::Empty,
    }
}

fn exchange(info: &ExchangeDefinition, column: &str, vhost: &str, broker: &Broker) -> Cell {
    match column {
        "name" => Cell::bytes(info.name.as_bytes()),
        "type" => Cell::Word(info.kind.name().to_owned()),
        "durable" => Cell::Flag(info.durable),
        "auto_delete" => Cell::Flag(info.auto_delete),
        "internal" => Cell::Flag(info.internal),
        "arguments" => Cell::arguments(&info.arguments),
        "policy" => {
            let name = String::from_utf8_lossy(info.name.as_bytes());
            let policies = broker.policies_of_exchange(vhost, &name).unwrap_or_default();
            Cell::optional(policies.policy.as_deref())
        }
        "vhost" => Cell::Text(vhost.to_owned()),
        _ => Cell::Empty,
    }
}

fn binding(info: &Binding, column: &str, vhost: &str) -> Cell {
    match column {
        "source_name" => Cell::bytes(info.source.as_bytes()),
        "source_kind" => Cell::Word("exchange".to_owned()),
        "destination_name" => Cell::bytes(info.destination.name().as_bytes()),
        "destination_kind" => Cell::Word(
            match info.destination {
                Destination::Queue(_) => "queue",
                Destination::Exchange(_) => "exchange",
            }
            .to_owned(),
        ),
        "routing_key" => Cell::bytes(info.routing_key.as_bytes()),
        "arguments" => Cell::arguments(&info.arguments),
        "vhost" => Cell::Text(vhost.to_owned()),
        _ => Cell::Empty,
    }
}

fn policy(info: &Policy, column: &str, vhost: &str) -> Cell {
    Cell::Text(match column {
        "vhost" => vhost.to_owned(),
        "name" => info.name.clone(),
        "pattern" => info.pattern.clone(),
        "apply-to" => return Cell::Word(info.apply_to.name().to_owned()),
        "definition" => info.definition.clone(),
        "priority" => return Cell::Number(info.priority),
        _ => return Cell::Empty,
    })
}

fn connection(info: &ConnectionInfo, column: &str) -> Cell {
    let Peer { client, server } = info.peer;
    let host = |address: SocketAddr| Cell::Text(address.ip().to_canonical().to_string());
    match column {
        "pid" => Cell::Pid(info.pid.clone()),
        "name" => Cell::Text(info.name.clone()),
        "user" => Cell::Text(info.user.clone()),
        "vhost" => Cell::Text(info.vhost.clone()),
        "host" => host(server),
        "port" => Cell::count(server.port()),
        "peer_host" => host(client),
        "peer_port" => Cell::count(client.port()),
        "state" => Cell::Word("running".to_owned()),
        "channels" => Cell::count(info.channels),
        "protocol" => Cell::Word(info.protocol.clone()),
        "auth_mechanism" => Cell::Text(info.mechanism.clone()),
        "user_provided_name" => {
            let name = info.client_properties.get("connection_name").and_then(FieldValue::as_long_string);
            name.map_or(Cell::Empty, Cell::bytes)
        }
        "client_properties" => Cell::arguments(&info.client_properties),
        "timeout" => Cell::count(info.heartbeat_s),
        "frame_max" => Cell::count(info.frame_max),
        "channel_max" => Cell::count(info.channel_max),
        "connected_at" => Cell::count(info.connected_at),
        "ssl" => Cell::Flag(false),
        _ => Cell::Empty,
    }
}

fn channel(info: &ChannelInfo, column: &str) -> Cell {
    match column {
        "pid" => Cell::Pid(info.pid.clone()),
        "connection" => Cell::Pid(info.connection.clone()),
        "name" => Cell::Text(info.name.clone()),
        "number" => Cell::count(info.number),
        "user" => Cell::Text(info.user.clone()),
        "vhost" => Cell::Text(info.vhost.clone()),
        "consumer_count" => Cell::count(info.consumers),
        "messages_unacknowledged" => Cell::count(info.unacked),
        _ => Cell::Empty,
    }
}

fn consumer(info: &ConsumerInfo, column: &str) -> Cell {
    match column {
        "queue_name" => Cell::bytes(info.queue.as_bytes()),
        "channel_pid" => Cell::Pid(info.channel.clone()),
        "consumer_tag" => Cell::bytes(info.tag.as_bytes()),
        "ack_required" => Cell::Flag(info.ack_required),
        "prefetch_count" => Cell::count(info.prefetch),
        "active" => Cell::Flag(info.active),
        "arguments" => Cell::arguments(&info.arguments),
        _ => Cell::Empty,
    }
}

fn parameter(info: &Parameter, column: &str) -> Cell {
    Cell::Text(match column {
        "component" => info.component.clone(),
        "name" => info.name.clone(),
        "value" => info.value.clone(),
        _ => return Cell::Empty,
    })
}
