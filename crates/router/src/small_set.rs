//! A set of indices that remembers their order and is usually tiny.

use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::RandomState;

/// Up to [`SmallSet::INLINE`] elements stay on the stack and are searched one by one; more of them get a hash
/// index.
#[derive(Debug, Default)]
pub(crate) struct SmallSet {
    list: SmallVec<[u32; Self::INLINE]>,
    index: Option<HashSet<u32, RandomState>>,
}

impl SmallSet {
    const INLINE: usize = 16;

    /// Adds `element` at the end; `false` if it was there already.
    pub(crate) fn insert(&mut self, element: u32) -> bool {
        let new = match &mut self.index {
            Some(index) => index.insert(element),
            None => !self.list.contains(&element),
        };
        if new {
            self.list.push(element);
            if self.index.is_none() && self.list.len() > Self::INLINE {
                self.index = Some(self.list.iter().copied().collect());
            }
        }
        new
    }

    /// Forgets all but the first `len` elements.
    pub(crate) fn truncate(&mut self, len: usize) {
        let Some(gone) = self.list.get(len..) else { return };
        if let Some(index) = &mut self.index {
            for element in gone {
                index.remove(element);
            }
        }
        self.list.truncate(len);
    }

    /// The elements in the order in which they were added.
    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_element_once_and_in_order() {
        let mut set = SmallSet::default();
        for round in 0..2 {
            for element in 0..100 {
                assert_eq!(set.insert(element * 3), round == 0);
            }
        }
        assert_eq!(set.as_slice(), (0..100).map(|element| element * 3).collect::<Vec<_>>());
        for len in [50, 3] {
            set.truncate(len);
            assert_eq!(set.as_slice().len(), len);
            assert!(!set.insert(0) && set.insert(len as u32 * 3));
        }
    }
}
