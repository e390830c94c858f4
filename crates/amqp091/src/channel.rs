//! A channel: what a client did on it, and what it gets through it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_amqp091_codec::Method;
use warren_types::session::{
    Announcement, Bind, BindTarget, Consume, Event, ExchangeDeclare, Got, Outcome, QueueDeclare,
    QueueDeclared, Reply, Session, Settle,
};
use warren_types::{AmqpError, ChannelId, ChannelLimit, ConsumerId, Ledger, Message, QueueRef, ShortString};

use crate::acknowledge::{Unacked, resume};
use crate::confirms::Confirms;
use crate::content::{self, Incoming};
use crate::publish::Immediates;
use crate::repeat::LastPublish;
use crate::shared::{Core, name};
use crate::transaction::Transaction;

/// The pseudo-queue of direct reply-to.
pub(crate) const DIRECT_REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";

/// A method's result: an error closes the channel or the connection.
pub(crate) type MethodResult = Result<(), AmqpError>;

/// A consumer on the channel.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub tag: ShortString,
    pub queue: QueueRef,
    pub queue_name: ShortString,
    pub no_ack: bool,
}

/// The consumer of direct replies.
#[derive(Debug)]
pub(crate) struct DirectReplies {
    pub tag: ShortString,
    pub address: ShortString,
}

/// How publishes on the channel are answered for.
#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    Confirm,
    Transaction(Box<Transaction>),
}

/// The call whose reply the channel waits for, with what the answer to the client needs.
#[derive(Debug)]
pub(crate) enum Awaiting {
    Declare { nowait: bool },
    Delete { nowait: bool },
    Purge { nowait: bool },
    Get { no_ack: bool, queue: ShortString },
    Consume { nowait: bool, id: ConsumerId, consumer: Consumer },
    Cancel { nowait: bool, id: ConsumerId, tag: ShortString },
    Commit,
}

impl Awaiting {
    /// Class and method of the call, to name in an exception.
    fn method(&self) -> (u16, u16) {
        match self {
            Self::Declare { .. } => (50, 10),
            Self::Purge { .. } => (50, 30),
            Self::Delete { .. } => (50, 40),
            Self::Consume { .. } => (60, 20),
            Self::Cancel { .. } => (60, 30),
            Self::Get { .. } => (60, 70),
            Self::Commit => (90, 20),
        }
    }
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub id: ChannelId,
    closing: bool,
    /// A publish whose content is incomplete.
    pub incoming: Option<Box<Incoming>>,
    /// The queue declared last, for which an empty name stands.
    last_queue: ShortString,
    tags: HashMap<ShortString, ConsumerId, RandomState>,
    pub consumers: HashMap<ConsumerId, Consumer, RandomState>,
    pub direct_replies: Option<Box<DirectReplies>>,
    pub unacked: Ledger<Unacked>,
    pub last_tag: u64,
    /// Prefetch for consumers to come (`basic.qos` with global=false).
    prefetch: u16,
    /// Limit over all consumers of the channel, once there was one.
    pub limit: Option<Arc<ChannelLimit>>,
    /// Unacked deliveries to consumers.
    pub consumers_unacked: u32,
    pub mode: Mode,
    pub confirms: Confirms,
    pub immediates: Option<Box<Immediates>>,
    /// Only channels that publish have it.
    pub last_publish: Option<Box<LastPublish>>,
    pub awaiting: Option<Awaiting>,
}

impl Channel {
    pub(crate) fn new(id: ChannelId) -> Self {
        Self {
            id,
            closing: false,
            incoming: None,
            last_queue: ShortString::default(),
            tags: HashMap::default(),
            consumers: HashMap::default(),
            direct_replies: None,
            unacked: Ledger::default(),
            last_tag: 0,
            prefetch: 0,
            limit: None,
            consumers_unacked: 0,
            mode: Mode::Plain,
            confirms: Confirms::default(),
            immediates: None,
            last_publish: None,
            awaiting: None,
        }
    }

