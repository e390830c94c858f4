//! Messages of a queue: shown, and handled.

use serde_json::{Map, Value, json};
use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_broker::{Broker, Handled, MessageId, MessageListing, ReadyMessage, Selection, Target};
use warren_types::{FieldTable, FieldValue};

use crate::cell::Cell;
use crate::protocol::{
    Failure, HandleMessages, MessageAction, MessageChoice, MessagePlace, MessageTarget, Row,
};

/// Bytes of a body that are shown.
const BODY_SHOWN: usize = 128;

/// The messages of a queue behind one of them, so many at most.
pub(crate) fn listing(
    broker: &Broker,
    vhost: &str,
    place: &MessagePlace,
    after: Option<&str>,
    count: u64,
) -> Result<MessageListing, Failure> {
    let after = after.map(id).transpose()?;
    Ok(broker.browse_queue(vhost, &queue(broker, vhost, place)?, after, count)?)
}

/// A message's value for a column.
pub(crate) fn cell(ready: &ReadyMessage, column: &str) -> Cell {
    let message = &ready.message;
    match column {
        "id" => Cell::Text(ready.id.to_string()),
        "routing_key" => Cell::bytes(message.routing_key()),
        "exchange" => Cell::bytes(message.exchange()),
        "priority" => Cell::count(ready.id.priority),
        "redelivered" => Cell::Flag(ready.redelivered),
        "age" => Cell::count(ready.age_ms),
        "expires" => ready.expires_in_ms.map_or(Cell::Empty, Cell::count),
        "size" => Cell::count(message.body_len()),
        "properties" => Cell::Json(
            Properties::parse(message.properties())
                .map_or(Value::Null, |found| properties(&found.to_owned())),
        ),
        "body" => Cell::Text(shown(message.body())),
        _ => Cell::Empty,
    }
}

/// Handles messages; tells in [`crate::columns::HANDLED`] what became of them.
pub(crate) async fn handle(
    request: HandleMessages,
    broker: &Broker,
) -> Result<(Row, Result<(), Failure>), Failure> {
    let HandleMessages { vhost, place, action, choice } = request;
    let queue = queue(broker, &vhost, &place)?;
    let is_asked_for_each = matches!(choice, MessageChoice::Ids(_));
    let selection = match choice {
        MessageChoice::Ids(ids) => {
            Selection::These(ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?)
        }
        MessageChoice::First(count) => Selection::First(count),
    };
    let handled = match action {
        MessageAction::Delete => broker.delete_messages(&vhost, &queue, selection).await?,
        MessageAction::Move(to) => broker.move_messages(&vhost, &queue, selection, &target(to)).await?,
        MessageAction::Copy(to) => broker.copy_messages(&vhost, &queue, selection, &target(to)).await?,
        MessageAction::Redrive => match selection {
            Selection::First(count) => broker.redrive_queue(&vhost, &queue, count).await?,
            Selection::These(_) => {
                return Err(Failure::Invalid("a queue is re-driven as a whole".to_owned()));
            }
        },
    };
    let Handled { done, missing, unroutable, refused } = handled;
    let row = [done, missing, unroutable, refused].map(Cell::count).to_vec();
    let stay = unroutable + refused;
    let outcome = match (stay, missing) {
        (0, 0) => Ok(()),
        (0, _) if !is_asked_for_each => Ok(()),
        (0, missing) => Err(Failure::Refused(format!("not ready in the queue: {missing}"))),
        (stay, _) => Err(Failure::Refused(format!(
            "stay where they are: {stay} ({unroutable} go nowhere from here, {refused} were refused)"
        ))),
    };
    Ok((row, outcome))
}

fn queue(broker: &Broker, vhost: &str, place: &MessagePlace) -> Result<String, Failure> {
    match place {
        MessagePlace::Queue(name) => Ok(name.clone()),
        MessagePlace::Delayed(exchange) => Ok(broker.delayed_queue(vhost, exchange)?),
    }
}

