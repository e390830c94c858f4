//! Arguments of queues and consumers: what they mean, which are compared when a queue is declared again, and
//! which are refused (features.md section 7).

use warren_queue::{DeadLetterTarget, Overflow, Settings};
use warren_types::{AmqpError, FieldTable, FieldValue, ShortString};

/// Arguments that must be the same on redeclaration (`rabbit_classic_queue:capabilities/0`).
pub(crate) const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
];

/// Known arguments that mean nothing for classic queues, and are refused there.
const OF_OTHER_TYPES: &[&str] = &[
    "x-consumer-disconnected-timeout",
    "x-consumer-timeout",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-member-placement-tag",
    "x-quorum-initial-group-size",
    "x-quorum-target-group-size",
    "x-stream-filter-size-bytes",
    "x-stream-max-segment-size-bytes",
];

/// Longest time that can be given, in milliseconds (`MAX_EXPIRY_TIMER` in `rabbit_common`: ten years).
pub(crate) const TIME_MS_MAX: i64 = 315_360_000_000;

/// Highest priority of messages.
const PRIORITY_MAX: i64 = 255;

/// Reads the arguments of a queue; `label` names it in exceptions.
///
/// # Errors
/// 406 for the first value that does not fit, in RabbitMQ's words.
pub(crate) fn parse(arguments: &FieldTable, label: &str) -> Result<Settings, AmqpError> {
    check_type(arguments, label)?;
    let reader = Reader { arguments, label };
    if let Some(name) = OF_OTHER_TYPES.iter().find(|name| arguments.get(name).is_some()) {
        return Err(AmqpError::precondition_failed(format!(
            "invalid arg '{name}' for {label} of queue type rabbit_classic_queue"
        )));
    }
    reader.text("x-queue-mode", |mode| match mode {
        b"default" | b"lazy" => Ok(()),
        _ => Err(format!("\"unsupported queue mode '{}'\"", String::from_utf8_lossy(mode))),
    })?;
    reader.integer("x-queue-version", |version| match version {
        2 => Ok(version),
        _ => Err(format!("\"unsupported queue version '{version}'\"")),
    })?;
    let max_priority = reader.integer("x-max-priority", |value| match not_negative(value)? {
        value if value > PRIORITY_MAX => Err(format!("{{max_value_exceeded,{value}}}")),
        value => Ok(value),
    })?;
    Ok(Settings {
        message_ttl_ms: reader.integer("x-message-ttl", time)?.map(i64::unsigned_abs),
        expires_ms: reader
            .integer(
                "x-expires",
                |value| if value == 0 { Err("{value_zero,0}".to_owned()) } else { time(value) },
            )?
            .map(i64::unsigned_abs),
        max_length: reader.integer("x-max-length", not_negative)?.map(i64::unsigned_abs),
        max_length_bytes: reader.integer("x-max-length-bytes", not_negative)?.map(i64::unsigned_abs),
        overflow: reader.text("x-overflow", overflow)?.unwrap_or_default(),
        dead_letter: dead_letter(&reader)?,
        max_priority: max_priority.and_then(|value| u8::try_from(value).ok()).unwrap_or_default(),
        single_active_consumer: reader.boolean("x-single-active-consumer")?,
    })
}

/// Reads `x-priority` of a consumer.
///
/// # Errors
/// 406 if it is no integer.
pub(crate) fn consumer_priority(arguments: &FieldTable, label: &str) -> Result<i64, AmqpError> {
    let priority = Reader { arguments, label }.integer("x-priority", Ok)?;
    Ok(priority.unwrap_or_default())
}

fn check_type(arguments: &FieldTable, label: &str) -> Result<(), AmqpError> {
    let reason = match arguments.get("x-queue-type") {
        None => return Ok(()),
        Some(FieldValue::LongString(kind)) if kind == b"classic" => return Ok(()),
        Some(FieldValue::LongString(kind)) => {
            let known = matches!(&kind[..], b"quorum" | b"stream");
            let kind = String::from_utf8_lossy(kind);
            if known {
                format!("queue type '{kind}' is not available")
            } else {
                format!("\"unsupported queue type '{kind}'\"")
            }
        }
        Some(other) => unacceptable(other),
    };
    Err(refuse("x-queue-type", label, &reason))
}

/// Checks that the server may choose the name of a queue with these arguments.
///
/// # Errors
/// 406 for queue types that must be found again after a reconnect.
pub(crate) fn check_server_named(arguments: &FieldTable) -> Result<(), AmqpError> {
    let module = match arguments.get("x-queue-type").and_then(FieldValue::as_long_string) {
        Some(b"quorum") => "rabbit_quorum_queue",
        Some(b"stream") => "rabbit_stream_queue",
        _ => return Ok(()),
    };
    Err(AmqpError::precondition_failed(format!("Cannot declare a server-named queue for type {module}")))
}

