//! What a queue's settings do, as short scripts: a line a command, and what it causes behind `=>`.
//!
//! Commands: `pub BODY [ttl=MS] [prio=N]`, `get` (unacked), `take` (no-ack), `ack N`, `reject N`, `requeue N` (by delivery
//! id), `consume NAME [prefetch=N] [prio=N]`, `cancel NAME`, `expires MS|never` (its settings are no more than this), `at MS`
//! (time passes). Effects: `got BODY`, `empty`,
//! `NAME<BODY`, `dead BODY REASON`, `nack`, `gone`; a `*` behind a body means redelivered.

use std::fmt::Write;

use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Effects, Forgotten, Getter, NewConsumer, Overflow, Publish,
    Queue, QueueKind, QueueOptions, Retry, RetryOf, Settings,
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

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, consumer: ConsumerId, _: u64) {
        let name = self.names[consumer.0 as usize].clone();
        self.note(format_args!("{name} is too slow"));
    }

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
        "requeue" => settle(Settle::Requeue { failed: false }),
        "fail" => settle(Settle::Requeue { failed: true }),
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
                timeout_ms: option(words, "timeout"),
            }))
        }
        "cancel" => {
            let id = seen.names.iter().position(|name| name == words[1]).expect("a consumer");
            Command::Cancel { connection, channel, consumer: ConsumerId(id as u32) }
        }
        "expires" => Command::Configure(Box::new(Settings {
            expires_ms: words[1].parse().ok(),
            ..Settings::default()
        })),
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
fn m31_messages_expire_wherever_they_stand() {
    check(
        dead_lettering(),
        "pub long ttl=100
         pub first
         pub short ttl=10
         pub last ttl=60
         at 10  => dead short expired
         get    => got long
         get    => got first
         at 60  => dead last expired
         at 99
         requeue 0
         at 100 => dead long expired",
    );
}

#[test]
fn m30_failed_deliveries_count_and_others_do_not() {
    check(
        Settings { delivery_limit: Some(1), ..dead_lettering() },
        "pub a
         get      => got a
         requeue 0
         get      => got a*
         fail 1
         get      => got a*
         requeue 2
         get      => got a*
         fail 3   => dead a delivery_limit
         get      => empty",
    );
}

#[test]
fn retries_wait_longer_each_time() {
    let retry = Retry { of: RetryOf::Failed, min_ms: 10, max_ms: 25 };
    check(
        Settings { retry: Some(retry), ..dead_lettering() },
        "pub a
         consume c prefetch=1 => c<a
         pub b
         fail 0               => c<b
         ack 1
         at 10                => c<a*
         fail 2
         at 30                => c<a*
         fail 3
         at 55                => c<a*
         fail 4
         at 80                => c<a*
         requeue 5            => c<a*",
    );
}

