//! What is stored of a broker beside messages: one row, a key and a value, for each durable thing.
//!
//! A key is a tag and the names that tell the thing from others of its kind, the virtual host's first, so that what
//! belongs to a virtual host stands together. A value begins with the version of its layout.
//!
//! | tag | row | names in the key | value |
//! |---|---|---|---|
//! | 0 | starts | - | how often the broker was started |
//! | 1 | virtual host | name | - |
//! | 2 | user | name | hash of the password, tags |
//! | 3 | permissions | virtual host, user | three patterns |
//! | 5 | exchange | virtual host, name | kind, flags, arguments |
//! | 6 | queue | virtual host, name | id, flags, arguments |
//! | 7, 8 | binding to a queue, an exchange | virtual host, source, destination, routing key | arguments |
//! | 9, 10 | policy, operator policy | virtual host, name | pattern, what it is for, priority, definition |
//! | 11 | parameter | virtual host, component, name | JSON |
//! | 12 | clocks | - | start of the machine, time since then, the system's time, the time of queues |
//! | 13 | deduplication key | - | number, when it expires in the time of queues |
//!
//! The key of the last has the queue's id and the hash of the value behind its tag.
//!
//! Tag 4 is kept for permissions on topics. Since arguments are part of a binding's identity, the key of one that
//! has arguments ends with their digest.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use warren_queue::StoredKey;
use warren_router::{Binding, Destination, ExchangeDefinition, ExchangeKind};
use warren_store::Change;
use warren_types::{FieldTable, QueueId, ShortString};

use crate::auth::{Hashing, PasswordHash, Permissions, Tag, User};
use crate::clock::Reading;
use crate::policy::{ApplyTo, Parameter, Policy, PolicyKind};
use crate::stored_bytes::{Field, Fields, put_bytes, put_name, put_table};

const STARTS: u8 = 0;
const VHOST: u8 = 1;
const USER: u8 = 2;
const PERMISSIONS: u8 = 3;
const EXCHANGE: u8 = 5;
const QUEUE: u8 = 6;
const QUEUE_BINDING: u8 = 7;
const EXCHANGE_BINDING: u8 = 8;
const POLICY: u8 = 9;
const OPERATOR_POLICY: u8 = 10;
const PARAMETER: u8 = 11;
const CLOCKS: u8 = 12;
const DEDUP_KEY: u8 = 13;

/// The version of every value's layout.
const VERSION: u8 = 1;

/// What was stored cannot be understood, or does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot restore the {object}: {reason}")]
pub struct RestoreError {
    object: String,
    reason: String,
}

impl RestoreError {
    pub(crate) fn new(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { object: object.into(), reason: reason.into() }
    }
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredQueue {
    pub name: ShortString,
    pub id: QueueId,
    pub auto_delete: bool,
    pub state: QueueState,
    pub arguments: FieldTable,
}

/// What has become of a durable queue since it was declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    /// A message that expires by itself was stored in it: after a restart they are to be found.
    pub has_expirations: bool,
    /// An operator has paused it.
    pub paused: bool,
}

/// A durable thing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Starts(u64),
    Clocks(Reading),
    Vhost(Arc<str>),
    User(User),
    Permissions { vhost: Arc<str>, user: String, permissions: Permissions },
    Exchange { vhost: Arc<str>, exchange: ExchangeDefinition },
    Queue { vhost: Arc<str>, queue: StoredQueue },
    Binding { vhost: Arc<str>, binding: Binding },
    Policy { vhost: Arc<str>, kind: PolicyKind, policy: Policy },
    Parameter { vhost: Arc<str>, parameter: Parameter },
    DedupKey { queue: QueueId, key: StoredKey },
}

impl Row {
    /// Whether what has this key must be there before queues: virtual hosts and policies.
    pub(crate) fn is_needed_for_queues(key: &[u8]) -> bool {
        matches!(key.first(), Some(&(VHOST | POLICY | OPERATOR_POLICY)))
    }

    /// The change that stores it.
    pub(crate) fn put(&self) -> Change {
        Change { key: self.key(), value: Some(self.value()) }
    }

    /// The change that removes it.
    pub(crate) fn remove(&self) -> Change {
        Change { key: self.key(), value: None }
    }

