//! A router against a model that keeps a list of bindings and searches all of it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use warren_types::{FieldTable, FieldValue, QueueId, QueueRef, ShortString};

use crate::*;

#[derive(Default)]
struct Model {
    exchanges: BTreeMap<ShortString, ExchangeDefinition>,
    queues: BTreeMap<ShortString, QueueRef>,
    bindings: Vec<Binding>,
}

/// What went: the text of bindings and exchanges, so that they can be sorted.
type Gone = (Vec<String>, Vec<String>);

fn gone(bindings: &[Binding], exchanges: &[ExchangeDefinition]) -> Gone {
    let sorted =
        |binding: &Binding| Binding { arguments: binding.arguments.clone().sorted(), ..binding.clone() };
    let mut bindings: Vec<_> = bindings.iter().map(|binding| format!("{:?}", sorted(binding))).collect();
    let mut exchanges: Vec<_> = exchanges.iter().map(|exchange| format!("{exchange:?}")).collect();
    bindings.sort();
    exchanges.sort();
    (bindings, exchanges)
}

impl Model {
    fn new(router: &Router) -> Self {
        let exchanges =
            router.exchanges().map(|exchange| (exchange.name.clone(), exchange.clone())).collect();
        Self { exchanges, ..Self::default() }
    }

    /// Removes all bindings that `goes` says, and what follows from it.
    fn remove(&mut self, goes: impl Fn(&Binding) -> bool) -> Gone {
        let (mut bindings, mut exchanges) = (Vec::new(), Vec::new());
        let mut step: Vec<Binding> = self.bindings.extract_if(.., |binding| goes(binding)).collect();
        while !step.is_empty() {
            let sources: BTreeSet<_> = step.iter().map(|binding| binding.source.clone()).collect();
            bindings.append(&mut step);
            for name in sources {
                let used = self.bindings.iter().any(|binding| binding.source == name);
                if !used && self.exchanges.get(&name).is_some_and(|exchange| exchange.auto_delete) {
                    exchanges.extend(self.exchanges.remove(&name));
                    let to = Destination::Exchange(name);
                    step.extend(self.bindings.extract_if(.., |binding| binding.destination == to));
                }
            }
        }
        gone(&bindings, &exchanges)
    }

    fn delete_exchange(&mut self, name: &ShortString, if_unused: bool) -> Result<Gone, DeleteExchangeError> {
        if name.is_empty() {
            return Err(DeleteExchangeError::DefaultExchange);
        }
        if !self.exchanges.contains_key(name) {
            return Err(DeleteExchangeError::NotFound);
        }
        if if_unused && self.bindings.iter().any(|binding| binding.source == *name) {
            return Err(DeleteExchangeError::InUse);
        }
        self.exchanges.remove(name);
        let to = Destination::Exchange(name.clone());
        Ok(self.remove(|binding| binding.source == *name || binding.destination == to))
    }

    fn bind(&mut self, binding: &Binding) -> Result<Bound, BindError> {
        let name = binding.destination.name();
        let (is_exchange, exists) = match binding.destination {
            Destination::Queue(_) => (false, self.queues.contains_key(name)),
            Destination::Exchange(_) => (true, self.exchanges.contains_key(name)),
        };
        if binding.source.is_empty() || (is_exchange && name.is_empty()) {
            return Err(BindError::DefaultExchange);
        }
        let Some(source) = self.exchanges.get(&binding.source) else { return Err(BindError::NoSource) };
        if !exists {
            return Err(BindError::NoDestination);
        }
        match binding.arguments.get("x-match") {
            Some(FieldValue::LongString(rule))
                if source.kind == ExchangeKind::Headers && !rule.starts_with(b"a") =>
            {
                return Err(InvalidArgument::MatchValue(rule.clone()).into());
            }
            _ => {}
        }
        if self.bindings.contains(binding) {
            return Ok(Bound::Existing);
        }
        self.bindings.push(binding.clone());
        Ok(Bound::New)
    }

    fn route(&self, exchange: &ShortString, keys: &[&[u8]], headers: &FieldTable) -> BTreeSet<QueueRef> {
        let (mut queues, mut seen) = (BTreeSet::new(), BTreeSet::new());
        self.visit(exchange, keys, headers, &mut queues, &mut seen);
        queues
    }

