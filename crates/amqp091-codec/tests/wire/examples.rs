//! Methods, frames and content headers byte by byte.
//!
//! The payloads of 0-9-1 are what pika 1.4 sends for the same arguments; those of 0-8 follow py-amqplib 1.0.

use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::{FieldTable, FieldValue};

use crate::hex;
use Dialect::{Amqp08, Amqp09, Amqp091};

const ALL: &[Dialect] = &[Amqp08, Amqp09, Amqp091];
const NEW: &[Dialect] = &[Amqp09, Amqp091];
const OLD: &[Dialect] = &[Amqp08];

#[track_caller]
fn check(dialects: &[Dialect], method: &Method<'_>, payload: &str) {
    let payload = hex(payload);
    for &dialect in dialects {
        let mut encoded = Vec::new();
        method.encode(dialect, &mut encoded);
        assert_eq!(encoded, payload, "{dialect:?}");
        assert_eq!(Method::decode(dialect, &payload).as_ref(), Ok(method), "{dialect:?}");
    }
}

fn table<const N: usize>(entries: [(&str, FieldValue); N]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in entries {
        table.insert(name, value);
    }
    table
}

#[test]
fn protocol_headers() {
    let known = [
        (b"AMQP\x01\x01\x08\x00", Some(Amqp08), (8, 0)),
        (b"AMQP\x01\x01\x09\x01", Some(Amqp08), (8, 0)),
        (b"AMQP\x01\x01\x00\x09", Some(Amqp09), (0, 9)),
        (b"AMQP\x00\x00\x09\x01", Some(Amqp091), (0, 9)),
    ];
    for (header, dialect, version) in known {
        assert_eq!(Dialect::from_protocol_header(header), dialect);
        assert_eq!(dialect.map(Dialect::version), Some(version));
    }
    for header in [b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00", b"AMQP\x00\x00\x09\x00", b"GET / HT"] {
        assert_eq!(Dialect::from_protocol_header(header), None);
    }
}

#[test]
fn connection_start_carries_the_version() {
    let start = |(version_major, version_minor)| Method::ConnectionStart {
        version_major,
        version_minor,
        server_properties: table([("product", FieldValue::string("x"))]),
        mechanisms: b"PLAIN AMQPLAIN",
        locales: b"en_US",
    };
    let rest = "0000000e 07 70726f64756374 53 00000001 78 \
        0000000e 504c41494e20414d51504c41494e 00000005 656e5f5553";
    check(OLD, &start(Amqp08.version()), &format!("000a 000a 08 00 {rest}"));
    check(NEW, &start(Amqp091.version()), &format!("000a 000a 00 09 {rest}"));
}

#[test]
fn connection_start_ok() {
    let capabilities = table([("basic.nack", FieldValue::Bool(true))]);
    let plain = Method::ConnectionStartOk {
        client_properties: table([
            ("product", FieldValue::string("x")),
            ("capabilities", FieldValue::Table(capabilities)),
        ]),
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    };
    let bytes = "000a000b 0000002d0770726f647563745300000001780c6361706162696c6974696573460000000d0a62617369632e\
        6e61636b740105504c41494e0000000c00677565737400677565737405656e5f5553";
    check(NEW, &plain, bytes);

    let login = hex("05 4c4f47494e 53 00000005 6775657374 08 50415353574f5244 53 00000005 6775657374");
    let amqplain = Method::ConnectionStartOk {
        client_properties: table([("library", FieldValue::string("Python amqplib"))]),
        mechanism: b"AMQPLAIN",
        response: &login,
        locale: b"en_US",
    };
    let bytes = "000a000b 0000001b 07 6c696272617279 53 0000000e 507974686f6e20616d71706c6962 \
        08 414d51504c41494e 00000023 \
        05 4c4f47494e 53 00000005 6775657374 08 50415353574f5244 53 00000005 6775657374 05 656e5f5553";
    check(ALL, &amqplain, bytes);
}

#[test]
fn connection() {
    let tune = Method::ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    check(ALL, &tune, "000a001e 07ff 00020000 003c");
    let open = Method::ConnectionOpen { virtual_host: b"/", capabilities: b"", insist: true };
    check(ALL, &open, "000a0028 012f 00 01");
    check(ALL, &Method::ConnectionOpenOk { known_hosts: b"" }, "000a0029 00");
    let secret = Method::ConnectionUpdateSecret { new_secret: b"s", reason: b"r" };
    check(NEW, &secret, "000a0046 00000001 73 01 72");
}

