//! Frames: type, channel, size, payload, end octet (0-9-1 4.2.3). The same in all dialects.

use crate::{ContentHeader, Dialect, Method};

/// Type of a frame with a method.
pub const METHOD: u8 = 1;
/// Type of a frame with a content header.
pub const HEADER: u8 = 2;
/// Type of a frame with a piece of a content body.
pub const BODY: u8 = 3;
/// Type of a heartbeat.
pub const HEARTBEAT: u8 = 8;
/// The octet that ends every frame.
pub const END: u8 = 0xCE;
/// Bytes before the payload.
pub const HEAD_LEN: usize = 7;
/// Bytes that a frame has in addition to its payload.
pub const OVERHEAD: usize = HEAD_LEN + 1;

/// Class id in every content header: `basic` is the only class with content that is served.
const CLASS_BASIC: u16 = 60;

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// The frame's type, known or not.
    pub kind: u8,
    /// Channel number.
    pub channel: u16,
    /// Length of the payload, in bytes, without the end octet.
    pub size: u32,
}

impl FrameHead {
    /// Reads a head; any bytes are one.
    #[must_use]
    pub fn parse(bytes: &[u8; HEAD_LEN]) -> Self {
        let [kind, c1, c0, s3, s2, s1, s0] = *bytes;
        Self { kind, channel: u16::from_be_bytes([c1, c0]), size: u32::from_be_bytes([s3, s2, s1, s0]) }
    }

    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let [c1, c0] = self.channel.to_be_bytes();
        let [s3, s2, s1, s0] = self.size.to_be_bytes();
        [self.kind, c1, c0, s3, s2, s1, s0]
    }
}

/// Appends a whole method frame.
///
/// # Panics
/// If the dialect lacks the method, see [`Method::encode`].
pub fn put_method(out: &mut Vec<u8>, dialect: Dialect, channel: u16, method: &Method<'_>) {
    let start = out.len();
    out.extend_from_slice(&FrameHead { kind: METHOD, channel, size: 0 }.to_bytes());
    method.encode(dialect, out);
    let size = out.len() - start - HEAD_LEN;
    out[start + 3..start + HEAD_LEN].copy_from_slice(&(size as u32).to_be_bytes());
    out.push(END);
}

/// Appends a whole content header frame. `properties` are the raw property flags and property list, at least
/// the two octets of empty flags.
pub fn put_content_header(out: &mut Vec<u8>, channel: u16, body_len: u64, properties: &[u8]) {
    debug_assert!(properties.len() >= 2, "property flags are missing");
    let size = (ContentHeader::FIXED_LEN + properties.len()) as u32;
    let mut head = [0; HEAD_LEN + ContentHeader::FIXED_LEN];
    head[..HEAD_LEN].copy_from_slice(&FrameHead { kind: HEADER, channel, size }.to_bytes());
    head[HEAD_LEN..HEAD_LEN + 2].copy_from_slice(&CLASS_BASIC.to_be_bytes());
    // Between them the weight, two octets that are always 0.
    head[HEAD_LEN + 4..].copy_from_slice(&body_len.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(properties);
    out.push(END);
}

/// Appends what stands before the payload of a body frame; payload and [`END`] are the caller's to write.
pub fn put_body_head(out: &mut Vec<u8>, channel: u16, payload_len: u32) {
    out.extend_from_slice(&FrameHead { kind: BODY, channel, size: payload_len }.to_bytes());
}

/// Appends a heartbeat frame.
pub fn put_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&FrameHead { kind: HEARTBEAT, channel: 0, size: 0 }.to_bytes());
    out.push(END);
}
