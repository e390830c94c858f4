//! From bytes to frames, and from frames to the connection or a channel.

use std::time::{Duration, Instant};

use warren_amqp091_codec::{ContentHeader, DecodeError, Dialect, Method, frame};
use warren_types::session::{Announcement, Event, LoginRefused, Session};
use warren_types::{AmqpError, ChannelId, ReplyCode, erlang};

use crate::channel::Channel;
use crate::connection::{Connection, Phase};
use crate::content::{self, PublishArgs};
use crate::endings::Ending;
use crate::handshake::{self, ClientCapabilities, Limits, Tuned};

/// Bytes of a broken frame that are shown.
const SNIPPET_LEN: usize = 16;

/// Time for a client whose protocol header was refused to take the answer and leave.
const REFUSED_CLOSE_DELAY: Duration = Duration::from_secs(3);

/// A body frame whose payload has not all arrived.
#[derive(Debug)]
pub(crate) struct BodyFrame {
    channel: u16,
    remaining: u32,
    /// The first bytes, to be shown if the frame turns out to be broken.
    snippet: Vec<u8>,
    len: u32,
}

impl Connection {
    pub(crate) fn protocol_header(&mut self, now: Instant, input: &[u8], session: &impl Session) -> usize {
        let Some(header) = input.first_chunk::<8>() else {
            // What can no longer become a header need not wait for its end.
            return 0;
        };
        if let Some(dialect) = Dialect::from_protocol_header(header) {
            self.core.dialect = dialect;
            self.core.rich_tables = dialect != Dialect::Amqp08;
            let (version_major, version_minor) = dialect.version();
            let start = Method::ConnectionStart {
                version_major,
                version_minor,
                server_properties: self.identity.properties(dialect),
                mechanisms: handshake::mechanisms(session),
                locales: b"en_US",
            };
            self.core.send(0, &start);
            self.phase = Phase::Starting;
            return header.len();
        }
        // AMQP 1.0 with SASL is what RabbitMQ names to clients that speak something else entirely; it is not
        // served here yet, so the one header that is served is the answer to all.
        self.core.out.buffer().extend_from_slice(b"AMQP\x00\x00\x09\x01");
        self.failure = Some(match header {
            [b'G', b'E', b'T', b' ', ..] => "bad protocol header: an HTTP request".to_owned(),
            [0x16, 0x03, _, _, _, 0x01, ..] => "bad protocol header: a TLS client hello".to_owned(),
            other => format!("bad protocol header: {}", erlang::binary(other)),
        });
        // RabbitMQ closes the socket at once. So does the half that is written here; closing both while the client is
        // still sending could cost it the answer.
        self.falls_silent = true;
        self.discard(now, REFUSED_CLOSE_DELAY);
        input.len()
    }

    pub(crate) fn frame(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
        let Some(head) = input.first_chunk::<{ frame::HEAD_LEN }>() else { return 0 };
        let head = frame::FrameHead::parse(head);
        // Clients that forget to count the frame's own 8 bytes are forgiven, as in `rabbit_reader`.
        if head.size > self.core.frame_max {
            let limit = self.core.frame_max - frame::OVERHEAD as u32;
            let detail = format!("{{frame_too_large,{},{limit}}}", head.size);
            self.lost_sync(now, head.kind, head.channel, &[], &detail, session);
            return input.len();
        }
        if head.kind == frame::BODY && head.channel != 0 && self.phase == Phase::Running {
            self.body_begins(now, head, session);
            return frame::HEAD_LEN;
        }
        let end = frame::HEAD_LEN + head.size as usize;
        if input.len() <= end {
            return 0;
        }
        let payload = &input[frame::HEAD_LEN..end];
        if input[end] != frame::END {
            let detail = format!("{{invalid_frame_end_marker,{}}}", input[end]);
            self.lost_sync(now, head.kind, head.channel, payload, &detail, session);
            return input.len();
        }
        let inline = self.whole_frame(now, head, payload, &input[end + 1..], session);
        end + 1 + inline
    }

