//! Publishes in order and out of order (F4).

use expect_test::expect;

use crate::stage::check;

#[test]
fn bodies_in_one_piece_in_several_and_empty() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q hello
            1 begin-publish - q
            1 content 6
            1 body abc
            1 body -
            1 body def
            1 begin-publish - q
            1 content 0
            1 get q no-ack
            1 get q no-ack
            1 get q no-ack
            1 get q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q hello
            1 begin-publish - q
            1 content 6
            1 body abc
            1 body -
            1 body def
            1 begin-publish - q
            1 content 0
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 2
                1 content 5 "\x00\x00"
                1 body 5 "hello"
            1 get q no-ack
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 6 "\x00\x00"
                1 body 6 "abcdef"
            1 get q no-ack
                1 basic.get-ok delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 0 "\x00\x00"
            1 get q
                1 basic.get-empty cluster_id: ""
        "#]],
    );
}

#[test]
fn interleaved_with_other_channels() {
    check(
        "
            1 channel.open
            1 declare q
            2 channel.open
            1 begin-publish - q &
            2 begin-publish - q &
            1 content 3 &
            2 content 3 &
            2 body two &
            0 heartbeat &
            1 body one
            1 get q no-ack
            1 get q no-ack
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            2 channel.open
                2 channel.open-ok channel_id: ""
            1 begin-publish - q
            2 begin-publish - q
            1 content 3
            2 content 3
            2 body two
            0 heartbeat
            1 body one
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 1
                1 content 3 "\x00\x00"
                1 body 3 "two"
            1 get q no-ack
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 "\x00\x00"
                1 body 3 "one"
        "#]],
    );
}

#[test]
fn properties_are_passed_on() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q x mode=2 correlation-id=c reply-to=r t:n=1 t:s=text
            1 get q no-ack
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q x mode=2 correlation-id=c reply-to=r t:n=1 t:s=text
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 1 "6\x00\x00\x00\x00\x12\x01nI\x00\x00\x00\x01\x01sS\x00\x00\x00\x04text\x02\x01c\x01r"
                1 body 1 "x"
        "#]],
    );
}

#[test]
fn large_bodies_are_split() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish-zeros - q 8193
            1 publish-zeros - q 8184
            1 begin-publish - q
            1 content 20000
            1 body abcdefghij
            state
            1 channel.close
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish-zeros - q 8193
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,8193,8184}", class_id: 0, method_id: 0
            1 publish-zeros - q 8184
            1 begin-publish - q
            1 content 20000
            1 body abcdefghij
            state
                Discarding, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,8193,8184}
            1 channel.close
            state
                Discarding, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn method_instead_of_header() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 get q
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 get q
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead", class_id: 60, method_id: 40
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead
        "#]],
    );
}

#[test]
fn method_instead_of_body() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 3
            1 get q
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            1 get q
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content body, got non content body frame instead", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content body, got non content body frame instead
        "#]],
    );
}

#[test]
fn header_instead_of_method() {
    check(
        "
            1 channel.open
            1 declare q
            1 content 3
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 content 3
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected method frame, got non method frame instead", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected method frame, got non method frame instead
        "#]],
    );
}

#[test]
fn header_instead_of_body() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 3
            1 content 3
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            1 content 3
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content body, got non content body frame instead", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content body, got non content body frame instead
        "#]],
    );
}

#[test]
fn body_instead_of_method() {
    check(
        "
            1 channel.open
            1 declare q
            1 body abc
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 body abc
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected method frame, got non method frame instead", class_id: 0, method_id: 0
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected method frame, got non method frame instead
        "#]],
    );
}

#[test]
fn body_instead_of_header() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 body abc
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 body abc
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead", class_id: 60, method_id: 40
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead
        "#]],
    );
}

#[test]
fn body_behind_the_end() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q abc
            1 body d
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q abc
            1 body d
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected method frame, got non method frame instead", class_id: 0, method_id: 0
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected method frame, got non method frame instead
        "#]],
    );
}

#[test]
fn body_too_long() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 3
            1 body abcd
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            1 body abcd
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - content body frame exceeds remaining content size", class_id: 60, method_id: 40
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 1: FRAME_ERROR - content body frame exceeds remaining content size
        "#]],
    );
}

#[test]
fn body_too_long_in_one_read() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q &
            1 content 3 &
            1 body abcd &
            0 close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 3
            1 body abcd
            0 close-ok
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - content body frame exceeds remaining content size", class_id: 60, method_id: 40
            state
                Done, wants input: false, unused: 0
                failure: channel 1: FRAME_ERROR - content body frame exceeds remaining content size
        "#]],
    );
}

#[test]
fn content_of_another_class() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            raw 02 0001 0000000e 0032 0000 0000000000000001 0000 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            raw 02 0001 0000000e 0032 0000 0000000000000001 0000 ce
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead
        "#]],
    );
}

#[test]
fn content_with_a_weight() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            raw 02 0001 0000000e 003c 0001 0000000000000001 0000 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            raw 02 0001 0000000e 003c 0001 0000000000000001 0000 ce
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead
        "#]],
    );
}

#[test]
fn content_of_more_than_anyone_may() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 536870913
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 536870913
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912
        "#]],
    );
}

#[test]
fn content_of_more_than_configured() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            1 content 100001
            1 body abc
            1 channel.close-ok
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            1 content 100001
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - message size 100001 is larger than configured max size 100000", class_id: 60, method_id: 40
            1 body abc
            1 channel.close-ok
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn properties_that_cannot_be_decoded() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish - q
            raw 02 0001 0000000e 003c 0000 0000000000000000 8000 ce
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish - q
            raw 02 0001 0000000e 003c 0000 0000000000000000 8000 ce
                0 connection.close reply_code: 501, reply_text: "FRAME_ERROR - cannot decode content header: properties end early", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: FRAME_ERROR - cannot decode content header: properties end early
        "#]],
    );
}

