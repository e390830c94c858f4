//! Arguments of queues and consumers: what they mean, which are compared when a queue is declared again, and
//! which are refused (features.md section 7).

use warren_queue::{DeadLetterTarget, Dedup, Overflow, QueueKind, Retry, RetryOf, Settings};
use warren_router as router;
use warren_types::{AmqpError, FieldTable, FieldValue, ShortString};

use crate::queue_type::QueueType;

/// Longest time that can be given, in milliseconds (`MAX_EXPIRY_TIMER` in `rabbit_common`: ten years).
pub(crate) const TIME_MS_MAX: i64 = 315_360_000_000;

/// Highest priority of messages.
const PRIORITY_MAX: i64 = 255;

/// How many keys of messages are remembered where duplicates are dropped, if the arguments do not say.
const CACHE_SIZE_DEFAULT: usize = 128;

/// How many they may ask for: keys are kept in memory, and are all read at the start.
const CACHE_SIZE_MAX: i64 = 1_000_000;

/// The header that tells messages apart where duplicates are dropped, if the arguments name no other.
const DEDUPLICATION_HEADER: &str = "x-deduplication-header";

/// How often a message may come back to a quorum queue that says nothing of it (`?DEFAULT_DELIVERY_LIMIT`).
const DELIVERY_LIMIT_DEFAULT: u32 = 20;

/// Reads the arguments of a queue; `label` names it in exceptions.
///
/// # Errors
/// 406 for the first value that does not fit, in RabbitMQ's words.
pub(crate) fn parse(arguments: &FieldTable, label: &str) -> Result<Settings, AmqpError> {
    let reader = Reader { arguments, label };
    let queue_type = queue_type(&reader)?;
    let settings = settings(&reader, queue_type)?;
    if let Some(name) = queue_type.foreign_argument(arguments) {
        return Err(AmqpError::precondition_failed(format!(
            "invalid arg '{name}' for {label} of queue type {}",
            queue_type.module()
        )));
    }
    Ok(settings)
}

/// The type that the arguments ask for, if it is there.
fn queue_type(reader: &Reader<'_>) -> Result<QueueType, AmqpError> {
    let queue_type = reader.text("x-queue-type", |name| {
        let queue_type = QueueType::parse(name)
            .ok_or_else(|| format!("\"unsupported queue type '{}'\"", String::from_utf8_lossy(name)))?;
        match queue_type {
            QueueType::Stream => Err("queue type 'stream' is not available yet".to_owned()),
            other => Ok(other),
        }
    })?;
    Ok(queue_type.unwrap_or_default())
}

