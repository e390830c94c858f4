//! A small blocking AMQP client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use warren_amqp091_codec::{ContentHeader, Dialect, Method, OwnedProperties, Properties, frame};
use warren_types::{FieldTable, FieldValue};

use crate::broker::PATIENCE;

/// Properties of a message without any.
pub(crate) const NO_PROPERTIES: &[u8] = &[0, 0];

const DIALECT: Dialect = Dialect::Amqp091;

/// A frame from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, frame::METHOD, "a method was expected: {self:?}");
        Method::decode(DIALECT, &self.payload).expect("the broker sends methods that exist")
    }
}

/// A message that was pushed.
#[derive(Debug)]
pub(crate) struct Message {
    pub routing_key: Vec<u8>,
    pub properties: OwnedProperties,
    pub body: Vec<u8>,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: TcpStream,
    input: Vec<u8>,
    used: usize,
}

impl Receiver {
    const READ_LEN: usize = 64 * 1024;

    fn new(socket: TcpStream) -> Self {
        Self { socket, input: Vec::new(), used: 0 }
    }

    /// The next frame, or none at the end of the connection.
    pub(crate) fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let input = &self.input[self.used..];
            if let Some(head) = input.first_chunk() {
                let head = frame::FrameHead::parse(head);
                let end = frame::HEAD_LEN + head.size as usize;
                if let Some(marker) = input.get(end) {
                    assert_eq!(*marker, frame::END, "frames must end as they should");
                    let payload = input[frame::HEAD_LEN..end].to_vec();
                    self.used += end + 1;
                    return Ok(Some(Frame { kind: head.kind, channel: head.channel, payload }));
                }
            }
            self.input.drain(..std::mem::take(&mut self.used));
            let len = self.input.len();
            self.input.resize(len + Self::READ_LEN, 0);
            let read = self.socket.read(&mut self.input[len..]);
            self.input.truncate(len + read.as_ref().map_or(0, |read| *read));
            if read? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next frame that is not a heartbeat.
    pub(crate) fn next(&mut self) -> Frame {
        loop {
            let frame = self.frame().expect("the broker says something in time");
            let frame = frame.expect("the broker keeps the connection");
            if frame.kind != frame::HEARTBEAT {
                return frame;
            }
        }
    }

    /// The next method, which must be the named one.
    pub(crate) fn method(&mut self, name: &str) -> Frame {
        let frame = self.next();
        assert_eq!(frame.method().name(), name, "{:?}", frame.method());
        frame
    }

    /// The body that follows a method with content.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        self.content().1
    }

    /// Properties and body that follow a method with content.
    fn content(&mut self) -> (OwnedProperties, Vec<u8>) {
        let header = self.next();
        assert_eq!(header.kind, frame::HEADER, "content was expected: {header:?}");
        let parsed = ContentHeader::parse(&header.payload).expect("the broker sends whole headers");
        let properties = Properties::parse(parsed.properties).expect("the broker sends whole properties");
        let size = parsed.body_size;
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let piece = self.next();
            assert_eq!(
                (piece.kind, piece.channel),
                (frame::BODY, header.channel),
                "content is not interrupted"
            );
            body.extend_from_slice(&piece.payload);
        }
        (properties.to_owned(), body)
    }

    /// The next message that is pushed, with all that comes with it.
    pub(crate) fn message(&mut self) -> Message {
        let frame = self.method("basic.deliver");
        let Method::BasicDeliver { routing_key, .. } = frame.method() else { unreachable!() };
        let routing_key = routing_key.to_vec();
        let (properties, body) = self.content();
        Message { routing_key, properties, body }
    }

    /// The next message that is pushed: its delivery tag, whether it is redelivered, its body.
    pub(crate) fn delivery(&mut self) -> (u64, bool, Vec<u8>) {
        let frame = self.method("basic.deliver");
        let Method::BasicDeliver { delivery_tag, redelivered, .. } = frame.method() else { unreachable!() };
        (delivery_tag, redelivered, self.body())
    }

    /// Reads until the broker closes the connection, however it does that.
    pub(crate) fn end(&mut self) {
        loop {
            match self.socket.read(&mut [0; 4096]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => panic!("the broker did not close the connection"),
                Err(_) => return,
            }
        }
    }
}

/// Whether the time for reading or writing was over.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub socket: TcpStream,
    pub receiver: Receiver,
}

