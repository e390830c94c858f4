//! Direct reply-to: addresses of channels that wait for replies (features.md M38).

use std::sync::{PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_types::{ChannelId, ConnectionId, ShortString};

use crate::names;

/// What every address begins with.
pub(crate) const ADDRESS_PREFIX: &[u8] = b"amq.rabbitmq.reply-to";

/// The addresses in use. An address is random, so knowing one is the right to reply to it.
#[derive(Debug, Default)]
pub(crate) struct DirectReplies {
    by_address: RwLock<HashMap<ShortString, (ConnectionId, ChannelId), RandomState>>,
}

impl DirectReplies {
    pub(crate) fn open(&self, connection: ConnectionId, channel: ChannelId) -> ShortString {
        let address = names::generate("amq.rabbitmq.reply-to.");
        let mut by_address = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        by_address.insert(address.clone(), (connection, channel));
        address
    }

    pub(crate) fn close(&self, address: &[u8]) {
        self.by_address.write().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    pub(crate) fn find(&self, address: &[u8]) -> Option<(ConnectionId, ChannelId)> {
        self.by_address.read().unwrap_or_else(PoisonError::into_inner).get(address).copied()
    }
}
