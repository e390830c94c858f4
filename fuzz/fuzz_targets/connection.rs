//! The whole connection machine with a broker in memory.
//!
//! Layout of the input: options, number of controls, controls, stream. A control says how much of the stream is
//! read next and what happens behind that; when there are none left, everything is read and done. With the
//! option `FRAMED` the stream is a list of (type, channel, length, payload) that is put into frames with correct
//! sizes and ends, since hardly any change to raw bytes would leave them intact.

#![no_main]

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use warren_amqp091::{Connection, Interceptors, Limits, Phase, ServerIdentity};
use warren_amqp091_codec::frame::{self, FrameHead};
use warren_amqp091_codec::{ContentHeader, Dialect, Method};
use warren_testkit::FakeSession;
use warren_types::session::{Event, Reply};
use warren_types::{AmqpError, FieldTable, FieldValue, Message};

/// The handshake is done for the client, in the dialect of bits 4 and 5.
const OPEN: u8 = 1;
const FRAMED: u8 = 2;
const ANONYMOUS: u8 = 4;
const LOW_LIMITS: u8 = 8;

/// What the handshake negotiates.
const FRAME_MAX: u32 = 8192;

/// What the machine may write unasked: greeting and last words.
const OUTPUT_UNASKED_MAX: usize = 4096;

/// What it may write for each byte that it reads, if nothing is delivered: a method of 12 bytes can be answered
/// with a close that carries 255 bytes of text, or with a name of that length.
const OUTPUT_PER_BYTE_MAX: usize = 64;

/// Method and header around what is delivered.
const OUTPUT_PER_EVENT_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&options, data)) = data.split_first() else { return };
    let Some((&count, data)) = data.split_first() else { return };
    let (controls, stream) = data.split_at(usize::from(count).min(data.len()));
    let mut run = Run::new(options);
    if options & OPEN != 0 {
        run.stream = handshake(options);
        run.read(usize::MAX);
        run.finish();
        assert_eq!(run.machine.phase(), Phase::Running);
    }
    if options & FRAMED != 0 {
        put_framed(&mut run.stream, stream)
    } else {
        run.stream.extend_from_slice(stream)
    }
    controls.iter().for_each(|control| run.step(*control));
    run.read(usize::MAX);
    run.finish();
    if options & (OPEN | FRAMED) == OPEN | FRAMED {
        assert_ne!(run.machine.phase(), Phase::Discarding, "every frame was sound");
    }
    run.check_end();
});

fn dialect(options: u8) -> Dialect {
    match options >> 4 & 3 {
        2 => Dialect::Amqp09,
        3 => Dialect::Amqp08,
        _ => Dialect::Amqp091,
    }
}

fn handshake(options: u8) -> Vec<u8> {
    let dialect = dialect(options);
    let mut stream = match dialect {
        Dialect::Amqp091 => Dialect::HEADER_091.to_vec(),
        Dialect::Amqp09 => b"AMQP\x01\x01\x00\x09".to_vec(),
        Dialect::Amqp08 => b"AMQP\x01\x01\x08\x00".to_vec(),
    };
    let mut capabilities = FieldTable::new();
    for name in ["consumer_cancel_notify", "connection.blocked"] {
        capabilities.insert(name, FieldValue::Bool(true));
    }
    let mut client_properties = FieldTable::new();
    client_properties.insert("capabilities", FieldValue::Table(capabilities));
    let start_ok = Method::ConnectionStartOk {
        client_properties,
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    };
    // In 0-8 the same but for booleans, which clients may send there too.
    frame::put_method(&mut stream, Dialect::Amqp091, 0, &start_ok);
    let mut say = |method: &Method<'_>| frame::put_method(&mut stream, dialect, 0, method);
    say(&Method::ConnectionTuneOk { channel_max: 10, frame_max: FRAME_MAX, heartbeat: 10 });
    say(&Method::ConnectionOpen { virtual_host: b"/", capabilities: b"", insist: false });
    stream
}

fn put_framed(stream: &mut Vec<u8>, mut list: &[u8]) {
    while let [kind, channel, high, low, rest @ ..] = list {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(FRAME_MAX as usize);
        stream.extend_from_slice(&[*kind, 0, *channel]);
        stream.extend_from_slice(&(len as u32).to_be_bytes());
        stream.extend_from_slice(&rest[..len]);
        stream.push(frame::END);
        list = &rest[len..];
    }
}

