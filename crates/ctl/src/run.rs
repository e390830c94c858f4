//! Each command: what is asked, and what is printed.

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use warren_control::{
    COMPATIBLE_VERSION, Change, Failure, Limit, Listing, NamedParameter, NamedPolicy, Request, Response,
    Status, columns,
};

use crate::Options;
use crate::client::Client;
use crate::command::{Command, NewPolicy};
use crate::failure::CtlError;
use crate::format::Printer;
use crate::messages;
use crate::status;

/// Time for an answer, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a node to start, unless told otherwise.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(300);

/// Time for a port to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether a node has started.
const STARTUP_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) fn run(options: &Options) -> Result<(), CtlError> {
    let ctl = Ctl { options, timeout: timeout(options)? };
    let vhost = || options.vhost.clone();
    match &options.command {
        Command::Status => ctl.status(),
        Command::Ping => ctl.ping(),
        Command::Version => print_line(COMPATIBLE_VERSION),
        Command::CheckRunning => ctl.check(
            |node| format!("Checking if RabbitMQ is running on node {node} ..."),
            |status| Ok(format!("RabbitMQ on node {} is fully booted and running", status.node)),
        ),
        Command::CheckAlarms => ctl.check(
            |node| format!("Asking node {node} to report any local resource alarms ..."),
            |status| match status.alarms.as_slice() {
                [] => Ok(format!("Node {} reported no local alarms", status.node)),
                alarms => Err(format!("Node {} reported alarms: {}", status.node, alarms.join(", "))),
            },
        ),
        Command::CheckPortConnectivity => ctl.check(
            |node| format!("Testing TCP connections to all active listeners on node {node} ..."),
            check_ports,
        ),
        Command::Listeners => ctl.check(
            |node| format!("Asking node {node} to report its protocol listeners ..."),
            |status| Ok(status::listeners(status).join("\n")),
        ),
        Command::AwaitStartup => ctl.await_startup(),
        Command::Stop => {
            ctl.say(|| format!("Stopping and halting node {} ...", ctl.node()));
            ctl.ask(Request::Stop).map(drop)
        }

        Command::ListQueues(columns) => {
            ctl.say(|| match ctl.timeout {
                Some(timeout) => format!("Timeout: {:?} seconds ...", timeout.as_secs_f64()),
                None => "Timeout: infinity ...".to_owned(),
            });
            let banner = format!("Listing queues for vhost {} ...", options.vhost);
            ctl.list(&banner, Listing::Queues { vhost: vhost() }, &columns.columns, &["name", "messages"])
        }
        Command::ListExchanges(columns) => {
            let banner = format!("Listing exchanges for vhost {} ...", options.vhost);
            ctl.list(&banner, Listing::Exchanges { vhost: vhost() }, &columns.columns, &["name", "type"])
        }
        Command::ListBindings(columns) => {
            let banner = format!("Listing bindings for vhost {}...", options.vhost);
            let default = &columns::BINDINGS[..6];
            ctl.list(&banner, Listing::Bindings { vhost: vhost() }, &columns.columns, default)
        }
        Command::ListConnections(columns) => {
            let default = &["user", "peer_host", "peer_port", "state"];
            ctl.list("Listing connections ...", Listing::Connections, &columns.columns, default)
        }
        Command::ListChannels(columns) => {
            let default = &["pid", "user", "consumer_count", "messages_unacknowledged"];
            ctl.list("Listing channels ...", Listing::Channels, &columns.columns, default)
        }
        Command::ListConsumers(columns) => {
            let banner = format!("Listing consumers in vhost {} ...", options.vhost);
            ctl.list(&banner, Listing::Consumers { vhost: vhost() }, &columns.columns, columns::CONSUMERS)
        }
        Command::ListVhosts(columns) => {
            ctl.list("Listing vhosts ...", Listing::Vhosts, &columns.columns, &["name"])
        }
        Command::ListUsers => ctl.list("Listing users ...", Listing::Users, &[], columns::USERS),
        Command::ListPermissions => {
            let banner = format!("Listing permissions for vhost \"{}\" ...", options.vhost);
            ctl.list(&banner, Listing::Permissions { vhost: vhost() }, &[], columns::PERMISSIONS)
        }
        Command::ListUserPermissions { username } => {
            let banner = format!("Listing permissions for user \"{username}\" ...");
            let listing = Listing::UserPermissions { user: username.clone() };
            ctl.list(&banner, listing, &[], columns::USER_PERMISSIONS)
        }
        Command::ListPolicies => {
            let banner = format!("Listing policies for vhost \"{}\" ...", options.vhost);
            ctl.list(&banner, Listing::Policies { vhost: vhost(), operator: false }, &[], columns::POLICIES)
        }
        Command::ListOperatorPolicies => {
            let banner = format!("Listing operator policy overrides for vhost \"{}\" ...", options.vhost);
            ctl.list(&banner, Listing::Policies { vhost: vhost(), operator: true }, &[], columns::POLICIES)
        }
        Command::ListParameters => {
            let banner = format!("Listing runtime parameters for vhost \"{}\" ...", options.vhost);
            ctl.list(&banner, Listing::Parameters { vhost: vhost() }, &[], columns::PARAMETERS)
        }
        command => ctl.handle_messages(command).unwrap_or_else(|| ctl.change(command)),
    }
}

