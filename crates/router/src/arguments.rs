//! Comparing field tables and their values, in the two ways that RabbitMQ does.
//!
//! The arguments of a binding are part of its identity and are compared with their types, as a sorted table.
//! A header is compared with an argument as an Erlang term, where all integer types are one type, and so are
//! all strings of bytes.

use std::hash::{Hash, Hasher};

use smallvec::SmallVec;
use warren_types::{FieldTable, FieldValue, ShortString};

type Entry = (ShortString, FieldValue);

/// Whether both tables have the same entries in the same order once sorted by name
/// (`rabbit_binding:sort_args/1`).
pub(crate) fn same_arguments(a: &FieldTable, b: &FieldTable) -> bool {
    a.0.len() == b.0.len() && {
        let (a, b) = (sorted_entries(a), sorted_entries(b));
        a.iter().zip(&b).all(|(a, b)| same_entry(a, b))
    }
}

/// Hashes what [`same_arguments`] compares.
pub(crate) fn hash_arguments<H: Hasher>(arguments: &FieldTable, state: &mut H) {
    state.write_usize(arguments.0.len());
    for (name, value) in sorted_entries(arguments) {
        name.hash(state);
        hash_value(value, state);
    }
}

fn sorted_entries(table: &FieldTable) -> SmallVec<[&Entry; 8]> {
    let mut entries: SmallVec<[&Entry; 8]> = table.0.iter().collect();
    if !table.0.is_sorted_by(|a, b| a.0 <= b.0) {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
    }
    entries
}

fn same_entry(a: &Entry, b: &Entry) -> bool {
    a.0 == b.0 && same_value(&a.1, &b.1)
}

/// Equality with types. Floats are compared by their bits so that a binding with a NaN can be found again.
fn same_value(a: &FieldValue, b: &FieldValue) -> bool {
    match (a, b) {
        (FieldValue::F32(a), FieldValue::F32(b)) => a.to_bits() == b.to_bits(),
        (FieldValue::F64(a), FieldValue::F64(b)) => a.to_bits() == b.to_bits(),
        (FieldValue::Array(a), FieldValue::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
        }
        (FieldValue::Table(a), FieldValue::Table(b)) => {
            a.0.len() == b.0.len() && a.0.iter().zip(&b.0).all(|(a, b)| same_entry(a, b))
        }
        _ => a == b,
    }
}

fn hash_value<H: Hasher>(value: &FieldValue, state: &mut H) {
    std::mem::discriminant(value).hash(state);
    match value {
        FieldValue::Bool(value) => value.hash(state),
        FieldValue::F32(value) => value.to_bits().hash(state),
        FieldValue::F64(value) => value.to_bits().hash(state),
        FieldValue::Decimal { scale, value } => (scale, value).hash(state),
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => bytes.hash(state),
        FieldValue::Timestamp(seconds) => seconds.hash(state),
        FieldValue::Array(values) => {
            state.write_usize(values.len());
            values.iter().for_each(|value| hash_value(value, state));
        }
        FieldValue::Table(table) => {
            state.write_usize(table.0.len());
            for (name, value) in &table.0 {
                name.hash(state);
                hash_value(value, state);
            }
        }
        _ => value.as_integer().hash(state),
    }
}

/// Equality as between Erlang terms without their AMQP type (`=:=` in `rabbit_exchange_type_headers`): an
/// integer of any width equals the same integer of another, a long string the same byte array, a float the
/// same double.
///
/// Values inside arrays and tables carry their types in RabbitMQ, so there types count. Unlike in RabbitMQ 4,
/// which compares milliseconds with seconds and so never finds them equal, timestamps equal timestamps.
pub(crate) fn equal_terms(a: &FieldValue, b: &FieldValue) -> bool {
    if let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (bytes(a), bytes(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (float(a), float(b)) {
        return a == b;
    }
    same_value(a, b)
}

fn bytes(value: &FieldValue) -> Option<&[u8]> {
    match value {
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => Some(bytes),
        _ => None,
    }
}

fn float(value: &FieldValue) -> Option<f64> {
    match value {
        FieldValue::F32(value) => Some((*value).into()),
        FieldValue::F64(value) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
        let mut table = FieldTable::new();
        for (name, value) in entries {
            table.insert(name, value.clone());
        }
        table
    }

    #[test]
    fn order_of_names_is_no_part_of_identity() {
        let a = table(&[("a", FieldValue::I32(1)), ("b", FieldValue::F64(f64::NAN))]);
        let b = table(&[("b", FieldValue::F64(f64::NAN)), ("a", FieldValue::I32(1))]);
        assert!(same_arguments(&a, &b));
    }

    #[test]
    fn types_are_part_of_identity() {
        let a = table(&[("a", FieldValue::I32(1))]);
        assert!(!same_arguments(&a, &table(&[("a", FieldValue::I64(1))])));
        assert!(!same_arguments(&a, &table(&[("a", FieldValue::I32(1)), ("a", FieldValue::I32(1))])));
        assert!(!same_arguments(&a, &table(&[("A", FieldValue::I32(1))])));
    }

    #[test]
    fn terms_are_equal_across_types_of_one_class() {
        let equal = [
            (FieldValue::I8(5), FieldValue::I64(5)),
            (FieldValue::U32(5), FieldValue::I32(5)),
            (FieldValue::string("a"), FieldValue::ByteArray(b"a".to_vec())),
            (FieldValue::F32(0.5), FieldValue::F64(0.5)),
            (FieldValue::Timestamp(1), FieldValue::Timestamp(1)),
            (FieldValue::Array(vec![FieldValue::Void]), FieldValue::Array(vec![FieldValue::Void])),
            (FieldValue::Table(FieldTable::new()), FieldValue::Table(FieldTable::new())),
        ];
        for (a, b) in equal {
            assert!(equal_terms(&a, &b), "{a:?} {b:?}");
        }
        let different = [
            (FieldValue::I8(5), FieldValue::F64(5.0)),
            (FieldValue::I8(1), FieldValue::Bool(true)),
            (FieldValue::string("5"), FieldValue::I8(5)),
            (FieldValue::F64(f64::NAN), FieldValue::F64(f64::NAN)),
            (FieldValue::Array(vec![FieldValue::I8(5)]), FieldValue::Array(vec![FieldValue::I16(5)])),
            (FieldValue::Array(vec![]), FieldValue::Table(FieldTable::new())),
        ];
        for (a, b) in different {
            assert!(!equal_terms(&a, &b), "{a:?} {b:?}");
        }
    }
}
