//! Which publishes of a channel still wait for queues, and how their confirms are sent together.

use warren_types::Ledger;

/// A publish that waits.
#[derive(Debug)]
struct Open {
    /// Queues that have not answered.
    queues: u32,
    /// Whether one of them refused it.
    refused: bool,
}

/// The confirm ledger of a channel.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    /// The last publish number given.
    last: u64,
    open: Ledger<Open>,
    /// Settled and not yet told to the client.
    acked: Vec<u64>,
    nacked: Vec<u64>,
}

/// A confirm to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirm {
    pub number: u64,
    pub multiple: bool,
    pub accepted: bool,
}

impl Confirms {
    /// Gives the next publish number to a message that goes to so many queues.
    pub(crate) fn publish(&mut self, queues: usize) -> u64 {
        self.last += 1;
        match u32::try_from(queues).unwrap_or(u32::MAX) {
            0 => self.acked.push(self.last),
            queues => self.open.push(self.last, Open { queues, refused: false }),
        }
        self.last
    }

    /// A queue settled these publishes.
    pub(crate) fn settle(&mut self, first: u64, last: u64, accepted: bool) {
        for number in first..=last {
            let Some(open) = self.open.get_mut(number) else { continue };
            open.queues -= 1;
            open.refused |= !accepted;
            if open.queues == 0 {
                let settled = if open.refused { &mut self.nacked } else { &mut self.acked };
                settled.push(number);
                self.open.take(number);
            }
        }
    }

    /// Whether every publish is settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether [`Confirms::flush`] has something to send.
    pub(crate) fn has_news(&self) -> bool {
        !self.acked.is_empty() || !self.nacked.is_empty()
    }

    /// Forgets what was settled: in a transaction nobody is told one by one. Returns whether all was accepted.
    pub(crate) fn forget_settled(&mut self) -> bool {
        self.acked.clear();
        let accepted = self.nacked.is_empty();
        self.nacked.clear();
        accepted
    }

    /// Takes the confirms that can be sent: one for everything below the lowest number that is open or settled
    /// the other way, single ones above it (`rabbit_channel:coalesce_and_send/4`).
    pub(crate) fn flush(&mut self, mut send: impl FnMut(Confirm)) {
        let lowest_open = self.open.first_key().unwrap_or(u64::MAX);
        self.nacked.sort_unstable();
        self.acked.sort_unstable();
        let ack_below = lowest_open.min(self.nacked.first().copied().unwrap_or(u64::MAX));
        let nack_below =
            lowest_open.min(self.acked.iter().copied().find(|n| *n >= ack_below).unwrap_or(u64::MAX));
        for (settled, below, accepted) in
            [(&mut self.acked, ack_below, true), (&mut self.nacked, nack_below, false)]
        {
            let together = settled.partition_point(|number| *number < below);
            if together > 0 {
                send(Confirm { number: settled[together - 1], multiple: together > 1, accepted });
            }
            for number in &settled[together..] {
                send(Confirm { number: *number, multiple: false, accepted });
            }
            settled.clear();
            settled.shrink_to(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(confirms: &mut Confirms) -> String {
        let mut text = String::new();
        confirms.flush(|c| {
            text += &format!(
                "{}{}{} ",
                if c.accepted { '+' } else { '-' },
                c.number,
                if c.multiple { "*" } else { "" }
            );
        });
        text.trim_end().to_owned()
    }

    #[test]
    fn confirms_below_the_lowest_open_go_together() {
        let mut confirms = Confirms::default();
        for _ in 0..6 {
            confirms.publish(1);
        }
        confirms.settle(1, 3, true);
        confirms.settle(5, 5, true);
        assert_eq!(flushed(&mut confirms), "+3* +5");
        confirms.settle(4, 4, true);
        confirms.settle(6, 6, true);
        assert_eq!(flushed(&mut confirms), "+6*");
        assert!(confirms.is_settled());
    }

    #[test]
    fn every_queue_must_accept() {
        let mut confirms = Confirms::default();
        confirms.publish(2);
        confirms.settle(1, 1, true);
        assert_eq!(flushed(&mut confirms), "");
        confirms.settle(1, 1, true);
        assert_eq!(flushed(&mut confirms), "+1");
    }

    #[test]
    fn a_refusal_is_never_covered_by_an_ack() {
        let mut confirms = Confirms::default();
        for _ in 0..4 {
            confirms.publish(1);
        }
        confirms.settle(2, 2, false);
        confirms.settle(1, 1, true);
        confirms.settle(3, 4, true);
        assert_eq!(flushed(&mut confirms), "+1 +3 +4 -2");
    }

    #[test]
    fn unroutable_is_settled_at_once() {
        let mut confirms = Confirms::default();
        confirms.publish(0);
        assert_eq!(flushed(&mut confirms), "+1");
    }
}
