//! The fanout exchange: every message to every destination, whatever the keys
//! (`rabbit_exchange_type_fanout`).

use crate::targets::{Target, Targets};

/// All destinations, each once however many bindings lead to it.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    targets: Targets,
}

impl Fanout {
    pub(crate) fn bind(&mut self, target: Target) {
        self.targets.add(target);
    }

    pub(crate) fn unbind(&mut self, target: Target) {
        self.targets.remove(target);
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }
}
