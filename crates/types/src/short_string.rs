use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// AMQP's short string: at most 255 bytes, of any value, cheap to clone.
///
/// Names of queues and exchanges, routing keys and consumer tags are short strings. They are compared as
/// bytes; RabbitMQ does not require them to be UTF-8, so neither do we. `Display` replaces what is not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortString(Arc<[u8]>);

/// The bytes given to [`ShortString::new`] were more than [`ShortString::LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes do not fit into a short string (at most 255)")]
pub struct TooLong(pub usize);

impl ShortString {
    /// Longest value, in bytes.
    pub const LEN_MAX: usize = 255;

    /// Copies `bytes`.
    ///
    /// # Errors
    /// If `bytes` is longer than [`ShortString::LEN_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self, TooLong> {
        if bytes.len() > Self::LEN_MAX { Err(TooLong(bytes.len())) } else { Ok(Self(Arc::from(bytes))) }
    }

    /// Copies `bytes` up to the longest possible length and leaves out the rest.
    #[must_use]
    pub fn truncated(bytes: &[u8]) -> Self {
        Self(Arc::from(&bytes[..bytes.len().min(Self::LEN_MAX)]))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for ShortString {
    fn default() -> Self {
        Self(Arc::from(&[][..]))
    }
}

impl From<&'static str> for ShortString {
    /// For literals, which are known to be short; longer ones are cut.
    fn from(literal: &'static str) -> Self {
        Self::truncated(literal.as_bytes())
    }
}

impl Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<[u8]> for ShortString {
    fn eq(&self, other: &[u8]) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}
