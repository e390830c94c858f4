//! The patterns of RabbitMQ's seven tutorials.

use crate::{scope::Scope, support::*};
use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer, ExchangeKind, options::*,
    types::ShortString,
};

pub async fn all(scope: &Scope) -> Outcome {
    hello_world(scope).await?;
    work_queues(scope).await?;
    publish_subscribe(scope).await?;
    routing(scope).await?;
    topics(scope).await?;
    rpc(scope).await?;
    publisher_confirms(scope).await
}

async fn hello_world(scope: &Scope) -> Outcome {
    let queue = scope.queue("hello");
    let sender = scope.connect().await?;
    let channel = sender.create_channel().await?;
    declare_queue(&channel, &queue, false).await?;
    send(&channel, "", queue.as_str(), "Hello World!").await?;
    sender.close(200, "OK".into()).await?;
    let receiver = scope.channel().await?;
    declare_queue(&receiver, &queue, false).await?;
    let mut consumer = consume(&receiver, &queue, true).await?;
    same_deliveries(&take(&mut consumer, 1).await?, &["Hello World!"], false);
    Ok(())
}

async fn worker(scope: &Scope, queue: &ShortString) -> lapin::Result<(Connection, Consumer)> {
    let connection = scope.connect().await?;
    let channel = connection.create_channel().await?;
    declare_queue(&channel, queue, true).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let consumer = consume(&channel, queue, false).await?;
    Ok((connection, consumer))
}

async fn work_queues(scope: &Scope) -> Outcome {
    let queue = scope.queue("task_queue");
    let (busy_connection, mut busy) = worker(scope, &queue).await?;
    let (_idle_connection, mut idle) = worker(scope, &queue).await?;

    let producer = scope.channel().await?;
    declare_queue(&producer, &queue, true).await?;
    for i in 1..=5 {
        let (options, body) = (BasicPublishOptions::default(), format!("task {i}"));
        let persistent = BasicProperties::default().with_delivery_mode(2);
        producer.basic_publish("".into(), queue.clone(), options, body.as_bytes(), persistent).await?;
    }
    same_deliveries(&take(&mut busy, 1).await?, &["task 1"], false);
    // While one worker is busy, the other gets all the rest.
    for i in 2..=5 {
        let task = take(&mut idle, 1).await?;
        same_deliveries(&task, &[&format!("task {i}")], false);
        expect_none(&mut idle).await;
        task[0].ack(BasicAckOptions::default()).await?;
    }
    expect_none(&mut busy).await;
    // A worker that dies leaves its task to the other.
    busy_connection.close(200, "OK".into()).await?;
    let inherited = take(&mut idle, 1).await?;
    same_deliveries(&inherited, &["task 1"], true);
    inherited[0].ack(BasicAckOptions::default()).await?;
    await_ready(&producer, &queue, 0).await
}

async fn subscribe(
    scope: &Scope,
    exchange: &ShortString,
    kind: ExchangeKind,
    keys: &[&str],
) -> lapin::Result<Consumer> {
    let channel = scope.channel().await?;
    declare_exchange(&channel, exchange, kind, false).await?;
    let queue = declare_own_queue(&channel).await?;
    for key in keys {
        bind(&channel, &queue, exchange, key).await?;
    }
    consume(&channel, &queue, true).await
}

async fn emit(scope: &Scope, exchange: &ShortString, kind: ExchangeKind, keys: &[&str]) -> lapin::Result<()> {
    let channel = scope.channel().await?;
    declare_exchange(&channel, exchange, kind, false).await?;
    for key in keys {
        send(&channel, exchange.as_str(), key, key).await?;
    }
    Ok(())
}

async fn publish_subscribe(scope: &Scope) -> Outcome {
    let logs = scope.exchange("logs");
    let mut one = subscribe(scope, &logs, ExchangeKind::Fanout, &[""]).await?;
    let mut two = subscribe(scope, &logs, ExchangeKind::Fanout, &[""]).await?;
    emit(scope, &logs, ExchangeKind::Fanout, &["info"]).await?;
    same_deliveries(&take(&mut one, 1).await?, &["info"], false);
    same_deliveries(&take(&mut two, 1).await?, &["info"], false);
    Ok(())
}

async fn routing(scope: &Scope) -> Outcome {
    let logs = scope.exchange("direct_logs");
    let mut all = subscribe(scope, &logs, ExchangeKind::Direct, &["info", "warning", "error"]).await?;
    let mut errors = subscribe(scope, &logs, ExchangeKind::Direct, &["error"]).await?;
    emit(scope, &logs, ExchangeKind::Direct, &["info", "error", "debug", "warning"]).await?;
    same_deliveries(&take(&mut all, 3).await?, &["info", "error", "warning"], false);
    same_deliveries(&take(&mut errors, 1).await?, &["error"], false);
    expect_none(&mut all).await;
    expect_none(&mut errors).await;
    Ok(())
}

