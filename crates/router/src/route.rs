//! The way of one message: from exchange to exchange until it is known which queues it goes to.

use warren_types::{FieldTable, QueueRef};

use crate::headers::SortedHeaders;
use crate::router::{Exchange, Matcher, Router};
use crate::small_set::SmallSet;
use crate::targets::{End, Target, Targets};

/// How [`Router::route`] came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Whether exchange and keys alone decided, so that the result holds for every message with the same ones
    /// until the router changes. Not so once a headers exchange was met.
    pub cacheable: bool,
}

impl Router {
    /// Appends to `out` the queues that a message published to `exchange` goes to, each at most once and in
    /// no particular order. `None` if there is no such exchange; if nothing is appended, the message is
    /// unroutable.
    ///
    /// `keys` are the routing key and those from the headers CC and BCC. `headers` is called at most once,
    /// and only if a headers exchange is met.
    ///
    /// As `rabbit_exchange:route/3`: each exchange is visited once. One that matches neither a queue nor an
    /// exchange hands over to its alternate exchange, if that exists; whether what it does match leads
    /// anywhere is not asked.
    pub fn route(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        headers: &mut dyn FnMut() -> FieldTable,
        out: &mut Vec<QueueRef>,
    ) -> Option<Routed> {
        let first = self.exchange_index(exchange)?;
        let start = out.len();
        let mut walk = Walk {
            router: self,
            keys,
            headers,
            table: None,
            out,
            exchanges: SmallSet::default(),
            matches: 0,
        };
        walk.exchanges.insert(first);
        let mut visited = 0;
        while let Some(&index) = walk.exchanges.as_slice().get(visited) {
            visited += 1;
            walk.visit(self.exchange_at(index));
        }
        let Walk { table, matches, out, .. } = walk;
        // The destinations of one match are different from each other; only a second match can repeat one.
        if matches > 1 {
            remove_repeated(out, start);
        }
        Some(Routed { cacheable: table.is_none() })
    }
}

struct Walk<'a> {
    router: &'a Router,
    keys: &'a [&'a [u8]],
    headers: &'a mut dyn FnMut() -> FieldTable,
    /// What `headers` returned.
    table: Option<FieldTable>,
    out: &'a mut Vec<QueueRef>,
    /// The exchanges visited, then those still to visit.
    exchanges: SmallSet,
    /// Number of matches so far, each with one or more destinations.
    matches: usize,
}

impl Walk<'_> {
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
                let table = self.table.take().unwrap_or_else(|| (self.headers)());
                matcher.matching(self.router.binding_table(), &SortedHeaders::new(&table), |target| {
                    self.matches += 1;
                    self.take(target);
                });
                self.table = Some(table);
            }
        }
        if self.matches == before
            && let Some(alternate) = &exchange.alternate
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
