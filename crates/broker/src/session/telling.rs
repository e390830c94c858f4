//! What a connection's session tells others: events, and copies for the firehose.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;

use warren_amqp091_codec::Properties;
use warren_types::session::{Announcement, Consume, Peer, Route, TracedPublish, Tracking};
use warren_types::{ChannelId, FieldTable, Message, QueueRef, ShortString};

use super::BrokerSession;
use crate::connections::{About, Portrait};
use crate::events::{Details, INTERNAL_USER, connection_name, pid};
use crate::firehose::{self, Client, Seen, TRACE_EXCHANGE};
use crate::system_exchange::system_time_ms;

impl BrokerSession {
    // ---- events ----------------------------------------------------------------------------------------------

    pub(super) fn hear(&mut self, news: Announcement<'_>) {
        match news {
            Announcement::Introduced { mechanism, protocol, client_properties } => {
                let (mechanism, client_properties) = (mechanism.to_vec(), client_properties.clone());
                self.portrait = Some(Arc::new(Portrait { mechanism, protocol, client_properties }));
            }
            Announcement::Opened { heartbeat_s, frame_max, channel_max } => {
                self.port.registry.opened(About {
                    portrait: self.portrait.clone(),
                    peer: Peer { client: self.client, server: self.server },
                    heartbeat_s,
                    frame_max,
                    channel_max,
                    connected_at: system_time_ms(),
                });
                self.tell("connection.created", |s, d| {
                    s.connection_created(d)
                        .number("timeout", heartbeat_s)
                        .number("frame_max", frame_max)
                        .number("channel_max", channel_max)
                        .table("client_properties", s.client_properties())
                        .number("connected_at", system_time_ms() as i64)
                        .text("node", s.broker.events.node())
                        .user(s.user_name())
                })
            }
            Announcement::ChannelOpened(channel) => {
                self.port.registry.channel_opened(channel);
                self.tell("channel.created", |s, d| {
                    d.text("pid", s.pid(channel))
                        .text("name", format!("{} ({})", s.name(), channel.number))
                        .text("connection", s.pid(ChannelId::CONNECTION))
                        .number("number", channel.number)
                        .text("user", s.user_name())
                        .text("vhost", s.vhost_name())
                        .user(s.user_name())
                });
            }
            Announcement::ChannelClosed(channel, consumers) => {
                self.port.registry.channel_closed(channel);
                self.tell("channel.closed", |s, d| {
                    d.text("pid", s.pid(channel))
                        .user(s.user_name())
                        .number("consumer_count", consumers as i64)
                });
            }
            Announcement::ConsumerDeleted { channel, queue, tag } => {
                self.port.registry.consumer_removed(channel, tag);
                self.tell("consumer.deleted", |s, d| {
                    d.text("consumer_tag", tag.as_bytes())
                        .text("channel", s.pid(channel))
                        .resource("queue", s.vhost_name(), queue.as_bytes())
                        .user(s.user_name())
                });
            }
        }
    }

    fn tell(&self, key: &'static str, describe: impl FnOnce(&Self, Details) -> Details) {
        self.broker.events.tell(key, |details| describe(self, details));
    }

    /// The first of RabbitMQ's `CREATION_EVENT_KEYS` of a connection.
    fn connection_created(&self, details: Details) -> Details {
        let mut details = details;
        if let Some(name) = self.portrait.as_ref().and_then(|portrait| portrait.user_provided_name()) {
            details = details.text("user_provided_name", name);
        }
        let details = details
            .text("type", "network")
            .text("pid", self.pid(ChannelId::CONNECTION))
            .text("name", self.name())
            .number("port", self.server.port())
            .number("peer_port", self.client.port())
            .address("host", self.server.ip())
            .address("peer_host", self.client.ip())
            .flag("ssl", false)
            .text("peer_cert_subject", "")
            .text("peer_cert_issuer", "")
            .text("peer_cert_serial_number", "")
            .text("peer_cert_validity", "");
        let mechanism = self.portrait.as_ref().map_or(&[][..], |portrait| &portrait.mechanism);
        details
            .text("auth_mechanism", mechanism)
            .text("ssl_protocol", "")
            .text("ssl_key_exchange", "")
            .text("ssl_cipher", "")
            .text("ssl_hash", "")
            .text("protocol", self.protocol())
            .text("user", self.user_name())
            .text("vhost", self.vhost_name())
    }

