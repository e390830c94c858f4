//! Commands for single messages.

use clap::Args;
use warren_control::{HandleMessages, Listing, MessageAction, MessageChoice, MessagePlace, MessageTarget};

use crate::command::Command;

/// Messages to show.
#[derive(Debug, Args)]
pub struct Shown {
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    count: u64,
    /// Those behind the message with this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Columns to show, separated by spaces.
    pub(crate) columns: Vec<String>,
}

/// Messages to handle.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Ids of messages, as they are shown.
    #[arg(required_unless_present = "first")]
    ids: Vec<String>,
    /// The first messages, so many of them.
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    first: Option<u64>,
}

/// Messages that go elsewhere.
#[derive(Debug, Args)]
pub struct Transfer {
    /// The queue that has them.
    queue: String,
    #[command(flatten)]
    chosen: Chosen,
    /// They go to this queue.
    #[arg(
        long,
        value_name = "QUEUE",
        required_unless_present = "to_exchange",
        conflicts_with = "to_exchange"
    )]
    to_queue: Option<String>,
    /// They go to this exchange.
    #[arg(long, value_name = "EXCHANGE", requires = "routing_key")]
    to_exchange: Option<String>,
    /// The routing key with which they go to the exchange.
    #[arg(long, value_name = "KEY", requires = "to_exchange")]
    routing_key: Option<String>,
}

impl Transfer {
    fn target(&self) -> MessageTarget {
        match (&self.to_queue, &self.to_exchange) {
            (None, Some(name)) => {
                let routing_key = self.routing_key.clone().unwrap_or_default();
                MessageTarget::Exchange { name: name.clone(), routing_key }
            }
            (queue, _) => MessageTarget::Queue(queue.clone().unwrap_or_default()),
        }
    }
}

impl Chosen {
    fn choice(&self) -> MessageChoice {
        match self.first {
            Some(count) => MessageChoice::First(count),
            None => MessageChoice::Ids(self.ids.clone()),
        }
    }
}

/// The messages that a command shows: what it says before, and the columns that it asks for.
pub(crate) fn listing<'a>(command: &'a Command, vhost: &str) -> Option<(String, Listing, &'a [String])> {
    let (banner, place, shown) = match command {
        Command::BrowseQueue { queue, shown } => (
            format!("Browsing queue '{queue}' in vhost '{vhost}' ..."),
            MessagePlace::Queue(queue.clone()),
            shown,
        ),
        Command::ListDelayed { exchange, shown } => (
            format!("Listing delayed messages of exchange '{exchange}' in vhost '{vhost}' ..."),
            MessagePlace::Delayed(exchange.clone()),
            shown,
        ),
        _ => return None,
    };
    let (vhost, after, count) = (vhost.to_owned(), shown.after.clone(), shown.count);
    Some((banner, Listing::Messages { vhost, place, after, count }, &shown.columns))
}

/// What a command does with messages: what it says before, and what it asks for.
pub(crate) fn request(command: &Command, vhost: &str) -> Option<(String, HandleMessages)> {
    let in_vhost = |what: &str, queue: &str| format!("{what} queue '{queue}' in vhost '{vhost}' ...");
    let (banner, place, action, choice) = match command {
        Command::DeleteMessages { queue, chosen } => (
            in_vhost("Deleting messages of", queue),
            MessagePlace::Queue(queue.clone()),
            MessageAction::Delete,
            chosen.choice(),
        ),
        Command::MoveMessages(transfer) => (
            in_vhost("Moving messages of", &transfer.queue),
            MessagePlace::Queue(transfer.queue.clone()),
            MessageAction::Move(transfer.target()),
            transfer.chosen.choice(),
        ),
        Command::CopyMessages(transfer) => (
            in_vhost("Copying messages of", &transfer.queue),
            MessagePlace::Queue(transfer.queue.clone()),
            MessageAction::Copy(transfer.target()),
            transfer.chosen.choice(),
        ),
        Command::RedriveQueue { queue, count } => (
            in_vhost("Returning messages from", queue),
            MessagePlace::Queue(queue.clone()),
            MessageAction::Redrive,
            MessageChoice::First(count.unwrap_or(u64::MAX)),
        ),
        Command::CancelDelayed { exchange, ids } => (
            format!("Cancelling delayed messages of exchange '{exchange}' in vhost '{vhost}' ..."),
            MessagePlace::Delayed(exchange.clone()),
            MessageAction::Delete,
            MessageChoice::Ids(ids.clone()),
        ),
        _ => return None,
    };
    Some((banner, HandleMessages { vhost: vhost.to_owned(), place, action, choice }))
}
