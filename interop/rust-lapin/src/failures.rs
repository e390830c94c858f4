use crate::{proxy::Proxy, scope::Scope, support::*};
use futures_lite::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer, ExchangeKind,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable, ShortString},
};

pub async fn errors(scope: &Scope) -> Outcome {
    let connection = scope.connect().await?;
    // What happens to the other channels must not touch this one and its consumer.
    let bystander = connection.create_channel().await?;
    bystander.confirm_select(ConfirmSelectOptions::default()).await?;
    let watched = scope.queue("watched");
    declare_queue(&bystander, &watched, false).await?;
    let mut consumer = consume(&bystander, &watched, true).await?;

    let missing = scope.queue("missing");
    let gone = no_queue(&missing);
    queue_gone(&connection, &missing).await?;
    channel_error(&connection, 404, &gone, async |channel| Ok(consume(&channel, &missing, true).await?))
        .await?;
    channel_error(&connection, 404, &gone, async |channel| Ok(try_get(&channel, &missing, true).await?))
        .await?;
    let gone = no_exchange(&missing);
    exchange_gone(&connection, &missing).await?;
    channel_error(&connection, 404, &gone, async |channel| {
        Ok(send(&channel, missing.as_str(), "", "lost").await?)
    })
    .await?;
    channel_error(&connection, 404, &gone, async |channel| Ok(bind(&channel, &watched, &missing, "").await?))
        .await?;
    assert_eq!(bystander.queue_delete(missing.clone(), QueueDeleteOptions::default()).await?, 0);

    preconditions(scope, &connection, &bystander, &watched).await?;
    let reserved: ShortString = format!("amq.{missing}").into();
    let text = format!("ACCESS_REFUSED - queue name '{reserved}' contains reserved prefix 'amq.*'");
    channel_error(&connection, 403, &text, async |channel| {
        Ok(declare_queue(&channel, &reserved, false).await?)
    })
    .await?;
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    channel_error(&connection, 403, text, async |channel| {
        Ok(bind(&channel, &watched, &"".into(), "key").await?)
    })
    .await?;

    publish(&bystander, "", watched.as_str(), &["still here"]).await?;
    same_deliveries(&take(&mut consumer, 1).await?, &["still here"], false);

    connection_errors(scope, &watched).await
}

async fn preconditions(
    scope: &Scope,
    connection: &Connection,
    bystander: &Channel,
    watched: &ShortString,
) -> Outcome {
    let queue = scope.queue("declared");
    let mut ttl = FieldTable::default();
    ttl.insert("x-message-ttl".into(), AMQPValue::LongLongInt(1_800_000));
    bystander.queue_declare(queue.clone(), QueueDeclareOptions::durable(), ttl.clone()).await?;
    let inequivalent = |what: &str, name: &ShortString, argument: &str, difference: &str| {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{argument}' for {what} '{name}' in vhost '/': received {difference}"
        )
    };
    let text = inequivalent("queue", &queue, "durable", "'false' but current is 'true'");
    channel_error(connection, 406, &text, async |channel| {
        Ok(channel.queue_declare(queue.clone(), QueueDeclareOptions::default(), ttl).await?)
    })
    .await?;
    let difference = "none but current is the value '1800000' of type 'long'";
    let text = inequivalent("queue", &queue, "x-message-ttl", difference);
    channel_error(connection, 406, &text, async |channel| Ok(declare_queue(&channel, &queue, true).await?))
        .await?;
    let exchange = scope.exchange("declared");
    declare_exchange(bystander, &exchange, ExchangeKind::Direct, true).await?;
    let text = inequivalent("exchange", &exchange, "type", "'fanout' but current is 'direct'");
    channel_error(connection, 406, &text, async |channel| {
        Ok(declare_exchange(&channel, &exchange, ExchangeKind::Fanout, true).await?)
    })
    .await?;

    publish(bystander, "", queue.as_str(), &["message"]).await?;
    let text = format!("PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty");
    channel_error(connection, 406, &text, async |channel| {
        let options = QueueDeleteOptions { if_empty: true, ..Default::default() };
        Ok(channel.queue_delete(queue.clone(), options).await?)
    })
    .await?;
    let text = format!("PRECONDITION_FAILED - queue '{watched}' in vhost '/' in use");
    channel_error(connection, 406, &text, async |channel| {
        let options = QueueDeleteOptions { if_unused: true, ..Default::default() };
        Ok(channel.queue_delete(watched.clone(), options).await?)
    })
    .await?;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    channel_error(connection, 406, text, async |channel| {
        Ok(channel.basic_ack(1, BasicAckOptions::default()).await?)
    })
    .await?;
    channel_error(connection, 406, text, async |channel| {
        get_some(&channel, &queue, 1).await?[0].ack(BasicAckOptions::default()).await?;
        Ok(channel.basic_ack(1, BasicAckOptions::default()).await?)
    })
    .await
}

