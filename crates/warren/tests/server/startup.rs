//! From the command line to the line that says where the broker is, or why it is not.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::broker::{Broker, Ended, PATIENCE, poll, run, warren};
use crate::client::Client;

/// The user and group without rights of their own.
const NOBODY: u32 = 65534;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

/// `warren server` on a port of its own.
fn server(data_dir: &Path) -> Command {
    let mut command = warren();
    command.args(["server", "--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data_dir);
    command
}

/// The broker refused to start, and said why in one line that has all of `words`.
#[track_caller]
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "", "nothing is ready");
    assert_eq!(ended.stderr.lines().count(), 1, "one line tells it all: {}", ended.stderr);
    assert!(ended.stderr.starts_with("warren: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "'{word}' is missing in: {}", ended.stderr);
    }
}

/// The broker serves with so many threads; each gets its name when it starts to run.
#[track_caller]
fn assert_workers(broker: &Broker, count: usize) {
    assert!(poll(PATIENCE, || broker.threads("tokio-rt-worker") == count), "not {count} threads");
}

#[test]
fn one_line_tells_that_the_broker_is_ready() {
    let broker = Broker::start();
    let words: Vec<&str> = broker.ready.line.split(' ').collect();
    let names: Vec<&str> = words.iter().map(|word| word.split('=').next().unwrap_or_default()).collect();
    assert_eq!(names, ["ready", "amqp", "data", "pid", "version"], "{}", broker.ready.line);
    assert_eq!(broker.ready.field("version"), env!("CARGO_PKG_VERSION"));
    assert!(Path::new(broker.ready.field("data")).is_absolute(), "{}", broker.ready.line);
    assert_ne!(broker.address().port(), 0);
    Client::open(broker.address()).close();
    println!("ready after {:?}, {} KiB resident", broker.ready.after, broker.memory() / 1024);
}

#[test]
fn without_an_address_every_one_is_served() {
    let broker = Broker::launch("", |command, _| {
        command.args(["--amqp-port", "0"]);
    });
    let port = broker.address().port();
    assert_eq!(broker.ready.field("amqp"), format!("localhost:{port}"));
    Client::open(([127, 0, 0, 1], port).into()).close();
}

#[test]
fn options_can_be_variables() {
    let port = free_port();
    let broker = Broker::launch("", |command, directory| {
        let config = directory.join("variable.conf");
        fs::write(&config, "log.console.level = debug\nheartbeat = 17\n").expect("there is room");
        command
            .env("WARREN_CONFIG", config)
            .env("WARREN_DATA_DIR", directory.join("by variable"))
            .env("WARREN_BIND", "127.0.0.2")
            .env("WARREN_AMQP_PORT", port.to_string())
            .env("WARREN_THREADS", "3");
    });
    assert_eq!(broker.ready.field("amqp"), format!("127.0.0.2:{port}"));
    // The directory has a blank in its name.
    assert!(broker.ready.line.contains("/by variable "), "{}", broker.ready.line);
    assert_workers(&broker, 3);
    let mut client = Client::connect(broker.address());
    client.write(b"AMQP\x00\x00\x09\x01");
    client.receiver.method("connection.start");
    client.send(0, &crate::client::start_ok(b"\0guest\0guest"));
    let tune = client.receiver.method("connection.tune");
    let text = format!("{:?}", tune.method());
    assert!(text.contains("heartbeat: 17"), "the configuration was read: {text}");
}

#[test]
fn the_command_line_wins_over_variables_and_both_over_the_configuration() {
    let [configured, variable, flag] = [free_port(), free_port(), free_port()];
    let config = format!("listeners.tcp.default = {configured}\n");
    let broker = Broker::launch(&config, |_, _| {});
    assert_eq!(broker.address().port(), configured);
    drop(broker);
    let broker = Broker::launch(&config, |command, _| {
        command.env("WARREN_AMQP_PORT", variable.to_string());
    });
    assert_eq!(broker.address().port(), variable);
    drop(broker);
    let broker = Broker::launch(&config, |command, directory| {
        command
            .env("WARREN_AMQP_PORT", variable.to_string())
            .env("WARREN_THREADS", "3")
            .env("WARREN_BIND", "127.0.0.3")
            .args(["--bind", "127.0.0.2", "--threads", "2", "--amqp-port", &flag.to_string()])
            .arg("--data-dir")
            .arg(directory.join("by-flag"));
    });
    assert_eq!(broker.ready.field("amqp"), format!("127.0.0.2:{flag}"));
    assert!(broker.ready.field("data").ends_with("/by-flag"), "{}", broker.ready.line);
    assert_workers(&broker, 2);
}

#[test]
fn an_address_without_a_port_keeps_the_configured_port() {
    let port = free_port();
    let broker = Broker::launch(&format!("listeners.tcp.default = {port}\n"), |command, _| {
        command.args(["--bind", "127.0.0.1"]);
    });
    assert_eq!(broker.ready.field("amqp"), format!("127.0.0.1:{port}"));
}

#[test]
fn a_bad_line_of_configuration_is_named() {
    let directory = tempfile::tempdir().expect("there is room");
    let config = directory.path().join("bad.conf");
    for (text, line, key) in [
        ("# fine\nheartbeats = 3\n", "line 2", "heartbeats"),
        ("frame_max = 12\n", "line 1", "frame_max"),
        ("heartbeat = 1\n\nvm_memory_high_watermark.absolute = lots\n", "line 3", "vm_memory_high_watermark"),
        ("what is this\n", "line 1", "what is this"),
    ] {
        fs::write(&config, text).expect("there is room");
        let ended = run(server(&directory.path().join("data")).arg("--config").arg(&config));
        assert_refused(&ended, &["bad.conf", line, key]);
        assert!(!directory.path().join("data").exists(), "a broker that does not start leaves nothing");
    }
}

#[test]
fn an_unreadable_configuration_is_named() {
    let directory = tempfile::tempdir().expect("there is room");
    let missing = directory.path().join("missing.conf");
    let ended = run(server(&directory.path().join("data")).arg("--config").arg(missing));
    assert_refused(&ended, &["missing.conf", "No such file"]);
    let ended = run(server(&directory.path().join("data")).arg("--config").arg(directory.path()));
    assert_refused(&ended, &["cannot read the configuration", "Is a directory"]);
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let directory = tempfile::tempdir().expect("there is room");
    let config = directory.path().join("bad.conf");
    fs::write(&config, "default_permissions.read = a(b\n").expect("there is room");
    let ended = run(server(&directory.path().join("data")).arg("--config").arg(&config));
    assert_refused(&ended, &["default_permissions", "a(b"]);
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let other = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = other.local_addr().expect("it is bound");
    let directory = tempfile::tempdir().expect("there is room");
    let port = address.port().to_string();
    let mut command = warren();
    command.args(["server", "--bind", "127.0.0.1", "--amqp-port", &port, "--data-dir"]).arg(directory.path());
    let ended = run(&mut command);
    assert_refused(&ended, &[&address.to_string(), "in use", "--amqp-port"]);
}

#[test]
fn an_address_of_another_machine_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().expect("there is room");
    let mut command = warren();
    command.args(["server", "--bind", "192.0.2.1", "--amqp-port", "0", "--data-dir"]).arg(directory.path());
    assert_refused(&run(&mut command), &["192.0.2.1", "--bind"]);
}

