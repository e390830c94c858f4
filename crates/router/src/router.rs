//! The control methods: exchanges, queues and bindings come and go.

use std::sync::Arc;

use slab::Slab;
use warren_types::{FieldTable, History, QueueRef, ShortString};

use crate::binding::{BindError, Binding, Bound, Destination, Removed, UnbindError};
use crate::consistent_hash::{ConsistentHash, HashOn, weight};
use crate::direct::Direct;
use crate::exchange::{
    ALTERNATE_EXCHANGE, Declared, DeleteExchangeError, ExchangeDefinition, ExchangeKind, Inequivalent,
};
use crate::fanout::Fanout;
use crate::gate::Gate;
use crate::headers::{Headers, Rule};
use crate::jms_topic::{JmsTopic, selector};
use crate::modulus_hash::ModulusHash;
use crate::random::{Random, check_local};
use crate::recent_history::{self, RecentHistory};
use crate::selector::Selector;
use crate::stable_hash;
use crate::table::{BindingTable, Identity, Slot};
use crate::targets::Target;
use crate::topic::Topic;
use crate::{HashMap, InvalidArgument, to_index};

/// Exchanges that every virtual host has from the start (`rabbit_vhost:default_exchanges`); the third field
/// is `internal`.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

/// Index of the default exchange, which is made first and never deleted.
const DEFAULT_EXCHANGE: u32 = 0;

/// The exchanges, bindings and queue names of one virtual host.
///
/// The default exchange, whose name is empty, leads to every queue by its name. These bindings are implied:
/// no method returns them, and the default exchange can be neither changed, nor deleted, nor bound.
#[derive(Debug)]
pub struct Router {
    exchanges: Slab<Exchange>,
    exchange_names: HashMap<ShortString, u32>,
    queues: Slab<Queue>,
    queue_names: HashMap<ShortString, u32>,
    bindings: BindingTable,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) definition: ExchangeDefinition,
    /// Name of the alternate exchange that is in force, be it from the arguments or a policy. It need not exist.
    pub(crate) alternate: Option<ShortString>,
    /// Where messages have to go first.
    pub(crate) gate: Option<Gate>,
    pub(crate) matcher: Matcher,
}

#[derive(Debug)]
struct Queue {
    name: ShortString,
    reference: QueueRef,
}

/// The bindings of an exchange in the form in which its kind searches them.
#[derive(Debug)]
pub(crate) enum Matcher {
    /// The default exchange, which has none.
    Default,
    Direct(Direct),
    Fanout(Fanout),
    Topic(Topic),
    Headers(Headers),
    ConsistentHash(ConsistentHash),
    ModulusHash(ModulusHash),
    Random(Random),
    LocalRandom(Random),
    RecentHistory(RecentHistory),
    JmsTopic(JmsTopic),
}

/// What a kind makes of a binding when it checks it.
#[derive(Debug)]
enum Meaning {
    /// Key and destination say it all.
    Plain,
    Rule(Rule),
    Weight(u16),
    Selector(Selector),
}

impl Matcher {
    fn new(kind: ExchangeKind, arguments: &FieldTable) -> Self {
        match kind {
            // A delayed exchange is made as the kind that it routes as.
            ExchangeKind::Direct | ExchangeKind::DelayedMessage => Self::Direct(Direct::default()),
            ExchangeKind::Fanout => Self::Fanout(Fanout::default()),
            ExchangeKind::Topic => Self::Topic(Topic::default()),
            ExchangeKind::Headers => Self::Headers(Headers::default()),
            ExchangeKind::ConsistentHash => {
                let on = HashOn::from_arguments(arguments).unwrap_or_default();
                Self::ConsistentHash(ConsistentHash::new(on))
            }
            ExchangeKind::ModulusHash => Self::ModulusHash(ModulusHash::default()),
            ExchangeKind::Random => Self::Random(Random::default()),
            ExchangeKind::LocalRandom => Self::LocalRandom(Random::default()),
            ExchangeKind::RecentHistory => {
                let length = recent_history::length(arguments).unwrap_or(recent_history::LENGTH_DEFAULT);
                Self::RecentHistory(RecentHistory::new(length))
            }
            ExchangeKind::JmsTopic => Self::JmsTopic(JmsTopic::default()),
        }
    }

