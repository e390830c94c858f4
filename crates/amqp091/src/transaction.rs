//! Transactions: publishes and acknowledgements that wait for `tx.commit`.

use warren_amqp091_codec::Method;
use warren_types::session::{Route, Session, Settle, Tracking};
use warren_types::{AmqpError, Message, ReplyCode};

use crate::acknowledge::Unacked;
use crate::channel::{Awaiting, Channel, MethodResult, Mode};
use crate::shared::Core;

/// Most bytes that the publishes of one open transaction may take in memory.
const TRANSACTION_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What an open transaction holds back.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    publishes: Vec<HeldPublish>,
    /// Acks, rejects and nacks in the order of the client, the tags of each rising.
    settles: Vec<(Settle, Vec<(u64, Unacked)>)>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct HeldPublish {
    pub route: Route,
    pub message: Message,
    /// To be returned to the publisher if nobody gets it.
    pub mandatory: bool,
}

fn not_transactional() -> AmqpError {
    AmqpError::precondition_failed("channel is not transactional")
}

impl Transaction {
    pub(crate) fn publish(&mut self, held: HeldPublish) -> MethodResult {
        self.bytes += held.message.memory();
        if self.bytes > TRANSACTION_BYTES_MAX {
            return Err(AmqpError::new(
                ReplyCode::RESOURCE_ERROR,
                format!("transaction exceeds {TRANSACTION_BYTES_MAX} bytes"),
            ));
        }
        self.publishes.push(held);
        Ok(())
    }
}

impl Channel {
    pub(crate) fn tx_select(&mut self, core: &mut Core) -> MethodResult {
        match self.mode {
            Mode::Confirm => {
                return Err(AmqpError::precondition_failed("cannot switch from confirm to tx mode"));
            }
            Mode::Plain => self.mode = Mode::Transaction(Box::default()),
            Mode::Transaction(_) => {}
        }
        core.send(self.id.number, &Method::TxSelectOk {});
        Ok(())
    }

    /// Publishes and settles what was held back; `tx.commit-ok` follows when every queue has answered.
    pub(crate) fn tx_commit(&mut self, core: &mut Core, session: &mut impl Session) -> MethodResult {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        let Transaction { publishes, settles, .. } = std::mem::take(&mut **transaction);
        for held in publishes {
            if held.route.is_empty() && held.mandatory {
                self.send_return(ReplyCode::NO_ROUTE, &held.message, core);
            }
            if held.route.leads_nowhere() {
                continue;
            }
            // Nobody confirms a direct reply.
            let number = self.confirms.publish(held.route.queues());
            session.submit(self.id, &held.route, held.message, Tracking::Confirm(number));
        }
        for (settle, held) in settles {
            self.settle_all(held, settle, session);
        }
        self.wait(Awaiting::Commit, core);
        self.finish_commit(core)
    }

    /// Answers a commit that waits for nothing any more.
    pub(crate) fn finish_commit(&mut self, core: &mut Core) -> MethodResult {
        if !matches!(self.awaiting, Some(Awaiting::Commit)) || !self.confirms.is_settled() {
            return Ok(());
        }
        self.awaiting = None;
        core.call_pending = false;
        if !self.confirms.forget_settled() {
            return Err(AmqpError::precondition_failed("partial tx completion"));
        }
        core.send(self.id.number, &Method::TxCommitOk {});
        Ok(())
    }

    /// Forgets publishes; deliveries are unacked again, as if nothing had been said of them.
    pub(crate) fn tx_rollback(&mut self, core: &mut Core) -> MethodResult {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        let held = std::mem::take(&mut **transaction);
        let mut entries: Vec<(u64, Unacked)> = held.settles.into_iter().flat_map(|(_, held)| held).collect();
        entries.extend(self.unacked.drain());
        entries.sort_by_key(|(tag, _)| *tag);
        for (tag, unacked) in entries {
            self.unacked.push(tag, unacked);
        }
        core.send(self.id.number, &Method::TxRollbackOk {});
        Ok(())
    }

    /// Takes deliveries out of the ledger to settle them at the commit.
    pub(crate) fn settle_at_commit(&mut self, tag: u64, multiple: bool, settle: Settle) {
        let mut held = Vec::new();
        if multiple {
            let last = if tag == 0 { u64::MAX } else { tag };
            while let Some(entry) = self.unacked.take_first_up_to(last) {
                held.push(entry);
            }
        } else if let Some(unacked) = self.unacked.take(tag) {
            held.push((tag, unacked));
        }
        if let Mode::Transaction(transaction) = &mut self.mode {
            transaction.settles.push((settle, held));
        }
    }
}
