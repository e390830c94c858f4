//! Messages that an exchange has kept go to what is bound to it now (features.md E4).

use std::sync::Arc;

use warren_queue::{Command, Publish};
use warren_router::{Binding, Destination};
use warren_types::session::Tracking;
use warren_types::{ChannelId, ConnectionId};

use crate::reroute;
use crate::shard::{ShardCommand, ShardHandle};
use crate::vhost::Tables;

/// Hands the history of a new binding's source to its destination, oldest message first. To be called under the lock
/// that makes the binding visible: what is published later comes behind.
///
/// A message whose route was found before the binding is there and that is recorded after it, by a client that
/// publishes at the same time, is not delivered.
pub(crate) fn replay(tables: &Tables, binding: &Binding, shards: &[Arc<ShardHandle>]) {
    let Some(history) = tables.router.history(binding.source.as_bytes()) else { return };
    let mut queues = Vec::new();
    for message in history.messages() {
        queues.clear();
        match &binding.destination {
            Destination::Queue(name) => queues.extend(tables.router.queue(name.as_bytes())),
            Destination::Exchange(name) => {
                // Where there is no such exchange any more, it goes nowhere.
                let _found = reroute::route(tables, name.as_bytes(), &message, &mut queues);
            }
        }
        for queue in &queues {
            let publish = Publish {
                connection: ConnectionId::NONE,
                channel: ChannelId::CONNECTION,
                tracking: Tracking::None,
                message: message.clone(),
            };
            let command = ShardCommand::Apply(*queue, Command::Publish(publish));
            shards[usize::from(queue.shard)].mailbox.push(command);
        }
    }
}
