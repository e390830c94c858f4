//! How the node is: alarms, memory, disk; and the limits that raise alarms.

use crate::alarm;
use crate::broker::Broker;
use crate::ports::Alarm;

/// How the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Publishers wait because messages take too much memory.
    pub memory_alarm: bool,
    /// Publishers wait because there is too little disk space.
    pub disk_alarm: bool,
    /// Memory of the process, in bytes, if the system tells.
    pub resident: Option<u64>,
    /// Memory of messages in queues, in bytes.
    pub queue_memory: u64,
    /// Memory that messages may take, in bytes.
    pub memory_limit: u64,
    /// Free disk space, in bytes, if the system tells.
    pub disk_free: Option<u64>,
    /// Free disk space, in bytes, below which publishers wait.
    pub disk_free_limit: u64,
    /// Connections that have opened a virtual host.
    pub connections: usize,
    /// Queues of all virtual hosts.
    pub queues: usize,
    /// Virtual hosts.
    pub vhosts: usize,
}

impl Broker {
    /// How the node is.
    #[must_use]
    pub fn health(&self) -> Health {
        let [memory_alarm, disk_alarm] = self.ports.alarms();
        let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
        let (queues, vhosts) = {
            let directory = self.directory();
            (directory.vhosts.values().map(|vhost| vhost.read().queues.len()).sum(), directory.vhosts.len())
        };
        Health {
            memory_alarm,
            disk_alarm,
            resident: alarm::resident_bytes().map(bytes),
            queue_memory: bytes(self.alarm.held()),
            memory_limit: bytes(self.alarm.limit()),
            disk_free: self.store.free_bytes().ok(),
            disk_free_limit: self.disk_limit.bytes(),
            connections: self.ports.count_opened(),
            queues,
            vhosts,
        }
    }

    /// Sets the memory that messages may take, in bytes, until the node ends.
    pub fn set_memory_limit(&self, bytes: u64) {
        self.alarm.set_limit(bytes);
        if let Some(raised) = self.alarm.check() {
            self.ports.tell_alarm(Alarm::Memory, raised);
        }
    }

    /// Sets the free disk space below which publishers wait, in bytes, until the node ends.
    pub fn set_disk_free_limit(&self, bytes: u64) {
        self.disk_limit.set(bytes);
    }
}
