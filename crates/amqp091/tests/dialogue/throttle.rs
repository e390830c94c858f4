//! Publishers wait while the broker is short of something; calls wait for their answers.

use expect_test::expect;

use crate::script;
use crate::stage::{Stage, check, check_from_start, describe, drain};
use warren_amqp091_codec::Dialect;

#[test]
fn reading_stops_inside_the_first_publish() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            event blocked
            state
            1 get q
            1 publish - q abc
            state
            1 get q
            state
            event unblocked
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            event blocked
            state
                Running, wants input: true, unused: 0
            1 get q
                1 basic.get-empty cluster_id: ""
            1 publish - q abc
                0 connection.blocked reason: "low on memory"
            state
                Running, wants input: false, unused: 11
            1 get q
            state
                Running, wants input: false, unused: 28
            event unblocked
                0 connection.unblocked
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 "\x00\x00"
                1 body 3 "abc"
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn a_message_without_a_body_still_comes_in() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            event blocked
            1 publish - q -
            counts q
            state
            event unblocked
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            event blocked
            1 publish - q -
                0 connection.blocked reason: "low on memory"
            counts q
                Some((1, 0)) ready and unacked
            state
                Running, wants input: false, unused: 0
            event unblocked
                0 connection.unblocked
        "#]],
    );
}

#[test]
fn a_body_of_several_frames_stops_behind_the_next_of_them() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 begin-publish - q
            1 content 6
            1 body abc
            event blocked
            state
            1 body def
            state
            counts q
            1 get q
            state
            event unblocked
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 6
            1 body abc
            event blocked
            state
                Running, wants input: true, unused: 0
            1 body def
                0 connection.blocked reason: "low on memory"
            state
                Running, wants input: false, unused: 0
            counts q
                Some((1, 0)) ready and unacked
            1 get q
            state
                Running, wants input: false, unused: 17
            event unblocked
                0 connection.unblocked
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 6 "\x00\x00"
                1 body 6 "abcdef"
        "#]],
    );
}

#[test]
fn publishers_of_before_wait_at_their_next_publish() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 publish - q abc
            event blocked
            1 publish - q abc
            state
            1 get q
            state
            event unblocked
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 publish - q abc
            event blocked
            1 publish - q abc
                0 connection.blocked reason: "low on memory"
            state
                Running, wants input: false, unused: 11
            1 get q
            state
                Running, wants input: false, unused: 28
            event unblocked
                0 connection.unblocked
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 3 "\x00\x00"
                1 body 3 "abc"
        "#]],
    );
}

#[test]
fn only_the_first_alarm_is_told() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            event blocked
            1 publish - q abc
            event blocked
            event unblocked
            1 get q no-ack
            event unblocked
            event blocked
            1 publish - q abc
            event unblocked
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            event blocked
            1 publish - q abc
                0 connection.blocked reason: "low on memory"
            event blocked
            event unblocked
                0 connection.unblocked
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 "\x00\x00"
                1 body 3 "abc"
            event unblocked
            event blocked
            1 publish - q abc
                0 connection.blocked reason: "low on memory"
            event unblocked
                0 connection.unblocked
        "#]],
    );
}

#[test]
fn consumers_go_on_while_publishers_wait() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 consume q t
            1 publish - q abc
            event blocked
            1 ack 1
            2 channel.open
            state
            event unblocked
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q abc
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 3 "\x00\x00"
                1 body 3 "abc"
            event blocked
            1 ack 1
            2 channel.open
                2 channel.open-ok channel_id: ""
            state
                Running, wants input: true, unused: 0
            event unblocked
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn clients_that_are_not_told() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            1 channel.open
            1 declare q
            event blocked
            1 publish - q abc
            state
            event unblocked
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 0
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            event blocked
            1 publish - q abc
            state
                Running, wants input: false, unused: 11
            event unblocked
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn clients_of_0_8_are_not_told_whatever_they_claim() {
    check_from_start(
        "
            header 08
            0 start-ok PLAIN guest guest connection.blocked consumer_cancel_notify
            0 tune-ok 100 8192 0
            0 open /
            1 channel.open
            1 declare q
            event blocked
            1 publish - q abc
            state
            event unblocked
            state
        ",
        expect![[r#"
            header 08
                0 connection.start 8.0 ...
            0 start-ok PLAIN guest guest connection.blocked consumer_cancel_notify
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 0
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            event blocked
            1 publish - q abc
            state
                Running, wants input: false, unused: 11
            event unblocked
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn a_blocked_connection_can_be_closed() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 publish - q abc
            event blocked
            1 publish - q abc
            event close
            state
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 publish - q abc
            event blocked
            1 publish - q abc
                0 connection.blocked reason: "low on memory"
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: CONNECTION_FORCED - shutdown
            0 close-ok
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn input_rests_while_a_call_waits() {
    let mut stage = Stage::open();
    stage.play("1 channel.open\n1 declare q\n1 publish - q abc");
    stage.transcript();
    let say = |line| script::encode(Dialect::Amqp091, line);
    for call in
        ["1 declare q", "1 get q", "1 consume q t nowait", "1 cancel t", "1 purge q nowait", "1 delete q"]
    {
        let call = say(call);
        let input = [&call[..], &say("1 qos 1")].concat();
        let used = stage.machine.on_bytes(stage.now, &input, &mut stage.session);
        assert_eq!((used, stage.machine.wants_input()), (call.len(), false));
        assert_eq!(stage.machine.on_bytes(stage.now, &input[used..], &mut stage.session), 0);
        assert!(stage.machine.output().is_empty());
        while let Some(event) = stage.session.next_event() {
            stage.machine.on_event(stage.now, event, &mut stage.session);
        }
        assert!(stage.machine.wants_input());
        assert_eq!(stage.machine.on_bytes(stage.now, &input[used..], &mut stage.session), input.len() - used);
        let (text, _) = describe(Dialect::Amqp091, &drain(&mut stage.machine, stage.now));
        assert!(text.ends_with("1 basic.qos-ok\n"), "{text}");
    }
}
