//! Bytes that are not what they should be, and how each is refused.

use warren_amqp091_codec::{
    ContentHeader, DecodeError, Dialect, HeaderTooShort, Method, Properties, PropertiesError, TableError,
    table,
};

use crate::hex;
use Dialect::{Amqp08, Amqp09, Amqp091};

#[test]
fn methods() {
    let truncated = |class, method, name| DecodeError::Truncated { class, method, name };
    let trailing = |class, method, name, len| DecodeError::Trailing { class, method, name, len };
    let bad_table = |error| DecodeError::Table { class: 50, method: 10, name: "queue.declare", error };
    let cases = [
        (Amqp091, "", DecodeError::NoId { len: 0 }),
        (Amqp091, "003c00", DecodeError::NoId { len: 3 }),
        // Arguments that end within a number, a string, its length, the bits.
        (Amqp091, "003c0050 00000000000000", truncated(60, 80, "basic.ack")),
        (Amqp091, "003c0050 0000000000000001", truncated(60, 80, "basic.ack")),
        (Amqp091, "003c0028 0000 05 61626364", truncated(60, 40, "basic.publish")),
        (Amqp091, "003c0028 0000 ff", truncated(60, 40, "basic.publish")),
        (Amqp091, "000a0015 000000", truncated(10, 21, "connection.secure-ok")),
        (Amqp091, "000a0015 ffffffff 00", truncated(10, 21, "connection.secure-ok")),
        // A table whose length reaches beyond the frame, and bad ones within it.
        (Amqp091, "0032000a 0000 00 00 00000001", truncated(50, 10, "queue.declare")),
        (Amqp091, "0032000a 0000 00 00 ffffffff", truncated(50, 10, "queue.declare")),
        (Amqp091, "0032000a 0000 00 00 00000001 05", bad_table(TableError::Truncated)),
        (Amqp091, "0032000a 0000 00 00 00000003 016e 7a", bad_table(TableError::UnknownTag { tag: b'z' })),
        (Amqp091, "003c0050 0000000000000001 00 00", trailing(60, 80, "basic.ack", 1)),
        (Amqp091, "005a000a 0000", trailing(90, 10, "tx.select", 2)),
        // What one dialect has is too much or too little in another.
        (Amqp08, "0014000b 00000000", trailing(20, 11, "channel.open-ok", 4)),
        (Amqp091, "0014000b", truncated(20, 11, "channel.open-ok")),
        (Amqp08, "003c0014 0000 00 00 00 00000000", trailing(60, 20, "basic.consume", 4)),
    ];
    for (dialect, payload, error) in cases {
        assert_eq!(Method::decode(dialect, &hex(payload)), Err(error), "{dialect:?} {payload}");
    }
}

#[test]
fn unknown_methods() {
    let cases: [(&[Dialect], &str); 12] = [
        (&[Amqp08, Amqp09, Amqp091], "0000 0000"),
        (&[Amqp08, Amqp09, Amqp091], "003c 0029"),
        (&[Amqp08, Amqp09, Amqp091], "ffff ffff ffffffff"),
        // file, stream, dtx, tunnel, test
        (&[Amqp08, Amqp09, Amqp091], "0046 000a 00000000 0000 00"),
        (&[Amqp08, Amqp09, Amqp091], "0050 000a"),
        (&[Amqp08, Amqp09, Amqp091], "0064 000a"),
        (&[Amqp08, Amqp09, Amqp091], "006e 000a"),
        (&[Amqp08, Amqp09, Amqp091], "0078 000a"),
        // basic.nack, exchange.bind, connection.update-secret
        (&[Amqp08], "003c 0078 0000000000000001 00"),
        (&[Amqp08], "0028 001e 0000 00 00 00 00 00000000"),
        (&[Amqp08], "000a 0046 00000000 00"),
        // channel.alert
        (&[Amqp09, Amqp091], "0014 001e 0000 00 00000000"),
    ];
    for (dialects, payload) in cases {
        let bytes = hex(payload);
        let class = u16::from_be_bytes([bytes[0], bytes[1]]);
        let method = u16::from_be_bytes([bytes[2], bytes[3]]);
        for &dialect in dialects {
            let error = DecodeError::UnknownMethod { class, method };
            assert_eq!(Method::decode(dialect, &bytes), Err(error), "{dialect:?} {payload}");
            assert_eq!((error.id(), error.name()), ((class, method), None));
        }
    }
}

