//! From the protocol header to `connection.open-ok`, in every dialect, and how it fails.

use expect_test::expect;

use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::FieldValue;

use crate::script;
use crate::stage::{Stage, check_from_start, drain, limits};

#[test]
fn handshake_in_091() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131072 30
            0 open /
            1 channel.open
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131072 30
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn handshake_in_09() {
    check_from_start(
        "
            header 09
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131072 30
            0 open /
            1 channel.open
            state
        ",
        expect![[r#"
            header 09
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131072 30
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn handshake_in_08() {
    check_from_start(
        "
            header 08
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131072 30
            0 open /
            1 channel.open
            state
        ",
        expect![[r#"
            header 08
                0 connection.start 8.0 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131072 30
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn handshake_in_08_amqplib() {
    check_from_start(
        "
            header 08-amqplib
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131072 30
            0 open /
            1 channel.open
            state
        ",
        expect![[r#"
            header 08-amqplib
                0 connection.start 8.0 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131072 30
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn amqplain() {
    check_from_start(
        "
            header 091
            0 start-ok AMQPLAIN guest guest
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok AMQPLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
        "#]],
    );
}

#[test]
fn anonymous_where_it_is_offered() {
    check_from_start(
        "
            anonymous
            header 091
            0 start-ok ANONYMOUS - -
        ",
        expect![[r#"
            anonymous
            header 091
                0 connection.start 0.9 ...
            0 start-ok ANONYMOUS - -
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
        "#]],
    );
}

#[test]
fn anonymous_where_it_is_not() {
    check_from_start(
        "
            header 091
            0 start-ok ANONYMOUS - -
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok ANONYMOUS - -
                0 connection.close reply_code: 503, reply_text: "COMMAND_INVALID - invalid authentication mechanism \'ANONYMOUS\'", class_id: 10, method_id: 11
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: COMMAND_INVALID - invalid authentication mechanism 'ANONYMOUS'
        "#]],
    );
}

#[test]
fn unknown_mechanism() {
    check_from_start(
        "
            header 091
            0 start-ok MAGIC a b
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok MAGIC a b
                0 connection.close reply_code: 503, reply_text: "COMMAND_INVALID - unknown authentication mechanism \'MAGIC\'", class_id: 10, method_id: 11
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: COMMAND_INVALID - unknown authentication mechanism 'MAGIC'
        "#]],
    );
}

#[test]
fn malformed_response() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN - -
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN - -
                0 connection.close reply_code: 502, reply_text: "SYNTAX_ERROR - response <<>> invalid", class_id: 10, method_id: 11
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: SYNTAX_ERROR - response <<>> invalid
        "#]],
    );
}

#[test]
fn wrong_password_with_capability() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest wrong authentication_failure_close
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest wrong authentication_failure_close
                0 connection.close reply_code: 403, reply_text: "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.", class_id: 0, method_id: 0
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.
        "#]],
    );
}

#[test]
fn wrong_password_without_capability() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest wrong
            0 tune-ok 100 131072 30
            state
            wait 3
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest wrong
            0 tune-ok 100 131072 30
            state
                Discarding, wants input: true, unused: 0
                failure: channel 0: ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.
            wait 3
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn unknown_vhost() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131072 30
            0 open elsewhere
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131072 30
            0 open elsewhere
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - vhost elsewhere not found", class_id: 10, method_id: 40
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - vhost elsewhere not found
        "#]],
    );
}

#[test]
fn tune_refused_1() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 0 131072 30
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 0 131072 30
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)", class_id: 10, method_id: 30
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)
        "#]],
    );
}

#[test]
fn tune_refused_2() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 2048 131072 30
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 2048 131072 30
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)", class_id: 10, method_id: 30
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)
        "#]],
    );
}

#[test]
fn tune_refused_3() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 0 30
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 0 30
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)", class_id: 10, method_id: 30
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)
        "#]],
    );
}

#[test]
fn tune_refused_4() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 131073 30
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 131073 30
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)", class_id: 10, method_id: 30
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)
        "#]],
    );
}

#[test]
fn tune_refused_5() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8191 30
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8191 30
                0 connection.close reply_code: 530, reply_text: "NOT_ALLOWED - negotiated frame_max = 8191 is lower than the minimum allowed value (8192)", class_id: 10, method_id: 30
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: NOT_ALLOWED - negotiated frame_max = 8191 is lower than the minimum allowed value (8192)
        "#]],
    );
}

#[test]
fn out_of_order_on_channel_0() {
    check_from_start(
        "
            header 091
            0 open /
            0 close-ok
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 open /
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - unexpected method in connection state starting", class_id: 10, method_id: 40
            0 close-ok
            state
                Done, wants input: false, unused: 0
                failure: channel 0: CHANNEL_ERROR - unexpected method in connection state starting
        "#]],
    );
}

#[test]
fn close_before_open() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 close
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 close
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - unexpected method in connection state tuning", class_id: 10, method_id: 50
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 0: CHANNEL_ERROR - unexpected method in connection state tuning
        "#]],
    );
}

#[test]
fn channel_before_open() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            1 channel.open
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 0
            1 channel.open
                0 connection.close reply_code: 505, reply_text: "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>", class_id: 0, method_id: 0
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>
        "#]],
    );
}

