use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A message on its way from a publisher to consumers: immutable, and cheap to clone.
///
/// The exchange, the routing key, the properties and a small body stand in one allocation, packed; a large
/// body is kept apart so that it is copied only once, when it is read. Properties are the bytes of the
/// content header from the property flags on, as they came, and go out unchanged.
#[derive(Clone)]
pub struct Message {
    packed: Arc<[u8]>,
    large_body: Option<Arc<Bytes>>,
}

/// What a [`Message`] is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct MessageParts<'a> {
    /// Name of the exchange it was published to, at most 255 bytes.
    pub exchange: &'a [u8],
    /// Routing key, at most 255 bytes.
    pub routing_key: &'a [u8],
    /// Property flags and property list of the content header.
    pub properties: &'a [u8],
    /// Whether the publisher asked for it to survive a restart (`delivery-mode` 2).
    pub persistent: bool,
    /// `priority`; 0 if there is none.
    pub priority: u8,
    /// `expiration`, in milliseconds.
    pub expiration_ms: Option<u64>,
    /// What this broker has done to it since it was published.
    pub marks: Marks,
    /// Further routing keys that no header tells, as [`put_blind_key`] writes them.
    pub blind_keys: &'a [u8],
}

/// Appends a routing key to [`MessageParts::blind_keys`].
///
/// # Panics
/// If the key has 4 GiB or more.
pub fn put_blind_key(blind_keys: &mut Vec<u8>, key: &[u8]) {
    let len = u32::try_from(key.len()).expect("a key fits in a frame");
    blind_keys.extend_from_slice(&len.to_le_bytes());
    blind_keys.extend_from_slice(key);
}

/// What a broker notes on a message that it has published again, since its headers alone do not tell: clients may write
/// the same headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The headers about its deaths (`x-death` and others) are the broker's own.
    pub deaths: bool,
    /// It goes by its routing key alone: keys in the header `CC` were for an earlier publish.
    pub key_only: bool,
}

// Layout of `packed`: this head, then exchange, routing key, properties, the expiration as u64 LE if there is
// one, the blind keys behind their length as u32 LE if there are any, and the body if it is small.
// 0: exchange length u8, 1: routing key length u8, 2: flags u8, 3: priority u8, 4..8: properties length u32 LE.
const HEAD_LEN: usize = 8;
const EXPIRATION_LEN: usize = 8;
const BLIND_KEYS_HEAD_LEN: usize = 4;
const FLAG_PERSISTENT: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
const FLAG_DEATHS: u8 = 4;
const FLAG_KEY_ONLY: u8 = 8;
const FLAG_BLIND_KEYS: u8 = 16;

impl Message {
    /// Bodies up to this size, in bytes, are packed together with the rest.
    pub const SMALL_BODY_LEN_MAX: usize = 4096;

    /// What the broker holds for a message beside its bytes: the count that memory limits use.
    const OVERHEAD: usize = 128;

    /// Copies everything. Who makes many messages keeps a [`MessageHead`] instead.
    #[must_use]
    pub fn new(parts: &MessageParts<'_>, body: &[u8]) -> Self {
        MessageHead::of(parts).message(body)
    }

    /// The bytes from which [`Message::from_stored`] makes the same message, in two pieces to be joined.
    #[must_use]
    pub fn stored(&self) -> (&[u8], &[u8]) {
        (&self.packed, self.large_body.as_deref().map_or(&[], |body| &body[..]))
    }

    /// The message that was stored as `bytes`, or none if they are not a message. A large body is not copied.
    #[must_use]
    pub fn from_stored(bytes: &Bytes) -> Option<Self> {
        let body_len = Self::stored_body_len(bytes)?;
        let body = bytes.len() - body_len;
        if body_len <= Self::SMALL_BODY_LEN_MAX {
            return Some(Self { packed: Arc::from(&bytes[..]), large_body: None });
        }
        Some(Self { packed: Arc::from(&bytes[..body]), large_body: Some(Arc::new(bytes.slice(body..))) })
    }

