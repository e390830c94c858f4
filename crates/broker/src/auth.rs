//! Users, their passwords, and what they may do where.

use std::net::IpAddr;

use regex::bytes::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use warren_types::AmqpError;

/// A user tag: what the user may do beside using permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// Everything in management.
    Administrator,
    /// May set a `user-id` other than its own name.
    Impersonator,
    /// Any other tag.
    Other(String),
}

/// A password as it is kept: salted SHA-256, RabbitMQ's default (`rabbit_password_hashing_sha256`).
#[derive(Clone)]
pub(crate) struct PasswordHash {
    salt: [u8; 4],
    hash: [u8; 32],
}

impl PasswordHash {
    /// Hashes with a new salt.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    pub(crate) fn new(password: &[u8]) -> Self {
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).expect("the operating system provides randomness");
        Self { salt, hash: Self::digest(salt, password) }
    }

    fn matches(&self, password: &[u8]) -> bool {
        self.hash.ct_eq(&Self::digest(self.salt, password)).into()
    }

    fn digest(salt: [u8; 4], password: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(salt).chain_update(password).finalize().into()
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub name: String,
    pub password: PasswordHash,
    pub tags: Vec<Tag>,
    /// May only connect from this machine (`loopback_users`).
    pub loopback_only: bool,
}

impl User {
    /// Checks the password and where it comes from.
    ///
    /// # Errors
    /// Why the login is refused: for the log, not for the client.
    pub(crate) fn check_login(&self, password: &[u8], from: IpAddr) -> Result<(), String> {
        let name = &self.name;
        // A blank password never logs in, even if one was set (features.md CON10).
        if password.is_empty() || !self.password.matches(password) {
            return Err(format!("user '{name}' - invalid credentials"));
        }
        self.check_origin(from)
    }

    /// Checks where a login comes from.
    ///
    /// # Errors
    /// Why the login is refused: for the log, not for the client.
    pub(crate) fn check_origin(&self, from: IpAddr) -> Result<(), String> {
        if self.loopback_only && !from.to_canonical().is_loopback() {
            return Err(format!("user '{}' can only connect via localhost", self.name));
        }
        Ok(())
    }

    pub(crate) fn is_impersonator(&self) -> bool {
        self.tags.contains(&Tag::Impersonator)
    }
}

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Configure,
    Write,
    Read,
}

/// A user's permissions in a virtual host: a pattern over names for each kind of access.
#[derive(Debug, Clone)]
pub struct Permissions {
    configure: Regex,
    write: Regex,
    read: Regex,
}

impl Permissions {
    /// Permissions by pattern; an empty one matches only the empty name, as in RabbitMQ.
    ///
    /// # Errors
    /// If a pattern is not a regular expression.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, regex::Error> {
        let compile = |pattern: &str| {
            let pattern = if pattern.is_empty() { "^$" } else { pattern };
            RegexBuilder::new(pattern).unicode(false).build()
        };
        Ok(Self { configure: compile(configure)?, write: compile(write)?, read: compile(read)? })
    }

    fn allow(&self, access: Access, name: &[u8]) -> bool {
        match access {
            Access::Configure => self.configure.is_match(name),
            Access::Write => self.write.is_match(name),
            Access::Read => self.read.is_match(name),
        }
    }
}

/// What access is asked for: a kind of resource and its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource<'a> {
    Exchange(&'a [u8]),
    Queue(&'a [u8]),
}

impl Resource<'_> {
    fn name(&self) -> &[u8] {
        match self {
            // The default exchange has no name that a pattern could match (features.md M5).
            Self::Exchange(b"") => b"amq.default",
            Self::Exchange(name) | Self::Queue(name) => name,
        }
    }

    /// The resource as error texts name it (`rabbit_misc:rs/1`).
    pub(crate) fn label(&self, vhost: &str) -> String {
        let kind = match self {
            Self::Exchange(_) => "exchange",
            Self::Queue(_) => "queue",
        };
        format!("{kind} '{}' in vhost '{vhost}'", String::from_utf8_lossy(self.name()))
    }
}

/// Checks one access.
///
/// # Errors
/// 403 with RabbitMQ's text.
pub(crate) fn check(
    permissions: &Permissions,
    access: Access,
    resource: Resource<'_>,
    vhost: &str,
    user: &str,
) -> Result<(), AmqpError> {
    if permissions.allow(access, resource.name()) {
        return Ok(());
    }
    let access = match access {
        Access::Configure => "configure",
        Access::Write => "write",
        Access::Read => "read",
    };
    Err(AmqpError::access_refused(format!(
        "{access} access to {} refused for user '{user}'",
        resource.label(vhost)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(password: &str, loopback_only: bool) -> User {
        let password = PasswordHash::new(password.as_bytes());
        User { name: "guest".into(), password, tags: vec![], loopback_only }
    }

    #[test]
    fn login() {
        let (near, far) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        let guest = user("secret", true);
        assert_eq!(guest.check_login(b"secret", near), Ok(()));
        assert_eq!(guest.check_login(b"Secret", near), Err("user 'guest' - invalid credentials".into()));
        assert_eq!(
            guest.check_login(b"secret", far),
            Err("user 'guest' can only connect via localhost".into())
        );
        assert!(guest.check_login(b"secret", "::ffff:127.0.0.1".parse().expect("an address")).is_ok());
        assert!(user("", false).check_login(b"", far).is_err());
    }

    #[test]
    fn patterns_are_not_anchored_and_empty_means_nothing() {
        let permissions = Permissions::new("", "^tenant-", ".*").expect("patterns are valid");
        let may = |access, name: &[u8]| check(&permissions, access, Resource::Queue(name), "/", "u").is_ok();
        assert!(!may(Access::Configure, b"q"));
        assert!(may(Access::Write, b"tenant-1"));
        assert!(!may(Access::Write, b"my-tenant-1"));
        assert!(may(Access::Read, &[0xff, 0xfe]));
    }

    #[test]
    fn the_default_exchange_has_a_name_for_patterns() {
        let permissions = Permissions::new("", "^amq\\.default$", "").expect("patterns are valid");
        assert!(check(&permissions, Access::Write, Resource::Exchange(b""), "/", "u").is_ok());
        let refused = check(&permissions, Access::Read, Resource::Exchange(b""), "/", "u");
        assert_eq!(
            refused.map_err(|error| error.explanation),
            Err("read access to exchange 'amq.default' in vhost '/' refused for user 'u'".into())
        );
    }
}
