//! How queues are, for those who ask.

use tokio::sync::oneshot;

use super::{Inspect, Shard};
use crate::connections::UnackedByChannel;
use crate::listing::QueueCounts;

impl Shard {
    pub(super) fn inspect(&self, inspect: Inspect) {
        let Inspect { queues, answer } = inspect;
        let counts = queues.into_iter().map(|queue| {
            let slot = self.find(queue)?;
            Some(QueueCounts {
                ready: slot.queue.ready_len(),
                unacked: slot.queue.unacked_len(),
                consumers: slot.queue.consumers_len(),
                memory: slot.queue.memory(),
                stopped: slot.stopped.is_some(),
                paused: slot.queue.options().settings.paused,
                single_active: slot.queue.single_active(),
            })
        });
        // Whoever asked may have gone.
        let _told = answer.send(counts.collect());
    }

    pub(super) fn count_unacked(&self, answer: oneshot::Sender<UnackedByChannel>) {
        let mut unacked = UnackedByChannel::new();
        for slot in self.queues.iter().flatten() {
            for channel in slot.queue.unacked_channels() {
                *unacked.entry(channel).or_default() += 1;
            }
        }
        let _told = answer.send(unacked);
    }
}
