//! Where records stand in an extent, so that single ones are found without reading all before them.
//!
//! Messages that expire, are redelivered or handled by operators stand anywhere in a backlog. An extent has its marks from
//! the first time that somebody reads it for chosen messages, and no longer than it stays in its place.

use std::ops::Range;
use std::sync::Arc;

/// Least distance between two marks, in bytes: about what is read to find one message. Marks take 8 bytes each.
const DISTANCE: u64 = 4 * 1024;

/// Where some records of an extent start, in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks(Vec<Mark>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The message, as a distance to the first of the extent.
    distance: u32,
    /// Where its record starts, in bytes from the start of the extent.
    offset: u32,
}

/// What somebody learned of an extent by reading all of it.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    /// Number of the extent's first message.
    pub first: u64,
    /// The compact file it was read from, and where in it the extent starts.
    pub file: u32,
    /// See `file`.
    pub offset: u64,
    pub marks: Arc<Marks>,
}

impl Marks {
    /// Notes a record, if the last mark is far enough away. What lies beyond 4 GiB gets none.
    pub(crate) fn note(&mut self, distance: u64, offset: u64) {
        let is_far = self.0.last().is_none_or(|last| offset >= u64::from(last.offset) + DISTANCE);
        if is_far && let (Ok(distance), Ok(offset)) = (u32::try_from(distance), u32::try_from(offset)) {
            self.0.push(Mark { distance, offset });
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// The stretches of an extent of `len` bytes that have these messages, in rising order; neighbours are one.
    pub(crate) fn stretches(&self, distances: impl IntoIterator<Item = u64>, len: u64) -> Vec<Range<u64>> {
        let mut stretches: Vec<Range<u64>> = Vec::new();
        for distance in distances {
            let behind = self.0.partition_point(|mark| u64::from(mark.distance) <= distance);
            let start = behind.checked_sub(1).map_or(0, |before| u64::from(self.0[before].offset));
            let end = self.0.get(behind).map_or(len, |mark| u64::from(mark.offset));
            match stretches.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => stretches.push(start..end),
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        let mut marks = Marks::default();
        // Records of 1.5 KiB, with a hole in the numbers behind the eighth: marks at 0, 3, 6 and 29.
        for (index, distance) in [0, 1, 2, 3, 4, 5, 6, 7, 28, 29, 30].into_iter().enumerate() {
            marks.note(distance, index as u64 * 1536);
        }
        marks
    }

    #[test]
    fn a_message_is_between_two_marks() {
        let len = 11 * 1536;
        let cases = [
            (vec![], vec![]),
            (vec![0], vec![(0, 4608)]),
            (vec![5], vec![(4608, 9216)]),
            (vec![3, 5], vec![(4608, 9216)]),
            (vec![1, 3], vec![(0, 9216)]),
            (vec![2, 28], vec![(0, 4608), (9216, 13824)]),
            (vec![30], vec![(13824, len)]),
        ];
        for (wanted, expected) in cases {
            let stretches = marks().stretches(wanted.iter().copied(), len);
            let stretches: Vec<(u64, u64)> = stretches.iter().map(|found| (found.start, found.end)).collect();
            assert_eq!(stretches, expected, "{wanted:?}");
        }
    }

    #[test]
    fn without_marks_everything_is_read() {
        let everything = 0..5000;
        assert_eq!(Marks::default().stretches([3, 70], 5000), std::slice::from_ref(&everything));
    }

    #[test]
    fn what_is_too_far_for_a_mark_is_read_from_the_last_one() {
        let mut marks = marks();
        marks.note(31, u64::from(u32::MAX) + 1);
        assert_eq!(marks, self::marks());
    }
}
