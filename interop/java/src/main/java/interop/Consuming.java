package interop;

import static interop.Checks.awaitReady;
import static interop.Checks.bytes;
import static interop.Checks.check;
import static interop.Checks.drain;
import static interop.Checks.publish;
import static interop.Checks.same;
import static interop.Checks.sameBytes;
import static interop.Checks.sameDeliveries;
import static interop.Checks.text;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

final class Consuming {
    private Consuming() {}

    static void consumeAcks(Scope scope) throws Exception {
        Connection connection = scope.connect();
        Channel channel = connection.createChannel();
        String queue = scope.queue("durable");
        AMQP.Queue.DeclareOk declared = channel.queueDeclare(queue, true, false, false, null);
        same(List.of(queue, 0, 0), List.of(declared.getQueue(), declared.getMessageCount(), declared.getConsumerCount()),
            "declare-ok");
        publish(channel, "", queue, "1", "2", "3", "4", "5", "6", "7", "8");

        Channel first = connection.createChannel();
        Inbox inbox = new Inbox(first);
        String consumerTag = first.basicConsume(queue, false, inbox);
        check(consumerTag.startsWith("amq.ctag-"), () -> "generated consumer tag: " + consumerTag);
        List<Delivery> deliveries = inbox.take(8);
        sameDeliveries(List.of("1", "2", "3", "4", "5", "6", "7", "8"), false, deliveries, "first deliveries");
        for (int i = 0; i < deliveries.size(); i++) {
            var envelope = deliveries.get(i).getEnvelope();
            same(List.of(i + 1L, "", queue), List.of(envelope.getDeliveryTag(), envelope.getExchange(), envelope.getRoutingKey()),
                "envelope");
        }
        same(1L, channel.consumerCount(queue), "consumers");
        inbox.ack(deliveries.get(1), false);
        inbox.ack(deliveries.get(3), true);
        inbox.ack(deliveries.get(6), false);
        first.close();

        Channel second = connection.createChannel();
        Inbox again = Inbox.consume(second, queue, false);
        List<Delivery> redelivered = again.take(3);
        sameDeliveries(List.of("5", "6", "8"), true, redelivered, "after the channel closed");
        // Tag 0 with multiple stands for everything outstanding.
        second.basicAck(0, true);
        again.expectNoMore();
        second.close();
        same(0L, channel.messageCount(queue), "messages left");
        same(0L, channel.consumerCount(queue), "consumers left");

        // With automatic acknowledgement nothing comes back.
        publish(channel, "", queue, "taken");
        Channel third = connection.createChannel();
        same("taken", text(Inbox.consume(third, queue, true).take().getBody()), "delivery");
        third.close();
        same(0L, channel.messageCount(queue), "messages after automatic acknowledgement");

        consumerCancellation(scope, connection);
    }

    /** The broker tells a consumer that its queue was deleted, and no deliveries follow a client's own cancel. */
    private static void consumerCancellation(Scope scope, Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        String queue = scope.queue("cancelled");
        channel.queueDeclare(queue, false, false, false, null);
        Inbox inbox = new Inbox(channel);
        String tag = channel.basicConsume(queue, true, "my-tag", inbox);
        same("my-tag", tag, "consumer tag");
        channel.basicCancel(tag);
        publish(channel, "", queue, "unseen");
        inbox.expectNoMore();
        same(List.of("unseen"), drain(channel, queue), "messages");

        CompletableFuture<String> cancelled = new CompletableFuture<>();
        channel.basicConsume(queue, true, (consumerTag, delivery) -> {}, cancelled::complete);
        channel.queueDelete(queue);
        check(cancelled.get(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS).startsWith("amq.ctag-"), "cancelled consumer tag");
    }