    fn bind(&mut self, id: u32, slot: &Slot, meaning: Meaning) {
        let (binding, target) = (&slot.binding, slot.target);
        match (self, meaning) {
            (Self::Direct(direct), _) => direct.bind(&binding.routing_key, target),
            (Self::Fanout(fanout), _) => fanout.bind(target),
            (Self::Topic(topic), _) => topic.bind(&binding.routing_key, target),
            (Self::Headers(headers), Meaning::Rule(rule)) => headers.bind(id, target, rule),
            (Self::ConsistentHash(matcher), Meaning::Weight(weight)) => {
                matcher.bind(target, stable_hash::destination(&binding.destination, target), weight);
            }
            (Self::ModulusHash(matcher), _) => matcher.bind(&binding.destination, target),
            (Self::Random(random) | Self::LocalRandom(random), _) => random.bind(id, target),
            (Self::RecentHistory(matcher), _) => matcher.fanout.bind(target),
            (Self::JmsTopic(matcher), Meaning::Selector(selector)) => matcher.bind(id, target, selector),
            (Self::Default, _) => debug_assert!(false, "the default exchange is never bound"),
            (Self::Headers(_) | Self::ConsistentHash(_) | Self::JmsTopic(_), _) => {
                debug_assert!(false, "the binding was checked for another kind");
            }
        }
    }

    fn unbind(&mut self, id: u32, slot: &Slot) {
        let key = &slot.binding.routing_key;
        match self {
            Self::Default => debug_assert!(false, "the default exchange is never bound"),
            Self::Direct(direct) => direct.unbind(key, slot.target),
            Self::Fanout(fanout) => fanout.unbind(slot.target),
            Self::Topic(topic) => topic.unbind(key, slot.target),
            Self::Headers(headers) => headers.unbind(id),
            Self::ConsistentHash(matcher) => {
                if let Ok(weight) = weight(key.as_bytes()) {
                    matcher.unbind(slot.target, weight);
                }
            }
            Self::ModulusHash(matcher) => matcher.unbind(&slot.binding.destination, slot.target),
            Self::Random(random) | Self::LocalRandom(random) => random.unbind(id),
            Self::RecentHistory(matcher) => matcher.fanout.unbind(slot.target),
            Self::JmsTopic(matcher) => matcher.unbind(id),
        }
    }

