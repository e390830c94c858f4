//! Field tables: decoding and validating agree, look-ups agree with both, encoding loses nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_amqp091_codec::{Dialect, table};
use warren_types::{FieldTable, FieldValue};

fuzz_target!(|data: &[u8]| {
    let decoded = table::decode(data);
    assert_eq!(decoded.as_ref().map(|_| ()).map_err(|error| *error), table::validate(data));
    let Ok(decoded) = decoded else {
        // Whatever the bytes are.
        let _found = (table::find(data, b"a"), table::contains(data, b"a"));
        return;
    };
    for (name, _) in &decoded.0 {
        let first = decoded.0.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        assert!(table::contains(data, name.as_bytes()));
        let found = table::find(data, name.as_bytes());
        assert!(same(found.as_ref(), first), "{found:?} {first:?}");
    }

    // Only two things are not written as they were read: booleans other than 0 and 1, and the tag `L`.
    let whole = encoded(&decoded, Dialect::Amqp091);
    assert_eq!(whole.len(), data.len());
    let again = table::decode(&whole).expect("what was encoded");
    assert_eq!(encoded(&again, Dialect::Amqp091), whole);

    let reduced = encoded(&decoded, Dialect::Amqp08);
    let again = table::decode(&reduced).expect("what was encoded");
    assert!(is_of_0_8(&again));
    assert_eq!(encoded(&again, Dialect::Amqp08), reduced);
});

/// The body of a table.
fn encoded(table: &FieldTable, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    table::encode(table, dialect, &mut out);
    let body = out.split_off(4);
    assert_eq!(out, (body.len() as u32).to_be_bytes());
    body
}

/// Whether two values are the same, also if they are no numbers.
fn same(a: Option<&FieldValue>, b: Option<&FieldValue>) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn is_of_0_8(table: &FieldTable) -> bool {
    table.0.iter().all(|(_, value)| match value {
        FieldValue::LongString(_)
        | FieldValue::I32(_)
        | FieldValue::Decimal { .. }
        | FieldValue::Timestamp(_) => true,
        FieldValue::Table(inner) => is_of_0_8(inner),
        _ => false,
    })
}
