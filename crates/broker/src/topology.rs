//! Declaring, deleting and binding: what names stand for in a virtual host.
//!
//! Each operation returns up to where the journal must be durable before the client is answered. That includes
//! what others have recorded where the answer tells of it: that something is there already, or gone already.

use warren_queue::{QueueKind, Settings};
use warren_router::{
    ALTERNATE_EXCHANGE, BindError, Binding, Bound, Declared, DeleteExchangeError, Destination,
    ExchangeDefinition, ExchangeKind, Inequivalent, Removed,
};
use warren_store::Lsn;
use warren_types::session::{Bind, BindTarget, ExchangeDeclare, QueueDeclare};
use warren_types::{AmqpError, ConnectionId, FieldTable, FieldValue, QueueRef, ShortString};

use crate::auth::{Access, Resource};
use crate::broker::Broker;
use crate::changes::Changes;
use crate::direct_reply::ADDRESS_PREFIX;
use crate::equivalence::{check_arguments, check_flag};
use crate::history;
use crate::metadata::QueueState;
use crate::place::Place;
use crate::policy::PolicyKind;
use crate::queue_arguments;
use crate::vhost::{QueueDefinition, QueueEntry, RESERVED_PREFIX, Tables, gate_settings};

/// Longest prefix that a client may choose for server-named queues, in bytes.
const NAME_PREFIX_LEN_MAX: usize = 64;

fn check_name(kind: &str, name: &[u8]) -> Result<(), AmqpError> {
    if !name.starts_with(RESERVED_PREFIX) {
        return Ok(());
    }
    let name = String::from_utf8_lossy(name);
    Err(AmqpError::access_refused(format!("{kind} name '{name}' contains reserved prefix 'amq.*'")))
}

