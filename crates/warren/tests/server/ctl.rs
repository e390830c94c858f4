//! `warren ctl` against a running broker: what it prints, what it changes, and how it ends.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use warren_amqp091_codec::Method;
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, Ended, PATIENCE, poll, run, warren};
use crate::client::Client;

/// Runs a command for a broker.
fn ctl(broker: &Broker, arguments: &[&str]) -> Ended {
    run(warren().arg("ctl").args(arguments).env("WARREN_DATA_DIR", broker.ready.field("data")))
}

/// What a command prints that must succeed.
pub(crate) fn printed(broker: &Broker, arguments: &[&str]) -> String {
    let ended = ctl(broker, arguments);
    assert!(ended.status.success(), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// The exit code of a command that must fail, and what it says.
pub(crate) fn failed(broker: &Broker, arguments: &[&str]) -> (i32, String) {
    let ended = ctl(broker, arguments);
    (ended.status.code().expect("it ends by itself"), ended.stderr)
}

pub(crate) fn declare(client: &mut Client, queue: &str, arguments: &[(&str, FieldValue)]) {
    let mut table = FieldTable::new();
    arguments.iter().for_each(|(name, value)| table.insert(name, value.clone()));
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: table,
    };
    client.call(1, &declare, "queue.declare-ok");
}

/// Messages of a queue, as its shard counts them, once there are so many.
pub(crate) fn has_messages(broker: &Broker, queue: &str, count: u32) -> bool {
    let line = format!("{queue}\t{count}");
    poll(PATIENCE, || printed(broker, &["-s", "list_queues"]).lines().any(|found| found == line))
}

#[test]
fn cfg1_listings_are_those_of_rabbitmqctl() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    let limit = ("x-max-length", FieldValue::I32(10));
    declare(&mut client, "q 1", &[limit, ("x-dead-letter-exchange", FieldValue::string("dlx"))]);
    client.bind(1, "q 1", "amq.topic", "a.#");
    client.publish(1, "q 1", b"body");
    assert!(has_messages(&broker, "q 1", 1));
    client.consume(1, "q 1", false);
    assert_eq!(
        printed(&broker, &["list_queues", "name", "messages_unacknowledged", "durable", "arguments"]),
        "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\n\
         name\tmessages_unacknowledged\tdurable\targuments\n\
         q 1\t1\ttrue\t[{\"x-max-length\",10},{\"x-dead-letter-exchange\",\"dlx\"}]\n"
    );
    assert_eq!(printed(&broker, &["-q", "list_queues"]), "name\tmessages\nq 1\t1\n");
    assert_eq!(printed(&broker, &["list_queues", "--silent", "name,type,state"]), "q 1\tclassic\trunning\n");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&broker, &["list_queues", "--formatter", "json", "name", "messages"]))
            .expect("it is JSON");
    assert_eq!(json, serde_json::json!([{"name": "q 1", "messages": 1}]));
    assert_eq!(
        printed(&broker, &["list_bindings", "-q"]),
        "source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments\n\
         \texchange\tq 1\tqueue\tq 1\t[]\namq.topic\texchange\tq 1\tqueue\ta.#\t[]\n"
    );
    assert!(printed(&broker, &["list_exchanges"]).contains("\namq.topic\ttopic\n"));
    let peer = client.socket.local_addr().expect("it is open");
    assert_eq!(
        printed(&broker, &["list_connections"]),
        format!(
            "Listing connections ...\nuser\tpeer_host\tpeer_port\tstate\nguest\t127.0.0.1\t{}\trunning\n",
            peer.port()
        )
    );
    let channels = printed(
        &broker,
        &["-q", "list_channels", "user", "number", "consumer_count", "messages_unacknowledged"],
    );
    assert_eq!(channels, "user\tnumber\tconsumer_count\tmessages_unacknowledged\nguest\t1\t1\t1\n");
    let consumers = printed(&broker, &["-s", "list_consumers", "queue_name", "ack_required", "active"]);
    assert_eq!(consumers, "q 1\ttrue\ttrue\n");
    assert_eq!(printed(&broker, &["list_vhosts"]), "Listing vhosts ...\nname\n/\n");
    assert_eq!(printed(&broker, &["list_users"]), "Listing users ...\nuser\ttags\nguest\t[administrator]\n");
    client.receiver.delivery();
    client.close();
    assert!(poll(PATIENCE, || printed(&broker, &["-s", "list_connections"]).is_empty()));
}

