//! The recent history exchange (`rabbit_exchange_type_recent_history`): a fanout exchange whose last messages are for
//! queues that are bound later.
//!
//! Here it is only found that a message belongs into the history; messages themselves are not the router's business.

use std::sync::Arc;

use warren_types::{FieldTable, FieldValue, History};

use crate::exchange::InvalidExchange;
use crate::fanout::Fanout;

const LENGTH: &str = "x-recent-history-length";
const NO_STORE: &str = "x-recent-history-no-store";
pub(crate) const LENGTH_DEFAULT: usize = 20;

/// The destinations and the history.
#[derive(Debug)]
pub(crate) struct RecentHistory {
    pub(crate) fanout: Fanout,
    pub(crate) history: Arc<History>,
}

impl RecentHistory {
    pub(crate) fn new(length: usize) -> Self {
        Self { fanout: Fanout::default(), history: Arc::new(History::new(length)) }
    }
}

/// How many messages the arguments of an exchange ask to keep (its `validate/1` in RabbitMQ, which takes signed types
/// only).
pub(crate) fn length(arguments: &FieldTable) -> Result<usize, InvalidExchange> {
    let Some(value) = arguments.get(LENGTH) else { return Ok(LENGTH_DEFAULT) };
    let is_signed =
        matches!(value, FieldValue::I8(_) | FieldValue::I16(_) | FieldValue::I32(_) | FieldValue::I64(_));
    match value.as_integer().filter(|length| is_signed && *length > 0) {
        Some(length) => Ok(usize::try_from(length).unwrap_or(usize::MAX)),
        None => Err(InvalidExchange::HistoryLength(value.clone())),
    }
}

/// Whether a message with these headers is not to be kept.
pub(crate) fn is_not_stored(headers: &FieldTable) -> bool {
    headers.get(NO_STORE) == Some(&FieldValue::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let with = |value: FieldValue| {
            length(&FieldTable(vec![(LENGTH.into(), value)])).map_err(|error| error.to_string())
        };
        assert_eq!(length(&FieldTable::new()), Ok(20));
        for value in [FieldValue::I8(5), FieldValue::I16(5), FieldValue::I32(5), FieldValue::I64(5)] {
            assert_eq!(with(value), Ok(5));
        }
        for (value, shown) in [
            (FieldValue::I32(0), "0"),
            (FieldValue::I64(-3), "-3"),
            (FieldValue::string("5"), "<<\"5\">>"),
            (FieldValue::F64(1.0), "1.0"),
            (FieldValue::U16(5), "5"),
        ] {
            let text =
                format!("Invalid argument {shown}, 'x-recent-history-length' must be a positive integer");
            assert_eq!(with(value), Err(text));
        }
    }
}
