//! Deliveries to the client, and what it says of them.

use warren_amqp091_codec::Method;
use warren_types::session::{Delivery, DeliveryRange, Session, Settle};
use warren_types::{AmqpError, ConsumerId, DeliveryId, QueueRef};

use crate::channel::{Channel, MethodResult, Mode};
use crate::shared::Core;

/// A delivery that the client has not settled.
#[derive(Debug, Clone)]
pub(crate) struct Unacked {
    pub queue: QueueRef,
    pub id: DeliveryId,
    /// None for `basic.get`.
    pub consumer: Option<ConsumerId>,
}

/// Settles deliveries with as few calls as their ids allow.
struct Settling {
    settle: Settle,
    run: Option<(QueueRef, DeliveryRange)>,
}

impl Channel {
    pub(crate) fn deliver(&mut self, delivery: Delivery, core: &mut Core, session: &mut impl Session) {
        let Delivery { consumer: id, queue, id: delivery_id, redelivered, limited, message, .. } = delivery;
        let Some(consumer) = self.consumers.get(&id) else { return };
        if !consumer.no_ack {
            if let Some(limit) = self.limit.as_ref().filter(|_| !limited) {
                limit.count();
            }
            self.consumers_unacked += 1;
            let unacked = Unacked { queue, id: delivery_id, consumer: Some(id) };
            self.unacked.push(self.last_tag + 1, unacked);
        }
        self.last_tag += 1;
        let deliver = Method::BasicDeliver {
            consumer_tag: consumer.tag.as_bytes(),
            delivery_tag: self.last_tag,
            redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        core.send(self.id.number, &deliver);
        core.send_content(self.id.number, &message);
        if session.is_traced() {
            session.trace_delivery(self.id, consumer.queue_name.as_bytes(), redelivered, &message);
        }
        session.delivered(self.id, queue, id, message.memory());
    }

    pub(crate) fn ack(&mut self, tag: u64, multiple: bool, session: &mut impl Session) -> MethodResult {
        self.settle(tag, multiple, Settle::Ack, session)
    }

    /// `basic.recover`: everything unacked on the channel goes back.
    pub(crate) fn recover(&mut self, requeue: bool, session: &mut impl Session) -> MethodResult {
        if !requeue {
            return Err(AmqpError::not_implemented("requeue=false"));
        }
        let (before, mut settling) =
            (self.consumers_unacked, Settling::new(Settle::Requeue { failed: false }));
        // Not what a transaction holds back: that counts until the commit.
        while let Some((_, unacked)) = self.unacked.take_first_up_to(u64::MAX) {
            self.settle_one(&unacked, &mut settling, session);
        }
        settling.finish(self.id, session);
        self.release_places(before, session);
        Ok(())
    }

    /// `basic.ack`, `basic.nack` and `basic.reject`.
    pub(crate) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        settle: Settle,
        session: &mut impl Session,
    ) -> MethodResult {
        let everything = multiple && tag == 0;
        if !everything && self.unacked.get(tag).is_none() {
            return Err(AmqpError::precondition_failed(format!("unknown delivery tag {tag}")));
        }
        if let Mode::Transaction(_) = self.mode {
            self.settle_at_commit(tag, multiple, settle);
            return Ok(());
        }
        let (before, mut settling) = (self.consumers_unacked, Settling::new(settle));
        if multiple {
            let last = if everything { u64::MAX } else { tag };
            while let Some((_, unacked)) = self.unacked.take_first_up_to(last) {
                self.settle_one(&unacked, &mut settling, session);
            }
        } else if let Some(unacked) = self.unacked.take(tag) {
            self.settle_one(&unacked, &mut settling, session);
        }
        settling.finish(self.id, session);
        self.release_places(before, session);
        Ok(())
    }

    fn settle_one(&mut self, unacked: &Unacked, settling: &mut Settling, session: &mut impl Session) {
        if unacked.consumer.is_some() {
            self.consumers_unacked = self.consumers_unacked.saturating_sub(1);
        }
        settling.push(self.id, unacked, session);
    }

    /// Settles what a transaction held back.
    pub(crate) fn settle_all(
        &mut self,
        held: Vec<(u64, Unacked)>,
        settle: Settle,
        session: &mut impl Session,
    ) {
        let (before, mut settling) = (self.consumers_unacked, Settling::new(settle));
        for (_, unacked) in &held {
            self.settle_one(unacked, &mut settling, session);
        }
        settling.finish(self.id, session);
        self.release_places(before, session);
    }

    /// Gives back the places of what was settled since `before` were unacked.
    fn release_places(&self, before: u32, session: &mut impl Session) {
        if let Some(limit) = &self.limit {
            resume(limit.release(before - self.consumers_unacked), session);
        }
    }
}

/// Lets consumers try again for which the channel's limit had no room.
pub(crate) fn resume(waiting: Vec<(QueueRef, ConsumerId)>, session: &mut impl Session) {
    for (queue, consumer) in waiting {
        session.resume(queue, consumer);
    }
}

impl Settling {
    fn new(settle: Settle) -> Self {
        Self { settle, run: None }
    }

    fn push(&mut self, channel: warren_types::ChannelId, unacked: &Unacked, session: &mut impl Session) {
        if let Some((queue, range)) = &mut self.run
            && *queue == unacked.queue
            && range.last.0 + 1 == unacked.id.0
        {
            range.last = unacked.id;
            return;
        }
        self.flush(channel, session);
        self.run = Some((unacked.queue, DeliveryRange { first: unacked.id, last: unacked.id }));
    }

    fn finish(mut self, channel: warren_types::ChannelId, session: &mut impl Session) {
        self.flush(channel, session);
    }

    fn flush(&mut self, channel: warren_types::ChannelId, session: &mut impl Session) {
        if let Some((queue, range)) = self.run.take() {
            session.settle(channel, queue, range, self.settle);
        }
    }
}
