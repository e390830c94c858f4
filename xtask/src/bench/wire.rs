//! What the load generator knows of the protocols of other brokers: enough to send and to count, and no more.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};

mod nats;
mod stomp;
mod zmtp;

/// A protocol that the load generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Protocol {
    /// The text protocol of NATS, without JetStream.
    Nats,
    /// STOMP 1.2.
    Stomp,
    /// ZMTP 3.0 between PUSH and PULL sockets.
    Zmtp,
}

/// Messages that a wire for persistent messages acknowledges and has confirmed at once.
pub(super) const GROUP: u64 = 100;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Consumer,
}

/// What was found in received bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Whole messages that a consumer got, or that were confirmed to a publisher.
    pub(super) messages: u64,
    /// Bytes that need not be seen again.
    pub(super) used: usize,
}

/// One connection's side of a protocol.
pub(super) trait Wire: Send {
    /// Makes a new connection ready to publish or to get what is published from now on.
    fn open(&mut self, socket: &mut TcpStream, role: Role) -> anyhow::Result<()>;

    /// Appends one message.
    fn encode(&mut self, out: &mut Vec<u8>, body: &[u8]);

    /// Counts what is complete at the start of received bytes, and appends what is to be sent back for it.
    fn count(&mut self, received: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<Counted>;
}

impl Protocol {
    /// For messages to the subject or queue with this name.
    pub(super) fn wire(self, name: &str, persistent: bool) -> anyhow::Result<Box<dyn Wire>> {
        if persistent && self != Self::Stomp {
            bail!("{self:?} has no persistent messages");
        }
        Ok(match self {
            Self::Nats => Box::new(nats::Nats::new(name, None)),
            Self::Stomp => Box::new(stomp::Stomp::new(name, persistent)),
            Self::Zmtp => Box::new(zmtp::Zmtp),
        })
    }

    /// As [`Protocol::wire`], with messages that ask for a reply to an address. Consumers give it.
    pub(super) fn asking(self, name: &str, reply_to: &str) -> anyhow::Result<Box<dyn Wire>> {
        if self != Self::Nats {
            bail!("{self:?} has no replies here");
        }
        Ok(Box::new(nats::Nats::new(name, Some(reply_to))))
    }
}

/// Reads to the end of a line or of a frame and not a byte further, since what follows may have to be counted.
fn read_to(socket: &mut TcpStream, end: u8) -> anyhow::Result<Vec<u8>> {
    /// No greeting is longer.
    const LEN_MAX: usize = 64 * 1024;
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.last() != Some(&end) {
        if bytes.len() > LEN_MAX {
            bail!("the server's answer has no end");
        }
        socket.read_exact(&mut byte).context("the server does not answer")?;
        bytes.extend(byte);
    }
    Ok(bytes)
}

fn send(socket: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    socket.write_all(bytes).context("the server does not listen")
}

/// A number in decimal digits.
fn number(digits: &[u8]) -> anyhow::Result<usize> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    text.trim().parse().with_context(|| format!("'{}' is not a number", digits.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts bytes that arrive in two parts, for every place between them, and one by one.
    pub(super) fn count_in_parts(
        new: impl Fn() -> Box<dyn Wire>,
        bytes: &[u8],
        messages: u64,
        answer: &[u8],
    ) {
        let mut splits: Vec<Vec<usize>> = (0..=bytes.len()).map(|at| vec![at, bytes.len()]).collect();
        splits.push((0..=bytes.len()).collect());
        for split in splits {
            let (mut wire, mut counted, mut answered) = (new(), Counted::default(), Vec::new());
            for &end in &split {
                let part = wire.count(&bytes[counted.used..end], &mut answered).expect("it is well-formed");
                counted.messages += part.messages;
                counted.used += part.used;
            }
            assert_eq!(counted, Counted { messages, used: bytes.len() }, "ends at {split:?}");
            assert_eq!(answered, answer, "ends at {split:?}");
        }
    }

    #[test]
    fn only_what_a_protocol_can_is_promised() {
        assert!(Protocol::Stomp.wire("name", true).is_ok());
        assert!(Protocol::Nats.wire("name", true).is_err());
        assert!(Protocol::Zmtp.asking("name", "reply").is_err());
    }
}