    /// What it is, for people.
    pub(crate) fn label(&self) -> String {
        label(&self.key())
    }

    /// The virtual host that it belongs to, if it is of one.
    pub(crate) fn vhost(&self) -> Option<&Arc<str>> {
        match self {
            Self::Starts(_) | Self::Clocks(_) | Self::Vhost(_) | Self::User(_) | Self::DedupKey { .. } => {
                None
            }
            Self::Permissions { vhost, .. }
            | Self::Exchange { vhost, .. }
            | Self::Queue { vhost, .. }
            | Self::Binding { vhost, .. }
            | Self::Policy { vhost, .. }
            | Self::Parameter { vhost, .. } => Some(vhost),
        }
    }

    fn key(&self) -> Vec<u8> {
        match self {
            Self::Starts(_) => key(STARTS, []),
            Self::Clocks(_) => key(CLOCKS, []),
            Self::Vhost(name) => key(VHOST, [name.as_bytes()]),
            Self::User(user) => key(USER, [user.name.as_bytes()]),
            Self::Permissions { vhost, user, .. } => key(PERMISSIONS, [vhost.as_bytes(), user.as_bytes()]),
            Self::Exchange { vhost, exchange } => key(EXCHANGE, [vhost.as_bytes(), exchange.name.as_bytes()]),
            Self::Queue { vhost, queue } => key(QUEUE, [vhost.as_bytes(), queue.name.as_bytes()]),
            Self::Binding { vhost, binding } => binding_key(vhost, binding),
            Self::Policy { vhost, kind, policy } => {
                let tag = match kind {
                    PolicyKind::User => POLICY,
                    PolicyKind::Operator => OPERATOR_POLICY,
                };
                key(tag, [vhost.as_bytes(), policy.name.as_bytes()])
            }
            Self::Parameter { vhost, parameter: Parameter { component, name, .. } } => {
                key(PARAMETER, [vhost.as_bytes(), component.as_bytes(), name.as_bytes()])
            }
            Self::DedupKey { queue, key } => dedup_key(*queue, key.hash),
        }
    }

