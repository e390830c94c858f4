//! Administration: virtual hosts, users, permissions, policies and parameters.
//!
//! Every change is visible when the call returns, and stored once [`Recorded::durable`] returns.

use std::sync::Arc;

use tokio::task::JoinHandle;
use warren_queue::Command;
use warren_store::{Journal, Lsn};
use warren_types::AmqpError;

use crate::auth::{PasswordHash, Permissions, Tag, User};
use crate::broker::Broker;
use crate::changes::Changes;
use crate::directory::Directory;
use crate::events::OPERATOR;
use crate::metadata::Row;
use crate::policy::{Change, EffectivePolicies, Parameter, Pass, Policy, PolicyError, PolicyKind, Rule};
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
    /// What is to be created is there.
    #[error("{kind} '{name}' already exists")]
    Exists {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A name cannot be stored.
    #[error("a name of {0} bytes is too long: at most {NAME_LEN_MAX} are possible")]
    NameTooLong(usize),
    /// A policy is not valid.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// A change that is visible, and perhaps not stored yet.
#[derive(Debug)]
#[must_use = "the change may be lost until it is durable"]
pub struct Recorded {
    journal: Arc<dyn Journal>,
    lsn: Lsn,
    /// Ends when the change has come to all that it concerns.
    applied: Option<JoinHandle<()>>,
}

impl Recorded {
    /// The place in the journal.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Waits until the change survives a crash and has come to all that it concerns.
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
        if let Some(applied) = self.applied {
            // It is not there any more if the runtime ends.
            let _ended = applied.await;
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
        let mut created = None;
        let recorded = self.change_directory(|directory, changes| {
            if directory.vhosts.contains_key(name) {
                changes.rely_on_earlier();
            } else {
                directory.add_vhost(name, &self.journal, changes);
                created = directory.vhosts.get(name).cloned();
            }
            Ok(())
        })?;
        if let Some(vhost) = created
            && self.events.are_wanted()
        {
            let exchanges: Vec<_> = vhost.read().router.exchanges().cloned().collect();
            self.events.vhost_created(name, &exchanges);
        }
        Ok(recorded)
    }

    /// Deletes a virtual host with everything in it, and closes its connections.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn delete_vhost(&self, name: &str) -> Result<Recorded, AdminError> {
        let (mut queues, mut removed, mut revoked) = Default::default();
        let recorded = self.change_directory(|directory, changes| {
            let vhost = directory.vhosts.remove(name).ok_or_else(|| not_found("vhost", name))?;
            (queues, removed) = vhost.delete(changes);
            revoked = directory.revoke(|vhost, _| vhost == name, changes);
            Ok(())
        })?;
        for (queue, _) in &queues {
            self.events.queue_deleted(name, queue, OPERATOR);
        }
        self.events.removed(name, &removed, OPERATOR);
        self.tell_revoked(&revoked);
        self.events.vhost_deleted(name);
        for (_, queue) in queues {
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
        let (tags, has_password) = (user.tags.clone(), user.password.is_some());
        let mut is_new = false;
        let recorded = self.change_directory(|directory, changes| {
            is_new = !directory.users.contains_key(name);
            directory.put_user(user, changes);
            Ok(())
        })?;
        match (is_new, has_password) {
            (true, _) => self.events.user("user.created", name),
            (false, true) => self.events.user("user.password.changed", name),
            (false, false) => self.events.user("user.password.cleared", name),
        }
        if !is_new || !tags.is_empty() {
            self.events.user_tags_set(name, &tags);
        }
        Ok(recorded)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// If there is one of this name, or if the name is too long.
    pub fn add_user(
        &self,
        name: &str,
        credentials: Credentials<'_>,
        tags: Vec<Tag>,
    ) -> Result<Recorded, AdminError> {
        check_names(&[name])?;
        let user = User { name: name.to_owned(), password: credentials.hash(), tags };
        self.change_directory(|directory, changes| {
            if directory.users.contains_key(name) {
                return Err(AdminError::Exists { kind: "user", name: name.to_owned() });
            }
            directory.put_user(user, changes);
            Ok(())
        })
    }

    /// Changes a user's tags.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn set_user_tags(&self, name: &str, tags: Vec<Tag>) -> Result<Recorded, AdminError> {
        self.change_directory(|directory, changes| {
            let user = directory.users.get(name).ok_or_else(|| not_found("user", name))?;
            let user = User { tags, ..User::clone(user) };
            directory.put_user(user, changes);
            Ok(())
        })
    }

    /// Checks a user's password.
    ///
    /// # Errors
    /// Why it is refused: for operators.
    pub fn authenticate(&self, name: &str, password: &[u8]) -> Result<(), String> {
        match self.user(name) {
            Some(user) => user.check_password(password),
            None => Err(format!("user '{name}' - invalid credentials")),
        }
    }

    /// Changes how a user proves who it is.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn change_password(&self, name: &str, credentials: Credentials<'_>) -> Result<Recorded, AdminError> {
        let password = credentials.hash();
        let key = if password.is_some() { "user.password.changed" } else { "user.password.cleared" };
        let recorded = self.change_directory(|directory, changes| {
            let user = directory.users.get(name).ok_or_else(|| not_found("user", name))?;
            let user = User { password, ..User::clone(user) };
            directory.put_user(user, changes);
            Ok(())
        })?;
        self.events.user(key, name);
        Ok(recorded)
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
        self.events.user("user.deleted", name);
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

    /// Sets what a user may do in a virtual host, also through connections that are open there.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn set_permissions(
        &self,
        user: &str,
        vhost: &str,
        permissions: Permissions,
    ) -> Result<Recorded, AdminError> {
        let told = self.events.are_wanted().then(|| permissions.clone());
        let recorded = self.change_directory(|directory, changes| {
            check_exist(directory, user, vhost)?;
            directory.grant(user, vhost, permissions, changes);
            Ok(())
        })?;
        if let Some(permissions) = told {
            self.events.permission_created(vhost, user, &permissions);
        }
        Ok(recorded)
    }

    /// Takes all permissions in a virtual host from a user. Connections that are open there stay, and may do nothing.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn clear_permissions(&self, user: &str, vhost: &str) -> Result<Recorded, AdminError> {
        let recorded = self.change_directory(|directory, changes| {
            check_exist(directory, user, vhost)?;
            changes.rely_on_earlier();
            directory.revoke(|of_vhost, of_user| (of_vhost, of_user) == (vhost, user), changes);
            Ok(())
        })?;
        // Also where there were none, as in RabbitMQ.
        self.events.permission_deleted(vhost, user);
        Ok(recorded)
    }

    fn tell_revoked(&self, revoked: &[(String, String)]) {
        for (vhost, user) in revoked {
            self.events.permission_deleted(vhost, user);
        }
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
        Ok(vhost.read().policies.of_kind(kind).cloned().collect())
    }

    /// Adds a policy, or changes the one of this name. When this returns, it applies to what is declared from now on, and to
    /// what there is unless that is much; then it is applied to the rest while others have their turns.
    ///
    /// # Errors
    /// If there is no such virtual host, or if the policy is not valid.
    pub fn set_policy(&self, vhost: &str, kind: PolicyKind, policy: Policy) -> Result<Recorded, AdminError> {
        check_names(&[&policy.name])?;
        let rule = Rule::new(kind, policy)?;
        let mut change = None;
        let mut recorded = self.change_vhost(vhost, |vhost, tables, changes| {
            // Nobody hears of what was so already (`rabbit_runtime_parameters:set_any0/5`).
            if tables.policies.get(kind, &rule.policy.name) == Some(&rule.policy) {
                changes.rely_on_earlier();
            } else {
                changes.put(&vhost.policy_row(kind, &rule.policy));
                change = Some(tables.policies.set(rule));
            }
            Ok(())
        })?;
        if let Some(change) = change {
            recorded.applied = self.apply_policies(vhost, change.clone())?;
            if let Some(policy) = change.policy() {
                self.events.policy_set(vhost, policy);
            }
        }
        Ok(recorded)
    }

    /// Removes a policy; what it applied to gets the settings that are left to it, as after [`Self::set_policy`].
    ///
    /// # Errors
    /// If there is no such virtual host or policy.
    pub fn clear_policy(&self, vhost: &str, kind: PolicyKind, name: &str) -> Result<Recorded, AdminError> {
        let mut change = None;
        let mut recorded = self.change_vhost(vhost, |vhost, tables, changes| {
            let (policy, cleared) =
                tables.policies.clear(kind, name).ok_or_else(|| not_found("policy", name))?;
            changes.remove(&vhost.policy_row(kind, &policy));
            change = Some(cleared);
            Ok(())
        })?;
        if let Some(change) = change {
            recorded.applied = self.apply_policies(vhost, change)?;
        }
        self.events.policy_cleared(vhost, kind, name);
        Ok(recorded)
    }

    /// The policies that apply to a queue.
    ///
    /// # Errors
    /// If there is no such virtual host or queue.
    pub fn policies_of_queue(&self, vhost: &str, name: &str) -> Result<EffectivePolicies, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let tables = vhost.read();
        let queue = tables.queues.get(name.as_bytes()).ok_or_else(|| not_found("queue", name))?;
        Ok(queue.policy.as_deref().into())
    }

    /// The policies that apply to an exchange.
    ///
    /// # Errors
    /// If there is no such virtual host or exchange.
    pub fn policies_of_exchange(&self, vhost: &str, name: &str) -> Result<EffectivePolicies, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let tables = vhost.read();
        tables.router.exchange(name.as_bytes()).ok_or_else(|| not_found("exchange", name))?;
        Ok(tables.policy_of_exchange(name.as_bytes()).as_ref().into())
    }

    /// Brings a virtual host in line with a changed policy: a page at once, and the rest in a task.
    fn apply_policies(&self, vhost: &str, change: Change) -> Result<Option<JoinHandle<()>>, AdminError> {
        let mut pass = Pass::new(self.find_vhost(vhost)?, &self.shards, &self.events, change);
        if !pass.page() {
            return Ok(None);
        }
        Ok(Some(self.runtime.spawn(async move {
            while pass.page() {
                tokio::task::yield_now().await;
            }
        })))
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
        let told = self.events.are_wanted().then(|| parameter.clone());
        let recorded = self.change_vhost(vhost, |vhost, tables, changes| {
            changes.put(&vhost.parameter_row(&parameter));
            let key = (parameter.component.clone(), parameter.name.clone());
            tables.parameters.insert(key, parameter);
            Ok(())
        })?;
        if let Some(parameter) = told {
            self.events.parameter_set(vhost, &parameter);
        }
        Ok(recorded)
    }

    /// Removes a parameter.
    ///
    /// # Errors
    /// If there is no such virtual host or parameter.
    pub fn clear_parameter(&self, vhost: &str, component: &str, name: &str) -> Result<Recorded, AdminError> {
        let recorded = self.change_vhost(vhost, |vhost, tables, changes| {
            let key = (component.to_owned(), name.to_owned());
            let parameter = tables.parameters.remove(&key).ok_or_else(|| not_found("parameter", name))?;
            changes.remove(&vhost.parameter_row(&parameter));
            Ok(())
        })?;
        self.events.parameter_cleared(vhost, component, name);
        Ok(recorded)
    }
}

