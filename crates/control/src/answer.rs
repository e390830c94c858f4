//! Requests, carried out.

use std::io;

use warren_broker::{
    AdminError, ApplyTo, Broker, CallError, Credentials, Parameter, Permissions, Policy, PolicyKind,
    ReconfigureError, Recorded, Tag,
};

use serde_json::Value;
use warren_types::{FieldValue, ShortString};

use crate::listings;
use crate::messages;
use crate::protocol::{Change, Envelope, Failure, Limit, Request, Response, Status, VERSION};
use crate::server::{Answers, Node};

/// Carries a request out and tells the client.
pub(crate) async fn answer(
    envelope: Envelope,
    node: &Node,
    broker: &Broker,
    answers: &mut Answers,
) -> io::Result<()> {
    if envelope.version != VERSION {
        return answers.send(&Response::Failed(Failure::Version(VERSION))).await;
    }
    let done = match envelope.request {
        Request::Ping => Ok(None),
        Request::Status => {
            answers.send(&Response::Status(Box::new(status(node, broker)))).await?;
            Ok(None)
        }
        Request::List { listing, columns } => {
            listings::list(listing, &columns, broker, answers).await?.map(|()| None)
        }
        Request::Change(change) => carry_out(change, node, broker).await,
        Request::Messages(request) => match messages::handle(request, broker).await {
            Ok((row, outcome)) => {
                answers.send(&Response::Rows(vec![row])).await?;
                outcome.map(|()| None)
            }
            Err(failure) => Err(failure),
        },
        Request::Stop => {
            tracing::info!("an operator ends the node");
            node.stop.send_replace(true);
            Ok(None)
        }
    };
    answers.send(&done.map_or_else(Response::Failed, Response::Done)).await
}

async fn carry_out(change: Change, node: &Node, broker: &Broker) -> Result<Option<u64>, Failure> {
    let recorded = match change {
        Change::AddVhost { name } => broker.create_vhost(&name)?,
        Change::DeleteVhost { name } => broker.delete_vhost(&name)?,
        Change::AddUser { name, password } => {
            broker.add_user(&name, Credentials::Password(password.as_bytes()), Vec::new())?
        }
        Change::DeleteUser { name } => broker.delete_user(&name)?,
        Change::ChangePassword { name, password } => {
            broker.change_password(&name, Credentials::Password(password.as_bytes()))?
        }
        Change::ClearPassword { name } => broker.change_password(&name, Credentials::None)?,
        Change::Authenticate { name, password } => {
            let refused =
                |why| Failure::Denied(format!("Error: failed to authenticate user \"{name}\"\n{why}"));
            broker.authenticate(&name, password.as_bytes()).map_err(refused)?;
            return Ok(None);
        }
        Change::SetUserTags { name, tags } => {
            broker.set_user_tags(&name, tags.iter().map(|tag| Tag::from_name(tag)).collect())?
        }
        Change::SetPermissions { vhost, user, configure, write, read } => {
            let permissions = Permissions::new(&configure, &write, &read)
                .map_err(|error| Failure::Invalid(format!("regular expression is invalid: {error}")))?;
            broker.set_permissions(&user, &vhost, permissions)?
        }
        Change::ClearPermissions { vhost, user } => broker.clear_permissions(&user, &vhost)?,
        Change::SetPolicy { vhost, operator, policy } => {
            let apply_to = ApplyTo::parse(&policy.apply_to)
                .ok_or_else(|| Failure::Invalid(ApplyTo::unrecognised(&policy.apply_to)))?;
            let definition = compact_object(&policy.definition)?;
            let (name, pattern, priority) = (policy.name, policy.pattern, policy.priority);
            let policy = Policy { name, pattern, apply_to, priority, definition };
            broker.set_policy(&vhost, kind(operator), policy)?
        }
        Change::ClearPolicy { vhost, operator, name } => {
            broker.clear_policy(&vhost, kind(operator), &name)?
        }
        Change::SetParameter { vhost, parameter } => {
            let value = compact(&parameter.value)?.to_string();
            let parameter = Parameter { component: parameter.component, name: parameter.name, value };
            broker.set_parameter(&vhost, parameter)?
        }
        Change::ClearParameter { vhost, component, name } => {
            broker.clear_parameter(&vhost, &component, &name)?
        }
        Change::PauseQueue { vhost, name, paused } => broker.pause_queue(&vhost, &name, paused)?,
        Change::SetQueueArguments { vhost, name, arguments } => {
            broker.set_queue_arguments(&vhost, &name, read_arguments(&arguments)?)?
        }
        Change::PurgeQueue { vhost, name } => {
            return Ok(Some(broker.purge_queue(&vhost, &name).await?.into()));
        }
        Change::DeleteQueue { vhost, name, if_empty, if_unused } => {
            return Ok(Some(broker.delete_queue(&vhost, &name, if_unused, if_empty).await?.into()));
        }
        Change::SetTracing { vhost, traced } => {
            broker.set_tracing(&vhost, traced)?;
            return Ok(None);
        }
        Change::CloseConnection { pid, explanation } => {
            if !broker.close_connection(&pid, &explanation) {
                return Err(Failure::NotFound { kind: "connection".to_owned(), name: pid });
            }
            return Ok(None);
        }
        Change::CloseConnections { vhost, user, limit, explanation } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let closed = broker.close_connections_of(vhost.as_deref(), user.as_deref(), limit, &explanation);
            return Ok(Some(closed as u64));
        }
        Change::SetMemoryLimit(limit) => {
            broker.set_memory_limit(bytes(limit, node)?);
            return Ok(None);
        }
        Change::SetDiskFreeLimit(limit) => {
            broker.set_disk_free_limit(bytes(limit, node)?);
            return Ok(None);
        }
    };
    durable(recorded).await;
    Ok(None)
}