    /// Length of the body of the message that was stored as `bytes`, or none if they are not a message.
    #[must_use]
    pub fn stored_body_len(bytes: &[u8]) -> Option<usize> {
        let head: &[u8; HEAD_LEN] = bytes.first_chunk()?;
        let properties_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let expiration_len = if head[2] & FLAG_EXPIRES != 0 { EXPIRATION_LEN } else { 0 };
        let mut body =
            HEAD_LEN + usize::from(head[0]) + usize::from(head[1]) + properties_len + expiration_len;
        if head[2] & FLAG_BLIND_KEYS != 0 {
            body = body.checked_add(BLIND_KEYS_HEAD_LEN + blind_keys_len(bytes.get(body..)?)?)?;
        }
        bytes.len().checked_sub(body)
    }

    /// Whether both are the same message in memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
    }

    /// Name of the exchange it was published to.
    #[must_use]
    pub fn exchange(&self) -> &[u8] {
        &self.packed[HEAD_LEN..self.exchange_end()]
    }

    /// Routing key.
    #[must_use]
    pub fn routing_key(&self) -> &[u8] {
        &self.packed[self.exchange_end()..self.routing_key_end()]
    }

    /// Property flags and property list, as received.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        &self.packed[self.routing_key_end()..self.properties_end()]
    }

    /// The body if it is packed with the rest; otherwise see [`Message::large_body`].
    #[must_use]
    pub fn small_body(&self) -> &[u8] {
        &self.packed[self.body_start()..]
    }

    fn body_start(&self) -> usize {
        // Most messages have neither, and then the head alone is read.
        let Some(head) = self.packed.first_chunk::<HEAD_LEN>() else { return 0 };
        let properties_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let start = HEAD_LEN + usize::from(head[0]) + usize::from(head[1]) + properties_len as usize;
        match head[2] & (FLAG_EXPIRES | FLAG_BLIND_KEYS) {
            0 => start,
            FLAG_EXPIRES => start + EXPIRATION_LEN,
            _ => self.blind_keys_start() + BLIND_KEYS_HEAD_LEN + self.blind_keys().len(),
        }
    }

    /// Further routing keys that no header tells, as [`MessageParts::blind_keys`] has them.
    #[must_use]
    pub fn blind_keys(&self) -> &[u8] {
        if self.packed[2] & FLAG_BLIND_KEYS == 0 {
            return &[];
        }
        let keys = &self.packed[self.blind_keys_start()..];
        let len = blind_keys_len(keys).unwrap_or_default();
        &keys[BLIND_KEYS_HEAD_LEN..][..len]
    }

    /// The keys of [`Message::blind_keys`].
    pub fn each_blind_key(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.blind_keys();
        std::iter::from_fn(move || {
            let len = blind_keys_len(rest)?;
            let (key, behind) = rest[BLIND_KEYS_HEAD_LEN..].split_at_checked(len)?;
            rest = behind;
            Some(key)
        })
    }

    fn blind_keys_start(&self) -> usize {
        let expiration_len = if self.packed[2] & FLAG_EXPIRES != 0 { EXPIRATION_LEN } else { 0 };
        self.properties_end() + expiration_len
    }

    /// The body if it is kept apart.
    #[must_use]
    pub fn large_body(&self) -> Option<&Bytes> {
        self.large_body.as_deref()
    }

    /// The body, wherever it is.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.large_body.as_deref().map_or_else(|| self.small_body(), |body| &body[..])
    }

    /// Length of the body, in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        match &self.large_body {
            None => self.packed.len() - self.body_start(),
            Some(body) => body.len(),
        }
    }

    /// Whether the publisher asked for it to survive a restart.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.packed[2] & FLAG_PERSISTENT != 0
    }

    /// What this broker has done to it since it was published.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let flags = self.packed[2];
        Marks { deaths: flags & FLAG_DEATHS != 0, key_only: flags & FLAG_KEY_ONLY != 0 }
    }

    /// `priority`; 0 if there is none.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.packed[3]
    }

    /// How long it may wait, in milliseconds.
    #[must_use]
    pub fn expiration_ms(&self) -> Option<u64> {
        if self.packed[2] & FLAG_EXPIRES == 0 {
            return None;
        }
        self.packed[self.properties_end()..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Memory that the message takes, in bytes, by estimate.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.packed.len() + self.large_body.as_ref().map_or(0, |body| body.len()) + Self::OVERHEAD
    }

    fn exchange_end(&self) -> usize {
        HEAD_LEN + usize::from(self.packed[0])
    }

    fn routing_key_end(&self) -> usize {
        self.exchange_end() + usize::from(self.packed[1])
    }

    fn properties_end(&self) -> usize {
        let len = u32::from_le_bytes([self.packed[4], self.packed[5], self.packed[6], self.packed[7]]);
        self.routing_key_end() + len as usize
    }
}

