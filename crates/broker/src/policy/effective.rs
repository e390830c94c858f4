//! What the policies that apply to a queue or an exchange ask of it together.

use std::sync::Arc;

use serde_json::Value;
use warren_queue::{DeadLetterTarget, Overflow, QueueKind, Retry, RetryOf, Settings};
use warren_types::{FieldTable, FieldValue, ShortString};

use super::PolicyKind;
use super::definition::{self, Definition, resolve_limit};
use super::rule::Rule;
use crate::queue_arguments::TIME_MS_MAX;

/// The policies that apply to a queue or an exchange; the same value for all that have the same.
#[derive(Debug)]
pub(crate) struct EffectivePolicy {
    user: Option<Arc<Rule>>,
    operator: Option<Arc<Rule>>,
    definition: Definition,
    values: Values,
}

/// The policies that apply to a queue or an exchange, as operators see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectivePolicies {
    /// The name of the users' policy.
    pub policy: Option<String>,
    /// The name of the operators' policy.
    pub operator_policy: Option<String>,
    /// What both ask for together, as a JSON object.
    pub definition: Option<String>,
}

impl From<Option<&EffectivePolicy>> for EffectivePolicies {
    fn from(policy: Option<&EffectivePolicy>) -> Self {
        let name = |kind| policy.and_then(|policy| policy.name(kind)).map(str::to_owned);
        Self {
            policy: name(PolicyKind::User),
            operator_policy: name(PolicyKind::Operator),
            definition: policy.map(|policy| Value::Object(policy.definition.clone()).to_string()),
        }
    }
}

/// The keys of a definition that mean something here.
#[derive(Debug, Default, PartialEq)]
struct Values {
    message_ttl_ms: Option<u64>,
    expires_ms: Option<u64>,
    max_length: Option<u64>,
    max_length_bytes: Option<u64>,
    consumer_timeout_ms: Option<u64>,
    overflow: Option<Overflow>,
    dead_letter_exchange: Option<ShortString>,
    dead_letter_routing_key: Option<ShortString>,
    alternate_exchange: Option<ShortString>,
    /// Negative for no limit.
    delivery_limit: Option<i128>,
    retry_of: Option<Option<RetryOf>>,
    retry_min_ms: Option<u64>,
    retry_max_ms: Option<u64>,
}

impl EffectivePolicy {
    /// Nothing if no policy applies.
    pub(super) fn new(user: Option<Arc<Rule>>, operator: Option<Arc<Rule>>) -> Option<Self> {
        let definition = match (&user, &operator) {
            (None, None) => return None,
            (Some(rule), None) | (None, Some(rule)) => rule.definition(),
            (Some(user), Some(operator)) => definition::merge(&user.definition(), &operator.definition()),
        };
        let values = Values::of(&definition);
        Some(Self { user, operator, definition, values })
    }

    pub(super) fn rule(&self, kind: PolicyKind) -> Option<&Arc<Rule>> {
        match kind {
            PolicyKind::User => self.user.as_ref(),
            PolicyKind::Operator => self.operator.as_ref(),
        }
    }

    /// The name of the policy of this kind.
    pub(crate) fn name(&self, kind: PolicyKind) -> Option<&str> {
        self.rule(kind).map(|rule| &*rule.policy.name)
    }

    /// The alternate exchange of an exchange that has none in its arguments.
    pub(crate) fn alternate_exchange(&self) -> Option<&ShortString> {
        self.values.alternate_exchange.as_ref()
    }

    /// The settings of a queue, given those that its arguments ask for (features.md Q2).
    ///
    /// Numbers are limits, and the lower one holds. Of other values, a classic queue takes its argument's, and a quorum queue the
    /// policy's for what happens when it overflows and which messages wait (`rabbit_amqqueue_process:process_args_policy/1`,
    /// `rabbit_quorum_queue:gather_policy_config/2`).
    pub(crate) fn settings(&self, own: Settings, arguments: &FieldTable) -> Settings {
        let values = &self.values;
        let mut settings = Settings {
            message_ttl_ms: lower(values.message_ttl_ms, own.message_ttl_ms),
            expires_ms: lower(values.expires_ms, own.expires_ms),
            max_length: lower(values.max_length, own.max_length),
            max_length_bytes: lower(values.max_length_bytes, own.max_length_bytes),
            consumer_timeout_ms: lower(values.consumer_timeout_ms, own.consumer_timeout_ms),
            dead_letter: self.dead_letter(own.dead_letter.clone()),
            ..own
        };
        match settings.kind {
            QueueKind::Classic => {
                if arguments.get("x-overflow").is_none() {
                    settings.overflow = values.overflow.unwrap_or_default();
                }
            }
            QueueKind::Quorum => {
                settings.overflow = match values.overflow.unwrap_or(settings.overflow) {
                    // Quorum queues do not have it, and RabbitMQ falls back on the default.
                    Overflow::RejectPublishDlx => Overflow::DropHead,
                    overflow => overflow,
                };
                self.limit_deliveries(&mut settings, arguments);
                self.delay_retries(&mut settings, arguments);
            }
            QueueKind::Gate => {}
        }
        settings
    }

