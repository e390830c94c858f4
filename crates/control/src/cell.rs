//! Values of listings.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use warren_types::{FieldTable, FieldValue};

/// A value of a listing, with as much of its type as the output formats tell apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Nothing.
    Empty,
    /// Text.
    Text(String),
    /// One of a few words.
    Word(String),
    /// Some words.
    Words(Vec<String>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// What stands for a process.
    Pid(String),
    /// A field table: a list of name, type and value. Values of arrays have type and value, those of tables are such
    /// a list again.
    Arguments(Value),
    /// Anything in JSON.
    Json(Value),
}

impl Cell {
    /// Text, or nothing.
    #[must_use]
    pub fn optional(text: Option<&str>) -> Self {
        text.map_or(Self::Empty, |text| Self::Text(text.to_owned()))
    }

    /// Bytes as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A count.
    #[must_use]
    pub fn count(count: impl TryInto<i64>) -> Self {
        Self::Number(count.try_into().unwrap_or(i64::MAX))
    }

    /// About how many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty | Self::Number(_) | Self::Flag(_) => 8,
            Self::Text(text) | Self::Word(text) | Self::Pid(text) => text.len() + 8,
            Self::Words(words) => words.iter().map(|word| word.len() + 8).sum(),
            Self::Arguments(value) | Self::Json(value) => value.to_string().len(),
        }
    }

    /// A field table.
    #[must_use]
    pub fn arguments(table: &FieldTable) -> Self {
        Self::Arguments(table_value(table))
    }
}

fn table_value(table: &FieldTable) -> Value {
    let entry = |(name, value): &(warren_types::ShortString, FieldValue)| {
        json!([String::from_utf8_lossy(name.as_bytes()), value.type_name(), field_value(value)])
    };
    Value::Array(table.0.iter().map(entry).collect())
}

fn field_value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => json!(value),
        FieldValue::F32(value) => json!(value),
        FieldValue::F64(value) => json!(value),
        FieldValue::Decimal { scale, value } => json!([scale, value]),
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => json!(String::from_utf8_lossy(bytes)),
        FieldValue::Array(values) => {
            Value::Array(values.iter().map(|value| json!([value.type_name(), field_value(value)])).collect())
        }
        FieldValue::Timestamp(seconds) => json!(seconds),
        FieldValue::Table(table) => table_value(table),
        FieldValue::Void => Value::Null,
        _ => json!(value.as_integer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_names_types_and_order() {
        let mut inner = FieldTable::new();
        inner.insert("a", FieldValue::Bool(true));
        let mut table = FieldTable::new();
        table.insert("x-max-length", FieldValue::I64(10));
        table.insert("x-dead-letter-exchange", FieldValue::string("dlx"));
        table.insert("t", FieldValue::Table(inner));
        table.insert("l", FieldValue::Array(vec![FieldValue::Void, FieldValue::I32(-1)]));
        let expected = json!([
            ["x-max-length", "long", 10],
            ["x-dead-letter-exchange", "longstr", "dlx"],
            ["t", "table", [["a", "bool", true]]],
            ["l", "array", [["void", null], ["signedint", -1]]]
        ]);
        assert_eq!(Cell::arguments(&table), Cell::Arguments(expected));
    }
}
