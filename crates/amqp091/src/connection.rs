use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_amqp091_codec::{ContentHeader, DecodeError, Dialect, Method, frame};
use warren_types::session::{Event, LoginRefused, Session};
use warren_types::{AmqpError, ChannelId, ReplyCode, Scope, ShortString};

use crate::channel::Channel;
use crate::content::{self, PublishArgs};
use crate::handshake::{self, ClientCapabilities, MECHANISMS, ServerIdentity, Tuned, erlang_binary};
use crate::output::Output;

/// What the server offers and allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest frame, in bytes.
    pub frame_max: u32,
    /// Most channels of a connection.
    pub channel_max: u16,
    /// Heartbeat interval offered, in seconds; 0 for none.
    pub heartbeat_s: u16,
    /// Largest message body, in bytes.
    pub message_len_max: u64,
    /// Time from accept to `connection.open`.
    pub handshake_timeout: Duration,
}

impl Limits {
    /// Smallest `frame_max` that a client may choose, and the limit until it has chosen, in bytes.
    pub const FRAME_MAX_MIN: u32 = 8192;
}

/// How far the dialogue on channel 0 is.
///
/// ```text
///  Header -> Starting -> Tuning -> Opening -> Running -> Closing -> AwaitCloseOk -> Done
///     \__________\__________\__________\_________\______________-> Discarding ----^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for the protocol header.
    Header,
    /// Waits for `connection.start-ok`.
    Starting,
    /// Waits for `connection.tune-ok`.
    Tuning,
    /// Waits for `connection.open`.
    Opening,
    /// Open.
    Running,
    /// Waits for the broker to delete what belongs to the connection.
    Closing,
    /// `connection.close` was sent; all but the answer is ignored.
    AwaitCloseOk,
    /// Input makes no sense any more; the socket stays open for a moment so that the last words arrive.
    Discarding,
    /// The socket can be closed once the output is written.
    Done,
}

/// What channels share: the negotiated values and the output.
#[derive(Debug)]
pub(crate) struct Core {
    pub dialect: Dialect,
    pub message_len_max: u64,
    pub frame_max: u32,
    pub capabilities: ClientCapabilities,
    pub out: Output,
    /// A call waits for its reply: input rests.
    pub call_pending: bool,
    pub next_consumer: u32,
    /// Channels that have confirms to send.
    pub confirming: Vec<u16>,
    pub scratch: Vec<u8>,
}

impl Core {
    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) {
        self.out.method(self.dialect, channel, method);
    }

    /// Notes that the channel has confirms to send.
    pub(crate) fn confirms(&mut self, channel: u16) {
        if self.confirming.last() != Some(&channel) {
            self.confirming.push(channel);
        }
    }
}

/// Why the connection ends.
#[derive(Debug)]
enum Ending {
    ClientAsked,
    Error { error: AmqpError, method: (u16, u16) },
}

/// A body frame whose payload has not all arrived.
#[derive(Debug)]
struct BodyFrame {
    channel: u16,
    remaining: u32,
    /// The first bytes, to be shown if the frame turns out to be broken.
    snippet: Vec<u8>,
    len: u32,
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    core: Core,
    phase: Phase,
    limits: Limits,
    identity: std::sync::Arc<ServerIdentity>,
    channels: HashMap<u16, Box<Channel>, RandomState>,
    next_incarnation: u32,
    body_frame: Option<BodyFrame>,
    heartbeat: Option<Duration>,
    last_read: Instant,
    last_written: Instant,
    /// End of the handshake, of closing, of discarding.
    deadline: Option<Instant>,
    ending: Option<Ending>,
    closing_replies: usize,
    has_published: bool,
    blocked: Option<&'static str>,
    blocked_sent: bool,
    /// The client's name for the connection.
    client_name: Option<String>,
    failure: Option<String>,
}

/// Longest wait for `connection.close-ok` (`CLOSING_TIMEOUT` in `rabbit_reader`).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a client that cannot be talked to is dropped (`SILENT_CLOSE_DELAY` in `rabbit_reader`).
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);

