//! Message properties that the broker reads, and the few it must change on the way.

use std::borrow::Cow;

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_types::{AmqpError, FieldTable, FieldValue, put_blind_key};

use crate::channel::DIRECT_REPLY_TO;
use crate::interceptors::Interceptors;

/// Extra routing keys of a message (`CC` and `BCC`).
#[derive(Debug, Default)]
pub(crate) struct ExtraKeys {
    pub keys: Vec<Vec<u8>>,
    has_bcc: bool,
    /// How many of the keys are from `CC`, which come first.
    copies: usize,
}

impl ExtraKeys {
    /// Reads the headers, if they have such keys at all. What is no string in an array is no key
    /// (`rabbit_basic:header_routes/1`).
    ///
    /// # Errors
    /// 406 if one of them is not an array.
    pub(crate) fn of(properties: &Properties<'_>) -> Result<Self, AmqpError> {
        let has_bcc = properties.has_header(b"BCC");
        if !has_bcc && !properties.has_header(b"CC") {
            return Ok(Self::default());
        }
        let headers = properties.headers().unwrap_or_default();
        let (mut keys, mut copies) = (Vec::new(), 0);
        for name in ["CC", "BCC"] {
            copies = keys.len();
            match headers.get(name) {
                None => {}
                Some(FieldValue::Array(values)) => {
                    let strings = values.iter().filter_map(|value| match value {
                        FieldValue::LongString(key) => Some(key.clone()),
                        _ => None,
                    });
                    keys.extend(strings);
                }
                Some(other) => return Err(unacceptable(name, other)),
            }
        }
        Ok(Self { keys, has_bcc, copies })
    }

    /// Those of `BCC`, for the message to keep though no header tells of them: dead letters go there as well.
    pub(crate) fn blind(&self) -> Vec<u8> {
        let mut blind = Vec::new();
        self.keys[self.copies..].iter().for_each(|key| put_blind_key(&mut blind, key));
        blind
    }
}

fn unacceptable(name: &str, value: &FieldValue) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
        value.type_name()
    ))
}

/// The properties as they are passed on, if they differ from those received: `BCC` is for the broker's eyes
/// only, the pseudo-queue for direct replies becomes the real address, interceptors add what they are configured to, and
/// further words of flags, which some clients cannot read, are left out since they announce nothing.
pub(crate) fn rewritten(
    properties: &Properties<'_>,
    keys: &ExtraKeys,
    reply_address: Option<&[u8]>,
    interceptors: &Interceptors,
    now_ms: &dyn Fn() -> u64,
) -> Option<Vec<u8>> {
    const CONTINUED: u8 = 1;
    let is_continued = properties.raw().get(1).is_some_and(|flags| flags & CONTINUED != 0);
    let is_intercepted = interceptors.change(properties);
    if !keys.has_bcc && reply_address.is_none() && !is_continued && !is_intercepted {
        return None;
    }
    let mut owned: OwnedProperties = properties.to_owned();
    if keys.has_bcc
        && let Some(FieldTable(headers)) = &mut owned.headers
    {
        headers.retain(|(name, _)| *name != *"BCC");
    }
    if let Some(address) = reply_address {
        owned.reply_to = Some(address.to_vec());
    }
    if is_intercepted {
        interceptors.apply(&mut owned, now_ms());
    }
    let mut encoded = Vec::new();
    owned.encode(Dialect::Amqp091, &mut encoded);
    Some(encoded)
}

/// Whether replies are to go to the channel that publishes.
pub(crate) fn wants_direct_replies(properties: &Properties<'_>) -> bool {
    properties.reply_to() == Some(DIRECT_REPLY_TO)
}

/// Whether a client of 0-8 can read the table: it knows strings, integers, decimals, timestamps and tables only
/// (features.md O3).
pub(crate) fn is_plain(table: &FieldTable) -> bool {
    table.0.iter().all(|(_, value)| match value {
        FieldValue::LongString(_)
        | FieldValue::I32(_)
        | FieldValue::Decimal { .. }
        | FieldValue::Timestamp(_) => true,
        FieldValue::Table(table) => is_plain(table),
        _ => false,
    })
}

/// The properties of a message for a client that reads plain tables only.
pub(crate) fn plain(raw: &[u8]) -> Cow<'_, [u8]> {
    let Ok(properties) = Properties::parse(raw) else { return Cow::Borrowed(raw) };
    if properties.headers().is_none_or(|headers| is_plain(&headers)) {
        return Cow::Borrowed(raw);
    }
    let mut encoded = Vec::new();
    properties.to_owned().encode(Dialect::Amqp08, &mut encoded);
    Cow::Owned(encoded)
}
