//! Channel 0: from the protocol header to `connection.open`, and the credentials on the way.

use std::time::Duration;

use warren_amqp091_codec::{Dialect, table};
use warren_types::session::{LoginRefused, Session};
use warren_types::{AmqpError, FieldTable, FieldValue, erlang};

use crate::interceptors::Interceptors;

/// What the server offers and allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest frame, in bytes.
    pub frame_max: u32,
    /// Most channels of a connection.
    pub channel_max: u16,
    /// Heartbeat interval offered, in seconds; 0 for none.
    pub heartbeat_s: u16,
    /// Largest message body, in bytes.
    pub message_len_max: u64,
    /// Time from accept to `connection.open`.
    pub handshake_timeout: Duration,
    /// What is added to messages that come in.
    pub interceptors: Interceptors,
}

impl Limits {
    /// Smallest `frame_max` that a client may choose, and the limit until it has chosen, in bytes.
    pub const FRAME_MAX_MIN: u32 = 8192;
}

/// Who the server says it is.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// `product`
    pub product: String,
    /// `version`: clients read it to know what the server can do.
    pub version: String,
    /// `cluster_name`
    pub cluster_name: String,
    /// `platform`
    pub platform: String,
    /// `copyright`
    pub copyright: String,
    /// `information`
    pub information: String,
}

/// The SASL mechanisms that are offered, in the order of preference.
pub(crate) fn mechanisms(session: &impl Session) -> &'static [u8] {
    if session.offers_anonymous() { b"PLAIN AMQPLAIN ANONYMOUS" } else { b"PLAIN AMQPLAIN" }
}

/// Mechanisms that RabbitMQ knows and that may not be offered here.
const MECHANISMS_KNOWN: &[&[u8]] = &[b"EXTERNAL", b"ANONYMOUS", b"RABBIT-CR-DEMO"];

/// What the server can do, told to clients that read it.
const CAPABILITIES: &[&str] = &[
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl ServerIdentity {
    /// The table for `connection.start`. Clients of 0-8 decode tables strictly and know no booleans, so they get
    /// no capabilities (features.md O2).
    pub(crate) fn properties(&self, dialect: Dialect) -> FieldTable {
        let mut properties = FieldTable::new();
        if dialect != Dialect::Amqp08 {
            let mut capabilities = FieldTable::new();
            for name in CAPABILITIES {
                capabilities.insert(name, FieldValue::Bool(true));
            }
            properties.insert("capabilities", FieldValue::Table(capabilities));
        }
        for (name, value) in [
            ("cluster_name", &self.cluster_name),
            ("copyright", &self.copyright),
            ("information", &self.information),
            ("platform", &self.platform),
            ("product", &self.product),
            ("version", &self.version),
        ] {
            properties.insert(name, FieldValue::string(value));
        }
        properties
    }
}

/// What the client says it can do (features.md CON7).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClientCapabilities {
    pub authentication_failure_close: bool,
    pub consumer_cancel_notify: bool,
    pub connection_blocked: bool,
}

impl ClientCapabilities {
    pub(crate) fn of(client_properties: &FieldTable) -> Self {
        let Some(FieldValue::Table(capabilities)) = client_properties.get("capabilities") else {
            return Self::default();
        };
        let has = |name| matches!(capabilities.get(name), Some(FieldValue::Bool(true)));
        Self {
            authentication_failure_close: has("authentication_failure_close"),
            consumer_cancel_notify: has("consumer_cancel_notify"),
            connection_blocked: has("connection.blocked"),
        }
    }
}

