//! Field tables (0-9-1 4.2.5.5, with the type tags that RabbitMQ gives the values).
//!
//! | tag | value | tag | value |
//! |---|---|---|---|
//! | `t` | boolean, one octet | `f` | 32-bit float |
//! | `b` `B` | 8-bit integer, signed / unsigned | `d` | 64-bit float |
//! | `s` `u` | 16-bit integer, signed / unsigned | `D` | decimal: octet of scale, 32-bit digits |
//! | `I` `i` | 32-bit integer, signed / unsigned | `S` `x` | text / bytes, 32-bit length |
//! | `l` `L` | 64-bit integer, signed | `A` `F` | array / table, 32-bit length |
//! | `T` | timestamp, 64-bit seconds | `V` | nothing |
//!
//! AMQP 0-8 knows only `S I D T F`. All tags are read in every dialect, since clients are free to send what
//! others understand; what is written for 0-8 is reduced to these five, see [`encode`].

use warren_types::{FieldTable, FieldValue, ShortString};

use crate::Dialect;
use crate::reader::{Reader, Truncated};
use crate::writer::{put_long_string, put_short_string, put_with_length};

/// How deep tables and arrays may nest; the outermost table is the first level.
///
/// Reading and writing recurse, so this bounds the stack. RabbitMQ has no limit, but nothing sensible comes
/// close: `x-death`, the deepest header that brokers make, needs three levels.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are not a field table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A name or value is longer than what it is in.
    #[error("field table ends early")]
    Truncated,
    /// A value of a type that RabbitMQ does not know.
    #[error("unknown field type {tag:#04x}")]
    UnknownTag {
        /// The octet that should be a type tag.
        tag: u8,
    },
    /// Nested more than [`DEPTH_MAX`] levels.
    #[error("field table nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

impl From<Truncated> for TableError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Reads a table from its body, the bytes behind its length (AMQPLAIN responses are such a body).
///
/// # Errors
/// If the bytes are not a table, or one that is nested too deep.
pub fn decode(bytes: &[u8]) -> Result<FieldTable, TableError> {
    decode_body(bytes, 1)
}

/// Checks what [`decode`] checks, without building the table.
///
/// # Errors
/// The same.
pub fn validate(bytes: &[u8]) -> Result<(), TableError> {
    skip_body(bytes, Body::Table, 1)
}

/// Whether the table with this body has an entry with this name on its top level. False where the bytes are
/// not a table.
#[must_use]
pub fn contains(bytes: &[u8], name: &[u8]) -> bool {
    value_of(bytes, name).is_ok_and(|found| found.is_some())
}

/// The value of the first entry with this name on the top level of the table with this body; the others are
/// only skipped. `None` also where the bytes are not a table.
#[must_use]
pub fn find(bytes: &[u8], name: &[u8]) -> Option<FieldValue> {
    let mut reader = value_of(bytes, name).ok()??;
    decode_value(&mut reader, 1).ok()
}

/// Appends a table with its length in front.
///
/// 0-9 and 0-9-1 get every value as it is. 0-8 gets the types that it knows:
///
/// * booleans and integers that fit into 32 bits, signed, as `I`; larger integers as `S`, in decimal
/// * floats as `S`, in decimal; byte arrays as `S`, unchanged
/// * arrays as `F`, with the indices `0`, `1`, ... as names, so that `x-death` can still be read
/// * void values, and entries of arrays that are void, are left out
///
/// Tables and arrays beyond [`DEPTH_MAX`] levels, which [`decode`] cannot have made, are written as void.
pub fn encode(table: &FieldTable, dialect: Dialect, out: &mut Vec<u8>) {
    Encoder { dialect, depth: 0 }.table(table, out);
}

fn decode_body(bytes: &[u8], depth: usize) -> Result<FieldTable, TableError> {
    check_depth(depth)?;
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let name = reader.short_string()?;
        let value = decode_value(&mut reader, depth)?;
        entries.push((ShortString::truncated(name), value));
    }
    Ok(FieldTable(entries))
}

