//! Calls that no client makes: an operator purges or deletes a queue.

use std::sync::Arc;

use warren_queue::Command;
use warren_types::session::{Event, Reply};
use warren_types::{AmqpError, ChannelId, ConnectionId, ShortString};

use crate::admin::{AdminError, not_found};
use crate::broker::Broker;
use crate::ports::Port;
use crate::shard::{Call, ShardCommand};

/// Why an operator's call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What is to be changed is not there.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The queue refuses, in the words that a client would get.
    #[error("{0}")]
    Refused(String),
}

impl Broker {
    /// Drops the ready messages of a queue, whoever owns it. Returns how many there were.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if the queue is stopped.
    pub async fn purge_queue(&self, vhost: &str, name: &str) -> Result<u32, CallError> {
        let purge = |connection, channel| Command::Purge { connection, channel };
        match self.call_queue(vhost, name, purge).await? {
            Reply::QueuePurged(messages) => Ok(messages),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Deletes a queue, whoever owns it. Returns how many messages it had.
    ///
    /// # Errors
    /// If there is no such virtual host or queue, or if it is not as unused or empty as asked for.
    pub async fn delete_queue(
        &self,
        vhost: &str,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<u32, CallError> {
        let delete = |connection, channel| Command::Delete {
            asked_by: Some((connection, channel)),
            if_unused,
            if_empty,
        };
        match self.call_queue(vhost, name, delete).await? {
            Reply::QueueDeleted(messages) => Ok(messages),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Has a queue apply a command, and waits for its reply.
    async fn call_queue(
        &self,
        vhost: &str,
        name: &str,
        command: impl FnOnce(ConnectionId, ChannelId) -> Command,
    ) -> Result<Reply, CallError> {
        let vhost = self.find_vhost(vhost)?;
        let queue = vhost.read().queues.get(name.as_bytes()).map(|entry| entry.queue);
        let queue = queue.ok_or_else(|| not_found("queue", name))?;
        let caller = Caller::open(self, queue.shard);
        let channel = ChannelId::CONNECTION;
        let name = ShortString::truncated(name.as_bytes());
        let command = command(caller.id, channel);
        let call = Call { queue, connection: caller.id, channel, name, vhost, command };
        self.shards[usize::from(queue.shard)].mailbox.push(ShardCommand::Call(Box::new(call)));
        caller.reply().await.map_err(|error| CallError::Refused(error.explanation))
    }
}

fn unexpected(reply: &Reply) -> CallError {
    CallError::Refused(format!("the queue answers something else: {reply:?}"))
}

/// Stands in for a connection: replies go to connections alone.
struct Caller<'a> {
    broker: &'a Broker,
    id: ConnectionId,
    port: Arc<Port>,
    shard: u16,
}

impl<'a> Caller<'a> {
    fn open(broker: &'a Broker, shard: u16) -> Self {
        let (id, port) = broker.ports.open();
        broker.shards[usize::from(shard)].mailbox.push(ShardCommand::Attach(id, Arc::clone(&port)));
        Self { broker, id, port, shard }
    }

    async fn reply(&self) -> Result<Reply, AmqpError> {
        let mut events = Vec::new();
        loop {
            self.port.outbox.take(&mut events);
            // What is told to all connections does not concern this one.
            let reply = events.drain(..).find_map(|event| match event {
                Event::Reply(_, reply) => Some(reply),
                _ => None,
            });
            if let Some(reply) = reply {
                return reply;
            }
            self.port.outbox.wait().await;
        }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.broker.shards[usize::from(self.shard)].mailbox.push(ShardCommand::Detach(self.id));
        self.broker.ports.forget(self.id);
    }
}
