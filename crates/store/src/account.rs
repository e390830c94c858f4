//! What each stretch of the log has of each queue, told again by later groups.
//!
//! A record whose head cannot be read does not say whose it was. Its queue is short of a record, though, and the count
//! of the stretch shows that. Each count stands in two groups behind its stretch, so that damage that takes one of them
//! with it leaves the other.

use std::collections::{BTreeMap, HashMap};

use warren_types::QueueId;

use crate::journal::Lsn;
use crate::record::{u32_at, u64_at};

/// Stands for definitions, which belong to no queue.
pub(crate) const DEFINITIONS: QueueId = QueueId(u64::MAX);

/// Length of the log, in bytes, from which on the next group tells what is in it.
const STRETCH_LEN: u64 = 16 * 1024;

/// How often records name a queue, in the order in which they do.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: Vec<(QueueId, u32)>,
    /// Length from which on it is worth while to merge runs.
    merge_len: usize,
}

impl Tally {
    const MERGE_LEN_MIN: usize = 1024;

    pub(crate) fn add(&mut self, queue: QueueId) {
        match self.runs.last_mut() {
            Some((last, count)) if *last == queue => *count += 1,
            _ => self.runs.push((queue, 1)),
        }
    }

    /// Adds all of `other`, and empties it.
    pub(crate) fn take(&mut self, other: &mut Self) {
        self.runs.append(&mut other.runs);
        if self.runs.len() > self.merge_len.max(Self::MERGE_LEN_MIN) {
            self.merge();
            self.merge_len = 2 * self.runs.len();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.runs.shrink_to(Self::MERGE_LEN_MIN);
    }

    fn merge(&mut self) {
        self.runs.sort_unstable();
        self.runs.dedup_by(|run, kept| {
            let is_same = run.0 == kept.0;
            kept.1 += if is_same { run.1 } else { 0 };
            is_same
        });
    }
}

impl FromIterator<(QueueId, u32)> for Tally {
    fn from_iter<I: IntoIterator<Item = (QueueId, u32)>>(runs: I) -> Self {
        Self { runs: runs.into_iter().collect(), merge_len: 0 }
    }
}

/// The stretch at the end of the log, of which no group has told yet.
#[derive(Debug, Default)]
pub(crate) struct Account {
    from: Lsn,
    tally: Tally,
    /// The count of the stretch before, as it is told.
    told: Vec<u8>,
}

impl Account {
    pub(crate) fn new(from: Lsn, tally: Tally) -> Self {
        Self { from, tally, told: Vec::new() }
    }

    /// Takes over the count of records that are appended.
    pub(crate) fn take(&mut self, tally: &mut Tally) {
        self.tally.take(tally);
    }

    /// Whether a group that starts at `at` is to tell of the stretch.
    pub(crate) fn is_due(&self, at: Lsn) -> bool {
        at.0 - self.from.0 >= STRETCH_LEN
    }

    /// Whether there is anything that was not told.
    pub(crate) fn has_news(&self) -> bool {
        !self.tally.runs.is_empty()
    }

    /// Ends the stretch where a group starts that tells of it and of the one before: the body of its
    /// [`Kind::Batch`](crate::record::Kind::Batch).
    pub(crate) fn tell(&mut self, at: Lsn) -> Vec<u8> {
        self.tally.merge();
        let mut count = self.from.0.to_le_bytes().to_vec();
        count.extend_from_slice(&(self.tally.runs.len() as u32).to_le_bytes());
        for (queue, records) in &self.tally.runs {
            count.extend_from_slice(&queue.0.to_le_bytes());
            count.extend_from_slice(&records.to_le_bytes());
        }
        self.tally.clear();
        self.from = at;
        let mut both = std::mem::replace(&mut self.told, count);
        both.extend_from_slice(&self.told);
        both
    }
}

/// What was told of a stretch; it ends where the next one starts, and the last where it is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub from: Lsn,
    pub counts: Vec<(QueueId, u32)>,
}

impl Stretch {
    const HEAD_LEN: usize = 12;

    const COUNT_LEN: usize = 12;

    /// All that a group tells; what makes no sense is left out.
    pub(crate) fn decode_all(mut body: &[u8]) -> Vec<Self> {
        let mut all = Vec::new();
        while let Some((head, rest)) = body.split_at_checked(Self::HEAD_LEN) {
            let (from, len) = (Lsn(u64_at(head, 0)), u32_at(head, 8) as usize * Self::COUNT_LEN);
            let Some((counts, rest)) = rest.split_at_checked(len) else { break };
            let counts = counts.chunks_exact(Self::COUNT_LEN);
            let counts = counts.map(|count| (QueueId(u64_at(count, 0)), u32_at(count, 8))).collect();
            all.push(Self { from, counts });
            body = rest;
        }
        all
    }
}

/// Compares what is read with what later groups tell.
#[derive(Debug)]
pub(crate) struct Audit {
    from: Lsn,
    seen: HashMap<QueueId, u32>,
    /// What could not be read since `from`.
    holes: Vec<String>,
}

/// What an audit finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A queue is short of records.
    Short { queue: QueueId, records: u32, holes: String },
    /// What could not be read may have been anybody's.
    Unknown { holes: String },
}

impl Audit {
    pub(crate) fn new(from: Lsn) -> Self {
        Self { from, seen: HashMap::new(), holes: Vec::new() }
    }

