//! Arguments of queues: which are compared when a queue is declared again, and which are refused.

use warren_types::{AmqpError, FieldTable, FieldValue};

/// Arguments that must be the same on redeclaration (`rabbit_classic_queue:capabilities/0`).
pub(crate) const COMPARED: &[&str] = &[
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-mode",
    "x-queue-type",
    "x-single-active-consumer",
];

/// Checks the arguments of a new queue.
///
/// # Errors
/// 406 for a queue type that is not offered.
pub(crate) fn check(arguments: &FieldTable, label: &str) -> Result<(), AmqpError> {
    match arguments.get("x-queue-type") {
        None => Ok(()),
        Some(FieldValue::LongString(kind)) if kind == b"classic" => Ok(()),
        Some(FieldValue::LongString(kind)) => Err(AmqpError::precondition_failed(format!(
            "invalid arg 'x-queue-type' for {label}: queue type '{}' is not available",
            String::from_utf8_lossy(kind)
        ))),
        Some(other) => Err(AmqpError::precondition_failed(format!(
            "invalid arg 'x-queue-type' for {label}: {{unacceptable_type,{}}}",
            other.type_name()
        ))),
    }
}
