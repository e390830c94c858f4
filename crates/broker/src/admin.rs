//! Administration: virtual hosts, users, permissions, policies and parameters.
//!
//! Every change is visible when the call returns, and stored once [`Recorded::durable`] returns.

use std::sync::Arc;

use warren_queue::Command;
use warren_store::{Journal, Lsn};
use warren_types::AmqpError;

use crate::auth::{PasswordHash, Permissions, Tag, User};
use crate::broker::Broker;
use crate::changes::Changes;
use crate::directory::Directory;
use crate::metadata::Row;
use crate::policy::{Parameter, Policy, PolicyKind};
use crate::shard::ShardCommand;
use crate::stored_bytes::NAME_LEN_MAX;
use crate::vhost::{Tables, Vhost};

/// Why a change was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// What is to be changed is not there.
    #[error("{kind} '{name}' does not exist")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A name cannot be stored.
    #[error("a name of {0} bytes is too long: at most {NAME_LEN_MAX} are possible")]
    NameTooLong(usize),
    /// A pattern is not a regular expression.
    #[error("the pattern '{0}' is not a regular expression")]
    Pattern(String),
}

/// A change that is visible, and perhaps not stored yet.
#[derive(Debug)]
#[must_use = "the change may be lost until it is durable"]
pub struct Recorded {
    journal: Arc<dyn Journal>,
    lsn: Lsn,
}

impl Recorded {
    /// The place in the journal.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Waits until the change survives a crash.
    pub async fn durable(self) {
        let (stored, wait) = tokio::sync::oneshot::channel();
        // Nobody hears it if the waiting was given up.
        self.journal.when_durable(
            self.lsn,
            Box::new(move || {
                let _told = stored.send(());
            }),
        );
        if wait.await.is_err() {
            // The journal has failed, and the node is about to stop: nothing may be said to be stored.
            std::future::pending().await
        }
    }
}

/// How a user proves who it is.
#[derive(Debug, Clone)]
pub enum Credentials<'a> {
    /// By this password.
    Password(&'a [u8]),
    /// By the password with this hash.
    Hash(PasswordHash),
    /// Not by a password.
    None,
}

impl Credentials<'_> {
    fn hash(self) -> Option<PasswordHash> {
        match self {
            Self::Password(password) => Some(PasswordHash::new(password)),
            Self::Hash(hash) => Some(hash),
            Self::None => None,
        }
    }
}

/// What a user may do in a virtual host.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Name of the virtual host.
    pub vhost: String,
    /// Name of the user.
    pub user: String,
    /// What it may do there.
    pub permissions: Arc<Permissions>,
}

// ---- virtual hosts -----------------------------------------------------------------------------------------

impl Broker {
    /// The names of all virtual hosts.
    #[must_use]
    pub fn vhosts(&self) -> Vec<String> {
        self.directory().vhosts.keys().cloned().collect()
    }

    /// Creates a virtual host, unless it is there already.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn create_vhost(&self, name: &str) -> Result<Recorded, AdminError> {
        check_names(&[name])?;
        self.change_directory(|directory, changes| {
            if directory.vhosts.contains_key(name) {
                changes.rely_on_earlier();
            } else {
                directory.add_vhost(name, &self.journal, changes);
            }
            Ok(())
        })
    }

    /// Deletes a virtual host with everything in it, and closes its connections.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn delete_vhost(&self, name: &str) -> Result<Recorded, AdminError> {
        let mut queues = Vec::new();
        let recorded = self.change_directory(|directory, changes| {
            let vhost = directory.vhosts.remove(name).ok_or_else(|| not_found("vhost", name))?;
            queues = vhost.delete(changes);
            directory.revoke(|vhost, _| vhost == name, changes);
            Ok(())
        })?;
        for queue in queues {
            let delete = Command::Delete { asked_by: None, if_unused: false, if_empty: false };
            self.shards[usize::from(queue.shard)].mailbox.push(ShardCommand::Apply(queue, delete));
        }
        let error = AmqpError::connection_forced(format!("vhost '{name}' is deleted"));
        self.ports.close(|vhost, _| &*vhost.name == name, &error);
        Ok(recorded)
    }
}

