//! The definition of a policy: which keys there are, what their values may be, which types of queues they keep a policy
//! from, and what becomes of two values (features.md section 7; `rabbit_policies`, `rabbit_quorum_queue`).

use serde_json::{Map, Value};
use warren_types::ShortString;

use super::PolicyKind;
use super::pattern::{self, PatternError};
use super::term::{pairs, term};
use crate::queue_type::QueueType;

/// The settings of a policy, by key.
pub(crate) type Definition = Map<String, Value>;

/// Reads a definition.
///
/// # Errors
/// What is wrong with it, in RabbitMQ's words.
pub(super) fn read(kind: PolicyKind, value: Value) -> Result<Definition, String> {
    let definition = match value {
        Value::Object(definition) => definition,
        Value::Array(values) if values.is_empty() => Definition::new(),
        Value::Array(_) => return Err(format!("definition must be a dictionary: {}", term(&value))),
        other => {
            let validator = match kind {
                PolicyKind::User => "policy_validator",
                PolicyKind::Operator => "operator_policy_validator",
            };
            let other = term(&other);
            return Err(format!(
                "parse error while reading policy definition: {other}. Validator: {validator}."
            ));
        }
    };
    check(kind, &definition)?;
    Ok(definition)
}

fn check(kind: PolicyKind, definition: &Definition) -> Result<(), String> {
    if definition.is_empty() {
        return Err("no policy provided".to_owned());
    }
    let known = |name: &str| Key::find(name).filter(|key| kind == PolicyKind::User || key.of_operators);
    for owner in [Owner::Broker, Owner::Quorum, Owner::Classic, Owner::Federation] {
        for (name, value) in definition {
            if let Some(key) = known(name).filter(|key| key.owner == owner) {
                key.check(value)?;
            }
        }
        match owner {
            Owner::Quorum => check_delayed_retry(definition)?,
            Owner::Federation if kind == PolicyKind::User => check_federation(definition)?,
            _ => {}
        }
    }
    let unknown = definition.iter().filter(|(name, _)| known(name).is_none());
    let unknown: Definition = unknown.map(|(name, value)| (name.clone(), value.clone())).collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(format!("{} are not recognised policy settings", pairs(&unknown))),
    }
}

fn check_delayed_retry(definition: &Definition) -> Result<(), String> {
    let integer = |name| definition.get(name).and_then(Value::as_u64);
    let kind = definition.get("delayed-retry-type").and_then(Value::as_str);
    if let Some(kind) = kind.filter(|kind| *kind != "disabled")
        && !definition.contains_key("delayed-retry-min")
    {
        return Err(format!("delayed-retry-min is required when delayed-retry-type is {kind}"));
    }
    match (integer("delayed-retry-min"), integer("delayed-retry-max")) {
        (Some(min), Some(max)) if max < min => {
            Err(format!("delayed-retry-max ({max}) must not be smaller than delayed-retry-min ({min})"))
        }
        _ => Ok(()),
    }
}

fn check_federation(definition: &Definition) -> Result<(), String> {
    let given =
        definition.keys().filter(|name| Key::find(name).is_some_and(|key| key.owner == Owner::Federation));
    if given.count() < 2 {
        return Ok(());
    }
    let reason =
        "cannot specify federation-upstream, federation-upstream-set or federation-upstream-pattern together";
    Err(reason.to_owned())
}

/// The types of queues that a policy with this definition applies to: those that know all of its keys, or ignore them
/// (`unsupported_policies` of the types).
pub(super) fn is_applicable(definition: &Definition, queue_type: QueueType) -> bool {
    definition.keys().filter_map(|name| Key::find(name)).all(|key| !key.not_for.contains(&queue_type))
}

