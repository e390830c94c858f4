//! Publisher confirms, returns, and what an `immediate` message of 0-8 comes to.

use expect_test::expect;

use crate::stage::{check, check_from_start};

#[test]
fn confirms_of_one_read_go_together() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - q a
            1 publish - q b &
            1 publish - q c &
            1 publish - q d
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - q a
                1 basic.ack delivery_tag: 1, multiple: false
            1 publish - q b
            1 publish - q c
            1 publish - q d
                1 basic.ack delivery_tag: 4, multiple: true
        "#]],
    );
}

#[test]
fn unroutable_counts_as_confirmed() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - q a &
            1 publish - nowhere b &
            1 publish - q c
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - q a
            1 publish - nowhere b
            1 publish - q c
                1 basic.ack delivery_tag: 3, multiple: true
        "#]],
    );
}

#[test]
fn returns_come_before_acks() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - nowhere a mandatory
            1 publish - q b &
            1 publish - nowhere c mandatory &
            1 publish - q d
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - nowhere a mandatory
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "nowhere"
                1 content 1 "\x00\x00"
                1 body 1 "a"
                1 basic.ack delivery_tag: 1, multiple: false
            1 publish - q b
            1 publish - nowhere c mandatory
            1 publish - q d
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "nowhere"
                1 content 1 "\x00\x00"
                1 body 1 "c"
                1 basic.ack delivery_tag: 4, multiple: true
        "#]],
    );
}

#[test]
fn refusals_are_nacks() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
            1 publish - full a &
            1 publish - full b &
            1 publish - q c
            1 publish - full d &
            1 publish - full e
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
                1 queue.declare-ok queue: "full", message_count: 0, consumer_count: 0
            1 publish - full a
            1 publish - full b
            1 publish - q c
                1 basic.ack delivery_tag: 1, multiple: false
                1 basic.ack delivery_tag: 3, multiple: false
                1 basic.nack delivery_tag: 2, multiple: false, requeue: false
            1 publish - full d
            1 publish - full e
                1 basic.nack delivery_tag: 5, multiple: true, requeue: false
        "#]],
    );
}

#[test]
fn several_queues_are_one_confirm() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
            1 bind q amq.fanout
            1 bind full amq.fanout
            1 publish amq.fanout - a
            1 publish amq.fanout - b
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 declare full t:x-max-length=1 t:x-overflow=reject-publish
                1 queue.declare-ok queue: "full", message_count: 0, consumer_count: 0
            1 bind q amq.fanout
                1 queue.bind-ok
            1 bind full amq.fanout
                1 queue.bind-ok
            1 publish amq.fanout - a
                1 basic.ack delivery_tag: 1, multiple: false
            1 publish amq.fanout - b
                1 basic.nack delivery_tag: 2, multiple: false, requeue: false
        "#]],
    );
}

#[test]
fn confirms_before_the_channel_is_closed() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - q a &
            1 publish - q b &
            1 channel.close
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - q a
            1 publish - q b
            1 channel.close
                1 channel.close-ok
        "#]],
    );
}

#[test]
fn confirms_before_the_channel_fails() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - q a &
            1 publish - nowhere x &
            1 publish nowhere - c &
            1 publish - q d
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - q a
            1 publish - nowhere x
            1 publish nowhere - c
            1 publish - q d
                1 basic.ack delivery_tag: 2, multiple: false
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no exchange \'nowhere\' in vhost \'/\'", class_id: 60, method_id: 40
        "#]],
    );
}

#[test]
fn confirms_before_the_connection_is_closed() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - nowhere a &
            0 close
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - nowhere a
            0 close
                1 basic.ack delivery_tag: 1, multiple: false
                0 connection.close-ok
        "#]],
    );
}

#[test]
fn numbers_start_anew_with_the_channel() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 publish - q a
            1 channel.close
            1 channel.open
            1 confirm nowait
            1 publish - q b
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 publish - q a
                1 basic.ack delivery_tag: 1, multiple: false
            1 channel.close
                1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 confirm nowait
            1 publish - q b
                1 basic.ack delivery_tag: 1, multiple: false
        "#]],
    );
}

#[test]
fn modes_exclude_each_other() {
    check(
        "
            1 channel.open
            1 declare q
            1 confirm
            1 confirm
            1 tx.select
            1 channel.close-ok
            1 channel.open
            1 tx.select
            1 confirm
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 confirm
                1 confirm.select-ok
            1 confirm
                1 confirm.select-ok
            1 tx.select
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - cannot switch from confirm to tx mode", class_id: 90, method_id: 10
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 tx.select
                1 tx.select-ok
            1 confirm
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - cannot switch from tx to confirm mode", class_id: 85, method_id: 10
        "#]],
    );
}

#[test]
fn immediate_in_0_8() {
    check_from_start(
        "
            header 08
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            1 channel.open
            1 declare q
            1 declare r
            1 publish - q a immediate
            1 publish - nowhere b immediate
            1 consume r t no-ack
            1 publish - r c immediate
            1 publish - q d t:CC=[r] immediate
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
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 publish - q a immediate
                1 basic.return reply_code: 313, reply_text: "NO_CONSUMERS", exchange: "", routing_key: "q"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            1 publish - nowhere b immediate
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "nowhere"
                1 content 1 "\x00\x00"
                1 body 1 "b"
            1 consume r t no-ack
                1 basic.consume-ok consumer_tag: "t"
            1 publish - r c immediate
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "r"
                1 content 1 "\x00\x00"
                1 body 1 "c"
            1 publish - q d t:CC=[r] immediate
                1 basic.deliver consumer_tag: "t", delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q"
                1 content 1 " \x00\x00\x00\x00\x0e\x02CCA\x00\x00\x00\x06S\x00\x00\x00\x01r"
                1 body 1 "d"
            counts q
                Some((0, 0)) ready and unacked
        "#]],
    );
}