fn check_not_default(name: &[u8]) -> Result<(), AmqpError> {
    if name.is_empty() {
        return Err(AmqpError::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

// ---- exchanges -------------------------------------------------------------------------------------------

pub(crate) fn declare_exchange(
    place: &Place,
    broker: &Broker,
    declare: ExchangeDeclare,
) -> Result<Lsn, AmqpError> {
    let resource = Resource::Exchange(declare.name.as_bytes());
    if declare.passive {
        check_not_default(declare.name.as_bytes())?;
        place.check_any(resource)?;
        let tables = place.vhost.read();
        return tables
            .router
            .exchange(declare.name.as_bytes())
            .map(|exchange| tables.recorded_if(exchange.durable))
            .ok_or_else(|| place.not_found(resource));
    }
    let kind = ExchangeKind::parse(declare.kind.as_bytes())
        .ok_or_else(|| AmqpError::precondition_failed(format!("unknown exchange type '{}'", declare.kind)))?;
    check_not_default(declare.name.as_bytes())?;
    place.check(Access::Configure, resource)?;
    let definition = ExchangeDefinition {
        name: declare.name,
        kind,
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        arguments: declare.arguments,
    };
    let (declared, recorded) = place.change(|tables, changes| {
        let mut new_gate = None;
        if tables.router.exchange(definition.name.as_bytes()).is_none() {
            check_name("exchange", definition.name.as_bytes())?;
            check_alternate(place, &definition)?;
            definition
                .check_arguments()
                .map_err(|error| AmqpError::precondition_failed(error.to_string()))?;
            let settings = gate_settings(&place.vhost, &definition)?;
            new_gate = (definition.delays() || definition.deduplicates()).then_some(settings);
        }
        let declared = (tables.router.declare_exchange(definition.clone()))
            .map_err(|difference| exchange_differs(place, &definition, &difference))?;
        if let Some(settings) = new_gate {
            let id = broker.queue_ids.next();
            let (name, _) = place.vhost.add_gate(tables, &broker.shards, id, &definition, settings);
            if let Some(entry) = tables.queues.get(&name).filter(|entry| entry.durable) {
                changes.put(&place.vhost.queue_row(&name, entry));
            }
        }
        match declared {
            _ if !definition.durable => {}
            Declared::New => changes.put(&place.vhost.exchange_row(&definition)),
            Declared::Existing => changes.rely_on_earlier(),
        }
        if declared == Declared::New {
            tables.apply_to_exchange(definition.name.as_bytes());
        }
        Ok(declared)
    })?;
    if declared == Declared::New && place.events.are_wanted() {
        let policy = place.vhost.read().policy_of_exchange(definition.name.as_bytes());
        let name = policy.as_ref().and_then(|policy| policy.name(PolicyKind::User));
        place.events.exchange_created(&place.vhost.name, (&definition, name), &place.user.name);
    }
    Ok(recorded)
}

fn check_alternate(place: &Place, exchange: &ExchangeDefinition) -> Result<(), AmqpError> {
    let resource = Resource::Exchange(exchange.name.as_bytes());
    match exchange.arguments.get(ALTERNATE_EXCHANGE) {
        None => Ok(()),
        Some(FieldValue::LongString(alternate)) => {
            place.check(Access::Read, resource)?;
            place.check(Access::Write, Resource::Exchange(alternate))
        }
        Some(other) => Err(AmqpError::precondition_failed(format!(
            "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in {}",
            other.type_name(),
            place.label(resource)
        ))),
    }
}

fn exchange_differs(place: &Place, exchange: &ExchangeDefinition, difference: &Inequivalent) -> AmqpError {
    let label = place.label(Resource::Exchange(exchange.name.as_bytes()));
    let argument = difference.argument;
    AmqpError::precondition_failed(format!("inequivalent arg '{argument}' for {label}: {difference}"))
}

pub(crate) fn delete_exchange(place: &Place, name: &[u8], if_unused: bool) -> Result<Lsn, AmqpError> {
    check_not_default(name)?;
    let resource = Resource::Exchange(name);
    if name.starts_with(RESERVED_PREFIX) {
        let label = place.label(resource);
        return Err(AmqpError::access_refused(format!("deletion of system {label} not allowed")));
    }
    place.check(Access::Configure, resource)?;
    let (removed, recorded) = place.change(|tables, changes| {
        let exchange = tables.router.exchange(name).cloned();
        match tables.router.delete_exchange(name, if_unused) {
            Ok(mut removed) => {
                removed.exchanges.extend(exchange);
                place.vhost.record_removed(tables, &removed, changes);
                Ok(removed)
            }
            Err(DeleteExchangeError::NotFound) => {
                changes.rely_on_earlier();
                Ok(Removed::default())
            }
            Err(DeleteExchangeError::InUse) => {
                Err(AmqpError::precondition_failed(format!("{} in use", place.label(resource))))
            }
            Err(error @ DeleteExchangeError::DefaultExchange) => {
                Err(AmqpError::access_refused(error.to_string()))
            }
        }
    })?;
    place.events.removed(&place.vhost.name, &removed, &place.user.name);
    Ok(recorded)
}

// ---- bindings --------------------------------------------------------------------------------------------

pub(crate) fn bind(place: &Place, broker: &Broker, bind: Bind) -> Result<Lsn, AmqpError> {
    let binding = check_binding(place, bind)?;
    let (bound, recorded) = place.change(|tables, changes| {
        check_binding_owner(place, tables, &binding)?;
        match tables.router.bind(binding.clone()) {
            Ok(bound) => {
                if bound == Bound::New {
                    history::replay(tables, &binding, &broker.shards);
                }
                match bound {
                    _ if !tables.is_durable(&binding) => {}
                    Bound::New => changes.put(&place.vhost.binding_row(&binding)),
                    Bound::Existing => changes.rely_on_earlier(),
                }
                Ok(bound)
            }
            Err(BindError::NoSource) => Err(place.not_found(Resource::Exchange(binding.source.as_bytes()))),
            Err(BindError::NoDestination) => Err(place.not_found(destination(&binding))),
            Err(BindError::InvalidArgument(error)) => Err(AmqpError::precondition_failed(error.to_string())),
            Err(error @ BindError::DefaultExchange) => Err(AmqpError::access_refused(error.to_string())),
        }
    })?;
    if bound == Bound::New {
        place.events.binding_created(&place.vhost.name, &binding, &place.user.name);
    }
    Ok(recorded)
}

/// What is missing is unbound already.
pub(crate) fn unbind(place: &Place, bind: Bind) -> Result<Lsn, AmqpError> {
    let binding = check_binding(place, bind)?;
    let (removed, recorded) = place.change(|tables, changes| {
        check_binding_owner(place, tables, &binding)?;
        let removed =
            (tables.router.unbind(&binding)).map_err(|error| AmqpError::access_refused(error.to_string()))?;
        match removed.is_empty() {
            true => changes.rely_on_earlier(),
            false => place.vhost.record_removed(tables, &removed, changes),
        }
        Ok(removed)
    })?;
    place.events.removed(&place.vhost.name, &removed, &place.user.name);
    Ok(recorded)
}

/// Permissions and names, in the order of `rabbit_channel:binding_action_with_checks/10`.
fn check_binding(place: &Place, bind: Bind) -> Result<Binding, AmqpError> {
    let Bind { source, target, destination: name, routing_key, arguments } = bind;
    if target == BindTarget::Queue && name.as_bytes().starts_with(ADDRESS_PREFIX) {
        return Err(AmqpError::access_refused("cannot bind or unbind to a volatile (direct reply-to) queue"));
    }
    let to = match target {
        BindTarget::Queue => Destination::Queue(name),
        BindTarget::Exchange => Destination::Exchange(name),
    };
    let binding = Binding { source, destination: to, routing_key, arguments };
    place.check(Access::Write, destination(&binding))?;
    if let Destination::Exchange(name) = &binding.destination {
        check_not_default(name.as_bytes())?;
    }
    check_not_default(binding.source.as_bytes())?;
    place.check(Access::Read, Resource::Exchange(binding.source.as_bytes()))?;
    Ok(binding)
}

fn check_binding_owner(place: &Place, tables: &Tables, binding: &Binding) -> Result<(), AmqpError> {
    match &binding.destination {
        Destination::Queue(name) => match tables.queues.get(name) {
            Some(entry) => place.check_owner(name.as_bytes(), entry.owner),
            None => Ok(()),
        },
        Destination::Exchange(_) => Ok(()),
    }
}

fn destination(binding: &Binding) -> Resource<'_> {
    match &binding.destination {
        Destination::Queue(name) => Resource::Queue(name.as_bytes()),
        Destination::Exchange(name) => Resource::Exchange(name.as_bytes()),
    }
}

// ---- queues ----------------------------------------------------------------------------------------------

/// A queue that was declared.
#[derive(Debug)]
pub(crate) struct DeclaredQueue {
    pub name: ShortString,
    pub queue: QueueRef,
    pub is_new: bool,
    /// Up to where the journal must be durable before the client is answered.
    pub recorded: Lsn,
}

pub(crate) fn declare_queue(
    place: &Place,
    broker: &Broker,
    declare: &QueueDeclare,
) -> Result<DeclaredQueue, AmqpError> {
    if declare.passive {
        place.check_any(Resource::Queue(declare.name.as_bytes()))?;
        let tables = place.vhost.read();
        let entry = place.find_queue(&tables, declare.name.as_bytes())?;
        let (queue, recorded) = (entry.queue, tables.recorded_if(entry.durable));
        return Ok(DeclaredQueue { name: declare.name.clone(), queue, is_new: false, recorded });
    }
    let can_be_replicated = declare.durable && !declare.exclusive && !declare.auto_delete;
    let arguments =
        queue_arguments::with_default_type(&declare.arguments, broker.default_queue_type, can_be_replicated);
    let declare = &QueueDeclare { arguments, ..declare.clone() };
    let name = match declare.name.is_empty() {
        true => generate_name(declare)?,
        false => declare.name.clone(),
    };
    if !declare.name.is_empty() {
        check_name("queue", name.as_bytes())?;
    }
    place.check(Access::Configure, Resource::Queue(name.as_bytes()))?;
    let ((queue, created), recorded) = place.change(|tables, changes| {
        if let Some(entry) = tables.queues.get(&name) {
            check_same(place, &name, entry, declare)?;
            if entry.durable {
                changes.rely_on_earlier();
            }
            return Ok((entry.queue, None));
        }
        let queue = create_queue(place, broker, &name, declare, tables, changes)?;
        // Only who tells of it needs to know it all.
        let created = place.events.are_wanted().then(|| tables.queues.get(&name).cloned());
        Ok((queue, Some(created.flatten())))
    })?;
    if let Some(Some(entry)) = &created {
        place.events.queue_created(&place.vhost.name, &name, entry, &place.user.name);
    }
    Ok(DeclaredQueue { name, queue, is_new: created.is_some(), recorded })
}

fn create_queue(
    place: &Place,
    broker: &Broker,
    name: &ShortString,
    declare: &QueueDeclare,
    tables: &mut Tables,
    changes: &mut Changes,
) -> Result<QueueRef, AmqpError> {
    check_dead_letter_exchange(place, name, &declare.arguments)?;
    let label = place.label(Resource::Queue(name.as_bytes()));
    let settings = queue_arguments::parse(&declare.arguments, &label)?;
    check_properties(declare, &settings, &label)?;
    let definition = QueueDefinition {
        id: broker.queue_ids.next(),
        name: name.clone(),
        durable: is_durable(declare),
        auto_delete: declare.auto_delete,
        owner: owner(place, declare),
        settings,
        arguments: declare.arguments.clone(),
        state: QueueState::default(),
    };
    let queue = place.vhost.add_queue(tables, &broker.shards, definition);
    if let Some(entry) = tables.queues.get(name)
        && entry.durable
    {
        changes.put(&place.vhost.queue_row(name, entry));
    }
    Ok(queue)
}

/// What quorum queues cannot be (`rabbit_queue_type_util:check_*/1`).
fn check_properties(declare: &QueueDeclare, settings: &Settings, label: &str) -> Result<(), AmqpError> {
    if settings.kind != QueueKind::Quorum {
        return Ok(());
    }
    let properties = [
        ("auto-delete", declare.auto_delete),
        ("exclusive-owner", declare.exclusive),
        ("non-durable", !declare.durable),
    ];
    match properties.iter().find(|(_, asked)| *asked) {
        Some((property, _)) => {
            Err(AmqpError::precondition_failed(format!("invalid property '{property}' for {label}")))
        }
        None => Ok(()),
    }
}

/// A name that starts as the client asked (`x-name-prefix`) or with `amq.gen-`.
fn generate_name(declare: &QueueDeclare) -> Result<ShortString, AmqpError> {
    queue_arguments::check_server_named(&declare.arguments)?;
    let prefix = declare.arguments.get("x-name-prefix").and_then(FieldValue::as_long_string);
    let Some(prefix) = prefix else { return Ok(crate::names::generate("amq.gen-")) };
    let prefix = String::from_utf8_lossy(prefix).replace(['\r', '\n'], "");
    if prefix.len() > NAME_PREFIX_LEN_MAX {
        return Err(AmqpError::precondition_failed(format!(
            "Queue name prefix '{prefix}' exceeds the 64-byte limit"
        )));
    }
    Ok(crate::names::generate(&format!("{prefix}-")))
}

/// Exclusive queues go with their connection, so they are never durable (features.md M9).
fn is_durable(declare: &QueueDeclare) -> bool {
    declare.durable && !declare.exclusive
}

fn owner(place: &Place, declare: &QueueDeclare) -> Option<ConnectionId> {
    declare.exclusive.then_some(place.connection)
}

/// Whether a declaration agrees with the queue there is (`rabbit_amqqueue:assert_equivalence/5`).
fn check_same(
    place: &Place,
    name: &ShortString,
    entry: &QueueEntry,
    declare: &QueueDeclare,
) -> Result<(), AmqpError> {
    if entry.owner != owner(place, declare) {
        return Err(place.locked(name.as_bytes()));
    }
    let label = place.label(Resource::Queue(name.as_bytes()));
    check_flag("durable", &label, is_durable(declare), entry.durable)?;
    check_flag("auto_delete", &label, declare.auto_delete, entry.auto_delete)?;
    check_arguments(entry.queue_type().arguments(), &label, &declare.arguments, &entry.arguments)
}

fn check_dead_letter_exchange(
    place: &Place,
    name: &ShortString,
    arguments: &FieldTable,
) -> Result<(), AmqpError> {
    const ARGUMENT: &str = "x-dead-letter-exchange";
    let resource = Resource::Queue(name.as_bytes());
    match arguments.get(ARGUMENT) {
        None => Ok(()),
        Some(FieldValue::LongString(exchange)) => {
            place.check(Access::Read, resource)?;
            place.check(Access::Write, Resource::Exchange(exchange))
        }
        Some(other) => Err(AmqpError::precondition_failed(format!(
            "invalid type '{}' for arg '{ARGUMENT}' in {}",
            other.type_name(),
            place.label(resource)
        ))),
    }
}
