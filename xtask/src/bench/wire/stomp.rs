//! STOMP 1.2, as ActiveMQ serves it.

use std::io::Write;
use std::net::TcpStream;

use anyhow::bail;

use super::{Counted, GROUP, Role, Wire, number, read_to, send};

/// Messages on their way to a consumer: as many as in the other brokers' rows, and what ActiveMQ gives its own clients.
const PREFETCH: u32 = 1000;

/// One queue.
#[derive(Debug)]
pub(super) struct Stomp {
    queue: String,
    /// Messages survive a restart. The last one of each group asks for a receipt: ActiveMQ serves a connection's frames
    /// in order, so that it stands for all of them, and would wait for the disk after each message that asks for one.
    /// Consumers acknowledge each group with its last message.
    persistent: bool,
    encoded: u64,
    unacknowledged: u64,
}

impl Stomp {
    pub(super) fn new(queue: &str, persistent: bool) -> Self {
        Self { queue: format!("/queue/{queue}"), persistent, encoded: 0, unacknowledged: 0 }
    }
}

impl Wire for Stomp {
    fn open(&mut self, socket: &mut TcpStream, role: Role) -> anyhow::Result<()> {
        send(socket, b"CONNECT\naccept-version:1.2\nhost:localhost\nheart-beat:0,0\n\n\0")?;
        expect(socket, b"CONNECTED")?;
        if role == Role::Consumer {
            let ack = if self.persistent { "client" } else { "auto" };
            let queue = &self.queue;
            let subscribe = format!(
                "SUBSCRIBE\nid:0\ndestination:{queue}\nack:{ack}\nactivemq.prefetchSize:{PREFETCH}\nreceipt:0\n\n\0"
            );
            send(socket, subscribe.as_bytes())?;
            expect(socket, b"RECEIPT")?;
        }
        Ok(())
    }

    fn encode(&mut self, out: &mut Vec<u8>, body: &[u8]) {
        self.encoded += 1;
        let headers = match (self.persistent, self.encoded % GROUP) {
            (false, _) => "",
            (true, 0) => "persistent:true\nreceipt:1\n",
            (true, _) => "persistent:true\n",
        };
        let (queue, len) = (&self.queue, body.len());
        // Writing to a Vec cannot fail.
        let _ = write!(out, "SEND\ndestination:{queue}\n{headers}content-length:{len}\n\n");
        out.extend(body);
        out.extend(b"\0\n");
    }

    fn count(&mut self, received: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        loop {
            // Line ends may stand between frames.
            let rest = &received[counted.used..];
            let blank = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
            counted.used += blank;
            let Some(frame) = frame(&rest[blank..])? else { return Ok(counted) };
            match frame.command {
                b"MESSAGE" => {
                    counted.messages += 1;
                    self.unacknowledged += 1;
                    if self.persistent && self.unacknowledged == GROUP {
                        self.unacknowledged = 0;
                        answer.extend(b"ACK\nid:");
                        answer.extend(frame.ack);
                        answer.extend(b"\n\n\0");
                    }
                }
                b"RECEIPT" => counted.messages += GROUP,
                _ => bail!("ActiveMQ says {}", rest[blank..blank + frame.len].escape_ascii()),
            }
            counted.used += frame.len;
        }
    }
}

/// What matters here of a frame.
struct Frame<'a> {
    command: &'a [u8],
    /// How the message is called when it is acknowledged, with its escapes.
    ack: &'a [u8],
    /// With the byte that ends it.
    len: usize,
}

/// The frame at the start, if it is complete.
fn frame(bytes: &[u8]) -> anyhow::Result<Option<Frame<'_>>> {
    let (mut command, mut ack, mut content_length) = (None, &b""[..], None);
    let mut at = 0;
    loop {
        let Some(line_len) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = bytes[at..at + line_len].trim_ascii_end();
        at += line_len + 1;
        if line.is_empty() {
            break;
        }
        if command.is_none() {
            command = Some(line);
        } else if let Some(value) = line.strip_prefix(b"ack:") {
            ack = value;
        } else if let Some(value) = line.strip_prefix(b"content-length:") {
            content_length = Some(number(value)?);
        }
    }
    let end = match content_length {
        Some(len) => at + len,
        None => at + bytes[at..].iter().take_while(|byte| **byte != 0).count(),
    };
    match bytes.get(end) {
        None => Ok(None),
        Some(0) => Ok(Some(Frame { command: command.unwrap_or_default(), ack, len: end + 1 })),
        Some(_) => bail!("a frame does not end where it should"),
    }
}

/// Reads one frame, without a body.
fn expect(socket: &mut TcpStream, command: &[u8]) -> anyhow::Result<()> {
    let bytes = read_to(socket, 0)?;
    if !bytes.trim_ascii_start().starts_with(command) {
        bail!("ActiveMQ says {}", bytes.escape_ascii());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::count_in_parts;
    use super::*;

    #[test]
    fn messages_are_encoded() {
        let mut out = Vec::new();
        Stomp::new("a", false).encode(&mut out, b"1\x002");
        assert_eq!(out, b"SEND\ndestination:/queue/a\ncontent-length:3\n\n1\x002\0\n");
    }

    #[test]
    fn one_persistent_message_of_a_group_asks_for_a_receipt() {
        let (mut wire, mut last) = (Stomp::new("a", true), Vec::new());
        let mut receipts = 0;
        for _ in 0..2 * GROUP {
            last.clear();
            wire.encode(&mut last, b"");
            let text = String::from_utf8_lossy(&last);
            assert!(text.contains("persistent:true\n"));
            receipts += u64::from(text.contains("receipt:"));
        }
        assert_eq!(receipts, 2);
        assert!(String::from_utf8_lossy(&last).contains("receipt:"));
    }

    #[test]
    fn messages_are_counted_wherever_they_are_split() {
        let bytes = b"MESSAGE\nack:1\ncontent-length:3\nx:y\n\n\0\n\0\0\n\nMESSAGE\r\nsubscription:0\r\n\r\ntext\0\nRECEIPT\nreceipt-id:1\n\n\0\n";
        count_in_parts(|| Box::new(Stomp::new("a", false)), bytes, 2 + GROUP, b"");
    }

    #[test]
    fn the_last_of_a_group_is_acknowledged() {
        let bytes: Vec<u8> = (1..=GROUP + 1)
            .flat_map(|number| format!("MESSAGE\nack:ID\\c{number}\ncontent-length:1\n\nm\0").into_bytes())
            .collect();
        let mut answer = Vec::new();
        let counted = Stomp::new("a", true).count(&bytes, &mut answer).expect("it is well-formed");
        assert_eq!(counted, Counted { messages: GROUP + 1, used: bytes.len() });
        assert_eq!(answer, b"ACK\nid:ID\\c100\n\n\0");
    }

    #[test]
    fn an_error_is_told() {
        let result = Stomp::new("a", false).count(b"ERROR\nmessage:no\n\n\0", &mut Vec::new());
        assert!(result.expect_err("it is one").to_string().contains("message:no"));
        assert!(frame(b"MESSAGE\ncontent-length:1\n\n123").is_err());
    }
}