/// A message as the store has it.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its number in the queue.
    pub seq: u64,
    /// When it came, in milliseconds of the queue's clock.
    pub at: u64,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// The message.
    pub message: Message,
}

/// Everything of a message but its body, packed: makes messages that differ in nothing else.
#[derive(Debug, Default)]
pub struct MessageHead {
    packed: Vec<u8>,
}

impl MessageHead {
    /// A head from its parts.
    ///
    /// # Panics
    /// If a name is longer than 255 bytes.
    #[must_use]
    pub fn of(parts: &MessageParts<'_>) -> Self {
        let mut head = Self::default();
        head.set(parts);
        head
    }

    /// Takes other parts.
    ///
    /// # Panics
    /// If a name is longer than 255 bytes.
    pub fn set(&mut self, parts: &MessageParts<'_>) {
        let short = |bytes: &[u8]| u8::try_from(bytes.len()).expect("names are at most 255 bytes");
        let properties_len = u32::try_from(parts.properties.len()).expect("a content header fits in a frame");
        let packed = &mut self.packed;
        packed.clear();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(parts.persistent, FLAG_PERSISTENT)
            | flag(parts.expiration_ms.is_some(), FLAG_EXPIRES)
            | flag(parts.marks.deaths, FLAG_DEATHS)
            | flag(parts.marks.key_only, FLAG_KEY_ONLY)
            | flag(!parts.blind_keys.is_empty(), FLAG_BLIND_KEYS);
        packed.extend_from_slice(&[short(parts.exchange), short(parts.routing_key), flags, parts.priority]);
        packed.extend_from_slice(&properties_len.to_le_bytes());
        packed.extend_from_slice(parts.exchange);
        packed.extend_from_slice(parts.routing_key);
        packed.extend_from_slice(parts.properties);
        if let Some(expiration_ms) = parts.expiration_ms {
            packed.extend_from_slice(&expiration_ms.to_le_bytes());
        }
        if !parts.blind_keys.is_empty() {
            put_blind_key(packed, parts.blind_keys);
        }
    }

    /// A message with a body, which is copied.
    #[must_use]
    pub fn message(&mut self, body: &[u8]) -> Message {
        if body.len() > Message::SMALL_BODY_LEN_MAX {
            return self.message_with(Bytes::copy_from_slice(body));
        }
        let len = self.packed.len();
        self.packed.extend_from_slice(body);
        let packed = Arc::from(&self.packed[..]);
        self.packed.truncate(len);
        Message { packed, large_body: None }
    }

    /// A message with a body, which is copied only if it is small.
    #[must_use]
    pub fn message_with(&mut self, body: Bytes) -> Message {
        if body.len() <= Message::SMALL_BODY_LEN_MAX {
            return self.message(&body);
        }
        Message { packed: Arc::from(&self.packed[..]), large_body: Some(Arc::new(body)) }
    }
}

