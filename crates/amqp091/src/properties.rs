//! Message properties that the broker reads, and the few it must change on the way.

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
/// only, and the pseudo-queue for direct replies becomes the real address.
pub(crate) fn rewritten(
    properties: &Properties<'_>,
    keys: &ExtraKeys,
    reply_address: Option<&[u8]>,
    dialect: Dialect,
) -> Option<Vec<u8>> {
    if !keys.has_bcc && reply_address.is_none() {
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
    owned.encode(dialect, &mut encoded);
    Some(encoded)
}

/// Whether replies are to go to the channel that publishes.
pub(crate) fn wants_direct_replies(properties: &Properties<'_>) -> bool {
    properties.reply_to() == Some(DIRECT_REPLY_TO)
}
