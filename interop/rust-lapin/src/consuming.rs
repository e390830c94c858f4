use crate::{scope::Scope, support::*};
use futures_lite::StreamExt;
use lapin::{BasicProperties, Connection, options::*, types::FieldTable};

const MULTIPLE: BasicAckOptions = BasicAckOptions { multiple: true };
const SINGLE: BasicAckOptions = BasicAckOptions { multiple: false };

pub async fn consume_acks(scope: &Scope) -> Outcome {
    let connection = scope.connect().await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = scope.queue("durable");
    let declared = declare_queue(&channel, &queue, true).await?;
    assert_eq!((declared.name(), declared.message_count(), declared.consumer_count()), (&queue, 0, 0));
    publish(&channel, "", queue.as_str(), &["1", "2", "3", "4", "5", "6", "7", "8"]).await?;

    let first = connection.create_channel().await?;
    let mut consumer = consume(&first, &queue, false).await?;
    assert!(consumer.tag().as_str().starts_with("amq.ctag-"), "generated consumer tag: {}", consumer.tag());
    let deliveries = take(&mut consumer, 8).await?;
    same_deliveries(&deliveries, &["1", "2", "3", "4", "5", "6", "7", "8"], false);
    for (delivery, tag) in deliveries.iter().zip(1..) {
        assert_eq!(
            (delivery.delivery_tag, delivery.exchange.as_str(), &delivery.routing_key),
            (tag, "", &queue)
        );
    }
    assert_eq!(inspect(&channel, &queue).await?.consumer_count(), 1);
    deliveries[1].ack(SINGLE).await?;
    deliveries[3].ack(MULTIPLE).await?;
    deliveries[6].ack(SINGLE).await?;
    first.close(200, "OK".into()).await?;

    let second = connection.create_channel().await?;
    let mut again = consume(&second, &queue, false).await?;
    same_deliveries(&take(&mut again, 3).await?, &["5", "6", "8"], true);
    // Tag 0 with multiple stands for everything outstanding.
    second.basic_ack(0, MULTIPLE).await?;
    expect_none(&mut again).await;
    second.close(200, "OK".into()).await?;
    let left = inspect(&channel, &queue).await?;
    assert_eq!((left.message_count(), left.consumer_count()), (0, 0));

    // With automatic acknowledgement nothing comes back.
    publish(&channel, "", queue.as_str(), &["taken"]).await?;
    let third = connection.create_channel().await?;
    same_deliveries(&[take_one(&mut consume(&third, &queue, true).await?).await?], &["taken"], false);
    third.close(200, "OK".into()).await?;
    assert_eq!(ready(&channel, &queue).await?, 0);

    consumer_cancellation(scope, &connection).await
}

/// The broker tells a consumer that its queue was deleted, and no deliveries follow a client's own cancel.
async fn consumer_cancellation(scope: &Scope, connection: &Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = scope.queue("cancelled");
    declare_queue(&channel, &queue, false).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut consumer =
        channel.basic_consume(queue.clone(), "my-tag".into(), options, FieldTable::default()).await?;
    assert_eq!(consumer.tag().as_str(), "my-tag");
    channel.basic_cancel("my-tag".into(), BasicCancelOptions::default()).await?;
    publish(&channel, "", queue.as_str(), &["unseen"]).await?;
    assert!(within("end of the stream", consumer.next()).await?.is_none());
    assert_eq!(drain(&channel, &queue).await?, ["unseen"]);

    let mut cancelled = consume(&channel, &queue, true).await?;
    channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    assert!(within("end of the stream", cancelled.next()).await?.is_none());
    Ok(())
}

pub async fn prefetch(scope: &Scope) -> Outcome {
    let connection = scope.connect().await?;
    let admin = connection.create_channel().await?;
    admin.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = scope.queue("transient");
    declare_queue(&admin, &queue, false).await?;
    publish(&admin, "", queue.as_str(), &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]).await?;

    // The limit holds for each consumer that is started later.
    let per_consumer = connection.create_channel().await?;
    per_consumer.basic_qos(3, BasicQosOptions { global: false }).await?;
    let mut one = consume(&per_consumer, &queue, false).await?;
    let held = take(&mut one, 3).await?;
    same_deliveries(&held, &["1", "2", "3"], false);
    await_ready(&admin, &queue, 7).await?;
    expect_none(&mut one).await;
    let mut two = consume(&per_consumer, &queue, false).await?;
    let others = take(&mut two, 3).await?;
    same_deliveries(&others, &["4", "5", "6"], false);
    await_ready(&admin, &queue, 4).await?;
    held[0].ack(SINGLE).await?;
    same_deliveries(&take(&mut one, 1).await?, &["7"], false);
    expect_none(&mut one).await;
    others[1].ack(SINGLE).await?;
    same_deliveries(&take(&mut two, 1).await?, &["8"], false);
    expect_none(&mut two).await;
    await_ready(&admin, &queue, 2).await?;
    // A get is not subject to the limit.
    same_deliveries(&get_some(&per_consumer, &queue, 1).await?, &["9"], false);
    per_consumer.close(200, "OK".into()).await?;
    await_ready(&admin, &queue, 8).await?;

    // The limit is shared by all consumers of the channel.
    let per_channel = connection.create_channel().await?;
    per_channel.basic_qos(4, BasicQosOptions { global: true }).await?;
    let other = scope.queue("other");
    declare_queue(&admin, &other, false).await?;
    publish(&admin, "", other.as_str(), &["a", "b", "c"]).await?;
    let mut left = consume(&per_channel, &queue, false).await?;
    let shared = take(&mut left, 4).await?;
    same_deliveries(&shared, &["2", "3", "4", "6"], true);
    let mut right = consume(&per_channel, &other, false).await?;
    await_ready(&admin, &queue, 4).await?;
    await_ready(&admin, &other, 3).await?;
    expect_none(&mut right).await;
    expect_none(&mut left).await;
    // Either consumer may get what the acks make room for, but no more than that.
    let both_ready = async |count| Ok(ready(&admin, &queue).await? + ready(&admin, &other).await? == count);
    shared[1].ack(MULTIPLE).await?;
    until("two more are delivered", async || both_ready(5).await).await?;
    shared[3].ack(MULTIPLE).await?;
    until("again two more are delivered", async || both_ready(3).await).await?;
    // Zero lifts the limit, for what is already being consumed, too.
    per_channel.basic_qos(0, BasicQosOptions { global: true }).await?;
    until("everything is delivered", async || both_ready(0).await).await?;
    same_deliveries(&take(&mut right, 3).await?, &["a", "b", "c"], false);
    let rest: Vec<_> = seen(&take(&mut left, 4).await?).into_iter().map(|(body, _)| body).collect();
    assert_eq!(rest, ["7", "8", "9", "10"]);
    Ok(())
}