    fn dead_letter(&self, own: Option<DeadLetterTarget>) -> Option<DeadLetterTarget> {
        let (exchange, routing_key) = own.map(|own| (own.exchange, own.routing_key)).unzip();
        Some(DeadLetterTarget {
            exchange: exchange.or_else(|| self.values.dead_letter_exchange.clone())?,
            routing_key: routing_key.flatten().or_else(|| self.values.dead_letter_routing_key.clone()),
        })
    }

    fn limit_deliveries(&self, settings: &mut Settings, arguments: &FieldTable) {
        let Some(limit) = self.values.delivery_limit else { return };
        let own = arguments.get("x-delivery-limit").and_then(FieldValue::as_integer).map(i128::from);
        let limit = own.map_or(limit, |own| resolve_limit(limit, own));
        settings.delivery_limit = (limit >= 0).then(|| u32::try_from(limit).unwrap_or(u32::MAX));
    }

    fn delay_retries(&self, settings: &mut Settings, arguments: &FieldTable) {
        let Values { retry_of, retry_min_ms, retry_max_ms, .. } = &self.values;
        if retry_of.is_none() && retry_min_ms.is_none() && retry_max_ms.is_none() {
            return;
        }
        // No time counts as none given, as in RabbitMQ.
        let milliseconds = |name, policy| {
            let own = arguments.get(name).and_then(FieldValue::as_integer);
            lower(policy, own.and_then(|own| u64::try_from(own).ok())).filter(|ms| *ms > 0)
        };
        let text = |name| arguments.get(name).and_then(FieldValue::as_long_string);
        let own_of = text("x-delayed-retry-type").and_then(|text| std::str::from_utf8(text).ok());
        let min_ms = milliseconds("x-delayed-retry-min", *retry_min_ms);
        let max_ms = milliseconds("x-delayed-retry-max", *retry_max_ms);
        settings.retry = retry_of
            .unwrap_or_else(|| own_of.and_then(retry_type))
            .zip(min_ms)
            .map(|(of, min_ms)| Retry { of, min_ms, max_ms: max_ms.unwrap_or(min_ms) });
    }
}

impl Values {
    fn of(definition: &Definition) -> Self {
        let number = |name| definition.get(name).and_then(Value::as_u64);
        // Arguments are refused above this; of policies RabbitMQ takes any.
        let time = |name| number(name).map(|ms| ms.min(TIME_MS_MAX.unsigned_abs()));
        let text = |name| definition.get(name).and_then(Value::as_str);
        let name = |name| text(name).and_then(|text| ShortString::new(text.as_bytes()).ok());
        Self {
            message_ttl_ms: time("message-ttl"),
            expires_ms: time("expires"),
            max_length: number("max-length"),
            max_length_bytes: number("max-length-bytes"),
            consumer_timeout_ms: time("consumer-timeout"),
            overflow: text("overflow").and_then(overflow),
            dead_letter_exchange: name("dead-letter-exchange"),
            dead_letter_routing_key: name("dead-letter-routing-key"),
            alternate_exchange: name("alternate-exchange"),
            delivery_limit: definition.get("delivery-limit").and_then(definition::integer),
            retry_of: text("delayed-retry-type").map(retry_type),
            retry_min_ms: time("delayed-retry-min"),
            retry_max_ms: time("delayed-retry-max"),
        }
    }
}

fn overflow(name: &str) -> Option<Overflow> {
    match name {
        "drop-head" => Some(Overflow::DropHead),
        "reject-publish" => Some(Overflow::RejectPublish),
        "reject-publish-dlx" => Some(Overflow::RejectPublishDlx),
        _ => None,
    }
}

fn retry_type(name: &str) -> Option<RetryOf> {
    match name {
        "all" => Some(RetryOf::All),
        "failed" => Some(RetryOf::Failed),
        "returned" => Some(RetryOf::Returned),
        _ => None,
    }
}

fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
