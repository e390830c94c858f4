//! Connections as a shard sees them: what they get at the end of the turn, and what only once it is durable.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use warren_queue::Publish;
use warren_types::session::{Event, Reply, Tracking};
use warren_types::{AmqpError, ChannelId, ConnectionId, QueueRef};

use crate::ports::Port;

/// A connection as the shard sees it.
pub(super) struct Attached {
    id: ConnectionId,
    port: Arc<Port>,
    /// What it gets at the end of the turn.
    events: Vec<Event>,
    /// What it gets once everything that the turn has appended to the log is durable.
    promised: Vec<Event>,
    /// Queues where it may have consumers or unacked messages.
    pub queues: HashSet<QueueRef, RandomState>,
    /// Bytes of its publishes that were processed in this turn.
    processed: usize,
    /// One of them went to a queue that has more than its consumers take.
    crowds: bool,
    touched: bool,
}

#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Attached>>,
    touched: Vec<u32>,
}

/// Events for connections, to be handed over at once.
pub(super) type Promises = Vec<(Arc<Port>, Vec<Event>)>;

impl Connections {
    pub(super) fn attach(&mut self, id: ConnectionId, port: Arc<Port>) {
        let slot = id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Attached {
            id,
            port,
            events: Vec::new(),
            promised: Vec::new(),
            queues: HashSet::default(),
            processed: 0,
            crowds: false,
            touched: false,
        });
    }

    pub(super) fn detach(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id.slot as usize)
            && slot.as_ref().is_some_and(|attached| attached.id == id)
        {
            *slot = None;
        }
    }

    pub(super) fn touch(&mut self, id: ConnectionId) -> Option<&mut Attached> {
        let attached = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        if attached.id != id {
            return None;
        }
        if !attached.touched {
            attached.touched = true;
            self.touched.push(id.slot);
        }
        Some(attached)
    }

    /// A publish was processed: its length, and whether its queue has more than its consumers take.
    pub(super) fn processed(&mut self, id: ConnectionId, bytes: usize, crowds: bool) {
        if let Some(attached) = self.touch(id) {
            attached.processed += bytes;
            attached.crowds |= crowds;
        }
    }

    pub(super) fn event(&mut self, id: ConnectionId, event: Event) {
        if let Some(attached) = self.touch(id) {
            attached.events.push(event);
        }
    }

    pub(super) fn reply(&mut self, id: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>) {
        self.event(id, Event::Reply(channel, reply));
    }

    /// Holds back what the connection was just told of a queue's end until that is durable.
    pub(super) fn promise_deletion(&mut self, id: ConnectionId) {
        let Some(attached) = self.touch(id) else { return };
        let told = attached
            .events
            .iter()
            .rposition(|event| matches!(event, Event::Reply(_, Ok(Reply::QueueDeleted(_)))));
        if let Some(index) = told {
            let reply = attached.events.remove(index);
            attached.promised.push(reply);
        }
    }

    /// A deleted queue has nothing to lose: what comes too late for it counts as taken and dropped.
    pub(super) fn settle_for_missing(&mut self, publish: &Publish) {
        match publish.tracking {
            Tracking::None => {}
            Tracking::Confirm(number) => self.accepted(publish.connection, publish.channel, number, false),
            Tracking::Immediate(number) => {
                let channel = publish.channel;
                self.event(publish.connection, Event::Immediate { channel, number, taken: false });
            }
        }
    }

    /// A stopped queue takes nothing.
    pub(super) fn refuse(&mut self, publish: &Publish) {
        match publish.tracking {
            Tracking::Confirm(number) => {
                let event =
                    Event::Settled { channel: publish.channel, first: number, last: number, accepted: false };
                self.event(publish.connection, event);
            }
            _ => self.settle_for_missing(publish),
        }
    }

    /// A confirm, at once or when the turn's records are durable.
    pub(super) fn accepted(&mut self, id: ConnectionId, channel: ChannelId, number: u64, durable: bool) {
        let Some(attached) = self.touch(id) else { return };
        let events = if durable { &mut attached.promised } else { &mut attached.events };
        if let Some(Event::Settled { channel: same, last, accepted: true, .. }) = events.last_mut()
            && *same == channel
            && *last + 1 == number
        {
            *last = number;
            return;
        }
        events.push(Event::Settled { channel, first: number, last: number, accepted: true });
    }

    /// Hands every touched connection its events. Returns what has to wait.
    pub(super) fn flush(&mut self) -> Promises {
        let mut promises = Promises::new();
        for slot in self.touched.drain(..) {
            let Some(attached) = &mut self.slots[slot as usize] else { continue };
            attached.touched = false;
            let crowds = std::mem::take(&mut attached.crowds);
            attached.port.processed(std::mem::take(&mut attached.processed), crowds);
            attached.port.outbox.append(&mut attached.events);
            if !attached.promised.is_empty() {
                promises.push((Arc::clone(&attached.port), std::mem::take(&mut attached.promised)));
            }
        }
        promises
    }
}
