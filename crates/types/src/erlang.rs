//! Values as Erlang prints them: RabbitMQ's error texts show them so, and clients compare those texts.

use crate::{FieldValue, ShortString};

/// A value as Erlang's `~tp` prints it, for the error texts that contain one.
#[must_use]
pub fn term(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => binary(bytes),
        FieldValue::Bool(value) => value.to_string(),
        FieldValue::F32(value) => format!("{value:?}"),
        FieldValue::F64(value) => format!("{value:?}"),
        FieldValue::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        FieldValue::Timestamp(seconds) => seconds.to_string(),
        FieldValue::Void => "undefined".to_owned(),
        FieldValue::Array(values) => {
            let items: Vec<_> =
                values.iter().map(|value| format!("{{{},{}}}", value.type_name(), term(value))).collect();
            format!("[{}]", items.join(","))
        }
        FieldValue::Table(table) => {
            let item = |(name, value): &(ShortString, FieldValue)| {
                format!("{{{},{},{}}}", binary(name.as_bytes()), value.type_name(), term(value))
            };
            format!("[{}]", table.0.iter().map(item).collect::<Vec<_>>().join(","))
        }
        _ => value.as_integer().map_or_else(String::new, |integer| integer.to_string()),
    }
}

/// `<<"text">>` if printable, otherwise the bytes in decimal, as `io_lib_pretty` does.
#[must_use]
pub fn binary(bytes: &[u8]) -> String {
    let printable = |text: &&str| text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'));
    match std::str::from_utf8(bytes).ok().filter(printable) {
        Some("") => "<<>>".to_owned(),
        Some(text) => {
            let suffix = if text.is_ascii() { "" } else { "/utf8" };
            let mut escaped = String::with_capacity(text.len());
            for c in text.chars() {
                match c {
                    '"' | '\\' => escaped.extend(['\\', c]),
                    '\t' => escaped.push_str("\\t"),
                    '\n' => escaped.push_str("\\n"),
                    '\r' => escaped.push_str("\\r"),
                    _ => escaped.push(c),
                }
            }
            format!("<<\"{escaped}\"{suffix}>>")
        }
        None => format!("<<{}>>", bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    }
}

/// An argument as it stands in the text about two declarations that differ: alone if both have one, with its type
/// if the other has none (`rabbit_misc:equivalence_fail/4`).
#[must_use]
pub fn argument(value: Option<&FieldValue>, both: bool) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let text = match value {
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        _ => term(value),
    };
    if both { format!("'{text}'") } else { format!("the value '{text}' of type '{}'", value.type_name()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldTable;

    #[test]
    fn prints_terms_as_erlang_does() {
        let cases = [
            (FieldValue::string("foo"), r#"<<"foo">>"#),
            (FieldValue::string("a\"\\\n"), r#"<<"a\"\\\n">>"#),
            (FieldValue::string("ü"), r#"<<"ü"/utf8>>"#),
            (FieldValue::string(""), "<<>>"),
            (FieldValue::LongString(vec![0, 255]), "<<0,255>>"),
            (FieldValue::I16(-3), "-3"),
            (FieldValue::F64(1.0), "1.0"),
            (FieldValue::Bool(true), "true"),
            (
                FieldValue::Array(vec![FieldValue::I32(1), FieldValue::Void]),
                "[{signedint,1},{void,undefined}]",
            ),
            (
                FieldValue::Table(FieldTable(vec![("k".into(), FieldValue::U8(2))])),
                r#"[{<<"k">>,unsignedbyte,2}]"#,
            ),
        ];
        for (value, text) in cases {
            assert_eq!(term(&value), text);
        }
    }

    #[test]
    fn arguments_show_their_type_beside_none() {
        let five = FieldValue::I32(5);
        assert_eq!(argument(None, false), "none");
        assert_eq!(argument(Some(&five), true), "'5'");
        assert_eq!(argument(Some(&five), false), "the value '5' of type 'signedint'");
        assert_eq!(argument(Some(&FieldValue::string("a")), true), "'a'");
    }
}