fn decode_array(bytes: &[u8], depth: usize) -> Result<Vec<FieldValue>, TableError> {
    check_depth(depth)?;
    let mut reader = Reader::new(bytes);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(decode_value(&mut reader, depth)?);
    }
    Ok(values)
}

/// Reads a value in a table or array of level `depth`.
fn decode_value(reader: &mut Reader<'_>, depth: usize) -> Result<FieldValue, TableError> {
    Ok(match reader.u8()? {
        b't' => FieldValue::Bool(reader.u8()? != 0),
        b'b' => FieldValue::I8(i8::from_be_bytes(reader.chunk()?)),
        b'B' => FieldValue::U8(reader.u8()?),
        b's' => FieldValue::I16(i16::from_be_bytes(reader.chunk()?)),
        b'u' => FieldValue::U16(reader.u16()?),
        b'I' => FieldValue::I32(i32::from_be_bytes(reader.chunk()?)),
        b'i' => FieldValue::U32(reader.u32()?),
        b'l' | b'L' => FieldValue::I64(i64::from_be_bytes(reader.chunk()?)),
        b'f' => FieldValue::F32(f32::from_be_bytes(reader.chunk()?)),
        b'd' => FieldValue::F64(f64::from_be_bytes(reader.chunk()?)),
        b'D' => FieldValue::Decimal { scale: reader.u8()?, value: reader.u32()? },
        b'S' => FieldValue::LongString(reader.long_string()?.to_vec()),
        b'x' => FieldValue::ByteArray(reader.long_string()?.to_vec()),
        b'A' => FieldValue::Array(decode_array(reader.long_string()?, depth + 1)?),
        b'T' => FieldValue::Timestamp(reader.u64()?),
        b'F' => FieldValue::Table(decode_body(reader.long_string()?, depth + 1)?),
        b'V' => FieldValue::Void,
        tag => return Err(TableError::UnknownTag { tag }),
    })
}

/// What stands between two values: in a table a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Table,
    Array,
}

fn skip_body(bytes: &[u8], body: Body, depth: usize) -> Result<(), TableError> {
    check_depth(depth)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        if body == Body::Table {
            reader.short_string()?;
        }
        skip_value(&mut reader, depth)?;
    }
    Ok(())
}

fn skip_value(reader: &mut Reader<'_>, depth: usize) -> Result<(), TableError> {
    match reader.u8()? {
        b't' | b'b' | b'B' => reader.bytes(1)?,
        b's' | b'u' => reader.bytes(2)?,
        b'I' | b'i' | b'f' => reader.bytes(4)?,
        b'D' => reader.bytes(5)?,
        b'l' | b'L' | b'd' | b'T' => reader.bytes(8)?,
        b'S' | b'x' => reader.long_string()?,
        b'V' => &[],
        b'A' => return skip_body(reader.long_string()?, Body::Array, depth + 1),
        b'F' => return skip_body(reader.long_string()?, Body::Table, depth + 1),
        tag => return Err(TableError::UnknownTag { tag }),
    };
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), TableError> {
    if depth > DEPTH_MAX { Err(TableError::TooDeep) } else { Ok(()) }
}

/// A reader that stands at the value of the first entry with this name.
fn value_of<'a>(bytes: &'a [u8], name: &[u8]) -> Result<Option<Reader<'a>>, TableError> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        if reader.short_string()? == name {
            return Ok(Some(reader));
        }
        skip_shallow(&mut reader)?;
    }
    Ok(None)
}

/// Skips a value without a look into tables and arrays.
fn skip_shallow(reader: &mut Reader<'_>) -> Result<(), TableError> {
    let mut ahead = *reader;
    if matches!(ahead.u8()?, b'A' | b'F') {
        ahead.long_string()?;
        *reader = ahead;
        return Ok(());
    }
    skip_value(reader, 1)
}

#[derive(Clone, Copy)]
struct Encoder {
    dialect: Dialect,
    /// Levels around what is being written.
    depth: usize,
}

