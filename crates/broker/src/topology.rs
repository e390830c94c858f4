//! Declaring, deleting and binding: what names stand for in a virtual host.
//!
//! Each operation returns up to where the journal must be durable before the client is answered. That includes
//! what others have recorded where the answer tells of it: that something is there already, or gone already.

use warren_router::{
    ALTERNATE_EXCHANGE, BindError, Binding, Bound, Declared, DeleteExchangeError, Destination,
    ExchangeDefinition, ExchangeKind, Inequivalent,
};
use warren_store::Lsn;
use warren_types::session::{Bind, BindTarget, ExchangeDeclare, QueueDeclare};
use warren_types::{AmqpError, ConnectionId, FieldTable, FieldValue, QueueRef, ShortString};

use crate::auth::{Access, Resource};
use crate::broker::Broker;
use crate::changes::Changes;
use crate::direct_reply::ADDRESS_PREFIX;
use crate::equivalence::{check_arguments, check_flag};
use crate::place::Place;
use crate::queue_arguments;
use crate::vhost::{QueueDefinition, QueueEntry, RESERVED_PREFIX, Tables};

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

pub(crate) fn declare_exchange(place: &Place, declare: ExchangeDeclare) -> Result<Lsn, AmqpError> {
    let resource = Resource::Exchange(declare.name.as_bytes());
    if declare.passive {
        check_not_default(declare.name.as_bytes())?;
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
    check_alternate(place, &declare)?;
    let definition = ExchangeDefinition {
        name: declare.name.clone(),
        kind,
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        arguments: declare.arguments,
    };
    let ((), recorded) = place.change(|tables, changes| {
        if tables.router.exchange(declare.name.as_bytes()).is_none() {
            check_name("exchange", declare.name.as_bytes())?;
        }
        match tables.router.declare_exchange(definition.clone()) {
            Ok(_) if !definition.durable => Ok(()),
            Ok(Declared::New) => {
                changes.put(&place.vhost.exchange_row(&definition));
                Ok(())
            }
            Ok(Declared::Existing) => {
                changes.rely_on_earlier();
                Ok(())
            }
            Err(difference) => Err(exchange_differs(place, resource, &difference)),
        }
    })?;
    Ok(recorded)
}

fn check_alternate(place: &Place, declare: &ExchangeDeclare) -> Result<(), AmqpError> {
    match declare.arguments.get(ALTERNATE_EXCHANGE) {
        None => Ok(()),
        Some(FieldValue::LongString(alternate)) => {
            place.check(Access::Read, Resource::Exchange(declare.name.as_bytes()))?;
            place.check(Access::Write, Resource::Exchange(alternate))
        }
        Some(other) => Err(AmqpError::precondition_failed(format!(
            "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in {}",
            other.type_name(),
            place.label(Resource::Exchange(declare.name.as_bytes()))
        ))),
    }
}

fn exchange_differs(place: &Place, resource: Resource<'_>, difference: &Inequivalent) -> AmqpError {
    let (argument, label) = (difference.argument, place.label(resource));
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
    let ((), recorded) = place.change(|tables, changes| {
        let exchange = tables.router.exchange(name).cloned();
        match tables.router.delete_exchange(name, if_unused) {
            Ok(mut removed) => {
                removed.exchanges.extend(exchange);
                place.vhost.record_removed(tables, &removed, changes);
                Ok(())
            }
            Err(DeleteExchangeError::NotFound) => {
                changes.rely_on_earlier();
                Ok(())
            }
            Err(DeleteExchangeError::InUse) => {
                Err(AmqpError::precondition_failed(format!("{} in use", place.label(resource))))
            }
            Err(error @ DeleteExchangeError::DefaultExchange) => {
                Err(AmqpError::access_refused(error.to_string()))
            }
        }
    })?;
    Ok(recorded)
}

// ---- bindings --------------------------------------------------------------------------------------------

pub(crate) fn bind(place: &Place, bind: Bind) -> Result<Lsn, AmqpError> {
    let binding = check_binding(place, bind)?;
    let ((), recorded) = place.change(|tables, changes| {
        check_binding_owner(place, tables, &binding)?;
        match tables.router.bind(binding.clone()) {
            Ok(_) if !tables.is_durable(&binding) => Ok(()),
            Ok(Bound::New) => {
                changes.put(&place.vhost.binding_row(&binding));
                Ok(())
            }
            Ok(Bound::Existing) => {
                changes.rely_on_earlier();
                Ok(())
            }
            Err(BindError::NoSource) => Err(place.not_found(Resource::Exchange(binding.source.as_bytes()))),
            Err(BindError::NoDestination) => Err(place.not_found(destination(&binding))),
            Err(BindError::InvalidArgument(error)) => Err(AmqpError::precondition_failed(error.to_string())),
            Err(error @ BindError::DefaultExchange) => Err(AmqpError::access_refused(error.to_string())),
        }
    })?;
    Ok(recorded)
}

/// What is missing is unbound already.
pub(crate) fn unbind(place: &Place, bind: Bind) -> Result<Lsn, AmqpError> {
    let binding = check_binding(place, bind)?;
    let ((), recorded) = place.change(|tables, changes| {
        check_binding_owner(place, tables, &binding)?;
        match tables.router.unbind(&binding) {
            Ok(removed) if removed.is_empty() => {
                changes.rely_on_earlier();
                Ok(())
            }
            Ok(removed) => {
                place.vhost.record_removed(tables, &removed, changes);
                Ok(())
            }
            Err(error) => Err(AmqpError::access_refused(error.to_string())),
        }
    })?;
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
        let tables = place.vhost.read();
        let entry = place.find_queue(&tables, declare.name.as_bytes())?;
        let (queue, recorded) = (entry.queue, tables.recorded_if(entry.durable));
        return Ok(DeclaredQueue { name: declare.name.clone(), queue, is_new: false, recorded });
    }
    let name = match declare.name.is_empty() {
        true => generate_name(declare)?,
        false => declare.name.clone(),
    };
    if !declare.name.is_empty() {
        check_name("queue", name.as_bytes())?;
    }
    place.check(Access::Configure, Resource::Queue(name.as_bytes()))?;
    let ((queue, is_new), recorded) = place.change(|tables, changes| {
        if let Some(entry) = tables.queues.get(&name) {
            check_same(place, &name, entry, declare)?;
            if entry.durable {
                changes.rely_on_earlier();
            }
            return Ok((entry.queue, false));
        }
        Ok((create_queue(place, broker, &name, declare, tables, changes)?, true))
    })?;
    Ok(DeclaredQueue { name, queue, is_new, recorded })
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
    let definition = QueueDefinition {
        id: broker.queue_ids.next(),
        name: name.clone(),
        durable: is_durable(declare),
        auto_delete: declare.auto_delete,
        owner: owner(place, declare),
        settings: queue_arguments::parse(&declare.arguments, &label)?,
        arguments: declare.arguments.clone(),
    };
    let queue = place.vhost.add_queue(tables, &broker.shards, definition);
    if let Some(entry) = tables.queues.get(name)
        && entry.durable
    {
        changes.put(&place.vhost.queue_row(name, entry));
    }
    Ok(queue)
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
    check_arguments(queue_arguments::COMPARED, &label, &declare.arguments, &entry.arguments)
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
