//! Single messages, as operators see and handle them: browse, delete, move, copy, and re-drive what has died.
//!
//! Everything goes in pages. A page is looked at without changing anything; it is decided here where its messages go, and
//! then their queue takes out those that are still ready. What came after the command began is left alone, so that
//! nothing goes round in a circle.

use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::oneshot;
use warren_amqp091_codec::Properties;
use warren_queue::{Browsed, Fate, QueueKind};
use warren_store::Lsn;
use warren_types::session::RoutingContent;
use warren_types::{Marks, Message, QueueRef, StoredMessage};

use crate::admin::not_found;
use crate::auth::Resource;
use crate::broker::Broker;
use crate::caller::CallError;
use crate::dead_letter::{FirstDeath, forget_deaths};
use crate::reroute::{self, Sent};
use crate::shard::{
    Browse, Chosen, PAGE_MESSAGES, Page, Position, ShardCommand, Take, Taken, Unbrowsable, Which,
};
use crate::vhost::Vhost;

/// Tells a message of a queue from the others: its priority and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Its priority.
    pub priority: u8,
    /// Its number: messages of a priority are in this order.
    pub seq: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.priority {
            0 => write!(f, "{}", self.seq),
            priority => write!(f, "{priority}-{}", self.seq),
        }
    }
}

impl FromStr for MessageId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (priority, seq) = text.split_once('-').unwrap_or(("0", text));
        Ok(Self { priority: priority.parse()?, seq: seq.parse()? })
    }
}

/// A ready message.
#[derive(Debug, Clone)]
pub struct ReadyMessage {
    /// Tells it from the others.
    pub id: MessageId,
    /// How long it is in the queue, in milliseconds.
    pub age_ms: u64,
    /// When it expires, or is due if it is held back: in so many milliseconds.
    pub expires_in_ms: Option<u64>,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
}

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    These(Vec<MessageId>),
    /// The first, so many of them.
    First(u64),
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a queue.
    Queue(String),
    /// To an exchange.
    Exchange {
        /// The exchange.
        name: String,
        /// With this routing key.
        routing_key: String,
    },
}

/// What became of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handled {
    /// Messages that were deleted, moved or copied.
    pub done: u64,
    /// Messages that were not ready, or not there.
    pub missing: u64,
    /// Messages that go nowhere from here: they are where they were.
    pub unroutable: u64,
    /// Messages that no queue has taken: they are where they were.
    pub refused: u64,
}

/// The ready messages of a queue, a page at a time.
#[derive(Debug)]
pub struct MessageListing {
    place: QueuePlace,
    position: Option<Position>,
    left: u64,
    /// What has this number or a higher one came after the listing began.
    end: Option<u64>,
}

/// A queue by its name and place.
#[derive(Debug, Clone)]
struct QueuePlace {
    vhost: Arc<Vhost>,
    name: String,
    queue: QueueRef,
}

impl Broker {
    /// The ready messages of a queue behind one of them, so many at most: by falling priority, and within one in the
    /// order in which they came. What was returned after a delivery stands at its place.
    ///
    /// # Errors
    /// If there is no such virtual host or queue.
    pub fn browse_queue(
        &self,
        vhost: &str,
        name: &str,
        after: Option<MessageId>,
        limit: u64,
    ) -> Result<MessageListing, CallError> {
        let place = self.find_queue(vhost, name)?;
        let after =
            after.map(|id| Position { priority: id.priority, after: Some(id.seq), ..Position::START });
        Ok(MessageListing { place, position: Some(after.unwrap_or(Position::START)), left: limit, end: None })
    }

    /// Deletes ready messages.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if it stops meanwhile.
    pub async fn delete_messages(
        &self,
        vhost: &str,
        name: &str,
        selection: Selection,
    ) -> Result<Handled, CallError> {
        self.handle_messages(vhost, name, selection, Fate::Delete, |_, _| None).await
    }

