//! Where a connection is, and what it may do there.

use std::sync::Arc;

use warren_store::Lsn;
use warren_types::{AmqpError, ConnectionId, QueueRef};

use crate::auth::{self, Access, Permissions, Resource, User};
use crate::changes::Changes;
use crate::events::Events;
use crate::vhost::{QueueEntry, Tables, Vhost};

/// Where the connection is, and what it may do there.
#[derive(Debug)]
pub(crate) struct Place {
    pub vhost: Arc<Vhost>,
    pub permissions: Arc<Permissions>,
    /// The version of the virtual host's permissions that `permissions` are from.
    pub permissions_version: u64,
    pub user: Arc<User>,
    pub connection: ConnectionId,
    pub events: Arc<Events>,
}

impl Place {
    /// # Errors
    /// 403 if the user has no such permission.
    pub(crate) fn check(&self, access: Access, resource: Resource<'_>) -> Result<(), AmqpError> {
        auth::check(&self.permissions, access, resource, &self.vhost.name, &self.user.name)
    }

    /// For passive declares: any permission will do (`rabbit_channel:check_any_resource_access_permitted/3`).
    ///
    /// # Errors
    /// 403 if the user has no permission at all, named as one to configure.
    pub(crate) fn check_any(&self, resource: Resource<'_>) -> Result<(), AmqpError> {
        self.check(Access::Read, resource)
            .or_else(|_| self.check(Access::Write, resource))
            .or_else(|_| self.check(Access::Configure, resource))
    }

    pub(crate) fn label(&self, resource: Resource<'_>) -> String {
        resource.label(&self.vhost.name)
    }

    pub(crate) fn not_found(&self, resource: Resource<'_>) -> AmqpError {
        AmqpError::not_found(format!("no {}", self.label(resource)))
    }

    /// # Errors
    /// 404 if there is no such queue, 405 if it is another connection's own.
    pub(crate) fn queue(&self, name: &[u8]) -> Result<QueueRef, AmqpError> {
        self.find_queue(&self.vhost.read(), name).map(|entry| entry.queue)
    }

    /// # Errors
    /// 404 if there is no such queue, 405 if it is another connection's own.
    pub(crate) fn find_queue<'a>(
        &self,
        tables: &'a Tables,
        name: &[u8],
    ) -> Result<&'a QueueEntry, AmqpError> {
        let entry = tables.queues.get(name).ok_or_else(|| self.not_found(Resource::Queue(name)))?;
        self.check_owner(name, entry.owner)?;
        Ok(entry)
    }

    /// Changes the virtual host's tables; see [`Vhost::change`].
    ///
    /// # Errors
    /// What `change` refuses; 530 if the virtual host is deleted.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Tables, &mut Changes) -> Result<T, AmqpError>,
    ) -> Result<(T, Lsn), AmqpError> {
        let name = &self.vhost.name;
        let (result, lsn) = self
            .vhost
            .change(change)
            .ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
        result.map(|value| (value, lsn))
    }

    /// # Errors
    /// 405 if the queue belongs to another connection.
    pub(crate) fn check_owner(&self, name: &[u8], owner: Option<ConnectionId>) -> Result<(), AmqpError> {
        if owner.is_none_or(|owner| owner == self.connection) { Ok(()) } else { Err(self.locked(name)) }
    }

    pub(crate) fn locked(&self, name: &[u8]) -> AmqpError {
        AmqpError::resource_locked(format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection \
             or the exclusive property value does not match that of the original declaration.",
            self.label(Resource::Queue(name))
        ))
    }
}
