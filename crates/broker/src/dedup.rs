//! Messages that came before (features.md E8): what they are told by, and which keys are on disk.
//!
//! A key is recorded right behind the messages of its turn, in the same log: after a crash none is there without its
//! message, and no confirm that waits for the log is given without it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use warren_amqp091_codec::{Dialect, Properties, table};
use warren_queue::{DedupKey, StoredKey};
use warren_store::{Change, Journal, Lsn};
use warren_types::{FieldTable, FieldValue, Message, QueueId, ShortString};

use crate::metadata::{Row, remove_dedup_key};

/// Keys found in the store, by their queues.
pub(crate) type RecoveredKeys = HashMap<QueueId, Vec<StoredKey>>;

/// The header with the life of a message's own key, in milliseconds.
const TTL: &[u8] = b"x-cache-ttl";

/// Most changes that are recorded in one piece.
const CHANGES_MAX: usize = 4096;

/// What a message's value of a header is remembered as, if it has one.
///
/// Two values with the same hash would lose a message, and keys are compared after restarts and updates: it is half of
/// SHA-256, which nobody can build such values for, and which never changes.
pub(crate) fn key(message: &Message, header: &ShortString) -> Option<DedupKey> {
    let properties = Properties::parse(message.properties()).ok()?;
    let headers = properties.headers_raw()?;
    let value = table::find(headers, header.as_bytes())?;
    let ttl_ms = table::find(headers, TTL).and_then(|ttl| u64::try_from(ttl.as_integer()?).ok());
    Some(DedupKey { hash: hash(value), ttl_ms })
}

fn hash(value: FieldValue) -> u128 {
    // Numbers are the same whatever their width.
    let value = value.as_integer().map_or(value, FieldValue::I64);
    let mut bytes = Vec::new();
    table::encode(&FieldTable(vec![(ShortString::default(), value)]), Dialect::Amqp091, &mut bytes);
    let digest = Sha256::digest(&bytes);
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

/// The keys of a shard that are to be recorded.
#[derive(Debug, Default)]
pub(crate) struct KeyChanges {
    changes: Vec<Change>,
    /// Up to where keys are recorded.
    recorded: Lsn,
    /// A promise of this turn waits for all that is recorded.
    awaited: bool,
}

impl KeyChanges {
    pub(crate) fn remember(&mut self, queue: QueueId, key: StoredKey) {
        self.changes.push(Row::DedupKey { queue, key }.put());
    }

    pub(crate) fn forget(&mut self, queue: QueueId, hash: u128) {
        self.changes.push(remove_dedup_key(queue, hash));
    }

    /// What is promised in this turn waits for all keys that are recorded.
    pub(crate) fn await_all(&mut self) {
        self.awaited = true;
    }

    /// Records the turn's changes, and returns what its promises must wait for.
    pub(crate) fn record(&mut self, journal: &dyn Journal) -> Lsn {
        let awaited = std::mem::take(&mut self.awaited);
        if self.changes.is_empty() {
            return if awaited { self.recorded } else { Lsn::default() };
        }
        let changes = last_of_each(std::mem::take(&mut self.changes));
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            self.recorded = journal.change(changes.by_ref().take(CHANGES_MAX).collect());
        }
        self.recorded
    }
}

/// A key that comes and goes in one turn is only gone.
fn last_of_each(mut changes: Vec<Change>) -> Vec<Change> {
    // Stable: the changes of a key stay in their order, and of the last it is the first that is kept.
    changes.reverse();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes.dedup_by(|later, first| later.key == first.key);
    changes
}

#[cfg(test)]
mod tests {
    use warren_amqp091_codec::OwnedProperties;
    use warren_testkit::MemoryJournal;
    use warren_types::MessageParts;

    use super::*;

    fn key_of(headers: &[(&str, FieldValue)]) -> Option<DedupKey> {
        let mut table = FieldTable::new();
        headers.iter().for_each(|(name, value)| table.insert(name, value.clone()));
        let mut encoded = Vec::new();
        OwnedProperties { headers: Some(table), ..OwnedProperties::default() }
            .encode(Dialect::Amqp091, &mut encoded);
        key(
            &Message::new(&MessageParts { properties: &encoded, ..MessageParts::default() }, b""),
            &"id".into(),
        )
    }

    #[test]
    fn e8_hashes_never_change() {
        let hash = |value| key_of(&[("id", value)]).expect("it has the header").hash;
        // The first 16 bytes of `printf '\0\0\0\007\0S\0\0\0\001a' | sha256sum`, and likewise with an `l`.
        assert_eq!(hash(FieldValue::string("a")), FIXED[0]);
        assert_eq!(hash(FieldValue::I8(5)), FIXED[1]);
        assert_eq!(hash(FieldValue::U32(5)), FIXED[1]);
        let different = [
            FieldValue::string("a"),
            FieldValue::string("5"),
            FieldValue::I8(5),
            FieldValue::ByteArray(b"a".to_vec()),
            FieldValue::F64(5.0),
            FieldValue::Timestamp(5),
            FieldValue::Bool(true),
            FieldValue::Void,
            FieldValue::Array(vec![FieldValue::I8(5)]),
        ];
        let hashes: std::collections::BTreeSet<_> = different.iter().cloned().map(hash).collect();
        assert_eq!(hashes.len(), different.len());
    }

    const FIXED: [u128; 2] =
        [0xfcc3_7464_0daf_e90f_333f_1463_6b53_96f4, 0x05c7_ca6c_f1d1_cdfd_7962_b01a_7802_8720];

    #[test]
    fn e8_only_messages_with_the_header_have_a_key() {
        assert_eq!(key_of(&[]), None);
        assert_eq!(key_of(&[("x-deduplication-header", FieldValue::I8(1))]), None);
        assert_eq!(key(&Message::new(&MessageParts::default(), b""), &"id".into()), None);
        let ttl = |value| key_of(&[("id", FieldValue::I8(1)), ("x-cache-ttl", value)]).expect("a key").ttl_ms;
        assert_eq!(ttl(FieldValue::I32(7)), Some(7));
        assert_eq!(ttl(FieldValue::I64(0)), Some(0));
        assert_eq!(ttl(FieldValue::I32(-7)), None);
        assert_eq!(ttl(FieldValue::string("7")), None);
    }

    #[test]
    fn e8_the_last_change_of_a_key_counts() {
        let journal = MemoryJournal::durable();
        let mut keys = KeyChanges::default();
        let stored = |hash, number| StoredKey { hash, number, expires_at: 9 };
        keys.remember(QueueId(1), stored(1, 0));
        keys.remember(QueueId(1), stored(2, 1));
        keys.forget(QueueId(1), 1);
        keys.forget(QueueId(1), 3);
        keys.remember(QueueId(1), stored(3, 2));
        let lsn = keys.record(&journal);
        let expected = [stored(2, 1), stored(3, 2)].map(|key| Row::DedupKey { queue: QueueId(1), key }.put());
        let [gone] = [remove_dedup_key(QueueId(1), 1)];
        assert_eq!(journal.calls(), [[&[gone], &expected[..]].concat()]);
        // Whoever waits for what was recorded before waits for that.
        assert_eq!(keys.record(&journal), Lsn::default());
        keys.await_all();
        assert_eq!(keys.record(&journal), lsn);
        assert_eq!(keys.record(&journal), Lsn::default());
    }
}
