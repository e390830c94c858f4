//! Where the stream is cut into reads makes no difference.

use warren_amqp091_codec::Dialect;

use crate::script;
use crate::stage::{OPEN, Stage, describe, drain};

const SESSION: &str = "
    1 channel.open
    1 declare q
    1 confirm
    2 channel.open
    2 qos 2 global
    2 consume q t
    1 begin-publish - q
    1 content 10
    0 heartbeat
    1 body 01234
    2 publish - q between
    1 body 56789
    1 publish - q whole mode=2 t:n=1
    1 publish - nowhere returned mandatory
    1 publish - q empty
    1 begin-publish - q
    1 content 0
    1 declare q passive
    2 ack 1
    2 ack 0 multiple
    1 publish-zeros - q 5000
    1 get q
    2 declare nothing passive
    2 begin-publish - q
    2 content 3
    2 body abc
    2 channel.close-ok
    2 channel.open
    2 get q
";

/// How a session may end.
const ENDS: &[&str] = &[
    "0 close\n0 heartbeat",
    "1 begin-publish - q\n1 content 3\n1 body abcd\n1 declare q\n0 close-ok",
    "1 begin-publish - q\n1 content 3\nraw 03 0001 00000003 616263 00\n0 close-ok",
    "1 begin-publish - q\n1 get q\n0 close-ok",
    "raw 01 0001 00002001 0000\n0 close-ok",
    "raw 01 0001 00000003 003200 ce\n0 close-ok",
    "1 publish nowhere q abc\n1 publish - q abc\n1 channel.close-ok\n0 close",
];

fn bytes(script: &str) -> Vec<u8> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.flat_map(|line| script::encode(Dialect::Amqp091, line)).collect()
}

/// Gives the machine these reads and returns what it writes. Events are given only when input rests, and confirms
/// are sent only at the end, so that nothing but the cuts differs from one time to the next.
fn play<'a>(reads: impl Iterator<Item = &'a [u8]>) -> (String, String) {
    let mut stage = Stage::new();
    let mut rest = Vec::new();
    for read in reads {
        rest.extend_from_slice(read);
        loop {
            let used = stage.machine.on_bytes(stage.now, &rest, &mut stage.session);
            rest.drain(..used);
            if stage.machine.wants_input() {
                break;
            }
            let Some(event) = stage.session.next_event() else { break };
            stage.machine.on_event(stage.now, event, &mut stage.session);
        }
    }
    while let Some(event) = stage.session.next_event() {
        stage.machine.on_event(stage.now, event, &mut stage.session);
    }
    stage.machine.flush();
    let (text, broken) = describe(Dialect::Amqp091, &drain(&mut stage.machine, stage.now));
    assert!(broken.is_empty());
    let state = format!("{:?} {:?} {rest:?}", stage.machine.phase(), stage.machine.take_failure());
    (text, state)
}

#[test]
fn every_cut_in_two_leads_to_the_same() {
    for end in ENDS {
        let stream = bytes(&[OPEN, SESSION, end].join("\n"));
        let whole = play([&stream[..]].into_iter());
        // What comes before the end need be cut but once.
        let first_cut = if *end == ENDS[0] { 1 } else { stream.len() - bytes(end).len() };
        for cut in first_cut..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(play([a, b].into_iter()), whole, "cut at {cut} of {end:?}");
        }
    }
}

#[test]
fn reads_of_every_length_lead_to_the_same() {
    for end in ENDS {
        let stream = bytes(&[OPEN, SESSION, end].join("\n"));
        let whole = play([&stream[..]].into_iter());
        for len in (1..40).chain([100, 1000, 4096]) {
            assert_eq!(play(stream.chunks(len)), whole, "reads of {len} with {end:?}");
        }
    }
}

#[test]
fn the_session_gets_somewhere() {
    let stream = bytes(&[OPEN, SESSION, ENDS[0]].join("\n"));
    let (text, state) = play([&stream[..]].into_iter());
    assert_eq!(text.matches("basic.deliver").count(), 4, "{text}");
    assert!(text.contains("basic.get-ok") && text.ends_with("0 connection.close-ok\n"), "{text}");
    assert_eq!(&state[..9], "Done None");
}
