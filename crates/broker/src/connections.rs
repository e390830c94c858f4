//! Connections, channels and consumers, as operators see and close them.
//!
//! Each connection notes what it has in a registry of its own, whenever a channel or a consumer comes or goes. How many
//! messages are unacked only the shards know.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::oneshot;
use warren_types::session::{Consume, Peer};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, FieldTable, FieldValue, QueueRef, ShortString,
};

use crate::admin::AdminError;
use crate::auth::User;
use crate::broker::Broker;
use crate::events::{connection_name, pid};
use crate::ports::Port;
use crate::shard::ShardCommand;
use crate::vhost::Vhost;

/// What the client has told of itself.
#[derive(Debug)]
pub(crate) struct Portrait {
    /// The SASL mechanism.
    pub mechanism: Vec<u8>,
    /// Version of the protocol: major, minor, revision.
    pub protocol: (u8, u8, u8),
    /// What it told when it introduced itself.
    pub client_properties: FieldTable,
}

impl Portrait {
    /// The version of the protocol as RabbitMQ shows it.
    pub(crate) fn protocol(&self) -> String {
        let (major, minor, revision) = self.protocol;
        format!("{{{major},{minor},{revision}}}")
    }

    /// The name that the user gave the connection.
    pub(crate) fn user_provided_name(&self) -> Option<&[u8]> {
        self.client_properties.get("connection_name").and_then(FieldValue::as_long_string)
    }
}

/// What was agreed on when a connection was opened.
#[derive(Debug)]
pub(crate) struct About {
    pub portrait: Option<Arc<Portrait>>,
    pub peer: Peer,
    pub heartbeat_s: u16,
    pub frame_max: u32,
    pub channel_max: u16,
    /// In milliseconds since 1970.
    pub connected_at: u64,
}

/// A consumer of a channel.
#[derive(Debug, Clone)]
struct Consumer {
    id: ConsumerId,
    queue: ShortString,
    queue_ref: QueueRef,
    tag: ShortString,
    no_ack: bool,
    exclusive: bool,
    prefetch: u32,
    arguments: FieldTable,
}

/// What a connection has, for those who ask.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    about: OnceLock<About>,
    channels: Mutex<BTreeMap<ChannelId, Vec<Consumer>>>,
}

impl Registry {
    fn channels(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Vec<Consumer>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self, about: About) {
        // A connection is opened once.
        let _first = self.about.set(about);
    }

    pub(crate) fn channel_opened(&self, channel: ChannelId) {
        self.channels().insert(channel, Vec::new());
    }

    pub(crate) fn channel_closed(&self, channel: ChannelId) {
        self.channels().remove(&channel);
    }

    pub(crate) fn consumer_added(&self, channel: ChannelId, queue: QueueRef, consume: &Consume) {
        let consumer = Consumer {
            id: consume.consumer,
            queue: consume.queue.clone(),
            queue_ref: queue,
            tag: consume.tag.clone(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: consume.prefetch,
            arguments: consume.arguments.clone(),
        };
        if let Some(consumers) = self.channels().get_mut(&channel) {
            consumers.push(consumer);
        }
    }

    pub(crate) fn consumer_removed(&self, channel: ChannelId, tag: &ShortString) {
        if let Some(consumers) = self.channels().get_mut(&channel) {
            consumers.retain(|consumer| consumer.tag != *tag);
        }
    }
}

/// A connection that has opened a virtual host.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// What stands for its process.
    pub pid: String,
    /// Both of its ends.
    pub name: String,
    /// Both of its ends.
    pub peer: Peer,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub user: String,
    /// The SASL mechanism.
    pub mechanism: String,
    /// Version of the protocol, as RabbitMQ shows it.
    pub protocol: String,
    /// What the client told of itself.
    pub client_properties: FieldTable,
    /// The heartbeat interval that was agreed on, in seconds.
    pub heartbeat_s: u16,
    /// The largest frame that was agreed on, in bytes.
    pub frame_max: u32,
    /// Most channels that were agreed on.
    pub channel_max: u16,
    /// When it was opened, in milliseconds since 1970.
    pub connected_at: u64,
    /// Its open channels.
    pub channels: usize,
}

/// A channel.
#[derive(Debug, Clone)]
pub struct ChannelInfo {
    /// What stands for its process.
    pub pid: String,
    /// What stands for its connection's process.
    pub connection: String,
    /// The connection's name with the channel's number.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub user: String,
    /// Its consumers.
    pub consumers: usize,
    /// Messages that it got and has not settled.
    pub unacked: usize,
}

/// A consumer.
#[derive(Debug, Clone)]
pub struct ConsumerInfo {
    /// Its queue.
    pub queue: ShortString,
    /// What stands for its channel's process.
    pub channel: String,
    /// Its tag.
    pub tag: ShortString,
    /// Whether it acknowledges messages.
    pub ack_required: bool,
    /// Whether no other consumer may be on the queue.
    pub exclusive: bool,
    /// Most unacked messages; 0 for no limit.
    pub prefetch: u32,
    /// Whether it gets messages: not so while another one is the single active consumer.
    pub active: bool,
    /// Its arguments.
    pub arguments: FieldTable,
}

/// How many unacked messages channels have.
pub(crate) type UnackedByChannel = HashMap<(ConnectionId, ChannelId), usize>;

