//! The direct exchange: the routing key equals the binding key (`rabbit_exchange_type_direct`).

use warren_types::ShortString;

use crate::HashMap;
use crate::targets::{Target, Targets};

/// Destinations by binding key; a key is there only while a binding has it.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    keys: HashMap<ShortString, Targets>,
}

impl Direct {
    pub(crate) fn bind(&mut self, key: &ShortString, target: Target) {
        self.keys.entry_ref(key).or_default().add(target);
    }

    pub(crate) fn unbind(&mut self, key: &ShortString, target: Target) {
        let Some(targets) = self.keys.get_mut(key) else { return };
        targets.remove(target);
        if targets.is_empty() {
            self.keys.remove(key);
        }
    }

    pub(crate) fn matching(&self, key: &[u8]) -> Option<&Targets> {
        self.keys.get(key)
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(&Targets)) {
        for targets in self.keys.values() {
            assert!(!targets.is_empty());
            count(targets);
        }
    }
}
