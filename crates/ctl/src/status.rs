//! What `status` prints.

use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::json;
use warren_control::{COMPATIBLE_VERSION, Status};

const GIGABYTE: f64 = 1e9;

/// For people, in sections as rabbitmqctl has them.
pub(crate) fn text(status: &Status) -> String {
    let gb = |bytes: u64| format!("{:.4} gb", bytes as f64 / GIGABYTE);
    let mut out = String::new();
    let mut section = |title: &str, lines: &[String]| {
        writeln!(out, "{title}\n").expect("a string takes everything");
        for line in lines {
            writeln!(out, "{line}").expect("a string takes everything");
        }
        out.push('\n');
    };
    section(
        "Runtime",
        &[
            format!("OS PID: {}", status.pid),
            format!("OS: {}", std::env::consts::OS),
            format!("Uptime (seconds): {}", status.uptime_s),
            "Is under maintenance?: false".to_owned(),
            format!("RabbitMQ version: {}", COMPATIBLE_VERSION),
            format!("Warren version: {}", status.version),
            format!("Node name: {}", status.node),
            format!("Cluster name: {}", status.cluster),
        ],
    );
    section("Data directory", &[format!("Node data directory: {}", status.data_dir)]);
    let config = status.config_file.iter().map(|file| format!(" * {file}")).collect::<Vec<_>>();
    section("Config files", &config);
    let alarms = match status.alarms.is_empty() {
        true => vec!["(none)".to_owned()],
        false => status.alarms.iter().map(|alarm| format!("{alarm} alarm on node {}", status.node)).collect(),
    };
    section("Alarms", &alarms);
    section(
        "Memory",
        &[
            format!("Total memory used: {}", gb(status.memory)),
            format!("Messages in queues: {}", gb(status.queue_memory)),
            format!("Memory high watermark setting: {}", gb(status.memory_limit)),
        ],
    );
    section("File Descriptors", &[format!("Limit: {}", status.file_limit)]);
    let free = status.disk_free.map_or_else(|| "unknown".to_owned(), gb);
    section(
        "Free Disk Space",
        &[
            format!("Low free disk space watermark: {}", gb(status.disk_free_limit)),
            format!("Free disk space: {free}"),
        ],
    );
    section(
        "Totals",
        &[
            format!("Connection count: {}", status.connections),
            format!("Queue count: {}", status.queues),
            format!("Virtual host count: {}", status.vhosts),
        ],
    );
    section("Listeners", &listeners(status));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Where it listens, a line each.
pub(crate) fn listeners(status: &Status) -> Vec<String> {
    let line = |address: &SocketAddr| {
        let host = match address.ip() {
            ip if ip.is_ipv6() => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        format!("Interface: {host}, port: {}, protocol: amqp, purpose: AMQP 0-9-1", address.port())
    };
    status.listeners.iter().map(line).collect()
}

/// For programs, with the keys of rabbitmqctl's.
pub(crate) fn json(status: &Status) -> String {
    let listeners = status.listeners.iter().map(|address| {
        json!({
            "interface": address.ip().to_string(),
            "node": status.node,
            "port": address.port(),
            "protocol": "amqp",
            "purpose": "AMQP 0-9-1",
        })
    });
    let value = json!({
        "alarms": status.alarms,
        "config_files": status.config_file.iter().collect::<Vec<_>>(),
        "cluster_name": status.cluster,
        "data_directory": status.data_dir,
        "disk_free": status.disk_free,
        "disk_free_limit": status.disk_free_limit,
        "file_descriptors": { "total_limit": status.file_limit },
        "is_under_maintenance": false,
        "listeners": listeners.collect::<Vec<_>>(),
        "memory": { "total": { "rss": status.memory }, "strategy": "rss", "queues": status.queue_memory },
        "node": status.node,
        "os": std::env::consts::OS,
        "pid": status.pid,
        "rabbitmq_version": COMPATIBLE_VERSION,
        "totals": {
            "connection_count": status.connections,
            "queue_count": status.queues,
            "virtual_host_count": status.vhosts,
        },
        "uptime": status.uptime_s,
        "vm_memory_high_watermark_limit": status.memory_limit,
        "warren_version": status.version,
    });
    format!("{value}\n")
}
