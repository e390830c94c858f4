//! Frames that are too large, broken, or of no known kind.

use expect_test::expect;

use crate::stage::{check, check_from_start};

#[test]
fn heartbeats_are_taken() {
    check(
        "
            0 heartbeat
            state
        ",
        expect![[r#"
            0 heartbeat
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn heartbeat_with_payload() {
    check(
        "
            raw 08 0000 00000001 00 ce
            state
        ",
        expect![[r#"
            raw 08 0000 00000001 00 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 8, all octets = <<0>>: unknown_frame", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: FRAME_ERROR - type 8, all octets = <<0>>: unknown_frame
        "#]],
    );
}

#[test]
fn heartbeat_on_a_channel() {
    check(
        "
            1 channel.open
            1 heartbeat
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 heartbeat
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - type 8, all octets = <<>>", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - type 8, all octets = <<>>
        "#]],
    );
}

#[test]
fn unknown_type() {
    check(
        "
            raw 05 0001 00000000 ce
            0 close-ok
            state
        ",
        expect![[r#"
            raw 05 0001 00000000 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 5, all octets = <<>>: unknown_frame", class_id: 0, method_id: 0
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: FRAME_ERROR - type 5, all octets = <<>>: unknown_frame
        "#]],
    );
}

#[test]
fn short_method() {
    check(
        "
            1 channel.open
            raw 01 0001 00000003 003200 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000003 003200 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 1, all octets = <<0,50,0>>: unknown_frame", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 1, all octets = <<0,50,0>>: unknown_frame
        "#]],
    );
}

#[test]
fn short_header() {
    check(
        "
            1 channel.open
            1 begin-publish - q
            raw 02 0001 00000003 003c00 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 begin-publish - q
            raw 02 0001 00000003 003c00 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 2, all octets = <<0,60,0>>: unknown_frame", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 2, all octets = <<0,60,0>>: unknown_frame
        "#]],
    );
}

#[test]
fn too_large() {
    check(
        "
            1 channel.open
            raw 01 0001 00002001
            state
            0 close-ok
            wait 3
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00002001
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}
            0 close-ok
            wait 3
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn as_large_as_allowed() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 8192
            raw 03 0001 00002000
            repeat 4096 raw 4142
            raw ce
            1 get q no-ack
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 8192
            raw 03 0001 00002000
            repeat 4096 raw 4142
            raw ce
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 8192 "\x00\x00"
                1 body 8184 "ABABABABABABABABABABABABABABABABABABABAB"
                1 body 8 "ABABABAB"
        "#]],
    );
}

#[test]
fn too_large_before_tuning() {
    check_from_start(
        "
            header 091
            raw 01 0000 00002001
            wait 3
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            raw 01 0000 00002001
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}", class_id: 0, method_id: 0
            wait 3
            state
                Done, wants input: false, unused: 0
                failure: channel 0: FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}
        "#]],
    );
}

#[test]
fn broken_end_of_a_method() {
    check(
        "
            1 channel.open
            raw 01 0001 00000005 0014000a 00 cd
            state
            1 channel.open
            wait 3
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000005 0014000a 00 cd
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,205}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,205}
            1 channel.open
            wait 3
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn broken_end_of_a_body() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 3
            raw 03 0001 00000003 616263 00
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            raw 03 0001 00000003 616263 00
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 3, all octets = <<\"abc\">>: {invalid_frame_end_marker,0}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 3, all octets = <<"abc">>: {invalid_frame_end_marker,0}
        "#]],
    );
}

#[test]
fn broken_end_of_a_long_body() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 20
            raw 03 0001 00000014 3132333435363738393031323334353637383930 00
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 20
            raw 03 0001 00000014 3132333435363738393031323334353637383930 00
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 3, first 16 octets = <<\"1234567890123456\">>: {invalid_frame_end_marker,0}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 3, first 16 octets = <<"1234567890123456">>: {invalid_frame_end_marker,0}
        "#]],
    );
}

#[test]
fn broken_end_of_a_body_in_one_read() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q &
            1 content 3 &
            raw 03 0001 00000003 616263 00
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            raw 03 0001 00000003 616263 00
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 3, all octets = <<\"abc\">>: {invalid_frame_end_marker,0}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 3, all octets = <<"abc">>: {invalid_frame_end_marker,0}
        "#]],
    );
}

#[test]
fn broken_while_exclusive_queues_are_there() {
    check(
        "
            1 channel.open
            1 declare q exclusive
            raw 01 0001 00000000 00
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q exclusive
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            raw 01 0001 00000000 00
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 1, all octets = <<>>: {invalid_frame_end_marker,0}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 1, all octets = <<>>: {invalid_frame_end_marker,0}
        "#]],
    );
}

#[test]
fn nothing_but_noise() {
    check(
        "
            raw ffffffffffffffffffffff
            state
        ",
        expect![[r#"
            raw ffffffffffffffffffffff
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 255, all octets = <<>>: {frame_too_large,4294967295,8184}", class_id: 0, method_id: 0
            state
                Discarding, wants input: true, unused: 0
                failure: channel 65535: FRAME_ERROR - type 255, all octets = <<>>: {frame_too_large,4294967295,8184}
        "#]],
    );
}
