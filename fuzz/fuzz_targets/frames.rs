//! Methods, content headers and properties: what decodes is encoded to something that decodes to the same.
//!
//! The first byte chooses the dialect and what the rest is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp091_codec::frame::{self, FrameHead};
use warren_amqp091_codec::{ContentHeader, Dialect, Method, OwnedProperties, Properties};
use warren_types::FieldTable;

fuzz_target!(|data: &[u8]| {
    let Some((choice, payload)) = data.split_first() else { return };
    let dialect = match choice % 3 {
        0 => Dialect::Amqp091,
        1 => Dialect::Amqp09,
        _ => Dialect::Amqp08,
    };
    match (choice / 3) % 3 {
        0 => method(dialect, payload),
        1 => content_header(dialect, payload),
        _ => properties(dialect, payload),
    }
});

fn method(dialect: Dialect, payload: &[u8]) {
    let method = match Method::decode(dialect, payload) {
        Ok(method) => method,
        Err(error) => {
            let (class, id) = error.id();
            assert_eq!(error.name(), Method::name_of(dialect, class, id).filter(|_| error.name().is_some()));
            return;
        }
    };
    let ids = [payload[0], payload[1], payload[2], payload[3]];
    let (class, id) = method.id(dialect);
    assert_eq!([class.to_be_bytes(), id.to_be_bytes()].concat(), ids);
    assert_eq!(Method::name_of(dialect, class, id), Some(method.name()));

    let mut once = Vec::new();
    method.encode(dialect, &mut once);
    assert!(once.starts_with(&ids));
    let mut twice = Vec::new();
    Method::decode(dialect, &once).expect("what was encoded").encode(dialect, &mut twice);
    assert_eq!(once, twice);

    let mut framed = Vec::new();
    frame::put_method(&mut framed, dialect, 7, &method);
    let head = FrameHead::parse(framed.first_chunk().expect("a head"));
    assert_eq!((head.kind, head.channel, head.size as usize), (frame::METHOD, 7, once.len()));
    assert_eq!(framed[frame::HEAD_LEN..framed.len() - 1], once);
    assert_eq!(framed.last(), Some(&frame::END));
}

fn content_header(dialect: Dialect, payload: &[u8]) {
    let Ok(header) = ContentHeader::parse(payload) else {
        assert!(payload.len() < ContentHeader::FIXED_LEN);
        return;
    };
    if header.class_id == 60 && header.weight == 0 && header.properties.len() >= 2 {
        let mut framed = Vec::new();
        frame::put_content_header(&mut framed, 7, header.body_size, header.properties);
        assert_eq!(framed[frame::HEAD_LEN..framed.len() - 1], *payload);
    }
    properties(dialect, header.properties);
}

fn properties(dialect: Dialect, raw: &[u8]) {
    let Ok(properties) = Properties::parse(raw) else { return };
    assert_eq!(properties.raw(), raw);
    let owned = properties.to_owned();
    for name in [&b"CC"[..], b"BCC", b"x-death"] {
        let found =
            owned.headers.as_ref().is_some_and(|headers| headers.0.iter().any(|(key, _)| *key == *name));
        assert_eq!(properties.has_header(name), found);
    }
    let once = encoded(&owned, dialect);
    let again = Properties::parse(&once).expect("what was encoded");
    assert_eq!(but_headers(&again), but_headers(&properties));
    assert_eq!(encoded(&again.to_owned(), dialect), once);
}

fn encoded(owned: &OwnedProperties, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    owned.encode(dialect, &mut out);
    out
}

/// Everything but the headers, which 0-8 cannot always keep; of them only whether there are any.
fn but_headers(properties: &Properties<'_>) -> OwnedProperties {
    let headers = properties.headers().map(|_| FieldTable::new());
    OwnedProperties { headers, ..properties.to_owned() }
}