impl Encoder {
    fn table(self, table: &FieldTable, out: &mut Vec<u8>) {
        self.nested(out, |inner, out| {
            for (name, value) in &table.0 {
                inner.entry(name.as_bytes(), value, out);
            }
        });
    }

    /// Writes the length and the content of a table or array, one level further down.
    fn nested(self, out: &mut Vec<u8>, content: impl FnOnce(Self, &mut Vec<u8>)) {
        let inner = Self { depth: self.depth + 1, ..self };
        put_with_length(out, |out| content(inner, out));
    }

    fn is_too_deep(self, value: &FieldValue) -> bool {
        self.depth >= DEPTH_MAX && matches!(value, FieldValue::Array(_) | FieldValue::Table(_))
    }

    fn entry(self, name: &[u8], value: &FieldValue, out: &mut Vec<u8>) {
        match self.dialect {
            Dialect::Amqp09 | Dialect::Amqp091 => {
                put_short_string(out, name);
                self.value(value, out);
            }
            Dialect::Amqp08 if matches!(value, FieldValue::Void) || self.is_too_deep(value) => {}
            Dialect::Amqp08 => {
                put_short_string(out, name);
                self.value_08(value, out);
            }
        }
    }

    fn value(self, value: &FieldValue, out: &mut Vec<u8>) {
        match value {
            deep if self.is_too_deep(deep) => out.push(b'V'),
            FieldValue::Bool(b) => put(out, b't', &[u8::from(*b)]),
            FieldValue::I8(n) => put(out, b'b', &n.to_be_bytes()),
            FieldValue::U8(n) => put(out, b'B', &[*n]),
            FieldValue::I16(n) => put(out, b's', &n.to_be_bytes()),
            FieldValue::U16(n) => put(out, b'u', &n.to_be_bytes()),
            FieldValue::I32(n) => put(out, b'I', &n.to_be_bytes()),
            FieldValue::U32(n) => put(out, b'i', &n.to_be_bytes()),
            FieldValue::I64(n) => put(out, b'l', &n.to_be_bytes()),
            FieldValue::F32(n) => put(out, b'f', &n.to_be_bytes()),
            FieldValue::F64(n) => put(out, b'd', &n.to_be_bytes()),
            FieldValue::Decimal { scale, value } => {
                put(out, b'D', &[*scale]);
                out.extend_from_slice(&value.to_be_bytes());
            }
            FieldValue::LongString(bytes) => put_string(out, b'S', bytes),
            FieldValue::ByteArray(bytes) => put_string(out, b'x', bytes),
            FieldValue::Array(values) => {
                out.push(b'A');
                self.nested(out, |inner, out| values.iter().for_each(|value| inner.value(value, out)));
            }
            FieldValue::Timestamp(seconds) => put(out, b'T', &seconds.to_be_bytes()),
            FieldValue::Table(table) => {
                out.push(b'F');
                self.table(table, out);
            }
            FieldValue::Void => out.push(b'V'),
        }
    }

    /// Writes a value, not a void one, with the types that 0-8 knows.
    fn value_08(self, value: &FieldValue, out: &mut Vec<u8>) {
        if let Some(number) = value.as_integer() {
            return match i32::try_from(number) {
                Ok(number) => put(out, b'I', &number.to_be_bytes()),
                Err(_) => put_string(out, b'S', number.to_string().as_bytes()),
            };
        }
        match value {
            FieldValue::Bool(b) => put(out, b'I', &i32::from(*b).to_be_bytes()),
            FieldValue::F32(n) => put_string(out, b'S', n.to_string().as_bytes()),
            FieldValue::F64(n) => put_string(out, b'S', n.to_string().as_bytes()),
            FieldValue::ByteArray(bytes) => put_string(out, b'S', bytes),
            FieldValue::Array(values) => {
                out.push(b'F');
                self.nested(out, |inner, out| {
                    for (index, value) in values.iter().enumerate() {
                        inner.entry(index.to_string().as_bytes(), value, out);
                    }
                });
            }
            other => self.value(other, out),
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn put_string(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_long_string(out, bytes);
}