    /// Whether `channel.close` was sent and not answered.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn start_closing(&mut self) {
        let id = self.id;
        *self = Self::new(id);
        self.closing = true;
    }

    /// The channel ends: gives back what the session does not know to belong to it, and tells of it.
    pub(crate) fn release(&mut self, session: &mut impl Session) {
        self.stop_direct_replies(session);
        if self.closing {
            return;
        }
        for consumer in self.consumers.values() {
            self.announce_deleted(consumer, session);
        }
        session.announce(Announcement::ChannelClosed(self.id, self.consumers.len()));
    }

    fn stop_direct_replies(&mut self, session: &mut impl Session) {
        if let Some(replies) = self.direct_replies.take() {
            session.stop_direct_replies(replies.address.as_bytes());
        }
    }

    fn announce_deleted(
        &self,
        Consumer { tag, queue_name: queue, .. }: &Consumer,
        session: &mut impl Session,
    ) {
        session.announce(Announcement::ConsumerDeleted { channel: self.id, queue, tag });
    }

    /// The exception for a frame that comes instead of content.
    pub(crate) fn expected_content(&self) -> AmqpError {
        match &self.incoming {
            Some(incoming) if incoming.has_header() => content::expected_body(),
            _ => content::expected_header(),
        }
    }

    pub(crate) fn on_method(
        &mut self,
        method: Method<'_>,
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        match method {
            Method::BasicAck { delivery_tag, multiple } => self.ack(delivery_tag, multiple, session),
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                let settle = if requeue { Settle::Requeue { failed: false } } else { Settle::Reject };
                self.settle(delivery_tag, multiple, settle, session)
            }
            Method::BasicReject { delivery_tag, requeue } => {
                let settle = if requeue { Settle::Requeue { failed: true } } else { Settle::Reject };
                self.settle(delivery_tag, false, settle, session)
            }
            Method::BasicGet { queue, no_ack, .. } => self.get(queue, no_ack, core, session),
            Method::BasicConsume { .. } => self.consume(method, core, session),
            Method::BasicCancel { consumer_tag, nowait } => {
                self.cancel(consumer_tag, nowait, core, session);
                Ok(())
            }
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                self.qos(prefetch_size, prefetch_count, global, core, session)
            }
            Method::BasicRecover { requeue } => {
                self.recover(requeue, session)?;
                core.send(self.id.number, &Method::BasicRecoverOk {});
                Ok(())
            }
            Method::BasicRecoverAsync { requeue } => self.recover(requeue, session),
            Method::ExchangeDeclare { .. }
            | Method::ExchangeDelete { .. }
            | Method::ExchangeBind { .. }
            | Method::ExchangeUnbind { .. }
            | Method::QueueBind { .. }
            | Method::QueueUnbind { .. } => self.topology(method, core, session),
            Method::QueueDeclare { .. } => self.declare(method, core, session),
            Method::QueueDelete { queue, if_unused, if_empty, nowait, .. } => {
                let queue = self.queue_name(queue)?;
                self.awaiting = Some(Awaiting::Delete { nowait });
                let outcome = session.queue_delete(self.id, queue.as_bytes(), if_unused, if_empty)?;
                self.finish_or_wait(outcome, Reply::QueueDeleted, core, session);
                Ok(())
            }
            Method::QueuePurge { queue, nowait, .. } => {
                let queue = self.queue_name(queue)?;
                session.queue_purge(self.id, queue.as_bytes())?;
                self.wait(Awaiting::Purge { nowait }, core);
                Ok(())
            }
            Method::ConfirmSelect { nowait } => self.confirm_select(nowait, core),
            Method::TxSelect {} => self.tx_select(core),
            Method::TxCommit {} => self.tx_commit(core, session),
            Method::TxRollback {} => self.tx_rollback(core),
            Method::ChannelFlow { active: true } => {
                core.send(self.id.number, &Method::ChannelFlowOk { active: true });
                Ok(())
            }
            Method::ChannelFlow { active: false } => Err(AmqpError::not_implemented("active=false")),
            Method::AccessRequest { .. } => {
                core.send(self.id.number, &Method::AccessRequestOk { ticket: 1 });
                Ok(())
            }
            _ => Err(AmqpError::command_invalid("unimplemented method")),
        }
    }

    pub(crate) fn on_event(
        &mut self,
        event: Event,
        core: &mut Core,
        session: &mut impl Session,
    ) -> Result<(), (AmqpError, (u16, u16))> {
        match event {
            Event::Deliver(delivery) => self.deliver(delivery, core, session),
            Event::DirectReply(_, message) => self.direct_reply(&message, core),
            Event::Settled { first, last, accepted, .. } => {
                self.confirms.settle(first, last, accepted);
                core.confirms(self.id.number);
                self.finish_commit(core).map_err(|error| (error, (90, 20)))?;
            }
            Event::Immediate { number, taken, .. } => self.immediate_outcome(number, taken, core),
            Event::ConsumerCancelled(_, id) => self.consumer_cancelled(id, core, session),
            Event::ConsumerTimedOut(_, id, _) if core.capabilities.consumer_cancel_notify => {
                self.consumer_cancelled(id, core, session);
            }
            Event::ConsumerTimedOut(_, _, timeout_ms) => {
                let number = self.id.number;
                let error = AmqpError::precondition_failed(format!(
                    "delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout_ms} ms. \
                     This timeout value can be configured, see consumers doc guide to learn more"
                ));
                return Err((error, (0, 0)));
            }
            Event::Reply(_, reply) => {
                let Some(awaiting) = self.awaiting.take() else { return Ok(()) };
                match reply {
                    Ok(reply) => self.on_reply(awaiting, reply, core, session),
                    Err(error) => return Err((error, awaiting.method())),
                }
            }
            Event::Blocked(_) | Event::Unblocked | Event::Close(_) => {}
        }
        Ok(())
    }

    // ---- exchanges, queues, bindings ---------------------------------------------------------------------

    fn topology(&mut self, method: Method<'_>, core: &mut Core, session: &mut impl Session) -> MethodResult {
        let (ok, nowait) = match method {
            Method::ExchangeDeclare {
                exchange,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
                ..
            } => {
                session.exchange_declare(ExchangeDeclare {
                    name: name(exchange),
                    kind: ShortString::truncated(kind),
                    passive,
                    durable,
                    auto_delete,
                    internal,
                    arguments,
                })?;
                (Method::ExchangeDeclareOk {}, nowait)
            }
            Method::ExchangeDelete { exchange, if_unused, nowait, .. } => {
                session.exchange_delete(name(exchange).as_bytes(), if_unused)?;
                (Method::ExchangeDeleteOk {}, nowait)
            }
            Method::ExchangeBind { destination, source, routing_key, nowait, arguments, .. } => {
                let target = BindTarget::Exchange;
                let (destination, routing_key) = (name(destination), ShortString::truncated(routing_key));
                session.bind(Bind { source: name(source), target, destination, routing_key, arguments })?;
                (Method::ExchangeBindOk {}, nowait)
            }
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments, .. } => {
                let target = BindTarget::Exchange;
                let (destination, routing_key) = (name(destination), ShortString::truncated(routing_key));
                session.unbind(Bind { source: name(source), target, destination, routing_key, arguments })?;
                (Method::ExchangeUnbindOk {}, nowait)
            }
            Method::QueueBind { queue, exchange, routing_key, nowait, arguments, .. } => {
                session.bind(self.queue_binding(queue, exchange, routing_key, arguments)?)?;
                (Method::QueueBindOk {}, nowait)
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments, .. } => {
                session.unbind(self.queue_binding(queue, exchange, routing_key, arguments)?)?;
                (Method::QueueUnbindOk {}, false)
            }
            _ => return Err(AmqpError::command_invalid("unimplemented method")),
        };
        if !nowait {
            core.send(self.id.number, &ok);
        }
        Ok(())
    }

    fn queue_binding(
        &self,
        queue: &[u8],
        exchange: &[u8],
        routing_key: &[u8],
        arguments: warren_types::FieldTable,
    ) -> Result<Bind, AmqpError> {
        let destination = self.queue_name(queue)?;
        let routing_key = if queue.is_empty() && routing_key.is_empty() {
            destination.clone()
        } else {
            ShortString::truncated(routing_key)
        };
        Ok(Bind { source: name(exchange), target: BindTarget::Queue, destination, routing_key, arguments })
    }

    fn declare(&mut self, method: Method<'_>, core: &mut Core, session: &mut impl Session) -> MethodResult {
        let Method::QueueDeclare {
            queue, passive, durable, exclusive, auto_delete, nowait, arguments, ..
        } = method
        else {
            return Ok(());
        };
        let name = name(queue);
        self.awaiting = Some(Awaiting::Declare { nowait });
        let declare = QueueDeclare { name, passive, durable, exclusive, auto_delete, arguments };
        let outcome = session.queue_declare(self.id, declare)?;
        self.finish_or_wait(outcome, Reply::QueueDeclared, core, session);
        Ok(())
    }

    /// The queue that a name in a method means: an empty one stands for the queue declared last.
    fn queue_name(&self, given: &[u8]) -> Result<ShortString, AmqpError> {
        let given = name(given);
        if !given.is_empty() {
            return Ok(given);
        }
        if self.last_queue.is_empty() {
            return Err(AmqpError::not_found("no previously declared queue"));
        }
        Ok(self.last_queue.clone())
    }

    // ---- consumers ---------------------------------------------------------------------------------------

    fn consume(&mut self, method: Method<'_>, core: &mut Core, session: &mut impl Session) -> MethodResult {
        let Method::BasicConsume { queue, consumer_tag, no_ack, exclusive, nowait, arguments, .. } = method
        else {
            return Ok(());
        };
        let tag = if consumer_tag.is_empty() {
            session.generate_name("amq.ctag-")
        } else {
            ShortString::truncated(consumer_tag)
        };
        // The tag of the consumer of replies is not among them: it may be taken again, and `basic.cancel` then ends that
        // one first (`rabbit_channel:handle_method/3`).
        if self.tags.contains_key(&tag) {
            return Err(AmqpError::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        if queue == DIRECT_REPLY_TO {
            return self.consume_replies(tag, no_ack, nowait, core, session);
        }
        let queue = self.queue_name(queue)?;
        core.next_consumer += 1;
        let id = ConsumerId(core.next_consumer);
        let (prefetch, limit) = (self.prefetch.into(), self.limit.clone());
        let queue_name = queue.clone();
        let consume =
            Consume { queue, consumer: id, tag: tag.clone(), no_ack, exclusive, prefetch, limit, arguments };
        let queue = session.consume(self.id, consume)?;
        let consumer = Consumer { tag, queue, queue_name, no_ack };
        self.wait(Awaiting::Consume { nowait, id, consumer }, core);
        Ok(())
    }

    fn consume_replies(
        &mut self,
        tag: ShortString,
        no_ack: bool,
        nowait: bool,
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        if !no_ack {
            return Err(AmqpError::precondition_failed("reply consumer cannot acknowledge"));
        }
        if self.direct_replies.is_some() {
            return Err(AmqpError::precondition_failed("reply consumer already set"));
        }
        let address = session.start_direct_replies(self.id);
        if !nowait {
            core.send(self.id.number, &Method::BasicConsumeOk { consumer_tag: tag.as_bytes() });
        }
        self.direct_replies = Some(Box::new(DirectReplies { tag, address }));
        Ok(())
    }

    fn cancel(&mut self, tag: &[u8], nowait: bool, core: &mut Core, session: &mut impl Session) {
        if self.direct_replies.as_ref().is_some_and(|replies| replies.tag == *tag) {
            self.stop_direct_replies(session);
        } else if let Some(id) = self.tags.get(tag).copied()
            && let Some(consumer) = self.consumers.get(&id)
        {
            session.cancel(self.id, consumer.queue, id);
            let tag = consumer.tag.clone();
            self.wait(Awaiting::Cancel { nowait, id, tag }, core);
            return;
        }
        if !nowait {
            core.send(self.id.number, &Method::BasicCancelOk { consumer_tag: tag });
        }
    }

    /// Has the consumers looked at whose queues the client may not read any more. (That of replies has no queue.)
    pub(crate) fn recheck_consumers(&self, session: &mut impl Session) {
        for (id, consumer) in &self.consumers {
            session.recheck(consumer.queue, consumer.queue_name.as_bytes(), *id);
        }
    }

    fn consumer_cancelled(&mut self, id: ConsumerId, core: &mut Core, session: &mut impl Session) {
        let Some(consumer) = self.forget_consumer(id) else { return };
        self.announce_deleted(&consumer, session);
        if core.capabilities.consumer_cancel_notify {
            let cancel = Method::BasicCancel { consumer_tag: consumer.tag.as_bytes(), nowait: true };
            core.send(self.id.number, &cancel);
        }
    }

    fn forget_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        self.tags.remove(&consumer.tag);
        Some(consumer)
    }

    fn get(
        &mut self,
        queue: &[u8],
        no_ack: bool,
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        let queue = self.queue_name(queue)?;
        session.get(self.id, queue.as_bytes(), no_ack)?;
        self.wait(Awaiting::Get { no_ack, queue }, core);
        Ok(())
    }

    fn qos(
        &mut self,
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        if prefetch_size != 0 {
            return Err(AmqpError::not_implemented(format!("prefetch_size!=0 ({prefetch_size})")));
        }
        match &self.limit {
            _ if !global => self.prefetch = prefetch_count,
            Some(limit) => resume(limit.set(prefetch_count.into()), session),
            None if prefetch_count == 0 => {}
            None => {
                let limit = Arc::new(ChannelLimit::new(prefetch_count.into(), self.consumers_unacked));
                for (id, consumer) in &self.consumers {
                    session.limit(consumer.queue, *id, Arc::clone(&limit));
                }
                self.limit = Some(limit);
            }
        }
        core.send(self.id.number, &Method::BasicQosOk {});
        Ok(())
    }

    fn confirm_select(&mut self, nowait: bool, core: &mut Core) -> MethodResult {
        match self.mode {
            Mode::Transaction(_) => {
                return Err(AmqpError::precondition_failed("cannot switch from tx to confirm mode"));
            }
            Mode::Plain => self.mode = Mode::Confirm,
            Mode::Confirm => {}
        }
        if !nowait {
            core.send(self.id.number, &Method::ConfirmSelectOk {});
        }
        Ok(())
    }

    // ---- replies -----------------------------------------------------------------------------------------

    pub(crate) fn wait(&mut self, awaiting: Awaiting, core: &mut Core) {
        self.awaiting = Some(awaiting);
        core.call_pending = true;
    }

    fn finish_or_wait<T>(
        &mut self,
        outcome: Outcome<T>,
        reply: impl FnOnce(T) -> Reply,
        core: &mut Core,
        session: &mut impl Session,
    ) {
        match (outcome, self.awaiting.take()) {
            (Outcome::Done(done), Some(awaiting)) => self.on_reply(awaiting, reply(done), core, session),
            (Outcome::Pending, Some(awaiting)) => self.wait(awaiting, core),
            (_, None) => {}
        }
    }

    fn on_reply(&mut self, awaiting: Awaiting, reply: Reply, core: &mut Core, session: &mut impl Session) {
        let number = self.id.number;
        match (awaiting, reply) {
            (Awaiting::Declare { nowait }, Reply::QueueDeclared(declared)) => {
                let QueueDeclared { name, messages, consumers } = declared;
                if !nowait {
                    let queue = name.as_bytes();
                    let (message_count, consumer_count) = (messages, consumers);
                    core.send(number, &Method::QueueDeclareOk { queue, message_count, consumer_count });
                }
                self.last_queue = name;
            }
            (Awaiting::Delete { nowait: false }, Reply::QueueDeleted(message_count)) => {
                core.send(number, &Method::QueueDeleteOk { message_count });
            }
            (Awaiting::Purge { nowait: false }, Reply::QueuePurged(message_count)) => {
                core.send(number, &Method::QueuePurgeOk { message_count });
            }
            (Awaiting::Get { .. }, Reply::Got(None)) => {
                core.send(number, &Method::BasicGetEmpty { cluster_id: b"" });
            }
            (Awaiting::Get { no_ack, queue }, Reply::Got(Some(got))) => {
                self.got(&got, no_ack, core);
                if session.is_traced() {
                    session.trace_delivery(self.id, queue.as_bytes(), got.redelivered, &got.message);
                }
            }
            (Awaiting::Consume { nowait, id, consumer }, Reply::Consuming) => {
                if !nowait {
                    let ok = Method::BasicConsumeOk { consumer_tag: consumer.tag.as_bytes() };
                    core.send(number, &ok);
                }
                self.tags.insert(consumer.tag.clone(), id);
                self.consumers.insert(id, consumer);
            }
            (Awaiting::Cancel { nowait, id, tag }, Reply::Cancelled) => {
                // The broker may have cancelled it meanwhile; the client is answered all the same.
                if let Some(consumer) = self.forget_consumer(id) {
                    self.announce_deleted(&consumer, session);
                }
                if !nowait {
                    core.send(number, &Method::BasicCancelOk { consumer_tag: tag.as_bytes() });
                }
            }
            _ => {}
        }
    }

    fn got(&mut self, got: &Got, no_ack: bool, core: &mut Core) {
        self.last_tag += 1;
        if !no_ack {
            let unacked = Unacked { queue: got.queue, id: got.id, consumer: None };
            self.unacked.push(self.last_tag, unacked);
        }
        let ok = Method::BasicGetOk {
            delivery_tag: self.last_tag,
            redelivered: got.redelivered,
            exchange: got.message.exchange(),
            routing_key: got.message.routing_key(),
            message_count: got.remaining,
        };
        core.send(self.id.number, &ok);
        core.send_content(self.id.number, &got.message);
    }

    fn direct_reply(&mut self, message: &Message, core: &mut Core) {
        let Some(replies) = &self.direct_replies else { return };
        self.last_tag += 1;
        let deliver = Method::BasicDeliver {
            consumer_tag: replies.tag.as_bytes(),
            delivery_tag: self.last_tag,
            redelivered: false,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        core.send(self.id.number, &deliver);
        core.send_content(self.id.number, message);
    }
}
