//! Selectors of JMS: conditions on the headers of a message (SQL-92, JMS 1.1 section 3.8.1), in the form into which
//! RabbitMQ's JMS client compiles them, and with the results of `sjx_evaluator`.
//!
//! Logic has three values: what is said of a header that the message does not have is unknown, and so is whether a
//! selector holds that depends on it. Only what is true passes.
//!
//! Where RabbitMQ's evaluator fails and takes the publisher's connection with it, such as when text is multiplied, the
//! result is unknown here. Division by zero gives infinity or no number, as in Java.

use std::cmp::Ordering;

use regex::bytes::{Regex, RegexBuilder};
use warren_types::{FieldTable, FieldValue};

use crate::InvalidArgument;
use crate::selector_term::{Term, parse};

/// Longest pattern of `LIKE`, in bytes as a regular expression (`rabbit_re:max_pattern_length/0`).
const PATTERN_LEN_MAX: usize = 1024;

/// A condition, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Selector(Expression);

#[derive(Debug)]
enum Expression {
    Value(Value),
    Header(Vec<u8>),
    Not(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    IsNull(Box<Self>),
    Between(Box<[Self; 3]>),
    Like(Box<Self>, Pattern),
    In(Box<Self>, Vec<Value>),
    Sign(Sign, Box<Self>),
    Compare(Comparison, Box<[Self; 2]>),
    Arithmetic(Operator, Box<[Self; 2]>),
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unknown,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Vec<u8>),
    /// Something that no condition is about, such as a tuple.
    Other,
}

#[derive(Debug, Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Differs,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug)]
enum Pattern {
    Like(Vec<Step>),
    Regex(Regex),
}

/// A step of a `LIKE` pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Byte(u8),
    /// `_`: one character, which in UTF-8 may be several bytes. In RabbitMQ it is one byte.
    Any,
    /// `%`
    Rest,
}

impl Selector {
    /// Reads the text of an Erlang term.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, InvalidArgument> {
        let term = parse(text).map_err(InvalidArgument::Selector)?;
        compile(&term).map(Self).map_err(InvalidArgument::SelectorPattern)
    }

    /// Whether a message with these headers passes.
    pub(crate) fn matches(&self, headers: &FieldTable) -> bool {
        self.0.evaluate(headers) == Value::Bool(true)
    }
}

/// The meaning of a term; the error tells what is wrong with a pattern in it.
fn compile(term: &Term) -> Result<Expression, String> {
    let boxed = |term: &Term| compile(term).map(Box::new);
    let pair = |a: &Term, b: &Term| Ok::<_, String>(Box::new([compile(a)?, compile(b)?]));
    let between = |value: &Term, from: &Term, to: &Term| {
        Ok::<_, String>(Expression::Between(Box::new([compile(value)?, compile(from)?, compile(to)?])))
    };
    let negated = |expression: Expression| Expression::Not(Box::new(expression));
    let Term::Tuple(items) = term else { return Ok(Expression::Value(constant(term))) };
    let [Term::Atom(operator), operands @ ..] = &items[..] else {
        return Ok(Expression::Value(Value::Other));
    };
    Ok(match (*operator, operands) {
        ("ident", [Term::Binary(name)]) => Expression::Header(name.clone()),
        ("not", [operand]) => Expression::Not(boxed(operand)?),
        ("is_null", [operand]) => Expression::IsNull(boxed(operand)?),
        ("not_null", [operand]) => negated(Expression::IsNull(boxed(operand)?)),
        ("+", [operand]) => Expression::Sign(Sign::Plus, boxed(operand)?),
        ("-", [operand]) => Expression::Sign(Sign::Minus, boxed(operand)?),
        ("and", [a, b]) => Expression::And(pair(a, b)?),
        ("or", [a, b]) => Expression::Or(pair(a, b)?),
        ("between", [value, from, to]) => between(value, from, to)?,
        ("not_between", [value, from, to]) => negated(between(value, from, to)?),
        ("between" | "not_between", [value, Term::Tuple(range)]) => match &range[..] {
            [Term::Atom("range"), from, to] if *operator == "between" => between(value, from, to)?,
            [Term::Atom("range"), from, to] => negated(between(value, from, to)?),
            _ => Expression::Value(Value::Other),
        },
        ("like", [value, pattern, escape]) => Expression::Like(boxed(value)?, Pattern::new(pattern, escape)?),
        ("not_like", [value, pattern, escape]) => {
            negated(Expression::Like(boxed(value)?, Pattern::new(pattern, escape)?))
        }
        ("in", [value, Term::List(values)]) => in_list(boxed(value)?, values),
        ("not_in", [value, Term::List(values)]) => negated(in_list(boxed(value)?, values)),
        (operator, [a, b]) => match (comparison(operator), arithmetic(operator)) {
            (Some(comparison), _) => Expression::Compare(comparison, pair(a, b)?),
            (None, Some(operator)) => Expression::Arithmetic(operator, pair(a, b)?),
            (None, None) => Expression::Value(Value::Other),
        },
        _ => Expression::Value(Value::Other),
    })
}