/// Checks the response of a SASL mechanism.
///
/// # Errors
/// If the mechanism is not offered, its response malformed, or the login refused.
pub(crate) fn authenticate(
    mechanism: &[u8],
    response: &[u8],
    session: &mut impl Session,
) -> Result<(), LoginRefused> {
    match mechanism {
        b"PLAIN" => {
            let (user, password) = plain(response).ok_or_else(|| {
                let shown = erlang::binary(response);
                LoginRefused::Malformed(AmqpError::syntax_error(format!("response {shown} invalid")))
            })?;
            session.login(user, password)
        }
        b"AMQPLAIN" => {
            let malformed = |text: &str| LoginRefused::Malformed(AmqpError::syntax_error(text));
            let login = table::decode(response).map_err(|error| malformed(&error.to_string()))?;
            match (login.get("LOGIN"), login.get("PASSWORD")) {
                (Some(user), Some(password)) => match (bytes(user), bytes(password)) {
                    (Some(user), Some(password)) => session.login(user, password),
                    _ => {
                        Err(malformed("AMQPLAIN auth info uses unsupported type for LOGIN or PASSWORD field"))
                    }
                },
                _ => Err(malformed("AMQPLAIN auth info is missing LOGIN or PASSWORD field")),
            }
        }
        b"ANONYMOUS" if session.offers_anonymous() => session.login_anonymous(),
        _ => {
            let kind = if MECHANISMS_KNOWN.contains(&mechanism) { "invalid" } else { "unknown" };
            let name = String::from_utf8_lossy(mechanism);
            Err(LoginRefused::Malformed(AmqpError::command_invalid(format!(
                "{kind} authentication mechanism '{name}'"
            ))))
        }
    }
}

fn bytes(value: &FieldValue) -> Option<&[u8]> {
    match value {
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => Some(bytes),
        _ => None,
    }
}

/// `\0user\0password`, nothing before and nothing behind.
fn plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = response.strip_prefix(&[0])?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (user, password) = (&rest[..end], &rest[end + 1..]);
    (!password.contains(&0)).then_some((user, password))
}

/// What the client answered to `connection.tune`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuned {
    pub channel_max: u16,
    pub frame_max: u32,
    pub heartbeat_s: u16,
}

impl Tuned {
    /// Checks it against what was offered: lower is fine, higher or "no limit" is not
    /// (`rabbit_reader:validate_negotiated_integer_value/3`).
    ///
    /// # Errors
    /// 530 with the value that does not fit.
    pub(crate) fn check(self, limits: &Limits) -> Result<(), AmqpError> {
        check_tuned("frame_max", self.frame_max, Limits::FRAME_MAX_MIN, limits.frame_max)?;
        check_tuned("channel_max", self.channel_max.into(), 1, limits.channel_max.into())
    }
}

fn check_tuned(field: &str, value: u32, min: u32, max: u32) -> Result<(), AmqpError> {
    let detail = if field == "channel_max" && value == 0 { " (no limit)" } else { "" };
    let refusal = if max != 0 && (value == 0 || value > max) {
        Some(("higher", "maximum", max))
    } else if value != 0 && value < min {
        Some(("lower", "minimum", min))
    } else {
        None
    };
    match refusal {
        None => Ok(()),
        Some((than, bound, limit)) => Err(AmqpError::not_allowed(format!(
            "negotiated {field} = {value}{detail} is {than} than the {bound} allowed value ({limit})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_takes_exactly_two_parts() {
        assert_eq!(plain(b"\0guest\0secret"), Some((&b"guest"[..], &b"secret"[..])));
        assert_eq!(plain(b"\0guest\0"), Some((&b"guest"[..], &b""[..])));
        for malformed in [&b""[..], b"guest\0guest", b"\0guest", b"other\0guest\0guest", b"\0a\0b\0c"] {
            assert_eq!(plain(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn tuning_may_lower_but_not_raise() {
        let check = |field, value, min, max| check_tuned(field, value, min, max).map_err(|e| e.explanation);
        assert_eq!(check("frame_max", 8192, 8192, 131_072), Ok(()));
        assert_eq!(
            check("frame_max", 4096, 8192, 131_072),
            Err("negotiated frame_max = 4096 is lower than the minimum allowed value (8192)".into())
        );
        assert_eq!(
            check("channel_max", 0, 1, 2047),
            Err("negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"
                .into())
        );
    }
}
