//! The invariants of a router, checked from scratch.

use crate::{ALTERNATE_EXCHANGE, HashMap};

use crate::router::{Matcher, Router};
use crate::targets::{End, Target, Targets};
use crate::to_index;

impl Router {
    /// Panics if an invariant from the crate's documentation does not hold.
    pub(crate) fn check(&self) {
        let (exchanges, exchange_names, queue_names) = self.parts();
        let table = self.binding_table();
        table.check();
        assert_eq!(exchanges.len(), exchange_names.len());
        assert_eq!(self.queues().count(), queue_names.len());
        for (name, queue) in self.queues() {
            assert_eq!(self.queue(name.as_bytes()), Some(queue));
        }
        for slot in table.iter() {
            let source = &self.exchange_at(slot.source).definition;
            assert_eq!(source.name, slot.binding.source);
            let name = slot.binding.destination.name();
            match slot.target.end() {
                End::Queue(index) => assert_eq!(queue_names.get(name), Some(&index)),
                End::Exchange(index) => assert_eq!(exchange_names.get(name), Some(&index)),
            }
        }
        for (index, exchange) in exchanges {
            let index = to_index(index);
            assert_eq!(self.exchange_index(exchange.definition.name.as_bytes()), Some(index));
            let arguments = &exchange.definition.arguments;
            if arguments.get(ALTERNATE_EXCHANGE).is_some() {
                assert_eq!(exchange.alternate, exchange.definition.alternate_exchange());
            }
            let mut expected: HashMap<Target, u32> = HashMap::default();
            table.from(index).for_each(|slot| *expected.entry(slot.target).or_default() += 1);
            assert_eq!(self.counted(&exchange.matcher), expected);
        }
    }

    /// Number of bindings to each target, as a matcher has it.
    fn counted(&self, matcher: &Matcher) -> HashMap<Target, u32> {
        let mut counted: HashMap<Target, u32> = HashMap::default();
        let mut count = |targets: &Targets| {
            targets.check();
            for one in targets.as_slice() {
                *counted.entry(one.target).or_default() += one.bindings;
            }
        };
        match matcher {
            Matcher::RecentHistory(matcher) => count(matcher.fanout.targets()),
            Matcher::ConsistentHash(matcher) => {
                matcher.check(&mut |target, bindings| *counted.entry(target).or_default() += bindings)
            }
            Matcher::ModulusHash(matcher) => {
                matcher.check(&mut |target, bindings| *counted.entry(target).or_default() += bindings)
            }
            Matcher::Random(matcher) | Matcher::LocalRandom(matcher) => {
                matcher.check(&mut |target, bindings| *counted.entry(target).or_default() += bindings)
            }
            Matcher::JmsTopic(matcher) => {
                matcher.check(&mut |target, bindings| *counted.entry(target).or_default() += bindings)
            }
            Matcher::Default => {}
            Matcher::Direct(direct) => direct.check(&mut count),
            Matcher::Fanout(fanout) => count(fanout.targets()),
            Matcher::Topic(topic) => topic.check(&mut count),
            Matcher::Headers(headers) => {
                headers.check(self.binding_table(), &mut |target| *counted.entry(target).or_default() += 1);
            }
        }
        counted
    }
}
