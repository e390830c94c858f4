//! Messages on their way to the client and back.

use expect_test::expect;

use crate::stage::{check, check_from_start};

#[test]
fn consume_and_ack() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q -
            1 consume q mine no-ack
            1 publish - q a
            1 publish - q b
            1 ack 1
            counts q
            1 consume q mine
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q -
                1 basic.consume-ok consumer_tag: "amq.ctag-0000000000000000000001"
            1 consume q mine no-ack
                1 basic.consume-ok consumer_tag: "mine"
            1 publish - q a
                1 basic.deliver consumer_tag: "amq.ctag-0000000000000000000001", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 publish - q b
                1 basic.deliver consumer_tag: "mine", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 ack 1
            counts q
                Some((0, 0)) ready and unacked
            1 consume q mine
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - attempt to reuse consumer tag \'mine\'", class_id: 60, method_id: 20
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: NOT_ALLOWED - attempt to reuse consumer tag 'mine'
        "#]],
    );
}

#[test]
fn consumers_are_counted() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t
            1 publish - q a
            1 declare q passive
            1 delete q if-unused
            1 channel.close-ok
            1 channel.open
            1 delete q if-empty
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 declare q passive
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 1
            1 delete q if-unused
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - queue \'q\' in vhost \'/\' in use", class_id: 50, method_id: 40
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 delete q if-empty
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - queue \'q\' in vhost \'/\' not empty", class_id: 50, method_id: 40
        "#]],
    );
}

#[test]
fn exclusive_consumers() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t exclusive
            2 channel.open
            2 consume q u
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t exclusive
                1 basic.consume-ok consumer_tag: "t"
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 consume q u
                2 channel.close reply_code: 403, reply_text: "ACCESS_REFUSED - queue \'q\' in vhost \'/\' in exclusive use", class_id: 60, method_id: 20
        "#]],
    );
}