/// Bytes of a broken frame that are shown.
const SNIPPET_LEN: usize = 16;

impl Connection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(limits: Limits, identity: std::sync::Arc<ServerIdentity>, now: Instant) -> Self {
        Self {
            core: Core {
                dialect: Dialect::Amqp091,
                message_len_max: limits.message_len_max,
                frame_max: Limits::FRAME_MAX_MIN,
                capabilities: ClientCapabilities::default(),
                out: Output::default(),
                call_pending: false,
                next_consumer: 0,
                confirming: Vec::new(),
                scratch: Vec::new(),
            },
            phase: Phase::Header,
            deadline: Some(now + limits.handshake_timeout),
            limits,
            identity,
            channels: HashMap::default(),
            next_incarnation: 0,
            body_frame: None,
            heartbeat: None,
            last_read: now,
            last_written: now,
            ending: None,
            closing_replies: 0,
            has_published: false,
            blocked: None,
            blocked_sent: false,
            client_name: None,
            failure: None,
        }
    }

    /// How far the dialogue is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What waits to be written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.core.out
    }

    /// The name that the client gave the connection.
    #[must_use]
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    /// Why the connection ended by the server's will, for the log.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Whether input is processed now. While it is not, the socket should not be read.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        match self.phase {
            Phase::Running => !self.core.call_pending && !(self.blocked.is_some() && self.has_published),
            Phase::Closing | Phase::Done => false,
            _ => true,
        }
    }

    /// Whether the socket can be closed once the output is written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Takes input; returns how many bytes were used. The rest is to be given again, with more behind it.
    pub fn on_bytes(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
        self.last_read = now;
        let mut used = 0;
        while self.wants_input() && used < input.len() {
            let step = match self.phase {
                Phase::Discarding => input.len() - used,
                Phase::Header => self.protocol_header(now, &input[used..]),
                _ if self.body_frame.is_some() => self.body_payload(now, &input[used..], session),
                _ => self.frame(now, &input[used..], session),
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        used
    }

    /// Takes news from the broker.
    pub fn on_event(&mut self, now: Instant, event: Event, session: &mut impl Session) {
        match event {
            Event::Reply(ChannelId::CONNECTION, _) => {
                self.closing_replies = self.closing_replies.saturating_sub(1);
                if self.phase == Phase::Closing && self.closing_replies == 0 {
                    self.finish_closing(now);
                }
            }
            Event::Close(error) => {
                if matches!(self.phase, Phase::Running | Phase::Opening) {
                    self.end(now, Ending::Error { error, method: (0, 0) }, session);
                } else if self.phase != Phase::Closing && self.phase != Phase::AwaitCloseOk {
                    self.phase = Phase::Done;
                }
            }
            Event::Blocked(reason) => {
                self.blocked = Some(reason);
                self.tell_blocked(now);
            }
            Event::Unblocked => {
                self.blocked = None;
                // Silence while it was blocked was not the client's fault.
                self.last_read = now;
                if std::mem::take(&mut self.blocked_sent) && self.phase == Phase::Running {
                    self.core.send(0, &Method::ConnectionUnblocked {});
                }
            }
            Event::Deliver(_) | Event::DirectReply(..) | Event::Settled { .. } | Event::Immediate { .. }
            | Event::Reply(..) | Event::ConsumerCancelled(..) => self.channel_event(now, event, session),
        }
    }

    /// Sends the confirms that came together: to be called when all input and events at hand are processed.
    pub fn flush(&mut self) {
        for number in std::mem::take(&mut self.core.confirming) {
            if let Some(channel) = self.channels.get_mut(&number) {
                channel.flush_confirms(&mut self.core);
            }
        }
    }

    /// Notes that the socket took output.
    pub fn on_written(&mut self, now: Instant, bytes: usize) {
        self.core.out.advance(bytes);
        self.last_written = now;
    }

    /// When [`Connection::on_deadline`] is to be called, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let heartbeat = self.heartbeat.map(|interval| {
            let send = self.last_written + interval / 2;
            if self.blocked.is_some() { send } else { send.min(self.last_read + 2 * interval) }
        });
        [heartbeat, self.deadline].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            if self.phase < Phase::Running {
                self.failure = Some("handshake timeout".to_owned());
            }
            self.phase = Phase::Done;
            self.core.out = Output::default();
            return;
        }
        let Some(interval) = self.heartbeat else { return };
        if self.blocked.is_none() && self.last_read + 2 * interval <= now {
            self.failure =
                Some(format!("missed heartbeats from client, timeout: {}s", interval.as_secs()));
            self.phase = Phase::Done;
            self.core.out = Output::default();
        } else if self.last_written + interval / 2 <= now && self.phase == Phase::Running {
            self.last_written = now;
            frame::put_heartbeat(self.core.out.buffer());
        }
    }

    fn tell_blocked(&mut self, now: Instant) {
        self.last_read = now;
        if let Some(reason) = self.blocked
            && self.has_published
            && !self.blocked_sent
            && self.core.capabilities.connection_blocked
            && self.phase == Phase::Running
        {
            self.blocked_sent = true;
            self.core.send(0, &Method::ConnectionBlocked { reason: reason.as_bytes() });
        }
    }

    // ---- input -------------------------------------------------------------------------------------------

    fn protocol_header(&mut self, now: Instant, input: &[u8]) -> usize {
        let Some(header) = input.first_chunk::<8>() else {
            // What can no longer become a header need not wait for its end.
            return 0;
        };
        if let Some(dialect) = Dialect::from_protocol_header(header) {
            self.core.dialect = dialect;
            let (version_major, version_minor) = dialect.version();
            let start = Method::ConnectionStart {
                version_major,
                version_minor,
                server_properties: self.identity.properties(dialect),
                mechanisms: MECHANISMS,
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
            other => format!("bad protocol header: {}", erlang_binary(other)),
        });
        self.discard(now, Duration::from_secs(1));
        input.len()
    }

    fn frame(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
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
            (frame::METHOD, 0) => self.connection_method(now, payload, session),
            (frame::HEARTBEAT, _) if !payload.is_empty() => self.bad_frame(now, head, payload, session),
            (frame::HEARTBEAT, 0) => {}
            (frame::METHOD | frame::HEADER, channel) if self.phase == Phase::Running && channel != 0 => {
                return self.channel_frame(now, head, payload, behind, session);
            }
            (frame::METHOD | frame::HEADER | frame::BODY | frame::HEARTBEAT, _) => {
                let error = AmqpError::unexpected_frame(describe(head.kind, payload));
                self.fail(now, head.channel, error, (0, 0), session);
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
        self.fail(now, head.channel, error, (0, 0), session);
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
                let id = method.id(self.core.dialect);
                self.on_connection_method(now, method, session).map_err(|error| (error, id))
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
                self.client_name = client_properties
                    .get("connection_name")
                    .and_then(|name| name.as_long_string())
                    .map(|name| String::from_utf8_lossy(name).into_owned());
                self.start_ok(mechanism, response, session)
            }
            (Phase::Tuning, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune_ok(Tuned { channel_max, frame_max, heartbeat_s: heartbeat })
            }
            (Phase::Opening, Method::ConnectionOpen { virtual_host, .. }) => {
                session.open(virtual_host)?;
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
        self.heartbeat =
            (tuned.heartbeat_s > 0).then(|| Duration::from_secs(tuned.heartbeat_s.into()));
        self.phase = Phase::Opening;
        Ok(())
    }

    // ---- channels ----------------------------------------------------------------------------------------

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
            return 0;
        }
        let closing = self.channels.get(&head.channel).is_some_and(|channel| channel.is_closing());
        let (method, id) = match Method::decode(self.core.dialect, payload) {
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
            (Some(channel), _) if channel.incoming.is_some() => Err(channel.expected_content()),
            (Some(_), Method::ChannelOpen { .. }) => {
                Err(AmqpError::channel_error("second 'channel.open' seen"))
            }
            (Some(_), Method::ChannelClose { .. }) => {
                self.close_channel(head.channel, session);
                Ok(0)
            }
            (Some(channel), Method::BasicPublish { .. }) => {
                self.has_published = true;
                PublishArgs::of(&method).map_or(Ok(0), |args| {
                    channel.publish_begins(&args, behind, &mut self.core, session)
                })
            }
            (Some(channel), _) => channel.on_method(method, &mut self.core, session).map(|()| 0),
            (None, Method::ChannelOpen { .. }) => self.open_channel(head.channel).map(|()| 0),
            (None, _) => Err(AmqpError::channel_error("expected 'channel.open'")),
        };
        if self.blocked.is_some() && self.has_published {
            self.tell_blocked(now);
        }
        result.unwrap_or_else(|error| {
            self.fail(now, head.channel, error, id, session);
            0
        })
    }

    fn open_channel(&mut self, number: u16) -> Result<(), AmqpError> {
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
        let result = match self.channels.get_mut(&number) {
            Some(channel) if channel.is_closing() => Ok(()),
            Some(channel) => channel.content_header(payload, &mut self.core, session),
            None => Err(content::expected_method()),
        };
        if let Err(error) = result {
            self.fail(now, number, error, CONTENT_METHOD, session);
        }
    }

    fn body_begins(&mut self, now: Instant, head: frame::FrameHead, session: &mut impl Session) {
        let result = match self.channels.get(&head.channel) {
            Some(channel) if channel.is_closing() => Ok(()),
            Some(channel) => match &channel.incoming {
                None => Err(content::expected_method()),
                Some(incoming) if !incoming.has_header() => Err(content::expected_header()),
                Some(incoming) if u64::from(head.size) > incoming.remaining() => Err(content::body_too_long()),
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
                (0, 0)
            };
            self.fail(now, head.channel, error, method, session);
        }
    }

    /// Takes a piece of a body frame, or its end.
    fn body_payload(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
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
            let text = format!("{}: {detail}", describe_snippet(frame::BODY, &body.snippet, body.len as usize));
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
        1
    }

    fn channel_event(&mut self, now: Instant, event: Event, session: &mut impl Session) {
        let id = match &event {
            Event::Deliver(delivery) => delivery.channel,
            Event::DirectReply(id, _) | Event::Reply(id, _) | Event::ConsumerCancelled(id, _) => *id,
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

    // ---- endings -----------------------------------------------------------------------------------------

    /// The exception that `error` is for its channel or the connection.
    fn fail(
        &mut self,
        now: Instant,
        number: u16,
        error: AmqpError,
        method: (u16, u16),
        session: &mut impl Session,
    ) {
        if error.scope() == Scope::Channel
            && self.phase == Phase::Running
            && let Some(channel) = self.channels.get_mut(&number)
        {
            channel.flush_confirms(&mut self.core);
            channel.release(session);
            session.channel_closed(channel.id);
            channel.start_closing();
            self.core.call_pending = false;
            let text = error.reply_text();
            let close = Method::ChannelClose {
                reply_code: error.code.0,
                reply_text: text.as_bytes(),
                class_id: method.0,
                method_id: method.1,
            };
            self.core.send(number, &close);
            return;
        }
        let told = match self.phase {
            Phase::Opening | Phase::Running => true,
            Phase::Tuning => error.code == ReplyCode::NOT_ALLOWED,
            Phase::Starting => {
                error.code == ReplyCode::ACCESS_REFUSED && self.core.capabilities.authentication_failure_close
            }
            Phase::Header => false,
            Phase::Closing | Phase::AwaitCloseOk | Phase::Discarding | Phase::Done => return,
        };
        self.failure = Some(format!("channel {number}: {error}"));
        if told {
            self.end(now, Ending::Error { error, method }, session);
        } else {
            self.discard(now, SILENT_CLOSE_DELAY);
        }
    }

    /// The input cannot be split into frames any more.
    fn lost_sync(
        &mut self,
        now: Instant,
        kind: u8,
        channel: u16,
        payload: &[u8],
        detail: &str,
        session: &mut impl Session,
    ) {
        let text = format!("{}: {detail}", describe(kind, payload));
        self.lost_sync_because(now, channel, text, session);
    }

    fn lost_sync_because(
        &mut self,
        now: Instant,
        channel: u16,
        explanation: String,
        session: &mut impl Session,
    ) {
        if matches!(self.phase, Phase::Opening | Phase::Running) {
            self.fail(now, channel, AmqpError::frame_error(explanation), (0, 0), session);
            // The exclusive queues go in the background: nobody will speak here any more.
            self.finish_closing(now);
        } else {
            self.failure = Some(explanation);
        }
        self.discard(now, SILENT_CLOSE_DELAY);
    }

    fn discard(&mut self, now: Instant, delay: Duration) {
        self.phase = Phase::Discarding;
        self.deadline = Some(now + delay);
        self.heartbeat = None;
    }

    fn end(&mut self, now: Instant, ending: Ending, session: &mut impl Session) {
        for channel in self.channels.values_mut() {
            channel.flush_confirms(&mut self.core);
            channel.release(session);
        }
        self.channels.clear();
        self.core.call_pending = false;
        self.body_frame = None;
        self.ending = Some(ending);
        self.phase = Phase::Closing;
        self.closing_replies = session.close();
        if self.closing_replies == 0 {
            self.finish_closing(now);
        }
    }

    fn finish_closing(&mut self, now: Instant) {
        match self.ending.take() {
            Some(Ending::ClientAsked) => {
                self.core.send(0, &Method::ConnectionCloseOk {});
                self.phase = Phase::Done;
                self.deadline = Some(now + CLOSE_TIMEOUT);
                self.heartbeat = None;
            }
            Some(Ending::Error { error, method }) => {
                let text = error.reply_text();
                self.failure.get_or_insert_with(|| text.clone());
                let close = Method::ConnectionClose {
                    reply_code: error.code.0,
                    reply_text: text.as_bytes(),
                    class_id: method.0,
                    method_id: method.1,
                };
                self.core.send(0, &close);
                self.phase = Phase::AwaitCloseOk;
                let patience = self.heartbeat.map_or(CLOSE_TIMEOUT, |interval| interval.min(CLOSE_TIMEOUT));
                self.deadline = Some(now + patience);
                self.heartbeat = None;
            }
            None => {}
        }
    }
}

/// `basic.publish`: the method that content errors name.
const CONTENT_METHOD: (u16, u16) = (60, 40);

fn describe(kind: u8, payload: &[u8]) -> String {
    describe_snippet(kind, &payload[..payload.len().min(SNIPPET_LEN)], payload.len())
}

fn describe_snippet(kind: u8, snippet: &[u8], len: usize) -> String {
    let how_many = if len <= SNIPPET_LEN { "all" } else { "first 16" };
    format!("type {kind}, {how_many} octets = {}", erlang_binary(snippet))
}

/// The exception for a method that cannot be decoded, and the ids to name in it.
fn decode_failure(error: &DecodeError, payload: &[u8]) -> (AmqpError, (u16, u16)) {
    let id = match payload {
        [a, b, c, d, ..] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => (0, 0),
    };
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
    let header = ContentHeader::parse(payload)
        .map_err(|_| AmqpError::frame_error(format!("{}: unknown_frame", describe(frame::HEADER, payload))))?;
    content::check_header(header.class_id, header.weight, header.body_size)?;
    Ok(header)
}

/// A name as clients mean it: RabbitMQ strips line ends from queue and exchange names (features.md F8).
pub(crate) fn name(bytes: &[u8]) -> ShortString {
    if bytes.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        let stripped: Vec<u8> = bytes.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        return ShortString::truncated(&stripped);
    }
    ShortString::truncated(bytes)
}