    /// A login has succeeded, or been refused for this reason.
    pub(super) fn tell_login(&self, user: &str, refused: Option<&String>) {
        let key = match refused {
            None => "user.authentication.success",
            Some(_) => "user.authentication.failure",
        };
        self.tell(key, |s, details| {
            let mut details = details.text("connection_type", "network");
            if !user.is_empty() {
                details = details.text("name", user);
            }
            let mechanism = s.portrait.as_ref().map_or(&[][..], |portrait| &portrait.mechanism);
            let details = details
                .address("host", s.server.ip())
                .text("connection_name", s.name())
                .address("peer_host", s.client.ip())
                .number("peer_port", s.client.port())
                .text("protocol", s.protocol())
                .text("auth_mechanism", mechanism)
                .flag("ssl", false);
            match refused {
                None => details,
                Some(cause) => details.text("error", cause),
            }
        });
    }

    pub(super) fn tell_consumer_created(&self, channel: ChannelId, consume: &Consume) {
        self.tell("consumer.created", |s, details| {
            details
                .text("consumer_tag", consume.tag.as_bytes())
                .flag("exclusive", consume.exclusive)
                .flag("ack_required", !consume.no_ack)
                .text("channel", s.pid(channel))
                .resource("queue", s.vhost_name(), consume.queue.as_bytes())
                .number("prefetch_count", consume.prefetch)
                .table("arguments", &consume.arguments)
                .user(s.user_name())
        });
    }

    pub(super) fn tell_closed(&self) {
        self.tell("connection.closed", |s, details| {
            let mut details = details;
            if let Some(name) = s.portrait.as_ref().and_then(|portrait| portrait.user_provided_name()) {
                details = details.text("user_provided_name", name);
            }
            details
                .text("name", s.name())
                .text("pid", s.pid(ChannelId::CONNECTION))
                .text("node", s.broker.events.node())
                .table("client_properties", s.client_properties())
        });
    }

    fn pid(&self, channel: ChannelId) -> String {
        pid(self.broker.events.node(), self.connection, channel)
    }

    fn name(&self) -> String {
        connection_name(self.client, self.server)
    }

    fn protocol(&self) -> String {
        self.portrait.as_ref().map_or_else(String::new, |portrait| portrait.protocol())
    }

    fn client_properties(&self) -> &FieldTable {
        static NONE: FieldTable = FieldTable(Vec::new());
        self.portrait.as_ref().map_or(&NONE, |portrait| &portrait.client_properties)
    }

    fn user_name(&self) -> &str {
        self.user.as_ref().map_or(INTERNAL_USER, |user| &user.name)
    }

    fn vhost_name(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.vhost.name)
    }

    // ---- the firehose ----------------------------------------------------------------------------------------

    /// Copies a message to the firehose, as a publish of this connection: so that who floods it is held back.
    pub(super) fn trace(&mut self, channel: ChannelId, seen: &Seen<'_>, message: &Message) {
        let Some(place) = &self.place else { return };
        // Copies are not copied again when somebody gets them.
        if message.exchange() == TRACE_EXCHANGE {
            return;
        }
        let key = seen.key(message);
        let mut queues = Vec::new();
        let client = Client {
            node: self.broker.events.node(),
            vhost: &place.vhost.name,
            connection: &self.name(),
            channel: channel.number,
            user: &place.user.name,
        };
        let copy = LazyCell::new(|| firehose::copy(seen, &key, message, &client));
        // Only exchanges that look at headers and are bound to the firehose ask. A copy has no other properties.
        let headers = || {
            let properties = Properties::parse(copy.properties()).ok();
            properties.and_then(|properties| properties.headers()).unwrap_or_default()
        };
        let routed = place.vhost.read().router.route(TRACE_EXCHANGE, &[&key], &headers, &mut queues);
        let histories = routed.map(|routed| routed.histories).unwrap_or_default();
        if queues.is_empty() && histories.is_empty() {
            return;
        }
        let copy = Message::clone(&copy);
        histories.iter().for_each(|history| history.record(copy.clone()));
        self.publish(channel, &queues, copy, Tracking::None);
    }

    /// The names of the queues that a message goes to, sorted. The default exchange leads to every queue that a key names,
    /// whether there is one or not (`rabbit_exchange:route/3`).
    pub(super) fn names_of(&self, publish: &TracedPublish<'_>) -> Vec<ShortString> {
        let queues: &[QueueRef] = match publish.route {
            Route::Queues(queues) => queues,
            Route::Recorded(recorded) => &recorded.queues,
            Route::DirectReply(..) => &[],
        };
        let mut names: Vec<ShortString> = match &self.place {
            _ if publish.message.exchange().is_empty() => {
                publish.routing_keys.iter().map(|key| ShortString::truncated(key)).collect()
            }
            Some(place) if !queues.is_empty() => {
                // Nobody but the firehose asks for names, so no table has them by queue: it looks at all.
                let sought: HashSet<&QueueRef> = queues.iter().collect();
                let tables = place.vhost.read();
                let found = tables.router.queues().filter(|(_, queue)| sought.contains(queue));
                found.take(sought.len()).map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        };
        names.sort_unstable();
        names.dedup();
        names
    }
}
