//! The headers exchange: headers of the message match the arguments of the binding
//! (`rabbit_exchange_type_headers`).
//!
//! Cost: all bindings of the exchange are tried, each with one merge of its sorted arguments and the
//! message's sorted headers.

use smallvec::SmallVec;
use warren_types::{FieldTable, FieldValue};

use crate::arguments::equal_terms;
use crate::table::BindingTable;
use crate::targets::Target;
use crate::{HashMap, InvalidArgument, to_index};

/// The bindings of a headers exchange; the arguments stay in the table of bindings.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    entries: Vec<Entry>,
    /// Where in the list a binding is.
    positions: HashMap<u32, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    binding: u32,
    target: Target,
    rule: Rule,
}

/// What the argument `x-match` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// One match is enough.
    any: bool,
    /// Arguments whose names start with `x-` count too.
    with_x: bool,
}

impl Rule {
    /// The rule in the arguments of a binding; `all` if they have none.
    pub(crate) fn from_arguments(arguments: &FieldTable) -> Result<Self, InvalidArgument> {
        let (any, with_x) = match arguments.get("x-match") {
            None => (false, false),
            Some(FieldValue::LongString(rule)) => match rule.as_slice() {
                b"all" => (false, false),
                b"any" => (true, false),
                b"all-with-x" => (false, true),
                b"any-with-x" => (true, true),
                _ => return Err(InvalidArgument::MatchValue(rule.clone())),
            },
            Some(value) => return Err(InvalidArgument::MatchType(value.clone())),
        };
        Ok(Self { any, with_x })
    }

    /// Without arguments that count, `all` matches everything and `any` nothing.
    fn matches(self, arguments: &FieldTable, headers: &SortedHeaders<'_>) -> bool {
        let mut rest = &headers.0[..];
        for (name, wanted) in &arguments.0 {
            let name = name.as_bytes();
            if if self.with_x { name == b"x-match" } else { name.starts_with(b"x-") } {
                continue;
            }
            while rest.first().is_some_and(|(header, _)| *header < name) {
                rest = &rest[1..];
            }
            let hit = rest.first().is_some_and(|(header, value)| {
                *header == name && (*wanted == FieldValue::Void || equal_terms(wanted, value))
            });
            if hit == self.any {
                return hit;
            }
        }
        !self.any
    }
}

/// Headers of a message in order of their names.
#[derive(Debug)]
pub(crate) struct SortedHeaders<'a>(SmallVec<[(&'a [u8], &'a FieldValue); 16]>);

impl<'a> SortedHeaders<'a> {
    /// The last of several headers with the same name counts, as in `mc_amqpl:routing_headers/2`.
    pub(crate) fn new(headers: &'a FieldTable) -> Self {
        let mut sorted: SmallVec<[_; 16]> =
            headers.0.iter().rev().map(|(name, value)| (name.as_bytes(), value)).collect();
        sorted.sort_by_key(|(name, _)| *name);
        sorted.dedup_by_key(|(name, _)| *name);
        Self(sorted)
    }
}

impl Headers {
    pub(crate) fn bind(&mut self, binding: u32, target: Target, rule: Rule) {
        self.positions.insert(binding, to_index(self.entries.len()));
        self.entries.push(Entry { binding, target, rule });
    }

    pub(crate) fn unbind(&mut self, binding: u32) {
        let Some(position) = self.positions.remove(&binding) else { return };
        self.entries.swap_remove(position as usize);
        if let Some(moved) = self.entries.get(position as usize) {
            self.positions.insert(moved.binding, position);
        }
    }