#[test]
fn connection_close_moved_between_dialects() {
    let close = Method::ConnectionClose {
        reply_code: 320,
        reply_text: b"CONNECTION_FORCED",
        class_id: 60,
        method_id: 40,
    };
    let rest = "0140 11 434f4e4e454354494f4e5f464f52434544 003c 0028";
    check(NEW, &close, &format!("000a0032 {rest}"));
    check(OLD, &close, &format!("000a003c {rest}"));
    check(NEW, &Method::ConnectionCloseOk, "000a0033");
    check(OLD, &Method::ConnectionCloseOk, "000a003d");
    check(
        NEW,
        &Method::ConnectionBlocked { reason: b"low on memory" },
        "000a003c 0d 6c6f77206f6e206d656d6f7279",
    );
    check(NEW, &Method::ConnectionUnblocked, "000a003d");
    check(OLD, &Method::ConnectionRedirect { host: b"h", known_hosts: b"" }, "000a0032 0168 00");
}

#[test]
fn channel() {
    check(ALL, &Method::ChannelOpen { out_of_band: b"" }, "0014000a 00");
    check(NEW, &Method::ChannelOpenOk { channel_id: b"" }, "0014000b 00000000");
    check(OLD, &Method::ChannelOpenOk { channel_id: b"" }, "0014000b");
    check(ALL, &Method::ChannelFlow { active: true }, "00140014 01");
    let close =
        Method::ChannelClose { reply_code: 404, reply_text: b"NOT_FOUND", class_id: 50, method_id: 20 };
    check(ALL, &close, "00140028 0194 09 4e4f545f464f554e44 0032 0014");
    check(ALL, &Method::ChannelCloseOk, "00140029");
}

#[test]
fn access() {
    let request = Method::AccessRequest {
        realm: b"/data",
        exclusive: false,
        passive: false,
        active: true,
        write: true,
        read: true,
    };
    check(ALL, &request, "001e000a 05 2f64617461 1c");
    check(ALL, &Method::AccessRequestOk { ticket: 1 }, "001e000b 0001");
}

#[test]
fn exchange() {
    let declare = Method::ExchangeDeclare {
        ticket: 0,
        exchange: b"logs",
        kind: b"topic",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: true,
        nowait: false,
        arguments: table([("alternate-exchange", FieldValue::string("ae"))]),
    };
    let bytes = "0028000a 0000 046c6f6773 05746f706963 0a 0000001a12616c7465726e6174652d65786368616e676553000000026165";
    check(ALL, &declare, bytes);
    let bind = Method::ExchangeBind {
        ticket: 0,
        destination: b"dst",
        source: b"src",
        routing_key: b"a.#",
        nowait: true,
        arguments: FieldTable::new(),
    };
    check(NEW, &bind, "0028001e 0000 03647374 03737263 03612e23 01 00000000");
    check(NEW, &Method::ExchangeUnbindOk, "00280033");
}

#[test]
fn queue() {
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: b"tasks",
        passive: false,
        durable: true,
        exclusive: true,
        auto_delete: false,
        nowait: true,
        arguments: table([
            ("x-max-length", FieldValue::I32(70_000)),
            ("x-expires", FieldValue::I32(-5)),
            ("big", FieldValue::I64(1 << 40)),
        ]),
    };
    let bytes = "0032000a 0000 057461736b73 16 0000002e 0c782d6d61782d6c656e677468 49 00011170 \
        09782d65787069726573 49 fffffffb 03626967 6c 0000010000000000";
    check(NEW, &declare, bytes);
    let declare_ok = Method::QueueDeclareOk { queue: b"tasks", message_count: 7, consumer_count: 2 };
    check(ALL, &declare_ok, "0032000b 057461736b73 00000007 00000002");
    let delete =
        Method::QueueDelete { ticket: 0, queue: b"tasks", if_unused: true, if_empty: true, nowait: false };
    check(ALL, &delete, "00320028 0000 057461736b73 03");
    let unbind = Method::QueueUnbind {
        ticket: 0,
        queue: b"q",
        exchange: b"e",
        routing_key: b"k",
        arguments: table([("n", FieldValue::Void)]),
    };
    check(NEW, &unbind, "00320032 0000 0171 0165 016b 00000003 016e56");
}