fn timeout(options: &Options) -> Result<Option<Duration>, CtlError> {
    match options.timeout.as_deref() {
        None => Ok(Some(TIMEOUT)),
        Some("0" | "infinity") => Ok(None),
        Some(text) => {
            match text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                Some(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
                _ => Err(CtlError::Usage(format!("'{text}' is no time: --timeout takes seconds"))),
            }
        }
    }
}

fn print_line(line: &str) -> Result<(), CtlError> {
    writeln!(io::stdout(), "{line}").map_err(CtlError::Output)
}

fn unexpected(response: &Response) -> CtlError {
    CtlError::Failed(match response {
        Response::Failed(failure) => failure.clone(),
        other => Failure::Refused(format!("the node answers something else: {other:?}")),
    })
}

/// Connects to each port that the node says it listens on.
fn check_ports(status: &Status) -> Result<String, String> {
    for listener in &status.listeners {
        let address = match listener.ip() {
            ip if !ip.is_unspecified() => *listener,
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.port()),
            IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), listener.port()),
        };
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .map_err(|error| format!("Connection to {address} failed: {error}"))?;
    }
    let ports: Vec<String> = status.listeners.iter().map(|listener| listener.port().to_string()).collect();
    Ok(format!("Successfully connected to ports {} on node {}.", ports.join(", "), status.node))
}

struct Ctl<'a> {
    options: &'a Options,
    timeout: Option<Duration>,
}