    /// Calls `found` for the destination of every binding that matches.
    pub(crate) fn matching(
        &self,
        bindings: &BindingTable,
        headers: &SortedHeaders<'_>,
        mut found: impl FnMut(Target),
    ) {
        for entry in &self.entries {
            if entry.rule.matches(&bindings.get(entry.binding).binding.arguments, headers) {
                found(entry.target);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self, bindings: &BindingTable, count: &mut dyn FnMut(Target)) {
        assert_eq!(self.entries.len(), self.positions.len());
        for (position, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.positions.get(&entry.binding), Some(&to_index(position)));
            assert_eq!(bindings.get(entry.binding).target, entry.target);
            count(entry.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
        let mut table = FieldTable::new();
        for (name, value) in entries {
            table.insert(name, value.clone());
        }
        table
    }

    /// Whether a binding with `rule` and `arguments` lets a message with `headers` pass.
    fn check(rule: Option<&str>, arguments: &[(&str, FieldValue)], headers: &[(&str, FieldValue)]) -> bool {
        let mut arguments = table(arguments);
        if let Some(rule) = rule {
            arguments.insert("x-match", FieldValue::string(rule));
        }
        let rule = Rule::from_arguments(&arguments).unwrap();
        rule.matches(&arguments.sorted(), &SortedHeaders::new(&table(headers)))
    }

    fn text(value: &str) -> FieldValue {
        FieldValue::string(value)
    }

    #[test]
    fn without_arguments_all_is_true_and_any_is_false() {
        for headers in [&[][..], &[("a", text("1"))]] {
            assert!(check(None, &[], headers));
            assert!(check(Some("all"), &[], headers));
            assert!(check(Some("all-with-x"), &[], headers));
            assert!(!check(Some("any"), &[], headers));
            assert!(!check(Some("any-with-x"), &[], headers));
        }
    }

    #[test]
    fn all_and_any() {
        let arguments = [("b", text("2")), ("a", text("1"))];
        for (headers, all, any) in [
            (&[("a", text("1")), ("b", text("2")), ("c", text("3"))][..], true, true),
            (&[("c", text("3")), ("b", text("2"))], false, true),
            (&[("a", text("2")), ("b", text("1"))], false, false),
            (&[], false, false),
        ] {
            assert_eq!(check(None, &arguments, headers), all);
            assert_eq!(check(Some("any"), &arguments, headers), any);
        }
    }

    #[test]
    fn names_with_x_count_only_on_request() {
        let arguments = [("x-a", text("1"))];
        let headers = [("x-a", text("1"))];
        assert!(check(Some("all"), &arguments, &[]));
        assert!(!check(Some("any"), &arguments, &headers));
        assert!(!check(Some("all-with-x"), &arguments, &[]));
        assert!(check(Some("all-with-x"), &arguments, &headers));
        assert!(check(Some("any-with-x"), &arguments, &headers));
    }

    #[test]
    fn void_asks_for_presence() {
        assert!(check(None, &[("a", FieldValue::Void)], &[("a", text("1"))]));
        assert!(check(None, &[("a", FieldValue::Void)], &[("a", FieldValue::Void)]));
        assert!(!check(None, &[("a", FieldValue::Void)], &[("b", text("1"))]));
        assert!(!check(None, &[("a", text("1"))], &[("a", FieldValue::Void)]));
    }

    #[test]
    fn integers_are_equal_in_any_width_but_not_to_strings() {
        assert!(check(None, &[("a", FieldValue::I32(1))], &[("a", FieldValue::I64(1))]));
        assert!(!check(None, &[("a", FieldValue::I32(1))], &[("a", text("1"))]));
    }

    #[test]
    fn of_repeated_headers_the_last_counts_and_of_repeated_arguments_each() {
        assert!(check(None, &[("a", text("2"))], &[("a", text("1")), ("a", text("2"))]));
        assert!(!check(None, &[("a", text("1"))], &[("a", text("1")), ("a", text("2"))]));
        let twice = [("a", text("1")), ("a", text("2"))];
        assert!(!check(None, &twice, &[("a", text("2"))]));
        assert!(check(Some("any"), &twice, &[("a", text("2"))]));
    }

    #[test]
    fn other_rules_are_refused() {
        let rule = |value: FieldValue| Rule::from_arguments(&table(&[("x-match", value)]));
        assert_eq!(rule(text("ALL")), Err(InvalidArgument::MatchValue(b"ALL".to_vec())));
        assert_eq!(rule(FieldValue::Bool(true)), Err(InvalidArgument::MatchType(FieldValue::Bool(true))));
    }
}
