use crate::{scope::Scope, support::*};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use std::collections::BTreeMap;

pub async fn exclusive_auto_delete(scope: &Scope) -> Outcome {
    let (owner, other) = (scope.connect().await?, scope.connect().await?);
    let channel = owner.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    let exclusive = declare_own_queue(&channel).await?;
    let random =
        exclusive.as_str().strip_prefix("amq.gen-").ok_or_else(|| format!("generated name: {exclusive}"))?;
    let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(random.len() == 22 && random.chars().all(url_safe), "generated name: {exclusive}");
    publish(&channel, "", exclusive.as_str(), &["mine"]).await?;
    assert_eq!(drain(&owner.create_channel().await?, &exclusive).await?, ["mine"]);
    let locked = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{exclusive}' in vhost '/'. It could be \
         originally declared on another connection or the exclusive property value does not match that of the original \
         declaration."
    );
    channel_error(&other, 405, &locked, async |channel| Ok(inspect(&channel, &exclusive).await?)).await?;
    channel_error(&other, 405, &locked, async |channel| Ok(consume(&channel, &exclusive, true).await?))
        .await?;
    channel_error(&other, 405, &locked, async |channel| {
        Ok(channel.queue_delete(exclusive.clone(), QueueDeleteOptions::default()).await?)
    })
    .await?;

    // An empty queue name stands for the queue last declared on the channel.
    let bound = declare_own_queue(&channel).await?;
    let key = format!("{bound}.key");
    bind(&channel, &"".into(), &"amq.direct".into(), &key).await?;
    publish(&channel, "amq.direct", &key, &["to the last declared"]).await?;
    assert_eq!(drain(&channel, &"".into()).await?, ["to the last declared"]);
    channel_error(&owner, 404, "NOT_FOUND - no previously declared queue", async |channel| {
        Ok(try_get(&channel, &"".into(), true).await?)
    })
    .await?;

    let named = scope.queue("durable-exclusive");
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::exclusive() };
    channel.queue_declare(named.clone(), options, FieldTable::default()).await?;
    owner.close(200, "OK".into()).await?;
    for queue in [exclusive, bound, named] {
        queue_gone(&other, &queue).await?;
    }

    let survivor = other.create_channel().await?;
    let auto_delete = scope.queue("auto-delete");
    let options = QueueDeclareOptions::default().auto_delete();
    survivor.queue_declare(auto_delete.clone(), options, FieldTable::default()).await?;
    let first = consume(&survivor, &auto_delete, true).await?;
    let closing = other.create_channel().await?;
    let _second = consume(&closing, &auto_delete, true).await?;
    survivor.basic_cancel(first.tag(), BasicCancelOptions::default()).await?;
    assert_eq!(inspect(&survivor, &auto_delete).await?.consumer_count(), 1);
    closing.close(200, "OK".into()).await?;
    await_queue_gone(&other, &auto_delete).await?;

    let exchange = scope.exchange("auto-delete");
    let (left, right) = (scope.queue("left"), scope.queue("right"));
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    survivor.exchange_declare(exchange.clone(), ExchangeKind::Direct, options, FieldTable::default()).await?;
    declare_queue(&survivor, &left, false).await?;
    declare_queue(&survivor, &right, true).await?;
    bind(&survivor, &left, &exchange, "key").await?;
    bind(&survivor, &right, &exchange, "key").await?;
    survivor.queue_unbind(left, exchange.clone(), "key".into(), FieldTable::default()).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    survivor.exchange_declare(exchange.clone(), ExchangeKind::Direct, passive, FieldTable::default()).await?;
    survivor.queue_delete(right, QueueDeleteOptions::default()).await?;
    exchange_gone(&other, &exchange).await
}

pub async fn exchanges(scope: &Scope) -> Outcome {
    let channel = scope.confirm_channel().await?;
    direct(scope, &channel).await?;
    fanout(scope, &channel).await?;
    topic(scope, &channel).await?;
    headers(scope, &channel).await?;
    exchange_to_exchange(scope, &channel).await?;
    alternate_exchange(scope, &channel).await
}

async fn exchange(
    scope: &Scope,
    channel: &Channel,
    suffix: &str,
    kind: ExchangeKind,
) -> lapin::Result<ShortString> {
    let name = scope.exchange(suffix);
    declare_exchange(channel, &name, kind, false).await?;
    Ok(name)
}

async fn queue(scope: &Scope, channel: &Channel, suffix: &str) -> lapin::Result<ShortString> {
    let name = scope.queue(suffix);
    declare_queue(channel, &name, false).await?;
    Ok(name)
}

