use crate::support::Outcome;
use lapin::{
    Channel, Connection, ConnectionProperties, Result,
    options::{ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions},
    types::ShortString,
};
use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

/// The connections and the broker objects of one case.
pub struct Scope {
    pub address: String,
    prefix: String,
    connections: RefCell<Vec<Connection>>,
    queues: RefCell<Vec<ShortString>>,
    exchanges: RefCell<Vec<ShortString>>,
}

impl Scope {
    pub fn new(address: &str, case: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        Self {
            address: address.into(),
            prefix: format!("interop.lapin.{case}.{:x}.", now.as_nanos()),
            connections: RefCell::default(),
            queues: RefCell::default(),
            exchanges: RefCell::default(),
        }
    }

    pub fn url(&self, userinfo: &str, vhost_and_query: &str) -> String {
        format!("amqp://{userinfo}@{}/{vhost_and_query}", self.address)
    }

    pub fn properties(&self) -> ConnectionProperties {
        ConnectionProperties::default().with_connection_name(format!("{}connection", self.prefix).into())
    }

    pub async fn connect(&self) -> Result<Connection> {
        Connection::connect(&self.url("guest:guest", "%2f"), self.properties()).await
    }

    /// A channel on a connection of its own, which stays open until the end of the case.
    pub async fn channel(&self) -> Result<Channel> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        self.connections.borrow_mut().push(connection);
        Ok(channel)
    }

    pub async fn confirm_channel(&self) -> Result<Channel> {
        let channel = self.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// A unique name; a queue that exists under it at the end of the case is deleted.
    pub fn queue(&self, suffix: &str) -> ShortString {
        self.name(suffix, &self.queues)
    }

    /// A unique name; an exchange that exists under it at the end of the case is deleted.
    pub fn exchange(&self, suffix: &str) -> ShortString {
        self.name(suffix, &self.exchanges)
    }

    fn name(&self, suffix: &str, names: &RefCell<Vec<ShortString>>) -> ShortString {
        let name: ShortString = format!("{}{suffix}", self.prefix).into();
        names.borrow_mut().push(name.clone());
        name
    }

    pub async fn clean_up(&self) -> Outcome {
        let connections = self.connections.take();
        for connection in connections {
            // It may be closed already; what a case expects of its connections it checks itself.
            let _ = connection.close(200, "OK".into()).await;
        }
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        let queues = self.queues.take();
        for queue in queues {
            channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
        }
        let exchanges = self.exchanges.take();
        for exchange in exchanges {
            channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await?;
        }
        connection.close(200, "OK".into()).await?;
        Ok(())
    }
}
