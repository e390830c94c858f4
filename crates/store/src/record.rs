//! The records of the log and of compact files, byte by byte (docs/design/storage-format.md).
//!
//! A record is a head of 24 bytes, its targets of 16 bytes each, and its body. Head and targets have one checksum
//! and the body another, so that a damaged body still tells whose message it was. Both start from the number of the
//! file, or what an earlier file left in a reused one would pass for records.

use warren_types::QueueId;

use crate::journal::{Change, Lsn};

/// Bytes of a record's head.
pub(crate) const HEAD_LEN: usize = 24;

/// Bytes of a target.
pub(crate) const TARGET_LEN: usize = 16;

/// Most targets of a record.
pub(crate) const TARGETS_MAX: usize = u16::MAX as usize;

/// Longest body, in bytes: a length with another bit set is damaged.
pub(crate) const BODY_LEN_MAX: u32 = (1 << 30) - 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A group of records that were written together starts; `value` is the place up to which the log was durable, and
    /// the body may count what earlier stretches have.
    Batch = 1,
    /// A message was put into its targets at `value` milliseconds; the body is the message.
    Message = 2,
    /// A message that later records refer to; the body is the message.
    Shared = 3,
    /// The same as `Message`, but the body is the place of the record that has the message.
    Reference = 4,
    /// Messages are gone; the body is a list of [`Range`]s.
    Forget = 5,
    /// All messages of a queue up to a number are gone, but for some.
    ForgetAll = 6,
    /// The metadata table changes.
    Change = 7,
    /// The node stopped in order: what was never delivered is known. Always the last record.
    Stop = 8,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::Message,
            3 => Self::Shared,
            4 => Self::Reference,
            5 => Self::Forget,
            6 => Self::ForgetAll,
            7 => Self::Change,
            8 => Self::Stop,
            _ => return None,
        })
    }
}

/// The message survives a restart.
const FLAG_PERSISTENT: u8 = 1;

/// A message's place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub queue: QueueId,
    pub priority: u8,
    /// At most 56 bits.
    pub seq: u64,
}

impl Target {
    fn encode(self) -> [u8; TARGET_LEN] {
        let mut bytes = [0; TARGET_LEN];
        bytes[..8].copy_from_slice(&self.queue.0.to_le_bytes());
        bytes[8..].copy_from_slice(&(self.seq << 8 | u64::from(self.priority)).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let packed = u64_at(bytes, 8);
        Self { queue: QueueId(u64_at(bytes, 0)), priority: packed as u8, seq: packed >> 8 }
    }
}

/// The head of a record before its checksums are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub kind: Kind,
    pub persistent: bool,
    pub targets: usize,
    pub body_len: usize,
    pub value: u64,
}

impl Head {
    /// Appends the head with empty checksums; targets and body follow. [`seal`] fills the checksums in.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let flags = if self.persistent { FLAG_PERSISTENT } else { 0 };
        let targets = u16::try_from(self.targets).expect("records are split at TARGETS_MAX");
        let body_len = u32::try_from(self.body_len).expect("messages are limited to 512 MiB");
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&body_len.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, flags]);
        out.extend_from_slice(&targets.to_le_bytes());
        out.extend_from_slice(&self.value.to_le_bytes());
    }
}

/// Appends a target.
pub(crate) fn encode_target(target: Target, out: &mut Vec<u8>) {
    out.extend_from_slice(&target.encode());
}

/// The lengths that a head tells, before anything is checked: of head and targets, and of the body.
pub(crate) fn lengths(head: &[u8]) -> (usize, usize) {
    let targets = usize::from(u16::from_le_bytes([head[14], head[15]]));
    (HEAD_LEN + targets * TARGET_LEN, u32_at(head, 8) as usize)
}

/// Fills in the checksums of a record of file `salt` whose body is `body` and one more piece.
pub(crate) fn seal(salt: u32, head_and_targets: &mut [u8], body: &[u8], rest: &[u8]) {
    let body_crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, body), rest);
    head_and_targets[4..8].copy_from_slice(&body_crc.to_le_bytes());
    let head_crc = crc32c::crc32c_append(salt, &head_and_targets[4..]);
    head_and_targets[..4].copy_from_slice(&head_crc.to_le_bytes());
}