    fn visit(
        &self,
        name: &ShortString,
        keys: &[&[u8]],
        headers: &FieldTable,
        queues: &mut BTreeSet<QueueRef>,
        seen: &mut BTreeSet<ShortString>,
    ) {
        let Some(exchange) = self.exchanges.get(name) else { return };
        if !seen.insert(name.clone()) {
            return;
        }
        let mut next = Vec::new();
        let mut unmatched = true;
        if name.is_empty() {
            let found: Vec<_> = keys.iter().filter_map(|key| self.queues.get(*key)).collect();
            unmatched = found.is_empty();
            queues.extend(found);
        }
        for binding in self.bindings.iter().filter(|binding| binding.source == *name) {
            let pattern = binding.routing_key.as_bytes();
            let hit = match exchange.kind {
                ExchangeKind::Direct => keys.contains(&pattern),
                ExchangeKind::Fanout => true,
                ExchangeKind::Topic => keys.iter().any(|key| topic_matches(&split(pattern), &split(key))),
                ExchangeKind::Headers => headers_match(&binding.arguments, headers),
                _ => unreachable!("only the kinds of the specification are declared here"),
            };
            if hit {
                unmatched = false;
                match &binding.destination {
                    Destination::Queue(name) => queues.extend(self.queues.get(name)),
                    Destination::Exchange(name) => next.push(name.clone()),
                }
            }
        }
        if unmatched {
            next.extend(exchange.alternate_exchange().filter(|name| !name.is_empty()));
        }
        next.iter().for_each(|name| self.visit(name, keys, headers, queues, seen));
    }
}

fn split(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

fn topic_matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        ([b"#", rest @ ..], _) => (0..=key.len()).any(|skipped| topic_matches(rest, &key[skipped..])),
        ([step, rest @ ..], [word, words @ ..]) => {
            (*step == b"*" || step == word) && topic_matches(rest, words)
        }
        _ => false,
    }
}

fn headers_match(arguments: &FieldTable, headers: &FieldTable) -> bool {
    let rule = arguments.get("x-match").and_then(FieldValue::as_long_string).unwrap_or(b"all");
    let ignored: &[u8] = if rule.ends_with(b"-with-x") { b"x-match" } else { b"x-" };
    let mut hits =
        arguments.0.iter().filter(|(name, _)| !name.as_bytes().starts_with(ignored)).map(|(name, value)| {
            let header = headers.0.iter().rev().find(|(header, _)| header == name).map(|(_, value)| value);
            match (value, header) {
                (_, None) => false,
                (FieldValue::Void, Some(_)) => true,
                (wanted, Some(header)) => match (wanted.as_integer(), header.as_integer()) {
                    (Some(wanted), Some(header)) => wanted == header,
                    _ => wanted == header,
                },
            }
        });
    if rule.starts_with(b"all") { hits.all(|hit| hit) } else { hits.any(|hit| hit) }
}

#[derive(Debug, Clone)]
enum Step {
    Declare(ExchangeDefinition),
    Delete(ShortString, bool),
    AddQueue(ShortString, u32),
    RemoveQueue(ShortString),
    Bind(Binding),
    Unbind(Binding),
    /// The binding at this place in the model's list, counted from the end and around.
    UnbindOld(usize),
    Route(Vec<String>, FieldTable),
}

fn exchange_name() -> impl Strategy<Value = ShortString> {
    select(&["e1", "e2", "e3", "e4", "amq.topic", "amq.match", "", "missing"][..]).prop_map(ShortString::from)
}

/// Queues and keys share their names, so that the default exchange finds something.
fn queue_name() -> impl Strategy<Value = ShortString> {
    select(&["a", "b", "a.b", "q"][..]).prop_map(ShortString::from)
}

fn key(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(select(words), 0..6).prop_map(|words| words.join("."))
}

fn definition() -> impl Strategy<Value = ExchangeDefinition> {
    let alternate = prop_oneof![2 => Just(None), 1 => exchange_name().prop_map(Some)];
    (exchange_name(), select(&ExchangeKind::ALL[..4]), any::<bool>(), alternate).prop_map(
        |(name, kind, auto_delete, alternate)| {
            let mut arguments = FieldTable::new();
            if let Some(alternate) = alternate {
                arguments.insert(ALTERNATE_EXCHANGE, FieldValue::LongString(alternate.as_bytes().to_vec()));
            }
            ExchangeDefinition { name, kind, durable: true, auto_delete, internal: false, arguments }
        },
    )
}

