//! Field tables: there and back, what 0-8 gets, nesting.

use proptest::collection::vec;
use proptest::prelude::*;
use warren_amqp091_codec::table::{DEPTH_MAX, contains, decode, encode, find, validate};
use warren_amqp091_codec::{Dialect, TableError};
use warren_types::{FieldTable, FieldValue};

use crate::sample::field_table;
use crate::{DIALECTS, hex};

fn encoded(table: &FieldTable, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    encode(table, dialect, &mut out);
    out
}

fn table<const N: usize>(entries: [(&str, FieldValue); N]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in entries {
        table.insert(name, value);
    }
    table
}

/// One value of each type, and its bytes behind the name `n`.
fn every_type() -> Vec<(FieldValue, &'static str)> {
    vec![
        (FieldValue::Bool(true), "74 01"),
        (FieldValue::I8(-2), "62 fe"),
        (FieldValue::U8(254), "42 fe"),
        (FieldValue::I16(-2), "73 fffe"),
        (FieldValue::U16(65_534), "75 fffe"),
        (FieldValue::I32(-2), "49 fffffffe"),
        (FieldValue::U32(4_000_000_000), "69 ee6b2800"),
        (FieldValue::I64(-2), "6c fffffffffffffffe"),
        (FieldValue::F32(1.5), "66 3fc00000"),
        (FieldValue::F64(-1.5), "64 bff8000000000000"),
        (FieldValue::Decimal { scale: 2, value: 314 }, "44 02 0000013a"),
        (FieldValue::string("ab"), "53 00000002 6162"),
        (FieldValue::ByteArray(vec![0, 255]), "78 00000002 00ff"),
        (FieldValue::Array(vec![FieldValue::Void, FieldValue::Bool(false)]), "41 00000003 56 7400"),
        (FieldValue::Timestamp(1_700_000_000), "54 000000006553f100"),
        (FieldValue::Table(table([("k", FieldValue::Void)])), "46 00000003 016b 56"),
        (FieldValue::Void, "56"),
    ]
}

#[test]
fn every_type_has_its_bytes() {
    for (value, bytes) in every_type() {
        let body = [hex("016e"), hex(bytes)].concat();
        let table = table([("n", value)]);
        assert_eq!(decode(&body).as_ref(), Ok(&table));
        for dialect in [Dialect::Amqp09, Dialect::Amqp091] {
            let with_length = encoded(&table, dialect);
            assert_eq!(with_length, [(body.len() as u32).to_be_bytes().as_slice(), &body].concat());
        }
    }
}

#[test]
fn a_capital_l_is_read_as_a_long() {
    assert_eq!(decode(&hex("016e 4c fffffffffffffffe")), Ok(table([("n", FieldValue::I64(-2))])));
}

#[test]
fn any_octet_but_zero_is_true() {
    assert_eq!(decode(&hex("016e 74 80")), Ok(table([("n", FieldValue::Bool(true))])));
}

#[test]
fn order_and_duplicates_stay() {
    let twice = table([("b", FieldValue::I8(1)), ("a", FieldValue::I8(2)), ("b", FieldValue::I8(3))]);
    assert_eq!(decode(&encoded(&twice, Dialect::Amqp091)[4..]), Ok(twice));
}

#[test]
fn amqp_08_gets_the_types_that_it_knows() {
    let expected = [
        (FieldValue::Bool(true), Some(FieldValue::I32(1))),
        (FieldValue::Bool(false), Some(FieldValue::I32(0))),
        (FieldValue::I8(-2), Some(FieldValue::I32(-2))),
        (FieldValue::U8(254), Some(FieldValue::I32(254))),
        (FieldValue::I16(-2), Some(FieldValue::I32(-2))),
        (FieldValue::U16(65_534), Some(FieldValue::I32(65_534))),
        (FieldValue::I32(i32::MIN), Some(FieldValue::I32(i32::MIN))),
        (FieldValue::U32(2_147_483_647), Some(FieldValue::I32(i32::MAX))),
        (FieldValue::U32(2_147_483_648), Some(FieldValue::string("2147483648"))),
        (FieldValue::I64(-7), Some(FieldValue::I32(-7))),
        (FieldValue::I64(i64::MIN), Some(FieldValue::string("-9223372036854775808"))),
        (FieldValue::F32(1.5), Some(FieldValue::string("1.5"))),
        (FieldValue::F64(-0.25), Some(FieldValue::string("-0.25"))),
        (FieldValue::Decimal { scale: 1, value: 5 }, Some(FieldValue::Decimal { scale: 1, value: 5 })),
        (FieldValue::string("s"), Some(FieldValue::string("s"))),
        (FieldValue::ByteArray(b"s".to_vec()), Some(FieldValue::string("s"))),
        (FieldValue::Timestamp(9), Some(FieldValue::Timestamp(9))),
        (FieldValue::Void, None),
    ];
    for (given, gets) in expected {
        let expected = gets.map_or_else(FieldTable::new, |value| table([("n", value)]));
        let bytes = encoded(&table([("n", given)]), Dialect::Amqp08);
        assert_eq!(decode(&bytes[4..]), Ok(expected));
    }
}

