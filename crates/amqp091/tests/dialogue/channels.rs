//! Channels are opened, fail, are closed, and their numbers are used again.

use expect_test::expect;

use crate::stage::{check, check_from_start};

#[test]
fn open_and_close() {
    check(
        "
            1 channel.open
            1 channel.close
            1 channel.open
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 channel.close
                1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
        "#]],
    );
}

#[test]
fn no_channel() {
    check(
        "
            7 declare q
            0 close-ok
            state
        ",
        expect![[r#"
            7 declare q
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - expected \'channel.open\'", class_id: 50, method_id: 10
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 7: CHANNEL_ERROR - expected 'channel.open'
        "#]],
    );
}

#[test]
fn opened_twice() {
    check(
        "
            1 channel.open
            1 channel.open
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 channel.open
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - second \'channel.open\' seen", class_id: 20, method_id: 10
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: CHANNEL_ERROR - second 'channel.open' seen
        "#]],
    );
}

#[test]
fn one_too_many() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 2 8192 0
            0 open /
            1 channel.open
            9 channel.open
            2 channel.open
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 2 8192 0
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            9 channel.open
                9 channel.open-ok channel_id: ""
            2 channel.open
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)", class_id: 0, method_id: 0
        "#]],
    );
}

#[test]
fn a_failed_channel_ignores_all_but_close_ok() {
    check(
        "
            1 channel.open
            2 channel.open
            1 declare nothing passive
            1 declare q
            1 begin-publish - q
            1 content 3
            1 body abc
            1 get q
            2 declare q passive
            1 channel.close-ok
            1 channel.open
            1 declare q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            2 channel.open
                2 channel.open-ok channel_id: ""
            1 declare nothing passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'nothing\' in vhost \'/\'", class_id: 50, method_id: 10
            1 declare q
            1 begin-publish - q
            1 content 3
            1 body abc
            1 get q
            2 declare q passive
                2 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'q\' in vhost \'/\'", class_id: 50, method_id: 10
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
        "#]],
    );
}

#[test]
fn a_failed_channel_that_the_client_closes_too() {
    check(
        "
            1 channel.open
            1 declare nothing passive
            1 channel.close
            1 channel.close-ok
            1 channel.open
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare nothing passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'nothing\' in vhost \'/\'", class_id: 50, method_id: 10
            1 channel.close
                1 channel.close-ok
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
        "#]],
    );
}

#[test]
fn a_failed_channel_counts_until_it_is_answered() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 1 8192 0
            0 open /
            1 channel.open
            1 declare nothing passive
            2 channel.open
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 1 8192 0
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare nothing passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'nothing\' in vhost \'/\'", class_id: 50, method_id: 10
            2 channel.open
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (1)", class_id: 0, method_id: 0
        "#]],
    );
}

#[test]
fn undecodable_method_on_a_failed_channel() {
    check(
        "
            1 channel.open
            1 declare nothing passive
            raw 01 0001 00000005 0032000a 00 ce
            1 channel.close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare nothing passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'nothing\' in vhost \'/\'", class_id: 50, method_id: 10
            raw 01 0001 00000005 0032000a 00 ce
            1 channel.close-ok
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn close_while_content_is_due() {
    check(
        "
            1 channel.open
            1 begin-publish - q
            1 channel.close
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 begin-publish - q
            1 channel.close
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead
        "#]],
    );
}

#[test]
fn close_ok_out_of_the_blue() {
    check(
        "
            1 channel.open
            1 channel.close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 channel.close-ok
                0 connection.close reply_code: 503, reply_text: "COMMAND_INVALID - unimplemented method", class_id: 20, method_id: 41
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: COMMAND_INVALID - unimplemented method
        "#]],
    );
}

#[test]
fn unknown_method() {
    check(
        "
            1 channel.open
            raw 01 0001 00000004 003c00ff ce
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000004 003c00ff ce
                0 connection.close reply_code: 503, reply_text: "COMMAND_INVALID - unimplemented method", class_id: 60, method_id: 255
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: COMMAND_INVALID - unimplemented method
        "#]],
    );
}

#[test]
fn method_with_too_few_arguments() {
    check(
        "
            1 channel.open
            raw 01 0001 00000005 0032000a 00 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000005 0032000a 00 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - cannot decode <<0>>", class_id: 50, method_id: 10
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - cannot decode <<0>>
        "#]],
    );
}

#[test]
fn method_with_too_many_arguments() {
    check(
        "
            1 channel.open
            raw 01 0001 00000006 0014000b 00 00 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000006 0014000b 00 00 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - cannot decode <<0,0>>", class_id: 20, method_id: 11
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - cannot decode <<0,0>>
        "#]],
    );
}

#[test]
fn method_of_the_server() {
    check(
        "
            1 channel.open
            raw 01 0001 00000004 0032000b ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000004 0032000b ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - cannot decode <<>>", class_id: 50, method_id: 11
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - cannot decode <<>>
        "#]],
    );
}

#[test]
fn flow_and_access() {
    check(
        "
            1 channel.open
            1 flow active
            1 access /data
            1 flow
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 flow active
                1 channel.flow-ok active: true
            1 access /data
                1 access.request-ok ticket: 1
            1 flow
                0 connection.close reply_code: 540, reply_text: "NOT_IMPLEMENTED - active=false", class_id: 20, method_id: 20
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: NOT_IMPLEMENTED - active=false
        "#]],
    );
}

#[test]
fn deliveries_of_an_earlier_channel_do_not_reach_a_later_one() {
    check(
        "
            1 channel.open
            1 declare q
            1 consume q t
            1 channel.close &
            1 channel.open &
            1 publish - q lost
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume q t
                1 basic.consume-ok consumer_tag: "t"
            1 channel.close
            1 channel.open
            1 publish - q lost
                1 channel.close-ok
                1 channel.open-ok channel_id: ""
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}