/// The length at the start of blind keys, or of one of them.
fn blind_keys_len(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize)
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &String::from_utf8_lossy(self.exchange()))
            .field("routing_key", &String::from_utf8_lossy(self.routing_key()))
            .field("persistent", &self.is_persistent())
            .field("body_len", &self.body_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> MessageParts<'static> {
        MessageParts {
            exchange: b"sorting_room",
            routing_key: b"jason",
            properties: &[0x10, 0, 2],
            persistent: true,
            priority: 9,
            expiration_ms: None,
            marks: Marks::default(),
            blind_keys: &[],
        }
    }

    #[test]
    fn what_is_no_message_is_not_taken_for_one() {
        let message = Message::new(&parts(), b"");
        let stored = message.stored().0;
        for len in 0..stored.len() {
            assert!(Message::from_stored(&Bytes::copy_from_slice(&stored[..len])).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn keeps_its_parts() {
        for (len, expiration_ms) in
            [(0, None), (1, Some(60_000)), (Message::SMALL_BODY_LEN_MAX, Some(0)), (100_000, None)]
        {
            let body = vec![7; len];
            let parts = MessageParts { expiration_ms, ..parts() };
            let message = Message::new(&parts, &body);
            assert_eq!(message.expiration_ms(), expiration_ms);
            assert_eq!(message.priority(), 9);
            assert_eq!(message.exchange(), b"sorting_room");
            assert_eq!(message.routing_key(), b"jason");
            assert_eq!(message.properties(), [0x10, 0, 2]);
            assert_eq!(message.body(), body);
            assert!(message.is_persistent());
            assert_eq!(message.large_body().is_some(), len > Message::SMALL_BODY_LEN_MAX);
            let (packed, large) = message.stored();
            let stored = Bytes::from([packed, large].concat());
            let again = Message::from_stored(&stored).expect("it is a message");
            assert_eq!(again.stored(), message.stored());
            assert_eq!(again.body(), body);
        }
    }

    #[test]
    fn m16_blind_keys_are_stored() {
        let keys: [&[u8]; 3] = [b"hidden", b"", &[7; 300]];
        let mut blind_keys = Vec::new();
        keys.iter().for_each(|key| put_blind_key(&mut blind_keys, key));
        for (len, expiration_ms) in [(0, None), (5, Some(5)), (Message::SMALL_BODY_LEN_MAX + 1, None)] {
            let body = vec![1; len];
            let parts = MessageParts { blind_keys: &blind_keys, expiration_ms, ..parts() };
            let message = Message::new(&parts, &body);
            let (packed, large) = message.stored();
            for cut in 0..packed.len() - message.small_body().len() {
                let cut = Bytes::copy_from_slice(&packed[..cut]);
                assert!(Message::from_stored(&cut).is_none(), "{} bytes", cut.len());
            }
            let again = Message::from_stored(&Bytes::from([packed, large].concat()));
            let again = again.expect("it is a message");
            assert_eq!(again.each_blind_key().collect::<Vec<_>>(), keys);
            assert_eq!((again.body(), again.expiration_ms()), (&body[..], expiration_ms));
        }
        assert_eq!(Message::new(&parts(), b"").each_blind_key().count(), 0);
    }

    #[test]
    fn marks_are_stored() {
        for (deaths, key_only) in [(false, false), (true, false), (false, true), (true, true)] {
            let marks = Marks { deaths, key_only };
            let message = Message::new(&MessageParts { marks, expiration_ms: Some(5), ..parts() }, b"body");
            let again = Message::from_stored(&Bytes::copy_from_slice(message.stored().0));
            let again = again.expect("it is a message");
            assert_eq!((again.marks(), again.expiration_ms()), (marks, Some(5)));
            assert!(again.is_persistent());
        }
    }
}
