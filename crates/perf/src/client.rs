//! A blocking AMQP 0-9-1 connection that costs little per message.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use warren_amqp091_codec::{Dialect, Method, Properties, frame};
use warren_types::{FieldTable, FieldValue};

use crate::target::Target;

const DIALECT: Dialect = Dialect::Amqp091;

/// The largest frame that is asked for, RabbitMQ's own default.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// Bytes read at once.
const READ_LEN: usize = 256 * 1024;

/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection, with channel 1 open unless told otherwise.
#[derive(Debug)]
pub(crate) struct Client {
    pub socket: TcpStream,
    input: Vec<u8>,
    start: usize,
    end: usize,
}

/// What came from the broker, as far as the generator cares.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// `basic.deliver` and all of its content; the beginning of the body.
    Delivery(&'a [u8]),
    /// `basic.ack` for a publish, or for all up to it.
    Confirm { tag: u64, multiple: bool },
    /// `basic.nack` for a publish, or for all up to it.
    Refusal { tag: u64, multiple: bool },
}

impl Client {
    /// Connects and logs in.
    pub(crate) fn connect(target: &Target) -> anyhow::Result<Self> {
        let mut client = Self::connect_bare(target)?;
        client.handshake(target).with_context(|| format!("no AMQP connection to {}", target.address))?;
        client.call(1, &Method::ChannelOpen { out_of_band: b"" }, "channel.open-ok")?;
        Ok(client)
    }

