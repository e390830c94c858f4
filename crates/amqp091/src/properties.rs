//! Message properties that the broker reads, and the few it must change on the way.

use std::borrow::Cow;

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_types::{AmqpError, FieldTable, FieldValue};

use crate::channel::DIRECT_REPLY_TO;

/// Extra routing keys of a message (`CC` and `BCC`).
#[derive(Debug, Default)]
pub(crate) struct ExtraKeys {
    pub keys: Vec<Vec<u8>>,
    has_bcc: bool,
}

impl ExtraKeys {
    /// Reads the headers, if they have such keys at all.
    ///
    /// # Errors
    /// 406 if one of them is not an array of strings.
    pub(crate) fn of(properties: &Properties<'_>) -> Result<Self, AmqpError> {
        let has_bcc = properties.has_header(b"BCC");
        if !has_bcc && !properties.has_header(b"CC") {
            return Ok(Self::default());
        }
        let headers = properties.headers().unwrap_or_default();
        let mut keys = Vec::new();
        for name in ["CC", "BCC"] {
            match headers.get(name) {
                None => {}
                Some(FieldValue::Array(values)) => {
                    for value in values {
                        match value {
                            FieldValue::LongString(key) => keys.push(key.clone()),
                            other => return Err(unacceptable(name, other)),
                        }
                    }
                }
                Some(other) => return Err(unacceptable(name, other)),
            }
        }
        Ok(Self { keys, has_bcc })
    }
}

fn unacceptable(name: &str, value: &FieldValue) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
        value.type_name()
    ))
}

/// The properties as they are passed on, if they differ from those received: `BCC` is for the broker's eyes
/// only, the pseudo-queue for direct replies becomes the real address, and further words of flags, which some
/// clients cannot read, are left out since they announce nothing.
pub(crate) fn rewritten(
    properties: &Properties<'_>,
    keys: &ExtraKeys,
    reply_address: Option<&[u8]>,
) -> Option<Vec<u8>> {
    const CONTINUED: u8 = 1;
    let is_continued = properties.raw().get(1).is_some_and(|flags| flags & CONTINUED != 0);
    if !keys.has_bcc && reply_address.is_none() && !is_continued {
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
