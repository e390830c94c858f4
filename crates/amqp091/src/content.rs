//! A publish that arrives in pieces: method, header, and body frames until the size is reached.

use bytes::Bytes;
use warren_amqp091_codec::Method;
use warren_types::{AmqpError, ReplyCode};

/// Largest body that any configuration may allow, in bytes (`MAX_MSG_SIZE` in `rabbit_common`).
pub(crate) const BODY_LEN_MAX: u64 = 536_870_912;

/// Class id of everything that carries content.
pub(crate) const CLASS_BASIC: u16 = 60;

/// Most bytes reserved before they have arrived: a header alone must not cost its announced size.
const RESERVE_MAX: usize = 1 << 20;

/// Arguments of `basic.publish`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishArgs<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    pub immediate: bool,
}

impl<'a> PublishArgs<'a> {
    pub(crate) fn of(method: &Method<'a>) -> Option<Self> {
        match *method {
            Method::BasicPublish { exchange, routing_key, mandatory, immediate, .. } => {
                Some(Self { exchange, routing_key, mandatory, immediate })
            }
            _ => None,
        }
    }
}

/// A publish whose content is incomplete.
#[derive(Debug)]
pub(crate) struct Incoming {
    names: Vec<u8>,
    exchange_len: usize,
    mandatory: bool,
    immediate: bool,
    header: Option<Header>,
}

#[derive(Debug)]
struct Header {
    properties: Vec<u8>,
    body_len: u64,
    body: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new(args: &PublishArgs<'_>) -> Self {
        Self {
            names: [args.exchange, args.routing_key].concat(),
            exchange_len: args.exchange.len(),
            mandatory: args.mandatory,
            immediate: args.immediate,
            header: None,
        }
    }

    pub(crate) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    pub(crate) fn set_header(&mut self, properties: &[u8], body_len: u64) {
        let properties = properties.to_vec();
        self.header = Some(Header { properties, body_len, body: Vec::new() });
    }

    /// Bytes of body that have not arrived.
    pub(crate) fn remaining(&self) -> u64 {
        self.header.as_ref().map_or(0, |header| header.body_len - header.body.len() as u64)
    }

    /// Adds a piece of the body, of at most [`Incoming::remaining`] bytes.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if let Some(header) = &mut self.header {
            if header.body.is_empty() {
                let expected = usize::try_from(header.body_len).unwrap_or(usize::MAX);
                header.body.reserve_exact(expected.min(RESERVE_MAX.max(piece.len())));
            }
            header.body.extend_from_slice(piece);
        }
    }

    /// Whether header and body are complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.has_header() && self.remaining() == 0
    }

    /// The parts of the complete publish: arguments, properties, body.
    pub(crate) fn parts(&mut self) -> Option<(PublishArgs<'_>, &[u8], Bytes)> {
        let header = self.header.as_mut()?;
        let (exchange, routing_key) = self.names.split_at(self.exchange_len);
        let (mandatory, immediate) = (self.mandatory, self.immediate);
        let args = PublishArgs { exchange, routing_key, mandatory, immediate };
        Some((args, &header.properties, Bytes::from(std::mem::take(&mut header.body))))
    }
}

/// Checks the fixed part of a content header.
///
/// # Errors
/// As `rabbit_command_assembler:process/2`.
pub(crate) fn check_header(class_id: u16, weight: u16, body_len: u64) -> Result<(), AmqpError> {
    if class_id != CLASS_BASIC {
        return Err(AmqpError::unexpected_frame(format!(
            "expected content header for class {CLASS_BASIC}, got one for class {class_id} instead"
        )));
    }
    if weight != 0 {
        return Err(expected_header());
    }
    if body_len > BODY_LEN_MAX {
        return Err(AmqpError::frame_error(format!(
            "content body size {body_len} exceeds maximum allowed size {BODY_LEN_MAX}"
        )));
    }
    Ok(())
}

/// A method frame was due.
pub(crate) fn expected_method() -> AmqpError {
    AmqpError::unexpected_frame("expected method frame, got non method frame instead")
}

/// A content header was due.
pub(crate) fn expected_header() -> AmqpError {
    AmqpError::unexpected_frame(format!(
        "expected content header for class {CLASS_BASIC}, got non content header frame instead"
    ))
}

/// A content body was due.
pub(crate) fn expected_body() -> AmqpError {
    AmqpError::unexpected_frame("expected content body, got non content body frame instead")
}

/// The body is longer than announced.
pub(crate) fn body_too_long() -> AmqpError {
    AmqpError::new(ReplyCode::FRAME_ERROR, "content body frame exceeds remaining content size")
}