fn in_list(value: Box<Expression>, values: &[Term]) -> Expression {
    Expression::In(value, values.iter().map(constant).collect())
}

fn constant(term: &Term) -> Value {
    match term {
        Term::Atom("true") => Value::Bool(true),
        Term::Atom("false") => Value::Bool(false),
        Term::Integer(integer) => Value::Integer(*integer),
        Term::Float(float) => Value::Float(*float),
        Term::Binary(text) => Value::Text(text.clone()),
        Term::Atom(_) | Term::Characters | Term::List(_) | Term::Tuple(_) => Value::Other,
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        "=" => Comparison::Equal,
        "<>" => Comparison::Differs,
        "<" => Comparison::Less,
        ">" => Comparison::Greater,
        "<=" => Comparison::LessOrEqual,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(operator: &str) -> Option<Operator> {
    Some(match operator {
        "+" => Operator::Add,
        "-" => Operator::Subtract,
        "*" => Operator::Multiply,
        "/" => Operator::Divide,
        _ => return None,
    })
}

impl Expression {
    /// As deep as the term that it was made of, which is bounded.
    fn evaluate(&self, headers: &FieldTable) -> Value {
        match self {
            Self::Value(value) => value.clone(),
            Self::Header(name) => header(headers, name),
            Self::Not(operand) => match operand.evaluate(headers) {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Unknown,
            },
            Self::And(operands) => both(operands, headers, false),
            Self::Or(operands) => both(operands, headers, true),
            Self::IsNull(operand) => Value::Bool(operand.evaluate(headers) == Value::Unknown),
            Self::Between(operands) => {
                let [value, from, to] = operands.each_ref().map(|operand| operand.evaluate(headers));
                if [&value, &from, &to].contains(&&Value::Unknown) {
                    return Value::Unknown;
                }
                Value::Bool(
                    order(&from, &value).is_some_and(Ordering::is_le)
                        && order(&value, &to).is_some_and(Ordering::is_le),
                )
            }
            Self::Like(value, pattern) => match value.evaluate(headers) {
                Value::Text(text) => Value::Bool(pattern.matches(&text)),
                _ => Value::Unknown,
            },
            Self::In(value, values) => match value.evaluate(headers) {
                Value::Unknown => Value::Unknown,
                value => Value::Bool(values.contains(&value)),
            },
            Self::Sign(sign, operand) => match (sign, operand.evaluate(headers)) {
                (Sign::Plus, number @ (Value::Integer(_) | Value::Float(_))) => number,
                (Sign::Minus, Value::Integer(number)) => {
                    number.checked_neg().map_or(Value::Float(-(number as f64)), Value::Integer)
                }
                (Sign::Minus, Value::Float(number)) => Value::Float(-number),
                _ => Value::Unknown,
            },
            Self::Compare(comparison, operands) => {
                let [a, b] = operands.each_ref().map(|operand| operand.evaluate(headers));
                compare(*comparison, &a, &b)
            }
            Self::Arithmetic(operator, operands) => {
                let [a, b] = operands.each_ref().map(|operand| operand.evaluate(headers));
                calculate(*operator, &a, &b)
            }
        }
    }
}

/// `and`, or `or`: one operand with the value `deciding` decides.
fn both(operands: &[Expression; 2], headers: &FieldTable, deciding: bool) -> Value {
    let [a, b] = operands;
    let a = a.evaluate(headers);
    if a == Value::Bool(deciding) {
        return a;
    }
    match (a, b.evaluate(headers)) {
        (_, Value::Bool(b)) if b == deciding => Value::Bool(deciding),
        (Value::Bool(_), Value::Bool(_)) => Value::Bool(!deciding),
        _ => Value::Unknown,
    }
}

fn header(headers: &FieldTable, name: &[u8]) -> Value {
    let Some((_, value)) = headers.0.iter().find(|(key, _)| key.as_bytes() == name) else {
        return Value::Unknown;
    };
    match value {
        FieldValue::LongString(text) => Value::Text(text.clone()),
        FieldValue::Bool(value) => Value::Bool(*value),
        FieldValue::F32(number) => Value::Float((*number).into()),
        FieldValue::F64(number) => Value::Float(*number),
        // Of other types than these RabbitMQ's evaluator knows nothing.
        value => value.as_integer().map_or(Value::Unknown, Value::Integer),
    }
}

fn compare(comparison: Comparison, a: &Value, b: &Value) -> Value {
    if *a == Value::Unknown || *b == Value::Unknown {
        return Value::Unknown;
    }
    let order = order(a, b);
    Value::Bool(match comparison {
        Comparison::Equal => order.is_some_and(Ordering::is_eq),
        Comparison::Differs => !order.is_some_and(Ordering::is_eq),
        Comparison::Less => order.is_some_and(Ordering::is_lt),
        Comparison::Greater => order.is_some_and(Ordering::is_gt),
        Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
        Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
    })
}

/// The order of Erlang terms: numbers, then booleans, then text.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    let class = |value: &Value| match value {
        Value::Integer(_) | Value::Float(_) => Some(0),
        Value::Bool(_) => Some(1),
        Value::Text(_) => Some(2),
        Value::Unknown | Value::Other => None,
    };
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => Some(class(a)?.cmp(&class(b)?)),
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

/// Integers stay integers while they fit, but for division.
fn calculate(operator: Operator, a: &Value, b: &Value) -> Value {
    if let (Value::Integer(a), Value::Integer(b)) = (a, b) {
        let exact = match operator {
            Operator::Add => a.checked_add(*b),
            Operator::Subtract => a.checked_sub(*b),
            Operator::Multiply => a.checked_mul(*b),
            Operator::Divide => None,
        };
        if let Some(exact) = exact {
            return Value::Integer(exact);
        }
    }
    let (Some(a), Some(b)) = (number(a), number(b)) else { return Value::Unknown };
    Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
    })
}