    /// Moves ready messages. What nobody takes stays at its place.
    ///
    /// # Errors
    /// If there is no such virtual host, queue or exchange, or if the queue stops meanwhile.
    pub async fn move_messages(
        &self,
        vhost: &str,
        name: &str,
        selection: Selection,
        target: &Target,
    ) -> Result<Handled, CallError> {
        self.check_target(vhost, target)?;
        let to = |vhost: &Vhost, message: &Message| route(vhost, message, target);
        self.handle_messages(vhost, name, selection, Fate::Move, to).await
    }

    /// Copies ready messages, which stay.
    ///
    /// # Errors
    /// If there is no such virtual host, queue or exchange, or if the queue stops meanwhile.
    pub async fn copy_messages(
        &self,
        vhost: &str,
        name: &str,
        selection: Selection,
        target: &Target,
    ) -> Result<Handled, CallError> {
        self.check_target(vhost, target)?;
        let to = |vhost: &Vhost, message: &Message| route(vhost, message, target);
        self.handle_messages(vhost, name, selection, Fate::Copy, to).await
    }

    /// Moves ready messages to the queues in which they died first, without the records of their deaths. A message that
    /// did not die, or whose queue is gone, stays at its place.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if it stops meanwhile.
    pub async fn redrive_queue(&self, vhost: &str, name: &str, limit: u64) -> Result<Handled, CallError> {
        self.handle_messages(vhost, name, Selection::First(limit), Fate::Move, back).await
    }

    /// The queue in which an exchange holds messages back.
    ///
    /// # Errors
    /// If there is no such virtual host or exchange, or if the exchange holds nothing back.
    pub fn delayed_queue(&self, vhost: &str, exchange: &str) -> Result<String, CallError> {
        let vhost = self.find_vhost(vhost)?;
        let tables = vhost.read();
        tables.router.exchange(exchange.as_bytes()).ok_or_else(|| not_found("exchange", exchange))?;
        let gate = tables.gate_queue(exchange.as_bytes()).ok_or_else(|| {
            CallError::Refused(format!(
                "exchange '{exchange}' does not hold messages back: it is not delayed"
            ))
        })?;
        Ok(String::from_utf8_lossy(gate.as_bytes()).into_owned())
    }

    fn find_queue(&self, vhost: &str, name: &str) -> Result<QueuePlace, CallError> {
        let vhost = self.find_vhost(vhost)?;
        let queue = vhost.read().queues.get(name.as_bytes()).map(|entry| entry.queue);
        let queue = queue.ok_or_else(|| not_found("queue", name))?;
        Ok(QueuePlace { vhost, name: name.to_owned(), queue })
    }

    fn check_target(&self, vhost: &str, target: &Target) -> Result<(), CallError> {
        let vhost = self.find_vhost(vhost)?;
        let tables = vhost.read();
        match target {
            Target::Queue(name) => {
                let queue = tables.queues.get(name.as_bytes()).filter(|queue| queue.kind != QueueKind::Gate);
                queue.map(drop).ok_or_else(|| not_found("queue", name).into())
            }
            Target::Exchange { name, .. } => {
                let exchange = tables.router.exchange(name.as_bytes());
                exchange.map(drop).ok_or_else(|| not_found("exchange", name).into())
            }
        }
    }

    /// Handles messages a page at a time; `to` tells where one goes, if that is to be told.
    async fn handle_messages(
        &self,
        vhost: &str,
        name: &str,
        selection: Selection,
        fate: Fate,
        to: impl Fn(&Vhost, &Message) -> Option<(Message, Vec<QueueRef>)>,
    ) -> Result<Handled, CallError> {
        let place = self.find_queue(vhost, name)?;
        let mut handled = Handled::default();
        match selection {
            Selection::First(limit) => {
                let position = Some(Position::START);
                let mut listing = MessageListing { place: place.clone(), position, left: limit, end: None };
                while let Some(page) = listing.next(self).await? {
                    handled.add(self.handle_page(&place, page, fate, &to).await?);
                }
            }
            Selection::These(ids) => {
                let mut by_priority: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
                for id in ids {
                    by_priority.entry(id.priority).or_default().push(id.seq);
                }
                for (priority, mut seqs) in by_priority {
                    seqs.sort_unstable();
                    seqs.dedup();
                    for seqs in seqs.chunks(THESE_MAX) {
                        let which = Which::These { priority, seqs: seqs.to_vec() };
                        let page = self.page(&place, which).await?.messages;
                        handled.missing += (seqs.len() - page.len()) as u64;
                        handled.add(self.handle_page(&place, page, fate, &to).await?);
                    }
                }
            }
        }
        if fate == Fate::Move {
            // What was moved is gone from its queue, too, before anybody is told.
            self.take(&place, fate, Vec::new()).await?;
        }
        Ok(handled)
    }

