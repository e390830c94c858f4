//! What stands above virtual hosts: which there are, users, and what users may do where.

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_store::{Journal, Lsn};

use crate::auth::{Permissions, User};
use crate::changes::Changes;
use crate::metadata::Row;
use crate::vhost::Vhost;

/// Virtual hosts, users and permissions.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub vhosts: BTreeMap<String, Arc<Vhost>>,
    pub users: BTreeMap<String, Arc<User>>,
    /// By virtual host and user.
    pub permissions: BTreeMap<(String, String), Arc<Permissions>>,
    /// Up to where the journal has the changes of all this.
    pub recorded: Lsn,
}

impl Directory {
    pub(crate) fn add_vhost(&mut self, name: &str, journal: &Arc<dyn Journal>, changes: &mut Changes) {
        let vhost = Arc::new(Vhost::new(name, Arc::clone(journal)));
        changes.put(&Row::Vhost(Arc::clone(&vhost.name)));
        self.vhosts.insert(name.to_owned(), vhost);
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
    }

    pub(crate) fn permissions(&self, user: &str, vhost: &str) -> Option<&Arc<Permissions>> {
        self.permissions.get(&(vhost.to_owned(), user.to_owned()))
    }

    /// Takes the permissions that `selects` says, by virtual host and user.
    pub(crate) fn revoke(&mut self, selects: impl Fn(&str, &str) -> bool, changes: &mut Changes) {
        for ((vhost, user), permissions) in
            self.permissions.extract_if(.., |(vhost, user), _| selects(vhost, user))
        {
            changes.remove(&permissions_row(&vhost, &user, &permissions));
        }
    }
}

fn permissions_row(vhost: &str, user: &str, permissions: &Permissions) -> Row {
    Row::Permissions { vhost: Arc::from(vhost), user: user.to_owned(), permissions: permissions.clone() }
}