/// What is in force where a policy and an operator policy apply (`rabbit_policy:merge_operator_definitions/2`).
pub(super) fn merge(user: &Definition, operator: &Definition) -> Definition {
    let mut merged = user.clone();
    for (name, value) in operator {
        let value = match user.get(name) {
            Some(own) => merge_value(name, own, value).clone(),
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

fn merge_value<'a>(name: &str, user: &'a Value, operator: &'a Value) -> &'a Value {
    let (Some(a), Some(b)) = (integer(user), integer(operator)) else { return operator };
    let is_less = match Key::find(name).map(|key| key.merge) {
        Some(Merge::Min) => a < b,
        Some(Merge::Max) => a > b,
        // A negative limit is none.
        Some(Merge::Limit) => resolve_limit(a, b) == a,
        Some(Merge::Operator) | None => false,
    };
    if is_less { user } else { operator }
}

/// The stricter of two limits, of which negative ones are none (`rabbit_quorum_queue:resolve_delivery_limit/2`).
pub(super) fn resolve_limit(a: i128, b: i128) -> i128 {
    if a < 0 || b < 0 { a.max(b) } else { a.min(b) }
}

/// An integer of any size that JSON has here.
pub(super) fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// Which part of RabbitMQ checks a key: of several errors, the first part's is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Broker,
    Quorum,
    Classic,
    Federation,
}

/// What becomes of a policy's and an operator policy's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    Min,
    Max,
    Limit,
    Operator,
}

/// The values that a key may have.
#[derive(Debug, Clone, Copy)]
enum Values {
    Integer,
    Between(i128, i128),
    OneOf(&'static [&'static str]),
    Version,
    /// A name or a routing key. RabbitMQ takes longer ones than there can be.
    Name,
    NonEmpty,
    Age,
    Pattern,
    /// Nothing at all, for this reason.
    Denied(&'static str),
}

#[derive(Debug)]
struct Key {
    name: &'static str,
    owner: Owner,
    /// Operator policies may have it, too.
    of_operators: bool,
    merge: Merge,
    values: Values,
    /// What a wrong value is not.
    noun: &'static str,
    /// The types of queues that a policy with this key does not apply to.
    not_for: &'static [QueueType],
}

impl Key {
    const fn new(name: &'static str, values: Values, noun: &'static str) -> Self {
        let (owner, merge) = (Owner::Broker, Merge::Operator);
        Self { name, owner, of_operators: false, merge, values, noun, not_for: &[] }
    }

    const fn of(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    const fn operators(self, merge: Merge) -> Self {
        Self { of_operators: true, merge, ..self }
    }

    const fn not_for(self, not_for: &'static [QueueType]) -> Self {
        Self { not_for, ..self }
    }

    fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let text = value.as_str();
        let fits = match self.values {
            Values::Integer => integer(value).is_some(),
            Values::Between(min, max) => integer(value).is_some_and(|value| (min..=max).contains(&value)),
            Values::OneOf(texts) => text.is_some_and(|text| texts.contains(&text)),
            Values::Version => matches!(integer(value), Some(1 | 2)),
            Values::Name => text.is_some_and(|text| text.len() <= ShortString::LEN_MAX),
            Values::NonEmpty => text.is_some_and(|text| !text.is_empty()),
            Values::Age => text.is_some_and(is_age),
            Values::Pattern => match text {
                Some(text) => return check_pattern(self.name, text),
                None => false,
            },
            Values::Denied(reason) => return Err(reason.to_owned()),
        };
        if fits { Ok(()) } else { Err(format!("{} is not a valid {}", term(value), self.noun)) }
    }
}

fn check_pattern(name: &str, text: &str) -> Result<(), String> {
    pattern::compile(text).map(drop).map_err(|error| match error {
        PatternError::TooLong => error.of_field(name),
        PatternError::Invalid(reason) => {
            format!("could not compile pattern {text} to a regular expression. Error: {reason}")
        }
    })
}

/// A number above 0 and a unit (`rabbit_amqqueue:check_max_age/1`).
fn is_age(text: &str) -> bool {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    number.bytes().any(|digit| digit != b'0') && matches!(unit, "Y" | "M" | "D" | "h" | "m" | "s")
}

const STREAM_ONLY: &[QueueType] = &[QueueType::Classic, QueueType::Quorum];
const QUORUM_ONLY: &[QueueType] = &[QueueType::Classic, QueueType::Stream];
const CLASSIC_ONLY: &[QueueType] = &[QueueType::Quorum, QueueType::Stream];
const NOT_STREAM: &[QueueType] = &[QueueType::Stream];

const ANY: i128 = i128::MAX;
const DELAYED_RETRY_TYPES: &[&str] = &["all", "failed", "returned", "disabled"];
const DELAYED_RETRY_NOUN: &str = "delayed retry type. Must be one of: all, failed, returned, disabled";
const LEADER_LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];
/// RabbitMQ denies it unless a deprecated feature is permitted.
const MASTER_LOCATOR_DENIED: &str = "use of deprecated queue-master-locator argument is not permitted";

