//! Strategies for values of every kind.

mod methods;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use warren_amqp091_codec::{Dialect, OwnedProperties};
use warren_types::{FieldTable, FieldValue, ShortString};

pub use methods::{COUNT, build, number_of};

/// Values to put into methods; kept apart from them because methods borrow.
#[derive(Debug)]
pub struct Material {
    numbers: Vec<u64>,
    short_strings: Vec<Vec<u8>>,
    long_strings: Vec<Vec<u8>>,
    tables: Vec<FieldTable>,
}

/// Hands out material, over and over.
#[derive(Debug)]
pub struct Source<'a> {
    material: &'a Material,
    at: usize,
}

impl<'a> Source<'a> {
    pub fn new(material: &'a Material) -> Self {
        Self { material, at: 0 }
    }

    fn next<T>(&mut self, values: &'a [T]) -> &'a T {
        self.at += 1;
        &values[self.at % values.len()]
    }

    fn bit(&mut self) -> bool {
        self.u64() & 1 != 0
    }

    fn u8(&mut self) -> u8 {
        self.u64() as u8
    }

    fn u16(&mut self) -> u16 {
        self.u64() as u16
    }

    fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    fn u64(&mut self) -> u64 {
        *self.next(&self.material.numbers)
    }

    fn short_string(&mut self) -> &'a [u8] {
        self.next::<Vec<u8>>(&self.material.short_strings)
    }

    fn long_string(&mut self) -> &'a [u8] {
        self.next::<Vec<u8>>(&self.material.long_strings)
    }

    fn table(&mut self) -> FieldTable {
        self.next(&self.material.tables).clone()
    }
}

/// Some material, always the same.
pub fn some_material(dialect: Dialect) -> Material {
    let runner = &mut TestRunner::deterministic();
    material(dialect).new_tree(runner).expect("no value is rejected").current()
}

/// Material whose tables have only what the dialect has.
pub fn material(dialect: Dialect) -> impl Strategy<Value = Material> {
    let number = prop_oneof![2 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(1 << 63)];
    let parts = (
        vec(number, 11),
        vec(short_bytes(), 3),
        vec(vec(any::<u8>(), 0..600), 2),
        vec(field_table(dialect), 1..3),
    );
    parts.prop_map(|(numbers, short_strings, long_strings, tables)| Material {
        numbers,
        short_strings,
        long_strings,
        tables,
    })
}

pub fn short_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 255), 1 => Just(Vec::new())]
}

/// Tables of values that the dialect has, so that they come back as they were.
pub fn field_table(dialect: Dialect) -> BoxedStrategy<FieldTable> {
    let value = match dialect {
        Dialect::Amqp08 => {
            let nested = |inner| table_of(inner).prop_map(FieldValue::Table);
            leaf_08().prop_recursive(4, 32, 5, nested).boxed()
        }
        Dialect::Amqp09 | Dialect::Amqp091 => {
            let nested = |inner: BoxedStrategy<FieldValue>| {
                prop_oneof![
                    table_of(inner.clone()).prop_map(FieldValue::Table),
                    vec(inner, 0..5).prop_map(FieldValue::Array),
                ]
            };
            leaf().prop_recursive(4, 32, 5, nested).boxed()
        }
    };
    table_of(value).boxed()
}

fn table_of(value: BoxedStrategy<FieldValue>) -> impl Strategy<Value = FieldTable> {
    let name = short_bytes().prop_map(|bytes| ShortString::truncated(&bytes));
    vec((name, value), 0..5).prop_map(FieldTable)
}

fn leaf_08() -> BoxedStrategy<FieldValue> {
    prop_oneof![
        any::<i32>().prop_map(FieldValue::I32),
        vec(any::<u8>(), 0..40).prop_map(FieldValue::LongString),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
        any::<u64>().prop_map(FieldValue::Timestamp),
    ]
    .boxed()
}

/// Everything but tables and arrays. No NaN, which is not equal to itself.
fn leaf() -> BoxedStrategy<FieldValue> {
    use proptest::num;
    let f32_value = num::f32::NORMAL | num::f32::ZERO | num::f32::INFINITE | num::f32::SUBNORMAL;
    let f64_value = num::f64::NORMAL | num::f64::ZERO | num::f64::INFINITE | num::f64::SUBNORMAL;
    prop_oneof![
        leaf_08(),
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        f32_value.prop_map(FieldValue::F32),
        f64_value.prop_map(FieldValue::F64),
        vec(any::<u8>(), 0..40).prop_map(FieldValue::ByteArray),
        Just(FieldValue::Void),
    ]
    .boxed()
}

/// Properties with any choice of the fourteen.
pub fn properties(dialect: Dialect) -> impl Strategy<Value = OwnedProperties> {
    let text = || proptest::option::of(short_bytes());
    let front = (
        text(),
        text(),
        proptest::option::of(field_table(dialect)),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        text(),
        text(),
    );
    let back = (text(), text(), any::<Option<u64>>(), text(), text(), text(), text());
    (front, back).prop_map(|(front, back)| {
        let (content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to) =
            front;
        let (expiration, message_id, timestamp, type_, user_id, app_id, cluster_id) = back;
        OwnedProperties {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            type_,
            user_id,
            app_id,
            cluster_id,
        }
    })
}