async fn direct(scope: &Scope, channel: &Channel) -> Outcome {
    let exchange = exchange(scope, channel, "direct", ExchangeKind::Direct).await?;
    let (one, two) = (queue(scope, channel, "direct.1").await?, queue(scope, channel, "direct.2").await?);
    for (queue, key) in [(&one, "a"), (&one, "b"), (&two, "b"), (&two, "b")] {
        bind(channel, queue, &exchange, key).await?;
    }
    for (key, body) in [("a", "to a"), ("b", "to b"), ("*", "to a star")] {
        publish(channel, exchange.as_str(), key, &[body]).await?;
    }
    assert_eq!(drain(channel, &one).await?, ["to a", "to b"]);
    assert_eq!(drain(channel, &two).await?, ["to b"]);
    let unbind =
        async || channel.queue_unbind(one.clone(), exchange.clone(), "b".into(), FieldTable::default()).await;
    unbind().await?;
    publish(channel, exchange.as_str(), "b", &["after unbind"]).await?;
    assert!(drain(channel, &one).await?.is_empty());
    assert_eq!(drain(channel, &two).await?, ["after unbind"]);
    // Unbinding what is not bound is no error.
    unbind().await?;
    Ok(())
}

async fn fanout(scope: &Scope, channel: &Channel) -> Outcome {
    let exchange = exchange(scope, channel, "fanout", ExchangeKind::Fanout).await?;
    let (one, two) = (queue(scope, channel, "fanout.1").await?, queue(scope, channel, "fanout.2").await?);
    for (queue, key) in [(&one, "ignored"), (&one, "also ignored"), (&two, "")] {
        bind(channel, queue, &exchange, key).await?;
    }
    publish(channel, exchange.as_str(), "any key", &["to all"]).await?;
    assert_eq!(drain(channel, &one).await?, ["to all"], "one copy despite two bindings");
    assert_eq!(drain(channel, &two).await?, ["to all"]);
    Ok(())
}

async fn topic(scope: &Scope, channel: &Channel) -> Outcome {
    // Empty words count, but an empty key has no words at all.
    const KEYS: [&str; 10] = [
        "quick.orange.rabbit",
        "lazy.orange",
        "lazy",
        "lazy.",
        "lazy.a.b.c",
        "rabbit",
        "a.z",
        "a.b.z",
        "a.b.c.z",
        "",
    ];
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("*.orange.*", ["quick.orange.rabbit"].as_slice()),
        ("lazy.#", &["lazy.orange", "lazy", "lazy.", "lazy.a.b.c"]),
        ("#.rabbit", &["quick.orange.rabbit", "rabbit"]),
        ("*", &["lazy", "rabbit"]),
        ("", &[""]),
        ("#", &KEYS),
        ("a.#.z", &["a.z", "a.b.z", "a.b.c.z"]),
        ("#.*.#", &KEYS[..9]),
        ("lazy.*", &["lazy.orange", "lazy."]),
    ]);
    let exchange = exchange(scope, channel, "topic", ExchangeKind::Topic).await?;
    let mut queues = BTreeMap::new();
    for pattern in expected.keys() {
        let name = queue(scope, channel, &format!("topic.{pattern}")).await?;
        bind(channel, &name, &exchange, pattern).await?;
        queues.insert(pattern, name);
    }
    for key in KEYS {
        publish(channel, exchange.as_str(), key, &[key]).await?;
    }
    for (pattern, keys) in &expected {
        assert_eq!(drain(channel, &queues[pattern]).await?, *keys, "pattern {pattern}");
    }
    Ok(())
}

fn table<const N: usize>(fields: [(&str, AMQPValue); N]) -> FieldTable {
    fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<BTreeMap<_, _>>().into()
}

fn string(text: &str) -> AMQPValue {
    LongString::from(text).into()
}

