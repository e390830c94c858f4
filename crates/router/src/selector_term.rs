//! The text form of selectors: Erlang terms as clients write them (`sjx_parser` of RabbitMQ's
//! `rabbitmq_jms_topic_exchange`).
//!
//! Only the atoms that selectors are made of are read, and nesting is bounded.

/// A term.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    Atom(&'static str),
    Integer(i64),
    Float(f64),
    /// `<<"text">>`
    Binary(Vec<u8>),
    /// `"text"`, a list of characters: means nothing in a selector.
    Characters,
    List(Vec<Self>),
    Tuple(Vec<Self>),
}

/// Atoms that a selector may have.
const ATOMS: [&str; 27] = [
    "ident",
    "not",
    "and",
    "or",
    "is_null",
    "not_null",
    "like",
    "not_like",
    "between",
    "not_between",
    "range",
    "=",
    "<>",
    ">",
    "<",
    ">=",
    "<=",
    "in",
    "not_in",
    "+",
    "-",
    "*",
    "/",
    "true",
    "false",
    "no_escape",
    "regex",
];

/// Deepest nesting of tuples and lists; the evaluation is as deep.
const DEPTH_MAX: usize = 16;

/// Why a text is no term, as RabbitMQ calls it.
pub(crate) type Reason = String;

/// Reads one term, with or without a full stop behind it.
pub(crate) fn parse(text: &[u8]) -> Result<Term, Reason> {
    let mut reader = Reader { rest: text };
    let term = reader.term(0)?;
    reader.take(b".");
    reader.skip_space();
    if reader.rest.is_empty() { Ok(term) } else { Err("trailing_characters".to_owned()) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Skips space, then `expected` if that is what follows.
    fn take(&mut self, expected: &[u8]) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn term(&mut self, depth: usize) -> Result<Term, Reason> {
        if depth > DEPTH_MAX {
            return Err("max_depth_exceeded".to_owned());
        }
        if self.take(b"{") {
            return self.items(b"}", "expected_comma_or_closing_brace", depth).map(Term::Tuple);
        }
        if self.take(b"[") {
            return self.items(b"]", "expected_comma_or_closing_bracket", depth).map(Term::List);
        }
        if self.take(b"<<") {
            return self.binary();
        }
        if self.take(b"\"") {
            return self.quoted(b'"', "unterminated_string").map(|_| Term::Characters);
        }
        if self.take(b"'") {
            return atom(&self.quoted(b'\'', "unterminated_quoted_atom")?);
        }
        let negative = self.take(b"-");
        if negative || self.take(b"+") {
            self.skip_space();
            return match self.rest.first() {
                Some(b'0'..=b'9') => Ok(self.number(negative)?),
                _ => Err("unexpected_character".to_owned()),
            };
        }
        match self.rest.first() {
            Some(b'0'..=b'9') => self.number(false),
            Some(b'a'..=b'z') => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@');
                atom(self.take_while(is_part))
            }
            Some(_) => Err("unexpected_character".to_owned()),
            None => Err("unexpected_end".to_owned()),
        }
    }

    fn items(&mut self, end: &[u8], missing: &str, depth: usize) -> Result<Vec<Term>, Reason> {
        let mut items = Vec::new();
        if self.take(end) {
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            if self.take(end) {
                return Ok(items);
            }
            if !self.take(b",") {
                return Err(missing.to_owned());
            }
        }
    }

    fn binary(&mut self) -> Result<Term, Reason> {
        if self.take(b">>") {
            return Ok(Term::Binary(Vec::new()));
        }
        if !self.take(b"\"") {
            return Err("invalid_binary".to_owned());
        }
        let text = self.quoted(b'"', "unterminated_string")?;
        if self.take(b">>") { Ok(Term::Binary(text)) } else { Err("expected_closing_binary".to_owned()) }
    }

    /// What stands before the closing quote, which is taken too.
    fn quoted(&mut self, quote: u8, missing: &str) -> Result<Vec<u8>, Reason> {
        let mut text = Vec::new();
        loop {
            match *self.rest {
                [b'\\', byte, ref rest @ ..] => {
                    self.rest = rest;
                    text.push(match byte {
                        b'n' if quote == b'"' => b'\n',
                        b't' if quote == b'"' => b'\t',
                        b'r' if quote == b'"' => b'\r',
                        byte => byte,
                    });
                }
                [byte, ref rest @ ..] => {
                    self.rest = rest;
                    if byte == quote {
                        return Ok(text);
                    }
                    text.push(byte);
                }
                [] => return Err(missing.to_owned()),
            }
        }
    }

    /// Digits, and perhaps a fraction and an exponent. An integer beyond 64 bits becomes a float.
    fn number(&mut self, negative: bool) -> Result<Term, Reason> {
        let start = self.rest;
        self.take_while(u8::is_ascii_digit);
        let mut is_float = false;
        if let [b'.', b'0'..=b'9', ..] = self.rest {
            is_float = true;
            self.rest = &self.rest[1..];
            self.take_while(u8::is_ascii_digit);
            if let [b'e' | b'E', ..] = self.rest {
                self.rest = &self.rest[1..];
                if let [b'+' | b'-', ..] = self.rest {
                    self.rest = &self.rest[1..];
                }
                self.take_while(u8::is_ascii_digit);
            }
        }
        let text = std::str::from_utf8(&start[..start.len() - self.rest.len()]).unwrap_or_default();
        let sign = if negative { "-" } else { "" };
        let text = format!("{sign}{text}");
        if !is_float && let Ok(integer) = text.parse() {
            return Ok(Term::Integer(integer));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Term::Float(float)),
            _ => Err("invalid_term".to_owned()),
        }
    }

    fn take_while(&mut self, is_part: impl Fn(&u8) -> bool) -> &[u8] {
        let len = self.rest.iter().take_while(|byte| is_part(byte)).count();
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}

