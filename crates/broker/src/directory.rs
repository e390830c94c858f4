//! What stands above virtual hosts: which there are, users, and what users may do where.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use warren_store::{Journal, Lsn};
use warren_types::QueueId;

use crate::auth::{Permissions, User};
use crate::changes::Changes;
use crate::metadata::Row;
use crate::system_exchange::SystemExchange;
use crate::vhost::Vhost;

/// Virtual hosts, users and permissions.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub vhosts: BTreeMap<String, Arc<Vhost>>,
    pub users: BTreeMap<String, Arc<User>>,
    /// By virtual host and user.
    pub permissions: BTreeMap<(String, String), Arc<Permissions>>,
    /// Exchanges that the broker publishes to, for the virtual hosts that they are in.
    pub system_exchanges: Vec<Arc<SystemExchange>>,
    /// Up to where the journal has the changes of all this.
    pub recorded: Lsn,
}

impl Directory {
    pub(crate) fn add_vhost(&mut self, name: &str, journal: &Arc<dyn Journal>, changes: &mut Changes) {
        let vhost = Vhost::new(name, Arc::clone(journal)).with_system_exchanges(&self.system_exchanges);
        let vhost = Arc::new(vhost);
        changes.put(&Row::Vhost(Arc::clone(&vhost.name)));
        self.vhosts.insert(name.to_owned(), vhost);
    }

    /// The ids of all queues.
    pub(crate) fn queue_ids(&self) -> HashSet<QueueId> {
        let mut ids = HashSet::new();
        for vhost in self.vhosts.values() {
            ids.extend(vhost.read().queues.values().map(|entry| entry.queue.id));
        }
        ids
    }

    /// Adds a user, or changes the one of this name.
    pub(crate) fn put_user(&mut self, user: User, changes: &mut Changes) {
        let name = user.name.clone();
        let row = Row::User(user.clone());
        changes.put(&row);
        self.users.insert(name, Arc::new(user));
    }

    pub(crate) fn grant(&mut self, user: &str, vhost: &str, permissions: Permissions, changes: &mut Changes) {
        changes.put(&permissions_row(vhost, user, &permissions));
        self.permissions.insert((vhost.to_owned(), user.to_owned()), Arc::new(permissions));
        self.permissions_changed(vhost);
    }

    fn permissions_changed(&self, vhost: &str) {
        if let Some(vhost) = self.vhosts.get(vhost) {
            vhost.permissions_changed();
        }
    }

    pub(crate) fn permissions(&self, user: &str, vhost: &str) -> Option<&Arc<Permissions>> {
        self.permissions.get(&(vhost.to_owned(), user.to_owned()))
    }

    /// Takes the permissions that `selects` says, by virtual host and user. Returns of which.
    pub(crate) fn revoke(
        &mut self,
        selects: impl Fn(&str, &str) -> bool,
        changes: &mut Changes,
    ) -> Vec<(String, String)> {
        let mut revoked = Vec::new();
        for ((vhost, user), permissions) in
            self.permissions.extract_if(.., |(vhost, user), _| selects(vhost, user))
        {
            changes.remove(&permissions_row(&vhost, &user, &permissions));
            revoked.push((vhost, user));
        }
        for (vhost, _) in &revoked {
            self.permissions_changed(vhost);
        }
        revoked
    }
}

fn permissions_row(vhost: &str, user: &str, permissions: &Permissions) -> Row {
    Row::Permissions { vhost: Arc::from(vhost), user: user.to_owned(), permissions: permissions.clone() }
}
