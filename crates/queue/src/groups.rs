//! Message groups: messages with the same key go to the same consumer, in order, while others of the queue go on.
//!
//! Keys are sorted into buckets by their hash. A bucket belongs to the consumer that got its last message. It changes
//! hands only while no message of it is unacked: when its consumer goes, or when its consumer has more than its share.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_types::{ConnectionId, ConsumerId};

/// The bucket of a message.
pub(crate) type Bucket = u16;

/// Messages without a key are in no bucket.
pub(crate) const NO_BUCKET: Bucket = Bucket::MAX;

/// Number of buckets: keys that share one wait for each other, so there are many more than consumers.
const BUCKETS: u16 = 1024;

type ConsumerKey = (ConnectionId, ConsumerId);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    owner: Option<ConsumerKey>,
    unacked: u32,
}

/// Who may take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Whoever's turn it is.
    Anyone,
    /// This one; until it can take a message, those of its bucket wait.
    Only(ConsumerKey),
    /// This one, since it has the fewest buckets; or else whoever's turn it is.
    Rather(ConsumerKey),
    /// Nobody yet.
    Nobody,
}

/// The buckets of a queue.
#[derive(Debug)]
pub(crate) struct Groups {
    buckets: Box<[State]>,
    /// How many buckets each consumer has.
    shares: HashMap<ConsumerKey, u32, RandomState>,
    /// Buckets that belong to anyone.
    owned: u32,
}

impl Groups {
    pub(crate) fn new() -> Self {
        let buckets = vec![State::default(); usize::from(BUCKETS)].into_boxed_slice();
        Self { buckets, shares: HashMap::default(), owned: 0 }
    }

    /// The bucket of the messages whose key has this hash.
    pub(crate) fn bucket(hash: Option<u64>) -> Bucket {
        // The remainder is below the number of buckets.
        hash.map_or(NO_BUCKET, |hash| (hash % u64::from(BUCKETS)) as Bucket)
    }

    pub(crate) fn joined(&mut self, consumer: ConsumerKey) {
        self.shares.insert(consumer, 0);
    }

    pub(crate) fn left(&mut self, consumer: ConsumerKey) {
        for state in self.buckets.iter_mut().filter(|state| state.owner == Some(consumer)) {
            state.owner = None;
            self.owned -= 1;
        }
        self.shares.remove(&consumer);
    }

    /// Who may take the next message of a bucket.
    pub(crate) fn choice(&self, bucket: Bucket) -> Choice {
        let Some(state) = self.buckets.get(usize::from(bucket)) else { return Choice::Anyone };
        match state.owner {
            Some(owner) if state.unacked > 0 || !self.has_more_than_its_share(owner) => Choice::Only(owner),
            Some(owner) => self.least().map_or(Choice::Only(owner), Choice::Rather),
            None if state.unacked > 0 => Choice::Nobody,
            None => Choice::Anyone,
        }
    }

    fn has_more_than_its_share(&self, consumer: ConsumerKey) -> bool {
        let consumers = u32::try_from(self.shares.len().max(1)).unwrap_or(u32::MAX);
        self.shares.get(&consumer).is_some_and(|share| *share > self.owned.div_ceil(consumers))
    }

    fn least(&self) -> Option<ConsumerKey> {
        self.shares.iter().min_by_key(|(_, share)| **share).map(|(consumer, _)| *consumer)
    }

    /// Whether a message of the bucket may be fetched by someone who is no consumer.
    pub(crate) fn is_idle(&self, bucket: Bucket) -> bool {
        self.buckets.get(usize::from(bucket)).is_none_or(|state| state.unacked == 0)
    }

    /// A message of the bucket went to a consumer, or to someone who is none.
    pub(crate) fn taken(&mut self, bucket: Bucket, consumer: Option<ConsumerKey>, is_unacked: bool) {
        let Some(state) = self.buckets.get_mut(usize::from(bucket)) else { return };
        state.unacked += u32::from(is_unacked);
        if state.owner == consumer {
            return;
        }
        if let Some(share) = state.owner.and_then(|owner| self.shares.get_mut(&owner)) {
            *share -= 1;
            self.owned -= 1;
        }
        if let Some(share) = consumer.and_then(|consumer| self.shares.get_mut(&consumer)) {
            *share += 1;
            self.owned += 1;
        }
        state.owner = consumer;
    }

    /// A message of the bucket is not unacked any more.
    pub(crate) fn settled(&mut self, bucket: Bucket) {
        if let Some(state) = self.buckets.get_mut(usize::from(bucket)) {
            state.unacked = state.unacked.saturating_sub(1);
        }
    }
}

/// Buckets whose messages wait, while those of others are looked at.
#[derive(Debug, Default)]
pub(crate) struct Waiting([u64; BUCKETS as usize / 64]);

impl Waiting {
    pub(crate) fn contains(&self, bucket: Bucket) -> bool {
        let word = self.0.get(usize::from(bucket / 64));
        word.is_some_and(|word| word & 1 << (bucket % 64) != 0)
    }

    pub(crate) fn insert(&mut self, bucket: Bucket) {
        if let Some(word) = self.0.get_mut(usize::from(bucket / 64)) {
            *word |= 1 << (bucket % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConsumerKey = (ConnectionId::NONE, ConsumerId(1));
    const B: ConsumerKey = (ConnectionId::NONE, ConsumerId(2));

    #[test]
    fn a_bucket_stays_with_its_consumer_while_messages_are_unacked() {
        let mut groups = Groups::new();
        groups.joined(A);
        assert_eq!(groups.choice(3), Choice::Anyone);
        groups.taken(3, Some(A), true);
        groups.taken(4, Some(A), true);
        assert_eq!(groups.choice(3), Choice::Only(A));
        groups.joined(B);
        // A has more than its share, but not while a message is out.
        assert_eq!(groups.choice(3), Choice::Only(A));
        groups.settled(3);
        assert_eq!(groups.choice(3), Choice::Rather(B));
        groups.taken(3, Some(B), true);
        groups.settled(4);
        assert_eq!(groups.choice(4), Choice::Only(A));
    }

    #[test]
    fn buckets_of_a_consumer_that_left_are_free_once_its_messages_are_back() {
        let mut groups = Groups::new();
        groups.joined(A);
        groups.joined(B);
        groups.taken(7, Some(A), true);
        groups.left(A);
        assert_eq!(groups.choice(7), Choice::Nobody);
        groups.settled(7);
        assert_eq!(groups.choice(7), Choice::Anyone);
    }

    #[test]
    fn who_fetches_keeps_the_bucket_to_itself() {
        let mut groups = Groups::new();
        groups.joined(A);
        groups.taken(7, Some(A), true);
        assert!(!groups.is_idle(7));
        groups.settled(7);
        assert!(groups.is_idle(7));
        groups.taken(7, None, true);
        assert_eq!(groups.choice(7), Choice::Nobody);
        groups.settled(7);
        assert_eq!(groups.choice(7), Choice::Anyone);
        assert_eq!(groups.choice(NO_BUCKET), Choice::Anyone);
    }

    #[test]
    fn waiting_buckets() {
        let mut waiting = Waiting::default();
        for bucket in [0, 63, 64, BUCKETS - 1] {
            assert!(!waiting.contains(bucket));
            waiting.insert(bucket);
            assert!(waiting.contains(bucket));
        }
        waiting.insert(NO_BUCKET);
        assert!(!waiting.contains(NO_BUCKET));
    }
}