/// Nobody is told of a change that can still be lost.
async fn durable(recorded: Recorded) {
    recorded.durable().await;
}

fn kind(operator: bool) -> PolicyKind {
    if operator { PolicyKind::Operator } else { PolicyKind::User }
}

/// JSON without spaces, as RabbitMQ keeps it.
fn compact(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json)
        .map_err(|error| Failure::Invalid(format!("JSON decoding error. Reason: {error}")))
}

fn compact_object(json: &str) -> Result<String, Failure> {
    let value = compact(json)?;
    match value.as_object() {
        Some(object) if !object.is_empty() => Ok(value.to_string()),
        Some(_) => Err(Failure::Invalid("Validation failed\n\nno policy definition provided\n".to_owned())),
        None => Err(Failure::Invalid("JSON decoding error. Reason: not an object".to_owned())),
    }
}

fn bytes(limit: Limit, node: &Node) -> Result<u64, Failure> {
    match limit {
        Limit::Absolute(bytes) => Ok(bytes),
        Limit::OfMemory(part) => {
            let memory = node.memory.ok_or_else(|| {
                Failure::Refused("the system does not tell how much memory there is: give bytes".to_owned())
            })?;
            Ok((memory as f64 * part) as u64)
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotFound { kind, name } => Self::NotFound { kind: kind.to_owned(), name },
            AdminError::Exists { kind, name } => Self::Exists { kind: kind.to_owned(), name },
            error => Self::Invalid(error.to_string()),
        }
    }
}

/// Arguments as JSON has them: what has no value there goes.
fn read_arguments(json: &str) -> Result<Vec<(ShortString, Option<FieldValue>)>, Failure> {
    let invalid = |text: String| Failure::Invalid(text);
    let Value::Object(object) = compact(json)? else {
        return Err(invalid("arguments are a JSON object, as {\"x-max-length\":1000}".to_owned()));
    };
    let argument = |(name, value): (String, Value)| {
        let value = match value {
            Value::Null => None,
            Value::Bool(flag) => Some(FieldValue::Bool(flag)),
            Value::String(text) => Some(FieldValue::LongString(text.into_bytes())),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Some(FieldValue::I64(integer)),
                None => return Err(invalid(format!("'{number}' is no integer"))),
            },
            other => return Err(invalid(format!("an argument cannot be {other}"))),
        };
        let name = ShortString::new(name.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        Ok((name, value))
    };
    object.into_iter().map(argument).collect()
}

impl From<ReconfigureError> for Failure {
    fn from(error: ReconfigureError) -> Self {
        match error {
            ReconfigureError::Admin(error) => error.into(),
            ReconfigureError::Argument(text) => Self::Invalid(text),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Admin(error) => error.into(),
            CallError::Refused(text) => Self::Refused(text),
        }
    }
}

fn status(node: &Node, broker: &Broker) -> Status {
    let health = broker.health();
    let alarms = [(health.memory_alarm, "memory"), (health.disk_alarm, "disk")];

    Status {
        node: node.name.clone(),
        cluster: node.cluster.clone(),
        pid: std::process::id(),
        version: node.version.clone(),
        uptime_s: node.started.elapsed().as_secs(),
        data_dir: node.data_dir.display().to_string(),
        config_file: node.config_file.as_ref().map(|path| path.display().to_string()),
        listeners: node.listeners.clone(),
        alarms: alarms.iter().filter(|(stands, _)| *stands).map(|(_, name)| (*name).to_owned()).collect(),
        memory: health.resident.unwrap_or(0),
        queue_memory: health.queue_memory,
        memory_limit: health.memory_limit,
        disk_free: health.disk_free,
        disk_free_limit: health.disk_free_limit,
        file_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX),
        connections: health.connections as u64,
        queues: health.queues as u64,
        vhosts: health.vhosts as u64,
    }
}