/// A record as it stands in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub kind: Kind,
    pub persistent: bool,
    pub value: u64,
    targets: &'a [u8],
    pub body: &'a [u8],
    /// Whether the body is what was written.
    pub body_is_whole: bool,
    /// Length of the whole record, in bytes.
    pub len: usize,
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, or none if there is none whose head is whole.
    pub(crate) fn parse(salt: u32, bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_LEN)?;
        let kind = Kind::parse(head[12])?;
        let (head_len, body_len) = lengths(head);
        let is_plausible = body_len <= BODY_LEN_MAX as usize && head[13] <= FLAG_PERSISTENT;
        if !is_plausible || bytes.len() < head_len {
            return None;
        }
        if crc32c::crc32c_append(salt, &bytes[4..head_len]) != u32_at(head, 0) {
            return None;
        }
        let body = bytes.get(head_len..head_len + body_len).unwrap_or(&bytes[head_len..]);
        Some(Self {
            kind,
            persistent: head[13] & FLAG_PERSISTENT != 0,
            value: u64_at(head, 16),
            targets: &bytes[HEAD_LEN..head_len],
            body,
            body_is_whole: body.len() == body_len && crc32c::crc32c_append(salt, body) == u32_at(head, 4),
            len: head_len + body_len,
        })
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = Target> + use<'a> {
        self.targets.chunks_exact(TARGET_LEN).map(Target::decode)
    }
}

/// Messages of one level of a queue with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub queue: QueueId,
    pub priority: u8,
    pub first: u64,
    pub count: u32,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

impl Range {
    const LEN: usize = 28;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let first = Target { queue: self.queue, priority: self.priority, seq: self.first };
        out.extend_from_slice(&first.encode());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
    }

    pub(crate) fn decode_all(body: &[u8]) -> impl Iterator<Item = Self> + '_ {
        body.chunks_exact(Self::LEN).map(|bytes| {
            let Target { queue, priority, seq } = Target::decode(bytes);
            let (count, body_bytes) = (u32_at(bytes, 16), u64_at(bytes, 20));
            Self { queue, priority, first: seq, count, body_bytes }
        })
    }
}

/// All messages of one level of a queue up to a number, but for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllUpTo {
    pub last: Target,
    /// In rising order.
    pub except: Vec<u64>,
}

impl AllUpTo {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.last.encode().to_vec();
        self.except.iter().for_each(|seq| out.extend_from_slice(&seq.to_le_bytes()));
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (last, except) = body.split_at_checked(TARGET_LEN)?;
        let except = except.chunks_exact(8).map(|bytes| u64_at(bytes, 0)).collect();
        Some(Self { last: Target::decode(last), except })
    }
}

/// What a value's length field says if there is none.
const REMOVED: u32 = u32::MAX;

pub(crate) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are small");
    for change in changes {
        out.extend_from_slice(&len(&change.key).to_le_bytes());
        out.extend_from_slice(&change.key);
        match &change.value {
            None => out.extend_from_slice(&REMOVED.to_le_bytes()),
            Some(value) => {
                out.extend_from_slice(&len(value).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
    }
    out
}

pub(crate) fn decode_changes(mut body: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !body.is_empty() {
        let key = take_bytes(&mut body)?;
        let value = if body.get(..4)? == REMOVED.to_le_bytes() {
            body = &body[4..];
            None
        } else {
            Some(take_bytes(&mut body)?)
        };
        changes.push(Change { key, value });
    }
    Some(changes)
}

fn take_bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let (len, rest) = from.split_at_checked(4)?;
    let (bytes, rest) = rest.split_at_checked(u32_at(len, 0) as usize)?;
    *from = rest;
    Some(bytes.to_vec())
}

/// The first message of each queue that was never delivered.
pub(crate) fn encode_undelivered(queues: &[(QueueId, u64)]) -> Vec<u8> {
    queues.iter().flat_map(|(queue, seq)| [queue.0.to_le_bytes(), seq.to_le_bytes()].concat()).collect()
}

pub(crate) fn decode_undelivered(body: &[u8]) -> impl Iterator<Item = (QueueId, u64)> + '_ {
    body.chunks_exact(16).map(|bytes| (QueueId(u64_at(bytes, 0)), u64_at(bytes, 8)))
}

/// The place that a [`Kind::Reference`] points to.
pub(crate) fn decode_reference(body: &[u8]) -> Option<Lsn> {
    (body.len() == 8).then(|| Lsn(u64_at(body, 0)))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
