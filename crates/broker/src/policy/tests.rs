//! Which policies are taken, which apply, and what they ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use warren_queue::{DeadLetterTarget, Overflow, QueueKind, Retry, RetryOf, Settings};
use warren_types::{FieldTable, FieldValue};

use super::definition::{integer, is_applicable, merge};
use super::*;
use crate::queue_type::QueueType;

fn policy(name: &str, pattern: &str, definition: &Value) -> Policy {
    Policy {
        name: name.to_owned(),
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::All,
        priority: 0,
        definition: definition.to_string(),
    }
}

fn refusal(kind: PolicyKind, definition: &Value) -> String {
    match Rule::new(kind, policy("p", "", definition)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

// ---- what is taken -----------------------------------------------------------------------------------------

#[test]
fn q1_values_are_checked_as_in_rabbitmq() {
    let cases = [
        (json!({"alternate-exchange": 1}), "1 is not a valid alternate exchange name"),
        (json!({"dead-letter-exchange": true}), "true is not a valid dead letter exchange name"),
        (json!({"dead-letter-routing-key": null}), "null is not a valid dead letter routing key"),
        (json!({"dead-letter-strategy": "twice"}), r#"<<"twice">> is not a valid dead letter strategy"#),
        (json!({"message-ttl": -1}), "-1 is not a valid message TTL"),
        (json!({"message-ttl": 5.0}), "5.0 is not a valid message TTL"),
        (json!({"expires": 0}), "0 is not a valid queue expiry"),
        (json!({"max-length": "7"}), r#"<<"7">> is not a valid maximum length"#),
        (json!({"max-length-bytes": [1]}), "[1] is not a valid maximum length in bytes"),
        (json!({"max-in-memory-length": -1}), "-1 is not a valid maximum memory in bytes"),
        (json!({"queue-mode": "eager"}), r#"<<"eager">> is not a valid queue-mode value"#),
        (json!({"queue-version": 3}), "3 is not a valid queue-version value"),
        (json!({"overflow": "burst"}), r#"<<"burst">> is not a valid overflow value"#),
        (json!({"delivery-limit": {}}), "#{} is not a valid delivery limit"),
        (json!({"consumer-timeout": -5}), "-5 is not a valid consumer timeout"),
        (json!({"max-age": "0D"}), r#"<<"0D">> is not a valid max age"#),
        (json!({"max-age": "5 D"}), r#"<<"5 D">> is not a valid max age"#),
        (
            json!({"stream-max-segment-size-bytes": 3_000_000_001_u64}),
            "3000000001 is not a valid segment size",
        ),
        (json!({"stream-filter-size-bytes": 15}), "15 is not a valid filter size. Valid range is 16-255"),
        (json!({"queue-leader-locator": "x"}), r#"<<"x">> is not a valid queue leader locator value"#),
        (json!({"target-group-size": 0}), "0 is not a valid qq target count value"),
        (
            json!({"delayed-retry-type": "all"}),
            "delayed-retry-min is required when delayed-retry-type is all",
        ),
        (
            json!({"delayed-retry-min": 9, "delayed-retry-max": 8}),
            "delayed-retry-max (8) must not be smaller than delayed-retry-min (9)",
        ),
        (
            json!({"queue-master-locator": "random"}),
            "use of deprecated queue-master-locator argument is not permitted",
        ),
        (
            json!({"federation-upstream": "a", "federation-upstream-set": "all"}),
            "cannot specify federation-upstream, federation-upstream-set or federation-upstream-pattern together",
        ),
        (
            json!({"federation-upstream-pattern": "("}),
            r#"could not compile pattern ( to a regular expression. Error: {"unclosed group",0}"#,
        ),
        (
            json!({"ha-mode": "all", "k": {"a": 1}, "max-length": 1}),
            r##"[{<<"ha-mode">>,<<"all">>},{<<"k">>,#{<<"a">> => 1}}] are not recognised policy settings"##,
        ),
        // What is known and wrong is told before what is unknown, and the broker's keys before others'.
        (json!({"k": 1, "overflow": 1}), "1 is not a valid overflow value"),
        (json!({"delayed-retry-min": 0, "message-ttl": "x"}), r#"<<"x">> is not a valid message TTL"#),
        (json!({}), "no policy provided"),
        (json!([]), "no policy provided"),
        (json!(["a"]), r#"definition must be a dictionary: [<<"a">>]"#),
        (json!(5), "parse error while reading policy definition: 5. Validator: policy_validator."),
    ];
    for (definition, reason) in cases {
        let expected = format!("Validation failed\n\n{reason}\n");
        assert_eq!(refusal(PolicyKind::User, &definition), expected, "{definition}");
    }
    let long = json!({"dead-letter-exchange": "x".repeat(256)});
    assert!(refusal(PolicyKind::User, &long).ends_with("is not a valid dead letter exchange name\n"));
}

#[test]
fn q1_values_that_fit() {
    let definition = json!({
        "alternate-exchange": "", "consumer-timeout": 0, "dead-letter-exchange": "", "message-ttl": 0, "expires": 1,
        "max-length": u64::MAX, "queue-mode": "lazy", "queue-version": 1, "overflow": "reject-publish-dlx",
        "delivery-limit": -1, "max-age": "010Y", "stream-filter-size-bytes": 255, "initial-cluster-size": 0,
        "queue-leader-locator": "least-leaders", "delayed-retry-type": "disabled", "member-placement-tag": "a",
        "federation-upstream-set": "all",
    });
    assert_eq!(refusal(PolicyKind::User, &definition), "");
    let operators = json!({
        "message-ttl": 0, "expires": 1, "max-length": 0, "max-length-bytes": 0, "max-in-memory-length": 0,
        "max-in-memory-bytes": 0, "delivery-limit": 1, "queue-version": 2, "overflow": "drop-head",
        "target-group-size": 1, "delayed-retry-type": "all", "delayed-retry-min": 1, "delayed-retry-max": 1,
    });
    assert_eq!(refusal(PolicyKind::Operator, &operators), "");
}

#[test]
fn q1_operator_policies_only_bound_what_users_set() {
    for key in ["alternate-exchange", "dead-letter-exchange", "queue-mode", "max-age", "consumer-timeout"] {
        let expected =
            format!("Validation failed\n\n[{{<<\"{key}\">>,1}}] are not recognised policy settings\n");
        assert_eq!(refusal(PolicyKind::Operator, &json!({key: 1})), expected);
    }
}

#[test]
fn q1_all_errors_of_a_policy_are_told() {
    let text = |pattern: &str, definition: &str| {
        let policy = Policy { definition: definition.to_owned(), ..policy("p", pattern, &Value::Null) };
        Rule::new(PolicyKind::User, policy).expect_err("it is not valid").to_string()
    };
    assert_eq!(
        text("(", "{}"),
        "Validation failed\n\nno policy provided\n\
         pattern should be regular expression but is invalid: {\"unclosed group\",0}\n"
    );
    assert_eq!(
        text("", "{"),
        r#"Could not parse JSON document: "EOF while parsing an object at line 1 column 1""#
    );
}

// ---- what applies ------------------------------------------------------------------------------------------

const TARGETS: [Target; 4] = [
    Target::Exchange,
    Target::Queue(QueueType::Classic),
    Target::Queue(QueueType::Quorum),
    Target::Queue(QueueType::Stream),
];

#[test]
fn q1_apply_to_and_keys_choose_the_targets() {
    let matched = |apply_to, definition: Value| {
        let policy = Policy { apply_to, ..policy("p", "^a", &definition) };
        let rule = Rule::new(PolicyKind::User, policy).expect("it is valid");
        assert!(TARGETS.iter().all(|target| !rule.matches(*target, b"ba")), "the pattern counts");
        TARGETS.map(|target| rule.matches(target, b"ab"))
    };
    let plain = || json!({"max-length-bytes": 1});
    let cases = [
        (ApplyTo::All, plain(), [true, true, true, true]),
        (ApplyTo::Exchanges, plain(), [true, false, false, false]),
        (ApplyTo::Queues, plain(), [false, true, true, true]),
        (ApplyTo::ClassicQueues, plain(), [false, true, false, false]),
        (ApplyTo::QuorumQueues, plain(), [false, false, true, false]),
        (ApplyTo::Streams, plain(), [false, false, false, true]),
        (ApplyTo::All, json!({"max-length": 1}), [true, true, true, false]),
        (ApplyTo::All, json!({"delivery-limit": 1, "max-length": 1}), [true, false, true, false]),
        (ApplyTo::All, json!({"max-age": "1D"}), [true, false, false, true]),
        (ApplyTo::All, json!({"queue-mode": "lazy"}), [true, true, false, false]),
        (ApplyTo::ClassicQueues, json!({"delivery-limit": 1}), [false, false, false, false]),
        (ApplyTo::All, json!({"alternate-exchange": "a"}), [true, true, true, true]),
    ];
    for (apply_to, definition, expected) in cases {
        assert_eq!(matched(apply_to, definition.clone()), expected, "{apply_to:?} {definition}");
    }
    assert!(is_applicable(&definition::Definition::new(), QueueType::Stream));
}

fn set(policies: &mut Policies, kind: PolicyKind, policy: Policy) -> Change {
    policies.set(Rule::new(kind, policy).expect("it is valid"))
}

#[test]
fn q1_the_highest_priority_applies_and_of_equals_the_first_by_name() {
    let mut policies = Policies::default();
    let name = |policies: &mut Policies, queue: &[u8]| {
        let effective = policies.apply(Target::Queue(QueueType::Classic), queue)?;
        effective.name(PolicyKind::User).map(str::to_owned)
    };
    for (policy_name, pattern, priority) in [("c", "", 0), ("b", "", 0), ("z", "^z", 5), ("a", "", -1)] {
        let policy = Policy { priority, ..policy(policy_name, pattern, &json!({"max-length": 1})) };
        set(&mut policies, PolicyKind::User, policy);
    }
    assert_eq!(name(&mut policies, b"q").as_deref(), Some("b"));
    assert_eq!(name(&mut policies, b"z").as_deref(), Some("z"));
    policies.clear(PolicyKind::User, "b").expect("it is there");
    assert_eq!(name(&mut policies, b"q").as_deref(), Some("c"));
    set(&mut policies, PolicyKind::User, Policy { priority: 9, ..policy("a", "", &json!({"expires": 1})) });
    assert_eq!(name(&mut policies, b"z").as_deref(), Some("a"));
    assert!(policies.clear(PolicyKind::Operator, "a").is_none());
}

#[test]
fn q1_what_was_stored_and_is_not_valid_applies_to_nothing() {
    let mut policies = Policies::default();
    policies.set(Rule::restored(PolicyKind::User, policy("p", "a++", &json!({"max-length": 1}))));
    policies.set(Rule::restored(PolicyKind::User, policy("q", "", &json!({"ha-mode": "all"}))));
    assert!(TARGETS.iter().all(|target| policies.look_up(*target, b"a").is_none()));
    assert_eq!(policies.of_kind(PolicyKind::User).count(), 2);
}

#[test]
fn q1_queues_with_the_same_policies_share_them() {
    let mut policies = Policies::default();
    set(&mut policies, PolicyKind::User, policy("p", "", &json!({"max-length": 1})));
    let classic = Target::Queue(QueueType::Classic);
    let (a, b) = (policies.apply(classic, b"a"), policies.apply(classic, b"b"));
    assert!(Arc::ptr_eq(&a.expect("it applies"), &b.expect("it applies")));
    // What nobody has any more is not kept.
    for length in 0..100 {
        set(&mut policies, PolicyKind::User, policy("p", "", &json!({"max-length": length})));
        set(&mut policies, PolicyKind::Operator, policy("o", "", &json!({"max-length": length})));
        policies.apply(classic, b"a");
    }
    assert_eq!(policies.shared(), 1);
}

// ---- both kinds together -----------------------------------------------------------------------------------

fn object(value: Value) -> definition::Definition {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

#[test]
fn q1_operator_policies_are_merged_per_key() {
    let cases = [
        (json!({"max-length": 5}), json!({"max-length": 9}), json!({"max-length": 5})),
        (json!({"max-length": 9}), json!({"max-length": 5}), json!({"max-length": 5})),
        (json!({"expires": 9}), json!({"message-ttl": 5}), json!({"expires": 9, "message-ttl": 5})),
        (json!({"delivery-limit": 9}), json!({"delivery-limit": 5}), json!({"delivery-limit": 5})),
        (json!({"delivery-limit": 9}), json!({"delivery-limit": -1}), json!({"delivery-limit": 9})),
        (json!({"delivery-limit": -1}), json!({"delivery-limit": 9}), json!({"delivery-limit": 9})),
        (json!({"delivery-limit": -3}), json!({"delivery-limit": -1}), json!({"delivery-limit": -1})),
        (
            json!({"overflow": "drop-head"}),
            json!({"overflow": "reject-publish"}),
            json!({"overflow": "reject-publish"}),
        ),
        (json!({"queue-version": 1}), json!({"queue-version": 2}), json!({"queue-version": 2})),
        (json!({"queue-version": 2}), json!({"queue-version": 1}), json!({"queue-version": 1})),
        (json!({"target-group-size": 3}), json!({"target-group-size": 5}), json!({"target-group-size": 5})),
        (json!({"delayed-retry-min": 3}), json!({"delayed-retry-min": 5}), json!({"delayed-retry-min": 5})),
        (json!({"delayed-retry-max": 3}), json!({"delayed-retry-max": 5}), json!({"delayed-retry-max": 3})),
        (
            json!({"delayed-retry-type": "all"}),
            json!({"delayed-retry-type": "failed"}),
            json!({"delayed-retry-type": "failed"}),
        ),
    ];
    for (user, operator, expected) in cases {
        assert_eq!(
            Value::Object(merge(&object(user.clone()), &object(operator.clone()))),
            expected,
            "{user} {operator}"
        );
    }
}

const LIMITS: [&str; 6] = [
    "expires",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "message-ttl",
];

fn limits() -> impl Strategy<Value = BTreeMap<&'static str, u64>> {
    proptest::collection::btree_map(proptest::sample::select(&LIMITS[..]), 1..9_u64, 0..LIMITS.len())
}

fn definition_of(limits: &BTreeMap<&'static str, u64>) -> definition::Definition {
    limits.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
}

fn effective(kind: PolicyKind, definition: &Value) -> EffectivePolicy {
    let mut policies = Policies::default();
    set(&mut policies, kind, policy("p", "", definition));
    policies.look_up(Target::Queue(QueueType::Quorum), b"q").expect("it applies")
}

proptest! {
    /// No operator policy loosens a limit, and every limit in force is one that somebody set.
    #[test]
    fn q1_merged_limits_are_the_strictest(user in limits(), operator in limits()) {
        let merged = merge(&definition_of(&user), &definition_of(&operator));
        for key in LIMITS {
            let strictest = [&user, &operator].into_iter().filter_map(|limits| limits.get(key)).min();
            let value = merged.get(key).and_then(integer);
            prop_assert_eq!(value, strictest.copied().map(i128::from), "{}", key);
        }
        prop_assert_eq!(merge(&merged, &merged), merged.clone());
        prop_assert_eq!(merge(&merged, &definition_of(&operator)), merged.clone());
        prop_assert_eq!(merge(&definition_of(&operator), &definition_of(&user)), merged);
    }

    /// Policy and arguments together allow no more than either does.
    #[test]
    fn q2_the_lower_limit_holds(policy in limits(), own in limits()) {
        let all = |limits: &BTreeMap<&'static str, u64>| Settings {
            message_ttl_ms: limits.get("message-ttl").copied(),
            expires_ms: limits.get("expires").copied(),
            max_length: limits.get("max-length").copied(),
            max_length_bytes: limits.get("max-length-bytes").copied(),
            kind: QueueKind::Quorum,
            ..Settings::default()
        };
        let mut definition = Value::Object(definition_of(&policy));
        definition["delivery-limit"] = json!(7);
        let settings = effective(PolicyKind::Operator, &definition).settings(all(&own), &FieldTable::new());
        let mut expected = policy;
        for (key, value) in own {
            expected.entry(key).and_modify(|other| *other = value.min(*other)).or_insert(value);
        }
        prop_assert_eq!(settings, Settings { delivery_limit: Some(7), ..all(&expected) });
    }
}

#[test]
fn q2_times_are_bounded() {
    let endless = json!({"message-ttl": u64::MAX, "expires": u64::MAX, "delivery-limit": 1});
    let settings = effective(PolicyKind::User, &endless).settings(Settings::default(), &FieldTable::new());
    assert_eq!(
        (settings.message_ttl_ms, settings.expires_ms),
        (Some(315_360_000_000), Some(315_360_000_000))
    );
}

/// Settings of a queue with an argument under a policy.
fn settings(
    kind: QueueKind,
    definition: &Value,
    own: Settings,
    arguments: &[(&'static str, FieldValue)],
) -> Settings {
    let mut table = FieldTable::new();
    for (name, value) in arguments {
        table.insert(name, value.clone());
    }
    effective(PolicyKind::User, definition).settings(Settings { kind, ..own }, &table)
}

#[test]
fn q2_of_what_is_no_limit_a_classic_queue_takes_its_argument() {
    let plain = Settings::default;
    let classic =
        |definition, own, arguments: &[_]| settings(QueueKind::Classic, &definition, own, arguments);
    let overflow = || json!({"overflow": "reject-publish"});
    assert_eq!(classic(overflow(), plain(), &[]).overflow, Overflow::RejectPublish);
    let argument = ("x-overflow", FieldValue::string("drop-head"));
    assert_eq!(classic(overflow(), plain(), &[argument]).overflow, Overflow::DropHead);

    let target = |exchange: &'static str, key: Option<&'static str>| {
        Some(DeadLetterTarget { exchange: exchange.into(), routing_key: key.map(Into::into) })
    };
    let own = |exchange, key| Settings { dead_letter: target(exchange, key), ..plain() };
    let both = || json!({"dead-letter-exchange": "dlx", "dead-letter-routing-key": "k"});
    assert_eq!(classic(both(), plain(), &[]).dead_letter, target("dlx", Some("k")));
    assert_eq!(classic(both(), own("mine", Some("own")), &[]).dead_letter, target("mine", Some("own")));
    assert_eq!(classic(both(), own("mine", None), &[]).dead_letter, target("mine", Some("k")));
    let key = json!({"dead-letter-routing-key": "k"});
    assert_eq!(classic(key, plain(), &[]).dead_letter, None);
}

#[test]
fn q2_quorum_queues_take_the_policys_overflow_and_retries() {
    let quorum = |definition, own, arguments: &[_]| settings(QueueKind::Quorum, &definition, own, arguments);
    let own = || Settings { overflow: Overflow::RejectPublish, ..Settings::default() };
    let argument = ("x-overflow", FieldValue::string("reject-publish"));
    assert_eq!(quorum(json!({"overflow": "drop-head"}), own(), &[argument]).overflow, Overflow::DropHead);
    assert_eq!(quorum(json!({"overflow": "reject-publish-dlx"}), own(), &[]).overflow, Overflow::DropHead);
    assert_eq!(quorum(json!({"expires": 1}), own(), &[]).overflow, Overflow::RejectPublish);

    let retry = |of, min_ms, max_ms| Some(Retry { of, min_ms, max_ms });
    let definition =
        || json!({"delayed-retry-type": "failed", "delayed-retry-min": 5, "delayed-retry-max": 9});
    let arguments = [
        ("x-delayed-retry-type", FieldValue::string("all")),
        ("x-delayed-retry-min", FieldValue::I32(3)),
        ("x-delayed-retry-max", FieldValue::I32(20)),
    ];
    assert_eq!(quorum(definition(), own(), &[]).retry, retry(RetryOf::Failed, 5, 9));
    assert_eq!(quorum(definition(), own(), &arguments).retry, retry(RetryOf::Failed, 3, 9));
    assert_eq!(quorum(json!({"delayed-retry-max": 7}), own(), &arguments).retry, retry(RetryOf::All, 3, 7));
    assert_eq!(quorum(json!({"delayed-retry-type": "disabled"}), own(), &arguments).retry, None);
    assert_eq!(settings(QueueKind::Classic, &definition(), own(), &[]).retry, None);
}

#[test]
fn q2_delivery_limits_resolve_to_the_stricter() {
    let limit = |policy: i64, argument: Option<i64>| {
        let arguments: Vec<_> =
            argument.map(|argument| ("x-delivery-limit", FieldValue::I64(argument))).into_iter().collect();
        settings(QueueKind::Quorum, &json!({"delivery-limit": policy}), Settings::default(), &arguments)
            .delivery_limit
    };
    let cases = [
        (5, None, Some(5)),
        (-1, None, None),
        (5, Some(3), Some(3)),
        (3, Some(5), Some(3)),
        (-1, Some(5), Some(5)),
        (5, Some(-1), Some(5)),
        (-1, Some(-1), None),
        (i64::MAX, None, Some(u32::MAX)),
    ];
    for (policy, argument, expected) in cases {
        assert_eq!(limit(policy, argument), expected, "{policy} {argument:?}");
    }
}

// ---- changes -----------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Set {
        kind: PolicyKind,
        name: usize,
        pattern: usize,
        priority: i64,
    },
    Clear {
        kind: PolicyKind,
        name: usize,
    },
    /// So many queues of one of the changes that are under way are brought in line.
    Page {
        change: usize,
        queues: usize,
    },
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PATTERNS: [&str; 4] = ["", "^a", "b$", "[cd]"];
const QUEUES: [&str; 6] = ["a", "b", "ab", "c", "ad", "db"];

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop_oneof![Just(PolicyKind::User), Just(PolicyKind::Operator)];
    prop_oneof![
        3 => (kind(), 0..NAMES.len(), 0..PATTERNS.len(), 0..3_i64)
            .prop_map(|(kind, name, pattern, priority)| Step::Set { kind, name, pattern, priority }),
        2 => (kind(), 0..NAMES.len()).prop_map(|(kind, name)| Step::Clear { kind, name }),
        4 => (any::<usize>(), 1..QUEUES.len()).prop_map(|(change, queues)| Step::Page { change, queues }),
    ]
}

/// Queues with the policies that apply to them, and changes that are gone through page by page.
#[derive(Default)]
struct Model {
    policies: Policies,
    queues: [Option<Arc<EffectivePolicy>>; QUEUES.len()],
    under_way: Vec<(Change, usize)>,
}

const CLASSIC: Target = Target::Queue(QueueType::Classic);

impl Model {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Set { kind, name, pattern, priority } => {
                let definition = json!({"max-length": self.under_way.len()});
                let policy = Policy { priority, ..policy(NAMES[name], PATTERNS[pattern], &definition) };
                let change = set(&mut self.policies, kind, policy);
                self.under_way.push((change, 0));
            }
            Step::Clear { kind, name } => {
                let cleared = self.policies.clear(kind, NAMES[name]);
                self.under_way.extend(cleared.map(|(_, change)| (change, 0)));
            }
            Step::Page { change, queues } if !self.under_way.is_empty() => {
                let change = change % self.under_way.len();
                self.page(change, queues);
            }
            Step::Page { .. } => {}
        }
    }

    fn page(&mut self, change: usize, queues: usize) {
        let (change, at) = &mut self.under_way[change];
        if self.policies.is_superseded(change) {
            *at = QUEUES.len();
        }
        for index in (*at..QUEUES.len()).take(queues) {
            let name = QUEUES[index].as_bytes();
            if let Some(now) = self.policies.reapply(change, self.queues[index].as_ref(), (CLASSIC, name)) {
                self.queues[index] = now;
            }
            *at += 1;
        }
    }
}

proptest! {
    /// However changes overlap, in the end the same policies apply as if all was matched anew.
    #[test]
    fn q1_changes_that_overlap_come_to_the_same_end(steps in proptest::collection::vec(step(), 1..40)) {
        let mut model = Model::default();
        for step in &steps {
            model.take(step);
        }
        for change in 0..model.under_way.len() {
            model.page(change, QUEUES.len());
        }
        for (name, queue) in QUEUES.iter().zip(model.queues.clone()) {
            let expected = model.policies.apply(CLASSIC, name.as_bytes());
            let names = |policy: &Option<Arc<EffectivePolicy>>| {
                EffectivePolicies::from(policy.as_deref())
            };
            prop_assert_eq!(names(&queue), names(&expected), "{}", name);
        }
    }
}