    fn value(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Starts(count) => out.extend_from_slice(&count.to_be_bytes()),
            Self::Clocks(reading) => {
                put_name(&mut out, reading.boot.as_bytes());
                for ms in [reading.uptime_ms, reading.system_ms, reading.queues_ms] {
                    out.extend_from_slice(&ms.to_be_bytes());
                }
            }
            Self::Vhost(_) => {}
            Self::User(user) => put_user(&mut out, user),
            Self::Permissions { permissions, .. } => {
                for pattern in permissions.patterns() {
                    put_bytes(&mut out, pattern.as_bytes());
                }
            }
            Self::Exchange { exchange, .. } => {
                put_name(&mut out, exchange.kind.name().as_bytes());
                out.extend_from_slice(&[exchange.auto_delete.into(), exchange.internal.into()]);
                put_table(&mut out, &exchange.arguments);
            }
            Self::Queue { queue, .. } => {
                out.extend_from_slice(&queue.id.0.to_be_bytes());
                let QueueState { has_expirations, paused } = queue.state;
                out.push(flags([queue.auto_delete, has_expirations, paused]));
                put_table(&mut out, &queue.arguments);
            }
            Self::Binding { binding, .. } => put_table(&mut out, &binding.arguments),
            Self::Policy { policy, .. } => {
                put_bytes(&mut out, policy.pattern.as_bytes());
                put_name(&mut out, policy.apply_to.name().as_bytes());
                out.extend_from_slice(&policy.priority.to_be_bytes());
                put_bytes(&mut out, policy.definition.as_bytes());
            }
            Self::Parameter { parameter, .. } => put_bytes(&mut out, parameter.value.as_bytes()),
            Self::DedupKey { key, .. } => {
                out.extend_from_slice(&key.number.to_be_bytes());
                out.extend_from_slice(&key.expires_at.to_be_bytes());
            }
        }
        out
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// If it is of an unknown kind or version, or makes no sense.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, RestoreError> {
        Self::read(key, value).map_err(|reason| RestoreError::new(label(key), reason))
    }

    fn read(key_bytes: &[u8], value: &[u8]) -> Field<Self> {
        let (mut key, mut value) = (Fields::new(key_bytes), Fields::new(value));
        let tag = key.u8()?;
        match value.u8()? {
            VERSION => {}
            other => return Err(format!("version {other} of its layout is unknown")),
        }
        let row = match tag {
            STARTS => Self::Starts(value.u64()?),
            CLOCKS => {
                let (boot, uptime_ms) = (value.text_name()?, value.u64()?);
                Self::Clocks(Reading { boot, uptime_ms, system_ms: value.u64()?, queues_ms: value.u64()? })
            }
            VHOST => Self::Vhost(key.text_name()?.into()),
            USER => Self::User(read_user(&mut key, &mut value)?),
            DEDUP_KEY => {
                let queue = QueueId(key.u64()?);
                let hash = u128::from(key.u64()?) << 64 | u128::from(key.u64()?);
                let key = StoredKey { hash, number: value.u64()?, expires_at: value.u64()? };
                Self::DedupKey { queue, key }
            }
            PERMISSIONS..=PARAMETER => {
                let vhost = Arc::from(key.text_name()?);
                Self::read_of_vhost(tag, vhost, &mut key, &mut value)?
            }
            _ => return Err("its kind is unknown".to_owned()),
        };
        value.end()?;
        // Catches what is left of the key as well, be it a wrong digest.
        if row.key() == key_bytes { Ok(row) } else { Err("its key does not fit its value".to_owned()) }
    }

    fn read_of_vhost(tag: u8, vhost: Arc<str>, key: &mut Fields<'_>, value: &mut Fields<'_>) -> Field<Self> {
        Ok(match tag {
            PERMISSIONS => {
                let user = key.text_name()?;
                let (configure, write, read) = (value.text()?, value.text()?, value.text()?);
                let permissions =
                    Permissions::new(&configure, &write, &read).map_err(|error| error.to_string())?;
                Self::Permissions { vhost, user, permissions }
            }
            EXCHANGE => Self::Exchange { vhost, exchange: read_exchange(key, value)? },
            QUEUE => {
                let name = key.short_string()?;
                let id = QueueId(value.u64()?);
                let [auto_delete, has_expirations, paused] = read_flags(value.u8()?)?;
                let (state, arguments) = (QueueState { has_expirations, paused }, value.table()?);
                Self::Queue { vhost, queue: StoredQueue { name, id, auto_delete, state, arguments } }
            }
            QUEUE_BINDING | EXCHANGE_BINDING => {
                let (source, destination) = (key.short_string()?, key.short_string()?);
                let destination = match tag {
                    QUEUE_BINDING => Destination::Queue(destination),
                    _ => Destination::Exchange(destination),
                };
                let (routing_key, arguments) = (key.short_string()?, value.table()?);
                Self::Binding { vhost, binding: Binding { source, destination, routing_key, arguments } }
            }
            POLICY | OPERATOR_POLICY => {
                let kind = if tag == POLICY { PolicyKind::User } else { PolicyKind::Operator };
                Self::Policy { vhost, kind, policy: read_policy(key, value)? }
            }
            PARAMETER => {
                let (component, name) = (key.text_name()?, key.text_name()?);
                Self::Parameter { vhost, parameter: Parameter { component, name, value: value.text()? } }
            }
            _ => return Err("its kind is unknown".to_owned()),
        })
    }
}

fn key<const N: usize>(tag: u8, names: [&[u8]; N]) -> Vec<u8> {
    let mut out = vec![tag];
    for name in names {
        put_name(&mut out, name);
    }
    out
}

fn dedup_key(queue: QueueId, hash: u128) -> Vec<u8> {
    let mut out = vec![DEDUP_KEY];
    out.extend_from_slice(&queue.0.to_be_bytes());
    out.extend_from_slice(&hash.to_be_bytes());
    out
}

/// The change after which a queue's key is stored no more.
pub(crate) fn remove_dedup_key(queue: QueueId, hash: u128) -> Change {
    Change { key: dedup_key(queue, hash), value: None }
}

