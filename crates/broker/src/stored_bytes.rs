//! The bytes of stored keys and values: numbers are big-endian, and whatever has a length comes behind it, so that
//! no two sequences of fields have the same bytes.

use warren_amqp091_codec::{Dialect, table};
use warren_types::{FieldTable, ShortString};

/// Longest name in a key, in bytes: as long as AMQP's short strings.
pub(crate) const NAME_LEN_MAX: usize = ShortString::LEN_MAX;

/// A field, or the reason why it cannot be read.
pub(crate) type Field<T> = Result<T, String>;

/// Appends a name.
///
/// # Panics
/// If it is longer than [`NAME_LEN_MAX`]; nothing may get such a name.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(u8::try_from(name.len()).expect("no name is longer than 255 bytes"));
    out.extend_from_slice(name);
}

/// Appends bytes of any length.
///
/// # Panics
/// If they are 4 GiB or more.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("definitions are shorter than 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a field table as AMQP 0-9-1 writes it: every value keeps its type.
pub(crate) fn put_table(out: &mut Vec<u8>, fields: &FieldTable) {
    table::encode(fields, Dialect::Amqp091, out);
}

/// Takes fields off the front of a key or value.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Field<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Field<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Field<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn bool(&mut self) -> Field<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither true nor false")),
        }
    }

    pub(crate) fn u32(&mut self) -> Field<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Field<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Field<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn name(&mut self) -> Field<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    pub(crate) fn short_string(&mut self) -> Field<ShortString> {
        self.name().map(ShortString::truncated)
    }

    pub(crate) fn text_name(&mut self) -> Field<String> {
        text(self.name()?)
    }

    pub(crate) fn bytes(&mut self) -> Field<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(crate) fn text(&mut self) -> Field<String> {
        text(self.bytes()?)
    }

    pub(crate) fn table(&mut self) -> Field<FieldTable> {
        table::decode(self.bytes()?).map_err(|error| error.to_string())
    }

    /// Makes sure that nothing is left.
    pub(crate) fn end(self) -> Field<()> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(format!("it is {more} bytes too long")),
        }
    }
}

fn text(bytes: &[u8]) -> Field<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| format!("a text is not UTF-8: {error}"))
}
