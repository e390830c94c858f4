use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::session::{Event, Session};
use warren_types::{ChannelId, MessageHead};

use crate::channel::Channel;
use crate::endings::Ending;
use crate::handshake::{ClientCapabilities, Limits, ServerIdentity};
use crate::input::{BodyFrame, NO_METHOD};
use crate::output::Output;
use crate::shared::Core;

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

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) core: Core,
    pub(crate) phase: Phase,
    pub(crate) limits: Limits,
    pub(crate) identity: std::sync::Arc<ServerIdentity>,
    pub(crate) channels: HashMap<u16, Box<Channel>, RandomState>,
    pub(crate) next_incarnation: u32,
    pub(crate) body_frame: Option<BodyFrame>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) last_read: Instant,
    /// The socket is not read.
    resting: bool,
    /// Bytes of input that were not used when last given.
    unused: usize,
    pub(crate) last_written: Instant,
    /// End of the handshake, of closing, of discarding.
    pub(crate) deadline: Option<Instant>,
    /// Nothing more will be said.
    pub(crate) falls_silent: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) closing_replies: usize,
    /// Why publishers must wait, while they must.
    pub(crate) blocked: Option<&'static str>,
    /// The client has begun to publish since then: only that stops its input, so that consumers can make room.
    pub(crate) published_while_blocked: bool,
    pub(crate) blocked_sent: bool,
    /// The client's name for the connection.
    pub(crate) client_name: Option<String>,
    pub(crate) failure: Option<String>,
}

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
                rich_tables: true,
                interceptors: limits.interceptors.clone(),
                out: Output::default(),
                call_pending: false,
                next_consumer: 0,
                confirming: Vec::new(),
                head: MessageHead::default(),
            },
            phase: Phase::Header,
            deadline: Some(now + limits.handshake_timeout),
            falls_silent: false,
            limits,
            identity,
            channels: HashMap::default(),
            next_incarnation: 0,
            body_frame: None,
            heartbeat: None,
            last_read: now,
            resting: false,
            unused: 0,
            last_written: now,
            ending: None,
            closing_replies: 0,
            blocked: None,
            published_while_blocked: false,
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
            Phase::Running => !self.core.call_pending && !self.published_while_blocked,
            Phase::Closing | Phase::Done => false,
            _ => true,
        }
    }

    /// Whether the socket can be closed once the output is written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether this half of the socket can be closed once the output is written, while the client's half is still read.
    #[must_use]
    pub fn falls_silent(&self) -> bool {
        self.falls_silent
    }

    /// Takes input; returns how many bytes were used. The rest is to be given again, with more behind it.
    pub fn on_bytes(&mut self, now: Instant, input: &[u8], session: &mut impl Session) -> usize {
        // Input that is given again was not read again.
        if input.len() > self.unused {
            self.last_read = now;
        }
        let mut used = 0;
        while self.wants_input() && used < input.len() {
            let step = match self.phase {
                Phase::Discarding => input.len() - used,
                Phase::Header => self.protocol_header(now, &input[used..], session),
                _ if self.body_frame.is_some() => self.body_payload(now, &input[used..], session),
                _ => self.frame(now, &input[used..], session),
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        self.unused = input.len() - used;
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
                    self.end(now, Ending::Error { error, method: NO_METHOD }, session);
                } else if self.phase != Phase::Closing && self.phase != Phase::AwaitCloseOk {
                    self.phase = Phase::Done;
                }
            }
            Event::Blocked(reason) => {
                self.blocked = Some(reason);
            }
            Event::Unblocked => {
                self.blocked = None;
                self.published_while_blocked = false;
                // Silence while it was blocked was not the client's fault.
                self.last_read = now;
                if std::mem::take(&mut self.blocked_sent) && self.phase == Phase::Running {
                    self.core.send(0, &Method::ConnectionUnblocked {});
                }
            }
            Event::Deliver(_)
            | Event::DirectReply(..)
            | Event::Settled { .. }
            | Event::Immediate { .. }
            | Event::Reply(..)
            | Event::ConsumerCancelled(..)
            | Event::ConsumerTimedOut(..) => self.channel_event(now, event, session),
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
        let heartbeat = self.heartbeat().map(|interval| {
            let send = self.last_written + interval / 2;
            if self.hears() { send.min(self.last_read + 2 * interval) } else { send }
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
        let Some(interval) = self.heartbeat() else { return };
        if self.hears() && self.last_read + 2 * interval <= now {
            self.failure = Some(format!("missed heartbeats from client, timeout: {}s", interval.as_secs()));
            self.phase = Phase::Done;
            self.core.out = Output::default();
        } else if self.last_written + interval / 2 <= now {
            self.last_written = now;
            // Where output waits already, one more frame would tell the client nothing.
            if self.core.out.is_empty() {
                frame::put_heartbeat(self.core.out.buffer());
            }
        }
    }

    /// Notes whether the socket is left unread now: a client is not silent while nobody listens.
    pub fn on_rest(&mut self, now: Instant, rests: bool) {
        if self.resting && !rests {
            self.last_read = now;
        }
        self.resting = rests;
    }

    /// Whether heartbeats of the client would be noticed.
    fn hears(&self) -> bool {
        !self.published_while_blocked && !self.resting
    }

    /// The interval in the phases that have heartbeats: from the negotiation to the end.
    fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat.filter(|_| matches!(self.phase, Phase::Opening | Phase::Running | Phase::Closing))
    }

    /// Notes a frame of content: while publishers must wait, nothing is read behind it, as in `rabbit_reader`. So a
    /// message without a body still comes in, and others do not.
    pub(crate) fn on_content(&mut self) {
        let Some(reason) = self.blocked else { return };
        self.published_while_blocked = true;
        if !self.blocked_sent && self.core.capabilities.connection_blocked && self.phase == Phase::Running {
            self.blocked_sent = true;
            self.core.send(0, &Method::ConnectionBlocked { reason: reason.as_bytes() });
        }
    }
}