fn binding_key(vhost: &str, binding: &Binding) -> Vec<u8> {
    let Binding { source, destination, routing_key, arguments } = binding;
    let tag = match destination {
        Destination::Queue(_) => QUEUE_BINDING,
        Destination::Exchange(_) => EXCHANGE_BINDING,
    };
    let destination = destination.name().as_bytes();
    let mut out = key(tag, [vhost.as_bytes(), source.as_bytes(), destination, routing_key.as_bytes()]);
    if !arguments.is_empty() {
        let mut table = Vec::new();
        put_table(&mut table, &arguments.clone().sorted());
        out.extend_from_slice(&Sha256::digest(&table));
    }
    out
}

fn put_user(out: &mut Vec<u8>, user: &User) {
    match &user.password {
        None => out.push(0),
        Some(hash) => {
            out.push(1);
            put_name(out, hash.hashing().name().as_bytes());
            put_bytes(out, hash.as_bytes());
        }
    }
    let tags = u32::try_from(user.tags.len()).expect("tags fit into memory");
    out.extend_from_slice(&tags.to_be_bytes());
    for tag in &user.tags {
        put_bytes(out, tag.name().as_bytes());
    }
}

fn read_user(key: &mut Fields<'_>, value: &mut Fields<'_>) -> Field<User> {
    let name = key.text_name()?;
    let password = match value.bool()? {
        false => None,
        true => {
            let hashing = value.text_name()?;
            let hashing =
                Hashing::parse(&hashing).ok_or_else(|| format!("there is no hashing '{hashing}'"))?;
            let hash = PasswordHash::from_bytes(hashing, value.bytes()?);
            Some(hash.ok_or("the hash of its password has the wrong length")?)
        }
    };
    let tags = (0..value.u32()?).map(|_| value.text().map(|name| Tag::from_name(&name)));
    Ok(User { name, password, tags: tags.collect::<Field<_>>()? })
}

fn read_exchange(key: &mut Fields<'_>, value: &mut Fields<'_>) -> Field<ExchangeDefinition> {
    let name = key.short_string()?;
    let kind = value.text_name()?;
    let kind =
        ExchangeKind::parse(kind.as_bytes()).ok_or_else(|| format!("there is no exchange type '{kind}'"))?;
    let (auto_delete, internal, arguments) = (value.bool()?, value.bool()?, value.table()?);
    Ok(ExchangeDefinition { name, kind, durable: true, auto_delete, internal, arguments })
}

fn read_policy(key: &mut Fields<'_>, value: &mut Fields<'_>) -> Field<Policy> {
    let (name, pattern, apply_to) = (key.text_name()?, value.text()?, value.text_name()?);
    let apply_to = ApplyTo::parse(&apply_to).ok_or_else(|| format!("no policy can apply to '{apply_to}'"))?;
    Ok(Policy { name, pattern, apply_to, priority: value.i64()?, definition: value.text()? })
}

/// What the key stands for, whether or not its value can be read.
/// One byte for several flags, the first in its lowest bit.
fn flags<const N: usize>(flags: [bool; N]) -> u8 {
    flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(flag))
}

fn read_flags<const N: usize>(bits: u8) -> Field<[bool; N]> {
    let read = std::array::from_fn(|at| bits & 1 << at != 0);
    if flags(read) == bits { Ok(read) } else { Err(format!("{bits} has unknown flags")) }
}