#[test]
fn unknown_tags() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q a
            1 get q
            1 ack 2
            1 channel.close-ok
            1 channel.open
            1 ack 0 multiple
            1 nack 1
            1 channel.close-ok
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q a
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 2
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - unknown delivery tag 2", class_id: 60, method_id: 80
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 ack 0 multiple
            1 nack 1
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - unknown delivery tag 1", class_id: 60, method_id: 120
            1 channel.close-ok
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn acks_on_another_channel() {
    check(
        "
            1 channel.open
            1 declare q
            2 channel.open
            1 publish - q a
            1 get q
            2 ack 1
            2 channel.close-ok
            1 ack 1
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            2 channel.open
                2 channel.open-ok channel_id: ""
            1 publish - q a
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "a"
            2 ack 1
                2 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - unknown delivery tag 1", class_id: 60, method_id: 80
            2 channel.close-ok
            1 ack 1
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn several_at_once() {
    check(
        "
            1 channel.open
            1 declare q
            repeat 5 1 publish - q a
            1 consume q t
            1 ack 3
            1 ack 4 multiple
            counts q
            1 nack 0 multiple requeue
            counts q
            1 reject 6
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            repeat 5 1 publish - q a
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 4, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 5, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 3
            1 ack 4 multiple
            counts q
                Some((0, 1)) ready and unacked
            1 nack 0 multiple requeue
                1 basic.deliver consumer_tag: "t", delivery_tag: 6, redelivered: true, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            counts q
                Some((0, 1)) ready and unacked
            1 reject 6
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn requeued_messages_keep_their_place() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q a
            1 publish - q b
            1 publish - q c
            1 get q
            1 get q
            1 reject 2 requeue
            1 nack 1 requeue
            1 get q
            1 get q
            1 get q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q a
            1 publish - q b
            1 publish - q c
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 2
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 get q
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 reject 2 requeue
            1 nack 1 requeue
            1 get q
                1 basic.get-ok delivery_tag: 3, redelivered: true, exchange: "", routing_key: "q", message_count: 2
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 get q
                1 basic.get-ok delivery_tag: 4, redelivered: true, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 get q
                1 basic.get-ok delivery_tag: 5, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "c"
        "#]],
    );
}

#[test]
fn prefetch_of_consumers() {
    check(
        "
            1 channel.open
            1 declare q
            repeat 5 1 publish - q a
            1 qos 2
            1 consume q t
            1 ack 1
            1 qos 0
            1 consume q u
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            repeat 5 1 publish - q a
            1 qos 2
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 1
                1 basic.deliver consumer_tag: "t", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 qos 0
                1 basic.qos-ok
            1 consume q u
                1 basic.consume-ok consumer_tag: "u"
                1 basic.deliver consumer_tag: "u", delivery_tag: 4, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "u", delivery_tag: 5, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            counts q
                Some((0, 4)) ready and unacked
        "#]],
    );
}

#[test]
fn prefetch_of_the_channel() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 qos 2 global
            1 consume q t
            1 consume r u
            1 publish - q a
            1 publish - q b
            1 publish - r c
            1 publish - r d
            1 publish - q e
            counts q
            counts r
            1 ack 1
            1 ack 3 multiple
            counts q
            counts r
            1 ack 0 multiple
            1 qos 0 global
            counts q
            counts r
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 qos 2 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 consume r u
                1 basic.consume-ok consumer_tag: "u"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 publish - q b
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 publish - r c
            1 publish - r d
            1 publish - q e
            counts q
                Some((1, 2)) ready and unacked
            counts r
                Some((2, 0)) ready and unacked
            1 ack 1
                1 basic.deliver consumer_tag: "u", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "r"
                1 content 1 "\x00\x00"
                1 body 1 "c"
            1 ack 3 multiple
                1 basic.deliver consumer_tag: "u", delivery_tag: 4, redelivered: false, exchange: "", routing_key: "r"
                1 content 1 "\x00\x00"
                1 body 1 "d"
                1 basic.deliver consumer_tag: "t", delivery_tag: 5, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "e"
            counts q
                Some((0, 1)) ready and unacked
            counts r
                Some((0, 1)) ready and unacked
            1 ack 0 multiple
            1 qos 0 global
                1 basic.qos-ok
            counts q
                Some((0, 0)) ready and unacked
            counts r
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn m24_no_ack_waits_for_room_in_the_channel_and_takes_none_and_get_does_not_wait() {
    check(
        "
            1 channel.open
            1 declare q
            1 qos 1 global
            repeat 5 1 publish - q a
            1 consume q t
            1 get q
            1 consume q u no-ack
            counts q
            1 cancel t
            1 ack 1
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 qos 1 global
                1 basic.qos-ok
            repeat 5 1 publish - q a
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 get q
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 3
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 consume q u no-ack
                1 basic.consume-ok consumer_tag: "u"
            counts q
                Some((3, 2)) ready and unacked
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 ack 1
                1 basic.deliver consumer_tag: "u", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "u", delivery_tag: 4, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "u", delivery_tag: 5, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            counts q
                Some((0, 1)) ready and unacked
        "#]],
    );
}

#[test]
fn prefetch_of_the_channel_may_rise_later() {
    check(
        "
            1 channel.open
            1 declare q
            1 qos 1 global
            1 consume q t
            repeat 4 1 publish - q a
            1 qos 3 global
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 qos 1 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            repeat 4 1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 qos 3 global
                1 basic.qos-ok
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            counts q
                Some((1, 3)) ready and unacked
        "#]],
    );
}

#[test]
fn prefetch_in_bytes() {
    check(
        "
            1 channel.open
            1 declare q
            1 qos 1 size=1
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 qos 1 size=1
                0 connection.close reply_code: 540, reply_text: "NOT_IMPLEMENTED - prefetch_size!=0 (1)", class_id: 60, method_id: 10
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: NOT_IMPLEMENTED - prefetch_size!=0 (1)
        "#]],
    );
}

#[test]
fn refused_deliveries_are_not_redelivered_ones() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 qos 1 global
            1 consume q t
            1 consume r u
            1 publish - q a
            1 publish - r b
            counts r
            1 channel.close
            1 channel.open
            1 get r
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 qos 1 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 consume r u
                1 basic.consume-ok consumer_tag: "u"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 publish - r b
            counts r
                Some((1, 0)) ready and unacked
            1 channel.close
                1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 get r
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "r", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "b"
        "#]],
    );
}