// ---- the firehose ------------------------------------------------------------------------------------------

impl Broker {
    /// Whether what is published and delivered in a virtual host is copied to its exchange `amq.rabbitmq.trace`.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn tracing(&self, vhost: &str) -> Result<bool, AdminError> {
        Ok(self.find_vhost(vhost)?.is_traced())
    }

    /// Copies what is published and delivered in a virtual host to its exchange `amq.rabbitmq.trace`, or stops that. As
    /// in RabbitMQ, whose tools set a variable of the running node, it is not stored: a restart ends it.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn set_tracing(&self, vhost: &str, traced: bool) -> Result<(), AdminError> {
        let was_traced = self.find_vhost(vhost)?.set_traced(traced);
        match (was_traced, traced) {
            (false, true) => tracing::info!("Enabling tracing for vhost '{vhost}'"),
            (true, true) => tracing::info!("Tracing is already enabled for vhost '{vhost}'"),
            (true, false) => tracing::info!("Disabling tracing for vhost '{vhost}'"),
            (false, false) => tracing::info!("Tracing is already disabled for vhost '{vhost}'"),
        }
        Ok(())
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
        Ok(Recorded { journal: Arc::clone(&self.journal), lsn, applied: None })
    }

    pub(crate) fn change_vhost(
        &self,
        name: &str,
        change: impl FnOnce(&Vhost, &mut Tables, &mut Changes) -> Result<(), AdminError>,
    ) -> Result<Recorded, AdminError> {
        let vhost = self.find_vhost(name)?;
        let (result, lsn) = vhost
            .change(|tables, changes| change(&vhost, tables, changes))
            .ok_or_else(|| not_found("vhost", name))?;
        result.map(|()| Recorded { journal: Arc::clone(&self.journal), lsn, applied: None })
    }

    pub(crate) fn find_vhost(&self, name: &str) -> Result<Arc<Vhost>, AdminError> {
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

pub(crate) fn not_found(kind: &'static str, name: &str) -> AdminError {
    AdminError::NotFound { kind, name: name.to_owned() }
}

/// Makes sure that names fit into the keys of what is stored.
pub(crate) fn check_names(names: &[&str]) -> Result<(), AdminError> {
    match names.iter().find(|name| name.len() > NAME_LEN_MAX) {
        Some(name) => Err(AdminError::NameTooLong(name.len())),
        None => Ok(()),
    }
}