#[test]
fn a_data_directory_in_use_is_named_with_what_to_do() {
    let broker = Broker::start();
    let data_dir = broker.ready.field("data");
    let ended = run(&mut server(Path::new(data_dir)));
    assert_refused(&ended, &[data_dir, "in use by another broker", "--data-dir"]);
    Client::open(broker.address()).close();
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let directory = tempfile::tempdir().expect("there is room");
    fs::write(directory.path().join("letter.txt"), "dear").expect("there is room");
    let ended = run(&mut server(directory.path()));
    let shown = directory.path().display().to_string();
    assert_refused(&ended, &[&shown, "not a data directory of Warren", "--data-dir"]);
    let files: Vec<_> = fs::read_dir(directory.path()).expect("it exists").flatten().collect();
    assert_eq!(files.len(), 1, "nothing was added: {files:?}");
}

#[test]
fn a_data_directory_that_cannot_be_created_is_named() {
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("there is room");
    let ended = run(&mut server(&file.join("data")));
    assert_refused(&ended, &["cannot create the data directory", "file/data"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().expect("there is room");
    let data = directory.path().join("data");
    fs::create_dir(&data).expect("there is room");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).expect("it is ours");
    let mut command = server(&data);
    if fs::write(data.join("probe"), "").is_ok() {
        // Who may write everywhere runs the broker as somebody who may not, from where that one can read it.
        fs::remove_file(data.join("probe")).expect("it was just written");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let program = directory.path().join("warren");
        fs::copy(command.get_program(), &program).expect("there is room");
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(program);
        command.args(arguments).current_dir("/").uid(NOBODY).gid(NOBODY);
    }
    assert_refused(&run(&mut command), &["cannot write", "Permission denied"]);
}

#[test]
fn a_data_directory_can_be_used_again() {
    let directory = tempfile::tempdir().expect("there is room");
    let data = directory.path().join("new/data");
    for _ in 0..2 {
        let broker = Broker::launch("", |command, _| {
            command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(&data);
        });
        Client::open(broker.address()).close();
    }
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let port = free_port().to_string();
    for _ in 0..2 {
        let broker = Broker::launch("", |command, _| {
            command.args(["--bind", "127.0.0.1", "--amqp-port", &port]);
        });
        // Its socket waits for stragglers when the broker is gone.
        let client = Client::open(broker.address());
        drop(broker);
        drop(client);
    }
}

#[test]
fn help_and_completion() {
    for (arguments, words) in [
        (&["--help"][..], &["server", "completion", "warren server"][..]),
        (&["server", "--help"], &["--data-dir", "--config", "--bind", "--amqp-port", "--threads"]),
        (&["server", "--help"], &["WARREN_DATA_DIR", "WARREN_CONFIG", "WARREN_BIND", "WARREN_AMQP_PORT"]),
        (&["completion", "bash"], &["_warren()", "--amqp-port", "complete -F"]),
        (&["--version"], &["warren ", env!("CARGO_PKG_VERSION")]),
    ] {
        let ended = run(warren().args(arguments));
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.stderr, "");
        for word in words {
            assert!(ended.stdout.contains(word), "'{word}' is missing in: {}", ended.stdout);
        }
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for (arguments, word) in [
        (&["server", "--amqp-port", "70000"][..], "--amqp-port"),
        (&["server", "--threads", "0"], "--threads"),
        (&["server", "--bind", "somewhere"], "--bind"),
        (&["serve"], "serve"),
    ] {
        let ended = run(warren().args(arguments));
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word), "'{word}' is missing in: {}", ended.stderr);
    }
}

#[test]
fn completion_into_a_closed_pipe_is_no_panic() {
    let mut child = (warren().args(["completion", "bash"]).stdout(std::process::Stdio::piped()))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program can be started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