fn table(rules: &'static [&'static str]) -> impl Strategy<Value = FieldTable> {
    let value = select(vec![
        FieldValue::I32(1),
        FieldValue::I64(1),
        FieldValue::string("1"),
        FieldValue::Void,
        FieldValue::Bool(true),
    ]);
    let header = (select(&["h", "i", "x-h"][..]), value);
    let entry = if rules.is_empty() {
        header.boxed()
    } else {
        let rule = (Just("x-match"), select(rules).prop_map(FieldValue::string));
        prop_oneof![1 => rule, 2 => header].boxed()
    };
    vec(entry, 0..4).prop_map(|entries| {
        let mut table = FieldTable::new();
        entries.into_iter().for_each(|(name, value)| table.insert(name, value));
        table
    })
}

fn binding() -> impl Strategy<Value = Binding> {
    let destination = prop_oneof![
        2 => queue_name().prop_map(Destination::Queue),
        1 => exchange_name().prop_map(Destination::Exchange),
    ];
    let rules = &["all", "any", "all-with-x", "any-with-x", "bad"][..];
    let arguments = prop_oneof![2 => Just(FieldTable::new()), 1 => table(rules)];
    (exchange_name(), destination, key(&["a", "b", "*", "#", "#", ""]), arguments).prop_map(
        |(source, destination, key, arguments)| {
            let routing_key = ShortString::truncated(key.as_bytes());
            Binding { source, destination, routing_key, arguments }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => definition().prop_map(Step::Declare),
        1 => (exchange_name(), any::<bool>()).prop_map(|(name, if_unused)| Step::Delete(name, if_unused)),
        3 => (queue_name(), 0..2u32).prop_map(|(name, slot)| Step::AddQueue(name, slot)),
        1 => queue_name().prop_map(Step::RemoveQueue),
        12 => binding().prop_map(Step::Bind),
        1 => binding().prop_map(Step::Unbind),
        4 => any::<usize>().prop_map(Step::UnbindOld),
        6 => (vec(key(&["a", "b", "c", "*", ""]), 1..3), table(&[]))
            .prop_map(|(keys, headers)| Step::Route(keys, headers)),
    ]
}

fn apply(step: Step, router: &mut Router, model: &mut Model) {
    let removed = |removed: Removed| gone(&removed.bindings, &removed.exchanges);
    match step {
        Step::Declare(definition) => {
            let expected = match model.exchanges.get(&definition.name) {
                Some(current) => current.check_equivalence(&definition).map(|()| Declared::Existing),
                None => Ok(Declared::New),
            };
            if expected == Ok(Declared::New) {
                model.exchanges.insert(definition.name.clone(), definition.clone());
            }
            assert_eq!(router.declare_exchange(definition), expected);
        }
        Step::Delete(name, if_unused) => {
            let result = router.delete_exchange(name.as_bytes(), if_unused).map(removed);
            assert_eq!(result, model.delete_exchange(&name, if_unused));
        }
        Step::AddQueue(name, slot) => {
            let id = u64::from(name.as_bytes()[0]) * 10 + name.as_bytes().len() as u64;
            let queue = QueueRef { id: QueueId(id), shard: 0, slot };
            router.add_queue(&name, queue);
            model.queues.insert(name, queue);
        }
        Step::RemoveQueue(name) => {
            let known = model.queues.remove(&name).is_some();
            let to = Destination::Queue(name.clone());
            let expected = model.remove(|binding| known && binding.destination == to);
            assert_eq!(removed(router.remove_queue(name.as_bytes())), expected);
        }
        Step::Bind(binding) => assert_eq!(router.bind(binding.clone()), model.bind(&binding)),
        Step::Unbind(binding) => unbind(&binding, router, model),
        Step::UnbindOld(index) => {
            if let Some(old) = index.checked_rem(model.bindings.len()) {
                let mut binding = model.bindings[old].clone();
                // Names are compared in order, but values of one name keep theirs.
                binding.arguments.0.sort_by(|a, b| b.0.cmp(&a.0));
                unbind(&binding, router, model);
                assert!(!model.bindings.contains(&binding));
            }
        }
        Step::Route(keys, headers) => {
            let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
            route(&keys, &headers, router, model);
        }
    }
}

fn unbind(binding: &Binding, router: &mut Router, model: &mut Model) {
    let is_default = |name: &ShortString| name.is_empty();
    let to_default = matches!(&binding.destination, Destination::Exchange(name) if is_default(name));
    let result = router.unbind(binding).map(|removed| gone(&removed.bindings, &removed.exchanges));
    if is_default(&binding.source) || to_default {
        assert_eq!(result, Err(UnbindError::DefaultExchange));
    } else {
        assert_eq!(result, Ok(model.remove(|other| other == binding)));
    }
}

/// Routes from every exchange there could be.
fn route(keys: &[&[u8]], headers: &FieldTable, router: &Router, model: &Model) {
    for name in model.exchanges.keys() {
        let (mut out, calls) = (Vec::new(), Cell::new(0));
        let get_headers = || {
            calls.set(calls.get() + 1);
            headers.clone()
        };
        let routed = router.route(name.as_bytes(), keys, &get_headers, &mut out).unwrap();
        let queues: BTreeSet<_> = out.iter().copied().collect();
        assert_eq!(queues.len(), out.len(), "a queue was appended twice");
        assert_eq!(queues, model.route(name, keys, headers), "from {name} with {keys:?}");
        assert_eq!(calls.get(), u32::from(!routed.cacheable));
    }
    assert!(router.route(b"never declared", keys, &|| unreachable!(), &mut Vec::new()).is_none());
}

fn compare(router: &Router, model: &Model) {
    router.check();
    let listed = |bindings: Vec<Binding>| gone(&bindings, &[]).0;
    assert_eq!(listed(router.bindings().cloned().collect()), listed(model.bindings.clone()));
    let exchanges: BTreeMap<_, _> = router.exchanges().map(|e| (e.name.clone(), e.clone())).collect();
    assert_eq!(exchanges, model.exchanges);
    for name in model.exchanges.keys() {
        let from: Vec<_> = router.bindings_from(name.as_bytes()).cloned().collect();
        assert_eq!(from, model.bindings.iter().filter(|b| b.source == *name).cloned().collect::<Vec<_>>());
    }
    let destinations: BTreeSet<_> = model.bindings.iter().map(|b| format!("{:?}", b.destination)).collect();
    for binding in &model.bindings {
        let to: Vec<_> = router.bindings_to(&binding.destination).cloned().collect();
        let expected = model.bindings.iter().filter(|b| b.destination == binding.destination);
        assert_eq!(to, expected.cloned().collect::<Vec<_>>());
    }
    assert!(destinations.len() <= model.bindings.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_router_does_as_the_model(steps in vec(step(), 1..120)) {
        let mut router = Router::new();
        let mut model = Model::new(&router);
        for step in steps {
            apply(step, &mut router, &mut model);
            compare(&router, &model);
        }
    }

    #[test]
    fn topics_match_as_the_recursive_matcher_does(
        patterns in vec(key(&["a", "b", "*", "#", "#", ""]), 1..60),
        keys in vec(key(&["a", "b", "", "#"]), 1..20),
    ) {
        let mut router = Router::new();
        for (id, pattern) in (0..).zip(&patterns) {
            let name = ShortString::truncated(format!("q{id}").as_bytes());
            router.add_queue(&name, QueueRef { id: QueueId(id), shard: 0, slot: 0 });
            let routing_key = ShortString::truncated(pattern.as_bytes());
            let (source, destination) = (ShortString::from("amq.topic"), Destination::Queue(name));
            router.bind(Binding { source, destination, routing_key, arguments: FieldTable::new() }).unwrap();
        }
        router.check();
        for key in &keys {
            let mut out = Vec::new();
            router.route(b"amq.topic", &[key.as_bytes()], &FieldTable::new, &mut out).unwrap();
            let found: BTreeSet<_> = out.iter().map(|queue| queue.id.0).collect();
            let key = split(key.as_bytes());
            let matches = |pattern: &String| topic_matches(&split(pattern.as_bytes()), &key);
            let expected = (0..).zip(&patterns).filter(|(_, pattern)| matches(pattern)).map(|(id, _)| id);
            assert_eq!(found, expected.collect());
            assert_eq!(found.len(), out.len());
        }
    }
}