    /// Processes a frame; returns how many bytes behind it were used too.
    fn whole_frame(
        &mut self,
        now: Instant,
        head: frame::FrameHead,
        payload: &[u8],
        behind: &[u8],
        session: &mut impl Session,
    ) -> usize {
        if self.phase == Phase::AwaitCloseOk {
            self.frame_while_closing(head, payload);
            return 0;
        }
        match (head.kind, head.channel) {
            (frame::METHOD, _) if payload.len() < 4 => self.bad_frame(now, head, payload, session),
            (frame::HEADER, _) if payload.len() < ContentHeader::FIXED_LEN => {
                self.bad_frame(now, head, payload, session);
            }
            (frame::METHOD, 0) => self.connection_method(now, payload, session),
            (frame::HEARTBEAT, _) if !payload.is_empty() => self.bad_frame(now, head, payload, session),
            (frame::HEARTBEAT, 0) => {}
            (frame::METHOD | frame::HEADER, channel) if self.phase == Phase::Running && channel != 0 => {
                return self.channel_frame(now, head, payload, behind, session);
            }
            (frame::METHOD | frame::HEADER | frame::BODY | frame::HEARTBEAT, _) => {
                let error = AmqpError::unexpected_frame(describe(head.kind, payload));
                self.fail(now, head.channel, error, NO_METHOD, session);
            }
            _ => self.bad_frame(now, head, payload, session),
        }
        0
    }

    fn bad_frame(
        &mut self,
        now: Instant,
        head: frame::FrameHead,
        payload: &[u8],
        session: &mut impl Session,
    ) {
        let error = AmqpError::frame_error(format!("{}: unknown_frame", describe(head.kind, payload)));
        self.fail(now, head.channel, error, NO_METHOD, session);
    }

    fn frame_while_closing(&mut self, head: frame::FrameHead, payload: &[u8]) {
        if head.kind != frame::METHOD || head.channel != 0 {
            return;
        }
        match Method::decode(self.core.dialect, payload) {
            Ok(Method::ConnectionCloseOk {}) => self.phase = Phase::Done,
            Ok(Method::ConnectionClose { .. }) => self.core.send(0, &Method::ConnectionCloseOk {}),
            _ => {}
        }
    }

    fn connection_method(&mut self, now: Instant, payload: &[u8], session: &mut impl Session) {
        let result = match Method::decode(self.core.dialect, payload) {
            Ok(method) => {
                let id = match method {
                    // A failed login is nobody's method, and what fails in tune-ok is the negotiation.
                    Method::ConnectionTuneOk { .. } if self.phase == Phase::Tuning => TUNE_METHOD,
                    _ => method.id(self.core.dialect),
                };
                self.on_connection_method(now, method, session).map_err(|error| match error.code {
                    ReplyCode::ACCESS_REFUSED => (error, NO_METHOD),
                    _ => (error, id),
                })
            }
            Err(error) => Err(decode_failure(&error, payload)),
        };
        if let Err((error, id)) = result {
            self.fail(now, 0, error, id, session);
        }
    }