fn atom(name: &[u8]) -> Result<Term, Reason> {
    let known = ATOMS.into_iter().find(|atom| atom.as_bytes() == name);
    known.map(Term::Atom).ok_or_else(|| format!("{{unknown_atom,\"{}\"}}", String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(text: &str) -> Term {
        Term::Binary(text.as_bytes().to_vec())
    }

    #[test]
    fn terms() {
        let cases = [
            ("true.", Term::Atom("true")),
            (" 'and' ", Term::Atom("and")),
            ("'\\<>'", Term::Atom("<>")),
            ("12", Term::Integer(12)),
            ("- 12 .", Term::Integer(-12)),
            ("+12", Term::Integer(12)),
            ("99999999999999999999", Term::Float(1e20)),
            ("1.5", Term::Float(1.5)),
            ("-1.5E-3", Term::Float(-1.5e-3)),
            ("<<>>", binary("")),
            ("<< \"a\\\"\\\\b\\n\" >>", binary("a\"\\b\n")),
            ("\"chars\"", Term::Characters),
            ("[]", Term::List(vec![])),
            ("[<<\"a\">>, 1]", Term::List(vec![binary("a"), Term::Integer(1)])),
            ("{}", Term::Tuple(vec![])),
            (
                "{'=',{'ident',<<\"weight\">>},2501}.\n",
                Term::Tuple(vec![
                    Term::Atom("="),
                    Term::Tuple(vec![Term::Atom("ident"), binary("weight")]),
                    Term::Integer(2501),
                ]),
            ),
        ];
        for (text, term) in cases {
            assert_eq!(parse(text.as_bytes()), Ok(term), "{text}");
        }
    }

    #[test]
    fn what_is_no_term_is_refused_with_rabbitmqs_reason() {
        let cases = [
            ("", "unexpected_end"),
            ("{", "unexpected_end"),
            ("Variable", "unexpected_character"),
            ("-x", "unexpected_character"),
            ("{true", "expected_comma_or_closing_brace"),
            ("{true]", "expected_comma_or_closing_brace"),
            ("[true}", "expected_comma_or_closing_bracket"),
            ("<<1>>", "invalid_binary"),
            ("<<\"a\"", "expected_closing_binary"),
            ("<<\"a", "unterminated_string"),
            ("'and", "unterminated_quoted_atom"),
            ("true. x", "trailing_characters"),
            ("true true", "trailing_characters"),
            ("1.5e", "invalid_term"),
            ("1.0e999", "invalid_term"),
            ("{xq7fkd9_3jrvm, 42}.", "{unknown_atom,\"xq7fkd9_3jrvm\"}"),
        ];
        for (text, reason) in cases {
            assert_eq!(parse(text.as_bytes()), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "{".repeat(depth), "}".repeat(depth));
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(parse(nested(DEPTH_MAX + 1).as_bytes()), Err("max_depth_exceeded".to_owned()));
        assert!(parse(&b"[".repeat(1_000_000)).is_err());
    }
}
