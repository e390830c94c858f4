//! A policy as it is looked for: its pattern compiled, its definition read.

use regex::bytes::Regex;

use super::definition::{self, Definition};
use super::{ApplyTo, Policy, PolicyKind, pattern};
use crate::queue_type::QueueType;

/// Why a policy was refused; `Display` gives RabbitMQ's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The definition is no JSON.
    #[error("Could not parse JSON document: {0:?}")]
    Json(String),
    /// Fields that are not valid; one line for each.
    #[error("Validation failed\n\n{0}")]
    Invalid(String),
}

/// What policies apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Exchange,
    Queue(QueueType),
}

/// A policy of a virtual host.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Tells it from others, and from what it was before it was changed; above 0.
    pub(super) serial: u64,
    pub(crate) kind: PolicyKind,
    pub(crate) policy: Policy,
    /// None if it was stored by a version that took what is not valid: then it applies to nothing.
    pub(super) compiled: Option<Compiled>,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pattern: Regex,
    definition: Definition,
}

impl Rule {
    /// Checks a policy.
    ///
    /// # Errors
    /// If the pattern or the definition is not valid.
    pub(crate) fn new(kind: PolicyKind, policy: Policy) -> Result<Self, PolicyError> {
        let compiled = Compiled::new(kind, &policy)?;
        Ok(Self { serial: 0, kind, policy, compiled: Some(compiled) })
    }

    /// The same for one that was stored: if it is not valid, the operator is told.
    pub(crate) fn restored(kind: PolicyKind, policy: Policy) -> Self {
        let compiled = Compiled::new(kind, &policy)
            .inspect_err(|error| {
                let name = &policy.name;
                tracing::warn!("policy '{name}' applies to nothing until it is set anew: {error}");
            })
            .ok();
        Self { serial: 0, kind, policy, compiled }
    }

    /// Its settings.
    pub(super) fn definition(&self) -> Definition {
        self.compiled.as_ref().map(|compiled| compiled.definition.clone()).unwrap_or_default()
    }

    /// Whether it is the one to apply if both match; of equals it is the first by name.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        let (a, b) = (&self.policy, &other.policy);
        b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)).is_lt()
    }

    /// Whether it may apply (`rabbit_policy:matches/3`).
    pub(super) fn matches(&self, target: Target, name: &[u8]) -> bool {
        let Some(Compiled { pattern, definition }) = &self.compiled else { return false };
        let is_for = matches!(
            (self.policy.apply_to, target),
            (ApplyTo::All, _)
                | (ApplyTo::Exchanges, Target::Exchange)
                | (ApplyTo::Queues, Target::Queue(_))
                | (ApplyTo::ClassicQueues, Target::Queue(QueueType::Classic))
                | (ApplyTo::QuorumQueues, Target::Queue(QueueType::Quorum))
                | (ApplyTo::Streams, Target::Queue(QueueType::Stream))
        );
        let is_applicable = match target {
            Target::Exchange => true,
            Target::Queue(queue_type) => definition::is_applicable(definition, queue_type),
        };
        is_for && is_applicable && pattern.is_match(name)
    }
}

impl Compiled {
    fn new(kind: PolicyKind, policy: &Policy) -> Result<Self, PolicyError> {
        let value =
            serde_json::from_str(&policy.definition).map_err(|error| PolicyError::Json(error.to_string()))?;
        let definition = definition::read(kind, value);
        let pattern = pattern::compile(&policy.pattern).map_err(|error| error.of_field("pattern"));
        match (definition, pattern) {
            (Ok(definition), Ok(pattern)) => Ok(Self { pattern, definition }),
            // RabbitMQ tells of the last field first.
            (definition, pattern) => {
                let errors = [definition.err(), pattern.err()].into_iter().flatten();
                Err(PolicyError::Invalid(errors.map(|error| error + "\n").collect()))
            }
        }
    }
}
