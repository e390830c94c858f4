//! The policies of a virtual host, and which of them apply to what.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::effective::EffectivePolicy;
use super::rule::{Rule, Target};
use super::{Policy, PolicyKind};

/// The policies of a virtual host.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    by_name: BTreeMap<(PolicyKind, String), Arc<Rule>>,
    /// Those of each kind, in the order in which the first that matches applies.
    user: Vec<Arc<Rule>>,
    operator: Vec<Arc<Rule>>,
    last_serial: u64,
    /// By the serials of both policies, 0 for none: what many queues have is the same value. Only of policies that there are.
    effective: HashMap<(u64, u64), Arc<EffectivePolicy>, RandomState>,
}

/// A policy was set or cleared.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    kind: PolicyKind,
    name: String,
    /// What it is now.
    rule: Option<Arc<Rule>>,
}

impl Change {
    /// What the policy is now; none if it was cleared.
    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.rule.as_ref().map(|rule| &rule.policy)
    }
}

impl Policies {
    /// Those of one kind, by name.
    pub(crate) fn of_kind(&self, kind: PolicyKind) -> impl Iterator<Item = &Policy> {
        self.iter().filter(move |rule| rule.kind == kind).map(|rule| &rule.policy)
    }

    /// All of them, by kind and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.by_name.values().map(|rule| &**rule)
    }

    pub(crate) fn get(&self, kind: PolicyKind, name: &str) -> Option<&Policy> {
        self.by_name.get(&(kind, name.to_owned())).map(|rule| &rule.policy)
    }

    /// Adds a policy, or changes the one of its name.
    pub(crate) fn set(&mut self, rule: Rule) -> Change {
        self.last_serial += 1;
        let (kind, name) = (rule.kind, rule.policy.name.clone());
        let rule = Arc::new(Rule { serial: self.last_serial, ..rule });
        if let Some(before) = self.by_name.insert((kind, name.clone()), Arc::clone(&rule)) {
            self.forget(&before);
        }
        let ranked = self.ranked_mut(kind);
        let place = ranked.partition_point(|other| other.outranks(&rule));
        ranked.insert(place, Arc::clone(&rule));
        Change { kind, name, rule: Some(rule) }
    }

    /// Removes a policy, if there is one.
    pub(crate) fn clear(&mut self, kind: PolicyKind, name: &str) -> Option<(Policy, Change)> {
        let rule = self.by_name.remove(&(kind, name.to_owned()))?;
        self.forget(&rule);
        Some((rule.policy.clone(), Change { kind, name: name.to_owned(), rule: None }))
    }

    fn forget(&mut self, rule: &Rule) {
        self.ranked_mut(rule.kind).retain(|other| other.serial != rule.serial);
        self.effective.retain(|(user, operator), _| *user != rule.serial && *operator != rule.serial);
    }

    fn ranked_mut(&mut self, kind: PolicyKind) -> &mut Vec<Arc<Rule>> {
        match kind {
            PolicyKind::User => &mut self.user,
            PolicyKind::Operator => &mut self.operator,
        }
    }

    fn find(&self, kind: PolicyKind, target: Target, name: &[u8]) -> Option<Arc<Rule>> {
        let ranked = match kind {
            PolicyKind::User => &self.user,
            PolicyKind::Operator => &self.operator,
        };
        ranked.iter().find(|rule| rule.matches(target, name)).cloned()
    }

    /// The policies that apply.
    pub(crate) fn apply(&mut self, target: Target, name: &[u8]) -> Option<Arc<EffectivePolicy>> {
        let user = self.find(PolicyKind::User, target, name);
        let operator = self.find(PolicyKind::Operator, target, name);
        self.effective(user, operator)
    }

    /// The same for who asks rarely and only reads.
    pub(crate) fn look_up(&self, target: Target, name: &[u8]) -> Option<EffectivePolicy> {
        let user = self.find(PolicyKind::User, target, name);
        EffectivePolicy::new(user, self.find(PolicyKind::Operator, target, name))
    }

    /// Whether another change of the same policy came after this one: that one sees to everything.
    pub(crate) fn is_superseded(&self, change: &Change) -> bool {
        let now = self.by_name.get(&(change.kind, change.name.clone())).map(|rule| rule.serial);
        now != change.rule.as_ref().map(|rule| rule.serial)
    }

    /// The policies that apply after a change that is the last one of its policy, given those that applied before;
    /// nothing if they are the same.
    ///
    /// The changed policy's pattern is matched once. Others are asked only where it applied before: elsewhere they lost
    /// against the one that applies. Where several changes are under way, each goes over everything once, and what the
    /// first ones could not know, the last one does.
    pub(crate) fn reapply(
        &mut self,
        change: &Change,
        before: Option<&Arc<EffectivePolicy>>,
        (target, name): (Target, &[u8]),
    ) -> Option<Option<Arc<EffectivePolicy>>> {
        let current = before.and_then(|before| before.rule(change.kind));
        let rule = if current.is_some_and(|rule| rule.policy.name == change.name) {
            self.find(change.kind, target, name)
        } else {
            let rule = change.rule.as_ref()?;
            let wins = current.is_none_or(|current| rule.outranks(current)) && rule.matches(target, name);
            wins.then(|| Some(Arc::clone(rule)))?
        };
        if rule.as_ref().map(|rule| rule.serial) == current.map(|rule| rule.serial) {
            return None;
        }
        let other = |kind| before.and_then(|before| before.rule(kind)).cloned();
        Some(match change.kind {
            PolicyKind::User => self.effective(rule, other(PolicyKind::Operator)),
            PolicyKind::Operator => self.effective(other(PolicyKind::User), rule),
        })
    }

    /// How many values queues share.
    #[cfg(test)]
    pub(super) fn shared(&self) -> usize {
        self.effective.len()
    }

    fn effective(
        &mut self,
        user: Option<Arc<Rule>>,
        operator: Option<Arc<Rule>>,
    ) -> Option<Arc<EffectivePolicy>> {
        let serial = |rule: &Option<Arc<Rule>>| rule.as_ref().map_or(0, |rule| rule.serial);
        let serials = (serial(&user), serial(&operator));
        if let Some(effective) = self.effective.get(&serials) {
            return Some(Arc::clone(effective));
        }
        let is_known = |rule: &Option<Arc<Rule>>| {
            let known = |rule: &Arc<Rule>| self.by_name.get(&(rule.kind, rule.policy.name.clone()));
            rule.as_ref().is_none_or(|rule| known(rule).is_some_and(|known| known.serial == rule.serial))
        };
        let is_kept = is_known(&user) && is_known(&operator);
        let effective = Arc::new(EffectivePolicy::new(user, operator)?);
        // One whose policy was changed meanwhile is about to go.
        if is_kept {
            self.effective.insert(serials, Arc::clone(&effective));
        }
        Some(effective)
    }
}