fn target(target: MessageTarget) -> Target {
    match target {
        MessageTarget::Queue(name) => Target::Queue(name),
        MessageTarget::Exchange { name, routing_key } => Target::Exchange { name, routing_key },
    }
}

fn id(text: &str) -> Result<MessageId, Failure> {
    text.parse().map_err(|_| Failure::Invalid(format!("'{text}' is no id of a message, as 17 or 5-17")))
}

/// The beginning of a body, as text.
fn shown(body: &[u8]) -> String {
    let Some((beginning, _)) = body.split_at_checked(BODY_SHOWN).filter(|(_, rest)| !rest.is_empty()) else {
        return String::from_utf8_lossy(body).into_owned();
    };
    // No letter is cut in two.
    let whole = match std::str::from_utf8(beginning) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => beginning.len(),
    };
    format!("{}…", String::from_utf8_lossy(&beginning[..whole]))
}

fn properties(properties: &OwnedProperties) -> Value {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| json!(String::from_utf8_lossy(bytes)));
    let fields = [
        ("content_type", text(&properties.content_type)),
        ("content_encoding", text(&properties.content_encoding)),
        ("headers", properties.headers.as_ref().map(table)),
        ("delivery_mode", properties.delivery_mode.map(|mode| json!(mode))),
        ("priority", properties.priority.map(|priority| json!(priority))),
        ("correlation_id", text(&properties.correlation_id)),
        ("reply_to", text(&properties.reply_to)),
        ("expiration", text(&properties.expiration)),
        ("message_id", text(&properties.message_id)),
        ("timestamp", properties.timestamp.map(|timestamp| json!(timestamp))),
        ("type", text(&properties.type_)),
        ("user_id", text(&properties.user_id)),
        ("app_id", text(&properties.app_id)),
        ("cluster_id", text(&properties.cluster_id)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect())
}

fn table(table: &FieldTable) -> Value {
    let entries = table.0.iter();
    let entries =
        entries.map(|(name, value)| (String::from_utf8_lossy(name.as_bytes()).into_owned(), field(value)));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// A header's value without its type.
fn field(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => json!(value),
        FieldValue::F32(value) => json!(value),
        FieldValue::F64(value) => json!(value),
        FieldValue::Decimal { scale, value } => json!([scale, value]),
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => json!(String::from_utf8_lossy(bytes)),
        FieldValue::Array(values) => values.iter().map(field).collect(),
        FieldValue::Timestamp(seconds) => json!(seconds),
        FieldValue::Table(inner) => table(inner),
        FieldValue::Void => Value::Null,
        _ => json!(value.as_integer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_between_letters() {
        assert_eq!(shown(b"short"), "short");
        assert_eq!(shown(&[b'a'; BODY_SHOWN]), "a".repeat(BODY_SHOWN));
        assert_eq!(shown(&[b'a'; BODY_SHOWN + 1]), format!("{}…", "a".repeat(BODY_SHOWN)));
        let text = format!("{}é", "a".repeat(BODY_SHOWN - 1));
        assert_eq!(shown(text.as_bytes()), format!("{}…", "a".repeat(BODY_SHOWN - 1)));
        assert_eq!(shown(&[b'a', 0xff]), "a\u{fffd}");
    }

    #[test]
    fn properties_are_an_object() {
        let mut death = FieldTable::new();
        death.insert("count", FieldValue::I64(2));
        let mut headers = FieldTable::new();
        headers.insert("x-death", FieldValue::Array(vec![FieldValue::Table(death)]));
        headers.insert("nothing", FieldValue::Void);
        let found = OwnedProperties {
            headers: Some(headers),
            delivery_mode: Some(2),
            message_id: Some(b"m".to_vec()),
            ..OwnedProperties::default()
        };
        assert_eq!(
            properties(&found),
            json!({"headers": {"x-death": [{"count": 2}], "nothing": null}, "delivery_mode": 2, "message_id": "m"})
        );
    }
}
