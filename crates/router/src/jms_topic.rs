//! The exchange for the selectors of JMS (`rabbit_jms_topic_exchange`): each binding has a condition on headers.
//!
//! Despite its name it knows no topics: clients bind it to a topic exchange, and binding keys mean nothing here.

use warren_types::{FieldTable, FieldValue};

use crate::selector::Selector;
use crate::targets::Target;
use crate::{Binding, HashMap, InvalidArgument, to_index};

/// The argument of a binding that holds the compiled selector.
const SELECTOR: &str = "rjms_erlang_selector";

/// The bindings of an exchange with selectors.
#[derive(Debug, Default)]
pub(crate) struct JmsTopic {
    entries: Vec<Entry>,
    /// Where in the list a binding is.
    positions: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Entry {
    binding: u32,
    target: Target,
    selector: Selector,
}

/// The selector of a binding.
pub(crate) fn selector(binding: &Binding) -> Result<Selector, InvalidArgument> {
    match binding.arguments.get(SELECTOR) {
        Some(FieldValue::LongString(text)) => Selector::parse(text),
        _ => Err(InvalidArgument::NoSelector {
            destination: binding.destination.name().as_bytes().to_vec(),
            source_exchange: binding.source.as_bytes().to_vec(),
        }),
    }
}

impl JmsTopic {
    pub(crate) fn bind(&mut self, binding: u32, target: Target, selector: Selector) {
        self.positions.insert(binding, to_index(self.entries.len()));
        self.entries.push(Entry { binding, target, selector });
    }

    pub(crate) fn unbind(&mut self, binding: u32) {
        let Some(position) = self.positions.remove(&binding) else { return };
        self.entries.swap_remove(position as usize);
        if let Some(moved) = self.entries.get(position as usize) {
            self.positions.insert(moved.binding, position);
        }
    }

    /// Calls `found` for the destination of every binding whose selector is true.
    pub(crate) fn matching(&self, headers: &FieldTable, mut found: impl FnMut(Target)) {
        for entry in self.entries.iter().filter(|entry| entry.selector.matches(headers)) {
            found(entry.target);
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(Target, u32)) {
        assert_eq!(self.entries.len(), self.positions.len());
        for (position, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.positions.get(&entry.binding), Some(&to_index(position)));
            count(entry.target, 1);
        }
    }
}
