//! Every method in every dialect: there and back, cut short, and with bytes too many.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use warren_amqp091_codec::{DecodeError, Dialect, Method, frame};

use crate::DIALECTS;
use crate::sample::{COUNT, Source, build, material, number_of, some_material};

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(&DIALECTS[..])
}

/// Methods by number, for every dialect that has them.
fn existing(dialect: Dialect) -> Vec<usize> {
    let material = some_material(dialect);
    let exists =
        |&number: &usize| build(number, dialect, &mut Source::new(&material)).id_in(dialect).is_some();
    (0..COUNT).filter(exists).collect()
}

#[test]
fn samples_cover_every_method() {
    let material = some_material(Dialect::Amqp091);
    for number in 0..COUNT {
        let method = build(number, Dialect::Amqp091, &mut Source::new(&material));
        assert_eq!(number_of(&method), number, "{}", method.name());
    }
}

#[test]
fn dialects_have_the_methods_of_their_specifications() {
    let specs = [
        (Dialect::Amqp08, include_str!("../../../../spec/amqp-rabbitmq-0.8.json")),
        (Dialect::Amqp09, include_str!("../../../../spec/amqp-rabbitmq-0.9.1.json")),
        (Dialect::Amqp091, include_str!("../../../../spec/amqp-rabbitmq-0.9.1.json")),
    ];
    let served = ["connection", "channel", "access", "exchange", "queue", "basic", "tx", "confirm"];
    for (dialect, spec) in specs {
        let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
        let mut count = 0;
        for class in spec["classes"].as_array().unwrap() {
            for method in class["methods"].as_array().unwrap() {
                let (class_id, id) = (class["id"].as_u64().unwrap(), method["id"].as_u64().unwrap());
                let (class_name, name) = (class["name"].as_str().unwrap(), method["name"].as_str().unwrap());
                let expected = served.contains(&class_name).then(|| format!("{class_name}.{name}"));
                let known = Method::name_of(dialect, class_id as u16, id as u16);
                assert_eq!(known.map(str::to_owned), expected, "{dialect:?} {class_name}.{name}");
                count += usize::from(expected.is_some());
            }
        }
        assert_eq!(existing(dialect).len(), count, "{dialect:?}");
    }
}

#[test]
fn ids_names_and_content_agree() {
    for dialect in DIALECTS {
        let material = some_material(dialect);
        for number in existing(dialect) {
            let method = build(number, dialect, &mut Source::new(&material));
            let (class, id) = method.id(dialect);
            assert_eq!(Method::name_of(dialect, class, id), Some(method.name()));
            let content = ["basic.publish", "basic.return", "basic.deliver", "basic.get-ok"];
            assert_eq!(method.has_content(), content.contains(&method.name()), "{}", method.name());
        }
    }
}

#[test]
#[should_panic(expected = "confirm.select-ok does not exist in Amqp08")]
fn a_method_that_the_dialect_lacks_is_not_encoded() {
    Method::ConfirmSelectOk.encode(Dialect::Amqp08, &mut Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_method_comes_back(
        (dialect, material) in dialect().prop_flat_map(|dialect| (Just(dialect), material(dialect))),
    ) {
        for number in 0..COUNT {
            let method = build(number, dialect, &mut Source::new(&material));
            if method.id_in(dialect).is_none() {
                continue;
            }
            let mut payload = Vec::new();
            method.encode(dialect, &mut payload);
            prop_assert_eq!(Method::decode(dialect, &payload), Ok(method));
        }
    }

    #[test]
    fn frames_hold_what_they_say(
        (dialect, material) in dialect().prop_flat_map(|dialect| (Just(dialect), material(dialect))),
        channel: u16,
        before in vec(any::<u8>(), 0..9),
    ) {
        for number in 0..COUNT {
            let method = build(number, dialect, &mut Source::new(&material));
            if method.id_in(dialect).is_none() {
                continue;
            }
            let mut payload = Vec::new();
            method.encode(dialect, &mut payload);
            let mut out = before.clone();
            frame::put_method(&mut out, dialect, channel, &method);
            let written = out.strip_prefix(before.as_slice()).unwrap();
            let head = frame::FrameHead::parse(written.first_chunk().unwrap());
            let expected = frame::FrameHead { kind: frame::METHOD, channel, size: payload.len() as u32 };
            prop_assert_eq!(head, expected);
            payload.push(frame::END);
            prop_assert_eq!(&written[frame::HEAD_LEN..], &payload);
        }
    }

    #[test]
    fn too_few_and_too_many_bytes_are_noticed(
        (dialect, material) in dialect().prop_flat_map(|dialect| (Just(dialect), material(dialect))),
        cut: Index,
    ) {
        for number in 0..COUNT {
            let method = build(number, dialect, &mut Source::new(&material));
            let Some((class, id)) = method.id_in(dialect) else { continue };
            let mut payload = Vec::new();
            method.encode(dialect, &mut payload);
            let len = cut.index(payload.len());
            let error = Method::decode(dialect, &payload[..len]).unwrap_err();
            if len < 4 {
                prop_assert_eq!(error, DecodeError::NoId { len });
            } else {
                prop_assert_eq!(error, DecodeError::Truncated { class, method: id, name: method.name() });
            }
            payload.push(0);
            let trailing = DecodeError::Trailing { class, method: id, name: method.name(), len: 1 };
            prop_assert_eq!(Method::decode(dialect, &payload), Err(trailing));
        }
    }

    #[test]
    fn damaged_methods_never_panic(
        (dialect, material) in dialect().prop_flat_map(|dialect| (Just(dialect), material(dialect))),
        at: Index,
        value: u8,
    ) {
        for number in 0..COUNT {
            let method = build(number, dialect, &mut Source::new(&material));
            if method.id_in(dialect).is_none() {
                continue;
            }
            let mut payload = Vec::new();
            method.encode(dialect, &mut payload);
            let at = at.index(payload.len());
            payload[at] = value;
            for reader in DIALECTS {
                if let Ok(decoded) = Method::decode(reader, &payload) {
                    prop_assert_eq!(decoded.id(reader), (u16::from_be_bytes([payload[0], payload[1]]),
                        u16::from_be_bytes([payload[2], payload[3]])));
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(id in 0..=120_u8, arguments in vec(any::<u8>(), 0..200)) {
        for dialect in DIALECTS {
            let _ = Method::decode(dialect, &arguments);
            for class in [10, 20, 30, 40, 50, 60, 70, 85, 90] {
                let mut payload = vec![0, class, 0, id];
                payload.extend_from_slice(&arguments);
                let _ = Method::decode(dialect, &payload);
            }
        }
    }
}