    async fn handle_page(
        &self,
        place: &QueuePlace,
        page: Vec<Browsed>,
        fate: Fate,
        to: impl Fn(&Vhost, &Message) -> Option<(Message, Vec<QueueRef>)>,
    ) -> Result<Handled, CallError> {
        let mut chosen = Vec::with_capacity(page.len());
        let mut unroutable = 0;
        for browsed in page {
            let Browsed { priority, seq, at, persistent, .. } = browsed;
            let Some(message) = browsed.message else { continue };
            let to = match fate {
                Fate::Delete => None,
                Fate::Move | Fate::Copy => match to(&place.vhost, &message) {
                    Some(to) => Some(to),
                    None => {
                        unroutable += 1;
                        continue;
                    }
                },
            };
            chosen.push(Chosen { priority, stored: StoredMessage { seq, at, persistent, message }, to });
        }
        let mut handled = Handled { unroutable, ..Handled::default() };
        let mut chosen = chosen.into_iter().peekable();
        while chosen.peek().is_some() {
            let some: Vec<Chosen> = chosen.by_ref().take(PAGE_MESSAGES).collect();
            let asked = some.len() as u64;
            let taken = self.take(place, fate, some).await?;
            handled.add(Handled {
                done: taken.ready - taken.refused,
                missing: asked - taken.ready,
                unroutable: 0,
                refused: taken.refused,
            });
        }
        Ok(handled)
    }

    async fn page(&self, place: &QueuePlace, which: Which) -> Result<Page, CallError> {
        let (answer, page) = oneshot::channel();
        let browse = Browse { queue: place.queue, which, answer };
        self.shards[usize::from(place.queue.shard)].mailbox.push(ShardCommand::Browse(Box::new(browse)));
        place.answered(page.await)
    }

    /// Has messages taken out, and waits until what follows is durable.
    async fn take(&self, place: &QueuePlace, fate: Fate, chosen: Vec<Chosen>) -> Result<Taken, CallError> {
        let (answer, taken) = oneshot::channel();
        let take = Take { queue: place.queue, fate, chosen, answer };
        self.shards[usize::from(place.queue.shard)].mailbox.push(ShardCommand::Take(Box::new(take)));
        let taken = place.answered(taken.await)?;
        self.wait_durable(taken.lsn).await;
        Ok(taken)
    }

    async fn wait_durable(&self, lsn: Lsn) {
        let (durable, wait) = oneshot::channel();
        // Nobody hears it if the waiting was given up.
        self.store.when_durable(
            lsn,
            Box::new(move || {
                let _told = durable.send(());
            }),
        );
        if wait.await.is_err() {
            // The log has failed, and the node is about to stop: nothing may be said to be stored.
            std::future::pending().await
        }
    }
}

/// Most messages that are looked for at a time.
const THESE_MAX: usize = 64;

impl QueuePlace {
    fn answered<T>(
        &self,
        answer: Result<Result<T, Unbrowsable>, oneshot::error::RecvError>,
    ) -> Result<T, CallError> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unbrowsable::Stopped)) => {
                let label = Resource::Queue(self.name.as_bytes()).label(&self.vhost.name);
                Err(CallError::Refused(format!("{label} process is stopped by supervisor")))
            }
            // Without an answer, the node is about to stop.
            Ok(Err(Unbrowsable::Gone)) | Err(_) => Err(not_found("queue", &self.name).into()),
        }
    }
}

