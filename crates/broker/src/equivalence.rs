//! Whether a declaration agrees with what exists, and RabbitMQ's words when it does not
//! (`rabbit_misc:assert_args_equivalence/4`).

use warren_types::{AmqpError, FieldTable, FieldValue, erlang};

/// The exception for a property that differs; `received` and `current` as they are shown.
pub(crate) fn inequivalent(
    argument: &str,
    label: &str,
    received: impl std::fmt::Display,
    current: impl std::fmt::Display,
) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "inequivalent arg '{argument}' for {label}: received {received} but current is {current}"
    ))
}

/// Compares a flag.
///
/// # Errors
/// 406 if it differs.
pub(crate) fn check_flag(
    argument: &str,
    label: &str,
    received: bool,
    current: bool,
) -> Result<(), AmqpError> {
    if received == current {
        return Ok(());
    }
    Err(inequivalent(argument, label, format_args!("'{received}'"), format_args!("'{current}'")))
}

/// Compares the arguments with these names; others may differ.
///
/// # Errors
/// 406 for the first one that differs.
pub(crate) fn check_arguments(
    names: &[&str],
    label: &str,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), AmqpError> {
    for name in names {
        let (received, current) = (received.get(name), current.get(name));
        let equal = match (received, current) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a, b),
            (Some(only), None) | (None, Some(only)) => {
                // No type means classic.
                *name == "x-queue-type" && only.as_long_string() == Some(b"classic")
            }
        };
        if !equal {
            let both = received.is_some() && current.is_some();
            return Err(inequivalent(
                name,
                label,
                erlang::argument(received, both),
                erlang::argument(current, both),
            ));
        }
    }
    Ok(())
}

/// Integers are equal by value, whatever their width.
fn same(a: &FieldValue, b: &FieldValue) -> bool {
    match (a.as_integer(), b.as_integer()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ttl: Option<FieldValue>) -> FieldTable {
        FieldTable(ttl.map(|ttl| ("x-message-ttl".into(), ttl)).into_iter().collect())
    }

    fn check(received: Option<FieldValue>, current: Option<FieldValue>) -> Result<(), String> {
        check_arguments(&["x-message-ttl"], "queue 'q' in vhost '/'", &table(received), &table(current))
            .map_err(|error| error.explanation)
    }

    #[test]
    fn arguments() {
        let (i32, i64) = (FieldValue::I32, FieldValue::I64);
        assert_eq!(check(None, None), Ok(()));
        assert_eq!(check(Some(i32(5)), Some(i64(5))), Ok(()));
        assert_eq!(
            check(None, Some(i64(1_800_000))),
            Err("inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is \
                 the value '1800000' of type 'long'"
                .into())
        );
        assert_eq!(
            check(Some(i32(5)), Some(i64(10))),
            Err("inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '5' but current is '10'"
                .into())
        );
    }

    #[test]
    fn no_queue_type_means_classic() {
        let classic = FieldTable(vec![("x-queue-type".into(), FieldValue::string("classic"))]);
        let none = FieldTable::new();
        assert!(check_arguments(&["x-queue-type"], "q", &classic, &none).is_ok());
        assert!(check_arguments(&["x-queue-type"], "q", &none, &classic).is_ok());
    }
}
