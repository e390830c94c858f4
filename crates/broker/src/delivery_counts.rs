//! Headers that tell how often a message was delivered before (features.md M30).

use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_types::{FieldValue, Message};

use crate::reroute::with_properties;

/// How often its delivery failed.
const FAILED: &str = "x-delivery-count";

/// How often it was delivered at all.
const ACQUIRED: &str = "x-acquired-count";

/// The message with headers that have these counts, or as it is if its properties cannot be read. Of failures nothing is
/// told before there is one (`rabbit_fifo_client:add_delivery_count_header/2`).
pub(crate) fn written(message: &Message, failed: u32, acquired: u32) -> Message {
    let Ok(properties) = Properties::parse(message.properties()) else { return message.clone() };
    let mut owned: OwnedProperties = properties.to_owned();
    let headers = owned.headers.get_or_insert_default();
    let counts = [Some((ACQUIRED, acquired)), (failed > 0).then_some((FAILED, failed))];
    for (name, count) in counts.into_iter().flatten() {
        headers.0.retain(|(key, _)| *key != *name);
        headers.insert(name, FieldValue::I64(count.into()));
    }
    with_properties(message, &owned, message.expiration_ms())
}

#[cfg(test)]
mod tests {
    use warren_types::{FieldTable, MessageParts};

    use super::*;

    #[test]
    fn m30_counts_replace_those_of_the_publisher() {
        let mut headers = FieldTable::new();
        headers.insert("x-delivery-count", FieldValue::string("many"));
        headers.insert("mine", FieldValue::Bool(true));
        let properties = OwnedProperties { headers: Some(headers), ..OwnedProperties::default() };
        let message = with_properties(&Message::new(&MessageParts::default(), b"body"), &properties, Some(7));
        let told = written(&message, 2, 3);
        assert_eq!((told.body(), told.expiration_ms()), (&b"body"[..], Some(7)));
        let headers = Properties::parse(told.properties()).expect("just written").to_owned().headers;
        let headers = headers.expect("there are headers");
        assert_eq!(headers.get("mine"), Some(&FieldValue::Bool(true)));
        assert_eq!(headers.get("x-acquired-count"), Some(&FieldValue::I64(3)));
        assert_eq!(headers.get("x-delivery-count"), Some(&FieldValue::I64(2)));
        assert_eq!(headers.0.len(), 3);
    }

    #[test]
    fn m30_without_a_failure_there_is_no_count_of_them() {
        let told = written(
            &Message::new(&MessageParts { properties: &[0, 0], ..MessageParts::default() }, b""),
            0,
            2,
        );
        let headers = Properties::parse(told.properties()).expect("just written").to_owned().headers;
        let acquired = [("x-acquired-count".into(), FieldValue::I64(2))];
        assert_eq!(headers, Some(FieldTable(acquired.into())));
    }
}
