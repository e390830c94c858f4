//! What a queue's settings do, as short scripts: a line a command, and what it causes behind `=>`.
//!
//! Commands: `pub BODY [ttl=MS] [prio=N]`, `get` (unacked), `take` (no-ack), `ack N`, `reject N`, `requeue N` (by delivery
//! id), `consume NAME [prefetch=N] [prio=N]`, `cancel NAME`, `at MS` (time passes). Effects: `got BODY`, `empty`,
//! `NAME<BODY`, `dead BODY REASON`, `nack`, `gone`; a `*` behind a body means redelivered.

use std::fmt::Write;

use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Effects, Forgotten, Getter, NewConsumer, Overflow, Publish,
    Queue, QueueOptions, Settings,
};
use warren_testkit::MemoryStore;
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Message, MessageParts, QueueId, QueueRef,
};

const CONNECTION: ConnectionId = ConnectionId { slot: 1, generation: 1 };
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 1 };

#[derive(Default)]
struct Seen {
    store: MemoryStore,
    text: String,
    names: Vec<String>,
}

fn shown(message: &Message, redelivered: bool) -> String {
    let star = if redelivered { "*" } else { "" };
    format!("{}{star}", String::from_utf8_lossy(message.body()))
}

impl Seen {
    fn note(&mut self, effect: std::fmt::Arguments<'_>) {
        write!(self.text, " {effect}").expect("a string takes everything");
    }
}

impl Effects for Seen {
    fn deliver(&mut self, _: ConnectionId, delivery: Delivery) {
        let name = self.names[delivery.consumer.0 as usize].clone();
        self.note(format_args!("{name}<{}", shown(&delivery.message, delivery.redelivered)));
    }

    fn reply(&mut self, _: ConnectionId, _: ChannelId, reply: Result<Reply, AmqpError>) {
        match reply {
            Ok(Reply::Got(Some(got))) => {
                self.note(format_args!("got {}", shown(&got.message, got.redelivered)))
            }
            Ok(Reply::Got(None)) => self.note(format_args!("empty")),
            Ok(_) => {}
            Err(error) => self.note(format_args!("{}", error.code.0)),
        }
    }

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {
        self.note(format_args!("nack"));
    }

    fn dead_letter(
        &mut self,
        message: Message,
        reason: DeathReason,
        _: &DeadLetterTarget,
        stored: Option<Forgotten>,
    ) {
        stored.into_iter().for_each(|gone| self.store.forget(gone));
        self.note(format_args!("dead {} {}", shown(&message, false), reason.name()));
    }

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn deleted(&mut self) {
        self.note(format_args!("gone"));
    }

    warren_testkit::store_effects!();
}

fn option(words: &[&str], name: &str) -> Option<u64> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn message(words: &[&str]) -> Message {
    let parts = MessageParts {
        routing_key: b"q",
        properties: &[0, 0],
        priority: option(words, "prio").unwrap_or(0) as u8,
        expiration_ms: option(words, "ttl"),
        ..MessageParts::default()
    };
    Message::new(&parts, words[0].as_bytes())
}

fn command(words: &[&str], seen: &mut Seen) -> Command {
    let (connection, channel) = (CONNECTION, CHANNEL);
    let settle = |settle| {
        let id = DeliveryId(words[1].parse().expect("a delivery id"));
        Command::Settle { connection, channel, range: DeliveryRange { first: id, last: id }, settle }
    };
    match words[0] {
        "pub" => {
            let (tracking, message) = (Tracking::Confirm(1), message(&words[1..]));
            Command::Publish(Publish { connection, channel, tracking, message })
        }
        "get" => Command::Get(Getter { connection, channel, no_ack: false }),
        "take" => Command::Get(Getter { connection, channel, no_ack: true }),
        "ack" => settle(Settle::Ack),
        "reject" => settle(Settle::Reject),
        "requeue" => settle(Settle::Requeue),
        "consume" => {
            seen.names.push(words[1].to_owned());
            Command::Consume(Box::new(NewConsumer {
                connection,
                channel,
                consumer: ConsumerId(seen.names.len() as u32 - 1),
                no_ack: false,
                exclusive: false,
                prefetch: option(words, "prefetch").unwrap_or(0) as u32,
                limit: None,
                priority: option(words, "prio").unwrap_or(0) as i64,
            }))
        }
        "cancel" => {
            let id = seen.names.iter().position(|name| name == words[1]).expect("a consumer");
            Command::Cancel { connection, channel, consumer: ConsumerId(id as u32) }
        }
        "at" => Command::Tick,
        other => panic!("unknown command {other}"),
    }
}