#[test]
fn amqp_08_gets_arrays_as_numbered_tables() {
    let deaths = FieldValue::Array(vec![
        FieldValue::Table(table([("count", FieldValue::I64(3)), ("queue", FieldValue::string("q"))])),
        FieldValue::Void,
        FieldValue::Array(vec![FieldValue::Bool(true)]),
    ]);
    let expected = FieldValue::Table(table([
        ("0", FieldValue::Table(table([("count", FieldValue::I32(3)), ("queue", FieldValue::string("q"))]))),
        ("2", FieldValue::Table(table([("0", FieldValue::I32(1))]))),
    ]));
    let bytes = encoded(&table([("x-death", deaths)]), Dialect::Amqp08);
    assert_eq!(decode(&bytes[4..]), Ok(table([("x-death", expected)])));
}

/// A table body with as many levels, itself included, of which the inner ones are tables or arrays.
fn nested(levels: usize, tag: u8) -> Vec<u8> {
    let entry_len = if tag == b'F' { 6 } else { 5 };
    let mut body = Vec::new();
    for level in 1..levels {
        if tag == b'F' || level == 1 {
            body.push(0);
        }
        body.push(tag);
        body.extend(((levels - 1 - level) as u32 * entry_len).to_be_bytes());
    }
    body
}

#[test]
fn nesting_ends_at_the_limit() {
    for tag in [b'F', b'A'] {
        let deepest = nested(DEPTH_MAX, tag);
        assert!(decode(&deepest).is_ok());
        assert_eq!(validate(&deepest), Ok(()));
        assert_eq!(encoded(&decode(&deepest).unwrap(), Dialect::Amqp091)[4..], deepest);
        for levels in [DEPTH_MAX + 1, 1_000_000] {
            assert_eq!(decode(&nested(levels, tag)), Err(TableError::TooDeep));
            assert_eq!(validate(&nested(levels, tag)), Err(TableError::TooDeep));
        }
    }
}

#[test]
fn levels_beyond_the_limit_are_not_written() {
    for dialect in DIALECTS {
        let mut deep = FieldTable::new();
        for level in 0..DEPTH_MAX + 20 {
            let value = FieldValue::Table(deep);
            let value = if level % 2 == 0 { value } else { FieldValue::Array(vec![value]) };
            deep = table([("n", value)]);
        }
        assert_eq!(validate(&encoded(&deep, dialect)[4..]), Ok(()));
    }
}

#[test]
fn an_entry_is_found_without_the_others() {
    let inner = table([("hidden", FieldValue::Void)]);
    let table = table([
        ("a", FieldValue::Table(inner.clone())),
        ("b", FieldValue::Array(vec![FieldValue::I8(1)])),
        ("c", FieldValue::U16(7)),
        ("c", FieldValue::U16(8)),
    ]);
    let body = &encoded(&table, Dialect::Amqp091)[4..];
    assert_eq!(find(body, b"c"), Some(FieldValue::U16(7)));
    assert_eq!(find(body, b"a"), Some(FieldValue::Table(inner)));
    assert_eq!(find(body, b"hidden"), None);
    assert!(contains(body, b"b") && !contains(body, b"hidden") && !contains(body, b""));
}

proptest! {
    #[test]
    fn tables_come_back(
        (dialect, table) in prop::sample::select(&DIALECTS[..])
            .prop_flat_map(|dialect| (Just(dialect), field_table(dialect))),
    ) {
        let bytes = encoded(&table, dialect);
        prop_assert_eq!(bytes[..4].to_vec(), ((bytes.len() - 4) as u32).to_be_bytes().to_vec());
        prop_assert_eq!(decode(&bytes[4..]), Ok(table));
        prop_assert_eq!(validate(&bytes[4..]), Ok(()));
    }

    #[test]
    fn any_table_can_be_written_for_amqp_08(table in field_table(Dialect::Amqp091)) {
        let reduced = decode(&encoded(&table, Dialect::Amqp08)[4..]).unwrap();
        // Written once more it does not change: all of its types are in 0-8.
        prop_assert_eq!(decode(&encoded(&reduced, Dialect::Amqp08)[4..]), Ok(reduced));
    }

    #[test]
    fn damaged_tables_are_judged_alike(
        table in field_table(Dialect::Amqp091),
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut bytes = encoded(&table, Dialect::Amqp091).split_off(4);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        prop_assert_eq!(decode(&bytes).map(drop), validate(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_judged_alike(bytes in vec(any::<u8>(), 0..300), name in vec(any::<u8>(), 0..3)) {
        prop_assert_eq!(decode(&bytes).map(drop), validate(&bytes));
        if validate(&bytes).is_ok() {
            prop_assert_eq!(find(&bytes, &name).is_some(), contains(&bytes, &name));
        }
    }
}