async fn connection_errors(scope: &Scope, queue: &ShortString) -> Outcome {
    let refused = async |url: String| match Connection::connect(&url, scope.properties()).await {
        Ok(_) => Err(format!("{url} was accepted").into()),
        Err(error) => reply(&error),
    };
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
    assert_eq!(refused(scope.url("guest:wrong", "%2f")).await?, (403, text.into()));
    let text = "NOT_ALLOWED - vhost no such vhost not found";
    assert_eq!(refused(scope.url("guest:guest", "no%20such%20vhost")).await?, (530, text.into()));

    let connection = scope.connect().await?;
    let mut events = Box::pin(connection.events_listener());
    let channel = connection.create_channel().await?;
    let immediate = BasicPublishOptions { immediate: true, ..Default::default() };
    channel.basic_publish("".into(), queue.clone(), immediate, b"now", BasicProperties::default()).await?;
    assert_eq!(next_error(&mut events).await?, (540, "NOT_IMPLEMENTED - immediate=true".into()));

    let connection = scope.connect().await?;
    let channel = connection.create_channel().await?;
    let consume = async || {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        channel.basic_consume(queue.clone(), "tag".into(), options, FieldTable::default()).await
    };
    let _consumer = consume().await?;
    let error = consume().await.err().ok_or("a consumer tag was accepted twice")?;
    assert_eq!(reply(&error)?, (530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'".into()));
    Ok(())
}

pub async fn reconnect(scope: &Scope) -> Outcome {
    let admin = scope.confirm_channel().await?;
    let queue = scope.queue("durable");
    let (exchange, own) = (scope.exchange("fanout"), scope.queue("exclusive"));

    let proxy = Proxy::start(scope.address.clone()).await?;
    proxy.allow_connection();
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port);
    let connection = Connection::connect(&url, scope.properties().enable_auto_recover()).await?;
    let channel = connection.create_channel().await?;
    declare_queue(&channel, &queue, true).await?;
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel.exchange_declare(exchange.clone(), ExchangeKind::Fanout, options, FieldTable::default()).await?;
    // The client declares queues anew by the names they had, which the broker refuses for names it generated.
    channel.queue_declare(own.clone(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    bind(&channel, &own, &exchange, "").await?;
    publish(&admin, "", queue.as_str(), &["1", "2", "3", "4", "5", "6", "7"]).await?;

    channel.basic_qos(3, BasicQosOptions::default()).await?;
    let mut consumer = consume(&channel, &queue, false).await?;
    let mut before = take(&mut consumer, 3).await?;
    before[1].ack(BasicAckOptions { multiple: true }).await?;
    before.extend(take(&mut consumer, 2).await?);
    same_deliveries(&before, &["1", "2", "3", "4", "5"], false);
    await_ready(&admin, &queue, 2).await?;
    let mut from_exchange = consume(&channel, &own, true).await?;

    proxy.cut();
    // Only when the broker has given up the old connection can the new one declare the exclusive queue.
    await_ready(&admin, &queue, 5).await?;
    let other = scope.connect().await?;
    queue_gone(&other, &own).await?;
    proxy.allow_connection();

    let after = take_recovering(&channel, &mut consumer, 3).await?;
    same_deliveries(&after, &["3", "4", "5"], true);
    after[2].ack(BasicAckOptions { multiple: true }).await?;
    let rest = take(&mut consumer, 2).await?;
    same_deliveries(&rest, &["6", "7"], false);
    rest[1].ack(BasicAckOptions { multiple: true }).await?;
    publish(&admin, exchange.as_str(), "", &["to the recovered queue"]).await?;
    let recovered = take_recovering(&channel, &mut from_exchange, 1).await?;
    same_deliveries(&recovered, &["to the recovered queue"], false);

    // What an orderly closed connection leaves unacknowledged comes back just the same.
    send(&channel, "", queue.as_str(), "8").await?;
    same_deliveries(&take(&mut consumer, 1).await?, &["8"], false);
    connection.close(200, "OK".into()).await?;
    let next = other.create_channel().await?;
    let again = take_one(&mut consume(&next, &queue, false).await?).await?;
    same_deliveries(std::slice::from_ref(&again), &["8"], true);
    again.ack(BasicAckOptions::default()).await?;
    next.close(200, "OK".into()).await?;
    assert!(drain(&admin, &queue).await?.is_empty());
    Ok(())
}

/// Takes deliveries the way the client wants it done with automatic recovery: a consumer reports the lost
/// connection once and goes on with what it gets on the new one.
async fn take_recovering(channel: &Channel, consumer: &mut Consumer, count: usize) -> Outcome<Vec<Delivery>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match within("delivery", consumer.next()).await?.ok_or("the consumer was cancelled")? {
            Ok(delivery) => taken.push(delivery),
            Err(error) => within("recovery", channel.wait_for_recovery(error)).await??,
        }
    }
    Ok(taken)
}