#[test]
fn m41_a_consumer_that_does_not_acknowledge_in_time_ends() {
    check(
        Settings { consumer_timeout_ms: Some(50), ..Settings::default() },
        "consume slow
         pub a                   => slow<a
         consume patient timeout=100
         at 20
         pub b                   => slow<b
         pub c                   => patient<c
         at 50                   => slow is too slow patient<a* patient<b*
         at 120                  => patient is too slow
         get                     => got a*",
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
fn m31_nobody_gets_what_has_waited_too_long() {
    let ttl = |message_ttl_ms| Settings { message_ttl_ms, ..dead_lettering() };
    // What expires while its consumer works on another.
    check(
        ttl(Some(50)),
        "consume c prefetch=1
         pub a           => c<a
         pub b
         pub own ttl=20
         at 20           => dead own expired
         at 40
         pub late
         at 50           => dead b expired
         ack 0           => c<late",
    );
    // What comes back too late, for the queue's limit and for its own, and what comes back in time.
    check(
        ttl(Some(50)),
        "pub a
         pub b ttl=20
         get       => got a
         get       => got b
         at 30
         requeue 1 => dead b expired
         pub c ttl=40
         get       => got c
         consume c
         at 60
         requeue 0 => dead a expired
         requeue 2 => c<c*
         at 90
         requeue 3 => dead c expired",
    );
    // Without any time to wait: somebody must be able to take it at once, also when it comes back.
    check(
        ttl(Some(0)),
        "pub a               => dead a expired
         consume c prefetch=1
         pub b               => c<b
         pub full            => dead full expired
         requeue 0           => dead b expired
         pub long ttl=100    => c<long
         cancel c
         requeue 1           => dead long expired",
    );
    check(
        dead_lettering(),
        "consume c prefetch=1
         pub a ttl=0    => c<a
         pub b
         pub now ttl=0  => dead now expired
         pub soon ttl=1
         at 1           => dead soon expired
         requeue 0      => dead a expired c<b
         ack 1
         pub c ttl=0    => c<c",
    );
}

#[test]
fn m31_what_comes_back_by_itself_may_have_waited_too_long() {
    check(
        Settings { consumer_timeout_ms: Some(50), message_ttl_ms: Some(40), ..dead_lettering() },
        "consume slow
         pub a                      => slow<a
         at 20
         pub b                      => slow<b
         consume next timeout=1000
         at 50                      => slow is too slow dead a expired next<b*",
    );
    let retry = Retry { of: RetryOf::Failed, min_ms: 10, max_ms: 10 };
    check(
        Settings { retry: Some(retry), message_ttl_ms: Some(50), ..dead_lettering() },
        "consume c prefetch=2
         pub own ttl=5   => c<own
         pub short       => c<short
         fail 0
         at 10           => dead own expired
         at 45
         fail 1
         at 55           => dead short expired",
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

/// The group of a message is the first letter of its body here.
#[test]
fn b_messages_of_a_group_wait_for_their_consumer_and_others_pass() {
    check(
        Settings { group_header: Some("group".into()), ..Settings::default() },
        "consume one prefetch=1
         consume two prefetch=1
         pub a1       => one<a1
         pub a2
         pub b1       => two<b1
         pub c1
         ack 1        => two<c1
         ack 0        => one<a2
         pub b2
         requeue 3    => one<a2*
         cancel one
         ack 2        => two<b2
         pub a3
         requeue 4
         ack 5        => two<a2*
         ack 6        => two<a3",
    );
}

#[test]
fn b_whoever_fetches_takes_no_message_of_a_busy_group() {
    check(
        Settings { group_header: Some("group".into()), ..Settings::default() },
        "pub a1
         pub a2
         pub b1
         get      => got a1
         get      => got b1
         get      => empty
         ack 0
         get      => got a2",
    );
}

#[test]
fn m23_the_next_active_consumer_is_the_first_of_the_highest_priority() {
    check(
        Settings { single_active_consumer: true, ..Settings::default() },
        "consume first
         consume low prio=-1
         consume high prio=5
         consume higher prio=5
         pub a         => first<a
         cancel first
         pub b         => high<b
         cancel higher
         consume top prio=9
         pub c         => high<c
         cancel high
         pub d         => top<d
         cancel top
         pub e         => low<e",
    );
}

#[test]
fn m23_in_a_quorum_queue_a_higher_priority_takes_over_when_all_is_settled() {
    let settings = Settings { kind: QueueKind::Quorum, single_active_consumer: true, ..Settings::default() };
    check(
        settings,
        "consume first
         pub a         => first<a
         pub b         => first<b
         consume same
         consume high prio=1
         consume higher prio=2
         pub c
         ack 0
         ack 1         => higher<c
         pub d         => higher<d
         cancel higher
         pub e         => high<e
         requeue 2     => high<c*",
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

#[test]
fn an_unused_queue_counts_from_when_it_hears_that_it_shall_go() {
    check(
        Settings::default(),
        "at 1000
         expires 100
         at 1099
         expires never
         at 5000
         expires 18446744073709551615
         at 6000
         expires 50
         expires 100
         at 6100  => gone",
    );
}