#[test]
fn content_on_channel_0() {
    check(
        "
            1 channel.open
            1 declare q
            0 content 3
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            0 content 3
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,3,0,0>>", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,3,0,0>>
        "#]],
    );
}

#[test]
fn body_on_channel_0() {
    check(
        "
            1 channel.open
            1 declare q
            0 body abc
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            0 body abc
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - type 3, all octets = <<\"abc\">>", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: UNEXPECTED_FRAME - type 3, all octets = <<"abc">>
        "#]],
    );
}

#[test]
fn content_without_a_channel() {
    check(
        "
            5 content 3
            state
        ",
        expect![[r#"
            5 content 3
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - expected method frame, got non method frame instead", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 5: UNEXPECTED_FRAME - expected method frame, got non method frame instead
        "#]],
    );
}

#[test]
fn no_such_exchange() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish nowhere q abc
            1 channel.close-ok
            1 channel.open
            1 publish - q def
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish nowhere q abc
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no exchange \'nowhere\' in vhost \'/\'", class_id: 60, method_id: 40
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 publish - q def
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn no_such_exchange_in_pieces() {
    check(
        "
            1 channel.open
            1 declare q
            1 begin-publish nowhere q
            1 content 3
            1 body abc
            1 channel.close-ok
            1 channel.open
            1 publish - q def
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 begin-publish nowhere q
            1 content 3
            1 body abc
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no exchange \'nowhere\' in vhost \'/\'", class_id: 60, method_id: 40
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 publish - q def
        "#]],
    );
}

#[test]
fn immediate_is_for_0_8_only() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q abc immediate
            state
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q abc immediate
                0 connection.close reply_code: 540, reply_text: "NOT_IMPLEMENTED - immediate=true", class_id: 60, method_id: 40
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: NOT_IMPLEMENTED - immediate=true
        "#]],
    );
}

#[test]
fn mandatory() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - nowhere abc mandatory
            1 publish - q abc mandatory
            1 publish - nowhere abc
            counts q
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - nowhere abc mandatory
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "", routing_key: "nowhere"
                1 content 3 "\x00\x00"
                1 body 3 "abc"
            1 publish - q abc mandatory
            1 publish - nowhere abc
            counts q
                Some((1, 0)) ready and unacked
        "#]],
    );
}

#[test]
fn copies_by_headers() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare r
            1 declare s
            1 publish - q abc t:CC=[r] t:BCC=[s] t:other=1
            1 get q no-ack
            1 get r no-ack
            1 get s no-ack
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare r
                1 queue.declare-ok queue: "r", message_count: 0, consumer_count: 0
            1 declare s
                1 queue.declare-ok queue: "s", message_count: 0, consumer_count: 0
            1 publish - q abc t:CC=[r] t:BCC=[s] t:other=1
            1 get q no-ack
                1 basic.get-ok delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 " \x00\x00\x00\x00\x19\x02CCA\x00\x00\x00\x06S\x00\x00\x00\x01r\x05otherI\x00\x00\x00\x01"
                1 body 3 "abc"
            1 get r no-ack
                1 basic.get-ok delivery_tag: 2, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 " \x00\x00\x00\x00\x19\x02CCA\x00\x00\x00\x06S\x00\x00\x00\x01r\x05otherI\x00\x00\x00\x01"
                1 body 3 "abc"
            1 get s no-ack
                1 basic.get-ok delivery_tag: 3, redelivered: false, exchange: "", routing_key: "q", message_count: 0
                1 content 3 " \x00\x00\x00\x00\x19\x02CCA\x00\x00\x00\x06S\x00\x00\x00\x01r\x05otherI\x00\x00\x00\x01"
                1 body 3 "abc"
        "#]],
    );
}

#[test]
fn copies_to_something_else_than_a_list() {
    check(
        "
            1 channel.open
            1 declare q
            1 publish - q abc t:CC=r
            1 channel.close-ok
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 publish - q abc t:CC=r
                1 channel.close reply_code: 406, reply_text: "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}", class_id: 60, method_id: 40
            1 channel.close-ok
        "#]],
    );
}

#[test]
fn the_same_again_goes_where_it_goes_now() {
    check(
        "
            1 channel.open
            1 declare q
            1 bind q amq.direct k
            1 publish amq.direct k one mandatory
            1 publish amq.direct k two mandatory
            1 unbind q amq.direct k
            1 publish amq.direct k three mandatory
            1 bind q amq.direct k
            1 publish amq.direct k four mandatory
            1 delete q
            1 publish amq.direct k five mandatory
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 bind q amq.direct k
                1 queue.bind-ok
            1 publish amq.direct k one mandatory
            1 publish amq.direct k two mandatory
            1 unbind q amq.direct k
                1 queue.unbind-ok
            1 publish amq.direct k three mandatory
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "amq.direct", routing_key: "k"
                1 content 5 "\x00\x00"
                1 body 5 "three"
            1 bind q amq.direct k
                1 queue.bind-ok
            1 publish amq.direct k four mandatory
            1 delete q
                1 queue.delete-ok message_count: 3
            1 publish amq.direct k five mandatory
                1 basic.return reply_code: 312, reply_text: "NO_ROUTE", exchange: "amq.direct", routing_key: "k"
                1 content 4 "\x00\x00"
                1 body 4 "five"
        "#]],
    );
}