impl Broker {
    /// The connections that have opened a virtual host, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let mut connections: Vec<ConnectionInfo> =
            self.opened().iter().filter_map(|(id, port)| self.connection_info(*id, port)).collect();
        connections.sort_by_key(|connection| connection.connected_at);
        connections
    }

    fn connection_info(&self, id: ConnectionId, port: &Port) -> Option<ConnectionInfo> {
        let (vhost, user) = port.opened.get()?;
        let about = port.registry.about.get()?;
        let portrait = about.portrait.as_deref();
        let mechanism = portrait.map_or(&[][..], |portrait| &portrait.mechanism);
        Some(ConnectionInfo {
            pid: self.pid(id),
            name: connection_name(about.peer.client, about.peer.server),
            peer: about.peer,
            vhost: vhost.name.to_string(),
            user: user.name.clone(),
            mechanism: String::from_utf8_lossy(mechanism).into_owned(),
            protocol: portrait.map_or_else(String::new, Portrait::protocol),
            client_properties: portrait
                .map(|portrait| portrait.client_properties.clone())
                .unwrap_or_default(),
            heartbeat_s: about.heartbeat_s,
            frame_max: about.frame_max,
            channel_max: about.channel_max,
            connected_at: about.connected_at,
            channels: port.registry.channels().len(),
        })
    }

    /// The open channels of all connections.
    pub async fn channels(&self) -> Vec<ChannelInfo> {
        let unacked = self.count_unacked().await;
        let mut channels = Vec::new();
        for (id, port) in self.opened() {
            let (Some((vhost, user)), Some(about)) = (port.opened.get(), port.registry.about.get()) else {
                continue;
            };
            let name = connection_name(about.peer.client, about.peer.server);
            channels.extend(port.registry.channels().iter().map(|(channel, consumers)| ChannelInfo {
                pid: pid(self.events.node(), id, *channel),
                connection: self.pid(id),
                name: format!("{name} ({})", channel.number),
                number: channel.number,
                vhost: vhost.name.to_string(),
                user: user.name.clone(),
                consumers: consumers.len(),
                unacked: unacked.get(&(id, *channel)).copied().unwrap_or_default(),
            }));
        }
        channels
    }

    /// The consumers in a virtual host, by the names of their queues.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub async fn consumers(&self, vhost: &str) -> Result<Vec<ConsumerInfo>, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let is_here = |port: &Port| port.opened.get().is_some_and(|(other, _)| Arc::ptr_eq(other, &vhost));
        let mut found: Vec<(ConnectionId, ChannelId, Consumer)> = Vec::new();
        for (id, port) in self.opened().into_iter().filter(|(_, port)| is_here(port)) {
            for (channel, consumers) in port.registry.channels().iter() {
                found.extend(consumers.iter().cloned().map(|consumer| (id, *channel, consumer)));
            }
        }
        found.sort_by(|(_, _, a), (_, _, b)| (&a.queue, &a.tag).cmp(&(&b.queue, &b.tag)));
        let counts = self.count(found.iter().map(|(_, _, consumer)| consumer.queue_ref)).await;
        let info = |((id, channel, consumer), counts): ((ConnectionId, ChannelId, Consumer), _)| {
            let single_active = Option::and_then(counts, |counts: crate::QueueCounts| counts.single_active);
            ConsumerInfo {
                queue: consumer.queue,
                channel: pid(self.events.node(), id, channel),
                tag: consumer.tag,
                ack_required: !consumer.no_ack,
                exclusive: consumer.exclusive,
                prefetch: consumer.prefetch,
                active: single_active.is_none_or(|active| active == (id, consumer.id)),
                arguments: consumer.arguments,
            }
        };
        Ok(found.into_iter().zip(counts).map(info).collect())
    }

    /// What stands for a connection's process where RabbitMQ has one.
    #[must_use]
    pub fn pid(&self, connection: ConnectionId) -> String {
        pid(self.events.node(), connection, ChannelId::CONNECTION)
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        self.events.node()
    }

    /// Closes the connection with this pid; its client is told why. Whether there is one.
    pub fn close_connection(&self, wanted: &str, why: &str) -> bool {
        let found = self.opened().into_iter().find(|(id, _)| self.pid(*id) == wanted);
        if let Some((_, port)) = &found {
            port.close(forced(why));
        }
        found.is_some()
    }

    /// Closes connections, those of a virtual host or a user alone if they are given, `limit` of them unless it is 0.
    /// Returns how many were asked to go.
    pub fn close_connections_of(
        &self,
        vhost: Option<&str>,
        user: Option<&str>,
        limit: usize,
        why: &str,
    ) -> usize {
        let is_meant = |here: &Vhost, who: &User| {
            vhost.is_none_or(|vhost| vhost == &*here.name) && user.is_none_or(|user| user == who.name)
        };
        let meant = self.opened().into_iter();
        let meant =
            meant.filter(|(_, port)| port.opened.get().is_some_and(|(here, who)| is_meant(here, who)));
        let most = if limit == 0 { usize::MAX } else { limit };
        meant.take(most).inspect(|(_, port)| port.close(forced(why))).count()
    }

    fn opened(&self) -> Vec<(ConnectionId, Arc<Port>)> {
        self.ports.all().into_iter().filter(|(_, port)| port.opened.get().is_some()).collect()
    }

    async fn count_unacked(&self) -> UnackedByChannel {
        let asked: Vec<_> = (self.shards.iter())
            .map(|shard| {
                let (answer, answers) = oneshot::channel();
                shard.mailbox.push(ShardCommand::CountUnacked(answer));
                answers
            })
            .collect();
        let mut unacked = UnackedByChannel::new();
        for answers in asked {
            // A shard ends only with the process.
            for (channel, count) in answers.await.unwrap_or_default() {
                *unacked.entry(channel).or_default() += count;
            }
        }
        unacked
    }
}

fn forced(why: &str) -> AmqpError {
    AmqpError::connection_forced(why.to_owned())
}