/// Runs the commands and compares what each causes.
fn check(settings: Settings, script: &str) {
    let queue = QueueRef { id: QueueId(1), shard: 0, slot: 0 };
    let (name, vhost) = ("q".into(), "/".into());
    let options = QueueOptions { queue, name, vhost, durable: true, auto_delete: false, settings };
    let (mut queue, mut seen, mut now) = (Queue::new(options, 0), Seen::default(), 0);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (left, expected) = line.split_once("=>").unwrap_or((line, ""));
        let words: Vec<&str> = left.split_whitespace().collect();
        if words[0] == "at" {
            let at = words[1].parse().expect("a time");
            // A timer comes when the queue asks for it, not before.
            if queue.deadline().is_none_or(|deadline| deadline > at) {
                assert_eq!(expected.trim(), "", "{line}: the queue asked for no timer");
            }
            now = at;
        }
        let command = command(&words, &mut seen);
        queue.apply(now, command, &mut seen);
        while let Some(answer) = seen.store.answer() {
            queue.apply(now, answer, &mut seen);
        }
        assert_eq!(std::mem::take(&mut seen.text).trim(), expected.trim(), "{line}");
    }
}

fn dead_lettering() -> Settings {
    let target = DeadLetterTarget { exchange: "dead".into(), routing_key: None };
    Settings { dead_letter: Some(target), ..Settings::default() }
}

#[test]
fn requeued_messages_return_to_their_place() {
    check(
        Settings::default(),
        "pub a
         pub b
         pub c
         get        => got a
         get        => got b
         requeue 1
         requeue 0
         take       => got a*
         take       => got b*
         take       => got c
         take       => empty",
    );
}

#[test]
fn rejected_messages_are_buried_in_order() {
    check(
        dead_lettering(),
        "pub a
         pub b
         get      => got a
         get      => got b
         reject 0 => dead a rejected
         reject 1 => dead b rejected",
    );
}

#[test]
fn too_long_a_queue_drops_its_head() {
    check(
        Settings { max_length: Some(2), ..dead_lettering() },
        "pub a
         pub b
         pub c  => dead a maxlen
         get    => got b
         pub d
         requeue 0 => dead b maxlen
         take   => got c",
    );
}

#[test]
fn bytes_are_counted_by_body() {
    check(
        Settings { max_length_bytes: Some(5), ..dead_lettering() },
        "pub aaa
         pub bb
         pub c      => dead aaa maxlen
         pub dddddd => dead bb maxlen dead c maxlen dead dddddd maxlen",
    );
}

#[test]
fn too_long_a_queue_refuses_new_messages() {
    let settings = Settings { max_length: Some(1), overflow: Overflow::RejectPublish, ..dead_lettering() };
    check(settings.clone(), "pub a\npub b => nack\ntake => got a\npub c\ntake => got c");
    check(
        Settings { overflow: Overflow::RejectPublishDlx, ..settings },
        "pub a\npub b => nack dead b maxlen",
    );
}

#[test]
fn messages_expire_at_the_head() {
    check(
        dead_lettering(),
        "pub long ttl=100
         pub short ttl=10
         at 50
         at 100 => dead long expired dead short expired",
    );
}

#[test]
fn the_shorter_time_wins_and_requeue_does_not_restart_it() {
    check(
        Settings { message_ttl_ms: Some(50), ..dead_lettering() },
        "pub a ttl=80
         pub b ttl=20
         get       => got a
         at 20     => dead b expired
         at 40
         requeue 0
         at 50     => dead a expired",
    );
}

#[test]
fn what_may_not_wait_goes_to_a_consumer_or_dies() {
    check(
        dead_lettering(),
        "pub a ttl=0      => dead a expired
         consume c
         pub b ttl=0      => c<b",
    );
}

#[test]
fn higher_priorities_come_first_and_give_way_last() {
    check(
        Settings { max_priority: 5, max_length: Some(4), ..dead_lettering() },
        "pub low
         pub high prio=3
         pub top prio=9
         pub low2
         pub top2 prio=5 => dead low maxlen
         get  => got top
         take => got top2
         requeue 0
         take => got top*
         take => got high
         take => got low2",
    );
}

#[test]
fn consumers_of_higher_priority_are_served_first() {
    check(
        Settings::default(),
        "consume low prefetch=1
         consume high prefetch=1 prio=5
         pub a => high<a
         pub b => low<b
         pub c
         ack 0 => high<c",
    );
}

#[test]
fn one_consumer_at_a_time() {
    check(
        Settings { single_active_consumer: true, ..Settings::default() },
        "consume first prefetch=1
         consume second
         pub a        => first<a
         pub b
         cancel first => second<b
         pub c        => second<c",
    );
}

#[test]
fn an_unused_queue_goes() {
    check(
        Settings { expires_ms: Some(100), ..Settings::default() },
        "at 50
         get      => empty
         at 149
         consume c
         at 1000
         cancel c
         at 1099
         at 1100  => gone",
    );
}
