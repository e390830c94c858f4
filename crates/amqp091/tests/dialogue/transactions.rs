//! Transactions.

use expect_test::expect;

use crate::stage::check;

#[test]
fn publishes_wait_for_the_commit() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a
            1 publish - q b
            counts q
            1 tx.commit
            counts q
            1 tx.commit
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 publish - q b
            counts q
                Some((0, 0)) ready and unacked
            1 tx.commit
                1 tx.commit-ok
            counts q
                Some((2, 0)) ready and unacked
            1 tx.commit
                1 tx.commit-ok
        "#]],
    );
}

#[test]
fn publishes_are_forgotten_by_a_rollback() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a
            1 tx.rollback
            1 tx.commit
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 tx.rollback
                1 tx.rollback-ok
            1 tx.commit
                1 tx.commit-ok
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn returns_come_with_the_commit() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - nowhere a mandatory
            1 publish - nowhere b
            1 tx.commit
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - nowhere a mandatory
            1 publish - nowhere b
            1 tx.commit
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "nowhere"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 tx.commit-ok
        "#]],
    );
}

#[test]
fn acks_wait_for_the_commit() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a &
            1 publish - q b &
            1 publish - q c &
            1 tx.commit
            1 get q
            1 get q
            1 get q
            1 ack 1
            1 nack 2 requeue
            counts q
            1 tx.commit
            counts q
            1 ack 1
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 publish - q b
            1 publish - q c
            1 tx.commit
                1 tx.commit-ok
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 2
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 get q
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 get q
                1 basic.get-ok delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "c"
            1 ack 1
            1 nack 2 requeue
            counts q
                Some((0, 3)) ready and unacked
            1 tx.commit
                1 tx.commit-ok
            counts q
                Some((1, 1)) ready and unacked
            1 ack 1
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - unknown delivery tag 1", class_id: 60, method_id: 80
        "#]],
    );
}

#[test]
fn a_rollback_puts_acks_back() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a &
            1 publish - q b &
            1 publish - q c &
            1 tx.commit
            1 get q
            1 get q
            1 get q
            1 ack 3
            1 ack 2 multiple
            1 tx.rollback
            counts q
            1 ack 0 multiple
            1 tx.commit
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 publish - q b
            1 publish - q c
            1 tx.commit
                1 tx.commit-ok
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 2
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 get q
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 get q
                1 basic.get-ok delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "c"
            1 ack 3
            1 ack 2 multiple
            1 tx.rollback
                1 tx.rollback-ok
            counts q
                Some((0, 3)) ready and unacked
            1 ack 0 multiple
            1 tx.commit
                1 tx.commit-ok
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn an_ack_cannot_be_repeated_within_a_transaction() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a
            1 tx.commit
            1 get q
            1 ack 1
            1 ack 1
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 tx.commit
                1 tx.commit-ok
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 1
            1 ack 1
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - unknown delivery tag 1", class_id: 60, method_id: 80
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn the_end_of_the_channel_is_a_rollback() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish - q a
            1 tx.commit
            1 get q
            1 ack 1
            1 publish - q b
            1 channel.close
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish - q a
            1 tx.commit
                1 tx.commit-ok
            1 get q
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 ack 1
            1 publish - q b
            1 channel.close
                1 channel.close-ok
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn a_refused_publish_fails_the_commit() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
            1 publish - full a
            1 tx.commit
            1 publish - full b
            1 publish - q c
            1 tx.commit
            1 channel.close-ok
            counts full
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
                1 queue.declare-ok queue: "full", message_count: 0, consumer_count: 0
            1 publish - full a
            1 tx.commit
                1 tx.commit-ok
            1 publish - full b
            1 publish - q c
            1 tx.commit
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - partial tx completion", class_id: 90, method_id: 20
            1 channel.close-ok
            counts full
                Some((1, 0)) ready and unacked
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn unknown_exchanges_fail_at_once() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            1 publish nowhere q a
            1 channel.close-ok
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            1 publish nowhere q a
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no exchange \'nowhere\' in vhost \'/\'", class_id: 60, method_id: 40
            1 channel.close-ok
        "#]],
    );
}

#[test]
fn without_select() {
    check(
        "
            1 channel.open
            1 tx.commit
            1 channel.close-ok
            1 channel.open
            1 tx.rollback
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 tx.commit
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - channel is not transactional", class_id: 90, method_id: 20
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 tx.rollback
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - channel is not transactional", class_id: 90, method_id: 30
        "#]],
    );
}

#[test]
fn prefetch_counts_held_acks() {
    check(
        "
            1 channel.open
            1 declare q
            1 tx.select
            2 channel.open
            2 qos 1 global
            1 qos 1 global
            1 consume q t
            1 publish - q a
            1 publish - q b
            1 tx.commit
            1 ack 1
            counts q
            1 tx.commit
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 tx.select
                1 tx.select-ok
            2 channel.open
                2 channel.open-ok channel_id: ""
            2 qos 1 global
                2 basic.qos-ok
            1 qos 1 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q a
            1 publish - q b
            1 tx.commit
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 tx.commit-ok
            1 ack 1
            counts q
                Some((1, 1)) ready and unacked
            1 tx.commit
                1 tx.commit-ok
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            counts q
                Some((0, 1)) ready and unacked
        "#]],
    );
}

#[test]
fn recover_leaves_held_acks_alone() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 tx.select
            1 qos 2 global
            1 consume q t
            1 consume r u
            1 publish - q a &
            1 publish - r b &
            1 publish - q c &
            1 tx.commit
            1 ack 1
            1 recover requeue
            counts q
            counts r
            1 tx.commit
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
            1 tx.select
                1 tx.select-ok
            1 qos 2 global
                1 basic.qos-ok
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 consume r u
                1 basic.consume-ok consumer_tag: "u"
            1 publish - q a
            1 publish - r b
            1 publish - q c
            1 tx.commit
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.deliver consumer_tag: "u", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "r"
                1 content 1 "\x00\x00"
                1 body 1 "b"
                1 tx.commit-ok
            1 ack 1
            1 recover requeue
                1 basic.recover-ok
                1 basic.deliver consumer_tag: "t", delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "c"
            counts q
                Some((0, 2)) ready and unacked
            counts r
                Some((1, 0)) ready and unacked
            1 tx.commit
                1 tx.commit-ok
                1 basic.deliver consumer_tag: "u", delivery_tag: 4, redelivered: true, exchange: "", routing_key: "r"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            counts q
                Some((0, 1)) ready and unacked
            counts r
                Some((0, 1)) ready and unacked
        "#]],
    );
}