pub async fn get(scope: &Scope) -> Outcome {
    let connection = scope.connect().await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = scope.queue("transient");
    declare_queue(&channel, &queue, false).await?;
    assert_eq!(try_get(&channel, &queue, false).await?, None);
    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_message_id("m-1".into());
    publish_with(&channel, "", queue.as_str(), BasicPublishOptions::default(), b"1", properties.clone())
        .await?;
    publish(&channel, "", queue.as_str(), &["2", "3"]).await?;

    let got = try_get(&channel, &queue, false).await?.ok_or("no first message")?;
    assert_eq!((text(&got.data), &got.properties), ("1".into(), &properties));
    assert_eq!((got.delivery_tag, got.redelivered, got.message_count), (1, false, 2));
    assert_eq!((got.exchange.as_str(), &got.routing_key), ("", &queue));
    let unacknowledged = try_get(&channel, &queue, true).await?.ok_or("no second message")?;
    assert_eq!(text(&unacknowledged.data), "2");
    assert_eq!((unacknowledged.delivery_tag, unacknowledged.message_count), (2, 1));
    let last = try_get(&channel, &queue, false).await?.ok_or("no third message")?;
    assert_eq!((text(&last.data), last.delivery_tag, last.message_count), ("3".into(), 3, 0));
    assert_eq!(try_get(&channel, &queue, false).await?, None);
    last.ack(SINGLE).await?;
    channel.close(200, "OK".into()).await?;

    let second = connection.create_channel().await?;
    second.confirm_select(ConfirmSelectOptions::default()).await?;
    let back = try_get(&second, &queue, false).await?.ok_or("the message did not come back")?;
    assert_eq!((text(&back.data), back.redelivered, back.message_count), ("1".into(), true, 0));
    back.ack(SINGLE).await?;
    publish(&second, "", queue.as_str(), &["purged", "purged"]).await?;
    assert_eq!(second.queue_purge(queue.clone(), QueuePurgeOptions::default()).await?, 2);
    assert_eq!(try_get(&second, &queue, false).await?, None);
    Ok(())
}

pub async fn reject_requeue(scope: &Scope) -> Outcome {
    const REQUEUE: BasicRejectOptions = BasicRejectOptions { requeue: true };
    const DROP: BasicRejectOptions = BasicRejectOptions { requeue: false };

    let channel = scope.confirm_channel().await?;
    let queue = scope.queue("durable");
    declare_queue(&channel, &queue, true).await?;
    publish(&channel, "", queue.as_str(), &["1", "2", "3", "4", "5"]).await?;

    let got = get_some(&channel, &queue, 3).await?;
    same_deliveries(&got, &["1", "2", "3"], false);
    got[1].reject(REQUEUE).await?;
    let again = get_some(&channel, &queue, 1).await?;
    same_deliveries(&again, &["2"], true);
    // It goes back to its own place also when later messages have returned before it.
    got[2].reject(REQUEUE).await?;
    again[0].reject(REQUEUE).await?;
    got[0].reject(REQUEUE).await?;
    let got = get_some(&channel, &queue, 4).await?;
    same_deliveries(&got[..3], &["1", "2", "3"], true);
    same_deliveries(&got[3..], &["4"], false);

    got[0].reject(DROP).await?;
    got[2].nack(BasicNackOptions { multiple: true, requeue: true }).await?;
    let got = get_some(&channel, &queue, 3).await?;
    same_deliveries(&got[..2], &["2", "3"], true);
    same_deliveries(&got[2..], &["5"], false);
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    let got = get_some(&channel, &queue, 4).await?;
    same_deliveries(&got, &["2", "3", "4", "5"], true);
    got[1].nack(BasicNackOptions { multiple: true, requeue: false }).await?;
    got[3].nack(BasicNackOptions { multiple: false, requeue: false }).await?;
    got[2].nack(BasicNackOptions { multiple: false, requeue: true }).await?;
    assert_eq!(drain(&channel, &queue).await?, ["4"]);
    // The messages rejected without requeue are not merely outstanding.
    channel.close(200, "OK".into()).await?;
    assert!(drain(&scope.channel().await?, &queue).await?.is_empty());
    Ok(())
}