/// What the arguments ask for, as far as they mean anything for a type of queue.
fn settings(reader: &Reader<'_>, queue_type: QueueType) -> Result<Settings, AmqpError> {
    let is_quorum = queue_type == QueueType::Quorum;
    let common = Settings {
        message_ttl_ms: reader.unsigned("x-message-ttl", time)?,
        expires_ms: reader.unsigned("x-expires", |value| {
            if value == 0 { Err("{value_zero,0}".to_owned()) } else { time(value) }
        })?,
        max_length: reader.unsigned("x-max-length", not_negative)?,
        max_length_bytes: reader.unsigned("x-max-length-bytes", not_negative)?,
        overflow: reader.text("x-overflow", overflow)?.unwrap_or_default(),
        dead_letter: dead_letter(reader)?,
        dead_letter_on_delete: reader.boolean("x-dead-letter-on-delete")?,
        single_active_consumer: reader.boolean("x-single-active-consumer")?,
        group_header: group_header(reader)?,
        dedup: dedup(reader)?,
        // RabbitMQ has this for quorum queues only, since 4.3.
        consumer_timeout_ms: reader.unsigned("x-consumer-timeout", not_negative)?,
        ..Settings::default()
    };
    reader.text("x-queue-leader-locator", leader_locator)?;
    if is_quorum {
        return quorum_settings(reader, common);
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
    let max_priority = max_priority.and_then(|value| u8::try_from(value).ok()).unwrap_or_default();
    Ok(Settings { max_priority, ..common })
}

fn quorum_settings(reader: &Reader<'_>, common: Settings) -> Result<Settings, AmqpError> {
    reader.text("x-dead-letter-strategy", |strategy| match strategy {
        b"at-most-once" | b"at-least-once" => Ok(()),
        _ => Err("invalid_dlx_strategy".to_owned()),
    })?;
    for name in ["x-max-in-memory-length", "x-max-in-memory-bytes", "x-consumer-disconnected-timeout"] {
        reader.unsigned(name, not_negative)?;
    }
    reader.unsigned("x-quorum-initial-group-size", |value| {
        if value == 0 { Err("{value_zero,0}".to_owned()) } else { not_negative(value) }
    })?;
    reader.text("x-member-placement-tag", |tag| {
        if tag.is_empty() { Err("\"expected a non-empty string\"".to_owned()) } else { Ok(()) }
    })?;
    // What is no number counts as none, as in RabbitMQ.
    let limit = reader.arguments.get("x-delivery-limit").and_then(FieldValue::as_integer);
    let delivery_limit = match limit {
        None => Some(DELIVERY_LIMIT_DEFAULT),
        Some(negative) if negative < 0 => None,
        Some(limit) => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
    };
    let overflow = match common.overflow {
        // Quorum queues do not know it.
        Overflow::RejectPublishDlx => Overflow::DropHead,
        overflow => overflow,
    };
    Ok(Settings { kind: QueueKind::Quorum, delivery_limit, retry: retry(reader)?, overflow, ..common })
}

/// Reads what the arguments of an exchange say of duplicates; `label` names it in exceptions.
///
/// # Errors
/// 406 for the first value that does not fit.
pub(crate) fn parse_dedup(arguments: &FieldTable, label: &str) -> Result<Option<Box<Dedup>>, AmqpError> {
    dedup(&Reader { arguments, label })
}

/// How duplicates are told, if they are to be dropped.
fn dedup(reader: &Reader<'_>) -> Result<Option<Box<Dedup>>, AmqpError> {
    let is_on = reader.boolean(router::DEDUPLICATION)?;
    let size = reader.unsigned("x-cache-size", |value| match not_negative(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        value if value > CACHE_SIZE_MAX => Err(format!("{{max_value_exceeded,{value}}}")),
        value => Ok(value),
    })?;
    let ttl_ms = reader.unsigned("x-cache-ttl", time)?;
    let header = reader.text("x-deduplication-header", |header| match header {
        b"" => Err("\"expected the name of a header\"".to_owned()),
        header => ShortString::new(header).map_err(|error| format!("\"{error}\"")),
    })?;
    Ok(is_on.then(|| {
        let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(CACHE_SIZE_DEFAULT);
        Box::new(Dedup { header: header.unwrap_or_else(|| DEDUPLICATION_HEADER.into()), size, ttl_ms })
    }))
}

/// The header that keeps messages together. What would let one of them pass another is refused.
fn group_header(reader: &Reader<'_>) -> Result<Option<ShortString>, AmqpError> {
    reader.text("x-message-group-header", |header| {
        let of_disorder = ["x-max-priority", "x-delayed-retry-type"];
        match of_disorder.iter().find(|name| reader.arguments.get(name).is_some()) {
            Some(name) => Err(format!("\"groups are handled in order, which '{name}' would change\"")),
            None if header.is_empty() => Err("\"expected the name of a header\"".to_owned()),
            None => ShortString::new(header).map_err(|error| format!("\"{error}\"")),
        }
    })
}

/// The wait before messages that came back are delivered again (`rabbit_quorum_queue:get_delayed_retry_config/1`).
fn retry(reader: &Reader<'_>) -> Result<Option<Retry>, AmqpError> {
    let of = reader.text("x-delayed-retry-type", |of| match of {
        b"disabled" => Ok(None),
        b"all" => Ok(Some(RetryOf::All)),
        b"failed" => Ok(Some(RetryOf::Failed)),
        b"returned" => Ok(Some(RetryOf::Returned)),
        _ => Err("invalid_delayed_retry_type".to_owned()),
    })?;
    let min = reader.unsigned("x-delayed-retry-min", not_negative)?.filter(|ms| *ms > 0);
    let max = reader.unsigned("x-delayed-retry-max", not_negative)?.filter(|ms| *ms > 0);
    Ok(of.flatten().zip(min).map(|(of, min_ms)| Retry { of, min_ms, max_ms: max.unwrap_or(min_ms) }))
}

fn leader_locator(locator: &[u8]) -> Result<(), String> {
    match locator {
        b"client-local" | b"balanced" | b"random" | b"least-leaders" => Ok(()),
        _ => Err("invalid_queue_locator_arg".to_owned()),
    }
}

/// The arguments of a queue to be, with the default type if it says none and can be of that type
/// (`rabbit_amqqueue:augment_declare_args/5`).
pub(crate) fn with_default_type(
    arguments: &FieldTable,
    default: Option<QueueType>,
    can_be_replicated: bool,
) -> FieldTable {
    let mut arguments = arguments.clone();
    if let Some(default) = default
        && arguments.get("x-queue-type").is_none()
        && (can_be_replicated || default == QueueType::Classic)
    {
        arguments.insert("x-queue-type", FieldValue::string(default.name()));
    }
    arguments
}

/// Reads `x-priority` of a consumer.
///
/// # Errors
/// 406 if it is no integer.
pub(crate) fn consumer_priority(arguments: &FieldTable, label: &str) -> Result<i64, AmqpError> {
    let priority = Reader { arguments, label }.integer("x-priority", Ok)?;
    Ok(priority.unwrap_or_default())
}

/// Reads `x-consumer-timeout` of a consumer, in milliseconds.
///
/// # Errors
/// 406 if it is no integer of at least 0.
pub(crate) fn consumer_timeout(arguments: &FieldTable, label: &str) -> Result<Option<u64>, AmqpError> {
    let timeout = Reader { arguments, label }.integer("x-consumer-timeout", not_negative)?;
    Ok(timeout.map(i64::unsigned_abs))
}

/// Checks that the server may choose the name of a queue with these arguments.
///
/// # Errors
/// 406 for queue types that must be found again after a reconnect.
pub(crate) fn check_server_named(arguments: &FieldTable) -> Result<(), AmqpError> {
    let name = arguments.get("x-queue-type").and_then(FieldValue::as_long_string);
    let queue_type = name.and_then(QueueType::parse).unwrap_or_default();
    if queue_type == QueueType::Classic {
        return Ok(());
    }
    let module = queue_type.module();
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

    fn unsigned(
        &self,
        name: &str,
        check: impl FnOnce(i64) -> Result<i64, String>,
    ) -> Result<Option<u64>, AmqpError> {
        self.integer(name, check).map(|value| value.map(i64::unsigned_abs))
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
        refused("x-queue-type", FieldValue::string("stream"), "queue type 'stream' is not available yet");
        refused("x-queue-type", FieldValue::string("heap"), "\"unsupported queue type 'heap'\"");
    }

    #[test]
    fn e8_duplicates_are_told_as_the_arguments_say() {
        let dedup = |arguments: &[(&str, FieldValue)]| {
            let mut table = FieldTable::new();
            arguments.iter().for_each(|(name, value)| table.insert(name, value.clone()));
            parse_dedup(&table, "q").expect("they fit").map(|dedup| *dedup)
        };
        let on = ("x-message-deduplication", FieldValue::Bool(true));
        let size = ("x-cache-size", FieldValue::I64(1_000_000));
        let ttl = ("x-cache-ttl", FieldValue::I32(0));
        let header = ("x-deduplication-header", FieldValue::string("id"));
        assert_eq!(dedup(&[]), None);
        assert_eq!(dedup(&[size.clone(), ttl.clone(), header.clone()]), None);
        assert_eq!(dedup(&[("x-message-deduplication", FieldValue::Bool(false))]), None);
        let expected = Dedup { header: "x-deduplication-header".into(), size: 128, ttl_ms: None };
        assert_eq!(dedup(std::slice::from_ref(&on)), Some(expected));
        let expected = Dedup { header: "id".into(), size: 1_000_000, ttl_ms: Some(0) };
        assert_eq!(dedup(&[on, size, ttl, header]), Some(expected));
    }

    fn quorum(arguments: &[(&str, FieldValue)]) -> Result<Settings, String> {
        let mut table = FieldTable::new();
        table.insert("x-queue-type", FieldValue::string("quorum"));
        arguments.iter().for_each(|(name, value)| table.insert(name, value.clone()));
        parse(&table, "q").map_err(|error| error.explanation)
    }

    #[test]
    fn u1_quorum_queues_limit_deliveries_unless_told_otherwise() {
        let limit = |arguments: &[_]| quorum(arguments).map(|settings| settings.delivery_limit);
        assert_eq!(quorum(&[]).map(|settings| settings.kind), Ok(QueueKind::Quorum));
        assert_eq!(limit(&[]), Ok(Some(20)));
        assert_eq!(limit(&[("x-delivery-limit", FieldValue::I32(-1))]), Ok(None));
        assert_eq!(limit(&[("x-delivery-limit", FieldValue::I32(3))]), Ok(Some(3)));
        assert_eq!(
            quorum(&[("x-overflow", FieldValue::string("reject-publish-dlx"))])
                .map(|settings| settings.overflow),
            Ok(Overflow::DropHead)
        );
    }

    #[test]
    fn retries_wait_only_if_it_is_said_how_long() {
        let retry = |arguments: &[_]| quorum(arguments).map(|settings| settings.retry);
        let of = |name: &str| ("x-delayed-retry-type", FieldValue::string(name));
        let min = ("x-delayed-retry-min", FieldValue::I32(5));
        let max = ("x-delayed-retry-max", FieldValue::I32(20));
        assert_eq!(retry(&[of("all")]), Ok(None));
        assert_eq!(retry(&[of("disabled"), min.clone()]), Ok(None));
        let expected = Retry { of: RetryOf::Failed, min_ms: 5, max_ms: 5 };
        assert_eq!(retry(&[of("failed"), min.clone()]), Ok(Some(expected)));
        let expected = Retry { of: RetryOf::Returned, min_ms: 5, max_ms: 20 };
        assert_eq!(retry(&[of("returned"), min, max]), Ok(Some(expected)));
        assert_eq!(
            retry(&[of("often")]),
            Err("invalid arg 'x-delayed-retry-type' for q: invalid_delayed_retry_type".into())
        );
    }

    #[test]
    fn q_the_default_type_is_for_queues_that_can_have_it() {
        let with = |arguments: &FieldTable, can| {
            let arguments = with_default_type(arguments, Some(QueueType::Quorum), can);
            arguments.get("x-queue-type").and_then(FieldValue::as_long_string).map(<[u8]>::to_vec)
        };
        let mut classic = FieldTable::new();
        classic.insert("x-queue-type", FieldValue::string("classic"));
        assert_eq!(with(&FieldTable::new(), true), Some(b"quorum".to_vec()));
        assert_eq!(with(&FieldTable::new(), false), None);
        assert_eq!(with(&classic, true), Some(b"classic".to_vec()));
    }

    #[test]
    fn arguments_of_other_types_are_refused() {
        assert_eq!(
            parsed("x-max-age", FieldValue::string("1D")),
            Err("invalid arg 'x-max-age' for q of queue type rabbit_classic_queue".into())
        );
        assert_eq!(
            quorum(&[("x-max-priority", FieldValue::I32(5))]),
            Err("invalid arg 'x-max-priority' for q of queue type rabbit_quorum_queue".into())
        );
    }
}
