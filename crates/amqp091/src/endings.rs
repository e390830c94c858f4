//! How channels and connections end when the client or the server wants it, or when nothing else is left.

use std::time::{Duration, Instant};

use warren_amqp091_codec::Method;
use warren_types::session::Session;
use warren_types::{AmqpError, ReplyCode, Scope};

use crate::connection::{Connection, Phase};
use crate::input::{NO_METHOD, describe};

/// Longest wait for `connection.close-ok` (`CLOSING_TIMEOUT` in `rabbit_reader`).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a client that cannot be talked to is dropped (`SILENT_CLOSE_DELAY` in `rabbit_reader`).
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);

/// Why the connection ends.
#[derive(Debug)]
pub(crate) enum Ending {
    ClientAsked,
    Error { error: AmqpError, method: (u16, u16) },
}

impl Connection {
    /// The exception that `error` is for its channel or the connection.
    pub(crate) fn fail(
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
            // Clients that do not announce it take a close at this point for a protocol error.
            Phase::Starting if error.code == ReplyCode::ACCESS_REFUSED => {
                self.core.capabilities.authentication_failure_close
            }
            Phase::Starting | Phase::Tuning | Phase::Opening | Phase::Running => true,
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
    pub(crate) fn lost_sync(
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

    pub(crate) fn lost_sync_because(
        &mut self,
        now: Instant,
        channel: u16,
        explanation: String,
        session: &mut impl Session,
    ) {
        if matches!(self.phase, Phase::Starting | Phase::Tuning | Phase::Opening | Phase::Running) {
            self.fail(now, channel, AmqpError::frame_error(explanation), NO_METHOD, session);
            // The exclusive queues go in the background: nobody will speak here any more.
            self.finish_closing(now);
        } else {
            self.failure.get_or_insert(explanation);
        }
        self.discard(now, SILENT_CLOSE_DELAY);
    }

    pub(crate) fn discard(&mut self, now: Instant, delay: Duration) {
        self.phase = Phase::Discarding;
        self.deadline = Some(now + delay);
        self.heartbeat = None;
    }

    pub(crate) fn end(&mut self, now: Instant, ending: Ending, session: &mut impl Session) {
        for channel in self.channels.values_mut() {
            channel.flush_confirms(&mut self.core);
            channel.release(session);
        }
        self.channels.clear();
        self.core.call_pending = false;
        // What is left of a body frame still comes, and must not be taken for frames.
        self.ending = Some(ending);
        self.phase = Phase::Closing;
        self.closing_replies = session.close();
        if self.closing_replies == 0 {
            self.finish_closing(now);
        }
    }

    /// The socket is gone: what is still open ends.
    pub fn lost(&mut self, session: &mut impl Session) {
        for (_, mut channel) in self.channels.drain() {
            channel.release(session);
        }
    }

    pub(crate) fn finish_closing(&mut self, now: Instant) {
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