#[rustfmt::skip]
const KEYS: &[Key] = &[
    Key::new("alternate-exchange", Values::Name, "alternate exchange name"),
    Key::new("consumer-disconnected-timeout", Values::Between(0, ANY), "consumer disconnected timeout"),
    Key::new("consumer-timeout", Values::Between(0, ANY), "consumer timeout"),
    Key::new("dead-letter-exchange", Values::Name, "dead letter exchange name").not_for(NOT_STREAM),
    Key::new("dead-letter-routing-key", Values::Name, "dead letter routing key").not_for(NOT_STREAM),
    Key::new("dead-letter-strategy", Values::OneOf(&["at-most-once", "at-least-once"]), "dead letter strategy")
        .not_for(QUORUM_ONLY),
    Key::new("message-ttl", Values::Between(0, ANY), "message TTL").operators(Merge::Min).not_for(NOT_STREAM),
    Key::new("expires", Values::Between(1, ANY), "queue expiry").operators(Merge::Min).not_for(NOT_STREAM),
    Key::new("max-length", Values::Between(0, ANY), "maximum length").operators(Merge::Min).not_for(NOT_STREAM),
    Key::new("max-length-bytes", Values::Between(0, ANY), "maximum length in bytes").operators(Merge::Min),
    Key::new("max-in-memory-length", Values::Between(0, ANY), "maximum memory in bytes")
        .operators(Merge::Min).not_for(QUORUM_ONLY),
    Key::new("max-in-memory-bytes", Values::Between(0, ANY), "maximum memory in bytes")
        .operators(Merge::Min).not_for(QUORUM_ONLY),
    Key::new("queue-mode", Values::OneOf(&["default", "lazy"]), "queue-mode value").not_for(CLASSIC_ONLY),
    Key::new("queue-version", Values::Version, "queue-version value").operators(Merge::Operator),
    Key::new("overflow", Values::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"]), "overflow value")
        .operators(Merge::Operator).not_for(NOT_STREAM),
    Key::new("delivery-limit", Values::Integer, "delivery limit").operators(Merge::Limit).not_for(QUORUM_ONLY),
    Key::new("max-age", Values::Age, "max age").not_for(STREAM_ONLY),
    Key::new("queue-leader-locator", Values::OneOf(LEADER_LOCATORS), "queue leader locator value"),
    Key::new("initial-cluster-size", Values::Between(0, ANY), "cluster size").not_for(STREAM_ONLY),
    Key::new("stream-max-segment-size-bytes", Values::Between(0, 3_000_000_000), "segment size")
        .not_for(STREAM_ONLY),
    Key::new("stream-filter-size-bytes", Values::Between(16, 255), "filter size. Valid range is 16-255"),
    Key::new("target-group-size", Values::Between(1, ANY), "qq target count value")
        .of(Owner::Quorum).operators(Merge::Max).not_for(QUORUM_ONLY),
    Key::new("member-placement-tag", Values::NonEmpty, "member-placement-tag value. Must be a non-empty string")
        .of(Owner::Quorum).operators(Merge::Operator),
    Key::new("delayed-retry-type", Values::OneOf(DELAYED_RETRY_TYPES), DELAYED_RETRY_NOUN)
        .of(Owner::Quorum).operators(Merge::Operator),
    Key::new("delayed-retry-min", Values::Between(1, ANY), "delayed retry minimum delay. Must be a positive integer")
        .of(Owner::Quorum).operators(Merge::Max),
    Key::new("delayed-retry-max", Values::Between(1, ANY), "delayed retry maximum delay. Must be a positive integer")
        .of(Owner::Quorum).operators(Merge::Min),
    Key::new("queue-master-locator", Values::Denied(MASTER_LOCATOR_DENIED), "master locator")
        .of(Owner::Classic).operators(Merge::Operator).not_for(CLASSIC_ONLY),
    Key::new("federation-upstream", Values::Name, "federation upstream name").of(Owner::Federation),
    Key::new("federation-upstream-set", Values::Name, "federation upstream set name").of(Owner::Federation),
    Key::new("federation-upstream-pattern", Values::Pattern, "federation upstream pattern name")
        .of(Owner::Federation),
];