    /// What the kind makes of a binding (its `validate_binding/2` in RabbitMQ).
    fn check(&self, binding: &Binding) -> Result<Meaning, InvalidArgument> {
        match self {
            Self::Headers(_) => Rule::from_arguments(&binding.arguments).map(Meaning::Rule),
            Self::ConsistentHash(_) => weight(binding.routing_key.as_bytes()).map(Meaning::Weight),
            Self::LocalRandom(_) => check_local(binding).map(|()| Meaning::Plain),
            Self::JmsTopic(_) => selector(binding).map(Meaning::Selector),
            _ => Ok(Meaning::Plain),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// A virtual host with the predeclared exchanges and no queues.
    #[must_use]
    pub fn new() -> Self {
        let mut router = Self {
            exchanges: Slab::new(),
            exchange_names: HashMap::default(),
            queues: Slab::new(),
            queue_names: HashMap::default(),
            bindings: BindingTable::default(),
        };
        for (name, kind, internal) in PREDECLARED {
            let name = ShortString::from(name);
            let arguments = FieldTable::new();
            let matcher = if name.is_empty() { Matcher::Default } else { Matcher::new(kind, &arguments) };
            let definition =
                ExchangeDefinition { name, kind, durable: true, auto_delete: false, internal, arguments };
            router.insert_exchange(definition, matcher);
        }
        router
    }

    /// The exchange of this name.
    #[must_use]
    pub fn exchange(&self, name: &[u8]) -> Option<&ExchangeDefinition> {
        self.exchange_index(name).map(|index| &self.exchange_at(index).definition)
    }

    /// All exchanges, in no particular order.
    pub fn exchanges(&self) -> impl Iterator<Item = &ExchangeDefinition> {
        self.exchanges.iter().map(|(_, exchange)| &exchange.definition)
    }

    /// Creates an exchange, or makes sure that the one of the same name is equivalent
    /// (`rabbit_exchange:declare/7`).
    ///
    /// # Errors
    /// If an exchange of this name exists and differs; see [`ExchangeDefinition::check_equivalence`].
    pub fn declare_exchange(&mut self, definition: ExchangeDefinition) -> Result<Declared, Inequivalent> {
        if let Some(current) = self.exchange(definition.name.as_bytes()) {
            return current.check_equivalence(&definition).map(|()| Declared::Existing);
        }
        let kind = definition.routing_kind().unwrap_or(ExchangeKind::Direct);
        let matcher = Matcher::new(kind, &definition.arguments);
        self.insert_exchange(definition, matcher);
        Ok(Declared::New)
    }

    /// Has messages go through a queue before an exchange routes them, or no more. Whether there is such an exchange.
    pub fn set_gate(&mut self, name: &[u8], gate: Option<Gate>) -> bool {
        let Some(index) = self.exchange_index(name) else { return false };
        self.exchanges[index as usize].gate = gate;
        true
    }

    /// Where messages have to go before an exchange routes them.
    #[must_use]
    pub fn gate(&self, name: &[u8]) -> Option<Gate> {
        self.exchange_at(self.exchange_index(name)?).gate
    }

    /// Sets the alternate exchange that policies give an exchange, or that they give none. One in its arguments stays in
    /// force, as in `rabbit_policy:get_arg/3`. Whether there is such an exchange.
    pub fn set_alternate(&mut self, name: &[u8], alternate: Option<ShortString>) -> bool {
        let Some(index) = self.exchange_index(name) else { return false };
        let exchange = &mut self.exchanges[index as usize];
        if exchange.definition.arguments.get(ALTERNATE_EXCHANGE).is_none() {
            exchange.alternate = alternate;
        }
        true
    }

    /// The alternate exchange that is in force for an exchange; it need not exist.
    #[must_use]
    pub fn alternate(&self, name: &[u8]) -> Option<&ShortString> {
        self.exchange_index(name).and_then(|index| self.exchange_at(index).alternate.as_ref())
    }

    /// The messages that an exchange keeps for queues that are bound later, if it is of a kind that does.
    #[must_use]
    pub fn history(&self, name: &[u8]) -> Option<&Arc<History>> {
        match &self.exchange_at(self.exchange_index(name)?).matcher {
            Matcher::RecentHistory(matcher) => Some(&matcher.history),
            _ => None,
        }
    }

    /// Deletes an exchange with the bindings from it and to it (`rabbit_exchange:delete/3`), and every
    /// exchange that thereby loses its last outgoing binding and has auto-delete set. `if_unused` asks that
    /// no binding comes from it.
    ///
    /// # Errors
    /// If there is no such exchange, if it is in use, or if it is the default exchange. Nothing is changed
    /// then.
    pub fn delete_exchange(&mut self, name: &[u8], if_unused: bool) -> Result<Removed, DeleteExchangeError> {
        if name.is_empty() {
            return Err(DeleteExchangeError::DefaultExchange);
        }
        let index = self.exchange_index(name).ok_or(DeleteExchangeError::NotFound)?;
        if if_unused && self.bindings.first_from(index).is_some() {
            return Err(DeleteExchangeError::InUse);
        }
        let mut removed = Removed::default();
        let mut sources = Vec::new();
        self.remove_exchange(index, &mut removed, &mut sources);
        self.auto_delete(sources, &mut removed);
        Ok(removed)
    }

    /// Makes a queue known under its name, which also binds it to the default exchange. A queue already known
    /// under this name is replaced and its bindings are kept.
    pub fn add_queue(&mut self, name: &ShortString, queue: QueueRef) {
        if let Some(&index) = self.queue_names.get(name) {
            self.queues[index as usize].reference = queue;
            return;
        }
        let index = to_index(self.queues.insert(Queue { name: name.clone(), reference: queue }));
        self.queue_names.insert(name.clone(), index);
    }

    /// Forgets a queue and removes the bindings to it, and every exchange that thereby loses its last
    /// outgoing binding and has auto-delete set. Removes nothing if there is no such queue.
    pub fn remove_queue(&mut self, name: &[u8]) -> Removed {
        let mut removed = Removed::default();
        let mut sources = Vec::new();
        if let Some(index) = self.queue_names.remove(name) {
            self.remove_bindings_to(Target::queue(index), &mut removed, &mut sources);
            self.queues.remove(index as usize);
            self.auto_delete(sources, &mut removed);
        }
        removed
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &[u8]) -> Option<QueueRef> {
        self.queue_names.get(name).map(|&index| self.queue_at(index))
    }

    /// All queues, in no particular order.
    pub fn queues(&self) -> impl Iterator<Item = (&ShortString, QueueRef)> {
        self.queues.iter().map(|(_, queue)| (&queue.name, queue.reference))
    }

    /// Adds a binding unless it is there already (`rabbit_binding:add/3`).
    ///
    /// # Errors
    /// If one of its ends does not exist or is the default exchange, or if the source refuses its arguments.
    pub fn bind(&mut self, mut binding: Binding) -> Result<Bound, BindError> {
        if is_of_default_exchange(&binding) {
            return Err(BindError::DefaultExchange);
        }
        let source = self.exchange_index(binding.source.as_bytes()).ok_or(BindError::NoSource)?;
        let target = self.target(&binding.destination).ok_or(BindError::NoDestination)?;
        let meaning = self.exchange_at(source).matcher.check(&binding)?;
        if self.find(&binding, source, target).is_some() {
            return Ok(Bound::Existing);
        }
        // Share the names of the ends instead of keeping those that came with the request.
        binding.source = self.exchange_at(source).definition.name.clone();
        let names = if let Destination::Queue(_) = binding.destination {
            &self.queue_names
        } else {
            &self.exchange_names
        };
        if let Some((shared, _)) = names.get_key_value(binding.destination.name()) {
            binding.destination = match binding.destination {
                Destination::Queue(_) => Destination::Queue(shared.clone()),
                Destination::Exchange(_) => Destination::Exchange(shared.clone()),
            };
        }
        binding.arguments = binding.arguments.sorted();
        let id = self.bindings.insert(binding, source, target);
        self.exchanges[source as usize].matcher.bind(id, self.bindings.get(id), meaning);
        Ok(Bound::New)
    }

    /// Removes a binding (`rabbit_binding:remove/3`), and every exchange that thereby loses its last outgoing
    /// binding and has auto-delete set. Removes nothing if there is no such binding, whatever of it is
    /// missing.
    ///
    /// # Errors
    /// If one of its ends is the default exchange.
    pub fn unbind(&mut self, binding: &Binding) -> Result<Removed, UnbindError> {
        if is_of_default_exchange(binding) {
            return Err(UnbindError::DefaultExchange);
        }
        let mut removed = Removed::default();
        let source = self.exchange_index(binding.source.as_bytes());
        if let (Some(source), Some(target)) = (source, self.target(&binding.destination))
            && let Some(id) = self.find(binding, source, target)
        {
            self.remove_binding(id, &mut removed);
            self.auto_delete(vec![source], &mut removed);
        }
        Ok(removed)
    }

    /// All bindings, in no particular order.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().map(|slot| &slot.binding)
    }

    /// The bindings from an exchange, oldest first.
    pub fn bindings_from(&self, source: &[u8]) -> impl Iterator<Item = &Binding> {
        self.exchange_index(source)
            .into_iter()
            .flat_map(|index| self.bindings.from(index))
            .map(|slot| &slot.binding)
    }

    /// The bindings to a queue or an exchange, oldest first.
    pub fn bindings_to(&self, destination: &Destination) -> impl Iterator<Item = &Binding> + use<'_> {
        self.target(destination)
            .into_iter()
            .flat_map(|target| self.bindings.to(target))
            .map(|slot| &slot.binding)
    }

