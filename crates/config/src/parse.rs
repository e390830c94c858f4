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
    let mut exchanges = Exchanges::default();
    for (index, line) in text.lines().enumerate() {
        let fail = |reason| ConfigError { line: index + 1, reason };
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| fail(format!("'{line}' is not of the form 'key = value'")))?;
        let value = unquote(value.trim());
        let key = key.trim();
        let is_taken = exchanges.set(key, value).map_err(|reason| fail(format!("{key}: {reason}")))?;
        if !is_taken {
            set(&mut config, key, value).map_err(|reason| fail(format!("{key}: {reason}")))?;
        }
    }
    exchanges.apply(&mut config);
    Ok(config)
}

/// Exchanges that the broker publishes to: each is described by several keys, in any order.
#[derive(Debug, Default)]
struct Exchanges {
    log: bool,
    log_level: Option<LogLevel>,
    events: Option<bool>,
    event_vhost: Option<String>,
}

impl Exchanges {
    /// Whether the key is about one of them.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "log.exchange" => self.log = value::boolean(value)?,
            "log.exchange.level" => self.log_level = Some(log_level(value)?),
            "event_exchange.enabled" => self.events = Some(value::boolean(value)?),
            "event_exchange.vhost" => self.event_vhost = Some(value.to_owned()),
            "event_exchange.protocol" => match value {
                "amqp_0_9_1" => {}
                "amqp_1_0" => return Err("events are published as messages of amqp_0_9_1 only".to_owned()),
                _ => return Err(format!("'{value}' is no protocol: amqp_0_9_1 or amqp_1_0")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The log exchange has the level `info` unless another one is given, as all outputs of RabbitMQ's log. The event
    /// exchange is a plugin there, whose other settings are known only where it is enabled: so they enable it here.
    fn apply(self, config: &mut Config) {
        let level = self.log_level.unwrap_or(LogLevel::Info);
        config.log_exchange = self.log.then_some(level);
        if self.events.unwrap_or(self.event_vhost.is_some()) {
            config.event_exchange = Some(self.event_vhost.unwrap_or_else(|| config.default_vhost.clone()));
        }
    }
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
        "consumer_timeout" => match value::number(value)? {
            0 => {
                return Err(
                    "0 would take every message back at once: give milliseconds, or no line".to_owned()
                );
            }
            timeout => config.consumer_timeout = Some(Duration::from_millis(timeout)),
        },
        "max_message_size" => config.max_message_size = message_size(value)?,
        "default_vhost" => value.clone_into(&mut config.default_vhost),
        "default_queue_type" => config.default_queue_type = Some(queue_type(value)?),
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
        "message_interceptors.incoming.set_header_timestamp.overwrite"
        | "incoming_message_interceptors.set_header_timestamp.overwrite" => {
            config.interceptors.timestamp = Some(value::boolean(value)?);
        }
        "message_interceptors.incoming.set_header_routing_node.overwrite"
        | "incoming_message_interceptors.set_header_routing_node.overwrite" => {
            config.interceptors.routing_node = Some(value::boolean(value)?);
        }
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

fn queue_type(value: &str) -> Result<String, String> {
    match value {
        "classic" | "quorum" => Ok(value.to_owned()),
        "stream" => Err("streams are not available yet".to_owned()),
        other => Err(format!("'{other}' is no queue type: classic or quorum")),
    }
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
    use crate::Interceptors;

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
    fn cfg6_the_log_exchange_and_its_level() {
        let exchange = |text| parse(text).expect("it is right").log_exchange;
        assert_eq!(exchange(""), None);
        assert_eq!(exchange("log.exchange = true"), Some(LogLevel::Info));
        assert_eq!(exchange("log.exchange.level = debug\nlog.exchange = true"), Some(LogLevel::Debug));
        assert_eq!(exchange("log.exchange = false\nlog.exchange.level = debug"), None);
        assert_eq!(
            error("log.exchange.level = loud"),
            "line 1: log.exchange.level: 'loud' is no level: debug, info, notice, warning, error, critical or none"
        );
    }

    #[test]
    fn e6_the_event_exchange_and_its_virtual_host() {
        let vhost = |text| parse(text).expect("it is right").event_exchange;
        assert_eq!(vhost(""), None);
        assert_eq!(vhost("event_exchange.enabled = true").as_deref(), Some("/"));
        assert_eq!(vhost("event_exchange.enabled = true\ndefault_vhost = a").as_deref(), Some("a"));
        assert_eq!(vhost("event_exchange.vhost = events").as_deref(), Some("events"));
        assert_eq!(vhost("event_exchange.vhost = events\nevent_exchange.enabled = false"), None);
        assert_eq!(vhost("event_exchange.protocol = amqp_0_9_1"), None);
        assert_eq!(
            error("event_exchange.protocol = amqp_1_0"),
            "line 1: event_exchange.protocol: events are published as messages of amqp_0_9_1 only"
        );
        assert_eq!(
            error("event_exchange.protocol = mqtt"),
            "line 1: event_exchange.protocol: 'mqtt' is no protocol: amqp_0_9_1 or amqp_1_0"
        );
    }

    #[test]
    fn r6_interceptors_by_their_new_and_old_names() {
        for prefix in ["message_interceptors.incoming", "incoming_message_interceptors"] {
            let config = parse(&format!(
                "{prefix}.set_header_timestamp.overwrite = true\n\
                 {prefix}.set_header_routing_node.overwrite = false\n"
            ));
            let interceptors = Interceptors { timestamp: Some(true), routing_node: Some(false) };
            assert_eq!(config.expect("it is right").interceptors, interceptors);
        }
        assert_eq!(parse("").expect("it is right").interceptors, Interceptors::default());
        assert!(error("message_interceptors.incoming.set_header_timestamp.overwrite = 1").contains("'1'"));
        assert_eq!(
            error("message_interceptors.incoming.other.overwrite = true"),
            "line 1: message_interceptors.incoming.other.overwrite: this setting is not known"
        );
    }

    #[test]
    fn m41_the_consumer_timeout() {
        let timeout = |text| parse(text).expect("it is right").consumer_timeout;
        assert_eq!(timeout(""), None);
        assert_eq!(timeout("consumer_timeout = 1800000"), Some(Duration::from_secs(1800)));
        assert_eq!(
            error("consumer_timeout = 0"),
            "line 1: consumer_timeout: 0 would take every message back at once: give milliseconds, or no line"
        );
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
