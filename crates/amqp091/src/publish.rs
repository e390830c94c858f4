//! Publishing: from complete content to the queues, and what comes back to the publisher.

use std::collections::BTreeMap;

use bytes::Bytes;
use warren_amqp091_codec::{Dialect, Method, Properties, frame};
use warren_types::session::{Route, RouteRequest, Session, TracedPublish, Tracking};
use warren_types::{AmqpError, FieldTable, Marks, Message, MessageParts, ReplyCode};

use crate::channel::{Channel, MethodResult, Mode};
use crate::content::{Incoming, PublishArgs};
use crate::input::parse_header;
use crate::properties::{ExtraKeys, rewritten, wants_direct_replies};
use crate::repeat::LastPublish;
use crate::shared::Core;
use crate::transaction::HeldPublish;

/// `delivery-mode` of persistent messages.
const PERSISTENT: u8 = 2;

/// Messages published with `immediate`, until their queues have said whether a consumer took them.
#[derive(Debug, Default)]
pub(crate) struct Immediates {
    last: u64,
    open: BTreeMap<u64, OpenImmediate>,
}

#[derive(Debug)]
struct OpenImmediate {
    queues: usize,
    taken: bool,
    message: Message,
}

/// The number in the property `expiration`, which routing has checked.
fn milliseconds(expiration: &[u8]) -> Option<u64> {
    std::str::from_utf8(expiration).ok()?.parse().ok()
}

/// Content, with the payload of its method borrowed from the input, or collected from frames.
enum Content<'a> {
    Inline { method: &'a [u8], body: &'a [u8] },
    Collected(Bytes),
}

/// What the publisher wants of a message.
#[derive(Clone, Copy)]
struct Wish {
    /// To have it back if it is unroutable.
    returns: bool,
    /// And if no consumer takes it at once.
    immediate: bool,
}

/// A publish whose header and body stand whole in the input, right behind the method.
struct Inline<'a> {
    properties: &'a [u8],
    body: &'a [u8],
    /// Bytes that header and body frames take.
    len: usize,
}

impl<'a> Inline<'a> {
    /// Looks for it. Anything unusual is left to the path that takes content frame by frame, and knows errors.
    fn find(input: &'a [u8], channel: u16, frame_max: u32) -> Option<Self> {
        let (payload, rest) = whole_frame(input, frame::HEADER, channel, frame_max)?;
        let header = parse_header(payload).ok()?;
        if header.body_size == 0 {
            return Some(Self { properties: header.properties, body: &[], len: input.len() - rest.len() });
        }
        let (body, rest) = whole_frame(rest, frame::BODY, channel, frame_max)?;
        (body.len() as u64 == header.body_size).then_some(Self {
            properties: header.properties,
            body,
            len: input.len() - rest.len(),
        })
    }
}

fn whole_frame(input: &[u8], kind: u8, channel: u16, frame_max: u32) -> Option<(&[u8], &[u8])> {
    let head = frame::FrameHead::parse(input.first_chunk()?);
    if head.kind != kind || head.channel != channel || head.size > frame_max {
        return None;
    }
    let end = frame::HEAD_LEN + head.size as usize;
    (*input.get(end)? == frame::END).then(|| (&input[frame::HEAD_LEN..end], &input[end + 1..]))
}

impl Channel {
    /// A `basic.publish` method: takes the content too if it is all there. Returns how many bytes of
    /// `behind` were used.
    pub(crate) fn publish_begins(
        &mut self,
        args: &PublishArgs<'_>,
        method: &[u8],
        behind: &[u8],
        core: &mut Core,
        session: &mut impl Session,
    ) -> Result<usize, AmqpError> {
        if args.immediate && core.dialect != Dialect::Amqp08 {
            return Err(AmqpError::not_implemented("immediate=true"));
        }
        if let Some(inline) = Inline::find(behind, self.id.number, core.frame_max)
            && inline.body.len() as u64 <= core.message_len_max
        {
            let content = Content::Inline { method, body: inline.body };
            self.publish(args, inline.properties, content, core, session)?;
            return Ok(inline.len);
        }
        self.incoming = Some(Box::new(Incoming::new(args)));
        Ok(0)
    }