impl Pattern {
    fn new(pattern: &Term, escape: &Term) -> Result<Self, String> {
        match (pattern, escape) {
            (Term::Atom("regex"), Term::Binary(text)) => regex(text),
            (Term::Binary(text), Term::Atom("no_escape")) => like(text, None),
            (Term::Binary(text), Term::Binary(escape)) => match escape[..] {
                [escape] => like(text, Some(escape)),
                _ => Err("{invalid_like_pattern,invalid_escape}".to_owned()),
            },
            (Term::Binary(_), _) => Err("{invalid_like_pattern,invalid_escape}".to_owned()),
            _ => Err("{invalid_like_pattern,not_a_binary_pattern}".to_owned()),
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Like(steps) => like_matches(steps, text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn like(text: &[u8], escape: Option<u8>) -> Result<Pattern, String> {
    if text.len() > PATTERN_LEN_MAX {
        return Err("{invalid_like_pattern,pattern_too_long}".to_owned());
    }
    let mut steps = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (*byte, behind) {
            (byte, [escaped, behind @ ..]) if Some(byte) == escape => {
                steps.push(Step::Byte(*escaped));
                rest = behind;
            }
            (b'_', _) => steps.push(Step::Any),
            (b'%', _) => steps.push(Step::Rest),
            (byte, _) => steps.push(Step::Byte(byte)),
        }
    }
    Ok(Pattern::Like(steps))
}

/// A regular expression, which must match the whole text. No client is known to send one.
fn regex(text: &[u8]) -> Result<Pattern, String> {
    if text.len() > PATTERN_LEN_MAX {
        return Err("{invalid_regex,pattern_too_long}".to_owned());
    }
    let whole = format!("\\A(?:{})\\z", String::from_utf8_lossy(text));
    let built = RegexBuilder::new(&whole).unicode(false).size_limit(1 << 18).build();
    built.map(Pattern::Regex).map_err(|_| format!("{{invalid_regex,{:?}}}", String::from_utf8_lossy(text)))
}

/// Goes back to the last `%` only: text times pattern at most.
fn like_matches(steps: &[Step], text: &[u8]) -> bool {
    let (mut step, mut at) = (0, 0);
    let mut last_rest: Option<(usize, usize)> = None;
    loop {
        let taken = match (steps.get(step), text.get(at)) {
            (None, None) => return true,
            (Some(Step::Rest), _) => {
                step += 1;
                last_rest = Some((step, at));
                continue;
            }
            (Some(Step::Byte(wanted)), Some(byte)) if wanted == byte => 1,
            (Some(Step::Any), Some(_)) => character_len(&text[at..]),
            _ => 0,
        };
        if taken > 0 {
            (step, at) = (step + 1, at + taken);
            continue;
        }
        match last_rest {
            Some((behind, from)) if from < text.len() => {
                last_rest = Some((behind, from + 1));
                (step, at) = (behind, from + 1);
            }
            _ => return false,
        }
    }
}

/// Length of the first character of a text that is not empty, in bytes.
fn character_len(text: &[u8]) -> usize {
    1 + text[1..].iter().take_while(|byte| (0x80..0xc0).contains(*byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> FieldTable {
        let mut table = FieldTable::new();
        for (name, value) in [
            ("JMSType", FieldValue::string("car")),
            ("colour", FieldValue::string("blue")),
            ("altcol", FieldValue::string("'blue")),
            ("likevar", FieldValue::string("bl_ue")),
            ("accent", FieldValue::string("bl\u{fc}e")),
            ("weight", FieldValue::I32(2501)),
            ("WeIgHt", FieldValue::I32(2)),
            ("big", FieldValue::I64(i64::MAX)),
            ("least", FieldValue::I64(i64::MIN)),
            ("afloat", FieldValue::F32(0.5)),
            ("abool", FieldValue::Bool(false)),
            ("abool2", FieldValue::Bool(true)),
            ("void", FieldValue::Void),
        ] {
            table.insert(name, value);
        }
        table
    }

    /// Whether it holds; nothing if that is unknown.
    fn value(text: &str) -> Option<bool> {
        let selector = Selector::parse(text.as_bytes()).unwrap();
        let found = selector.0.evaluate(&headers());
        assert_eq!(selector.matches(&headers()), found == Value::Bool(true));
        match found {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn comparisons() {
        let ident = |name: &str| format!("{{'ident',<<\"{name}\">>}}");
        let (weight, colour, float) = (ident("weight"), ident("colour"), ident("afloat"));
        let cases = [
            (format!("{{'=',{},<<\"car\">>}}.", ident("JMSType")), Some(true)),
            (format!("{{'=',{colour},<<\"Blue\">>}}"), Some(false)),
            (format!("{{'<>',{colour},<<\"green\">>}}"), Some(true)),
            (format!("{{'=',{weight},2501}}"), Some(true)),
            (format!("{{'=',{weight},2501.0}}"), Some(true)),
            (format!("{{'=',{},2}}", ident("WeIgHt")), Some(true)),
            (format!("{{'=',2501,{weight}}}"), Some(true)),
            (format!("{{'=',{float},0.5}}"), Some(true)),
            (format!("{{'>',{weight},2500}}"), Some(true)),
            (format!("{{'<',{weight},2501}}"), Some(false)),
            (format!("{{'>=',{weight},2501}}"), Some(true)),
            (format!("{{'<=',{weight},2500}}"), Some(false)),
            (format!("{{'=',{colour},{weight}}}"), Some(false)),
            // As Erlang orders terms.
            (format!("{{'>',{colour},{weight}}}"), Some(true)),
            (format!("{{'>',{},{weight}}}", ident("abool")), Some(true)),
            (format!("{{'<',{},{colour}}}", ident("abool")), Some(true)),
            (format!("{{'=',{},true}}", ident("abool2")), Some(true)),
            (format!("{{'<=',{},2500}}", ident("missing")), None),
            (format!("{{'<>',{},2500}}", ident("missing")), None),
            (format!("{{'=',{},{}}}", ident("missing"), ident("missing")), None),
            (format!("{{'=',{},1}}", ident("void")), None),
            (ident("abool"), Some(false)),
            (ident("abool2"), Some(true)),
            (ident("missing"), None),
            (ident("colour"), None),
            ("true.".to_owned(), Some(true)),
            ("<<\"false\">>.".to_owned(), None),
            ("{'unary',1}".replace("unary", "in"), None),
        ];
        for (text, expected) in cases {
            assert_eq!(value(&text), expected, "{text}");
        }
    }

    #[test]
    fn logic_has_three_values() {
        let truth = ["{ident,<<\"abool2\">>}", "{ident,<<\"abool\">>}", "{ident,<<\"missing\">>}"];
        let known = |index: usize| [Some(true), Some(false), None][index];
        for a in 0..3 {
            assert_eq!(value(&format!("{{'not',{}}}", truth[a])), known(a).map(|value| !value));
            for b in 0..3 {
                let both = match (known(a), known(b)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                let either = match (known(a), known(b)) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                };
                assert_eq!(value(&format!("{{'and',{},{}}}", truth[a], truth[b])), both, "{a} and {b}");
                assert_eq!(value(&format!("{{'or',{},{}}}", truth[a], truth[b])), either, "{a} or {b}");
            }
        }
        assert_eq!(value("{'is_null',{ident,<<\"missing\">>}}"), Some(true));
        assert_eq!(value("{'is_null',{ident,<<\"colour\">>}}"), Some(false));
        assert_eq!(value("{'not_null',{ident,<<\"missing\">>}}"), Some(false));
        assert_eq!(value("{'not_null',{ident,<<\"colour\">>}}"), Some(true));
    }

    #[test]
    fn ranges_and_lists() {
        let cases = [
            ("{'between',{ident,<<\"weight\">>},0,2501}", Some(true)),
            ("{'between',{ident,<<\"weight\">>},{range,2501,2502}}", Some(true)),
            ("{'between',17,{range,18,19}}", Some(false)),
            ("{'not_between',16,{range,17,18}}", Some(true)),
            ("{'not_between',{ident,<<\"weight\">>},2501,2501}", Some(false)),
            ("{'between',{ident,<<\"missing\">>},0,1}", None),
            ("{'not_between',1,{ident,<<\"missing\">>},1}", None),
            ("{'in',{ident,<<\"colour\">>},[<<\"green\">>,<<\"blue\">>]}", Some(true)),
            ("{'in',{ident,<<\"colour\">>},[<<\"bleen\">>]}", Some(false)),
            ("{'in',{ident,<<\"colour\">>},[]}", Some(false)),
            ("{'not_in',{ident,<<\"colour\">>},[<<\"green\">>,<<\"blue\">>]}", Some(false)),
            ("{'not_in',{ident,<<\"colour\">>},[<<\"green\">>]}", Some(true)),
            ("{'in',{ident,<<\"missing\">>},[<<\"blue\">>]}", None),
            ("{'not_in',{ident,<<\"missing\">>},[<<\"blue\">>]}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn patterns() {
        let cases = [
            ("like", "colour", "bl%", "no_escape", Some(true)),
            ("like", "colour", "bl_e", "no_escape", Some(true)),
            ("like", "colour", "bl", "no_escape", Some(false)),
            ("like", "colour", "l%", "no_escape", Some(false)),
            ("like", "colour", "%", "no_escape", Some(true)),
            ("like", "colour", "%u%e%", "no_escape", Some(true)),
            ("like", "colour", "_%_%_%_", "no_escape", Some(true)),
            ("like", "colour", "_%_%_%_%_", "no_escape", Some(false)),
            ("like", "colour", ".*", "no_escape", Some(false)),
            ("like", "likevar", "bl!_ue", "<<\"!\">>", Some(true)),
            ("like", "likevar", "b_!_ue", "<<\"!\">>", Some(true)),
            ("like", "colour", "bl!_e", "<<\"!\">>", Some(false)),
            ("like", "accent", "bl_e", "no_escape", Some(true)),
            ("like", "altcol", "'bl%", "no_escape", Some(true)),
            ("not_like", "altcol", "bl%", "no_escape", Some(true)),
            ("not_like", "colour", "bl%", "no_escape", Some(false)),
            ("like", "missing", "%", "no_escape", None),
            ("not_like", "missing", "%", "no_escape", None),
            ("like", "weight", "%", "no_escape", None),
        ];
        for (operator, name, pattern, escape, expected) in cases {
            let text = format!("{{'{operator}',{{'ident',<<\"{name}\">>}},<<\"{pattern}\">>,{escape}}}");
            assert_eq!(value(&text), expected, "{text}");
        }
        assert_eq!(value("{like,{ident,<<\"colour\">>},regex,<<\"b.*|x\">>}"), Some(true));
        assert_eq!(value("{like,{ident,<<\"colour\">>},regex,<<\"b.|lue\">>}"), Some(false));
    }

    #[test]
    fn bad_patterns_are_refused() {
        let refusal = |pattern: &str, escape: &str| {
            let text = format!("{{'and',true,{{'like',{{ident,<<\"a\">>}},{pattern},{escape}}}}}");
            Selector::parse(text.as_bytes()).unwrap_err().to_string()
        };
        let prefix = "invalid JMS selector pattern: ";
        let long = format!("<<\"{}\">>", "a".repeat(PATTERN_LEN_MAX + 1));
        let cases = [
            (&*long, "no_escape", "{invalid_like_pattern,pattern_too_long}"),
            ("<<\"a\">>", "<<\"ab\">>", "{invalid_like_pattern,invalid_escape}"),
            ("<<\"a\">>", "true", "{invalid_like_pattern,invalid_escape}"),
            ("5", "no_escape", "{invalid_like_pattern,not_a_binary_pattern}"),
            ("regex", "<<\"(unclosed\">>", "{invalid_regex,\"(unclosed\"}"),
            ("regex", &long, "{invalid_regex,pattern_too_long}"),
        ];
        for (pattern, escape, reason) in cases {
            assert_eq!(refusal(pattern, escape), format!("{prefix}{reason}"));
        }
        let error = Selector::parse(b"{xq7fkd9_3jrvm, 42}.").unwrap_err().to_string();
        assert_eq!(error, "invalid JMS selector: {unknown_atom,\"xq7fkd9_3jrvm\"}");
    }

    #[test]
    fn arithmetic_follows_the_numbers() {
        let cases = [
            ("{'=',{'+',{ident,<<\"weight\">>},1},2502}", Some(true)),
            ("{'=',{'*',{ident,<<\"WeIgHt\">>},{'-',3}},-6}", Some(true)),
            ("{'=',{'/',{ident,<<\"WeIgHt\">>},4},0.5}", Some(true)),
            ("{'=',{'-',{ident,<<\"afloat\">>},{'+',1}},-0.5}", Some(true)),
            ("{'>',{'/',1,0},5}", Some(true)),
            ("{'=',{'/',0,0},{'/',0,0}}", Some(false)),
            ("{'>',{'+',{ident,<<\"big\">>},1},9.0e18}", Some(true)),
            ("{'>',{'-',{ident,<<\"least\">>}},9.0e18}", Some(true)),
            ("{'=',{'+',{ident,<<\"colour\">>},1},2}", None),
            ("{'=',{'-',{ident,<<\"colour\">>}},2}", None),
            ("{'=',{'+',{ident,<<\"missing\">>},1},2}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_pattern_of_many_percent_signs_takes_no_exponential_time() {
        let steps: Vec<_> =
            (0..512).flat_map(|_| [Step::Rest, Step::Byte(b'a')]).chain([Step::Byte(b'b')]).collect();
        assert!(!like_matches(&steps, &b"a".repeat(100_000)));
    }
}