    static void prefetch(Scope scope) throws Exception {
        Connection connection = scope.connect();
        Channel admin = connection.createChannel();
        String queue = scope.queue("transient");
        admin.queueDeclare(queue, false, false, false, null);
        publish(admin, "", queue, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10");

        // The limit holds for each consumer that is started later.
        Channel perConsumer = connection.createChannel();
        perConsumer.basicQos(3);
        Inbox one = Inbox.consume(perConsumer, queue, false);
        List<Delivery> held = one.take(3);
        sameDeliveries(List.of("1", "2", "3"), false, held, "first consumer");
        awaitReady(admin, queue, 7);
        one.expectNoMore();
        Inbox two = Inbox.consume(perConsumer, queue, false);
        List<Delivery> others = two.take(3);
        sameDeliveries(List.of("4", "5", "6"), false, others, "second consumer");
        awaitReady(admin, queue, 4);
        one.ack(held.get(0), false);
        same("7", text(one.take().getBody()), "after an ack");
        one.expectNoMore();
        two.ack(others.get(1), false);
        same("8", text(two.take().getBody()), "after an ack");
        two.expectNoMore();
        awaitReady(admin, queue, 2);
        // A get is not subject to the limit.
        same("9", text(perConsumer.basicGet(queue, true).getBody()), "get beside exhausted consumers");
        perConsumer.close();
        awaitReady(admin, queue, 7);

        // The limit is shared by all consumers of the channel.
        Channel perChannel = connection.createChannel();
        perChannel.basicQos(4, true);
        String other = scope.queue("other");
        admin.queueDeclare(other, false, false, false, null);
        publish(admin, "", other, "a", "b", "c");
        Inbox left = Inbox.consume(perChannel, queue, false);
        List<Delivery> shared = left.take(4);
        sameDeliveries(List.of("2", "3", "4", "6"), true, shared, "first consumer");
        Inbox right = Inbox.consume(perChannel, other, false);
        awaitReady(admin, queue, 3);
        awaitReady(admin, other, 3);
        right.expectNoMore();
        left.expectNoMore();
        left.ack(shared.get(1), true);
        // Either consumer may get what the two acks made room for, but there are only two in all.
        Channel counter = connection.createChannel();
        Checks.await(() -> counter.messageCount(queue) + counter.messageCount(other) == 4, "two more are delivered");
        left.ack(shared.get(3), true);
        Checks.await(() -> counter.messageCount(queue) + counter.messageCount(other) == 2, "again two more are delivered");
        // Zero lifts the limit, for what is already being consumed, too.
        perChannel.basicQos(0, true);
        Checks.await(() -> counter.messageCount(queue) + counter.messageCount(other) == 0, "everything is delivered");
        sameDeliveries(List.of("a", "b", "c"), false, right.take(3), "second consumer");
        same(List.of("7", "8", "10"), Checks.bodies(left.take(3)), "first consumer");
    }

    static void get(Scope scope) throws Exception {
        Connection connection = scope.connect();
        Channel channel = connection.createChannel();
        String queue = scope.queue("transient");
        channel.queueDeclare(queue, false, false, false, null);
        check(channel.basicGet(queue, false) == null, "get from an empty queue");
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().contentType("text/plain").messageId("1").build();
        channel.confirmSelect();
        channel.basicPublish("amq.direct", "nowhere", null, bytes("0"));
        channel.basicPublish("", queue, properties, bytes("1"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        publish(channel, "", queue, "2", "3");

        GetResponse got = channel.basicGet(queue, false);
        sameBytes(bytes("1"), got.getBody(), "body");
        same(properties, got.getProps(), "properties");
        same(List.of(2, 1L, false, "", queue), List.of(got.getMessageCount(), got.getEnvelope().getDeliveryTag(),
            got.getEnvelope().isRedeliver(), got.getEnvelope().getExchange(), got.getEnvelope().getRoutingKey()), "get-ok");
        GetResponse unacknowledged = channel.basicGet(queue, true);
        same(List.of(1, 2L, "2"), List.of(unacknowledged.getMessageCount(), unacknowledged.getEnvelope().getDeliveryTag(),
            text(unacknowledged.getBody())), "get without ack");
        GetResponse last = channel.basicGet(queue, false);
        same(List.of(0, 3L, "3"), List.of(last.getMessageCount(), last.getEnvelope().getDeliveryTag(), text(last.getBody())),
            "last get");
        check(channel.basicGet(queue, false) == null, "get from a queue with outstanding messages only");
        channel.basicAck(3, false);
        channel.close();

        Channel second = connection.createChannel();
        GetResponse back = second.basicGet(queue, false);
        same(List.of("1", true, 0), List.of(text(back.getBody()), back.getEnvelope().isRedeliver(), back.getMessageCount()),
            "message of the closed channel");
        second.basicAck(back.getEnvelope().getDeliveryTag(), false);
        publish(second, "", queue, "purged", "purged");
        same(2, second.queuePurge(queue).getMessageCount(), "purged");
        check(second.basicGet(queue, true) == null, "get from the purged queue");
    }

    static void rejectRequeue(Scope scope) throws Exception {
        Channel channel = scope.connect().createChannel();
        String queue = scope.queue("durable");
        channel.queueDeclare(queue, true, false, false, null);
        publish(channel, "", queue, "1", "2", "3", "4", "5");

        List<GetResponse> got = take(channel, queue, 3);
        same(List.of("1", "2", "3"), texts(got), "messages");
        channel.basicReject(got.get(1).getEnvelope().getDeliveryTag(), true);
        GetResponse again = channel.basicGet(queue, false);
        same(List.of("2", true), List.of(text(again.getBody()), again.getEnvelope().isRedeliver()), "rejected message");
        // It goes back to its own place also when later messages have returned before it.
        channel.basicReject(got.get(2).getEnvelope().getDeliveryTag(), true);
        channel.basicReject(again.getEnvelope().getDeliveryTag(), true);
        channel.basicReject(got.get(0).getEnvelope().getDeliveryTag(), true);
        got = take(channel, queue, 4);
        same(List.of("1", "2", "3", "4"), texts(got), "messages after requeue");
        same(List.of(true, true, true, false), got.stream().map(one -> one.getEnvelope().isRedeliver()).toList(), "redelivered");

        channel.basicReject(got.get(0).getEnvelope().getDeliveryTag(), false);
        channel.basicNack(got.get(2).getEnvelope().getDeliveryTag(), true, true);
        got = take(channel, queue, 3);
        same(List.of("2", "3", "5"), texts(got), "messages after nack with multiple");
        channel.basicRecover(true);
        got = take(channel, queue, 4);
        same(List.of("2", "3", "4", "5"), texts(got), "messages after recover");
        channel.basicNack(got.get(1).getEnvelope().getDeliveryTag(), true, false);
        channel.basicNack(got.get(3).getEnvelope().getDeliveryTag(), false, false);
        channel.basicNack(got.get(2).getEnvelope().getDeliveryTag(), false, true);
        same(List.of("4"), drain(channel, queue), "messages after nack without requeue");
    }

    private static List<GetResponse> take(Channel channel, String queue, int count) throws Exception {
        List<GetResponse> taken = new ArrayList<>();
        for (int i = 1; i <= count; i++) {
            int number = i;
            GetResponse got = channel.basicGet(queue, false);
            check(got != null, () -> "the queue is empty instead of holding message " + number + " of " + count);
            taken.add(got);
        }
        return taken;
    }

    private static List<String> texts(List<GetResponse> got) {
        return got.stream().map(one -> text(one.getBody())).toList();
    }
}