#[test]
fn cfg1_users_vhosts_and_permissions() {
    let broker = Broker::start();
    assert_eq!(printed(&broker, &["add_vhost", "v"]), "Adding vhost \"v\" ...\n");
    assert!(printed(&broker, &["add_user", "u", "secret"]).starts_with("Adding user \"u\" ...\nDone."));
    assert_eq!(
        printed(&broker, &["set_permissions", "-p", "v", "u", "^u-", ".*", ""]),
        "Setting permissions for user \"u\" in vhost \"v\" ...\n"
    );
    assert_eq!(printed(&broker, &["-s", "list_permissions", "-p", "v"]), "u\t^u-\t.*\t\n");
    assert_eq!(
        printed(&broker, &["set_user_tags", "u", "monitoring"]),
        "Setting tags for user \"u\" to [monitoring] ...\n"
    );
    assert!(printed(&broker, &["-s", "list_users"]).contains("u\t[monitoring]\n"));
    assert!(printed(&broker, &["authenticate_user", "u", "secret"]).ends_with("Success\n"));
    assert_eq!(failed(&broker, &["authenticate_user", "u", "guess"]).0, 65);
    assert_eq!(failed(&broker, &["add_user", "u", "x"]), (70, "Error:\nUser \"u\" already exists\n".into()));
    assert_eq!(
        failed(&broker, &["delete_vhost", "w"]),
        (65, "Error:\nVirtual host 'w' does not exist\n".into())
    );
    assert_eq!(failed(&broker, &["delete_user", "w"]), (67, "Error:\nUser \"w\" does not exist\n".into()));
    printed(&broker, &["delete_user", "u"]);
    assert_eq!(printed(&broker, &["-s", "list_permissions", "-p", "v"]), "");
    printed(&broker, &["delete_vhost", "v"]);
    assert_eq!(printed(&broker, &["-s", "list_vhosts"]), "/\n");
}