    /// A method, if it and the content behind it are those of the last publish but for the body. Returns how many bytes
    /// of `behind` were used.
    pub(crate) fn publish_again(
        &mut self,
        method: &[u8],
        behind: &[u8],
        core: &mut Core,
        session: &mut impl Session,
    ) -> Option<usize> {
        let last = self.last_publish.as_ref()?;
        if !last.is_method(method) || self.incoming.is_some() || matches!(self.mode, Mode::Transaction(_)) {
            return None;
        }
        let inline = Inline::find(behind, self.id.number, core.frame_max)?;
        if inline.body.len() as u64 > core.message_len_max {
            return None;
        }
        if !last.is_current(inline.properties, session) {
            return None;
        }
        let mut last = self.last_publish.take()?;
        let message = last.message(inline.body);
        let wish = Wish { returns: last.mandatory, immediate: false };
        self.hand_over(&last.route, message, wish, core, session);
        self.last_publish = Some(last);
        Some(inline.len)
    }

    pub(crate) fn content_header(
        &mut self,
        payload: &[u8],
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        let Some(incoming) = &mut self.incoming else { return Err(crate::content::expected_method()) };
        if incoming.has_header() {
            return Err(crate::content::expected_body());
        }
        let header = parse_header(payload)?;
        if header.body_size > core.message_len_max {
            return Err(AmqpError::precondition_failed(format!(
                "message size {} is larger than configured max size {}",
                header.body_size, core.message_len_max
            )));
        }
        incoming.set_header(header.properties, header.body_size);
        if incoming.is_complete() { self.publish_complete(core, session) } else { Ok(()) }
    }

    /// The content that was collected is complete.
    pub(crate) fn publish_complete(&mut self, core: &mut Core, session: &mut impl Session) -> MethodResult {
        let Some(mut incoming) = self.incoming.take() else { return Ok(()) };
        let Some((args, properties, body)) = incoming.parts() else { return Ok(()) };
        self.publish(&args, properties, Content::Collected(body), core, session)
    }

    fn publish(
        &mut self,
        args: &PublishArgs<'_>,
        raw: &[u8],
        content: Content<'_>,
        core: &mut Core,
        session: &mut impl Session,
    ) -> MethodResult {
        let properties = Properties::parse(raw)
            .map_err(|error| AmqpError::frame_error(format!("cannot decode content header: {error}")))?;
        core.note_tables(&properties);
        let extra = self.extra_keys(args, &properties, session)?;
        let extra_keys: Vec<&[u8]> = extra.keys.iter().map(Vec::as_slice).collect();
        let (route, generation) = session.route(&RouteRequest {
            exchange: args.exchange,
            routing_key: args.routing_key,
            extra_keys: &extra_keys,
            content: &properties,
            user_id: properties.user_id(),
            expiration: properties.expiration(),
        })?;
        let replies = self.direct_replies.as_ref().filter(|_| wants_direct_replies(&properties));
        let reply_address = replies.map(|replies| replies.address.as_bytes());
        let interceptors = &core.interceptors;
        let changed =
            rewritten(&properties, &extra, reply_address, interceptors, &|| session.system_time_ms());
        let blind_keys = extra.blind();
        let parts = MessageParts {
            exchange: args.exchange,
            routing_key: args.routing_key,
            properties: changed.as_deref().unwrap_or(raw),
            persistent: properties.delivery_mode() == Some(PERSISTENT),
            priority: properties.priority().unwrap_or_default(),
            expiration_ms: properties.expiration().and_then(milliseconds),
            marks: Marks::default(),
            blind_keys: &blind_keys,
        };
        let in_transaction = matches!(self.mode, Mode::Transaction(_));
        let is_traced = session.is_traced();
        if route.leads_nowhere() && !args.mandatory && !args.immediate && !in_transaction && !is_traced {
            if matches!(self.mode, Mode::Confirm) {
                self.confirms.publish(0);
                core.confirms(self.id.number);
            }
            return Ok(());
        }
        let message = match content {
            Content::Inline { method, body } => {
                let is_plain = changed.is_none() && !args.immediate && !in_transaction;
                match generation {
                    Some(generation) if is_plain && LastPublish::has_room(method, raw) => {
                        let mandatory = args.mandatory;
                        let found = (route.clone(), generation);
                        let last = LastPublish::set(&mut self.last_publish, method, &parts, mandatory, found);
                        last.message(body)
                    }
                    _ => {
                        core.head.set(&parts);
                        core.head.message(body)
                    }
                }
            }
            Content::Collected(body) => {
                core.head.set(&parts);
                core.head.message_with(body)
            }
        };
        if is_traced {
            let routing_keys = [&[args.routing_key], &extra_keys[..]].concat();
            let (channel, routing_keys) = (self.id, &routing_keys[..]);
            session.trace_publish(&TracedPublish { channel, routing_keys, route: &route, message: &message });
        }
        let returns = args.mandatory || args.immediate;
        if let Mode::Transaction(transaction) = &mut self.mode {
            return transaction.publish(HeldPublish { route, message, mandatory: returns });
        }
        self.hand_over(&route, message, Wish { returns, immediate: args.immediate }, core, session);
        Ok(())
    }