impl Ctl<'_> {
    /// Tells people what is going on.
    fn say(&self, line: impl FnOnce() -> String) {
        let options = self.options;
        if !options.quiet && !options.silent && !options.formatter.is_for_programs() {
            // Nobody who reads it any more, nothing to tell.
            let _printed = print_line(&line());
        }
    }

    /// The node as it is to be called.
    fn node(&self) -> String {
        self.options
            .node
            .clone()
            .unwrap_or_else(|| format!("rabbit@{}", rustix::system::uname().nodename().to_string_lossy()))
    }

    fn client(&self, request: Request) -> Result<Client, CtlError> {
        Client::ask(&self.options.data_dir, self.timeout, request)
    }

    /// Has something done. Some things tell of how much.
    fn ask(&self, request: Request) -> Result<Option<u64>, CtlError> {
        let mut client = self.client(request)?;
        loop {
            match client.next()? {
                Response::Done(count) => return Ok(count),
                Response::Failed(failure) => return Err(CtlError::Failed(failure)),
                Response::Rows(_) | Response::Status(_) => {}
            }
        }
    }

    fn list(
        &self,
        banner: &str,
        listing: Listing,
        columns: &[String],
        default: &[&str],
    ) -> Result<(), CtlError> {
        let columns: Vec<String> = match columns {
            [] => default.iter().map(|name| (*name).to_owned()).collect(),
            columns => columns.iter().flat_map(|column| column.split(',')).map(str::to_owned).collect(),
        };
        let known = columns::of(&listing);
        let unknown: Vec<&str> =
            columns.iter().map(String::as_str).filter(|column| !known.contains(column)).collect();
        if !unknown.is_empty() {
            return Err(CtlError::Usage(format!(
                "Info key(s) {} are not supported; those that are: {}",
                unknown.join(","),
                known.join(", ")
            )));
        }
        self.say(|| banner.to_owned());
        self.print_rows(Request::List { listing, columns: columns.clone() }, &columns)
    }

    /// Prints the rows of an answer.
    fn print_rows(&self, request: Request, columns: &[String]) -> Result<(), CtlError> {
        let headers = !self.options.no_table_headers && !self.options.silent;
        let mut client = self.client(request)?;
        let mut printer =
            Printer::new(self.options.formatter, headers, columns, io::BufWriter::new(io::stdout().lock()));
        loop {
            match client.next()? {
                Response::Rows(rows) => {
                    rows.iter().try_for_each(|row| printer.row(row)).map_err(CtlError::Output)?
                }
                Response::Done(_) => return printer.end().map_err(CtlError::Output),
                Response::Failed(failure) => {
                    printer.end().map_err(CtlError::Output)?;
                    return Err(CtlError::Failed(failure));
                }
                Response::Status(_) => {}
            }
        }
    }

    /// Shows or handles messages, if that is the command.
    fn handle_messages(&self, command: &Command) -> Option<Result<(), CtlError>> {
        let vhost = &self.options.vhost;
        if let Some((banner, listing, columns)) = messages::listing(command, vhost) {
            return Some(self.list(&banner, listing, columns, columns::MESSAGES));
        }
        let (banner, request) = messages::request(command, vhost)?;
        self.say(|| banner);
        let columns: Vec<String> = columns::HANDLED.iter().map(|name| (*name).to_owned()).collect();
        Some(self.print_rows(Request::Messages(request), &columns))
    }

    fn status(&self) -> Result<(), CtlError> {
        let mut client = self.client(Request::Status)?;
        match client.next()? {
            Response::Status(status) => {
                self.say(|| format!("Status of node {} ...", status.node));
                let text = match self.options.formatter.is_for_programs() {
                    true => status::json(&status),
                    false => status::text(&status),
                };
                write!(io::stdout(), "{text}").map_err(CtlError::Output)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Looks at the node, and tells what is found or wrong.
    fn check(
        &self,
        banner: impl FnOnce(String) -> String,
        look: impl FnOnce(&Status) -> Result<String, String>,
    ) -> Result<(), CtlError> {
        self.say(|| banner(self.node()));
        match self.client(Request::Status)?.next()? {
            Response::Status(status) => {
                let found = look(&status).map_err(|wrong| CtlError::Failed(Failure::Refused(wrong)))?;
                if self.options.silent { Ok(()) } else { print_line(&found) }
            }
            other => Err(unexpected(&other)),
        }
    }

    fn ping(&self) -> Result<(), CtlError> {
        self.say(|| format!("Will ping {}. This checks that the node takes commands.", self.node()));
        self.ask(Request::Ping)?;
        self.say(|| "Ping succeeded".to_owned());
        Ok(())
    }

    fn await_startup(&self) -> Result<(), CtlError> {
        let patience = if self.options.timeout.is_some() { self.timeout } else { Some(STARTUP_TIMEOUT) };
        let started = Instant::now();
        loop {
            match self.ask(Request::Ping) {
                Err(CtlError::Unavailable { .. })
                    if patience.is_none_or(|patience| started.elapsed() < patience) =>
                {
                    std::thread::sleep(STARTUP_INTERVAL);
                }
                ended => return ended.map(drop),
            }
        }
    }

    fn change(&self, command: &Command) -> Result<(), CtlError> {
        let vhost = &self.options.vhost;
        let change = self.prepare(command)?;
        self.say(|| announcement(command, vhost, &self.node(), &change));
        let count = self.ask(Request::Change(change))?;
        match command {
            Command::AddUser { .. } => self.say(|| {
                "Done. Don't forget to grant the user permissions to some virtual hosts! See 'warren ctl help \
                 set_permissions' to learn more."
                    .to_owned()
            }),
            Command::DeleteQueue { .. } => self.say(|| {
                format!("Queue was successfully deleted with {} ready messages", count.unwrap_or_default())
            }),
            Command::CloseAllConnections { .. } | Command::CloseAllUserConnections { .. } => {
                self.say(|| format!("Closed {} connections", count.unwrap_or_default()));
            }
            Command::TraceOn => self.say(|| format!("Trace enabled for vhost {vhost}")),
            Command::TraceOff => self.say(|| format!("Trace disabled for vhost {vhost}")),
            Command::AuthenticateUser { .. } => self.say(|| "Success".to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn prepare(&self, command: &Command) -> Result<Change, CtlError> {
        let vhost = self.options.vhost.clone();
        let policy = |new: &NewPolicy| NamedPolicy {
            name: new.name.clone(),
            pattern: new.pattern.clone(),
            definition: new.definition.clone(),
            priority: new.priority,
            apply_to: new.apply_to.clone(),
        };
        Ok(match command {
            Command::PurgeQueue { queue } => Change::PurgeQueue { vhost, name: queue.clone() },
            Command::DeleteQueue { queue, if_empty, if_unused } => {
                let (name, if_empty, if_unused) = (queue.clone(), *if_empty, *if_unused);
                Change::DeleteQueue { vhost, name, if_empty, if_unused }
            }
            Command::PauseQueue { queue } => Change::PauseQueue { vhost, name: queue.clone(), paused: true },
            Command::ResumeQueue { queue } => {
                Change::PauseQueue { vhost, name: queue.clone(), paused: false }
            }
            Command::SetQueueArguments { queue, arguments } => {
                Change::SetQueueArguments { vhost, name: queue.clone(), arguments: arguments.clone() }
            }
            Command::SetPolicy(new) => Change::SetPolicy { vhost, operator: false, policy: policy(new) },
            Command::SetOperatorPolicy(new) => {
                Change::SetPolicy { vhost, operator: true, policy: policy(new) }
            }
            Command::ClearPolicy { name } => {
                Change::ClearPolicy { vhost, operator: false, name: name.clone() }
            }
            Command::ClearOperatorPolicy { name } => {
                Change::ClearPolicy { vhost, operator: true, name: name.clone() }
            }
            Command::SetParameter { component_name, name, value } => {
                let (component, name, value) = (component_name.clone(), name.clone(), value.clone());
                Change::SetParameter { vhost, parameter: NamedParameter { component, name, value } }
            }
            Command::ClearParameter { component_name, name } => {
                Change::ClearParameter { vhost, component: component_name.clone(), name: name.clone() }
            }
            Command::AddVhost { vhost } => Change::AddVhost { name: vhost.clone() },
            Command::DeleteVhost { vhost } => Change::DeleteVhost { name: vhost.clone() },
            Command::TraceOn => Change::SetTracing { vhost, traced: true },
            Command::TraceOff => Change::SetTracing { vhost, traced: false },
            Command::AddUser { username, password } => {
                Change::AddUser { name: username.clone(), password: read_password(password.as_deref())? }
            }
            Command::DeleteUser { username } => Change::DeleteUser { name: username.clone() },
            Command::ChangePassword { username, password } => Change::ChangePassword {
                name: username.clone(),
                password: read_password(password.as_deref())?,
            },
            Command::ClearPassword { username } => Change::ClearPassword { name: username.clone() },
            Command::SetUserTags { username, tags } => {
                Change::SetUserTags { name: username.clone(), tags: tags.clone() }
            }
            Command::AuthenticateUser { username, password } => {
                Change::Authenticate { name: username.clone(), password: read_password(password.as_deref())? }
            }
            Command::SetPermissions { username, conf, write, read } => Change::SetPermissions {
                vhost,
                user: username.clone(),
                configure: conf.clone(),
                write: write.clone(),
                read: read.clone(),
            },
            Command::ClearPermissions { username } => {
                Change::ClearPermissions { vhost, user: username.clone() }
            }
            Command::SetVmMemoryHighWatermark { limit } => {
                Change::SetMemoryLimit(read_limit(limit, "absolute")?)
            }
            Command::SetDiskFreeLimit { limit } => {
                Change::SetDiskFreeLimit(read_limit(limit, "mem_relative")?)
            }
            Command::CloseConnection { connection_pid, explanation } => {
                Change::CloseConnection { pid: connection_pid.clone(), explanation: explanation.clone() }
            }
            Command::CloseAllConnections { global, limit, explanation } => Change::CloseConnections {
                vhost: (!global).then_some(vhost),
                user: None,
                limit: *limit,
                explanation: explanation.clone(),
            },
            Command::CloseAllUserConnections { username, explanation } => Change::CloseConnections {
                vhost: None,
                user: Some(username.clone()),
                limit: 0,
                explanation: explanation.clone(),
            },
            _ => return Err(CtlError::Usage("it changes nothing".to_owned())),
        })
    }
}

/// What rabbitmqctl says before it changes something.
fn announcement(command: &Command, vhost: &str, node: &str, change: &Change) -> String {
    let policy = |what: &str, new: &NewPolicy| {
        let NewPolicy { name, pattern, definition, priority, .. } = new;
        format!(
            "Setting {what} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" for \
             vhost \"{vhost}\" ..."
        )
    };
    match command {
        Command::PurgeQueue { queue } => format!("Purging queue '{queue}' in vhost '{vhost}' ..."),
        Command::DeleteQueue { queue, if_empty, if_unused } => {
            let condition = match (if_empty, if_unused) {
                (false, false) => "",
                (true, false) => "if queue is empty ",
                (false, true) => "if queue is unused ",
                (true, true) => "if queue is empty and unused ",
            };
            format!("Deleting queue '{queue}' on vhost '{vhost}' {condition}...")
        }
        Command::PauseQueue { queue } => format!("Pausing queue '{queue}' in vhost '{vhost}' ..."),
        Command::ResumeQueue { queue } => format!("Resuming queue '{queue}' in vhost '{vhost}' ..."),
        Command::SetQueueArguments { queue, arguments } => {
            format!("Setting arguments of queue '{queue}' in vhost '{vhost}' to {arguments} ...")
        }
        Command::SetPolicy(new) => policy("policy", new),
        Command::SetOperatorPolicy(new) => policy("operator policy override", new),
        Command::ClearPolicy { name } => format!("Clearing policy \"{name}\" on vhost \"{vhost}\" ..."),
        Command::ClearOperatorPolicy { name } => {
            format!("Clearing operator policy \"{name}\" on vhost \"{vhost}\" ...")
        }
        Command::SetParameter { component_name, name, value } => format!(
            "Setting runtime parameter \"{name}\" for component \"{component_name}\" to \"{value}\" in vhost \
             \"{vhost}\" ..."
        ),
        Command::ClearParameter { component_name, name } => format!(
            "Clearing runtime parameter \"{name}\" for component \"{component_name}\" on vhost \"{vhost}\" ..."
        ),
        Command::AddVhost { vhost } => format!("Adding vhost \"{vhost}\" ..."),
        Command::DeleteVhost { vhost } => format!("Deleting vhost \"{vhost}\" ..."),
        Command::TraceOn => format!("Starting tracing for vhost \"{vhost}\" ..."),
        Command::TraceOff => format!("Stopping tracing for vhost \"{vhost}\" ..."),
        Command::AddUser { username, .. } => format!("Adding user \"{username}\" ..."),
        Command::DeleteUser { username } => format!("Deleting user \"{username}\" ..."),
        Command::ChangePassword { username, .. } => format!("Changing password for user \"{username}\" ..."),
        Command::ClearPassword { username } => format!("Clearing password for user \"{username}\" ..."),
        Command::SetUserTags { username, tags } => {
            format!("Setting tags for user \"{username}\" to [{}] ...", tags.join(", "))
        }
        Command::AuthenticateUser { username, .. } => format!("Authenticating user \"{username}\" ..."),
        Command::SetPermissions { username, .. } => {
            format!("Setting permissions for user \"{username}\" in vhost \"{vhost}\" ...")
        }
        Command::ClearPermissions { username } => {
            format!("Clearing permissions for user \"{username}\" in vhost \"{vhost}\" ...")
        }
        Command::CloseConnection { connection_pid, explanation } => {
            format!("Closing connection {connection_pid}, reason: {explanation}...")
        }
        Command::CloseAllConnections { global: true, explanation, .. } => {
            format!(
                "Closing all connections to node {node} (limit: {}), reason: {explanation}...",
                limit_of(change)
            )
        }
        Command::CloseAllConnections { explanation, .. } => {
            format!("Closing all connections in vhost {vhost}, reason: {explanation}...")
        }
        Command::CloseAllUserConnections { username, explanation } => {
            format!("Closing all connections of user {username}, reason: {explanation}...")
        }
        Command::SetVmMemoryHighWatermark { limit } => match limit.as_slice() {
            [_, bytes] => format!("Setting memory threshold on {node} to {bytes} bytes ..."),
            limit => format!("Setting memory threshold on {node} to {} ...", limit.join(" ")),
        },
        Command::SetDiskFreeLimit { limit } => match limit.as_slice() {
            [_, part] => format!("Setting disk free limit on {node} to {part} times the total RAM ..."),
            limit => format!("Setting disk free limit on {node} to {} bytes ...", limit.join(" ")),
        },
        _ => String::new(),
    }
}

fn limit_of(change: &Change) -> u64 {
    match change {
        Change::CloseConnections { limit, .. } => *limit,
        _ => 0,
    }
}

/// A password that is not on the command line comes from standard input, where it does not show in a list of processes.
fn read_password(given: Option<&str>) -> Result<String, CtlError> {
    if let Some(password) = given {
        return Ok(password.to_owned());
    }
    let stdin = io::stdin();
    let hidden = if stdin.is_terminal() { Some(HiddenInput::begin()?) } else { None };
    let mut line = String::new();
    stdin
        .lock()
        .read_line(&mut line)
        .map_err(|error| CtlError::Usage(format!("cannot read a password: {error}")))?;
    drop(hidden);
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(CtlError::Usage("a password is needed, as an argument or on standard input".to_owned())),
        password => Ok(password.to_owned()),
    }
}

/// While it lives, what is typed is not shown.
struct HiddenInput(rustix::termios::Termios);

impl HiddenInput {
    fn begin() -> Result<Self, CtlError> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let failed = |error| CtlError::Usage(format!("cannot hide what is typed: {error}"));
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        eprint!("Password: ");
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // Where it cannot be set back there is no terminal any more.
        let _restored =
            rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &self.0);
        eprintln!();
    }
}

/// One value, or a word and a value: `keyword` tells that it is the less usual kind.
fn read_limit(words: &[String], keyword: &str) -> Result<Limit, CtlError> {
    let absolute = |text: &str| warren_config::bytes(text).map(Limit::Absolute).map_err(CtlError::Usage);
    let relative = |text: &str| match text.parse::<f64>() {
        Ok(part) if part.is_finite() && part >= 0.0 => Ok(Limit::OfMemory(part)),
        _ => Err(CtlError::Usage(format!("'{text}' is not a fraction of the memory, as 0.4"))),
    };
    match (words, keyword) {
        ([word, value], "absolute") if word == "absolute" => absolute(value),
        ([value], "absolute") => relative(value),
        ([word, value], _) if word == keyword => relative(value),
        ([value], _) => absolute(value),
        _ => Err(CtlError::Usage(format!("expected a value, or {keyword} and a value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let read = |words: &[&str], keyword| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            read_limit(&words, keyword).ok()
        };
        assert_eq!(read(&["0.4"], "absolute"), Some(Limit::OfMemory(0.4)));
        assert_eq!(read(&["absolute", "2GB"], "absolute"), Some(Limit::Absolute(2_000_000_000)));
        assert_eq!(read(&["50MiB"], "mem_relative"), Some(Limit::Absolute(50 << 20)));
        assert_eq!(read(&["mem_relative", "1.5"], "mem_relative"), Some(Limit::OfMemory(1.5)));
        for wrong in [&["much"][..], &["relative", "1"], &["-1"], &["NaN"]] {
            assert_eq!(read(wrong, "absolute"), None, "{wrong:?}");
        }
    }
}