#[test]
fn consume_has_no_table_in_08() {
    let consume = |arguments| Method::BasicConsume {
        ticket: 1,
        queue: b"tasks",
        consumer_tag: b"ctag1",
        no_local: true,
        no_ack: false,
        exclusive: true,
        nowait: false,
        arguments,
    };
    let fields = "003c0014 0001 057461736b73 056374616731 05";
    let arguments = table([("x-priority", FieldValue::I32(10))]);
    check(NEW, &consume(arguments.clone()), &format!("{fields} 000000100a782d7072696f72697479490000000a"));
    check(OLD, &consume(FieldTable::new()), fields);

    let mut encoded = Vec::new();
    consume(arguments).encode(Amqp08, &mut encoded);
    assert_eq!(encoded, hex(fields));
}

#[test]
fn publish_and_deliver() {
    let publish = |ticket| Method::BasicPublish {
        ticket,
        exchange: b"logs",
        routing_key: b"a.b",
        mandatory: true,
        immediate: false,
    };
    check(ALL, &publish(0), "003c0028 0000 046c6f6773 03612e62 01");
    check(ALL, &publish(101), "003c0028 0065 046c6f6773 03612e62 01");
    let back = Method::BasicReturn {
        reply_code: 312,
        reply_text: b"NO_ROUTE",
        exchange: b"logs",
        routing_key: b"a.b",
    };
    check(ALL, &back, "003c0032 0138 084e4f5f524f555445 046c6f6773 03612e62");
    let deliver = Method::BasicDeliver {
        consumer_tag: b"ctag1",
        delivery_tag: 0x0102_0304_0506_0708,
        redelivered: true,
        exchange: b"logs",
        routing_key: b"a.b",
    };
    check(ALL, &deliver, "003c003c 056374616731 0102030405060708 01 046c6f6773 03612e62");
    let get_ok = Method::BasicGetOk {
        delivery_tag: 1,
        redelivered: false,
        exchange: b"",
        routing_key: b"tasks",
        message_count: 41,
    };
    check(ALL, &get_ok, "003c0047 0000000000000001 00 00 057461736b73 00000029");
    check(
        ALL,
        &Method::BasicGet { ticket: 0, queue: b"tasks", no_ack: true },
        "003c0046 0000 057461736b73 01",
    );
    check(ALL, &Method::BasicGetEmpty { cluster_id: b"" }, "003c0048 00");
}

#[test]
fn acknowledgements() {
    check(ALL, &Method::BasicAck { delivery_tag: 5, multiple: true }, "003c0050 0000000000000005 01");
    check(ALL, &Method::BasicReject { delivery_tag: 6, requeue: false }, "003c005a 0000000000000006 00");
    let nack = Method::BasicNack { delivery_tag: 7, multiple: true, requeue: true };
    check(NEW, &nack, "003c0078 0000000000000007 03");
    check(ALL, &Method::BasicRecover { requeue: true }, "003c006e 01");
    check(ALL, &Method::BasicRecoverAsync { requeue: true }, "003c0064 01");
    let qos = Method::BasicQos { prefetch_size: 0, prefetch_count: 250, global: true };
    check(ALL, &qos, "003c000a 00000000 00fa 01");
}

#[test]
fn confirm_and_tx() {
    check(NEW, &Method::ConfirmSelect { nowait: true }, "0055000a 01");
    check(ALL, &Method::TxSelect, "005a000a");
    check(ALL, &Method::TxRollbackOk, "005a001f");
}

#[test]
fn frames() {
    let mut out = Vec::new();
    frame::put_heartbeat(&mut out);
    assert_eq!(out, hex("08 0000 00000000 ce"));

    out.clear();
    frame::put_method(&mut out, Amqp091, 258, &Method::ChannelOpen { out_of_band: b"" });
    assert_eq!(out, hex("01 0102 00000005 0014000a 00 ce"));

    out.clear();
    frame::put_content_header(&mut out, 1, 5, &hex("9000 0a 746578742f706c61696e 02"));
    let header = "02 0001 0000001a 003c 0000 0000000000000005 9000 0a746578742f706c61696e 02 ce";
    assert_eq!(out, hex(header));

    out.clear();
    frame::put_body_head(&mut out, 1, 5);
    assert_eq!(out, hex("03 0001 00000005"));
}
