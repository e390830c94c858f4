//! What a connection and its channels share: negotiated values and the output.

use std::borrow::Cow;

use warren_amqp091_codec::{Dialect, Method, Properties};
use warren_types::{Message, MessageHead, ShortString};

use crate::handshake::ClientCapabilities;
use crate::interceptors::Interceptors;
use crate::output::Output;
use crate::properties::{is_plain, plain};

/// What channels share: the negotiated values and the output.
#[derive(Debug)]
pub(crate) struct Core {
    pub dialect: Dialect,
    pub message_len_max: u64,
    pub frame_max: u32,
    pub capabilities: ClientCapabilities,
    /// The client understands tables with values of all types.
    pub rich_tables: bool,
    /// What is added to messages that come in.
    pub interceptors: Interceptors,
    pub out: Output,
    /// A call waits for its reply: input rests.
    pub call_pending: bool,
    pub next_consumer: u32,
    /// Channels that have confirms to send.
    pub confirming: Vec<u16>,
    /// To make messages with.
    pub head: MessageHead,
}

impl Core {
    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) {
        self.out.method(self.dialect, channel, method);
    }

    /// Sends a message's header and body behind the method that carries it.
    pub(crate) fn send_content(&mut self, channel: u16, message: &Message) {
        let raw = message.properties();
        let properties = if self.rich_tables { Cow::Borrowed(raw) } else { plain(raw) };
        self.out.content(channel, self.frame_max, &properties, message);
    }

    /// Notes what a client of 0-8 shows to understand: types that it sends itself.
    pub(crate) fn note_tables(&mut self, properties: &Properties<'_>) {
        if !self.rich_tables && properties.headers().is_some_and(|headers| !is_plain(&headers)) {
            self.rich_tables = true;
        }
    }

    /// Notes that the channel has confirms to send.
    pub(crate) fn confirms(&mut self, channel: u16) {
        if self.confirming.last() != Some(&channel) {
            self.confirming.push(channel);
        }
    }
}

/// A name as clients mean it: RabbitMQ strips line ends from queue and exchange names (features.md F8).
pub(crate) fn name(bytes: &[u8]) -> ShortString {
    if bytes.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        let stripped: Vec<u8> = bytes.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        return ShortString::truncated(&stripped);
    }
    ShortString::truncated(bytes)
}
