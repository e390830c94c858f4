//! Hashes that stay the same for ever: which queue a key leads to must not change with a restart, a new version
//! or another machine.
//!
//! It is XXH64 with the seed 0, whose results are fixed by its specification, over the bytes described here.
//! **Nothing in this module may change**: the keys of every hashing exchange would move to other queues. The tests
//! hold results that were computed once.

use twox_hash::XxHash64;
use warren_types::{FieldTable, FieldValue};

use crate::Destination;
use crate::targets::{End, Target};

/// The hash of a string of bytes.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The hash of a header or a property; `None` stands for one that the message does not have.
///
/// A string hashes as its bytes alone, so that a header has the queue of the routing key with the same text. An
/// integer hashes the same whatever its width.
pub(crate) fn value(value: Option<&FieldValue>) -> u64 {
    match value {
        Some(FieldValue::LongString(text) | FieldValue::ByteArray(text)) => bytes(text),
        Some(value) => {
            let mut encoded = vec![0];
            put_value(&mut encoded, value);
            bytes(&encoded)
        }
        None => bytes(b"\0none"),
    }
}

/// The hash of a destination: of its kind and its name.
pub(crate) fn destination(destination: &Destination, target: Target) -> u64 {
    let kind: u8 = match target.end() {
        End::Queue(_) => 1,
        End::Exchange(_) => 0,
    };
    bytes(&[&[kind], destination.name().as_bytes()].concat())
}

/// Two hashes as one, of whose bits each depends on all of theirs (the finalizer of MurmurHash3).
pub(crate) fn combined(a: u64, b: u64) -> u64 {
    let mut hash = a ^ b.rotate_left(32);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Tag, length where it is not given, content: different values have different bytes.
fn put_value(out: &mut Vec<u8>, value: &FieldValue) {
    let mut put = |tag: u8, content: &[u8]| {
        out.push(tag);
        out.extend_from_slice(content);
    };
    if let Some(integer) = value.as_integer() {
        return put(b'l', &integer.to_be_bytes());
    }
    match value {
        FieldValue::Bool(value) => put(b't', &[u8::from(*value)]),
        FieldValue::F32(value) => put(b'd', &f64::from(*value).to_bits().to_be_bytes()),
        FieldValue::F64(value) => put(b'd', &value.to_bits().to_be_bytes()),
        FieldValue::Decimal { scale, value } => {
            put(b'D', &[*scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        FieldValue::Timestamp(seconds) => put(b'T', &seconds.to_be_bytes()),
        FieldValue::LongString(text) | FieldValue::ByteArray(text) => {
            put(b'S', &(text.len() as u64).to_be_bytes());
            out.extend_from_slice(text);
        }
        FieldValue::Array(values) => {
            put(b'A', &(values.len() as u64).to_be_bytes());
            values.iter().for_each(|value| put_value(out, value));
        }
        FieldValue::Table(FieldTable(entries)) => {
            put(b'F', &(entries.len() as u64).to_be_bytes());
            for (name, value) in entries {
                put_value(out, &FieldValue::LongString(name.as_bytes().to_vec()));
                put_value(out, value);
            }
        }
        _ => put(b'V', &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_never_change() {
        // The first two are in the specification of XXH64.
        assert_eq!(bytes(b""), 0xef46_db37_51d8_e999);
        assert_eq!(bytes(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(combined(1, 2), FIXED[0]);
        assert_eq!(value(None), FIXED[1]);
        assert_eq!(value(Some(&FieldValue::I32(5))), FIXED[2]);
        assert_eq!(value(Some(&FieldValue::Timestamp(5))), FIXED[3]);
        let queue = Destination::Queue("q".into());
        assert_eq!(destination(&queue, Target::queue(7)), FIXED[4]);
    }

    /// As another implementation of XXH64 computed them.
    const FIXED: [u64; 5] = [
        0x2c01_0001_5f0a_2277,
        0x95f3_f0d0_80c7_2945,
        0x42c7_c57d_48f3_1a13,
        0x5b81_ac74_7b44_d085,
        0x315e_72f2_00c9_ca7d,
    ];

    #[test]
    fn classes_of_values() {
        let hash = |field: FieldValue| value(Some(&field));
        assert_eq!(hash(FieldValue::string("a")), bytes(b"a"));
        assert_eq!(hash(FieldValue::ByteArray(b"a".to_vec())), bytes(b"a"));
        assert_eq!(hash(FieldValue::I8(5)), hash(FieldValue::I64(5)));
        assert_eq!(hash(FieldValue::F32(0.5)), hash(FieldValue::F64(0.5)));
        let different = [
            FieldValue::I8(5),
            FieldValue::string("5"),
            FieldValue::F64(5.0),
            FieldValue::Timestamp(5),
            FieldValue::Bool(true),
            FieldValue::Void,
            FieldValue::Array(vec![]),
            FieldValue::Array(vec![FieldValue::Void]),
            FieldValue::Table(FieldTable::new()),
            FieldValue::Decimal { scale: 0, value: 5 },
        ];
        let hashes: std::collections::BTreeSet<_> = different.iter().cloned().map(hash).collect();
        assert_eq!(hashes.len(), different.len());
        assert!(!hashes.contains(&value(None)));
    }
}
