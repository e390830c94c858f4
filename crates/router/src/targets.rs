//! A set of destinations that counts how many bindings lead to each.

use crate::HashMap;

/// A queue or exchange, as an index into the router's table of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target(u32);

/// What a [`Target`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Queue(u32),
    Exchange(u32),
}

impl Target {
    const EXCHANGE: u32 = 1 << 31;

    pub(crate) fn queue(index: u32) -> Self {
        assert!(index < Self::EXCHANGE, "there is no memory for 2^31 queues");
        Self(index)
    }

    pub(crate) fn exchange(index: u32) -> Self {
        assert!(index < Self::EXCHANGE, "there is no memory for 2^31 exchanges");
        Self(index | Self::EXCHANGE)
    }

    pub(crate) fn end(self) -> End {
        if self.0 & Self::EXCHANGE == 0 {
            End::Queue(self.0)
        } else {
            End::Exchange(self.0 & !Self::EXCHANGE)
        }
    }
}

/// The destinations of one routing key, one trie node or one fanout exchange.
///
/// Two bindings may lead from the same key to the same destination and differ in their arguments only, hence
/// the counts. Nearly all sets of a large router have one element, so that case takes no allocation.
#[derive(Debug, Default)]
pub(crate) enum Targets {
    #[default]
    Empty,
    One(Counted),
    Many(Box<Many>),
}

/// A destination and the number of bindings that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) target: Target,
    pub(crate) bindings: u32,
}

/// Two or more destinations, in no order.
#[derive(Debug, Default)]
pub(crate) struct Many {
    list: Vec<Counted>,
    /// Where in the list a target is; kept only once the list is too long to be searched.
    positions: HashMap<Target, u32>,
}

impl Targets {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// All destinations, each once.
    pub(crate) fn as_slice(&self) -> &[Counted] {
        match self {
            Self::Empty => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => &many.list,
        }
    }

    /// Counts one more binding to `target`.
    pub(crate) fn add(&mut self, target: Target) {
        match self {
            Self::Empty => *self = Self::One(Counted { target, bindings: 1 }),
            Self::One(one) if one.target == target => one.bindings += 1,
            Self::One(one) => {
                let mut many = Many::default();
                many.list.extend([*one, Counted { target, bindings: 1 }]);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.add(target),
        }
    }

    /// Counts one binding to `target` less.
    pub(crate) fn remove(&mut self, target: Target) {
        match self {
            Self::Empty => debug_assert!(false, "a target was removed that had not been added"),
            Self::One(one) => {
                debug_assert!(one.target == target, "a target was removed that had not been added");
                one.bindings -= 1;
                if one.bindings == 0 {
                    *self = Self::Empty;
                }
            }
            Self::Many(many) => {
                many.remove(target);
                if let [one] = many.list[..] {
                    *self = Self::One(one);
                }
            }
        }
    }
}

impl Many {
    const SEARCHED_LEN_MAX: usize = 16;

    fn add(&mut self, target: Target) {
        if let Some(position) = self.position(target) {
            self.list[position].bindings += 1;
            return;
        }
        self.list.push(Counted { target, bindings: 1 });
        if !self.positions.is_empty() {
            self.positions.insert(target, crate::to_index(self.list.len() - 1));
        } else if self.list.len() > Self::SEARCHED_LEN_MAX {
            self.positions =
                (0..).zip(&self.list).map(|(position, counted)| (counted.target, position)).collect();
        }
    }

    fn remove(&mut self, target: Target) {
        let Some(position) = self.position(target) else {
            debug_assert!(false, "a target was removed that had not been added");
            return;
        };
        self.list[position].bindings -= 1;
        if self.list[position].bindings > 0 {
            return;
        }
        self.list.swap_remove(position);
        if self.positions.is_empty() {
            return;
        }
        self.positions.remove(&target);
        if let Some(moved) = self.list.get(position) {
            self.positions.insert(moved.target, crate::to_index(position));
        }
        if self.list.len() <= Self::SEARCHED_LEN_MAX / 2 {
            self.positions = HashMap::default();
            self.list.shrink_to_fit();
        }
    }

    fn position(&self, target: Target) -> Option<usize> {
        if self.positions.is_empty() {
            return self.list.iter().position(|counted| counted.target == target);
        }
        self.positions.get(&target).map(|&position| position as usize)
    }

    #[cfg(test)]
    fn check(&self) {
        assert!(self.list.len() > 1);
        assert!(self.positions.is_empty() || self.positions.len() == self.list.len());
        for (target, &position) in &self.positions {
            assert_eq!(self.list[position as usize].target, *target);
        }
    }
}

#[cfg(test)]
impl Targets {
    pub(crate) fn check(&self) {
        assert!(self.as_slice().iter().all(|counted| counted.bindings > 0));
        if let Self::Many(many) = self {
            many.check();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks() {
        let mut targets = Targets::default();
        for round in 1..=2 {
            for index in 0..100 {
                targets.add(if index % 2 == 0 { Target::queue(index) } else { Target::exchange(index) });
                targets.check();
            }
            assert_eq!(targets.as_slice().len(), 100);
            assert!(targets.as_slice().iter().all(|counted| counted.bindings == round));
        }
        for left in [100, 0] {
            for index in (0..100).rev() {
                targets.remove(if index % 2 == 0 { Target::queue(index) } else { Target::exchange(index) });
                targets.check();
            }
            assert_eq!(targets.as_slice().len(), left);
        }
        assert!(targets.is_empty());
    }

    #[test]
    fn targets_know_what_they_are() {
        assert_eq!(Target::queue(7).end(), End::Queue(7));
        assert_eq!(Target::exchange(7).end(), End::Exchange(7));
    }

    #[test]
    fn sets_of_one_are_small() {
        assert_eq!(size_of::<Targets>(), 16);
    }
}
