//! Records on their way into the log.

use bytes::Bytes;
use warren_types::{Message, QueueId};

use crate::account::{DEFINITIONS, Tally};
use crate::journal::{Change, Lsn};
use crate::record::{self, AllUpTo, HEAD_LEN, Head, Kind, Range, TARGETS_MAX, Target};

/// Bodies from this size on are written from where they are instead of being copied, in bytes.
const SPLICED_LEN_MIN: usize = 16 * 1024;

/// A body that is written from where it is.
#[derive(Debug)]
pub(crate) struct Splice {
    /// Where it belongs among the copied bytes.
    pub at: usize,
    pub body: Bytes,
}

/// Records that are appended together, encoded but for their checksums.
#[derive(Debug, Default)]
pub struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) splices: Vec<Splice>,
    spliced_len: usize,
    /// The queues that they name.
    pub(crate) tally: Tally,
}

/// Where a record will be, relative to the start of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub offset: u32,
    pub len: u32,
}

impl Placed {
    /// The place in the log of a record whose batch starts at `base`.
    pub(crate) fn at(self, base: Lsn) -> Lsn {
        Lsn(base.0 + u64::from(self.offset))
    }
}

impl Records {
    /// Largest buffer kept for the next batch, in bytes.
    const CAPACITY_KEPT: usize = 1024 * 1024;

    /// Whether there is nothing to append.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Length of all records, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.spliced_len
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Self::CAPACITY_KEPT);
        self.splices.clear();
        self.spliced_len = 0;
        self.tally.clear();
    }

    /// A message that goes to at most [`TARGETS_MAX`] targets at `at` milliseconds.
    pub(crate) fn message(
        &mut self,
        persistent: bool,
        at: u64,
        targets: &[Target],
        message: &Message,
    ) -> Placed {
        targets.iter().for_each(|target| self.tally.add(target.queue));
        self.put_message(Kind::Message, persistent, at, targets, message)
    }

    /// A message that later records refer to.
    pub(crate) fn shared(&mut self, at: u64, message: &Message) -> Placed {
        self.put_message(Kind::Shared, true, at, &[], message)
    }

    /// A message that an earlier record has.
    pub(crate) fn reference(&mut self, persistent: bool, at: u64, targets: &[Target], body: Lsn) -> Placed {
        targets.iter().for_each(|target| self.tally.add(target.queue));
        self.put(Kind::Reference, persistent, at, targets, &body.0.to_le_bytes())
    }

    pub(crate) fn forget(&mut self, ranges: &[Range]) {
        let mut body = Vec::new();
        for range in ranges {
            range.encode(&mut body);
            self.tally.add(range.queue);
        }
        self.put(Kind::Forget, false, 0, &[], &body);
    }

    pub(crate) fn forget_all(&mut self, all: &AllUpTo) {
        self.tally.add(all.last.queue);
        self.put(Kind::ForgetAll, false, 0, &[], &all.encode());
    }

    pub(crate) fn change(&mut self, changes: &[Change]) {
        self.tally.add(DEFINITIONS);
        self.put(Kind::Change, false, 0, &[], &record::encode_changes(changes));
    }

    pub(crate) fn stop(&mut self, undelivered: &[(QueueId, u64)]) {
        self.put(Kind::Stop, false, 0, &[], &record::encode_undelivered(undelivered));
    }

    /// The start of a group, and what it tells of earlier ones; `durable` is set with [`set_durable`] when the group is
    /// written.
    pub(crate) fn batch(&mut self, told: &[u8]) {
        self.put(Kind::Batch, false, 0, &[], told);
    }

    fn put_message(
        &mut self,
        kind: Kind,
        persistent: bool,
        value: u64,
        targets: &[Target],
        message: &Message,
    ) -> Placed {
        let (packed, large) = message.stored();
        let body_len = packed.len() + large.len();
        let placed =
            self.put_head(Head { kind, persistent, targets: targets.len(), body_len, value }, targets);
        self.bytes.extend_from_slice(packed);
        match message.large_body() {
            Some(body) if body.len() >= SPLICED_LEN_MIN => {
                self.splices.push(Splice { at: self.bytes.len(), body: body.clone() });
                self.spliced_len += body.len();
            }
            _ => self.bytes.extend_from_slice(large),
        }
        placed
    }

    fn put(&mut self, kind: Kind, persistent: bool, value: u64, targets: &[Target], body: &[u8]) -> Placed {
        let head = Head { kind, persistent, targets: targets.len(), body_len: body.len(), value };
        let placed = self.put_head(head, targets);
        self.bytes.extend_from_slice(body);
        placed
    }

    fn put_head(&mut self, head: Head, targets: &[Target]) -> Placed {
        debug_assert!(targets.len() <= TARGETS_MAX);
        let offset = u32::try_from(self.len()).expect("turns are far shorter than 4 GiB");
        let len = HEAD_LEN + targets.len() * record::TARGET_LEN + head.body_len;
        head.encode(&mut self.bytes);
        targets.iter().for_each(|target| record::encode_target(*target, &mut self.bytes));
        Placed { offset, len: u32::try_from(len).expect("messages are limited to 512 MiB") }
    }

    /// Moves all of `other` to the end, but for its tally.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.spliced_len += other.spliced_len;
        self.splices.extend(other.splices.drain(..).map(|splice| Splice { at: base + splice.at, ..splice }));
        other.clear();
    }

    /// Fills in all checksums for file `salt`.
    pub(crate) fn seal(&mut self, salt: u32) {
        let mut splices = self.splices.iter().peekable();
        let mut at = 0;
        while at < self.bytes.len() {
            let (head_len, body_len) = record::lengths(&self.bytes[at..]);
            let body_at = at + head_len;
            // A body's spliced part is its end, and it is this record's if it lies where the rest ends.
            let splice = splices.next_if(|splice| {
                body_len.checked_sub(splice.body.len()).is_some_and(|rest| body_at + rest == splice.at)
            });
            let rest = splice.map_or(&[][..], |splice| &splice.body);
            let body_end = body_at + body_len - rest.len();
            let (before, body) = self.bytes[..body_end].split_at_mut(body_at);
            record::seal(salt, &mut before[at..], body, rest);
            at = body_end;
        }
    }

    /// Notes in the leading [`Kind::Batch`] up to where the log was durable when the group was written.
    pub(crate) fn set_durable(&mut self, durable: Lsn) {
        self.bytes[HEAD_LEN - 8..HEAD_LEN].copy_from_slice(&durable.0.to_le_bytes());
    }

    /// The pieces in the order in which they are written.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.splices.iter().map(|splice| splice.at));
        let ends = self.splices.iter().map(|splice| splice.at).chain(std::iter::once(self.bytes.len()));
        let spliced = self.splices.iter().map(|splice| &splice.body[..]).chain(std::iter::once(&[][..]));
        starts.zip(ends).zip(spliced).flat_map(|((start, end), body)| [&self.bytes[start..end], body])
    }
}