fn label(key: &[u8]) -> String {
    let mut fields = Fields::new(key);
    let tag = fields.u8().ok();
    if tag == Some(DEDUP_KEY)
        && let Ok(queue) = fields.u64()
    {
        return format!("deduplication key of the queue with the id {queue}");
    }
    let names: Vec<_> =
        std::iter::from_fn(|| fields.name().ok()).map(|name| String::from_utf8_lossy(name)).collect();
    match (tag, &names[..]) {
        (Some(STARTS), []) => "count of starts".to_owned(),
        (Some(CLOCKS), []) => "reading of the clocks".to_owned(),
        (Some(VHOST), [name]) => format!("virtual host '{name}'"),
        (Some(USER), [name]) => format!("user '{name}'"),
        (Some(PERMISSIONS), [vhost, user]) => format!("permissions of user '{user}' in vhost '{vhost}'"),
        (Some(EXCHANGE), [vhost, name]) => format!("exchange '{name}' in vhost '{vhost}'"),
        (Some(QUEUE), [vhost, name]) => format!("queue '{name}' in vhost '{vhost}'"),
        (Some(tag @ (QUEUE_BINDING | EXCHANGE_BINDING)), [vhost, source, destination, routing_key, ..]) => {
            let to = if tag == QUEUE_BINDING { "queue" } else { "exchange" };
            format!(
                "binding from exchange '{source}' to {to} '{destination}' with key '{routing_key}' in vhost '{vhost}'"
            )
        }
        (Some(POLICY), [vhost, name]) => format!("policy '{name}' in vhost '{vhost}'"),
        (Some(OPERATOR_POLICY), [vhost, name]) => format!("operator policy '{name}' in vhost '{vhost}'"),
        (Some(PARAMETER), [vhost, component, name]) => {
            format!("parameter '{name}' of component '{component}' in vhost '{vhost}'")
        }
        _ => format!("object with the key {}", key.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use warren_types::FieldValue;

    use super::*;

    fn arguments() -> FieldTable {
        let mut table = FieldTable::new();
        table.insert("b", FieldValue::U8(1));
        table.insert("a", FieldValue::Void);
        table
    }

    /// The bytes of [`arguments`].
    const ARGUMENTS: &[u8] = b"\0\0\0\x07\x01bB\x01\x01aV";

    fn vhost() -> Arc<str> {
        Arc::from("/")
    }

    fn user() -> Row {
        let hash = PasswordHash::from_bytes(Hashing::Sha256, &[7; 36]).expect("it has the right length");
        let tags = vec![Tag::Administrator, Tag::Other("t".into())];
        Row::User(User { name: "u".into(), password: Some(hash), tags })
    }

    fn exchange() -> Row {
        let exchange = ExchangeDefinition {
            name: "e".into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: true,
            internal: false,
            arguments: arguments(),
        };
        Row::Exchange { vhost: vhost(), exchange }
    }

    fn queue() -> Row {
        let (id, auto_delete) = (QueueId(258), false);
        let state = QueueState::default();
        let queue = StoredQueue { name: "q".into(), id, auto_delete, state, arguments: arguments() };
        Row::Queue { vhost: vhost(), queue }
    }

    fn used_queue() -> Row {
        let state = QueueState { has_expirations: true, paused: true };
        let arguments = FieldTable::new();
        let queue = StoredQueue { name: "q".into(), id: QueueId(1), auto_delete: true, state, arguments };
        Row::Queue { vhost: vhost(), queue }
    }

    fn binding(destination: Destination, arguments: FieldTable) -> Row {
        let binding = Binding { source: "s".into(), destination, routing_key: "k".into(), arguments };
        Row::Binding { vhost: vhost(), binding }
    }

    fn policy(kind: PolicyKind) -> Row {
        let (pattern, definition) = ("^q".to_owned(), "{}".to_owned());
        let policy =
            Policy { name: "p".into(), pattern, apply_to: ApplyTo::Queues, priority: -1, definition };
        Row::Policy { vhost: vhost(), kind, policy }
    }

    /// A row of each kind with its key and its value, each in pieces. What is stored for good has these bytes.
    fn check_each(check: impl Fn(Row, Vec<u8>, Vec<u8>)) {
        let permissions = Permissions::new("", "^w", ".*").expect("they are regular");
        let permissions = Row::Permissions { vhost: vhost(), user: "u".into(), permissions };
        let parameter = Parameter { component: "c".into(), name: "n".into(), value: "1".into() };
        let parameter = Row::Parameter { vhost: vhost(), parameter };
        let to_queue = binding(Destination::Queue("d".into()), arguments());
        let to_exchange = binding(Destination::Exchange("d".into()), FieldTable::new());
        let digest = Sha256::digest(b"\0\0\0\x07\x01aV\x01bB\x01");
        let hashing = b"\x01\x01\x1erabbit_password_hashing_sha256\0\0\0\x24";
        let tags = b"\0\0\0\x02\0\0\0\x0dadministrator\0\0\0\x01t";
        let policy_value = b"\x01\0\0\0\x02^q\x06queues\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x02{}";
        let case = |row, key: &[&[u8]], value: &[&[u8]]| check(row, key.concat(), value.concat());
        case(Row::Starts(3), &[b"\0"], &[b"\x01\0\0\0\0\0\0\0\x03"]);
        case(Row::Vhost(vhost()), &[b"\x01\x01/"], &[b"\x01"]);
        case(user(), &[b"\x02\x01u"], &[hashing, &[7; 36], tags]);
        case(permissions, &[b"\x03\x01/\x01u"], &[b"\x01\0\0\0\0\0\0\0\x02^w\0\0\0\x02.*"]);
        case(exchange(), &[b"\x05\x01/\x01e"], &[b"\x01\x05topic\x01\0", ARGUMENTS]);
        case(queue(), &[b"\x06\x01/\x01q"], &[b"\x01\0\0\0\0\0\0\x01\x02\0", ARGUMENTS]);
        case(used_queue(), &[b"\x06\x01/\x01q"], &[b"\x01\0\0\0\0\0\0\0\x01\x07\0\0\0\0"]);
        case(to_queue, &[b"\x07\x01/\x01s\x01d\x01k", &digest], &[b"\x01", ARGUMENTS]);
        case(to_exchange, &[b"\x08\x01/\x01s\x01d\x01k"], &[b"\x01\0\0\0\0"]);
        case(policy(PolicyKind::User), &[b"\x09\x01/\x01p"], &[policy_value]);
        case(policy(PolicyKind::Operator), &[b"\x0a\x01/\x01p"], &[policy_value]);
        let reading = Reading { boot: "b".into(), uptime_ms: 1, system_ms: 2, queues_ms: 3 };
        let times = [1_u64, 2, 3].map(u64::to_be_bytes).concat();
        case(Row::Clocks(reading), &[b"\x0c"], &[b"\x01\x01b", &times]);
        let key = StoredKey { hash: 0x0102, number: 3, expires_at: u64::MAX };
        let dedup_key = Row::DedupKey { queue: QueueId(258), key };
        let hash = [&[0; 14][..], b"\x01\x02"].concat();
        case(dedup_key, &[b"\x0d\0\0\0\0\0\0\x01\x02", &hash], &[b"\x01\0\0\0\0\0\0\0\x03", &[0xff; 8]]);
        case(parameter, &[b"\x0b\x01/\x01c\x01n"], &[b"\x01\0\0\0\x011"]);
    }

    #[test]
    fn every_row_has_its_bytes() {
        check_each(|row, key, value| {
            assert_eq!((row.key(), row.value()), (key.clone(), value.clone()), "{row:?}");
            assert_eq!(Row::decode(&key, &value), Ok(row));
        });
    }

    #[test]
    fn damaged_rows_are_errors_that_name_them() {
        check_each(|row, key, value| {
            for end in 0..value.len() {
                let error = Row::decode(&key, &value[..end]).expect_err("it ends early").to_string();
                assert!(error.starts_with(&format!("cannot restore the {}: ", row.label())), "{error}");
            }
            let longer = |bytes: &[u8]| [bytes, b"\0"].concat();
            assert!(Row::decode(&key, &longer(&value)).is_err(), "{row:?}");
            assert!(Row::decode(&longer(&key), &value).is_err(), "{row:?}");
            assert!(Row::decode(&key[..key.len() - 1], &value).is_err(), "{row:?}");
            let newer = Row::decode(&key, &[&[VERSION + 1], &value[1..]].concat());
            let error = newer.expect_err("the version is unknown").to_string();
            assert!(error.ends_with("version 2 of its layout is unknown"), "{error}");
        });
        let unknown = Row::decode(b"\x63\x01a", b"\x01").expect_err("there is no such kind");
        let expected = r"cannot restore the object with the key c\x01a: its kind is unknown";
        assert_eq!(unknown.to_string(), expected);
    }

    #[test]
    fn labels() {
        let row = binding(Destination::Queue("d".into()), arguments());
        assert_eq!(row.label(), "binding from exchange 's' to queue 'd' with key 'k' in vhost '/'");
        assert_eq!(policy(PolicyKind::Operator).label(), "operator policy 'p' in vhost '/'");
        assert_eq!(user().label(), "user 'u'");
    }

    #[test]
    fn the_order_of_arguments_is_no_part_of_a_key() {
        let with = |arguments| binding(Destination::Queue("d".into()), arguments).key();
        assert_eq!(with(arguments()), with(arguments().sorted()));
        assert_ne!(with(arguments()), with(FieldTable::new()));
    }

    fn short_string() -> impl Strategy<Value = ShortString> {
        vec(any::<u8>(), 0..=ShortString::LEN_MAX).prop_map(|bytes| ShortString::truncated(&bytes))
    }

    fn field_table() -> impl Strategy<Value = FieldTable> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(FieldValue::Bool),
            any::<i8>().prop_map(FieldValue::I8),
            any::<u16>().prop_map(FieldValue::U16),
            any::<i64>().prop_map(FieldValue::I64),
            any::<f64>().prop_map(FieldValue::F64),
            any::<u64>().prop_map(FieldValue::Timestamp),
            vec(any::<u8>(), 0..9).prop_map(FieldValue::LongString),
            Just(FieldValue::Void),
        ];
        let value = leaf.prop_recursive(3, 20, 4, |inner| {
            let table = vec((short_string(), inner.clone()), 0..4).prop_map(FieldTable);
            prop_oneof![vec(inner, 0..4).prop_map(FieldValue::Array), table.prop_map(FieldValue::Table)]
        });
        vec((short_string(), value), 0..4).prop_map(FieldTable)
    }

    fn any_exchange() -> impl Strategy<Value = ExchangeDefinition> {
        let kind = proptest::sample::select(&ExchangeKind::ALL[..]);
        (short_string(), kind, any::<[bool; 2]>(), field_table()).prop_map(
            |(name, kind, flags, arguments)| {
                let [auto_delete, internal] = flags;
                ExchangeDefinition { name, kind, durable: true, auto_delete, internal, arguments }
            },
        )
    }

    fn any_binding() -> impl Strategy<Value = Binding> {
        let destination = prop_oneof![
            short_string().prop_map(Destination::Queue),
            short_string().prop_map(Destination::Exchange)
        ];
        (short_string(), destination, short_string(), field_table()).prop_map(
            |(source, destination, routing_key, arguments)| Binding {
                source,
                destination,
                routing_key,
                arguments,
            },
        )
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let text = || "\\PC{0,60}";
        let vhost = || text().prop_map(Arc::from);
        let flags = any::<[bool; 3]>();
        let queue = (short_string(), any::<u64>(), flags, field_table()).prop_map(
            |(name, id, [auto_delete, has_expirations, paused], arguments)| StoredQueue {
                name,
                id: QueueId(id),
                auto_delete,
                state: QueueState { has_expirations, paused },
                arguments,
            },
        );
        let user = (text(), proptest::option::of(any::<[u8; 68]>()), vec(text(), 0..3));
        let parameter = (text(), text(), text()).prop_map(|(component, name, value)| Parameter {
            component,
            name,
            value,
        });
        prop_oneof![
            (vhost(), any_exchange()).prop_map(|(vhost, exchange)| Row::Exchange { vhost, exchange }),
            (vhost(), queue).prop_map(|(vhost, queue)| Row::Queue { vhost, queue }),
            (vhost(), any_binding()).prop_map(|(vhost, binding)| Row::Binding { vhost, binding }),
            (vhost(), parameter).prop_map(|(vhost, parameter)| Row::Parameter { vhost, parameter }),
            user.prop_map(|(name, hash, tags)| {
                let password = hash.and_then(|hash| PasswordHash::from_bytes(Hashing::Sha512, &hash));
                Row::User(User { name, password, tags: tags.iter().map(|tag| Tag::from_name(tag)).collect() })
            }),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back(row in any_row()) {
            prop_assert_eq!(Row::decode(&row.key(), &row.value()), Ok(row));
        }

        #[test]
        fn any_bytes_are_judged(key in vec(any::<u8>(), 0..40), value in vec(any::<u8>(), 0..40)) {
            if let Ok(row) = Row::decode(&key, &value) {
                prop_assert_eq!(row.key(), key);
            }
        }
    }
}
