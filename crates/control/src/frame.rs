//! Frames: the length of what follows in four bytes, most significant first, then JSON.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest request, in bytes.
pub const REQUEST_LEN_MAX: usize = 1024 * 1024;

/// Longest piece of an answer, in bytes.
pub const RESPONSE_LEN_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the length.
pub const HEAD_LEN: usize = 4;

/// The bytes of a frame.
///
/// # Errors
/// If it would be longer than four bytes can tell.
pub fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_LEN];
    serde_json::to_writer(&mut bytes, value)?;
    let len = u32::try_from(bytes.len() - HEAD_LEN).map_err(|_| too_long(bytes.len()))?;
    bytes[..HEAD_LEN].copy_from_slice(&len.to_be_bytes());
    Ok(bytes)
}

/// The length that a frame's first bytes announce.
///
/// # Errors
/// If it is more than `max`.
pub fn announced(head: [u8; HEAD_LEN], max: usize) -> io::Result<usize> {
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > max { Err(too_long(len)) } else { Ok(len) }
}

/// Writes a frame.
///
/// # Errors
/// If it cannot be written.
pub fn write(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(value)?)
}

/// Reads a frame of at most `max` bytes.
///
/// # Errors
/// If it cannot be read, is too long or not what is expected.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, max: usize) -> io::Result<T> {
    let mut head = [0; HEAD_LEN];
    from.read_exact(&mut head)?;
    let len = announced(head, max)?;
    let mut bytes = Vec::new();
    // What is announced is not reserved before it is there.
    let read = from.take(len as u64).read_to_end(&mut bytes)?;
    if read < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

fn too_long(len: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, Failure, Request, Response, VERSION};

    #[test]
    fn frames_come_back() {
        let envelope = Envelope { version: VERSION, request: Request::Ping };
        let bytes = encode(&envelope).expect("it is short");
        assert_eq!(&bytes[..HEAD_LEN], [0, 0, 0, 30]);
        assert_eq!(read::<Envelope>(&mut &bytes[..], REQUEST_LEN_MAX).expect("it is whole"), envelope);
        let response = Response::Failed(Failure::Refused("no".to_owned()));
        let bytes = encode(&response).expect("it is short");
        assert_eq!(read::<Response>(&mut &bytes[..], 99).expect("it is whole"), response);
    }

    #[test]
    fn what_is_too_long_cut_or_not_json_is_refused() {
        let refusal = |bytes: &[u8]| {
            read::<Envelope>(&mut &bytes[..], REQUEST_LEN_MAX).expect_err("it is no request").kind()
        };
        assert_eq!(refusal(b"\0\x10\0\x01"), io::ErrorKind::InvalidData);
        assert_eq!(refusal(b"\0\0\0\x05{}"), io::ErrorKind::UnexpectedEof);
        assert_eq!(refusal(b"\0\0\0\x02{}"), io::ErrorKind::InvalidData);
    }
}