fn dead_letter(reader: &Reader<'_>) -> Result<Option<DeadLetterTarget>, AmqpError> {
    let name = |bytes: &[u8]| ShortString::new(bytes).map_err(|error| format!("\"{error}\""));
    let exchange = reader.text("x-dead-letter-exchange", name)?;
    let routing_key = reader.text("x-dead-letter-routing-key", |key| {
        if exchange.is_none() { Err("routing_key_but_no_dlx_defined".to_owned()) } else { name(key) }
    })?;
    Ok(exchange.map(|exchange| DeadLetterTarget { exchange, routing_key }))
}

fn overflow(mode: &[u8]) -> Result<Overflow, String> {
    match mode {
        b"drop-head" => Ok(Overflow::DropHead),
        b"reject-publish" => Ok(Overflow::RejectPublish),
        b"reject-publish-dlx" => Ok(Overflow::RejectPublishDlx),
        _ => Err("invalid_overflow".to_owned()),
    }
}

fn not_negative(value: i64) -> Result<i64, String> {
    if value < 0 { Err(format!("{{value_negative,{value}}}")) } else { Ok(value) }
}

fn time(value: i64) -> Result<i64, String> {
    match not_negative(value)? {
        value if value > TIME_MS_MAX => Err(format!("{{value_too_large,{value}}}")),
        value => Ok(value),
    }
}

fn unacceptable(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

fn refuse(name: &str, label: &str, reason: &str) -> AmqpError {
    AmqpError::precondition_failed(format!("invalid arg '{name}' for {label}: {reason}"))
}

/// Reads arguments by name; a reason to refuse one is an Erlang term, since RabbitMQ prints it so.
struct Reader<'a> {
    arguments: &'a FieldTable,
    label: &'a str,
}

impl Reader<'_> {
    fn integer(
        &self,
        name: &str,
        check: impl FnOnce(i64) -> Result<i64, String>,
    ) -> Result<Option<i64>, AmqpError> {
        self.read(name, |value| match value.as_integer() {
            Some(integer) => check(integer),
            None => Err(format!("\"expected integer, got {}\"", value.type_name())),
        })
    }

    fn text<T>(
        &self,
        name: &str,
        check: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, AmqpError> {
        self.read(name, |value| match value {
            FieldValue::LongString(text) => check(text),
            other => Err(unacceptable(other)),
        })
    }

    fn boolean(&self, name: &str) -> Result<bool, AmqpError> {
        let value = self.read(name, |value| match value {
            FieldValue::Bool(flag) => Ok(*flag),
            other => Err(unacceptable(other)),
        })?;
        Ok(value.unwrap_or_default())
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&FieldValue) -> Result<T, String>,
    ) -> Result<Option<T>, AmqpError> {
        let Some(value) = self.arguments.get(name) else { return Ok(None) };
        read(value).map(Some).map_err(|reason| refuse(name, self.label, &reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, value: FieldValue) -> Result<Settings, String> {
        let mut arguments = FieldTable::new();
        arguments.insert(name, value);
        parse(&arguments, "q").map_err(|error| error.explanation)
    }

    #[test]
    fn values_that_fit() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            Ok(settings)
        };
        assert_eq!(parsed("x-message-ttl", FieldValue::U8(5)), with(|s| s.message_ttl_ms = Some(5)));
        assert_eq!(parsed("x-max-length", FieldValue::I64(0)), with(|s| s.max_length = Some(0)));
        assert_eq!(parsed("x-max-priority", FieldValue::I32(255)), with(|s| s.max_priority = 255));
        assert_eq!(
            parsed("x-overflow", FieldValue::string("reject-publish")),
            with(|s| s.overflow = Overflow::RejectPublish)
        );
        assert_eq!(parsed("x-of-my-own", FieldValue::Void), with(|_| ()));
    }

    #[test]
    fn values_that_do_not_fit() {
        let refused = |name, value, reason: &str| {
            assert_eq!(parsed(name, value), Err(format!("invalid arg '{name}' for q: {reason}")));
        };
        refused("x-message-ttl", FieldValue::I32(-1), "{value_negative,-1}");
        refused("x-message-ttl", FieldValue::string("5"), "\"expected integer, got longstr\"");
        refused("x-expires", FieldValue::I32(0), "{value_zero,0}");
        refused("x-expires", FieldValue::I64(TIME_MS_MAX + 1), "{value_too_large,315360000001}");
        refused("x-max-priority", FieldValue::I32(256), "{max_value_exceeded,256}");
        refused("x-overflow", FieldValue::string("burst"), "invalid_overflow");
        refused("x-single-active-consumer", FieldValue::I32(1), "{unacceptable_type,signedint}");
        refused("x-dead-letter-routing-key", FieldValue::string("k"), "routing_key_but_no_dlx_defined");
        refused("x-queue-type", FieldValue::string("quorum"), "queue type 'quorum' is not available");
        refused("x-queue-type", FieldValue::string("heap"), "\"unsupported queue type 'heap'\"");
    }

    #[test]
    fn arguments_of_other_types_are_refused() {
        assert_eq!(
            parsed("x-max-age", FieldValue::string("1D")),
            Err("invalid arg 'x-max-age' for q of queue type rabbit_classic_queue".into())
        );
    }
}
