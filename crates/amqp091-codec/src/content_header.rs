use crate::reader::{Reader, Truncated};

/// Payload of a content header frame (0-9-1 4.2.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// Class of the method before it: 60, `basic`, is the only one left.
    pub class_id: u16,
    /// Always 0.
    pub weight: u16,
    /// Length of the body that follows, in bytes.
    pub body_size: u64,
    /// Property flags and property list as received, not looked at; see [`Properties`](crate::Properties).
    pub properties: &'a [u8],
}

/// The payload of a content header frame is too short for its fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are too short for a content header")]
pub struct HeaderTooShort(pub usize);

impl<'a> ContentHeader<'a> {
    /// Length of the fixed part, in bytes.
    pub const FIXED_LEN: usize = 12;

    /// Splits the payload of a content header frame.
    ///
    /// # Errors
    /// If it ends within the fixed part.
    pub fn parse(payload: &'a [u8]) -> Result<Self, HeaderTooShort> {
        Self::read(&mut Reader::new(payload)).map_err(|Truncated| HeaderTooShort(payload.len()))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Truncated> {
        Ok(Self {
            class_id: reader.u16()?,
            weight: reader.u16()?,
            body_size: reader.u64()?,
            properties: reader.rest(),
        })
    }
}