#[test]
fn confirms_are_unknown_in_08() {
    for payload in ["0055000a 00", "0055000b"] {
        assert!(matches!(Method::decode(Amqp08, &hex(payload)), Err(DecodeError::UnknownMethod { .. })));
        assert!(Method::decode(Amqp09, &hex(payload)).is_ok());
    }
}

#[test]
fn errors_name_their_method() {
    let error = Method::decode(Amqp091, &hex("0032000a 0000 00 00 00000003 016e 7a")).unwrap_err();
    assert_eq!((error.id(), error.name()), ((50, 10), Some("queue.declare")));
    assert_eq!(error.to_string(), "in an argument of queue.declare: unknown field type 0x7a");
}

#[test]
fn tables() {
    let cases = [
        ("01", TableError::Truncated),
        ("016e", TableError::Truncated),
        ("016e 74", TableError::Truncated),
        ("016e 73 00", TableError::Truncated),
        ("016e 49 000000", TableError::Truncated),
        ("016e 44 00 000000", TableError::Truncated),
        ("016e 6c 00000000000000", TableError::Truncated),
        ("016e 53 00000002 61", TableError::Truncated),
        ("016e 78 ffffffff 61", TableError::Truncated),
        // A nested value may not reach beyond what it is in.
        ("016e 46 00000003 016b 74 01", TableError::Truncated),
        ("016e 41 00000001 74 01", TableError::Truncated),
        ("016e 46 00000002 0174", TableError::Truncated),
        ("016e 41 00000002 4101", TableError::Truncated),
        ("016e 00", TableError::UnknownTag { tag: 0 }),
        ("016e 41 00000001 79", TableError::UnknownTag { tag: b'y' }),
    ];
    for (bytes, error) in cases {
        assert_eq!(table::decode(&hex(bytes)), Err(error), "{bytes}");
        assert_eq!(table::validate(&hex(bytes)), Err(error), "{bytes}");
        assert!(!table::contains(&hex(bytes), b"absent"), "{bytes}");
        assert_eq!(table::find(&hex(bytes), b"n"), None, "{bytes}");
    }
}

#[test]
fn content_headers() {
    for len in 0..ContentHeader::FIXED_LEN {
        assert_eq!(ContentHeader::parse(&vec![0; len]), Err(HeaderTooShort(len)));
    }
    let cases = [
        ("", PropertiesError::Truncated),
        ("80", PropertiesError::Truncated),
        ("8000", PropertiesError::Truncated),
        ("8000 02 61", PropertiesError::Truncated),
        ("1000", PropertiesError::Truncated),
        ("0040 00000000000000", PropertiesError::Truncated),
        ("2000 000000", PropertiesError::Truncated),
        ("2000 00000001", PropertiesError::Truncated),
        ("2000 00000001 01", PropertiesError::Headers(TableError::Truncated)),
        ("2000 00000003 016e 7a", PropertiesError::Headers(TableError::UnknownTag { tag: b'z' })),
        ("0000 00", PropertiesError::Trailing(1)),
        ("1000 02 0000", PropertiesError::Trailing(2)),
        ("0002 00", PropertiesError::Trailing(1)),
        ("0001", PropertiesError::Truncated),
        ("0001 0001 00", PropertiesError::Truncated),
        ("0001 0000 00", PropertiesError::Trailing(1)),
        ("0001 0002", PropertiesError::Continued),
        ("8001 8000 00 00", PropertiesError::Continued),
    ];
    for (raw, error) in cases {
        assert_eq!(Properties::parse(&hex(raw)), Err(error), "{raw}");
    }
}

#[test]
fn headers_nested_too_deep() {
    let mut body = Vec::new();
    for level in (0..1_000_000_u32).rev() {
        body.extend([0, b'F']);
        body.extend((level * 6).to_be_bytes());
    }
    let raw = [&[0x20, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat();
    assert_eq!(Properties::parse(&raw), Err(PropertiesError::Headers(TableError::TooDeep)));
}
