//! Users, their passwords, and what they may do where.

use std::net::IpAddr;

use regex::bytes::{Regex, RegexBuilder};
use sha2::{Digest, Sha256, Sha512};
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

impl Tag {
    /// The tag with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "administrator" => Self::Administrator,
            "impersonator" => Self::Impersonator,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Administrator => "administrator",
            Self::Impersonator => "impersonator",
            Self::Other(name) => name,
        }
    }
}

/// How a password is hashed, behind a salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// SHA-256, RabbitMQ's default.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Hashing {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The way with this name in RabbitMQ.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hashing| hashing.name() == name)
    }

    /// The name in RabbitMQ.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn digest(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::new().chain_update(salt).chain_update(password).finalize().to_vec(),
            Self::Sha512 => Sha512::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        }
    }
}

/// A password as it is kept: a salt and the hash of both (`rabbit_password`).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    hashing: Hashing,
    /// Salt and hash.
    bytes: Vec<u8>,
}

impl PasswordHash {
    const SALT_LEN: usize = 4;

    /// Hashes with a new salt.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        let hashing = Hashing::Sha256;
        let mut salt = [0; Self::SALT_LEN];
        getrandom::fill(&mut salt).expect("the operating system provides randomness");
        Self { hashing, bytes: [&salt[..], &hashing.digest(&salt, password)].concat() }
    }

    /// A hash that was made elsewhere, with its salt of four bytes in front; none if the length is wrong.
    #[must_use]
    pub fn from_bytes(hashing: Hashing, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::SALT_LEN + hashing.len()).then(|| Self { hashing, bytes: bytes.to_vec() })
    }

    /// Salt and hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How it was hashed.
    #[must_use]
    pub fn hashing(&self) -> Hashing {
        self.hashing
    }

    fn matches(&self, password: &[u8]) -> bool {
        let (salt, hash) = self.bytes.split_at(Self::SALT_LEN);
        hash.ct_eq(&self.hashing.digest(salt, password)).into()
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Without one, the user cannot log in by password.
    pub password: Option<PasswordHash>,
    /// What it may do beside using permissions.
    pub tags: Vec<Tag>,
}

impl User {
    /// Checks the password.
    ///
    /// # Errors
    /// Why the login is refused: for the log, not for the client.
    pub(crate) fn check_password(&self, password: &[u8]) -> Result<(), String> {
        // A blank password never logs in, even if one was set (features.md CON10).
        let matches = |hash: &PasswordHash| !password.is_empty() && hash.matches(password);
        if !self.password.as_ref().is_some_and(matches) {
            return Err(format!("user '{}' - invalid credentials", self.name));
        }
        Ok(())
    }

    pub(crate) fn is_impersonator(&self) -> bool {
        self.tags.contains(&Tag::Impersonator)
    }
}

/// Users that may connect from this machine only (`loopback_users`).
#[derive(Debug)]
pub(crate) struct LoopbackUsers(pub Vec<String>);

impl LoopbackUsers {
    /// Checks where a login comes from.
    ///
    /// # Errors
    /// Why the login is refused: for the log, not for the client.
    pub(crate) fn check(&self, user: &User, from: IpAddr) -> Result<(), String> {
        if self.0.contains(&user.name) && !from.to_canonical().is_loopback() {
            return Err(format!("user '{}' can only connect via localhost", user.name));
        }
        Ok(())
    }
}

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Configure,
    Write,
    Read,
}

/// A regular expression over names, and how it was given.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, regex::Error> {
        // An empty pattern matches only the empty name, as in RabbitMQ.
        let regex = RegexBuilder::new(if text.is_empty() { "^$" } else { text }).unicode(false).build()?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

/// A user's permissions in a virtual host: a pattern over names for each kind of access.
#[derive(Debug, Clone)]
pub struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

impl Permissions {
    /// Permissions by pattern; an empty one matches only the empty name, as in RabbitMQ.
    ///
    /// # Errors
    /// If a pattern is not a regular expression.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, regex::Error> {
        Ok(Self {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// No permission for anything.
    pub(crate) fn none() -> Self {
        Self::new("", "", "").expect("an empty pattern is a regular expression")
    }

    /// The patterns for configuring, writing and reading, as they were given.
    #[must_use]
    pub fn patterns(&self) -> [&str; 3] {
        [&self.configure.text, &self.write.text, &self.read.text]
    }

    fn allow(&self, access: Access, name: &[u8]) -> bool {
        let pattern = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        pattern.regex.is_match(name)
    }
}

impl PartialEq for Permissions {
    fn eq(&self, other: &Self) -> bool {
        self.patterns() == other.patterns()
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

    fn user(password: Option<&str>) -> User {
        let password = password.map(|password| PasswordHash::new(password.as_bytes()));
        User { name: "guest".into(), password, tags: vec![] }
    }

    #[test]
    fn passwords() {
        let guest = user(Some("secret"));
        assert_eq!(guest.check_password(b"secret"), Ok(()));
        assert_eq!(guest.check_password(b"Secret"), Err("user 'guest' - invalid credentials".into()));
        assert!(user(Some("")).check_password(b"").is_err());
        assert!(user(None).check_password(b"").is_err());
    }

    #[test]
    fn hashes_that_were_made_elsewhere() {
        for hashing in Hashing::ALL {
            let bytes = [&[1, 2, 3, 4][..], &hashing.digest(&[1, 2, 3, 4], b"secret")].concat();
            let hash = PasswordHash::from_bytes(hashing, &bytes).expect("it has the right length");
            assert!(hash.matches(b"secret") && !hash.matches(b"Secret"));
            assert_eq!(PasswordHash::from_bytes(hashing, &bytes[1..]), None);
            assert_eq!(Hashing::parse(hashing.name()), Some(hashing));
        }
    }

    #[test]
    fn some_users_stay_on_this_machine() {
        let loopback_users = LoopbackUsers(vec!["guest".to_owned()]);
        let check = |from: &str| loopback_users.check(&user(None), from.parse().expect("an address"));
        assert_eq!(check("127.0.0.1"), Ok(()));
        assert_eq!(check("::ffff:127.0.0.1"), Ok(()));
        assert_eq!(check("10.0.0.1"), Err("user 'guest' can only connect via localhost".into()));
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
