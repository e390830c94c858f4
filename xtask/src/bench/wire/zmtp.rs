//! ZMTP 3.0, the protocol of ZeroMQ, with the mechanism NULL.

use std::io::Read;
use std::net::TcpStream;

use anyhow::{Context, bail};

use super::{Counted, Role, Wire, send};

const GREETING_LEN: usize = 64;

/// Bits of the first byte of a frame.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Messages of one frame each.
#[derive(Debug)]
pub(super) struct Zmtp;

impl Wire for Zmtp {
    fn open(&mut self, socket: &mut TcpStream, role: Role) -> anyhow::Result<()> {
        let mut greeting = [0; GREETING_LEN];
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        greeting[12..16].copy_from_slice(b"NULL");
        send(socket, &greeting)?;
        socket.read_exact(&mut greeting).context("ZeroMQ does not greet")?;
        if greeting[0] != 0xff || greeting[10] < 3 {
            bail!("this is not ZMTP 3");
        }
        let kind = match role {
            Role::Publisher => b"PUSH",
            Role::Consumer => b"PULL",
        };
        let mut ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04".to_vec();
        ready.extend(kind);
        let mut out = Vec::new();
        put_frame(&mut out, COMMAND, &ready);
        send(socket, &out)?;
        let mut head = [0; 2];
        socket.read_exact(&mut head).context("ZeroMQ does not become ready")?;
        let mut answer = vec![0; head[1].into()];
        socket.read_exact(&mut answer)?;
        if head[0] != COMMAND || !answer.starts_with(b"\x05READY") {
            bail!("ZeroMQ says {}", answer.escape_ascii());
        }
        Ok(())
    }

    fn encode(&mut self, out: &mut Vec<u8>, body: &[u8]) {
        put_frame(out, 0, body);
    }

    fn count(&mut self, received: &[u8], _: &mut Vec<u8>) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        while let Some((flags, len)) = frame(&received[counted.used..])? {
            counted.messages += u64::from(flags & (MORE | COMMAND) == 0);
            counted.used += len;
        }
        Ok(counted)
    }
}

/// The flags and the whole length of the frame at the start, if it is complete.
fn frame(bytes: &[u8]) -> anyhow::Result<Option<(u8, usize)>> {
    let (flags, head_len, body_len) = match bytes {
        [flags, rest @ ..] if flags & LONG != 0 => {
            let Some(len) = rest.first_chunk() else { return Ok(None) };
            (*flags, 9, usize::try_from(u64::from_be_bytes(*len))?)
        }
        [flags, len, ..] => (*flags, 2, usize::from(*len)),
        _ => return Ok(None),
    };
    let len = body_len.checked_add(head_len).context("a frame is too long")?;
    Ok((bytes.len() >= len).then_some((flags, len)))
}

fn put_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(len) => out.extend([flags, len]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend(body);
}

#[cfg(test)]
mod tests {
    use super::super::tests::count_in_parts;
    use super::*;

    #[test]
    fn messages_are_encoded() {
        let mut out = Vec::new();
        Zmtp.encode(&mut out, b"123");
        Zmtp.encode(&mut out, &[7; 256]);
        assert_eq!(out[..5], *b"\x00\x03123");
        assert_eq!(out[5..14], *b"\x02\x00\x00\x00\x00\x00\x00\x01\x00");
        assert_eq!(out.len(), 5 + 9 + 256);
    }

    #[test]
    fn messages_are_counted_wherever_they_are_split() {
        let mut bytes = Vec::new();
        for body in [&b""[..], &[0; 255], &[2; 256]] {
            Zmtp.encode(&mut bytes, body);
        }
        // Two frames of one message, and a command.
        put_frame(&mut bytes, MORE, b"1");
        put_frame(&mut bytes, 0, b"2");
        put_frame(&mut bytes, COMMAND, b"\x04PING");
        count_in_parts(|| Box::new(Zmtp), &bytes, 4, b"");
    }
}
