//! The text protocol of NATS.

use std::io::Write;
use std::net::TcpStream;

use anyhow::bail;

use super::{Counted, Role, Wire, number, read_to, send};

/// One subject, to which messages are sent and from which they come.
#[derive(Debug)]
pub(super) struct Nats {
    subject: String,
    /// What stands before the length and the body of a message.
    head: String,
}

impl Nats {
    pub(super) fn new(subject: &str, reply_to: Option<&str>) -> Self {
        let reply_to = reply_to.map(|it| format!("{it} ")).unwrap_or_default();
        Self { subject: subject.to_owned(), head: format!("PUB {subject} {reply_to}") }
    }
}

impl Wire for Nats {
    fn open(&mut self, socket: &mut TcpStream, role: Role) -> anyhow::Result<()> {
        read_to(socket, b'\n')?;
        let mut out =
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"bench\",\"protocol\":1}\r\n".to_vec();
        if role == Role::Consumer {
            out.extend(format!("SUB {} 1\r\n", self.subject).bytes());
        }
        // Its answer tells that what stands before it has been done.
        out.extend(b"PING\r\n");
        send(socket, &out)?;
        loop {
            match read_to(socket, b'\n')?.trim_ascii() {
                b"PONG" => return Ok(()),
                line if line.starts_with(b"-ERR") => bail!("NATS says {}", line.escape_ascii()),
                _ => {}
            }
        }
    }

    fn encode(&mut self, out: &mut Vec<u8>, body: &[u8]) {
        out.extend(self.head.bytes());
        put_body(out, body);
    }

    /// A message with a reply address is answered with its own body.
    fn count(&mut self, received: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        loop {
            let rest = &received[counted.used..];
            let Some(line_len) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(counted) };
            let line = rest[..line_len].trim_ascii_end();
            let after = counted.used + line_len + 1;
            match line.strip_prefix(b"MSG ") {
                Some(arguments) => {
                    // SUBJECT SUBSCRIPTION [REPLY-TO] LENGTH
                    let mut words = arguments.split(|byte| *byte == b' ').skip(2);
                    let (reply_to, length) = match (words.next(), words.next()) {
                        (Some(reply_to), Some(length)) => (Some(reply_to), number(length)?),
                        (Some(length), None) => (None, number(length)?),
                        (None, _) => bail!("NATS sent {}", line.escape_ascii()),
                    };
                    let Some(body) = received.get(after..after + length + 2) else { return Ok(counted) };
                    if let Some(reply_to) = reply_to {
                        answer.extend(b"PUB ");
                        answer.extend(reply_to);
                        answer.push(b' ');
                        put_body(answer, &body[..length]);
                    }
                    counted.messages += 1;
                    counted.used = after + length + 2;
                }
                None => {
                    match line {
                        b"PING" => answer.extend(b"PONG\r\n"),
                        // It says so when it drops a slow consumer, too.
                        line if line.starts_with(b"-ERR") => bail!("NATS says {}", line.escape_ascii()),
                        _ => {}
                    }
                    counted.used = after;
                }
            }
        }
    }
}

fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}\r\n", body.len());
    out.extend(body);
    out.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::tests::count_in_parts;
    use super::*;

    #[test]
    fn messages_are_encoded() {
        let mut out = Vec::new();
        Nats::new("a.b", None).encode(&mut out, b"12345");
        Nats::new("a", Some("b")).encode(&mut out, b"");
        assert_eq!(out, b"PUB a.b 5\r\n12345\r\nPUB a b 0\r\n\r\n");
    }

    #[test]
    fn messages_are_counted_wherever_they_are_split() {
        let bytes = b"MSG a 1 5\r\nMSG 1\r\nPING\r\nMSG a 1 0\r\n\r\n+OK\r\nMSG a 1 r 2\r\n\r\n\r\n";
        count_in_parts(|| Box::new(Nats::new("a", None)), bytes, 3, b"PONG\r\nPUB r 2\r\n\r\n\r\n");
    }

    #[test]
    fn an_error_is_told() {
        let result = Nats::new("a", None).count(b"-ERR 'Slow Consumer'\r\n", &mut Vec::new());
        assert_eq!(result.expect_err("it is one").to_string(), "NATS says -ERR \\'Slow Consumer\\'");
    }
}
