//! Plays a script against the connection machine and writes down what is said.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::Expect;
use warren_amqp091::{Connection, Interceptors, Limits, ServerIdentity};
use warren_amqp091_codec::{ContentHeader, Dialect, Method, frame};
use warren_testkit::FakeSession;
use warren_types::AmqpError;
use warren_types::session::Event;

use crate::script;

/// Login and `connection.open` with every capability that matters.
pub const OPEN: &str = "
    header 091
    0 start-ok PLAIN guest guest authentication_failure_close consumer_cancel_notify connection.blocked
    0 tune-ok 100 8192 0
    0 open /
";

/// A connection with a broker behind it, and time that passes only when told.
pub struct Stage {
    pub machine: Connection,
    pub session: FakeSession,
    pub now: Instant,
    dialect: Dialect,
    /// Input that the machine has not taken yet.
    input: Vec<u8>,
    /// Output not yet split into frames.
    output: Vec<u8>,
    transcript: String,
}

pub fn limits() -> Limits {
    Limits {
        frame_max: 131_072,
        channel_max: 2047,
        heartbeat_s: 60,
        message_len_max: 100_000,
        handshake_timeout: Duration::from_secs(10),
        interceptors: Interceptors::default(),
    }
}

fn identity() -> Arc<ServerIdentity> {
    let word = |word: &str| word.to_owned();
    Arc::new(ServerIdentity {
        product: word("Warren"),
        version: word("1.0"),
        cluster_name: word("warren@test"),
        platform: word("Rust"),
        copyright: word("(c)"),
        information: word("info"),
    })
}

/// Plays the script on a connection that is open and compares the transcript.
pub fn check(script: &str, expected: Expect) {
    let mut stage = Stage::open();
    stage.play(script);
    expected.assert_eq(&stage.transcript());
}

/// Plays the script from the protocol header on.
pub fn check_from_start(script: &str, expected: Expect) {
    let mut stage = Stage::new();
    stage.play(script);
    expected.assert_eq(&stage.transcript());
}

impl Stage {
    pub fn new() -> Self {
        Self::with_limits(limits())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            machine: Connection::new(limits, identity(), now),
            session: FakeSession::new(),
            now,
            dialect: Dialect::Amqp091,
            input: Vec::new(),
            output: Vec::new(),
            transcript: String::new(),
        }
    }

    /// A connection that is open already; the transcript begins behind that.
    pub fn open() -> Self {
        let mut stage = Self::new();
        stage.play(OPEN);
        stage.transcript.clear();
        stage
    }

    /// What was said since the last time.
    pub fn transcript(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }

    /// Plays lines of script. Lines that end with `&` arrive in one read with the next one.
    pub fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (line, more) = line.strip_suffix('&').map_or((line, false), |line| (line.trim(), true));
            writeln!(self.transcript, "{line}").unwrap();
            match line.split_once(' ').unwrap_or((line, "")) {
                ("event", event) => self.event(event),
                ("wait", seconds) => self.wait(Duration::from_secs_f64(seconds.parse().unwrap())),
                ("anonymous", _) => self.session.anonymous = true,
                ("counts", queue) => self.counts(queue),
                ("state", _) => self.state(),
                _ => {
                    self.note_dialect(line);
                    self.input.extend(script::encode(self.dialect, line));
                }
            }
            if !more {
                self.run();
            }
        }
    }

    /// Gives the machine input and events until it wants no more of either.
    fn run(&mut self) {
        loop {
            let given = std::mem::take(&mut self.input);
            let used = self.machine.on_bytes(self.now, &given, &mut self.session);
            assert!(used <= given.len(), "more used than given");
            self.input = given[used..].to_vec();
            let Some(event) = self.session.next_event() else { break };
            self.machine.on_event(self.now, event, &mut self.session);
            while let Some(event) = self.session.next_event() {
                self.machine.on_event(self.now, event, &mut self.session);
            }
        }
        self.machine.flush();
        self.write();
        if !self.machine.output().is_empty() || self.session.next_event().is_some() {
            panic!("nothing may be left over");
        }
    }

    /// Moves the output into the transcript. The consumers' credit that it gives back leads to nothing new here:
    /// messages are small.
    fn write(&mut self) {
        self.output.extend(drain(&mut self.machine, self.now));
        self.session.written();
        let (text, rest) = describe(self.dialect, &self.output);
        self.transcript.push_str(&text);
        self.output = rest;
    }

    fn event(&mut self, event: &str) {
        self.session.push_event(match event {
            "blocked" => Event::Blocked("low on memory"),
            "unblocked" => Event::Unblocked,
            "close" => Event::Close(AmqpError::connection_forced("shutdown")),
            other => panic!("no event {other}"),
        });
    }

    /// Lets time pass; what is due meanwhile is done when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.on_deadline(self.now);
            self.write();
            if self.machine.is_done() {
                break;
            }
            let next = self.machine.deadline();
            assert!(next.is_none_or(|next| next > self.now), "a deadline must not stay behind");
        }
        self.now = end;
    }

    fn counts(&mut self, queue: &str) {
        let counts = self.session.queue(queue).map(|queue| (queue.ready_len(), queue.unacked_len()));
        writeln!(self.transcript, "    {counts:?} ready and unacked").unwrap();
    }

    fn state(&mut self) {
        let (phase, wants, rest) = (self.machine.phase(), self.machine.wants_input(), self.input.len());
        writeln!(self.transcript, "    {phase:?}, wants input: {wants}, unused: {rest}").unwrap();
        if self.machine.falls_silent() {
            writeln!(self.transcript, "    falls silent").unwrap();
        }
        if let Some(failure) = self.machine.take_failure() {
            writeln!(self.transcript, "    failure: {failure}").unwrap();
        }
    }

    fn note_dialect(&mut self, line: &str) {
        match line {
            "header 09" => self.dialect = Dialect::Amqp09,
            "header 08" | "header 08-amqplib" => self.dialect = Dialect::Amqp08,
            _ => {}
        }
    }
}

