//! Values as RabbitMQ writes them.

use std::net::SocketAddr;

/// A number of bytes, with an optional unit as in `64MiB` or `2GB`.
///
/// # Errors
/// What is wrong with the text.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("ki", 1 << 10),
        ("mi", 1 << 20),
        ("gi", 1 << 30),
        ("ti", 1 << 40),
        // As RabbitMQ's documents have it: a bare letter is a power of two.
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
    ];
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = (UNITS.iter())
        .find_map(|(suffix, factor)| Some((lower.strip_suffix(suffix)?, *factor)))
        .unwrap_or((&lower, 1));
    let number: u64 =
        digits.trim().parse().map_err(|_| format!("'{text}' is not a number of bytes, such as 64MiB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' is too large"))
}

pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number in the range of this setting"))
}

pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

/// A port, or an address with a port.
pub(crate) fn listener(text: &str) -> Result<crate::Listener, String> {
    if let Ok(port) = text.parse() {
        return Ok(crate::Listener::Port(port));
    }
    let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
    let address: SocketAddr =
        numeric.parse().map_err(|_| format!("'{text}' is neither a port nor an address with a port"))?;
    Ok(crate::Listener::Address(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
        assert_eq!(bytes("1k"), Ok(1024));
        assert!(bytes("much").is_err());
        assert!(bytes("99999999999TiB").is_err());
    }

    #[test]
    fn listeners() {
        use crate::Listener::{Address, Port};
        assert_eq!(listener("5673"), Ok(Port(5673)));
        assert_eq!(listener("localhost:5673"), Ok(Address(([127, 0, 0, 1], 5673).into())));
        assert!(listener("[::1]:5673").is_ok());
        assert!(listener("somewhere").is_err());
    }
}