    /// The extra routing keys of a message. If they are malformed, or if it wants direct replies that nobody waits for,
    /// what else is wrong may come first (`rabbit_channel:handle_method/3`).
    fn extra_keys(
        &self,
        args: &PublishArgs<'_>,
        properties: &Properties<'_>,
        session: &mut impl Session,
    ) -> Result<ExtraKeys, AmqpError> {
        let keys = ExtraKeys::of(properties);
        let lacks_replies = wants_direct_replies(properties) && self.direct_replies.is_none();
        if keys.is_ok() && !lacks_replies {
            return keys;
        }
        let mut request = RouteRequest {
            exchange: args.exchange,
            routing_key: args.routing_key,
            extra_keys: &[],
            content: &FieldTable::new,
            user_id: None,
            expiration: None,
        };
        session.route(&request)?;
        if lacks_replies {
            return Err(AmqpError::precondition_failed("fast reply consumer does not exist"));
        }
        request.expiration = properties.expiration();
        session.route(&request)?;
        keys
    }

    fn hand_over(
        &mut self,
        route: &Route,
        message: Message,
        wish: Wish,
        core: &mut Core,
        session: &mut impl Session,
    ) {
        // Nobody confirms a direct reply.
        let queues = route.queues();
        if route.is_empty() && wish.returns {
            self.send_return(ReplyCode::NO_ROUTE, &message, core);
        }
        let tracking = if matches!(self.mode, Mode::Confirm) {
            core.confirms(self.id.number);
            Tracking::Confirm(self.confirms.publish(queues))
        } else if wish.immediate && queues > 0 {
            let immediates = self.immediates.get_or_insert_default();
            immediates.last += 1;
            let open = OpenImmediate { queues, taken: false, message: message.clone() };
            immediates.open.insert(immediates.last, open);
            Tracking::Immediate(immediates.last)
        } else {
            Tracking::None
        };
        if !route.leads_nowhere() {
            session.submit(self.id, route, message, tracking);
        }
    }

    /// One of the queues of an immediate message has answered; if none had a consumer for it, it is returned.
    pub(crate) fn immediate_outcome(&mut self, number: u64, taken: bool, core: &mut Core) {
        let Some(immediates) = &mut self.immediates else { return };
        let Some(open) = immediates.open.get_mut(&number) else { return };
        open.queues -= 1;
        open.taken |= taken;
        if open.queues > 0 {
            return;
        }
        if let Some(open) = immediates.open.remove(&number)
            && !open.taken
        {
            self.send_return(ReplyCode::NO_CONSUMERS, &open.message, core);
        }
    }

    pub(crate) fn send_return(&self, code: ReplyCode, message: &Message, core: &mut Core) {
        let basic_return = Method::BasicReturn {
            reply_code: code.0,
            reply_text: code.name().as_bytes(),
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        core.send(self.id.number, &basic_return);
        core.send_content(self.id.number, message);
    }

    /// Sends the confirms that came together.
    pub(crate) fn flush_confirms(&mut self, core: &mut Core) {
        if !matches!(self.mode, Mode::Confirm) || !self.confirms.has_news() {
            return;
        }
        let number = self.id.number;
        self.confirms.flush(|confirm| {
            let (delivery_tag, multiple) = (confirm.number, confirm.multiple);
            let method = if confirm.accepted {
                Method::BasicAck { delivery_tag, multiple }
            } else {
                Method::BasicNack { delivery_tag, multiple, requeue: false }
            };
            core.send(number, &method);
        });
    }
}
