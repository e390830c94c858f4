//! Policies, which give settings to queues and exchanges by their names, and parameters (features.md Q1, Q2, R1).

mod definition;
mod effective;
mod pass;
mod pattern;
mod policies;
mod rule;
mod term;
#[cfg(test)]
mod tests;

pub use effective::EffectivePolicies;
pub(crate) use effective::EffectivePolicy;
pub(crate) use pass::Pass;
pub(crate) use policies::{Change, Policies};
pub use rule::PolicyError;
pub(crate) use rule::{Rule, Target};

/// Who set a policy, and with that which of its keys count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// A policy of the virtual host's users.
    User,
    /// An operator policy, which bounds what users set.
    Operator,
}

/// What a policy is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// Queues of every type and exchanges.
    #[default]
    All,
    /// Exchanges.
    Exchanges,
    /// Queues of every type.
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams.
    Streams,
}

impl ApplyTo {
    /// Every value.
    pub const ALL: [Self; 6] =
        [Self::All, Self::Exchanges, Self::Queues, Self::ClassicQueues, Self::QuorumQueues, Self::Streams];

    /// The value with this name in RabbitMQ.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.name() == name)
    }

    /// What RabbitMQ says of a name that is none of these.
    #[must_use]
    pub fn unrecognised(name: &str) -> String {
        format!(
            "apply-to '{name}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', \
             'streams', 'exchanges', or 'all'"
        )
    }

    /// The name in RabbitMQ.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exchanges => "exchanges",
            Self::Queues => "queues",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }
}

/// A policy: settings for the queues and exchanges whose names match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// A regular expression over names.
    pub pattern: String,
    /// What it is for.
    pub apply_to: ApplyTo,
    /// Of several policies that match, the one with the highest priority counts.
    pub priority: i64,
    /// The settings, as a JSON object.
    pub definition: String,
}

/// A runtime parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The component that it is for.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its value, in JSON.
    pub value: String,
}
