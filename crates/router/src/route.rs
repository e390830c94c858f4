//! The way of one message: from exchange to exchange until it is known which queues it goes to.

use std::sync::Arc;

use warren_types::session::RoutingContent;
use warren_types::{FieldTable, History, QueueRef};

use crate::consistent_hash::{ConsistentHash, HashOn};
use crate::gate::{Gate, delay_ms};
use crate::headers::SortedHeaders;
use crate::recent_history::{RecentHistory, is_not_stored};
use crate::router::{Exchange, Matcher, Router};
use crate::small_set::SmallSet;
use crate::stable_hash;
use crate::targets::{End, Target, Targets};

/// How [`Router::route`] came to its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// Whether exchange and keys alone decided, so that the result holds for every message with the same ones
    /// until the router changes. Not so once an exchange was met that looks at the content, leaves it to chance or
    /// keeps messages.
    pub cacheable: bool,
    /// Histories that the caller must record the message in: those of the exchanges it met.
    pub histories: Vec<Arc<History>>,
}

impl Router {
    /// Appends to `out` the queues that a message published to `exchange` goes to, each at most once and in
    /// no particular order. `None` if there is no such exchange; if nothing is appended, the message is
    /// unroutable.
    ///
    /// `keys` are the routing key and those from the headers CC and BCC. The headers of `content` are asked for at
    /// most once, and only if an exchange is met that looks at them.
    ///
    /// As `rabbit_exchange:route/3`: each exchange is visited once. One that matches neither a queue nor an
    /// exchange hands over to its alternate exchange, if that exists; whether what it does match leads
    /// anywhere is not asked.
    pub fn route(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        content: &dyn RoutingContent,
        out: &mut Vec<QueueRef>,
    ) -> Option<Routed> {
        self.walk(exchange, keys, content, false, out)
    }

    /// As [`Router::route`], for a message that has passed the exchange's [`Gate`](crate::Gate), if there is one.
    pub fn route_behind_gate(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        content: &dyn RoutingContent,
        out: &mut Vec<QueueRef>,
    ) -> Option<Routed> {
        self.walk(exchange, keys, content, true, out)
    }

    fn walk(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        content: &dyn RoutingContent,
        is_behind_gate: bool,
        out: &mut Vec<QueueRef>,
    ) -> Option<Routed> {
        let first = self.exchange_index(exchange)?;
        let start = out.len();
        let mut walk = Walk {
            router: self,
            keys,
            content,
            table: None,
            cacheable: true,
            histories: Vec::new(),
            out,
            exchanges: SmallSet::default(),
            matches: 0,
        };
        walk.exchanges.insert(first);
        let mut visited = 0;
        while let Some(&index) = walk.exchanges.as_slice().get(visited) {
            let exchange = self.exchange_at(index);
            match exchange.gate.filter(|_| visited > 0 || !is_behind_gate) {
                None => walk.visit(exchange),
                Some(gate) => walk.visit_gate(exchange, gate),
            }
            visited += 1;
        }
        let Walk { cacheable, histories, matches, out, .. } = walk;
        // The destinations of one match are different from each other; only a second match can repeat one.
        if matches > 1 {
            remove_repeated(out, start);
        }
        Some(Routed { cacheable, histories })
    }
}

struct Walk<'a> {
    router: &'a Router,
    keys: &'a [&'a [u8]],
    content: &'a dyn RoutingContent,
    /// The headers, once an exchange has asked for them.
    table: Option<FieldTable>,
    cacheable: bool,
    histories: Vec<Arc<History>>,
    out: &'a mut Vec<QueueRef>,
    /// The exchanges visited, then those still to visit.
    exchanges: SmallSet,
    /// Number of matches so far, each with one or more destinations.
    matches: usize,
}