    fn on_connection_method(
        &mut self,
        now: Instant,
        method: Method<'_>,
        session: &mut impl Session,
    ) -> Result<(), AmqpError> {
        match (self.phase, method) {
            (Phase::Starting, Method::ConnectionStartOk { client_properties, mechanism, response, .. }) => {
                self.core.capabilities = ClientCapabilities::of(&client_properties);
                // 0-8 has no such method.
                self.core.capabilities.connection_blocked &= self.core.dialect != Dialect::Amqp08;
                self.client_name = client_properties
                    .get("connection_name")
                    .and_then(|name| name.as_long_string())
                    .map(|name| String::from_utf8_lossy(name).into_owned());
                let (major, minor) = self.core.dialect.version();
                // RabbitMQ takes 0-9 for 0-9-1.
                let protocol = (major, minor, u8::from(self.core.dialect != Dialect::Amqp08));
                let client_properties = &client_properties;
                session.announce(Announcement::Introduced { mechanism, protocol, client_properties });
                self.start_ok(mechanism, response, session)
            }
            (Phase::Tuning, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune_ok(Tuned { channel_max, frame_max, heartbeat_s: heartbeat })
            }
            (Phase::Opening, Method::ConnectionOpen { virtual_host, .. }) => {
                session.open(virtual_host)?;
                session.announce(Announcement::Opened {
                    heartbeat_s: self.heartbeat.map_or(0, |interval| interval.as_secs() as u16),
                    frame_max: self.core.frame_max,
                    channel_max: self.limits.channel_max,
                });
                self.core.send(0, &Method::ConnectionOpenOk { known_hosts: b"" });
                self.phase = Phase::Running;
                self.deadline = None;
                Ok(())
            }
            (Phase::Running, Method::ConnectionClose { .. }) => {
                self.end(now, Ending::ClientAsked, session);
                Ok(())
            }
            (Phase::Running, Method::ConnectionUpdateSecret { new_secret, .. }) => {
                session.update_secret(new_secret)?;
                self.channels.values().for_each(|channel| channel.recheck_consumers(session));
                self.core.send(0, &Method::ConnectionUpdateSecretOk {});
                Ok(())
            }
            _ => Err(AmqpError::channel_error(format!(
                "unexpected method in connection state {}",
                self.state_name()
            ))),
        }
    }

    /// RabbitMQ's word for the phase.
    fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Header | Phase::Starting => "starting",
            Phase::Tuning => "tuning",
            Phase::Opening => "opening",
            Phase::Running => "running",
            Phase::Closing | Phase::AwaitCloseOk | Phase::Discarding | Phase::Done => "closing",
        }
    }

    fn start_ok(
        &mut self,
        mechanism: &[u8],
        response: &[u8],
        session: &mut impl Session,
    ) -> Result<(), AmqpError> {
        match handshake::authenticate(mechanism, response, session) {
            Ok(()) => {}
            Err(LoginRefused::Malformed(error)) => return Err(error),
            Err(LoginRefused::Credentials) => {
                return Err(AmqpError::access_refused(format!(
                    "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                    String::from_utf8_lossy(mechanism)
                )));
            }
        }
        let Limits { channel_max, frame_max, heartbeat_s, .. } = self.limits;
        self.core.send(0, &Method::ConnectionTune { channel_max, frame_max, heartbeat: heartbeat_s });
        self.phase = Phase::Tuning;
        Ok(())
    }

    fn tune_ok(&mut self, tuned: Tuned) -> Result<(), AmqpError> {
        tuned.check(&self.limits)?;
        // 0 passes the check only where the server has no limit either.
        self.core.frame_max = if tuned.frame_max == 0 { u32::MAX } else { tuned.frame_max };
        self.limits.channel_max = tuned.channel_max;
        self.heartbeat = (tuned.heartbeat_s > 0).then(|| Duration::from_secs(tuned.heartbeat_s.into()));
        self.phase = Phase::Opening;
        Ok(())
    }
}

impl Connection {
    fn channel_frame(
        &mut self,
        now: Instant,
        head: frame::FrameHead,
        payload: &[u8],
        behind: &[u8],
        session: &mut impl Session,
    ) -> usize {
        if head.kind == frame::HEADER {
            self.content_header(now, head.channel, payload, session);
            self.on_content();
            return 0;
        }
        // While publishers must wait, content is taken frame by frame: input rests behind the first.
        let behind = if self.blocked.is_some() { &[] } else { behind };
        if let Some(channel) = self.channels.get_mut(&head.channel)
            && let Some(used) = channel.publish_again(payload, behind, &mut self.core, session)
        {
            return used;
        }
        let closing = self.channels.get(&head.channel).is_some_and(|channel| channel.is_closing());
        let (method, mut id) = match Method::decode(self.core.dialect, payload) {
            Ok(method) => {
                let id = method.id(self.core.dialect);
                (method, id)
            }
            Err(_) if closing => return 0,
            Err(error) => {
                let (error, id) = decode_failure(&error, payload);
                self.fail(now, head.channel, error, id, session);
                return 0;
            }
        };
        let result = match (self.channels.get_mut(&head.channel), &method) {
            (Some(channel), _) if channel.is_closing() => {
                self.method_while_closing(head.channel, &method);
                Ok(0)
            }
            (Some(channel), _) if channel.incoming.is_some() => {
                id = CONTENT_METHOD;
                Err(channel.expected_content())
            }
            (Some(_), Method::ChannelOpen { .. }) => {
                Err(AmqpError::channel_error("second 'channel.open' seen"))
            }
            (Some(_), Method::ChannelClose { .. }) => {
                self.close_channel(head.channel, session);
                Ok(0)
            }
            (Some(channel), Method::BasicPublish { .. }) => PublishArgs::of(&method).map_or(Ok(0), |args| {
                channel.publish_begins(&args, payload, behind, &mut self.core, session)
            }),
            (Some(channel), _) => channel.on_method(method, &mut self.core, session).map(|()| 0),
            (None, Method::ChannelOpen { .. }) => {
                id = NO_METHOD;
                self.open_channel(head.channel, session).map(|()| 0)
            }
            (None, _) => Err(AmqpError::channel_error("expected 'channel.open'")),
        };
        result.unwrap_or_else(|error| {
            self.fail(now, head.channel, error, id, session);
            0
        })
    }