// ---- users and permissions ---------------------------------------------------------------------------------

impl Broker {
    /// All users.
    #[must_use]
    pub fn users(&self) -> Vec<Arc<User>> {
        self.directory().users.values().cloned().collect()
    }

    /// Adds a user, or changes the one of this name. Open connections keep what they had.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn put_user(
        &self,
        name: &str,
        credentials: Credentials<'_>,
        tags: Vec<Tag>,
    ) -> Result<Recorded, AdminError> {
        check_names(&[name])?;
        let user = User { name: name.to_owned(), password: credentials.hash(), tags };
        self.change_directory(|directory, changes| {
            directory.put_user(user, changes);
            Ok(())
        })
    }

    /// Changes how a user proves who it is.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn change_password(&self, name: &str, credentials: Credentials<'_>) -> Result<Recorded, AdminError> {
        let password = credentials.hash();
        self.change_directory(|directory, changes| {
            let user = directory.users.get(name).ok_or_else(|| not_found("user", name))?;
            let user = User { password, ..User::clone(user) };
            directory.put_user(user, changes);
            Ok(())
        })
    }

    /// Deletes a user with its permissions, and closes its connections.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn delete_user(&self, name: &str) -> Result<Recorded, AdminError> {
        let recorded = self.change_directory(|directory, changes| {
            let user = directory.users.remove(name).ok_or_else(|| not_found("user", name))?;
            directory.revoke(|_, user| user == name, changes);
            changes.remove(&Row::User(User::clone(&user)));
            Ok(())
        })?;
        let error = AmqpError::connection_forced(format!("user '{name}' is deleted"));
        self.ports.close(|_, user| user.name == name, &error);
        Ok(recorded)
    }

    /// The permissions of all users.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        let grant = |((vhost, user), permissions): (&(String, String), &Arc<Permissions>)| Grant {
            vhost: vhost.clone(),
            user: user.clone(),
            permissions: Arc::clone(permissions),
        };
        self.directory().permissions.iter().map(grant).collect()
    }

    /// Sets what a user may do in a virtual host. Connections that are open there keep what they had.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn set_permissions(
        &self,
        user: &str,
        vhost: &str,
        permissions: Permissions,
    ) -> Result<Recorded, AdminError> {
        self.change_directory(|directory, changes| {
            check_exist(directory, user, vhost)?;
            directory.grant(user, vhost, permissions, changes);
            Ok(())
        })
    }

    /// Takes all permissions in a virtual host from a user. Connections that are open there keep what they had.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn clear_permissions(&self, user: &str, vhost: &str) -> Result<Recorded, AdminError> {
        self.change_directory(|directory, changes| {
            check_exist(directory, user, vhost)?;
            changes.rely_on_earlier();
            directory.revoke(|of_vhost, of_user| (of_vhost, of_user) == (vhost, user), changes);
            Ok(())
        })
    }
}

// ---- policies and parameters -------------------------------------------------------------------------------

