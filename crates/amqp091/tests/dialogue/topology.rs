//! Exchanges, queues and bindings, as far as the dialogue is concerned.

use expect_test::expect;

use crate::stage::check;

#[test]
fn exchanges() {
    check(
        "
            1 channel.open
            1 exchange e fanout
            1 exchange e fanout passive
            1 exchange f topic nowait
            1 exchange.bind f e -
            1 exchange.unbind f e -
            1 exchange.delete e
            1 exchange.delete f nowait
            1 exchange.delete e
            1 exchange e fanout passive
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 exchange e fanout
                1 exchange.declare-ok
            1 exchange e fanout passive
                1 exchange.declare-ok
            1 exchange f topic nowait
            1 exchange.bind f e -
                1 exchange.bind-ok
            1 exchange.unbind f e -
                1 exchange.unbind-ok
            1 exchange.delete e
                1 exchange.delete-ok
            1 exchange.delete f nowait
            1 exchange.delete e
                1 exchange.delete-ok
            1 exchange e fanout passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no exchange \'e\' in vhost \'/\'", class_id: 40, method_id: 10
        "#]],
    );
}

#[test]
fn the_queue_declared_last() {
    check(
        "
            1 channel.open
            1 get -
            1 channel.close-ok
            1 channel.open
            1 declare -
            1 publish - amq.gen-0000000000000000000001 a
            1 bind - amq.direct -
            1 publish amq.direct amq.gen-0000000000000000000001 b
            1 purge -
            1 unbind - amq.direct -
            1 publish amq.direct amq.gen-0000000000000000000001 c
            1 consume - t
            1 delete -
            1 declare q nowait
            1 delete - nowait
            1 get -
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 get -
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no previously declared queue", class_id: 60, method_id: 70
            1 channel.close-ok
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare -
                1 queue.declare-ok queue: "amq.gen-0000000000000000000001", message_count: 0, consumer_count: 0
            1 publish - amq.gen-0000000000000000000001 a
            1 bind - amq.direct -
                1 queue.bind-ok
            1 publish amq.direct amq.gen-0000000000000000000001 b
            1 purge -
                1 queue.purge-ok message_count: 2
            1 unbind - amq.direct -
                1 queue.unbind-ok
            1 publish amq.direct amq.gen-0000000000000000000001 c
            1 consume - t
                1 basic.consume-ok consumer_tag: "t"
            1 delete -
                1 basic.cancel consumer_tag: "t", nowait: true
                1 queue.delete-ok message_count: 0
            1 declare q nowait
            1 delete - nowait
            1 get -
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'q\' in vhost \'/\'", class_id: 60, method_id: 70
        "#]],
    );
}

#[test]
fn a_passive_declaration_does_not_mean_the_queue_declared_last() {
    check(
        "
            1 channel.open
            1 declare q
            1 declare - passive
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 declare - passive
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'\' in vhost \'/\'", class_id: 50, method_id: 10
        "#]],
    );
}

#[test]
fn delete_of_nothing() {
    check(
        "
            1 channel.open
            1 delete nothing
            1 delete nothing nowait
            1 purge nothing
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 delete nothing
                1 queue.delete-ok message_count: 0
            1 delete nothing nowait
            1 purge nothing
                1 channel.close reply_code: 404, reply_text: "NOT_FOUND - no queue \'nothing\' in vhost \'/\'", class_id: 50, method_id: 30
        "#]],
    );
}

#[test]
fn names_without_line_ends() {
    check(
        "
            1 channel.open
            raw 01 0001 00000010 0032000a 0000 04 0d710a72 00 00000000 ce
            1 declare qr passive
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            raw 01 0001 00000010 0032000a 0000 04 0d710a72 00 00000000 ce
                1 queue.declare-ok queue: "qr", message_count: 0, consumer_count: 0
            1 declare qr passive
                1 queue.declare-ok queue: "qr", message_count: 0, consumer_count: 0
        "#]],
    );
}

#[test]
fn secret() {
    check(
        "
            0 update-secret new
            state
        ",
        expect![[r#"
            0 update-secret new
                0 connection.update-secret-ok
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn m21_an_updated_secret_ends_consumers_that_may_not_read_any_more() {
    check(
        "
            1 channel.open
            1 declare forbidden
            1 declare q
            1 consume forbidden a
            1 consume q b
            0 update-secret new
            1 cancel a
            1 publish - forbidden kept
            1 publish - q taken
            counts forbidden
        ",
        expect![[r#"
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare forbidden
                1 queue.declare-ok queue: "forbidden", message_count: 0, consumer_count: 0
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            1 consume forbidden a
                1 basic.consume-ok consumer_tag: "a"
            1 consume q b
                1 basic.consume-ok consumer_tag: "b"
            0 update-secret new
                0 connection.update-secret-ok
                1 basic.cancel consumer_tag: "a", nowait: true
            1 cancel a
                1 basic.cancel-ok consumer_tag: "a"
            1 publish - forbidden kept
            1 publish - q taken
                1 basic.deliver consumer_tag: "b", delivery_tag: 1, redelivered: false, exchange: "", routing_key: "q"
                1 content 5 "\x00\x00"
                1 body 5 "taken"
            counts forbidden
                Some((1, 0)) ready and unacked
        "#]],
    );
}