    fn open_channel(&mut self, number: u16, session: &mut impl Session) -> Result<(), AmqpError> {
        let max = self.limits.channel_max;
        if max != 0 && self.channels.len() >= usize::from(max) {
            return Err(AmqpError::not_allowed(format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({max})",
                self.channels.len()
            )));
        }
        self.next_incarnation += 1;
        let id = ChannelId { number, incarnation: self.next_incarnation };
        self.channels.insert(number, Box::new(Channel::new(id)));
        session.announce(Announcement::ChannelOpened(id));
        self.core.send(number, &Method::ChannelOpenOk { channel_id: b"" });
        Ok(())
    }

    fn method_while_closing(&mut self, number: u16, method: &Method<'_>) {
        match method {
            Method::ChannelClose { .. } => self.core.send(number, &Method::ChannelCloseOk {}),
            Method::ChannelCloseOk {} => {
                self.channels.remove(&number);
            }
            _ => {}
        }
    }

    fn close_channel(&mut self, number: u16, session: &mut impl Session) {
        if let Some(mut channel) = self.channels.remove(&number) {
            channel.flush_confirms(&mut self.core);
            channel.release(session);
            session.channel_closed(channel.id);
        }
        self.core.send(number, &Method::ChannelCloseOk {});
    }

    fn content_header(&mut self, now: Instant, number: u16, payload: &[u8], session: &mut impl Session) {
        let mut id = NO_METHOD;
        let result = match self.channels.get_mut(&number) {
            Some(channel) if channel.is_closing() => Ok(()),
            Some(channel) if channel.incoming.is_some() => {
                id = CONTENT_METHOD;
                channel.content_header(payload, &mut self.core, session)
            }
            _ => Err(content::expected_method()),
        };
        if let Err(error) = result {
            self.fail(now, number, error, id, session);
        }
    }

    fn body_begins(&mut self, now: Instant, head: frame::FrameHead, session: &mut impl Session) {
        let result = match self.channels.get(&head.channel) {
            Some(channel) if channel.is_closing() => Ok(()),
            Some(channel) => match &channel.incoming {
                None => Err(content::expected_method()),
                Some(incoming) if !incoming.has_header() => Err(content::expected_header()),
                Some(incoming) if u64::from(head.size) > incoming.remaining() => {
                    Err(content::body_too_long())
                }
                Some(_) => Ok(()),
            },
            None => Err(content::expected_method()),
        };
        self.body_frame = Some(BodyFrame {
            channel: head.channel,
            remaining: head.size,
            snippet: Vec::new(),
            len: head.size,
        });
        if let Err(error) = result {
            let method = if self.channels.get(&head.channel).is_some_and(|c| c.incoming.is_some()) {
                CONTENT_METHOD
            } else {
                NO_METHOD
            };
            self.fail(now, head.channel, error, method, session);
        }
    }

    /// Takes a piece of a body frame, or its end.
    pub(crate) fn body_payload(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
        let Some(body) = &mut self.body_frame else { return 0 };
        if body.remaining > 0 {
            let piece = &input[..input.len().min(body.remaining as usize)];
            body.remaining -= piece.len() as u32;
            let missing = SNIPPET_LEN.saturating_sub(body.snippet.len()).min(piece.len());
            body.snippet.extend_from_slice(&piece[..missing]);
            if let Some(channel) = self.channels.get_mut(&body.channel)
                && let Some(incoming) = &mut channel.incoming
            {
                incoming.push(piece);
            }
            return piece.len();
        }
        let Some(body) = self.body_frame.take() else { return 0 };
        if input[0] != frame::END {
            let detail = format!("{{invalid_frame_end_marker,{}}}", input[0]);
            let text =
                format!("{}: {detail}", describe_snippet(frame::BODY, &body.snippet, body.len as usize));
            self.lost_sync_because(now, body.channel, text, session);
            return input.len();
        }
        let result = match self.channels.get_mut(&body.channel) {
            Some(channel) if channel.incoming.as_ref().is_some_and(|incoming| incoming.is_complete()) => {
                channel.publish_complete(&mut self.core, session)
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.fail(now, body.channel, error, CONTENT_METHOD, session);
        }
        self.on_content();
        1
    }

    pub(crate) fn channel_event(&mut self, now: Instant, event: Event, session: &mut impl Session) {
        let id = match &event {
            Event::Deliver(delivery) => delivery.channel,
            Event::DirectReply(id, _) | Event::Reply(id, _) | Event::ConsumerCancelled(id, _) => *id,
            Event::ConsumerTimedOut(id, ..) => *id,
            Event::Settled { channel, .. } | Event::Immediate { channel, .. } => *channel,
            Event::Blocked(_) | Event::Unblocked | Event::Close(_) => return,
        };
        if let Event::Reply(..) = event {
            self.core.call_pending = false;
        }
        // Late news for a channel that is closed, or closing, or not the same any more.
        let Some(channel) = self.channels.get_mut(&id.number) else { return };
        if channel.id != id || channel.is_closing() || self.phase != Phase::Running {
            return;
        }
        if let Err((error, method)) = channel.on_event(event, &mut self.core, session) {
            self.fail(now, id.number, error, method, session);
        }
    }
}

