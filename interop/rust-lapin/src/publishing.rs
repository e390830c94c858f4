use crate::{scope::Scope, support::*};
use lapin::{
    BasicProperties, Confirmation, ExchangeKind, message::BasicReturnMessage, options::*, types::FieldTable,
};

const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

pub async fn publish_confirms(scope: &Scope) -> Outcome {
    let channel = scope.confirm_channel().await?;
    let queue = scope.queue("durable");
    declare_queue(&channel, &queue, true).await?;

    let sent: Vec<String> = (1..=200).map(|i| format!("message {i}")).collect();
    let mut confirms = Vec::new();
    for body in &sent {
        let properties = BasicProperties::default().with_delivery_mode(2);
        confirms.push(
            channel
                .basic_publish(
                    "".into(),
                    queue.clone(),
                    BasicPublishOptions::default(),
                    body.as_bytes(),
                    properties,
                )
                .await?,
        );
    }
    for confirm in confirms {
        assert_eq!(within("ack", confirm).await??, Confirmation::Ack(None));
    }
    assert_eq!(ready(&channel, &queue).await?, 200);
    assert_eq!(drain(&channel, &queue).await?, sent);

    // An unroutable message is acked too, and if it is mandatory, returned before that. The client hands out with an
    // ack the oldest message returned until then, and settles what one ack covers in any order: so one at a time.
    let missing = scope.queue("missing");
    let options = [MANDATORY, BasicPublishOptions::default(), MANDATORY];
    let mut returned = Vec::new();
    for (i, options) in options.into_iter().enumerate() {
        let body = format!("unroutable {i}");
        let properties = BasicProperties::default();
        let confirm =
            channel.basic_publish("".into(), missing.clone(), options, body.as_bytes(), properties).await?;
        match within("ack", confirm).await?? {
            Confirmation::Ack(message) => returned.push(message.map(|message| text(&message.data))),
            other => panic!("no ack but {other:?}"),
        }
    }
    assert_eq!(returned, [Some("unroutable 0".into()), None, Some("unroutable 2".into())]);

    for _ in 0..100 {
        send(&channel, "", queue.as_str(), "in a batch").await?;
    }
    assert_eq!(within("acks", channel.wait_for_confirms()).await??, []);
    assert_eq!(ready(&channel, &queue).await?, 100);
    Ok(())
}

pub async fn returns(scope: &Scope) -> Outcome {
    let channel = scope.confirm_channel().await?;
    let (exchange, queue) = (scope.exchange("direct"), scope.queue("bound"));
    declare_exchange(&channel, &exchange, ExchangeKind::Direct, false).await?;
    declare_queue(&channel, &queue, false).await?;
    bind(&channel, &queue, &exchange, "bound").await?;

    let mut headers = FieldTable::default();
    headers.insert("n".into(), 42i32.into());
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_delivery_mode(2)
        .with_message_id("m-1".into())
        .with_timestamp(1_700_000_000)
        .with_headers(headers);
    let returned =
        publish_with(&channel, exchange.as_str(), "unbound", MANDATORY, b"come back", properties.clone())
            .await?;
    let BasicReturnMessage { delivery, reply_code, reply_text, .. } =
        returned.ok_or("the message was not returned")?;
    assert_eq!((reply_code, reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), (exchange.as_str(), "unbound"));
    assert_eq!(delivery.properties, properties);
    assert_eq!(text(&delivery.data), "come back");

    let missing = scope.queue("missing");
    let empty =
        publish_with(&channel, "", missing.as_str(), MANDATORY, b"", BasicProperties::default()).await?;
    let empty = empty.ok_or("the empty message was not returned")?;
    assert_eq!((empty.exchange.as_str(), empty.data.len()), ("", 0));

    // Neither a routable message nor one that is not mandatory comes back.
    publish(&channel, exchange.as_str(), "unbound", &["drop"]).await?;
    let routed =
        publish_with(&channel, exchange.as_str(), "bound", MANDATORY, b"routed", BasicProperties::default());
    assert_eq!(routed.await?, None);
    assert_eq!(drain(&channel, &queue).await?, ["routed"]);
    Ok(())
}

pub async fn transactions(scope: &Scope) -> Outcome {
    let (observer, channel) = (scope.channel().await?, scope.channel().await?);
    let queue = scope.queue("durable");
    declare_queue(&channel, &queue, true).await?;
    channel.tx_select().await?;

    send(&channel, "", queue.as_str(), "committed 1").await?;
    send(&channel, "", queue.as_str(), "committed 2").await?;
    // The declare-ok shows that the broker has read the publishes and still holds them back.
    assert_eq!(ready(&channel, &queue).await?, 0);
    channel.tx_commit().await?;
    assert_eq!(ready(&observer, &queue).await?, 2);

    send(&channel, "", queue.as_str(), "rolled back").await?;
    channel.tx_rollback().await?;
    channel.tx_commit().await?;
    assert_eq!(ready(&observer, &queue).await?, 2);

    // A rolled back acknowledgement leaves the message unacknowledged and outstanding; a committed one
    // settles it.
    let tag = get_some(&channel, &queue, 1).await?[0].delivery_tag;
    channel.basic_ack(tag, BasicAckOptions::default()).await?;
    channel.tx_rollback().await?;
    assert_eq!(ready(&observer, &queue).await?, 1);
    channel.basic_ack(tag, BasicAckOptions::default()).await?;
    channel.tx_commit().await?;
    get_some(&channel, &queue, 1).await?[0].ack(BasicAckOptions::default()).await?;
    channel.close(200, "OK".into()).await?;
    assert_eq!(drain(&observer, &queue).await?, ["committed 2"]);

    let connection = scope.connect().await?;
    channel_error(&connection, 406, "PRECONDITION_FAILED - channel is not transactional", async |channel| {
        Ok(channel.tx_commit().await?)
    })
    .await?;
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    channel_error(&connection, 406, text, async |channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel.tx_select().await?)
    })
    .await
}
