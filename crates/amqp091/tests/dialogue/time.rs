//! Heartbeats and deadlines.

use expect_test::expect;

use crate::stage::check_from_start;

#[test]
fn idle_connection() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 10
            0 open /
            wait 4.9
            wait 0.2
            wait 5
            0 heartbeat
            wait 10
            0 heartbeat
            wait 19
            state
            wait 1
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 10
            0 open /
                0 connection.open-ok known_hosts: ""
            wait 4.9
            wait 0.2
                0 heartbeat
            wait 5
                0 heartbeat
            0 heartbeat
            wait 10
                0 heartbeat
                0 heartbeat
            0 heartbeat
            wait 19
                0 heartbeat
                0 heartbeat
                0 heartbeat
            state
                Running, wants input: true, unused: 0
            wait 1
                0 heartbeat
            state
                Done, wants input: false, unused: 0
                failure: missed heartbeats from client, timeout: 10s
        "#]],
    );
}

#[test]
fn heartbeats_while_open_is_due() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 2
            wait 3
            0 open /
            wait 1
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 2
            wait 3
                0 heartbeat
                0 heartbeat
                0 heartbeat
            0 open /
                0 connection.open-ok known_hosts: ""
            wait 1
                0 heartbeat
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn any_traffic_counts() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 10
            0 open /
            wait 15
            raw 08
            wait 15
            raw 0000
            wait 15
            raw 00000000ce
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 10
            0 open /
                0 connection.open-ok known_hosts: ""
            wait 15
                0 heartbeat
                0 heartbeat
                0 heartbeat
            raw 08
            wait 15
                0 heartbeat
                0 heartbeat
                0 heartbeat
            raw 0000
            wait 15
                0 heartbeat
                0 heartbeat
                0 heartbeat
            raw 00000000ce
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn no_heartbeats_where_they_are_refused() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            wait 10000
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
            wait 10000
            state
                Running, wants input: true, unused: 0
        "#]],
    );
}

#[test]
fn silence_does_not_matter_while_blocked() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 10
            0 open /
            1 channel.open
            1 declare q
            event blocked
            1 publish - q abc
            wait 12
            wait 100
            event unblocked
            wait 19
            state
            wait 1
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 10
            0 open /
                0 connection.open-ok known_hosts: ""
            1 channel.open
                1 channel.open-ok channel_id: ""
            1 declare q
                1 queue.declare-ok queue: "q", message_count: 0, consumer_count: 0
            event blocked
            1 publish - q abc
            wait 12
                0 heartbeat
                0 heartbeat
            wait 100
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
            event unblocked
            wait 19
                0 heartbeat
                0 heartbeat
                0 heartbeat
                0 heartbeat
            state
                Running, wants input: true, unused: 0
            wait 1
            state
                Done, wants input: false, unused: 0
                failure: missed heartbeats from client, timeout: 10s
        "#]],
    );
}

#[test]
fn patience_with_close_ok_is_one_interval() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 10
            0 open /
            1 begin-publish - q
            wait 9
            state
            wait 1
            state
        ",
        expect![[r#"
            header 091
                0 connection.start 0.9 ...
            0 start-ok PLAIN guest guest
                0 connection.tune channel_max: 2047, frame_max: 131072, heartbeat: 60
            0 tune-ok 100 8192 10
            0 open /
                0 connection.open-ok known_hosts: ""
            1 begin-publish - q
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - expected \'channel.open\'", class_id: 60, method_id: 40
            wait 9
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: CHANNEL_ERROR - expected 'channel.open'
            wait 1
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}

#[test]
fn patience_with_close_ok_without_heartbeats() {
    check_from_start(
        "
            header 091
            0 start-ok PLAIN guest guest
            0 tune-ok 100 8192 0
            0 open /
            1 begin-publish - q
            wait 29
            state
            wait 1
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
            1 begin-publish - q
                0 connection.close reply_code: 504, reply_text: "CHANNEL_ERROR - expected \'channel.open\'", class_id: 60, method_id: 40
            wait 29
            state
                AwaitCloseOk, wants input: true, unused: 0
                failure: channel 1: CHANNEL_ERROR - expected 'channel.open'
            wait 1
            state
                Done, wants input: false, unused: 0
        "#]],
    );
}
