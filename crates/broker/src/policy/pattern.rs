//! Patterns of policies.
//!
//! RabbitMQ's are PCRE, ours are of the crate `regex`, whose time is linear in the length of the name. What it does not
//! have is refused, and so is what means another thing there: a policy must not quietly apply to other names.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSetBinaryOp, ClassSetItem, Flag, FlagsItemKind, GroupKind,
};

/// Longest pattern, in bytes (`rabbit_re:max_pattern_length/0`).
const LEN_MAX: usize = 1024;

/// Most memory that a compiled pattern takes, in bytes: a short one may repeat what is repeated.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PatternError {
    TooLong,
    /// The reason and the place of it, as an Erlang term; PCRE says it in other words.
    Invalid(String),
}

impl PatternError {
    /// What RabbitMQ says of a parameter's field with such a pattern (`rabbit_parameter_validation:regex/2`).
    pub(super) fn of_field(self, name: &str) -> String {
        match self {
            Self::TooLong => format!("{name} must not exceed {LEN_MAX} bytes"),
            Self::Invalid(reason) => format!("{name} should be regular expression but is invalid: {reason}"),
        }
    }
}

/// Compiles a pattern. It is searched in names as bytes, and matches anywhere if it is not anchored.
///
/// # Errors
/// If it is too long, or not a pattern here.
pub(super) fn compile(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > LEN_MAX {
        return Err(PatternError::TooLong);
    }
    build(pattern).map_err(PatternError::Invalid)
}

fn build(pattern: &str) -> Result<Regex, String> {
    let at = |reason: &str, span: &ast::Span| format!("{{{reason:?},{}}}", span.start.offset);
    let parsed = ast::parse::Parser::new()
        .parse(pattern)
        .map_err(|error| at(&error.kind().to_string(), error.span()))?;
    ast::visit(&parsed, Differences).map_err(|(reason, span)| at(reason, &span))?;
    RegexBuilder::new(pattern).unicode(false).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        let text = error.to_string();
        // An error of the syntax shows the pattern first, and says below what is wrong with it.
        let reason = text.lines().last().unwrap_or_default();
        format!("{:?}", reason.strip_prefix("error: ").unwrap_or(reason))
    })
}

/// Looks for what means one thing to `regex` and another to PCRE.
struct Differences;

type Difference = (&'static str, ast::Span);

impl ast::Visitor for Differences {
    type Output = ();
    type Err = Difference;

    fn finish(self) -> Result<(), Difference> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Difference> {
        match ast {
            Ast::Repetition(outer) => match &*outer.ast {
                // To PCRE, `a*+` is one operator that does not give back what it took.
                Ast::Repetition(_) => Err(("possessive quantifiers are not supported", outer.op.span)),
                _ => Ok(()),
            },
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => Err(("this kind of word boundary is not supported", assertion.span)),
            },
            Ast::Flags(set) => check_flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) => check_flags(flags),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Difference> {
        match item {
            // To PCRE, the second `[` of `[a[b]]` is one of the characters.
            ClassSetItem::Bracketed(class) => {
                Err(("character classes in others are not supported", class.span))
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, operation: &ClassSetBinaryOp) -> Result<(), Difference> {
        Err(("operations on character classes are not supported", operation.span))
    }
}

fn check_flags(flags: &ast::Flags) -> Result<(), Difference> {
    // `(?R)` calls the whole pattern in PCRE, which does not know `u`.
    let foreign =
        |item: &&ast::FlagsItem| matches!(item.kind, FlagsItemKind::Flag(Flag::CRLF | Flag::Unicode));
    match flags.items.iter().find(foreign) {
        Some(item) => Err(("this flag is not supported", item.span)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q1_patterns_match_names_as_bytes_anywhere() {
        let cases: [(&str, &[u8], bool); 11] = [
            ("", b"", true),
            ("", b"q", true),
            ("or", b"orders", true),
            ("^or", b"my-orders", false),
            ("s$", b"orders", true),
            ("^(amq\\.)", b"amq.gen-1", true),
            ("^(amq\\.)", b"amqXgen-1", false),
            ("(?i)ORD", b"orders", true),
            ("^.$", b"\xff", true),
            ("[[:digit:]]{2,}", b"q12", true),
            ("^[]a]+$", b"]a", true),
        ];
        for (pattern, name, expected) in cases {
            let regex = compile(pattern).expect("it is a pattern");
            assert_eq!(regex.is_match(name), expected, "{pattern}");
        }
    }

    #[test]
    fn q1_what_pcre_reads_otherwise_is_refused() {
        let cases = [
            ("(", r#"{"unclosed group",0}"#),
            ("a(?=b)", r#"{"look-around, including look-ahead and look-behind, is not supported",1}"#),
            ("(?<!b)a", r#"{"look-around, including look-ahead and look-behind, is not supported",0}"#),
            (r"(a)\1", r#"{"backreferences are not supported",3}"#),
            ("a++b", r#"{"possessive quantifiers are not supported",2}"#),
            ("a{2}+", r#"{"possessive quantifiers are not supported",4}"#),
            ("[a[b]]", r#"{"character classes in others are not supported",2}"#),
            ("[a-z&&b]", r#"{"operations on character classes are not supported",1}"#),
            (r"\<q", r#"{"this kind of word boundary is not supported",0}"#),
            ("a(?R)", r#"{"this flag is not supported",3}"#),
            ("(?u:a)", r#"{"this flag is not supported",2}"#),
            (r"\pL", r#""Unicode not allowed here""#),
        ];
        for (pattern, reason) in cases {
            let error = PatternError::Invalid(reason.to_owned());
            assert_eq!(compile(pattern).map(drop), Err(error), "{pattern}");
        }
    }

    #[test]
    fn q1_patterns_are_bounded() {
        let error = compile(&"a".repeat(1025)).expect_err("it is too long");
        assert_eq!(error.of_field("pattern"), "pattern must not exceed 1024 bytes");
        assert!(compile(&"a".repeat(1024)).is_ok());
        let error = compile("((a{1000}){1000}){1000}").expect_err("it would be huge").of_field("pattern");
        assert!(error.contains("exceeds size limit"), "{error}");
        assert!(compile(&"(".repeat(1000)).is_err());
    }
}
