//! `warren perf` against a broker: what it counts must be what happened.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::broker::{Broker, run, warren};
use crate::client::Client;

/// Runs `warren perf` and returns its results as `name: value` lines of JSON.
fn perf(broker: &Broker, arguments: &str) -> Results {
    let ended = run(warren()
        .args(["perf"])
        .args(arguments.split(' '))
        .args(["--json", "--quiet", "--broker-pid", &broker.pid().to_string()])
        .args(["--uri", &format!("amqp://{}", broker.address())]));
    assert!(ended.status.success(), "{arguments}: {}", ended.stderr);
    Results(ended.stdout)
}

struct Results(String);

impl Results {
    fn number(&self, name: &str) -> f64 {
        let start = format!("\"{name}\": ");
        let found = self.0.lines().find_map(|line| line.trim().strip_prefix(&start));
        let found = found.unwrap_or_else(|| panic!("no {name} in {}", self.0));
        found.trim_end_matches(',').parse().unwrap_or_else(|_| panic!("{name} is {found}"))
    }
}

#[test]
fn everything_that_was_sent_is_counted_and_verified() {
    let broker = Broker::start();
    for (arguments, copies) in [
        ("run -C 20000 -s 100 --verify", 1.0),
        (
            "run -C 20000 -s 40 -x 3 -y 2 -q 2 --durable --persistent -c 100 --prefetch 200 -A 10 --verify",
            1.0,
        ),
        ("run -C 3000 -s 16 -t fanout -q 3 -y 3 -c 500 --verify", 3.0),
        ("run -C 20 -s 300000 -c 4 --verify", 1.0),
    ] {
        let results = perf(&broker, arguments);
        let ratio = results.number("consumed_per_s") / results.number("published_per_s");
        assert!((ratio - copies).abs() < 0.2, "{arguments}: {}", results.0);
        assert!(results.0.contains("\"verified\": true"), "{}", results.0);
        assert!(results.number("broker_memory_now_bytes") > 1e6);
    }
    let mut client = Client::with_channel(broker.address());
    assert_eq!(client.declare(1, "perf-0"), 0, "what it declared is gone");
    client.close();
}

#[test]
fn latencies_are_measured_at_a_rate() {
    let broker = Broker::start();
    let results = perf(&broker, "run -z 1 --warm-up 0.2 -r 500 -s 64 --durable --persistent -c 10 --verify");
    assert!((50.0..550.0).contains(&results.number("published_per_s")), "{}", results.0);
    for name in ["delivery_us", "confirm_us"] {
        assert!(results.0.contains(&format!("\"{name}\": {{")), "{}", results.0);
    }
    let results = perf(&broker, "requests -z 0.5");
    assert!(results.number("requests_per_s") > 10.0 && results.number("p50") > 1.0, "{}", results.0);
}

/// The floor for confirms needs no broker, and leaves nothing.
#[test]
fn the_disk_is_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let ended = run(warren()
        .args(["perf", "sync", "--group", "10", "--duration", "0.2", "--json", "--dir"])
        .arg(dir.path()));
    assert!(ended.status.success(), "{}", ended.stderr);
    let results = Results(ended.stdout);
    assert!(results.number("synced_per_s") > 0.0 && results.number("p50") > 0.0, "{}", results.0);
    let each = results.number("confirmed_per_s") / results.number("synced_per_s");
    assert!((9.0..11.0).contains(&each), "{}", results.0);
    assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
    let ended = run(warren().args(["perf", "sync", "--dir"]).arg(dir.path().join("nowhere")));
    assert!(!ended.status.success() && ended.stderr.contains("cannot write"), "{}", ended.stderr);
}

#[test]
fn idleness_is_measured() {
    for what in ["connections", "queues"] {
        // What ran before would have left free memory, and nothing would be asked of the system.
        let broker = Broker::start();
        let results = perf(&broker, &format!("idle {what} -n 500 --rest 0.1"));
        assert!((1.0..100_000.0).contains(&results.number("bytes_each")), "{what}: {}", results.0);
    }
}

#[test]
fn churn_and_backlogs_are_measured() {
    let broker = Broker::start();
    for what in ["connections", "channels", "queues", "durable-queues", "bindings", "consumers"] {
        let results = perf(&broker, &format!("churn {what} --clients 2 -z 0.3"));
        assert!(results.number("operations_per_s") > 10.0, "{what}: {}", results.0);
    }
    let results = perf(&broker, "backlog -C 50000 -x 2 --rest 0.1");
    assert!(results.number("filled_per_s") > 0.0 && results.number("drained_per_s") > 0.0);
}

/// Ends with the test, however that ends.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        // If it has ended by itself, the test has failed.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn the_relay_is_a_floor() {
    let dir = tempfile::tempdir().expect("a directory");
    let relay = warren().args(["perf", "relay", "--dir"]).arg(dir.path()).stdout(Stdio::piped()).spawn();
    let mut relay = Relay(relay.expect("the program can be started"));
    let mut line = String::new();
    let stdout = relay.0.stdout.take().expect("it is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it prints text");
    let addresses = line.trim().strip_prefix("ready relay=").and_then(|rest| rest.split_once(" echo="));
    let (address, echo) = addresses.expect("it tells where it is");
    for size in ["16", "200000"] {
        let uri = format!("amqp://{address}");
        let arguments = [
            "perf", "run", "--bare", "-C", "500", "--verify", "--json", "--quiet", "--uri", &uri, "-s", size,
        ];
        let ended = run(warren().args(arguments));
        assert!(ended.status.success() && ended.stdout.contains("\"verified\": true"), "{}", ended.stderr);
    }
    for what in ["connections", "durable-queues", "bindings"] {
        let uri = format!("amqp://{echo}");
        let arguments = ["perf", "churn", what, "--bare", "--clients", "2", "-z", "0.3", "--json", "--quiet"];
        let ended = run(warren().args(arguments).args(["--uri", &uri]));
        assert!(ended.status.success(), "{what}: {}", ended.stderr);
        assert!(Results(ended.stdout).number("operations_per_s") > 10.0, "{what}");
    }
}

#[test]
fn what_is_wrong_is_told() {
    let broker = Broker::start();
    let uri = format!("amqp://{}", broker.address());
    for (arguments, told) in [
        (vec!["--uri", "amqp://127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (vec!["--uri", "http://127.0.0.1"], "does not begin with amqp://"),
        (vec!["--uri", &uri, "-s", "8", "--latency"], "--size must be at least 16"),
        (vec!["--uri", &uri, "-t", "nothing", "-C", "1"], "unknown exchange type 'nothing'"),
        (vec!["--uri", &uri, "--argument", "x-max-length=-1"], "invalid arg 'x-max-length'"),
    ] {
        let ended = run(warren().args(["perf", "run", "--quiet"]).args(&arguments));
        assert!(!ended.status.success(), "{arguments:?}: {}", ended.stdout);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
}