impl Client {
    /// A socket on which nothing was said.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the broker listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        socket.set_nodelay(true).expect("the socket is open");
        let reader = socket.try_clone().expect("there are files left");
        Self { socket, receiver: Receiver::new(reader) }
    }

    /// A connection that is open, as guest, without heartbeats.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with_heartbeat(address, 0)
    }

    /// A connection that is open and on which both sides send heartbeats.
    pub(crate) fn open_with_heartbeat(address: SocketAddr, heartbeat: u16) -> Self {
        Self::connect(address).handshake(heartbeat)
    }

    /// Opens a connection on which nothing was said.
    pub(crate) fn handshake(self, heartbeat: u16) -> Self {
        self.handshake_as(heartbeat, "/", b"\0guest\0guest")
    }

    fn handshake_as(mut self, heartbeat: u16, vhost: &str, login: &[u8]) -> Self {
        self.write(&Dialect::HEADER_091);
        self.receiver.method("connection.start");
        self.send(0, &start_ok(login));
        self.receiver.method("connection.tune");
        self.send(0, &Method::ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat });
        let open =
            Method::ConnectionOpen { virtual_host: vhost.as_bytes(), capabilities: b"", insist: false };
        self.call(0, &open, "connection.open-ok");
        self
    }

    /// A connection with channel 1 open.
    pub(crate) fn with_channel(address: SocketAddr) -> Self {
        let mut client = Self::open(address);
        client.open_channel(1);
        client
    }

    /// A connection to a virtual host other than the default one, with channel 1 open.
    #[allow(dead_code, reason = "tests of other crates use this client too")]
    pub(crate) fn with_channel_in(address: SocketAddr, vhost: &str) -> Self {
        let mut client = Self::connect(address).handshake_as(0, vhost, b"\0guest\0guest");
        client.open_channel(1);
        client
    }

    /// A connection of a user who logs in so, with channel 1 open.
    #[allow(dead_code, reason = "tests of other crates use this client too")]
    pub(crate) fn with_channel_as(address: SocketAddr, login: &[u8]) -> Self {
        let mut client = Self::connect(address).handshake_as(0, "/", login);
        client.open_channel(1);
        client
    }

    pub(crate) fn open_channel(&mut self, number: u16) {
        self.call(number, &Method::ChannelOpen { out_of_band: b"" }, "channel.open-ok");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        frame::put_method(&mut bytes, DIALECT, channel, method);
        self.write(&bytes);
    }

    /// Sends a method and waits for the named answer, which must be the next thing to come.
    pub(crate) fn call(&mut self, channel: u16, method: &Method<'_>, answer: &str) -> Frame {
        self.send(channel, method);
        let frame = self.receiver.method(answer);
        assert_eq!(frame.channel, channel);
        frame
    }

    /// Declares a queue; returns how many messages are ready.
    pub(crate) fn declare(&mut self, channel: u16, queue: &str) -> u32 {
        let frame = self.call(channel, &declare(queue, false), "queue.declare-ok");
        let Method::QueueDeclareOk { message_count, .. } = frame.method() else { unreachable!() };
        message_count
    }

    /// How many messages are ready in a queue that is there.
    pub(crate) fn declare_again(&mut self, queue: &str) -> u32 {
        let frame = self.call(1, &declare(queue, true), "queue.declare-ok");
        let Method::QueueDeclareOk { message_count, .. } = frame.method() else { unreachable!() };
        message_count
    }

    /// Publishes to a queue and waits for nothing.
    pub(crate) fn publish(&mut self, channel: u16, queue: &str, body: &[u8]) {
        let mut bytes = Vec::new();
        put_publish(&mut bytes, channel, &publish(queue), body);
        self.write(&bytes);
    }

    /// Publishes a message with properties, and waits for nothing.
    pub(crate) fn publish_with(
        &mut self,
        channel: u16,
        exchange: &str,
        key: &str,
        properties: &OwnedProperties,
        body: &[u8],
    ) {
        let (mut bytes, mut encoded) = (Vec::new(), Vec::new());
        properties.encode(DIALECT, &mut encoded);
        let method = Method::BasicPublish {
            ticket: 0,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        put_method(&mut bytes, channel, &method);
        frame::put_content_header(&mut bytes, channel, body.len() as u64, &encoded);
        for piece in body.chunks(131_072 - frame::OVERHEAD) {
            frame::put_body_head(&mut bytes, channel, u32::try_from(piece.len()).expect("it is a piece"));
            bytes.extend_from_slice(piece);
            bytes.push(frame::END);
        }
        self.write(&bytes);
    }

    /// Binds a queue to an exchange.
    pub(crate) fn bind(&mut self, channel: u16, queue: &str, exchange: &str, key: &str) {
        let bind = Method::QueueBind {
            ticket: 0,
            queue: queue.as_bytes(),
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            nowait: false,
            arguments: FieldTable::new(),
        };
        self.call(channel, &bind, "queue.bind-ok");
    }

    pub(crate) fn consume(&mut self, channel: u16, queue: &str, no_ack: bool) {
        self.call(channel, &consume(queue, no_ack), "basic.consume-ok");
    }

    /// Fetches a message, if there is one.
    pub(crate) fn get(&mut self, channel: u16, queue: &str) -> Option<Vec<u8>> {
        self.send(channel, &get(queue));
        let frame = self.receiver.next();
        match frame.method() {
            Method::BasicGetEmpty { .. } => None,
            Method::BasicGetOk { .. } => Some(self.receiver.body()),
            other => panic!("an answer to basic.get was expected: {other:?}"),
        }
    }

    /// Closes the connection in agreement with the broker.
    pub(crate) fn close(mut self) {
        let close =
            Method::ConnectionClose { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.call(0, &close, "connection.close-ok");
        self.receiver.end();
    }

    /// Sends until the broker takes no more for `pause`; returns how much it took. `chunk` is repeated.
    pub(crate) fn flood(&mut self, chunk: &[u8], len_max: usize, pause: Duration) -> usize {
        self.socket.set_write_timeout(Some(pause)).expect("the time is not zero");
        let mut sent = 0;
        while sent < len_max {
            match self.socket.write(&chunk[sent % chunk.len()..]) {
                Ok(taken) => sent += taken,
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("the broker keeps the connection: {error}"),
            }
        }
        sent
    }
}

/// `connection.start-ok` with a response for PLAIN, from a client that knows what modern clients know.
pub(crate) fn start_ok(response: &[u8]) -> Method<'_> {
    let mut capabilities = FieldTable::new();
    for name in ["connection.blocked", "authentication_failure_close", "consumer_cancel_notify"] {
        capabilities.insert(name, FieldValue::Bool(true));
    }
    let mut client_properties = FieldTable::new();
    client_properties.insert("capabilities", FieldValue::Table(capabilities));
    Method::ConnectionStartOk { client_properties, mechanism: b"PLAIN", response, locale: b"en_US" }
}