struct Run {
    machine: Connection,
    session: FakeSession,
    now: Instant,
    stream: Vec<u8>,
    /// Bytes of the stream that were read, of which the first `used` were used.
    read: usize,
    used: usize,
    written: Written,
    output_max: usize,
}

impl Run {
    fn new(options: u8) -> Self {
        let limits = Limits {
            frame_max: if options & LOW_LIMITS != 0 { FRAME_MAX } else { 131_072 },
            channel_max: 10,
            heartbeat_s: 10,
            message_len_max: if options & LOW_LIMITS != 0 { 16 } else { 100_000 },
            handshake_timeout: Duration::from_secs(10),
            interceptors: Interceptors::default(),
        };
        let identity = ServerIdentity {
            product: "Warren".into(),
            version: "1".into(),
            cluster_name: "fuzz".into(),
            platform: "Rust".into(),
            copyright: String::new(),
            information: String::new(),
        };
        let now = Instant::now();
        let mut session = FakeSession::new();
        session.anonymous = options & ANONYMOUS != 0;
        Self {
            machine: Connection::new(limits, Arc::new(identity), now),
            session,
            now,
            stream: Vec::new(),
            read: 0,
            used: 0,
            written: Written::default(),
            output_max: OUTPUT_UNASKED_MAX,
        }
    }

    fn step(&mut self, control: u8) {
        const LENS: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64, 256, usize::MAX];
        self.read(LENS[usize::from(control & 15)]);
        match control >> 4 {
            0..=4 => {}
            5 => drop(self.event()),
            6 => while self.event() {},
            7 => self.machine.flush(),
            8 => self.write(),
            9 => {
                self.finish();
            }
            10 => self.session.push_event(Event::Blocked("low on memory")),
            11 => self.session.push_event(Event::Unblocked),
            12 => self.wait(Duration::from_secs(3)),
            13 => self.wait(Duration::from_secs(10)),
            14 => self.session.push_event(Event::Close(AmqpError::connection_forced("shutdown"))),
            _ => self.session.written(),
        }
    }

    fn read(&mut self, len: usize) {
        self.read = self.read.saturating_add(len).min(self.stream.len());
        let given = &self.stream[self.used..self.read];
        let wanted = self.machine.wants_input();
        let used = self.machine.on_bytes(self.now, given, &mut self.session);
        assert!(used <= given.len(), "more used than given");
        assert!(used == 0 || wanted, "input used that was not wanted");
        self.used += used;
        // A mandatory message comes back whole; a heartbeat may be due.
        self.output_max += used * OUTPUT_PER_BYTE_MAX;
        self.check_len();
    }

    fn event(&mut self) -> bool {
        let Some(event) = self.session.next_event() else { return false };
        self.output_max += OUTPUT_PER_EVENT_MAX + message(&event).map_or(0, |message| 2 * message.memory());
        self.machine.on_event(self.now, event, &mut self.session);
        self.check_len();
        true
    }

    /// Everything that can be done without more input.
    fn finish(&mut self) {
        loop {
            while self.event() {}
            self.machine.flush();
            self.write();
            self.session.written();
            let before = self.used;
            self.read(0);
            let is_quiet = self.used == before && self.machine.output().is_empty();
            if is_quiet && !self.event() {
                break;
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.output_max += frame::OVERHEAD;
            self.machine.on_deadline(self.now);
            self.write();
            if self.machine.is_done() {
                break;
            }
            assert!(self.machine.deadline().is_none_or(|next| next > self.now), "a deadline stays behind");
        }
        self.now = end;
    }

    fn write(&mut self) {
        while !self.machine.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let used = self.machine.output().slices(&mut slices);
            let len: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            assert!(len > 0, "output that cannot be written");
            slices[..used].iter().for_each(|slice| self.written.bytes.extend_from_slice(slice));
            self.machine.on_written(self.now, len);
        }
        self.check_len();
    }

    fn check_len(&mut self) {
        let len = self.written.bytes.len() + self.machine.output().len();
        assert!(len <= self.output_max, "{len} bytes of output, {} allowed", self.output_max);
    }

    fn check_end(self) {
        let whole = self.written.check();
        let phase = self.machine.phase();
        if phase != Phase::Done && phase != Phase::Discarding {
            assert!(whole, "output ends within a message");
        }
        match phase {
            Phase::Closing => panic!("all replies were given"),
            Phase::AwaitCloseOk => assert!(self.session.is_closed()),
            Phase::Discarding | Phase::Done => {}
            _ => assert!(!self.session.is_closed()),
        }
        if phase == Phase::Running && self.machine.wants_input() {
            let rest = &self.stream[self.used..];
            let incomplete = rest
                .first_chunk()
                .is_none_or(|head| rest.len() <= frame::HEAD_LEN + FrameHead::parse(head).size as usize);
            assert!(incomplete, "a whole frame is left over");
        }
    }
}

