use std::time::Duration;

use crate::{Config, Listener, LogLevel, Watermark, memory, value};

/// A line of the configuration cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ConfigError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for (index, line) in text.lines().enumerate() {
        let fail = |reason| ConfigError { line: index + 1, reason };
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| fail(format!("'{line}' is not of the form 'key = value'")))?;
        let value = unquote(value.trim());
        set(&mut config, key.trim(), value).map_err(|reason| fail(format!("{}: {reason}", key.trim())))?;
    }
    Ok(config)
}

/// A `#` starts a comment, except within quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (index, character) in line.char_indices() {
        match character {
            '\'' => quoted = !quoted,
            '#' if !quoted => return &line[..index],
            _ => {}
        }
    }
    line
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value)
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    match key {
        "listeners.tcp" if value == "none" => {
            return Err("without a TCP listener nothing would be served".to_owned());
        }
        "tcp_listen_options.backlog" => config.backlog = value::number(value)?,
        "tcp_listen_options.nodelay" => {
            if !value::boolean(value)? {
                return Err("output is sent in batches already; it is never delayed further".to_owned());
            }
        }
        "handshake_timeout" => config.handshake_timeout = Duration::from_millis(value::number(value)?),
        "heartbeat" => config.heartbeat_s = value::number(value)?,
        "frame_max" => config.frame_max = frame_max(value)?,
        "channel_max" => config.channel_max = value::number(value)?,
        "max_message_size" => config.max_message_size = message_size(value)?,
        "default_vhost" => value.clone_into(&mut config.default_vhost),
        "default_user" => value.clone_into(&mut config.default_user),
        "default_pass" => value.clone_into(&mut config.default_pass),
        "default_permissions.configure" => value.clone_into(&mut config.default_permissions.configure),
        "default_permissions.write" => value.clone_into(&mut config.default_permissions.write),
        "default_permissions.read" => value.clone_into(&mut config.default_permissions.read),
        "loopback_users" if value == "none" => config.loopback_users.clear(),
        "anonymous_login_user" => {
            config.anonymous_login_user = (value != "none").then(|| value.to_owned());
        }
        "vm_memory_high_watermark.relative" => {
            config.memory_high_watermark = Watermark::Relative(relative(value)?);
        }
        "vm_memory_high_watermark.absolute" => {
            config.memory_high_watermark = Watermark::Absolute(value::bytes(value)?);
        }
        "disk_free_limit.absolute" => config.disk_free_limit = value::bytes(value)?,
        "disk_free_limit.relative" => {
            let factor: f64 = value::number(value)?;
            if factor.is_nan() || factor < 0.0 {
                return Err(format!("{value} is not a factor of the memory, such as 1.5"));
            }
            config.disk_free_limit = (memory::total_bytes() as f64 * factor) as u64;
        }
        "cluster_name" => config.cluster_name = Some(value.to_owned()),
        "log.console" => {
            if !value::boolean(value)? {
                config.log_level = LogLevel::None;
            }
        }
        "log.console.level" => config.log_level = log_level(value)?,
        _ => return set_named(config, key, value),
    }
    Ok(())
}

/// Keys whose last part is a name.
fn set_named(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    if let Some(name) = key.strip_prefix("listeners.tcp.")
        && !name.is_empty()
    {
        config.listeners.push(value::listener(value)?);
        return Ok(());
    }
    if let Some(user) = key.strip_prefix("loopback_users.") {
        config.loopback_users.insert(user.to_owned(), value::boolean(value)?);
        return Ok(());
    }
    Err("this setting is not known".to_owned())
}

fn frame_max(value: &str) -> Result<u32, String> {
    const MIN: u32 = 8192;
    match value::number(value)? {
        size if size >= MIN => Ok(size),
        size => Err(format!("{size} is below the smallest frame size that clients must support ({MIN})")),
    }
}

fn message_size(value: &str) -> Result<u64, String> {
    const MAX: u64 = 512 * 1024 * 1024;
    match value::bytes(value)? {
        size if size <= MAX => Ok(size),
        size => Err(format!("{size} is more than the largest possible message size ({MAX})")),
    }
}

fn relative(value: &str) -> Result<f64, String> {
    let part: f64 = value::number(value)?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err(format!("{value} is not between 0 and 1")) }
}

fn log_level(value: &str) -> Result<LogLevel, String> {
    match value {
        "debug" => Ok(LogLevel::Debug),
        "info" | "notice" => Ok(LogLevel::Info),
        "warning" => Ok(LogLevel::Warning),
        "error" | "critical" => Ok(LogLevel::Error),
        "none" => Ok(LogLevel::None),
        _ => Err(format!("'{value}' is no level: debug, info, notice, warning, error, critical or none")),
    }
}

impl Config {
    /// Where to listen: what was configured, or the default port.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() {
            vec![Listener::Port(Self::DEFAULT_PORT)]
        } else {
            self.listeners.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |_| "no error".to_owned())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("\n# nothing\n   \n"), Ok(Config::default()));
    }

    #[test]
    fn settings() {
        let config = parse(
            "listeners.tcp.default = 5673 # AMQP\n\
             listeners.tcp.local = 127.0.0.1:5674\n\
             heartbeat=30\n\
             loopback_users.guest = false\n\
             default_pass = 'a # b'\n\
             vm_memory_high_watermark.absolute = 2GiB\n\
             disk_free_limit.absolute = 1GB\n\
             log.console.level = warning\n",
        )
        .expect("it is right");
        assert_eq!(
            config.listeners(),
            [Listener::Port(5673), Listener::Address(([127, 0, 0, 1], 5674).into())]
        );
        assert_eq!(config.heartbeat_s, 30);
        assert!(config.loopback_users().is_empty());
        assert_eq!(config.default_pass, "a # b");
        assert_eq!(config.memory_limit(), 2 << 30);
        assert_eq!(config.disk_free_limit, 1_000_000_000);
        assert_eq!(config.log_level, LogLevel::Warning);
    }

    #[test]
    fn errors_name_line_and_key() {
        assert_eq!(error("\nheartbeats = 3"), "line 2: heartbeats: this setting is not known");
        assert_eq!(error("heartbeat"), "line 1: 'heartbeat' is not of the form 'key = value'");
        assert_eq!(
            error("heartbeat = often"),
            "line 1: heartbeat: 'often' is not a number in the range of this setting"
        );
        assert_eq!(
            error("frame_max = 4096"),
            "line 1: frame_max: 4096 is below the smallest frame size that clients must support (8192)"
        );
        assert_eq!(
            error("max_message_size = 1GiB"),
            "line 1: max_message_size: 1073741824 is more than the largest possible message size (536870912)"
        );
    }
}