#[test]
fn other_protocols_are_told_which_one_is_served() {
    check_from_start(
        "
            header 10
            state
            1 channel.open
            wait 3
            state
        ",
        expect![[r#"
            header 10
                protocol header [0, 0, 9, 1]
            state
                Discarding, wants input: true, unused: 0
                falls silent
                failure: bad protocol header: <<65,77,81,80,0,1,0,0>>
            1 channel.open
            wait 3
            state
                Done, wants input: false, unused: 0
                falls silent
        "#]],
    );
}

#[test]
fn an_http_request() {
    check_from_start(
        "
            header http
            state
        ",
        expect![[r#"
            header http
                protocol header [0, 0, 9, 1]
            state
                Discarding, wants input: true, unused: 0
                falls silent
                failure: bad protocol header: an HTTP request
        "#]],
    );
}

#[test]
fn half_a_header() {
    check_from_start(
        "
            raw 414d5150
            state
            raw 00000901
        ",
        expect![[r#"
            raw 414d5150
            state
                Header, wants input: true, unused: 4
            raw 00000901
                0 connection.start 0.9 ...
        "#]],
    );
}

#[test]
fn client_that_says_nothing() {
    check_from_start(
        "
            wait 9.9
            state
            wait 0.2
            state
        ",
        expect![[r#"
            wait 9.9
            state
                Header, wants input: true, unused: 0
            wait 0.2
            state
                Done, wants input: false, unused: 0
                failure: handshake timeout
        "#]],
    );
}

#[test]
fn client_that_stops_half_way() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            wait 10
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            wait 10
            state
                Done, wants input: false, unused: 0
                failure: handshake timeout
        "#]],
    );
}

#[test]
fn the_handshake_is_not_timed_once_it_is_over() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            wait 100
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
            wait 100
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn without_limits_anything_may_be_chosen() {
    let limits = warren_amqp091::Limits { frame_max: 0, channel_max: 0, heartbeat_s: 0, ..limits() };
    let mut stage = Stage::with_limits(limits);
    stage.play(
        "
        header 091
        0 start-ok PLAIN guest guest
        0 tune-ok 0 0 0
        0 open /
        65535 channel.open
        ",
    );
    expect![[r#"
        header 091
            0 connection.start 0.9 ...
        0 start-ok PLAIN guest guest
            0 connection.tune channel_max: 0, frame_max: 0, heartbeat: 0
        0 tune-ok 0 0 0
        0 open /
            0 connection.open-ok known_hosts: ""
        65535 channel.open
            65535 channel.open-ok channel_id: ""
    "#]]
    .assert_eq(&stage.transcript());
}

/// What `connection.start` says, one property a line.
fn introduction(header: &str, dialect: Dialect) -> String {
    let mut stage = Stage::new();
    let header = script::encode(dialect, header);
    stage.machine.on_bytes(stage.now, &header, &mut stage.session);
    let output = drain(&mut stage.machine, stage.now);
    let payload = &output[frame::HEAD_LEN..output.len() - 1];
    let Ok(Method::ConnectionStart { server_properties, mechanisms, locales, .. }) =
        Method::decode(dialect, payload)
    else {
        panic!("{output:?}");
    };
    let mut text = format!("{} {}\n", mechanisms.escape_ascii(), locales.escape_ascii());
    for (name, value) in &server_properties.0 {
        match value {
            FieldValue::Table(table) => {
                table.0.iter().for_each(|(inner, value)| text += &format!("{name}.{inner} = {value:?}\n"));
            }
            value => text += &format!("{name} = {value:?}\n"),
        }
    }
    text
}

#[test]
fn introductions() {
    expect![[r#"
        PLAIN AMQPLAIN en_US
        capabilities.publisher_confirms = Bool(true)
        capabilities.exchange_exchange_bindings = Bool(true)
        capabilities.basic.nack = Bool(true)
        capabilities.consumer_cancel_notify = Bool(true)
        capabilities.connection.blocked = Bool(true)
        capabilities.consumer_priorities = Bool(true)
        capabilities.authentication_failure_close = Bool(true)
        capabilities.per_consumer_qos = Bool(true)
        capabilities.direct_reply_to = Bool(true)
        cluster_name = LongString([119, 97, 114, 114, 101, 110, 64, 116, 101, 115, 116])
        copyright = LongString([40, 99, 41])
        information = LongString([105, 110, 102, 111])
        platform = LongString([82, 117, 115, 116])
        product = LongString([87, 97, 114, 114, 101, 110])
        version = LongString([49, 46, 48])
    "#]]
    .assert_eq(&introduction("header 091", Dialect::Amqp091));
    expect![[r#"
        PLAIN AMQPLAIN en_US
        cluster_name = LongString([119, 97, 114, 114, 101, 110, 64, 116, 101, 115, 116])
        copyright = LongString([40, 99, 41])
        information = LongString([105, 110, 102, 111])
        platform = LongString([82, 117, 115, 116])
        product = LongString([87, 97, 114, 114, 101, 110])
        version = LongString([49, 46, 48])
    "#]]
    .assert_eq(&introduction("header 08", Dialect::Amqp08));
}