/// Takes all output.
pub fn drain(machine: &mut Connection, now: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    while !machine.output().is_empty() {
        let mut slices = [IoSlice::new(&[]); 4];
        let used = machine.output().slices(&mut slices);
        let taken: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        machine.on_written(now, taken.len());
        all.extend(taken);
    }
    all
}

/// Whole frames as text, one a line, and the bytes behind them. The text stands for exactly these bytes: what
/// the codec would write differently is refused.
pub fn describe(dialect: Dialect, mut bytes: &[u8]) -> (String, Vec<u8>) {
    let mut text = String::new();
    while let Some(head) = bytes.first_chunk() {
        if head.starts_with(b"AMQP") && bytes.len() >= 8 {
            writeln!(text, "    protocol header {:?}", &bytes[4..8]).unwrap();
            bytes = &bytes[8..];
            continue;
        }
        let head = frame::FrameHead::parse(head);
        let end = frame::HEAD_LEN + head.size as usize;
        assert!(bytes.len() > end && bytes[end] == frame::END, "a broken frame: {bytes:?}");
        let (frame, payload) = (&bytes[..=end], &bytes[frame::HEAD_LEN..end]);
        let mut again = Vec::new();
        let channel = head.channel;
        match head.kind {
            frame::METHOD => {
                let method = Method::decode(dialect, payload).expect("a method");
                frame::put_method(&mut again, dialect, channel, &method);
                match &method {
                    // Long, and the same at the start of every dialogue: a test of its own shows the rest.
                    Method::ConnectionStart { version_major, version_minor, .. } => {
                        writeln!(text, "    0 connection.start {version_major}.{version_minor} ...").unwrap();
                    }
                    _ => writeln!(text, "    {channel} {}{}", method.name(), arguments(&method)).unwrap(),
                }
            }
            frame::HEADER => {
                let header = ContentHeader::parse(payload).unwrap();
                frame::put_content_header(&mut again, channel, header.body_size, header.properties);
                let shown = header.properties.escape_ascii();
                writeln!(text, "    {channel} content {} \"{shown}\"", header.body_size).unwrap();
            }
            frame::BODY => {
                frame::put_body_head(&mut again, channel, head.size);
                again.extend_from_slice(payload);
                again.push(frame::END);
                let shown = payload[..payload.len().min(40)].escape_ascii();
                writeln!(text, "    {channel} body {} \"{shown}\"", payload.len()).unwrap();
            }
            frame::HEARTBEAT => {
                frame::put_heartbeat(&mut again);
                writeln!(text, "    {channel} heartbeat").unwrap();
            }
            kind => panic!("a frame of type {kind}"),
        }
        assert_eq!(again, frame, "{text}");
        bytes = &bytes[end + 1..];
    }
    (text, bytes.to_vec())
}

/// The arguments as Rust shows them, bytes as text.
fn arguments(method: &Method<'_>) -> String {
    let shown = format!("{method:?}");
    let Some((_, shown)) = shown.split_once(" {") else { return String::new() };
    let mut text = String::new();
    let mut rest = shown.trim_end_matches('}').trim_end();
    while let Some(at) = rest.find('[') {
        let (before, list) = rest.split_at(at);
        let end = list.find(|c: char| !matches!(c, '[' | ' ' | ',' | '0'..='9')).unwrap();
        text.push_str(before);
        let octets: Option<Vec<u8>> = if list[..=end].ends_with(']') && !list[1..end].contains('[') {
            list[1..end]
                .split(", ")
                .filter(|octet| !octet.is_empty())
                .map(|octet| octet.parse().ok())
                .collect()
        } else {
            None
        };
        match octets {
            Some(octets) => write!(text, "\"{}\"", octets.escape_ascii()).unwrap(),
            None => {
                text.push('[');
                rest = &list[1..];
                continue;
            }
        }
        rest = &list[end + 1..];
    }
    text.push_str(rest);
    text
}