impl Walk<'_> {
    fn visit_gate(&mut self, exchange: &Exchange, gate: Gate) {
        self.cacheable = false;
        if gate.delays && self.with_headers(|_, headers| delay_ms(headers).is_some()) {
            self.matches += 1;
            self.out.push(gate.queue);
            return;
        }
        let matches = self.matches;
        let (found, exchanges, histories) =
            (self.out.len(), self.exchanges.as_slice().len(), self.histories.len());
        self.visit(exchange);
        // What leads nowhere is told so now; the rest is matched again behind the gate.
        if gate.deduplicates && self.matches > matches {
            self.out.truncate(found);
            self.exchanges.truncate(exchanges);
            self.histories.truncate(histories);
            self.out.push(gate.queue);
        }
    }

    fn visit(&mut self, exchange: &Exchange) {
        let before = self.matches;
        match &exchange.matcher {
            Matcher::Default => self.visit_default(),
            Matcher::Direct(direct) => {
                for key in self.keys {
                    direct.matching(key).into_iter().for_each(|targets| self.take_all(targets));
                }
            }
            Matcher::Fanout(fanout) => self.take_all(fanout.targets()),
            Matcher::Topic(topic) => {
                for key in self.keys {
                    topic.matching(key, |targets| self.take_all(targets));
                }
            }
            Matcher::Headers(matcher) => {
                self.with_headers(|walk, headers| {
                    matcher.matching(walk.router.binding_table(), &SortedHeaders::new(headers), |target| {
                        walk.take_one(target);
                    });
                });
            }
            Matcher::ConsistentHash(matcher) => self.visit_consistent_hash(matcher),
            Matcher::ModulusHash(matcher) => {
                if let Some(target) = matcher.destination(self.keys) {
                    self.take_one(target);
                }
            }
            Matcher::Random(matcher) | Matcher::LocalRandom(matcher) => {
                self.cacheable = false;
                if let Some(target) = matcher.destination() {
                    self.take_one(target);
                }
            }
            Matcher::RecentHistory(matcher) => self.visit_recent_history(matcher),
            Matcher::JmsTopic(matcher) => {
                self.with_headers(|walk, headers| matcher.matching(headers, |target| walk.take_one(target)));
            }
        }
        // The default exchange leads nowhere as an alternate one: no binding says where (`rabbit_exchange:route1/4`).
        if self.matches == before
            && let Some(alternate) = exchange.alternate.as_ref().filter(|name| !name.is_empty())
            && let Some(index) = self.router.exchange_index(alternate.as_bytes())
        {
            self.exchanges.insert(index);
        }
    }

    /// The default exchange leads to the queue with the name of the key.
    fn visit_default(&mut self) {
        for key in self.keys {
            if let Some(queue) = self.router.queue(key) {
                self.matches += 1;
                self.out.push(queue);
            }
        }
    }

    fn visit_consistent_hash(&mut self, matcher: &ConsistentHash) {
        let hash = match &matcher.on {
            HashOn::RoutingKey => stable_hash::bytes(self.keys.first().copied().unwrap_or_default()),
            HashOn::Header(name) => self.with_headers(|_, headers| {
                // The last of several headers with the same name counts, as for headers exchanges.
                let mut entries = headers.0.iter().rev();
                stable_hash::value(entries.find(|(key, _)| key == &name[..]).map(|(_, value)| value))
            }),
            HashOn::Property(property) => {
                self.cacheable = false;
                stable_hash::value(self.content.property(*property).as_ref())
            }
        };
        if let Some(target) = matcher.destination(hash) {
            self.take_one(target);
        }
    }

    fn visit_recent_history(&mut self, matcher: &RecentHistory) {
        if !self.with_headers(|_, headers| is_not_stored(headers)) {
            self.histories.push(Arc::clone(&matcher.history));
        }
        self.take_all(matcher.fanout.targets());
    }

    /// Lets an exchange look at the headers.
    fn with_headers<T>(&mut self, look: impl FnOnce(&mut Self, &FieldTable) -> T) -> T {
        self.cacheable = false;
        let table = self.table.take().unwrap_or_else(|| self.content.headers());
        let seen = look(self, &table);
        self.table = Some(table);
        seen
    }

    /// A match of its own.
    fn take_one(&mut self, target: Target) {
        self.matches += 1;
        self.take(target);
    }

    fn take_all(&mut self, targets: &Targets) {
        self.matches += usize::from(!targets.is_empty());
        for counted in targets.as_slice() {
            self.take(counted.target);
        }
    }

    fn take(&mut self, target: Target) {
        match target.end() {
            End::Queue(index) => self.out.push(self.router.queue_at(index)),
            End::Exchange(index) => {
                self.exchanges.insert(index);
            }
        }
    }
}

/// Removes repeated queues from `start` on.
fn remove_repeated(out: &mut Vec<QueueRef>, start: usize) {
    const SEARCHED_LEN_MAX: usize = 16;
    let sorted = out.len() - start > SEARCHED_LEN_MAX;
    if sorted {
        out[start..].sort_unstable();
    }
    let mut kept = start;
    for at in start..out.len() {
        let queue = out[at];
        // Sorted, a repeated queue can only follow on itself.
        let seen = if sorted { &out[start.max(kept.saturating_sub(1))..kept] } else { &out[start..kept] };
        if !seen.contains(&queue) {
            out[kept] = queue;
            kept += 1;
        }
    }
    out.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::QueueId;

    #[test]
    fn repeated_queues_go_and_what_was_there_before_stays() {
        let queue = |id: u64| QueueRef { id: QueueId(id), shard: 0, slot: 0 };
        for count in [0, 1, 5, 16, 17, 200] {
            let mut out: Vec<_> =
                [1, 1].into_iter().chain((0..count).map(|n| n * 7 % 5)).map(queue).collect();
            remove_repeated(&mut out, 2);
            let mut ids: Vec<_> = out[2..].iter().map(|queue| queue.id.0).collect();
            ids.sort_unstable();
            assert_eq!(
                ids,
                (0..count.min(5))
                    .map(|n| n * 7 % 5)
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
            );
            assert_eq!(out[..2], [queue(1), queue(1)]);
        }
    }
}
