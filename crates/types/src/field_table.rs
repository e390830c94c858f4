use crate::ShortString;

/// An AMQP field table: names and values in the order in which they were received, duplicates included.
///
/// Order and duplicates are kept because a table is forwarded as it came; look-ups take the first entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldTable(pub Vec<(ShortString, FieldValue)>);

/// A value in a field table or array, one variant for each type tag that RabbitMQ reads and writes.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s` (in RabbitMQ's dialect a 16-bit integer, not a short string)
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, also read from `L`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: the number is `value / 10^scale`
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// All digits as one number.
        value: u32,
    },
    /// `S`: bytes, by custom UTF-8
    LongString(Vec<u8>),
    /// `x`
    ByteArray(Vec<u8>),
    /// `A`
    Array(Vec<FieldValue>),
    /// `T`: seconds since 1970-01-01 UTC
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `V`
    Void,
}

impl FieldTable {
    /// A table without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of the first entry with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Appends an entry; a name longer than a short string is cut.
    pub fn insert(&mut self, name: &str, value: FieldValue) {
        self.0.push((ShortString::truncated(name.as_bytes()), value));
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries sorted by name: the form in which RabbitMQ compares the arguments of bindings
    /// (`rabbit_misc:sort_field_table/1`).
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        self
    }
}

impl FieldValue {
    /// A long string.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self::LongString(text.as_bytes().to_vec())
    }

    /// The value as an integer if it has any of the integer types (`b B s u I i l`).
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(n) => Some(n.into()),
            Self::U8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }

    /// The bytes of a long string.
    #[must_use]
    pub fn as_long_string(&self) -> Option<&[u8]> {
        match self {
            Self::LongString(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// RabbitMQ's name of the value's type, as it stands in its error texts
    /// (`rabbit_binary_parser`, `rabbit_misc:type_class/1`).
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::ByteArray(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }
}