pub(crate) fn declare(queue: &str, passive: bool) -> Method<'_> {
    Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::new(),
    }
}

/// `basic.publish` straight to a queue.
pub(crate) fn publish(queue: &str) -> Method<'_> {
    Method::BasicPublish {
        ticket: 0,
        exchange: b"",
        routing_key: queue.as_bytes(),
        mandatory: false,
        immediate: false,
    }
}

pub(crate) fn consume(queue: &str, no_ack: bool) -> Method<'_> {
    Method::BasicConsume {
        ticket: 0,
        queue: queue.as_bytes(),
        consumer_tag: b"",
        no_local: false,
        no_ack,
        exclusive: false,
        nowait: false,
        arguments: FieldTable::new(),
    }
}

/// `basic.get` that needs no acknowledgement.
pub(crate) fn get(queue: &str) -> Method<'_> {
    Method::BasicGet { ticket: 0, queue: queue.as_bytes(), no_ack: true }
}

pub(crate) fn put_method(out: &mut Vec<u8>, channel: u16, method: &Method<'_>) {
    frame::put_method(out, DIALECT, channel, method);
}

/// Appends a method with content.
pub(crate) fn put_publish(out: &mut Vec<u8>, channel: u16, method: &Method<'_>, body: &[u8]) {
    put_method(out, channel, method);
    frame::put_content_header(out, channel, body.len() as u64, NO_PROPERTIES);
    for piece in body.chunks(131_072 - frame::OVERHEAD) {
        frame::put_body_head(out, channel, u32::try_from(piece.len()).expect("it is a piece"));
        out.extend_from_slice(piece);
        out.push(frame::END);
    }
}

/// A body of this length that carries its number.
pub(crate) fn numbered(number: u64, len: usize) -> Vec<u8> {
    let mut body = vec![number as u8; len.max(8)];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

/// The number of a body, which must be whole.
pub(crate) fn number_of(body: &[u8]) -> u64 {
    let (head, rest) = body.split_first_chunk().expect("every body has a number");
    let number = u64::from_be_bytes(*head);
    assert!(rest.iter().all(|byte| *byte == number as u8), "message {number} is not as it was sent");
    number
}
