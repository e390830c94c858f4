//! How connections end.

use expect_test::expect;

use crate::stage::{check, check_from_start};

#[test]
fn by_the_client() {
    check(
        "
            1 channel.open
            1 declare q
            0 close
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            0 close
                0 connection.close-ok
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn by_the_client_with_exclusive_queues() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare mine exclusive
            1 consume mine t
            1 publish - mine a
            0 close
            counts mine
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare mine exclusive
                1 queue.declare-ok queue: "mine", message_count: 0, consumer_count: 0
            1 consume mine t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - mine a
                1 basic.deliver consumer_tag: "t", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "mine"
                1 content 1 "\x00\x00"
                1 body 1 "a"
            0 close
                0 connection.close-ok
            counts mine
                None ready and unacked
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn unacked_messages_return_with_the_connection() {
    check(
        "
            1 channel.open
            1 declare q
            repeat 2 1 publish - q a
            1 get q
            0 close
            counts q
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
            0 close
                0 connection.close-ok
            counts q
                Some((2, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn by_the_server() {
    check(
        "
            1 channel.open
            1 declare q
            event close
            1 declare r
            2 channel.open
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            1 declare r
            2 channel.open
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: CONNECTION_FORCED - shutdown
        "#]],
    );
}

#[test]
fn both_at_once() {
    check(
        "
            1 channel.open
            1 declare q
            event close
            0 close
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            0 close
                0 connection.close-ok
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: CONNECTION_FORCED - shutdown
        "#]],
    );
}

#[test]
fn by_the_server_with_exclusive_queues() {
    check(
        "
            1 channel.open
            1 declare mine exclusive
            event close
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare mine exclusive
                1 queue.declare-ok queue: "mine", message_count: 0, consumer_count: 0
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: CONNECTION_FORCED - shutdown
        "#]],
    );
}

#[test]
fn by_the_server_amid_a_body() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 20
            raw 03 0001 00000014 31323334
            event close
            raw 35363738393031323334353637383930 ce
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 20
            raw 03 0001 00000014 31323334
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            raw 35363738393031323334353637383930 ce
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: CONNECTION_FORCED - shutdown
        "#]],
    );
}

#[test]
fn by_the_server_amid_a_handshake() {
    check_from_start(
        "
            header 091
            event close
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            event close
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn nothing_is_told_behind_close() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t
            1 publish - q a &
            event close
            event blocked
            event unblocked
            event close
            1 publish - q b
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 publish - q a
            event close
                0 connection.close reply_code: 320, reply_text: "CONNECTION_FORCED - shutdown", class_id: 0, method_id: 0
            event blocked
            event unblocked
            event close
            1 publish - q b
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: CONNECTION_FORCED - shutdown
        "#]],
    );
}

#[test]
fn close_on_a_channel() {
    check(
        "
            1 channel.open
            1 declare q
            1 close
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 close
                0 connection.close reply_code: 503, reply_text: "COMMAND_INVALID - unimplemented method", class_id: 10, method_id: 50
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: COMMAND_INVALID - unimplemented method
        "#]],
    );
}

#[test]
fn input_behind_close_is_not_looked_at() {
    check(
        "
            1 channel.open
            1 declare q
            0 close &
            1 declare r
            counts r
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            0 close
            1 declare r
                0 connection.close-ok
            counts r
                None ready and unacked
            state
                Done, wants input: false, unused: 21
        "#]],
    );
}
