//! From the log to the exchange `amq.rabbitmq.log` (features.md CFG6).

use std::cell::Cell;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use warren_broker::LogExchange;

thread_local! {
    /// This thread is at it: what publishing a line makes others log is not published.
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Publishes what is logged. Until the broker has started, and while nobody has bound a queue, it does nothing.
pub(crate) struct LogExchangeLayer {
    exchange: Arc<OnceLock<LogExchange>>,
}

impl LogExchangeLayer {
    /// `exchange` is set when the broker has started.
    pub(crate) fn new(exchange: Arc<OnceLock<LogExchange>>) -> Self {
        Self { exchange }
    }
}

impl<S: Subscriber> Layer<S> for LogExchangeLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(exchange) = self.exchange.get().filter(|exchange| exchange.is_bound()) else { return };
        if ENTERED.replace(true) {
            return;
        }
        let level = name(*event.metadata().level());
        let mut time = String::new();
        // Without a time the line is still worth reading.
        let _formatted = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut text = Text { message: String::new(), fields: String::new() };
        event.record(&mut text);
        let line = format!("{} [{level}] {}{}\n", rabbit_time(&time), text.message, text.fields);
        exchange.post(level, line.as_bytes());
        ENTERED.set(false);
    }
}

/// A time as RabbitMQ writes it by default: `2026-01-02 03:04:05.678901+00:00`.
fn rabbit_time(rfc3339: &str) -> String {
    rfc3339.replacen('T', " ", 1).replacen('Z', "+00:00", 1)
}

/// RabbitMQ's name of a level, which is the routing key.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// What is logged: the message, and the other fields behind it.
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg6_levels_and_times_are_written_as_in_rabbitmq() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(name), ["error", "warning", "info", "debug", "debug"]);
        assert_eq!(rabbit_time("2026-01-02T03:04:05.678901Z"), "2026-01-02 03:04:05.678901+00:00");
    }
}