fn message(event: &Event) -> Option<&Message> {
    match event {
        Event::Deliver(delivery) => Some(&delivery.message),
        Event::DirectReply(_, message) => Some(message),
        Event::Reply(_, Ok(Reply::Got(Some(got)))) => Some(&got.message),
        _ => None,
    }
}

/// Everything that was written, to be judged as a client would.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
}

/// What a client knows of a channel.
#[derive(Default, PartialEq)]
enum Seen {
    #[default]
    Closed,
    Open {
        last_tag: u64,
    },
    Closing,
}

impl Written {
    /// Splits the output into frames and checks their order. Returns whether the last message is complete.
    fn check(&self) -> bool {
        let mut rest = &self.bytes[..];
        let mut dialect = None;
        let mut channels: HashMap<u16, Seen> = HashMap::new();
        let (mut close_sent, mut close_ok_sent) = (false, false);
        // A message that is being written: its channel, and the rest of its body once the header is there.
        let mut content: Option<(u16, Option<u64>)> = None;
        if rest.starts_with(b"AMQP") {
            assert_eq!(rest, Dialect::HEADER_091);
            return true;
        }
        while !rest.is_empty() {
            let head = FrameHead::parse(rest.first_chunk().expect("a whole head"));
            let end = frame::HEAD_LEN + head.size as usize;
            assert!(end < rest.len(), "a whole frame");
            assert_eq!(rest[end], frame::END);
            let payload = &rest[frame::HEAD_LEN..end];
            rest = &rest[end + 1..];
            assert!(!close_ok_sent, "output behind connection.close-ok");
            match (head.kind, content) {
                (frame::HEADER, Some((channel, None))) if channel == head.channel => {
                    let header = ContentHeader::parse(payload).expect("a header");
                    content = Some((channel, Some(header.body_size))).filter(|_| header.body_size > 0);
                    continue;
                }
                (frame::BODY, Some((channel, Some(left)))) if channel == head.channel => {
                    let left = left.checked_sub(u64::from(head.size)).expect("no more body than announced");
                    assert!(head.size > 0, "an empty body frame");
                    content = Some((channel, Some(left))).filter(|_| left > 0);
                    continue;
                }
                (frame::HEARTBEAT, None) => {
                    assert!(head.channel == 0 && payload.is_empty() && !close_sent);
                    continue;
                }
                (frame::METHOD, None) => {}
                other => panic!("a frame out of order: {other:?}"),
            }
            let spoken = *dialect.get_or_insert(match payload.get(4) {
                Some(8) => Dialect::Amqp08,
                _ => Dialect::Amqp091,
            });
            let method = Method::decode(spoken, payload).expect("a method");
            if method.has_content() {
                content = Some((head.channel, None));
            }
            if head.channel == 0 {
                let answers_close = matches!(method, Method::ConnectionCloseOk);
                assert!(!close_sent || answers_close, "{} behind connection.close", method.name());
                // Two closes may cross, and then more than one can be answered.
                close_ok_sent = answers_close && !close_sent;
                close_sent |= matches!(method, Method::ConnectionClose { .. });
                continue;
            }
            assert!(!close_sent, "{} behind connection.close", method.name());
            on_channel(channels.entry(head.channel).or_default(), &method);
        }
        content.is_none()
    }
}

fn on_channel(seen: &mut Seen, method: &Method<'_>) {
    *seen = match (std::mem::take(seen), method) {
        (Seen::Closed | Seen::Closing, Method::ChannelOpenOk { .. }) => Seen::Open { last_tag: 0 },
        (Seen::Open { .. }, Method::ChannelClose { .. }) => Seen::Closing,
        (Seen::Open { .. }, Method::ChannelCloseOk) => Seen::Closed,
        (Seen::Closing, Method::ChannelCloseOk) => Seen::Closing,
        (
            Seen::Open { last_tag },
            Method::BasicDeliver { delivery_tag, .. } | Method::BasicGetOk { delivery_tag, .. },
        ) => {
            assert_eq!(*delivery_tag, last_tag + 1, "delivery tags rise one by one");
            Seen::Open { last_tag: *delivery_tag }
        }
        (open @ Seen::Open { .. }, _) => open,
        (_, method) => panic!("{} on a channel that is not open", method.name()),
    };
}