async fn headers(scope: &Scope, channel: &Channel) -> Outcome {
    let exchange = exchange(scope, channel, "headers", ExchangeKind::Headers).await?;
    let all = queue(scope, channel, "headers.all").await?;
    let any = queue(scope, channel, "headers.any").await?;
    let by_default = queue(scope, channel, "headers.default").await?;
    let matching =
        |mode: &str| table([("x-match", string(mode)), ("format", string("pdf")), ("pages", 3i32.into())]);
    for (queue, arguments) in
        [(&all, matching("all")), (&any, matching("any")), (&by_default, table([("format", string("pdf"))]))]
    {
        channel
            .queue_bind(queue.clone(), exchange.clone(), "".into(), QueueBindOptions::default(), arguments)
            .await?;
    }
    let send = async |headers: FieldTable, body: &str| {
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        publish_with(channel, exchange.as_str(), "ignored", options, body.as_bytes(), properties).await
    };
    let both = table([("format", string("pdf")), ("pages", 3i32.into()), ("more", true.into())]);
    send(both.clone(), "both").await?;
    send(table([("format", string("pdf"))]), "format").await?;
    send(table([("pages", 3i32.into())]), "pages").await?;
    send(table([("format", string("zip")), ("pages", string("3"))]), "neither").await?;
    send(FieldTable::default(), "empty").await?;
    publish(channel, exchange.as_str(), "ignored", &["no headers"]).await?;
    assert_eq!(drain(channel, &all).await?, ["both"]);
    assert_eq!(drain(channel, &any).await?, ["both", "format", "pages"]);
    assert_eq!(drain(channel, &by_default).await?, ["both", "format"]);
    channel.queue_unbind(any.clone(), exchange.clone(), "".into(), matching("any")).await?;
    send(both, "after unbind").await?;
    assert!(drain(channel, &any).await?.is_empty());
    assert_eq!(drain(channel, &all).await?, ["after unbind"]);
    Ok(())
}

async fn exchange_to_exchange(scope: &Scope, channel: &Channel) -> Outcome {
    let source = exchange(scope, channel, "source", ExchangeKind::Topic).await?;
    let destination = scope.exchange("destination");
    let internal = ExchangeDeclareOptions { durable: true, internal: true, ..Default::default() };
    channel
        .exchange_declare(destination.clone(), ExchangeKind::Fanout, internal, FieldTable::default())
        .await?;
    let queue = queue(scope, channel, "behind").await?;
    bind(channel, &queue, &destination, "").await?;
    bind(channel, &queue, &source, "order.new").await?;
    let options = ExchangeBindOptions::default();
    channel
        .exchange_bind(destination.clone(), source.clone(), "order.*".into(), options, FieldTable::default())
        .await?;
    // A cycle must neither loop nor multiply messages.
    channel
        .exchange_bind(source.clone(), destination.clone(), "#".into(), options, FieldTable::default())
        .await?;
    for (key, body) in
        [("order.new", "by two ways"), ("order.paid", "by the exchange"), ("invoice.paid", "no way")]
    {
        publish(channel, source.as_str(), key, &[body]).await?;
    }
    assert_eq!(drain(channel, &queue).await?, ["by two ways", "by the exchange"]);
    let options = ExchangeUnbindOptions::default();
    channel
        .exchange_unbind(
            destination.clone(),
            source.clone(),
            "order.*".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    publish(channel, source.as_str(), "order.paid", &["after unbind"]).await?;
    assert!(drain(channel, &queue).await?.is_empty());

    let refused =
        format!("ACCESS_REFUSED - cannot publish to internal exchange '{destination}' in vhost '/'");
    channel_error(&scope.connect().await?, 403, &refused, async |channel| {
        Ok(send(&channel, destination.as_str(), "", "from outside").await?)
    })
    .await
}

async fn alternate_exchange(scope: &Scope, channel: &Channel) -> Outcome {
    let (fallback, main) = (scope.exchange("fallback"), scope.exchange("main"));
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let arguments = table([("alternate-exchange", string(fallback.as_str()))]);
    channel.exchange_declare(main.clone(), ExchangeKind::Direct, options, arguments).await?;
    let routed = queue(scope, channel, "routed").await?;
    let unrouted = queue(scope, channel, "unrouted").await?;
    bind(channel, &routed, &main, "known").await?;

    let send = async |key: &str, body: &str| {
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        publish_with(channel, main.as_str(), key, mandatory, body.as_bytes(), BasicProperties::default())
            .await
    };
    let returned = send("unknown", "no alternate exchange yet").await?;
    assert_eq!(returned.map(|message| text(&message.data)), Some("no alternate exchange yet".into()));
    declare_exchange(channel, &fallback, ExchangeKind::Fanout, true).await?;
    bind(channel, &unrouted, &fallback, "").await?;
    assert_eq!(send("known", "routed").await?, None);
    assert_eq!(send("unknown", "unrouted").await?, None);
    assert_eq!(drain(channel, &routed).await?, ["routed"]);
    assert_eq!(drain(channel, &unrouted).await?, ["unrouted"]);
    Ok(())
}
