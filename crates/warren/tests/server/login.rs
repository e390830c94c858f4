//! Who may log in from where.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use warren_amqp091_codec::{Dialect, Method};

use crate::broker::Broker;
use crate::client::{Client, start_ok};

fn every_address() -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--amqp-port", "0"]);
    })
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn guest_from_this_machine_over_both_families() {
    let broker = every_address();
    let port = broker.address().port();
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    Client::open(v4).close();
    if has_ipv6() {
        Client::open((Ipv6Addr::LOCALHOST, port).into()).close();
    } else {
        println!("there is no IPv6 here");
    }
}

#[test]
fn an_ipv6_address_alone() {
    if !has_ipv6() {
        println!("skipped: there is no IPv6 here");
        return;
    }
    let broker = Broker::launch("", |command, _| {
        command.args(["--bind", "::1", "--amqp-port", "0"]);
    });
    assert!(broker.ready.field("amqp").starts_with("[::1]:"), "{}", broker.ready.line);
    Client::open(broker.address()).close();
}

#[test]
fn a_wrong_password_is_refused_with_403() {
    let broker = Broker::start();
    let mut client = Client::connect(broker.address());
    client.write(&Dialect::HEADER_091);
    client.receiver.method("connection.start");
    client.send(0, &start_ok(b"\0guest\0wrong"));
    let close = client.receiver.method("connection.close");
    let Method::ConnectionClose { reply_code, .. } = close.method() else { unreachable!() };
    assert_eq!(reply_code, 403);
    client.send(0, &Method::ConnectionCloseOk {});
    client.receiver.end();
    assert!(broker.log().contains("guest"), "the operator is told: {}", broker.log());
    assert!(!broker.log().contains("wrong"), "but no password: {}", broker.log());
}