    /// A record that names the queue was read.
    pub(crate) fn saw(&mut self, queue: QueueId) {
        *self.seen.entry(queue).or_default() += 1;
    }

    /// Something cannot be read.
    pub(crate) fn hole(&mut self, place: String) {
        self.holes.push(place);
    }

    /// A group that starts at `at` tells of what is before it.
    pub(crate) fn told(&mut self, stretches: Vec<Stretch>, at: Lsn) -> Vec<Finding> {
        let told: Vec<Stretch> = stretches.into_iter().filter(|stretch| stretch.from >= self.from).collect();
        let Some(first) = told.first() else { return Vec::new() };
        // Between the end of what was compared before and the first stretch nothing is known.
        let is_all = first.from == self.from;
        let holes = std::mem::take(&mut self.holes).join(", ");
        let findings = match (holes.is_empty(), is_all) {
            (true, _) => Vec::new(),
            (false, true) => self.compare(&told, &holes),
            (false, false) => vec![Finding::Unknown { holes }],
        };
        self.seen.clear();
        self.from = at;
        findings
    }

    fn compare(&self, told: &[Stretch], holes: &str) -> Vec<Finding> {
        let mut expected: BTreeMap<QueueId, u32> = BTreeMap::new();
        for (queue, records) in told.iter().flat_map(|stretch| &stretch.counts) {
            *expected.entry(*queue).or_default() += records;
        }
        let seen = |queue| self.seen.get(queue).copied().unwrap_or(0);
        let short = expected.iter().filter(|(queue, expected)| seen(queue) < **expected);
        short
            .map(|(queue, expected)| Finding::Short {
                queue: *queue,
                records: expected - seen(queue),
                holes: holes.to_owned(),
            })
            .collect()
    }

    /// The end of the log was reached: the account to go on with, and what nobody tells of.
    pub(crate) fn end(self) -> (Account, Option<Finding>) {
        let unknown = (!self.holes.is_empty()).then(|| Finding::Unknown { holes: self.holes.join(", ") });
        (Account::new(self.from, self.seen.into_iter().collect()), unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: QueueId = QueueId(1);
    const B: QueueId = QueueId(2);

    fn at(offset: u32) -> Lsn {
        Lsn::new(1, offset)
    }

    /// Appends one record after the other and tells after each list.
    fn told(stretches: &[&[QueueId]]) -> Vec<Vec<u8>> {
        let mut account = Account::new(at(0), Tally::default());
        let mut next = 0;
        let tell = |queues: &&[QueueId]| {
            let mut tally = Tally::default();
            queues.iter().for_each(|queue| tally.add(*queue));
            account.take(&mut tally);
            next += 100;
            account.tell(at(next))
        };
        stretches.iter().map(tell).collect()
    }

    fn short(queue: QueueId, records: u32) -> Finding {
        Finding::Short { queue, records, holes: "a hole".to_owned() }
    }

    #[test]
    fn a_queue_that_is_short_of_a_record_is_found() {
        let told = told(&[&[A, B, A, B, B]]);
        let mut audit = Audit::new(at(0));
        [A, A, B].into_iter().for_each(|queue| audit.saw(queue));
        audit.hole("a hole".to_owned());
        assert_eq!(audit.told(Stretch::decode_all(&told[0]), at(100)), [short(B, 2)]);
        assert_eq!(audit.end().1, None);
    }

    #[test]
    fn the_second_copy_tells_what_went_with_the_first() {
        let told = told(&[&[A, B], &[A]]);
        let mut audit = Audit::new(at(0));
        // The group that told of the first stretch could not be read, nor what was around it.
        audit.saw(A);
        audit.hole("a hole".to_owned());
        assert_eq!(audit.told(Stretch::decode_all(&told[1]), at(200)), [short(A, 1), short(B, 1)]);
    }

    #[test]
    fn what_nobody_tells_of_any_more_is_unknown() {
        let unknown = Finding::Unknown { holes: "a hole".to_owned() };
        let told = told(&[&[A], &[A], &[A]]);
        let mut audit = Audit::new(at(0));
        audit.hole("a hole".to_owned());
        assert_eq!(audit.told(Stretch::decode_all(&told[2]), at(300)), [unknown]);
        audit.hole("a hole".to_owned());
        assert_eq!(audit.end().1, Some(Finding::Unknown { holes: "a hole".to_owned() }));
    }

    #[test]
    fn stretches_before_the_start_of_the_log_do_not_count() {
        let told = told(&[&[A], &[B]]);
        let mut audit = Audit::new(at(100));
        audit.saw(B);
        audit.hole("a hole".to_owned());
        assert_eq!(audit.told(Stretch::decode_all(&told[0]), at(100)), []);
        assert_eq!(audit.told(Stretch::decode_all(&told[1]), at(200)), []);
    }

    #[test]
    fn many_runs_are_merged() {
        let mut all = Tally::default();
        for _ in 0..10_000 {
            let mut tally = Tally::default();
            [A, B].into_iter().for_each(|queue| tally.add(queue));
            all.take(&mut tally);
        }
        assert!(all.runs.len() <= 2 * Tally::MERGE_LEN_MIN, "{}", all.runs.len());
        let told = Account::new(at(0), all).tell(at(100));
        assert_eq!(
            Stretch::decode_all(&told),
            [Stretch { from: at(0), counts: vec![(A, 10_000), (B, 10_000)] }]
        );
    }
}
