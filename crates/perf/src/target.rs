use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};

/// The broker, and how to log in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    pub vhost: String,
}

impl Target {
    /// Reads an AMQP URI, such as `amqp://guest:guest@localhost:5672/%2f`.
    pub(crate) fn parse(uri: &str) -> anyhow::Result<Self> {
        let Some(rest) = uri.strip_prefix("amqp://") else {
            bail!("'{uri}' does not begin with amqp://");
        };
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, decode(vhost)?),
            None => (rest, "/".to_owned()),
        };
        let (login, host) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let host = if host.is_empty() { "localhost" } else { host };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:5672") };
        let mut found = host.to_socket_addrs().with_context(|| format!("cannot find {host}"))?;
        let address = found.next().with_context(|| format!("{host} has no address"))?;
        Ok(Self { address, user: decode(user)?, password: decode(password)?, vhost })
    }
}

fn decode(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.with_context(|| format!("'{text}' has a % without two hexadecimal digits"))?);
        rest = &tail[2..];
    }
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read() {
        for (uri, port, user, password, vhost) in [
            ("amqp://127.0.0.1", 5672, "guest", "guest", "/"),
            ("amqp://127.0.0.1:5673/", 5673, "guest", "guest", ""),
            ("amqp://u:p%40ss@127.0.0.1/%2f", 5672, "u", "p@ss", "/"),
            ("amqp://u@127.0.0.1:1/a", 1, "u", "", "a"),
        ] {
            let target = Target::parse(uri).expect("it is a URI");
            assert_eq!(target.address.port(), port, "{uri}");
            assert_eq!((&*target.user, &*target.password, &*target.vhost), (user, password, vhost), "{uri}");
        }
        for uri in ["http://127.0.0.1", "amqp://127.0.0.1/%2", "amqp://127.0.0.1/%zz"] {
            assert!(Target::parse(uri).is_err(), "{uri}");
        }
    }
}