    /// Connects and says nothing.
    pub(crate) fn connect_bare(target: &Target) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(target.address)
            .with_context(|| format!("cannot connect to {}", target.address))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, input: Vec::new(), start: 0, end: 0 })
    }

    /// Another handle on the same socket, for another thread that reads.
    pub(crate) fn reader(&self) -> anyhow::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, input: Vec::new(), start: 0, end: 0 })
    }

    fn handshake(&mut self, target: &Target) -> anyhow::Result<()> {
        self.socket.write_all(&Dialect::HEADER_091)?;
        self.expect("connection.start")?;
        let mut capabilities = FieldTable::new();
        capabilities.insert("authentication_failure_close", FieldValue::Bool(true));
        let mut client_properties = FieldTable::new();
        client_properties.insert("product", FieldValue::string("warren perf"));
        client_properties.insert("capabilities", FieldValue::Table(capabilities));
        let response = format!("\0{}\0{}", target.user, target.password);
        self.send(
            0,
            &Method::ConnectionStartOk {
                client_properties,
                mechanism: b"PLAIN",
                response: response.as_bytes(),
                locale: b"en_US",
            },
        )?;
        self.expect("connection.tune")?;
        self.send(0, &Method::ConnectionTuneOk { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 0 })?;
        let open = Method::ConnectionOpen {
            virtual_host: target.vhost.as_bytes(),
            capabilities: b"",
            insist: false,
        };
        self.call(0, &open, "connection.open-ok")?;
        Ok(())
    }

    /// Sends a method.
    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        frame::put_method(&mut bytes, DIALECT, channel, method);
        self.socket.write_all(&bytes).context("the broker has closed the connection")
    }

    /// Sends a method and waits for the named answer.
    pub(crate) fn call(&mut self, channel: u16, method: &Method<'_>, answer: &str) -> anyhow::Result<()> {
        self.send(channel, method)?;
        self.expect(answer)
    }

    /// Declares a durable queue; returns how many messages it has.
    pub(crate) fn declare(
        &mut self,
        queue: &str,
        durable: bool,
        arguments: FieldTable,
    ) -> anyhow::Result<u32> {
        let declare = Method::QueueDeclare {
            ticket: 0,
            queue: queue.as_bytes(),
            passive: false,
            durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments,
        };
        self.send(1, &declare)?;
        let mut messages = 0;
        self.answer("queue.declare-ok", |method| {
            if let Method::QueueDeclareOk { message_count, .. } = method {
                messages = *message_count;
            }
        })?;
        Ok(messages)
    }

    /// Deletes a queue, if it is there.
    pub(crate) fn delete(&mut self, queue: &str) -> anyhow::Result<()> {
        let queue = queue.as_bytes();
        let delete =
            Method::QueueDelete { ticket: 0, queue, if_unused: false, if_empty: false, nowait: false };
        self.call(1, &delete, "queue.delete-ok")
    }

    /// Binds a queue.
    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> anyhow::Result<()> {
        let bind = Method::QueueBind {
            ticket: 0,
            queue: queue.as_bytes(),
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            nowait: false,
            arguments: FieldTable::new(),
        };
        self.call(1, &bind, "queue.bind-ok")
    }

    /// Starts to consume.
    pub(crate) fn consume(&mut self, queue: &str, prefetch: u16, no_ack: bool) -> anyhow::Result<()> {
        if prefetch > 0 {
            let qos = Method::BasicQos { prefetch_size: 0, prefetch_count: prefetch, global: false };
            self.call(1, &qos, "basic.qos-ok")?;
        }
        let consume = Method::BasicConsume {
            ticket: 0,
            queue: queue.as_bytes(),
            consumer_tag: b"",
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::new(),
        };
        self.call(1, &consume, "basic.consume-ok")
    }

    /// Switches publisher confirms on.
    pub(crate) fn confirms(&mut self) -> anyhow::Result<()> {
        self.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok")
    }

    /// Closes the connection in order.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        let close = Method::ConnectionClose { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
        self.call(0, &close, "connection.close-ok")
    }

    /// Waits for the named method.
    pub(crate) fn expect(&mut self, name: &str) -> anyhow::Result<()> {
        self.answer(name, |_| {})
    }

    fn answer(&mut self, name: &str, look: impl FnOnce(&Method<'_>)) -> anyhow::Result<()> {
        loop {
            let Some((kind, payload, next)) = self.frame() else {
                self.read().with_context(|| format!("while waiting for {name}"))?;
                continue;
            };
            let (from, to) = payload;
            self.start = next;
            if kind == frame::HEARTBEAT {
                continue;
            }
            let method = Method::decode(DIALECT, &self.input[from..to])
                .map_err(|error| anyhow::anyhow!("the broker sent what is no method: {error:?}"))?;
            if let Method::ConnectionClose { reply_text, .. } | Method::ChannelClose { reply_text, .. } =
                &method
            {
                bail!("the broker says: {}", String::from_utf8_lossy(reply_text));
            }
            if method.name() != name {
                bail!("{name} was expected, {method:?} came");
            }
            look(&method);
            return Ok(());
        }
    }

    /// Reads what has come, and waits if nothing has.
    ///
    /// # Errors
    /// If the connection ended, or nothing came for a long time.
    pub(crate) fn read(&mut self) -> anyhow::Result<()> {
        if !self.read_unless_idle()? {
            bail!("nothing came from the broker for {} s", PATIENCE.as_secs());
        }
        Ok(())
    }

    /// Like [`Client::read`], but returns false if the socket's read timeout has passed.
    pub(crate) fn read_unless_idle(&mut self) -> anyhow::Result<bool> {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.input.len() < self.end + READ_LEN {
            self.input.resize(self.end + READ_LEN, 0);
        }
        loop {
            match self.socket.read(&mut self.input[self.end..]) {
                Ok(0) => bail!("the broker has closed the connection"),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next whole frame: its kind, where its payload is, where the next one begins.
    fn frame(&self) -> Option<(u8, (usize, usize), usize)> {
        self.frame_at(self.start)
    }

    fn frame_at(&self, at: usize) -> Option<(u8, (usize, usize), usize)> {
        let head = self.input[at..self.end].first_chunk()?;
        let head = frame::FrameHead::parse(head);
        let from = at + frame::HEAD_LEN;
        let to = from + head.size as usize;
        (to < self.end).then_some((head.kind, (from, to), to + 1))
    }

    /// The next delivery or confirm that is there completely.
    ///
    /// # Errors
    /// If the broker closed the channel or the connection.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Incoming<'_>>> {
        const DELIVER: [u8; 4] = [0, 60, 0, 60];
        const ACK: [u8; 4] = [0, 60, 0, 80];
        const NACK: [u8; 4] = [0, 60, 0, 120];
        loop {
            let Some((kind, (from, to), next)) = self.frame() else { return Ok(None) };
            let payload = &self.input[from..to];
            if kind == frame::HEARTBEAT {
                self.start = next;
                continue;
            }
            match payload.first_chunk::<4>() {
                Some(&DELIVER) => {
                    let Some((body, behind)) = self.content(next) else { return Ok(None) };
                    self.start = behind;
                    return Ok(Some(Incoming::Delivery(&self.input[body.0..body.1])));
                }
                Some(method @ (&ACK | &NACK)) => {
                    let tag: [u8; 8] = payload[4..12].try_into().context("a short confirm")?;
                    let (tag, multiple) = (u64::from_be_bytes(tag), payload[12] & 1 != 0);
                    let is_ack = *method == ACK;
                    self.start = next;
                    return Ok(Some(match is_ack {
                        true => Incoming::Confirm { tag, multiple },
                        false => Incoming::Refusal { tag, multiple },
                    }));
                }
                _ => {
                    let method = Method::decode(DIALECT, payload)
                        .map_err(|error| anyhow::anyhow!("the broker sent what is no method: {error:?}"))?;
                    match method {
                        Method::ConnectionClose { reply_text, .. }
                        | Method::ChannelClose { reply_text, .. } => {
                            bail!("the broker says: {}", String::from_utf8_lossy(reply_text))
                        }
                        Method::BasicCancel { .. } => bail!("the broker has cancelled the consumer"),
                        _ => self.start = next,
                    }
                }
            }
        }
    }

    /// The reply address of the next delivery that is there completely.
    ///
    /// # Errors
    /// Like [`Client::next`].
    pub(crate) fn next_reply_to(&mut self) -> anyhow::Result<Option<String>> {
        let header = self.frame().and_then(|(_, _, next)| self.frame_at(next)).map(|(_, payload, _)| payload);
        let address = header.and_then(|(from, to)| {
            let properties = self.input[from..to].get(12..)?;
            let properties = Properties::parse(properties).ok()?;
            properties.reply_to().map(|address| String::from_utf8_lossy(address).into_owned())
        });
        Ok(self.next()?.and(address))
    }

    /// The content that begins at `at`, if it is there completely: the first piece of its body, and what follows.
    fn content(&self, at: usize) -> Option<((usize, usize), usize)> {
        let (_, (from, _), mut next) = self.frame_at(at)?;
        let size: [u8; 8] = self.input[from + 4..from + 12].try_into().ok()?;
        let (size, mut first, mut found) = (u64::from_be_bytes(size), (from, from), 0);
        while found < size {
            let (_, (from, to), behind) = self.frame_at(next)?;
            if found == 0 {
                first = (from, to);
            }
            found += (to - from) as u64;
            next = behind;
        }
        Some((first, next))
    }
}
