use crate::TableError;

/// Why the payload of a method frame is not a method.
///
/// RabbitMQ answers an unknown method with 503 and everything else here with 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload does not even hold the two ids.
    #[error("{len} bytes are too short for a method")]
    NoId {
        /// Length of the payload, in bytes.
        len: usize,
    },
    /// No method of this dialect has these ids.
    #[error("unknown method ({class}, {method})")]
    UnknownMethod {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
    },
    /// The payload ends within the arguments.
    #[error("arguments of {name} end early")]
    Truncated {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
        /// Name of the method, such as `queue.declare`.
        name: &'static str,
    },
    /// There is more than the arguments.
    #[error("{len} bytes behind the arguments of {name}")]
    Trailing {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
        /// Name of the method, such as `queue.declare`.
        name: &'static str,
        /// How many bytes too many.
        len: usize,
    },
    /// A field table among the arguments is malformed.
    #[error("in an argument of {name}: {error}")]
    Table {
        /// Class id.
        class: u16,
        /// Method id.
        method: u16,
        /// Name of the method, such as `queue.declare`.
        name: &'static str,
        /// What is wrong with the table.
        error: TableError,
    },
}

impl DecodeError {
    /// Class and method id as far as they are known, else (0, 0): what a close must carry.
    #[must_use]
    pub fn id(&self) -> (u16, u16) {
        match *self {
            Self::NoId { .. } => (0, 0),
            Self::UnknownMethod { class, method }
            | Self::Truncated { class, method, .. }
            | Self::Trailing { class, method, .. }
            | Self::Table { class, method, .. } => (class, method),
        }
    }

    /// The method's name, if its ids are known ones.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match *self {
            Self::NoId { .. } | Self::UnknownMethod { .. } => None,
            Self::Truncated { name, .. } | Self::Trailing { name, .. } | Self::Table { name, .. } => {
                Some(name)
            }
        }
    }
}