impl Broker {
    /// The policies of a virtual host, by name.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn policies(&self, vhost: &str, kind: PolicyKind) -> Result<Vec<Policy>, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let tables = vhost.read();
        let of_kind = tables.policies.iter().filter(|((of_kind, _), _)| *of_kind == kind);
        Ok(of_kind.map(|(_, policy)| policy.clone()).collect())
    }

    /// Adds a policy, or changes the one of this name.
    ///
    /// # Errors
    /// If there is no such virtual host, or if the name or the pattern is not valid.
    pub fn set_policy(&self, vhost: &str, kind: PolicyKind, policy: Policy) -> Result<Recorded, AdminError> {
        check_names(&[&policy.name])?;
        if regex::bytes::Regex::new(&policy.pattern).is_err() {
            return Err(AdminError::Pattern(policy.pattern));
        }
        self.change_vhost(vhost, |vhost, tables, changes| {
            changes.put(&vhost.policy_row(kind, &policy));
            tables.policies.insert((kind, policy.name.clone()), policy);
            Ok(())
        })
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// If there is no such virtual host or policy.
    pub fn clear_policy(&self, vhost: &str, kind: PolicyKind, name: &str) -> Result<Recorded, AdminError> {
        self.change_vhost(vhost, |vhost, tables, changes| {
            let policy =
                tables.policies.remove(&(kind, name.to_owned())).ok_or_else(|| not_found("policy", name))?;
            changes.remove(&vhost.policy_row(kind, &policy));
            Ok(())
        })
    }

    /// The parameters of a virtual host, by component and name.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn parameters(&self, vhost: &str) -> Result<Vec<Parameter>, AdminError> {
        Ok(self.find_vhost(vhost)?.read().parameters.values().cloned().collect())
    }

    /// Adds a parameter, or changes the one of this name.
    ///
    /// # Errors
    /// If there is no such virtual host, or if a name is too long.
    pub fn set_parameter(&self, vhost: &str, parameter: Parameter) -> Result<Recorded, AdminError> {
        check_names(&[&parameter.component, &parameter.name])?;
        self.change_vhost(vhost, |vhost, tables, changes| {
            changes.put(&vhost.parameter_row(&parameter));
            let key = (parameter.component.clone(), parameter.name.clone());
            tables.parameters.insert(key, parameter);
            Ok(())
        })
    }

    /// Removes a parameter.
    ///
    /// # Errors
    /// If there is no such virtual host or parameter.
    pub fn clear_parameter(&self, vhost: &str, component: &str, name: &str) -> Result<Recorded, AdminError> {
        self.change_vhost(vhost, |vhost, tables, changes| {
            let key = (component.to_owned(), name.to_owned());
            let parameter = tables.parameters.remove(&key).ok_or_else(|| not_found("parameter", name))?;
            changes.remove(&vhost.parameter_row(&parameter));
            Ok(())
        })
    }
}

impl Broker {
    /// Changes what stands above virtual hosts, and records it.
    fn change_directory(
        &self,
        change: impl FnOnce(&mut Directory, &mut Changes) -> Result<(), AdminError>,
    ) -> Result<Recorded, AdminError> {
        let mut directory = self.directory_mut();
        let mut changes = Changes::default();
        change(&mut directory, &mut changes)?;
        let lsn = changes.record(&*self.journal, &mut directory.recorded);
        Ok(Recorded { journal: Arc::clone(&self.journal), lsn })
    }

    fn change_vhost(
        &self,
        name: &str,
        change: impl FnOnce(&Vhost, &mut Tables, &mut Changes) -> Result<(), AdminError>,
    ) -> Result<Recorded, AdminError> {
        let vhost = self.find_vhost(name)?;
        let (result, lsn) = vhost
            .change(|tables, changes| change(&vhost, tables, changes))
            .ok_or_else(|| not_found("vhost", name))?;
        result.map(|()| Recorded { journal: Arc::clone(&self.journal), lsn })
    }

    fn find_vhost(&self, name: &str) -> Result<Arc<Vhost>, AdminError> {
        self.directory().vhosts.get(name).cloned().ok_or_else(|| not_found("vhost", name))
    }
}

/// The user is looked for first, as in RabbitMQ.
fn check_exist(directory: &Directory, user: &str, vhost: &str) -> Result<(), AdminError> {
    if !directory.users.contains_key(user) {
        return Err(not_found("user", user));
    }
    if !directory.vhosts.contains_key(vhost) {
        return Err(not_found("vhost", vhost));
    }
    Ok(())
}

fn not_found(kind: &'static str, name: &str) -> AdminError {
    AdminError::NotFound { kind, name: name.to_owned() }
}

/// Makes sure that names fit into the keys of what is stored.
pub(crate) fn check_names(names: &[&str]) -> Result<(), AdminError> {
    match names.iter().find(|name| name.len() > NAME_LEN_MAX) {
        Some(name) => Err(AdminError::NameTooLong(name.len())),
        None => Ok(()),
    }
}