    pub(crate) fn exchange_index(&self, name: &[u8]) -> Option<u32> {
        // Most publishers use the default exchange; and a look-up would compare empty slices, which takes 100 ns
        // if the one given is dangling and memcmp uses masked loads.
        if name.is_empty() { Some(DEFAULT_EXCHANGE) } else { self.exchange_names.get(name).copied() }
    }

    pub(crate) fn exchange_at(&self, index: u32) -> &Exchange {
        &self.exchanges[index as usize]
    }

    pub(crate) fn queue_at(&self, index: u32) -> QueueRef {
        self.queues[index as usize].reference
    }

    pub(crate) fn binding_table(&self) -> &BindingTable {
        &self.bindings
    }

    fn target(&self, destination: &Destination) -> Option<Target> {
        match destination {
            Destination::Queue(name) => self.queue_names.get(name).copied().map(Target::queue),
            Destination::Exchange(name) => self.exchange_index(name.as_bytes()).map(Target::exchange),
        }
    }

    fn find(&self, binding: &Binding, source: u32, target: Target) -> Option<u32> {
        let Binding { routing_key, arguments, .. } = binding;
        self.bindings.find(Identity { source, target, routing_key, arguments })
    }

    fn insert_exchange(&mut self, definition: ExchangeDefinition, matcher: Matcher) {
        let (name, alternate) = (definition.name.clone(), definition.alternate_exchange());
        let index = self.exchanges.insert(Exchange { definition, alternate, gate: None, matcher });
        self.exchange_names.insert(name, to_index(index));
    }