/// `basic.publish`: the method that content errors name.
const CONTENT_METHOD: (u16, u16) = (60, 40);

/// `connection.tune`: the method that errors in the answer to it name.
const TUNE_METHOD: (u16, u16) = (10, 30);

/// For exceptions that no method caused.
pub(crate) const NO_METHOD: (u16, u16) = (0, 0);

pub(crate) fn describe(kind: u8, payload: &[u8]) -> String {
    describe_snippet(kind, &payload[..payload.len().min(SNIPPET_LEN)], payload.len())
}

fn describe_snippet(kind: u8, snippet: &[u8], len: usize) -> String {
    let how_many = if len <= SNIPPET_LEN { "all" } else { "first 16" };
    format!("type {kind}, {how_many} octets = {}", erlang::binary(snippet))
}

/// The exception for a method that cannot be decoded, and the ids to name in it.
fn decode_failure(error: &DecodeError, payload: &[u8]) -> (AmqpError, (u16, u16)) {
    let id = error.id();
    match error {
        DecodeError::UnknownMethod { .. } => (AmqpError::command_invalid("unimplemented method"), id),
        _ => {
            let arguments = payload.get(4..).unwrap_or_default();
            let numbers: Vec<String> = arguments.iter().take(SNIPPET_LEN).map(u8::to_string).collect();
            (AmqpError::frame_error(format!("cannot decode <<{}>>", numbers.join(","))), id)
        }
    }
}

/// The fixed part of a content header, checked.
pub(crate) fn parse_header(payload: &[u8]) -> Result<ContentHeader<'_>, AmqpError> {
    let header = ContentHeader::parse(payload).map_err(|_| {
        AmqpError::frame_error(format!("{}: unknown_frame", describe(frame::HEADER, payload)))
    })?;
    content::check_header(header.class_id, header.weight, header.body_size)?;
    Ok(header)
}