impl MessageListing {
    /// The next page; nothing when there are no more.
    ///
    /// # Errors
    /// If the queue is gone or stopped meanwhile.
    pub async fn next_page(&mut self, broker: &Broker) -> Result<Option<Vec<ReadyMessage>>, CallError> {
        let now_ms = broker.clock.now_ms();
        let ready = |browsed: Browsed| {
            Some(ReadyMessage {
                id: MessageId { priority: browsed.priority, seq: browsed.seq },
                age_ms: now_ms.saturating_sub(browsed.at),
                expires_in_ms: browsed.expires_at.map(|at| at.saturating_sub(now_ms)),
                redelivered: browsed.redelivered,
                message: browsed.message?,
            })
        };
        Ok(self.next(broker).await?.map(|page| page.into_iter().filter_map(ready).collect()))
    }

    async fn next(&mut self, broker: &Broker) -> Result<Option<Vec<Browsed>>, CallError> {
        while let Some(position) = self.position.filter(|_| self.left > 0) {
            let page = broker.page(&self.place, Which::From(position)).await?;
            let end = *self.end.get_or_insert(page.next_seq);
            self.position = page.next;
            let mut messages = page.messages;
            messages.retain(|message| message.seq < end);
            messages.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= messages.len() as u64;
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
        Ok(None)
    }
}

impl Handled {
    fn add(&mut self, more: Self) {
        self.done += more.done;
        self.missing += more.missing;
        self.unroutable += more.unroutable;
        self.refused += more.refused;
    }
}

/// The message as it comes to a target, and the queues that get it; none if there are none.
fn route(vhost: &Vhost, message: &Message, target: &Target) -> Option<(Message, Vec<QueueRef>)> {
    let properties = Properties::parse(message.properties()).ok()?;
    let owned = properties.to_owned();
    let tables = vhost.read();
    let (exchange, key) = match target {
        Target::Queue(name) => ("", name),
        Target::Exchange { name, routing_key } => (&**name, routing_key),
    };
    let mut queues = Vec::new();
    // It goes where the operator says, whatever other keys it had.
    let routed = tables.router.route(exchange.as_bytes(), &[key.as_bytes()], &properties, &mut queues)?;
    if queues.is_empty() {
        return None;
    }
    let sent = Sent {
        exchange: exchange.as_bytes(),
        routing_key: key.as_bytes(),
        expiration_ms: message.expiration_ms(),
        marks: Marks { key_only: true, ..message.marks() },
        blind_keys: &[],
    };
    let rewritten = reroute::rewritten(message, &owned, &sent);
    routed.histories.iter().for_each(|history| history.record(rewritten.clone()));
    Some((rewritten, queues))
}

/// The message as it was before it died, and the queue in which it died first; none if there is no such queue.
fn back(vhost: &Vhost, message: &Message) -> Option<(Message, Vec<QueueRef>)> {
    let properties = Properties::parse(message.properties()).ok()?;
    let headers = RoutingContent::headers(&properties);
    let FirstDeath { queue, exchange, routing_key } = FirstDeath::of(&headers)?;
    let entry = vhost.read().queues.get(&queue[..]).map(|entry| (entry.queue, entry.kind));
    let (reference, _) = entry.filter(|(_, kind)| *kind != QueueKind::Gate)?;
    let mut owned = properties.to_owned();
    forget_deaths(owned.headers.get_or_insert_default());
    let exchange = exchange.as_deref().unwrap_or_default();
    let routing_key = routing_key.as_deref().unwrap_or(&queue);
    let sent = Sent {
        exchange,
        routing_key,
        expiration_ms: message.expiration_ms(),
        marks: Marks { deaths: false, key_only: false },
        blind_keys: message.blind_keys(),
    };
    let rewritten = reroute::rewritten(message, &owned, &sent);
    Some((rewritten, vec![reference]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_shown() {
        for (priority, seq, shown) in
            [(0, 0, "0"), (0, 17, "17"), (9, 17, "9-17"), (255, u64::MAX, "255-18446744073709551615")]
        {
            let id = MessageId { priority, seq };
            assert_eq!(id.to_string(), shown);
            assert_eq!(shown.parse(), Ok(id));
        }
        for wrong in ["", "-", "1-", "-1", "256-1", "a", "1-2-3", "18446744073709551616"] {
            assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
        }
    }
}