#[test]
fn q1_policies_are_set_checked_and_taken_back() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q1", &[]);
    assert_eq!(
        printed(
            &broker,
            &["set_policy", "p", "^q", r#"{"max-length":2}"#, "--apply-to", "queues", "--priority", "3"]
        ),
        "Setting policy \"p\" for pattern \"^q\" to \"{\"max-length\":2}\" with priority \"3\" for vhost \"/\" ...\n"
    );
    assert_eq!(printed(&broker, &["-s", "list_policies"]), "/\tp\t^q\tqueues\t{\"max-length\":2}\t3\n");
    printed(&broker, &["set_operator_policy", "o", "^q", r#"{"max-length":1}"#]);
    assert_eq!(
        printed(&broker, &["-s", "list_queues", "policy", "operator_policy", "effective_policy_definition"]),
        "p\to\t{\"max-length\":1}\n"
    );
    for _ in 0..3 {
        client.publish(1, "q1", b"x");
    }
    assert_eq!(client.declare(1, "q1"), 1);
    printed(&broker, &["clear_policy", "p"]);
    printed(&broker, &["clear_operator_policy", "o"]);
    for _ in 0..3 {
        client.publish(1, "q1", b"x");
    }
    assert_eq!(client.declare(1, "q1"), 4);
    assert_eq!(
        failed(&broker, &["set_policy", "p", "^q", r#"{"max-length":-5}"#]),
        (69, "Error:\nValidation failed\n\n-5 is not a valid maximum length\n\n".into())
    );
    let unknown = "Error:\nValidation failed\n\n[{<<\"nope\">>,1}] are not recognised policy settings\n\n";
    assert_eq!(failed(&broker, &["set_policy", "p", "^q", r#"{"nope":1}"#]), (69, unknown.into()));
    assert_eq!(failed(&broker, &["clear_policy", "p"]), (69, "Error:\nParameter does not exist\n".into()));
}

#[test]
fn b_a_queue_pauses_and_changes_in_place() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", &[("x-max-length", FieldValue::I32(5))]);
    printed(&broker, &["pause_queue", "q"]);
    client.consume(1, "q", true);
    for number in 0..7 {
        client.publish(1, "q", &[number]);
    }
    assert!(has_messages(&broker, "q", 5));
    assert_eq!(printed(&broker, &["-s", "list_queues", "name", "state"]), "q\tpaused\n");
    printed(&broker, &["set_queue_arguments", "q", r#"{"x-max-length":2,"x-message-ttl":60000}"#]);
    assert!(has_messages(&broker, "q", 2));
    assert_eq!(
        printed(&broker, &["-s", "list_queues", "arguments"]),
        "[{\"x-max-length\",2},{\"x-message-ttl\",60000}]\n"
    );
    let (code, error) = failed(&broker, &["set_queue_arguments", "q", r#"{"x-max-priority":9}"#]);
    assert_eq!(code, 69);
    assert!(error.contains("'x-max-priority' cannot change"), "{error}");
    let (_, error) = failed(&broker, &["set_queue_arguments", "q", r#"{"x-message-ttl":-1}"#]);
    assert!(error.contains("{value_negative,-1}"), "{error}");
    printed(&broker, &["resume_queue", "q"]);
    assert_eq!(client.receiver.delivery().2, [5]);
    assert_eq!(client.receiver.delivery().2, [6]);
}

#[test]
fn b_a_paused_queue_stays_so_after_a_restart() {
    let parent = tempfile::tempdir().expect("there is room");
    let data = parent.path().join("data");
    let start = || {
        Broker::launch("", |command, _| {
            command.args(["--bind", "127.0.0.1", "--amqp-port", "0"]).env("WARREN_DATA_DIR", &data);
        })
    };
    let mut broker = start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", &[]);
    printed(&broker, &["pause_queue", "q"]);
    printed(&broker, &["set_queue_arguments", "q", r#"{"x-max-length":3}"#]);
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);
    let broker = start();
    assert_eq!(
        printed(&broker, &["-s", "list_queues", "state", "arguments"]),
        "paused\t[{\"x-max-length\",3}]\n"
    );
}

#[test]
fn cfg1_queues_and_connections_end_on_request() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", &[]);
    client.publish(1, "q", b"x");
    assert!(has_messages(&broker, "q", 1));
    assert_eq!(failed(&broker, &["delete_queue", "q", "--if-empty"]).0, 69);
    assert_eq!(printed(&broker, &["purge_queue", "q"]), "Purging queue 'q' in vhost '/' ...\n");
    assert!(has_messages(&broker, "q", 0));
    let deleted = printed(&broker, &["delete_queue", "q", "--if-unused"]);
    assert!(deleted.ends_with("Queue was successfully deleted with 0 ready messages\n"), "{deleted}");
    assert_eq!(failed(&broker, &["delete_queue", "q"]), (64, "Error:\nQueue not found\n".into()));
    let pid = printed(&broker, &["-s", "list_connections", "pid"]);
    printed(&broker, &["close_connection", pid.trim(), "time to go"]);
    let frame = client.receiver.method("connection.close");
    let Method::ConnectionClose { reply_code, reply_text, .. } = frame.method() else { unreachable!() };
    assert_eq!((reply_code, reply_text), (320, &b"CONNECTION_FORCED - time to go"[..]));
}

#[test]
fn cfg1_the_node_is_looked_at_and_ended() {
    let mut broker = Broker::start();
    assert!(printed(&broker, &["ping"]).ends_with("Ping succeeded\n"));
    printed(&broker, &["await_startup"]);
    printed(&broker, &["check_running"]);
    printed(&broker, &["check_port_connectivity"]);
    let status = printed(&broker, &["status"]);
    assert!(status.contains(&format!("OS PID: {}\n", broker.pid())), "{status}");
    let status: serde_json::Value =
        serde_json::from_str(&printed(&broker, &["status", "--formatter", "json"])).expect("it is JSON");
    assert_eq!(status["pid"], broker.pid());
    printed(&broker, &["check_alarms"]);
    let mut client = Client::with_channel(broker.address());
    client.declare(1, "q");
    client.publish(1, "q", b"what takes memory");
    assert!(has_messages(&broker, "q", 1));
    printed(&broker, &["set_vm_memory_high_watermark", "absolute", "1"]);
    assert!(poll(PATIENCE, || failed(&broker, &["check_alarms"]).0 == 69));
    printed(&broker, &["set_vm_memory_high_watermark", "0.4"]);
    assert!(poll(PATIENCE, || ctl(&broker, &["check_alarms"]).status.success()));
    printed(&broker, &["stop"]);
    assert!(broker.ended(PATIENCE).success());
    let (code, error) = failed(&broker, &["list_queues"]);
    assert_eq!(code, 69);
    assert!(error.contains("unable to reach a node"), "{error}");
}

#[test]
fn cfg1_called_by_a_link_it_is_rabbitmqctl() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().expect("there is room");
    let link = directory.path().join("rabbitmqctl");
    symlink(env!("CARGO_BIN_EXE_warren"), &link).expect("there is no such file yet");
    let call = |arguments: &[&str]| {
        run(Command::new(&link).args(arguments).env("WARREN_DATA_DIR", broker.ready.field("data")))
    };
    let ended = call(&["-n", "rabbit@anywhere", "--longnames", "list_vhosts", "--no-table-headers"]);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "Listing vhosts ...\n/\n"));
    assert_eq!(call(&["version"]).stdout, "4.3.5\n");
    for wrong in [&["no_such_command"][..], &["list_queues", "no_such_column"], &["add_vhost"]] {
        assert_eq!(call(wrong).status.code(), Some(64), "{wrong:?}");
    }
    assert_eq!(ctl(&broker, &["add_vhost"]).status.code(), Some(64));
    assert!(call(&["--help"]).stdout.contains("list_queues"));
}

#[test]
fn the_control_socket_is_for_the_owner_alone() {
    let broker = Broker::start();
    let socket = Path::new(broker.ready.field("data")).join("warren.sock");
    assert_eq!(std::fs::metadata(socket).expect("it is there").mode() & 0o777, 0o600);
}