    fn remove_binding(&mut self, id: u32, removed: &mut Removed) {
        let slot = self.bindings.remove(id);
        self.exchanges[slot.source as usize].matcher.unbind(id, &slot);
        removed.bindings.push(slot.binding);
    }

    /// Removes the bindings to `target` and notes the exchanges that they came from.
    fn remove_bindings_to(&mut self, target: Target, removed: &mut Removed, sources: &mut Vec<u32>) {
        while let Some(id) = self.bindings.first_to(target) {
            sources.push(self.bindings.get(id).source);
            self.remove_binding(id, removed);
        }
    }

    /// Removes an exchange with all its bindings and notes the exchanges that had bindings to it.
    fn remove_exchange(
        &mut self,
        index: u32,
        removed: &mut Removed,
        sources: &mut Vec<u32>,
    ) -> ExchangeDefinition {
        // Its matcher goes as a whole, so bindings from it are only taken from the table.
        while let Some(id) = self.bindings.first_from(index) {
            removed.bindings.push(self.bindings.remove(id).binding);
        }
        self.remove_bindings_to(Target::exchange(index), removed, sources);
        let Exchange { definition, .. } = self.exchanges.remove(index as usize);
        self.exchange_names.remove(&definition.name);
        definition
    }

    /// Deletes those of `sources` that have auto-delete set and no outgoing binding left, having just lost
    /// one, and goes on with the exchanges that were bound to them.
    fn auto_delete(&mut self, mut sources: Vec<u32>, removed: &mut Removed) {
        let mut at = 0;
        while let Some(&index) = sources.get(at) {
            at += 1;
            // Gone already if it lost several bindings. No exchange is added meanwhile, so the index stands
            // for no other.
            let Some(exchange) = self.exchanges.get(index as usize) else { continue };
            if exchange.definition.auto_delete && self.bindings.first_from(index).is_none() {
                let definition = self.remove_exchange(index, removed, &mut sources);
                removed.exchanges.push(definition);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (&Slab<Exchange>, &HashMap<ShortString, u32>, &HashMap<ShortString, u32>) {
        (&self.exchanges, &self.exchange_names, &self.queue_names)
    }
}

fn is_of_default_exchange(binding: &Binding) -> bool {
    binding.source.is_empty()
        || matches!(&binding.destination, Destination::Exchange(name) if name.is_empty())
}
