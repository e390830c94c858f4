//! Message interceptors: what the broker adds to messages that come in (features.md R6).
//!
//! A message that is changed is read and written anew, so it is never one that repeats the last publish; where nothing is
//! configured, nothing is looked at but two flags.

use std::sync::Arc;

use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_types::{FieldTable, FieldValue};

/// The header with the time, as the plugin `rabbitmq_message_timestamp` named it.
const TIMESTAMP_IN_MS: &str = "timestamp_in_ms";

/// The header with the node that routed the message.
const ROUTED_BY: &str = "x-routed-by";

/// What becomes of a value that the publisher has given itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Kept,
    /// It is replaced.
    Overwritten,
}

/// What is added to messages that come in.
#[derive(Debug, Clone, Default)]
pub struct Interceptors {
    /// When it came: the header `timestamp_in_ms` and the property `timestamp`.
    pub timestamp: Option<Existing>,
    /// Which node took it: the header `x-routed-by`.
    pub routing_node: Option<(Existing, Arc<str>)>,
}

impl Interceptors {
    /// Whether a message with these properties gets something.
    pub(crate) fn change(&self, properties: &Properties<'_>) -> bool {
        let gets = |existing, is_there: bool| existing == Existing::Overwritten || !is_there;
        let has_header = |name: &str| properties.has_header(name.as_bytes());
        self.timestamp.is_some_and(|existing| {
            gets(existing, has_header(TIMESTAMP_IN_MS) && properties.timestamp().is_some())
        }) || self.routing_node.as_ref().is_some_and(|(existing, _)| gets(*existing, has_header(ROUTED_BY)))
    }

    /// Adds what is configured (`rabbit_msg_interceptor_timestamp`, `rabbit_msg_interceptor_routing_node`).
    pub(crate) fn apply(&self, properties: &mut OwnedProperties, now_ms: u64) {
        let headers = properties.headers.get_or_insert_default();
        if let Some(existing) = self.timestamp {
            set(headers, TIMESTAMP_IN_MS, FieldValue::I64(now_ms as i64), existing);
            if existing == Existing::Overwritten || properties.timestamp.is_none() {
                properties.timestamp = Some(now_ms / 1000);
            }
        }
        if let Some((existing, node)) = &self.routing_node {
            set(headers, ROUTED_BY, FieldValue::string(node), *existing);
        }
    }
}

fn set(headers: &mut FieldTable, name: &str, value: FieldValue, existing: Existing) {
    match headers.0.iter_mut().find(|(key, _)| *key == *name) {
        None => headers.insert(name, value),
        Some((_, old)) if existing == Existing::Overwritten => *old = value,
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use warren_amqp091_codec::Dialect;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_123;

    /// Timestamp and headers.
    type Stamped = (Option<u64>, Vec<(String, FieldValue)>);

    /// What becomes of a message with this timestamp and these headers: none if it is passed on as it is.
    fn intercepted(
        interceptors: &Interceptors,
        timestamp: Option<u64>,
        headers: &[(&str, FieldValue)],
    ) -> Option<Stamped> {
        let mut table = FieldTable::new();
        headers.iter().for_each(|(name, value)| table.insert(name, value.clone()));
        let headers = (!table.is_empty()).then_some(table);
        let owned = OwnedProperties { timestamp, headers, ..OwnedProperties::default() };
        let mut raw = Vec::new();
        owned.encode(Dialect::Amqp091, &mut raw);
        let properties = Properties::parse(&raw).expect("they were just written");
        if !interceptors.change(&properties) {
            return None;
        }
        let mut owned = properties.to_owned();
        interceptors.apply(&mut owned, NOW_MS);
        let headers = owned.headers.unwrap_or_default().0;
        let named = headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Some((owned.timestamp, named))
    }

    fn header(name: &str, value: FieldValue) -> (String, FieldValue) {
        (name.to_owned(), value)
    }

    #[test]
    fn r6_nothing_is_added_where_nothing_is_configured() {
        assert_eq!(intercepted(&Interceptors::default(), None, &[]), None);
    }

    #[test]
    fn r6_the_timestamp_and_what_was_there() {
        let now = FieldValue::I64(NOW_MS as i64);
        let old = FieldValue::I64(7);
        let with = |existing| Interceptors { timestamp: Some(existing), ..Interceptors::default() };
        let seconds = Some(NOW_MS / 1000);
        for existing in [Existing::Kept, Existing::Overwritten] {
            assert_eq!(
                intercepted(&with(existing), None, &[]),
                Some((seconds, vec![header(TIMESTAMP_IN_MS, now.clone())]))
            );
        }
        // Header and property are kept independently of each other.
        let kept = with(Existing::Kept);
        assert_eq!(
            intercepted(&kept, Some(7), &[]),
            Some((Some(7), vec![header(TIMESTAMP_IN_MS, now.clone())]))
        );
        let given = [(TIMESTAMP_IN_MS, old.clone())];
        assert_eq!(intercepted(&kept, None, &given), Some((seconds, vec![header(TIMESTAMP_IN_MS, old)])));
        assert_eq!(intercepted(&kept, Some(7), &given), None);
        assert_eq!(
            intercepted(&with(Existing::Overwritten), Some(7), &given),
            Some((seconds, vec![header(TIMESTAMP_IN_MS, now)]))
        );
    }

    #[test]
    fn r6_the_node_and_what_was_there() {
        let with = |existing| Interceptors {
            routing_node: Some((existing, Arc::from("rabbit@here"))),
            ..Interceptors::default()
        };
        let here = header(ROUTED_BY, FieldValue::string("rabbit@here"));
        assert_eq!(intercepted(&with(Existing::Kept), None, &[]), Some((None, vec![here.clone()])));
        let given = [("a", FieldValue::Bool(true)), (ROUTED_BY, FieldValue::string("elsewhere"))];
        assert_eq!(intercepted(&with(Existing::Kept), None, &given), None);
        assert_eq!(
            intercepted(&with(Existing::Overwritten), None, &given),
            Some((None, vec![header("a", FieldValue::Bool(true)), here]))
        );
    }
}
