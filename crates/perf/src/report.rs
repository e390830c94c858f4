use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

/// Named results, in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// Name in JSON, with the unit.
    name: String,
    value: Value,
    /// For people.
    line: String,
}

impl Report {
    /// A result, and how people like to read it.
    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>, line: String) {
        self.rows.push(Row { name: name.to_owned(), value: value.into(), line });
    }

    /// How many there were in a time.
    pub(crate) fn rate(&mut self, what: &str, count: u64, elapsed: Duration) {
        let rate = count as f64 / elapsed.as_secs_f64();
        self.put(&format!("{what}_per_s"), rate.round(), format!("{what:<12} {rate:>12.0} /s   ({count})"));
    }

    /// Processor time of the broker, altogether and for each.
    pub(crate) fn cpu(&mut self, cpu: Option<Duration>, what: &str, count: u64) {
        let Some(cpu) = cpu else { return };
        let each = cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
        self.put("broker_cpu_s", cpu.as_secs_f64(), format!("broker CPU   {:>12.2} s", cpu.as_secs_f64()));
        let line = format!("             {each:>12.3} us a {what}");
        self.put(&format!("broker_cpu_us_per_{what}"), (each * 1e4).round() / 1e4, line);
    }

    /// Memory of the broker.
    pub(crate) fn memory(&mut self, name: &str, bytes: Option<u64>) {
        let Some(bytes) = bytes else { return };
        let line = format!("memory       {:>12.1} MB  {}", bytes as f64 / 1e6, name.replace('_', " "));
        self.put(&format!("broker_memory_{name}_bytes"), bytes, line);
    }

    /// Percentiles, given nanoseconds.
    pub(crate) fn latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        let points =
            [("p50", 50.0), ("p75", 75.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)];
        let values = points.map(|(label, at)| (label, histogram.value_at_percentile(at) as f64 / 1e3));
        let shown: Vec<String> = values.iter().map(|(label, us)| format!("{label} {us:.0}")).collect();
        let line = format!("{:<12} {} us", name.replace('_', " "), shown.join("  "));
        let object: Map<String, Value> =
            values.iter().map(|(label, us)| ((*label).to_owned(), Value::from(*us))).collect();
        self.put(&format!("{name}_us"), object, line);
    }

    /// Prints to standard output.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            let object: Map<String, Value> =
                self.rows.iter().map(|row| (row.name.clone(), row.value.clone())).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&object)?)?;
        } else {
            for row in &self.rows {
                writeln!(out, "{}", row.line)?;
            }
        }
        Ok(())
    }
}