async fn topics(scope: &Scope) -> Outcome {
    const KEYS: [&str; 4] = ["kern.critical", "kern.info", "auth.critical", "auth.info"];
    let logs = scope.exchange("topic_logs");
    let mut everything = subscribe(scope, &logs, ExchangeKind::Topic, &["#"]).await?;
    let mut kernel = subscribe(scope, &logs, ExchangeKind::Topic, &["kern.*"]).await?;
    let mut mixed = subscribe(scope, &logs, ExchangeKind::Topic, &["kern.*", "*.critical"]).await?;
    emit(scope, &logs, ExchangeKind::Topic, &KEYS).await?;
    same_deliveries(&take(&mut everything, 4).await?, &KEYS, false);
    same_deliveries(&take(&mut kernel, 2).await?, &KEYS[..2], false);
    same_deliveries(&take(&mut mixed, 3).await?, &KEYS[..3], false);
    for consumer in [&mut everything, &mut kernel, &mut mixed] {
        expect_none(consumer).await;
    }
    Ok(())
}

async fn rpc(scope: &Scope) -> Outcome {
    let requests = scope.queue("rpc_queue");
    let server = scope.channel().await?;
    declare_queue(&server, &requests, false).await?;
    server.basic_qos(1, BasicQosOptions::default()).await?;
    let incoming = consume(&server, &requests, false).await?;
    // A failure in it shows as a missing reply.
    let serving = tokio::spawn(serve(server, incoming));

    let client = scope.channel().await?;
    let callback_queue = declare_own_queue(&client).await?;
    let mut callbacks = consume(&client, &callback_queue, true).await?;
    assert_eq!(call(&client, &requests, &callback_queue, &mut callbacks, "10").await?, "55");
    assert_eq!(call(&client, &requests, &callback_queue, &mut callbacks, "30").await?, "832040");

    let direct = scope.channel().await?;
    let pseudo_queue = "amq.rabbitmq.reply-to".into();
    let mut replies = consume(&direct, &pseudo_queue, true).await?;
    assert_eq!(call(&direct, &requests, &pseudo_queue, &mut replies, "10").await?, "55");
    assert_eq!(call(&direct, &requests, &pseudo_queue, &mut replies, "20").await?, "6765");
    serving.abort();
    Ok(())
}

async fn serve(channel: Channel, mut requests: Consumer) -> Outcome {
    while let Some(request) = requests.next().await {
        let request = request?;
        let result = fibonacci(text(&request.data).parse()?).to_string();
        let reply_to = request.properties.reply_to().clone().ok_or("no reply-to")?;
        let correlation_id = request.properties.correlation_id().clone().ok_or("no correlation id")?;
        let properties = BasicProperties::default().with_correlation_id(correlation_id);
        channel
            .basic_publish("".into(), reply_to, BasicPublishOptions::default(), result.as_bytes(), properties)
            .await?;
        request.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn call(
    channel: &Channel,
    requests: &ShortString,
    reply_to: &ShortString,
    replies: &mut Consumer,
    argument: &str,
) -> Outcome<String> {
    let correlation_id: ShortString = format!("call {argument}").into();
    let properties = BasicProperties::default()
        .with_correlation_id(correlation_id.clone())
        .with_reply_to(reply_to.clone());
    channel
        .basic_publish(
            "".into(),
            requests.clone(),
            BasicPublishOptions::default(),
            argument.as_bytes(),
            properties,
        )
        .await?;
    let reply = take_one(replies).await?;
    assert_eq!(reply.properties.correlation_id(), &Some(correlation_id));
    Ok(text(&reply.data))
}

fn fibonacci(n: u32) -> u64 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

async fn publisher_confirms(scope: &Scope) -> Outcome {
    let channel = scope.confirm_channel().await?;
    let queue = declare_own_queue(&channel).await?;
    for i in 1..=10 {
        publish(&channel, "", queue.as_str(), &["individually"]).await?;
        assert_eq!(ready(&channel, &queue).await?, i);
    }
    for _ in 0..100 {
        send(&channel, "", queue.as_str(), "in a batch").await?;
    }
    assert_eq!(within("acks", channel.wait_for_confirms()).await??, []);
    assert_eq!(ready(&channel, &queue).await?, 110);

    let mut confirms = Vec::new();
    for _ in 0..100 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        confirms.push(
            channel.basic_publish("".into(), queue.clone(), options, b"asynchronously", properties).await?,
        );
    }
    for confirm in confirms {
        assert_eq!(within("ack", confirm).await??, Confirmation::Ack(None));
    }
    assert_eq!(ready(&channel, &queue).await?, 210);
    Ok(())
}