#[test]
fn a_refusing_consumer_can_be_cancelled() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 qos 1 global
            1 consume q t
            1 consume r u
            1 publish - q a
            1 publish - r b
            1 cancel u
            1 ack 1
            counts r
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 qos 1 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 consume r u
                1 basic.consume-ok consumer_tag: "u"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 publish - r b
            1 cancel u
                1 basic.cancel-ok consumer_tag: "u"
            1 ack 1
            counts r
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn recover() {
    check(
        "
            1 channel.open
            1 declare q
            repeat 3 1 publish - q a
            1 consume q t
            1 ack 2
            1 recover requeue
            1 recover-async requeue
            counts q
            1 recover
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            repeat 3 1 publish - q a
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 2
            1 recover requeue
                1 basic.recover-ok
                1 basic.deliver consumer_tag: "t", delivery_tag: 4, redelivered: true, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 5, redelivered: true, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 recover-async requeue
                1 basic.deliver consumer_tag: "t", delivery_tag: 6, redelivered: true, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "t", delivery_tag: 7, redelivered: true, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            counts q
                Some((0, 2)) ready and unacked
            1 recover
                0 connection.close reply_code: 540, reply_text: "NOT_IMPLEMENTED - requeue=false", class_id: 60, method_id: 110
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: NOT_IMPLEMENTED - requeue=false
        "#]],
    );
}

#[test]
fn recover_in_0_8() {
    check_from_start(
        "
            header 08
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            1 channel.open
            1 declare q
            1 publish - q a
            1 get q
            1 recover requeue
            counts q
        ",
        expect![[r#"
            header 08
                0 connection.start 8.0 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 0
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q a
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 recover requeue
                1 basic.recover-ok
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn cancel() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t
            1 cancel t
            1 cancel t
            1 cancel unknown
            1 cancel unknown nowait
            1 consume q t nowait
            1 cancel t nowait
            1 publish - q a
            counts q
            1 consume q t
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 cancel unknown
                1 basic.cancel-ok consumer_tag: "unknown"
            1 cancel unknown nowait
            1 consume q t nowait
            1 cancel t nowait
            1 publish - q a
            counts q
                Some((1, 0)) ready and unacked
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
        "#]],
    );
}

#[test]
fn deliveries_outlive_their_consumer() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t
            1 publish - q a
            1 cancel t
            1 ack 1
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 ack 1
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn notice_of_cancellation() {
    check(
        "
            1 channel.open
            1 declare q
            2 channel.open
            1 consume q t
            2 delete q
            1 cancel t
            1 declare q
            1 consume q t
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            2 channel.open
                2 channel.open-ok channel_id: ""
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            2 delete q
                1 basic.cancel consumer_tag: "t", nowait: true
                2 queue.delete-ok message_count: 0
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
        "#]],
    );
}

#[test]
fn no_notice_without_capability() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            1 channel.open
            1 declare q
            1 consume q t
            1 delete q
            1 declare q
            1 consume q t
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
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 delete q
                1 queue.delete-ok message_count: 0
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
        "#]],
    );
}

#[test]
fn auto_delete_with_the_last_consumer() {
    check(
        "
            1 channel.open
            1 declare q auto-delete
            1 consume q t
            1 consume q u
            1 cancel t
            1 cancel u
            1 declare q passive
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q auto-delete
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 consume q u
                1 basic.consume-ok consumer_tag: "u"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 cancel u
                1 basic.cancel-ok consumer_tag: "u"
            1 declare q passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'q\' in vhost \'/\'", class_id: 50, method_id: 10
        "#]],
    );
}

#[test]
fn unacked_messages_return_with_the_channel() {
    check(
        "
            1 channel.open
            1 declare q
            repeat 2 1 publish - q a
            1 get q
            1 consume q t
            1 channel.close
            counts q
            1 channel.open
            1 get q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            repeat 2 1 publish - q a
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 channel.close
                1 channel.close-ok
            counts q
                Some((2, 0)) ready and unacked
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: true, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "a"
        "#]],
    );
}

