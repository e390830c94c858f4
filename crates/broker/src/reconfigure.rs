//! Changes to a queue that is there: other arguments, a pause. What it holds stays.

use warren_queue::Command;
use warren_types::{FieldTable, FieldValue, ShortString};

use crate::admin::{AdminError, Recorded, not_found};
use crate::auth::Resource;
use crate::broker::Broker;
use crate::queue_arguments;
use crate::shard::ShardCommand;
use crate::vhost::QueueEntry;

/// What a queue is from the beginning: its messages are kept accordingly.
const FIXED: [&str; 5] = [
    "x-queue-type",
    "x-max-priority",
    "x-single-active-consumer",
    "x-message-group-header",
    "x-message-deduplication",
];

/// Why a queue was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconfigureError {
    /// What is to be changed is not there.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// An argument cannot have this value, or cannot change at all.
    #[error("{0}")]
    Argument(String),
}

impl Broker {
    /// Lets nobody get messages from a queue, or everybody again. A durable queue stays paused when the node is started
    /// anew.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if it is none of a client.
    pub fn pause_queue(&self, vhost: &str, name: &str, paused: bool) -> Result<Recorded, ReconfigureError> {
        self.reconfigure(vhost, name, |entry| {
            entry.state.paused = paused;
            Ok(())
        })
    }

    /// Gives arguments of a queue other values, or takes them away where there is none; the others stay. They are in
    /// force at once, and what clients declare must agree with them from now on.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if an argument cannot have this value or cannot change.
    pub fn set_queue_arguments(
        &self,
        vhost: &str,
        name: &str,
        changes: Vec<(ShortString, Option<FieldValue>)>,
    ) -> Result<Recorded, ReconfigureError> {
        let label = Resource::Queue(name.as_bytes()).label(vhost);
        self.reconfigure(vhost, name, |entry| {
            let arguments = changed(&entry.arguments, changes)?;
            queue_arguments::parse(&arguments, &label)
                .map_err(|error| ReconfigureError::Argument(error.explanation))?;
            entry.arguments = arguments;
            Ok(())
        })
    }

    fn reconfigure(
        &self,
        vhost: &str,
        name: &str,
        change: impl FnOnce(&mut QueueEntry) -> Result<(), ReconfigureError>,
    ) -> Result<Recorded, ReconfigureError> {
        let mut failed = None;
        let recorded = self.change_vhost(vhost, |vhost, tables, changes| {
            let name = ShortString::truncated(name.as_bytes());
            let entry = tables.queues.get_mut(&name).filter(|entry| entry.target().is_some());
            let entry = entry.ok_or_else(|| not_found("queue", &String::from_utf8_lossy(name.as_bytes())))?;
            if let Err(error) = change(entry) {
                failed = Some(error);
                return Ok(());
            }
            if entry.durable {
                changes.put(&vhost.queue_row(&name, entry));
            }
            let settings = entry.settings(entry.policy.as_deref());
            let configure = ShardCommand::Apply(entry.queue, Command::Configure(Box::new(settings)));
            // Under the lock, so that no later change overtakes this one on its way to the queue.
            self.shards[usize::from(entry.queue.shard)].mailbox.push(configure);
            Ok(())
        })?;
        failed.map_or(Ok(recorded), Err)
    }
}

fn changed(
    arguments: &FieldTable,
    changes: Vec<(ShortString, Option<FieldValue>)>,
) -> Result<FieldTable, ReconfigureError> {
    let mut arguments = arguments.clone();
    for (name, value) in changes {
        let shown = String::from_utf8_lossy(name.as_bytes()).into_owned();
        if FIXED.contains(&shown.as_str()) {
            return Err(ReconfigureError::Argument(format!(
                "'{shown}' cannot change: messages are kept by it; declare another queue and move them"
            )));
        }
        arguments.0.retain(|(known, _)| *known != name);
        if let Some(value) = value {
            arguments.0.push((name, value));
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_arguments_change_in_place_but_for_those_that_messages_are_kept_by() {
        let mut arguments = FieldTable::new();
        arguments.insert("x-max-length", FieldValue::I32(5));
        arguments.insert("mine", FieldValue::Bool(true));
        let to = |name: &'static str, value: Option<FieldValue>| vec![(ShortString::from(name), value)];
        let changed_to = |changes| changed(&arguments, changes).expect("they can change");
        let more = changed_to(to("x-max-length", Some(FieldValue::I64(9))));
        assert_eq!(more.get("x-max-length"), Some(&FieldValue::I64(9)));
        assert_eq!(more.get("mine"), Some(&FieldValue::Bool(true)));
        assert_eq!(changed_to(to("x-max-length", None)).get("x-max-length"), None);
        for name in FIXED {
            assert!(changed(&arguments, to(name, None)).is_err(), "{name}");
        }
    }
}
