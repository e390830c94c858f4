//! Content headers: fixed part, flags, property list.

use proptest::collection::vec;
use proptest::prelude::*;
use warren_amqp091_codec::{ContentHeader, Dialect, OwnedProperties, Properties};
use warren_types::{FieldTable, FieldValue};

use crate::sample::properties;
use crate::{DIALECTS, hex};

/// All fourteen properties, as pika 1.4 writes them.
const ALL_BYTES: &str = "fffc 0a746578742f706c61696e 0475746638 \
    0000001e 016e 49 00000001 0173 53 00000001 74 016c 41 00000008 7401 53 00000001 78 \
    02 09 0163 0172 053630303030 016d 000000006553f100 027479 0175 0161 02636c";

fn all() -> OwnedProperties {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let mut headers = FieldTable::new();
    headers.insert("n", FieldValue::I32(1));
    headers.insert("s", FieldValue::string("t"));
    headers.insert("l", FieldValue::Array(vec![FieldValue::Bool(true), FieldValue::string("x")]));
    OwnedProperties {
        content_type: bytes("text/plain"),
        content_encoding: bytes("utf8"),
        headers: Some(headers),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: bytes("c"),
        reply_to: bytes("r"),
        expiration: bytes("60000"),
        message_id: bytes("m"),
        timestamp: Some(1_700_000_000),
        type_: bytes("ty"),
        user_id: bytes("u"),
        app_id: bytes("a"),
        cluster_id: bytes("cl"),
    }
}

fn encoded(properties: &OwnedProperties, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    properties.encode(dialect, &mut out);
    out
}

#[test]
fn a_header_is_split() {
    let payload = hex("003c 0001 0102030405060708 9000 0a746578742f706c61696e 02");
    let header = ContentHeader::parse(&payload).unwrap();
    assert_eq!((header.class_id, header.weight, header.body_size), (60, 1, 0x0102_0304_0506_0708));
    let properties = Properties::parse(header.properties).unwrap();
    assert_eq!(properties.content_type(), Some(&b"text/plain"[..]));
    assert_eq!(properties.delivery_mode(), Some(2));
    assert_eq!(properties.raw(), header.properties);
}

#[test]
fn all_properties_are_read_and_written() {
    let raw = hex(ALL_BYTES);
    let properties = Properties::parse(&raw).unwrap();
    assert_eq!(properties.content_type(), Some(&b"text/plain"[..]));
    assert_eq!(properties.content_encoding(), Some(&b"utf8"[..]));
    assert_eq!(properties.headers(), all().headers);
    assert_eq!(properties.headers_raw().map(<[u8]>::len), Some(0x1e));
    assert_eq!(properties.delivery_mode(), Some(2));
    assert_eq!(properties.priority(), Some(9));
    assert_eq!(properties.correlation_id(), Some(&b"c"[..]));
    assert_eq!(properties.reply_to(), Some(&b"r"[..]));
    assert_eq!(properties.expiration(), Some(&b"60000"[..]));
    assert_eq!(properties.message_id(), Some(&b"m"[..]));
    assert_eq!(properties.timestamp(), Some(1_700_000_000));
    assert_eq!(properties.type_(), Some(&b"ty"[..]));
    assert_eq!(properties.user_id(), Some(&b"u"[..]));
    assert_eq!(properties.app_id(), Some(&b"a"[..]));
    assert_eq!(properties.cluster_id(), Some(&b"cl"[..]));
    assert_eq!(encoded(&all(), Dialect::Amqp091), raw);
}

#[test]
fn each_property_has_the_flag_of_the_specification() {
    let spec = include_str!("../../../../spec/amqp-rabbitmq-0.9.1.json");
    let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
    let basic = spec["classes"].as_array().unwrap().iter().find(|class| class["name"] == "basic").unwrap();
    let names: Vec<&str> =
        basic["properties"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    let full = all();
    for (index, name) in names.iter().enumerate() {
        let mut one = OwnedProperties::default();
        match *name {
            "content-type" => one.content_type = full.content_type.clone(),
            "content-encoding" => one.content_encoding = full.content_encoding.clone(),
            "headers" => one.headers = full.headers.clone(),
            "delivery-mode" => one.delivery_mode = full.delivery_mode,
            "priority" => one.priority = full.priority,
            "correlation-id" => one.correlation_id = full.correlation_id.clone(),
            "reply-to" => one.reply_to = full.reply_to.clone(),
            "expiration" => one.expiration = full.expiration.clone(),
            "message-id" => one.message_id = full.message_id.clone(),
            "timestamp" => one.timestamp = full.timestamp,
            "type" => one.type_ = full.type_.clone(),
            "user-id" => one.user_id = full.user_id.clone(),
            "app-id" => one.app_id = full.app_id.clone(),
            "cluster-id" => one.cluster_id = full.cluster_id.clone(),
            other => panic!("no property {other}"),
        }
        let raw = encoded(&one, Dialect::Amqp091);
        assert_eq!(raw[..2], (1_u16 << (15 - index)).to_be_bytes(), "{name}");
        assert_eq!(Properties::parse(&raw).unwrap().to_owned(), one);
    }
    assert_eq!(names.len(), 14);
}

#[test]
fn no_properties() {
    let none = Properties::parse(Properties::NONE).unwrap();
    assert_eq!(none.to_owned(), OwnedProperties::default());
    assert_eq!(encoded(&OwnedProperties::default(), Dialect::Amqp091), Properties::NONE);
    assert!(!none.has_header(b""));
}

#[test]
fn an_undefined_flag_is_ignored() {
    let raw = hex("1002 02");
    assert_eq!(Properties::parse(&raw).unwrap().delivery_mode(), Some(2));
}

#[test]
fn flags_may_go_on_without_announcing_anything() {
    let raw = hex("9001 0001 0000 0161 02");
    let properties = Properties::parse(&raw).unwrap();
    assert_eq!(properties.content_type(), Some(&b"a"[..]));
    assert_eq!(properties.delivery_mode(), Some(2));
}

#[test]
fn headers_are_looked_up_by_name() {
    let raw = hex(ALL_BYTES);
    let properties = Properties::parse(&raw).unwrap();
    assert!(properties.has_header(b"s"));
    assert!(!properties.has_header(b"x"));
}

proptest! {
    #[test]
    fn properties_come_back(
        (dialect, properties) in prop::sample::select(&DIALECTS[..])
            .prop_flat_map(|dialect| (Just(dialect), properties(dialect))),
    ) {
        let raw = encoded(&properties, dialect);
        prop_assert_eq!(Properties::parse(&raw).unwrap().to_owned(), properties);
    }

    #[test]
    fn too_few_and_too_many_bytes_are_noticed(
        properties in properties(Dialect::Amqp091),
        cut: prop::sample::Index,
    ) {
        let mut raw = encoded(&properties, Dialect::Amqp091);
        prop_assert!(Properties::parse(&raw[..cut.index(raw.len())]).is_err());
        raw.push(0);
        prop_assert!(Properties::parse(&raw).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(flags in any::<u16>(), list in vec(any::<u8>(), 0..200)) {
        let raw = [&(flags & !1).to_be_bytes()[..], &list].concat();
        if let Ok(properties) = Properties::parse(&raw) {
            let owned = properties.to_owned();
            // Equal but for NaN, which is not equal to itself.
            let again = encoded(&owned, Dialect::Amqp091);
            prop_assert_eq!(again.len(), raw.len());
        }
        let _ = ContentHeader::parse(&raw);
    }
}