#[test]
fn direct_replies() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume amq.rabbitmq.reply-to t no-ack
            1 publish - q request reply-to=amq.rabbitmq.reply-to
            1 get q no-ack
            2 channel.open
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply correlation-id=c mandatory
            1 cancel t
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 late mandatory
            2 confirm
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 late
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume amq.rabbitmq.reply-to t no-ack
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q request reply-to=amq.rabbitmq.reply-to
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 7 "\x02\x00,amq.rabbitmq.reply-to.0000000000000000000001"
                1 body 7 "request"
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply correlation-id=c mandatory
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "amq.rabbitmq.reply-to.0000000000000000000001"
                1 content 5 "\x04\x00\x01c"
                1 body 5 "reply"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 late mandatory
                2 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "amq.rabbitmq.reply-to.0000000000000000000001"
                2 content 4 "\x00\x00"
                2 body 4 "late"
            2 confirm
                2 confirm.select-ok
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 late
                2 basic.ack delivery_tag: 1, multiple: false
        "#]],
    );
}

#[test]
fn direct_replies_are_confirmed() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume amq.rabbitmq.reply-to t no-ack
            2 channel.open
            2 confirm
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply
            2 tx.select
            2 channel.close-ok
            2 channel.open
            2 tx.select
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply
            2 tx.commit
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume amq.rabbitmq.reply-to t no-ack
                1 basic.consume-ok consumer_tag: "t"
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 confirm
                2 confirm.select-ok
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "amq.rabbitmq.reply-to.0000000000000000000001"
                1 content 5 "\x00\x00"
                1 body 5 "reply"
                2 basic.ack delivery_tag: 1, multiple: false
            2 tx.select
                2 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - cannot switch from confirm to tx mode", class_id: 90, method_id: 10
            2 channel.close-ok
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 tx.select
                2 tx.select-ok
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply
            2 tx.commit
                2 tx.commit-ok
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "amq.rabbitmq.reply-to.0000000000000000000001"
                1 content 5 "\x00\x00"
                1 body 5 "reply"
        "#]],
    );
}

#[test]
fn direct_replies_go_with_the_channel() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume amq.rabbitmq.reply-to t no-ack
            1 channel.close
            2 channel.open
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply mandatory
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume amq.rabbitmq.reply-to t no-ack
                1 basic.consume-ok consumer_tag: "t"
            1 channel.close
                1 channel.close-ok
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 publish - amq.rabbitmq.reply-to.0000000000000000000001 reply mandatory
                2 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "amq.rabbitmq.reply-to.0000000000000000000001"
                2 content 5 "\x00\x00"
                2 body 5 "reply"
        "#]],
    );
}

#[test]
fn direct_replies_need_no_ack() {
    check(
        "
            1 channel.open
            1 consume amq.rabbitmq.reply-to t
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 consume amq.rabbitmq.reply-to t
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - reply consumer cannot acknowledge", class_id: 60, method_id: 20
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn direct_replies_once_for_a_channel() {
    check(
        "
            1 channel.open
            1 consume amq.rabbitmq.reply-to t no-ack
            1 consume amq.rabbitmq.reply-to u no-ack
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 consume amq.rabbitmq.reply-to t no-ack
                1 basic.consume-ok consumer_tag: "t"
            1 consume amq.rabbitmq.reply-to u no-ack
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - reply consumer already set", class_id: 60, method_id: 20
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn direct_replies_asked_for_and_not_awaited() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q request reply-to=amq.rabbitmq.reply-to
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q request reply-to=amq.rabbitmq.reply-to
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - fast reply consumer does not exist", class_id: 60, method_id: 40
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn m38_the_tag_of_direct_replies_may_be_taken_again() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume amq.rabbitmq.reply-to t no-ack
            1 consume q t
            1 publish - q a
            1 cancel t
            1 publish - q b
            1 cancel t
            1 publish - q c
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume amq.rabbitmq.reply-to t no-ack
                1 basic.consume-ok consumer_tag: "t"
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 publish - q b
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 cancel t
                1 basic.cancel-ok consumer_tag: "t"
            1 publish - q c
            counts q
                Some((1, 2)) ready and unacked
        "#]],
    );
}
