//! JSON values as Erlang prints them once RabbitMQ has decoded them.

use serde_json::{Map, Value};
use warren_types::erlang;

/// The value as `~tp` prints it, on one line.
pub(super) fn term(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => self::float(float),
            _ => number.to_string(),
        },
        Value::String(text) => erlang::binary(text.as_bytes()),
        Value::Array(values) => list(values),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                format!("{} => {}", erlang::binary(key.as_bytes()), term(value))
            };
            format!("#{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
    }
}

/// An object as a list of pairs.
pub(super) fn pairs(fields: &Map<String, Value>) -> String {
    let pair =
        |(key, value): (&String, &Value)| format!("{{{},{}}}", erlang::binary(key.as_bytes()), term(value));
    format!("[{}]", fields.iter().map(pair).collect::<Vec<_>>().join(","))
}

fn list(values: &[Value]) -> String {
    let printable = |value: &Value| match value.as_u64() {
        Some(code @ (8..=13 | 27 | 32..=126)) => u8::try_from(code).ok().map(char::from),
        _ => None,
    };
    // Erlang cannot tell a text from the codes of its characters.
    match values.iter().map(printable).collect::<Option<String>>() {
        Some(text) if !text.is_empty() => format!("{text:?}"),
        _ => format!("[{}]", values.iter().map(term).collect::<Vec<_>>().join(",")),
    }
}

fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_values_as_erlang_does() {
        let cases = [
            (r#""a\"b""#, r#"<<"a\"b">>"#),
            ("null", "null"),
            ("true", "true"),
            ("-5", "-5"),
            ("18446744073709551615", "18446744073709551615"),
            ("5.0", "5.0"),
            ("1e22", "1.0e22"),
            ("1.5e-7", "1.5e-7"),
            ("[]", "[]"),
            ("[1,\"a\"]", r#"[1,<<"a">>]"#),
            ("[97,98]", r#""ab""#),
            (r#"{"b":[],"a":1}"#, r#"#{<<"a">> => 1,<<"b">> => []}"#),
        ];
        for (json, expected) in cases {
            assert_eq!(term(&serde_json::from_str(json).expect("it is JSON")), expected);
        }
    }
}
