package interop;

import static interop.Checks.awaitQueueGone;
import static interop.Checks.bytes;
import static interop.Checks.channelError;
import static interop.Checks.check;
import static interop.Checks.drain;
import static interop.Checks.exchangeGone;
import static interop.Checks.publish;
import static interop.Checks.queueGone;
import static interop.Checks.same;
import static interop.Checks.text;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Return;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

final class Topology {
    private static final List<String> KEYS = List.of("quick.orange.rabbit", "lazy.orange", "lazy", "lazy.", "lazy.a.b.c",
        "rabbit", "a.z", "a.b.z", "a.b.c.z", "");

    private Topology() {}

    static void exclusiveAutoDelete(Scope scope) throws Exception {
        Connection owner = scope.connect();
        Connection other = scope.connect();
        Channel channel = owner.createChannel();

        String exclusive = channel.queueDeclare().getQueue();
        check(exclusive.matches("amq\\.gen-[A-Za-z0-9_-]{22}"), () -> "server-generated name: " + exclusive);
        publish(channel, "", exclusive, "mine");
        same(List.of("mine"), drain(owner.createChannel(), exclusive), "messages of the exclusive queue");
        String locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + exclusive
            + "' in vhost '/'. It could be originally declared on another connection or the exclusive property value"
            + " does not match that of the original declaration.";
        Channel stranger = other.createChannel();
        channelError(stranger, AMQP.RESOURCE_LOCKED, locked, 50, 10, () -> stranger.queueDeclarePassive(exclusive));
        Channel consumer = other.createChannel();
        channelError(consumer, AMQP.RESOURCE_LOCKED, locked, 60, 20, () -> Inbox.consume(consumer, exclusive, true));

        // An empty queue name stands for the queue last declared on the channel.
        String bound = channel.queueDeclare("", false, true, false, null).getQueue();
        channel.queueBind("", "amq.direct", bound + ".key");
        publish(channel, "amq.direct", bound + ".key", "to the last declared");
        same("to the last declared", text(channel.basicGet("", true).getBody()), "get with an empty name");
        Channel fresh = owner.createChannel();
        channelError(fresh, AMQP.NOT_FOUND, "NOT_FOUND - no previously declared queue", 60, 70, () -> fresh.basicGet("", true));

        String durable = scope.queue("durable-exclusive");
        channel.queueDeclare(durable, true, true, false, null);
        owner.close();
        queueGone(other, exclusive);
        queueGone(other, bound);
        queueGone(other, durable);

        Channel survivor = other.createChannel();
        String autoDelete = scope.queue("auto-delete");
        survivor.queueDeclare(autoDelete, false, false, true, null);
        String first = survivor.basicConsume(autoDelete, new Inbox(survivor));
        Channel closing = other.createChannel();
        Inbox.consume(closing, autoDelete, true);
        survivor.basicCancel(first);
        same(1L, survivor.consumerCount(autoDelete), "consumers of the auto-delete queue");
        closing.close();
        awaitQueueGone(other, autoDelete);

        String exchange = scope.exchange("auto-delete");
        String left = scope.queue("left");
        String right = scope.queue("right");
        survivor.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, false, true, null);
        survivor.queueDeclare(left, false, false, false, null);
        survivor.queueDeclare(right, true, false, false, null);
        survivor.queueBind(left, exchange, "key");
        survivor.queueBind(right, exchange, "key");
        survivor.queueUnbind(left, exchange, "key");
        survivor.exchangeDeclarePassive(exchange);
        survivor.queueDelete(right);
        exchangeGone(other, exchange);
    }

    static void exchanges(Scope scope) throws Exception {
        Channel channel = scope.connect().createChannel();
        direct(scope, channel);
        fanout(scope, channel);
        topic(scope, channel);
        headers(scope, channel);
        exchangeToExchange(scope, channel);
        alternateExchange(scope, channel);
    }

    private static String declareQueue(Scope scope, Channel channel, String suffix) throws Exception {
        String queue = scope.queue(suffix);
        channel.queueDeclare(queue, false, false, false, null);
        return queue;
    }

    private static void direct(Scope scope, Channel channel) throws Exception {
        String exchange = scope.exchange("direct");
        channel.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true);
        String one = declareQueue(scope, channel, "direct.1");
        String two = declareQueue(scope, channel, "direct.2");
        channel.queueBind(one, exchange, "a");
        channel.queueBind(one, exchange, "b");
        channel.queueBind(two, exchange, "b");
        channel.queueBind(two, exchange, "b");
        publish(channel, exchange, "a", "to a");
        publish(channel, exchange, "b", "to b");
        publish(channel, exchange, "*", "to a star");
        same(List.of("to a", "to b"), drain(channel, one), "direct: both keys");
        same(List.of("to b"), drain(channel, two), "direct: one key, bound twice");
        channel.queueUnbind(one, exchange, "b");
        publish(channel, exchange, "b", "after unbind");
        same(List.of(), drain(channel, one), "direct: unbound");
        same(List.of("after unbind"), drain(channel, two), "direct: still bound");
        // Unbinding what is not bound is no error.
        channel.queueUnbind(one, exchange, "b");
    }

    private static void fanout(Scope scope, Channel channel) throws Exception {
        String exchange = scope.exchange("fanout");
        channel.exchangeDeclare(exchange, BuiltinExchangeType.FANOUT);
        String one = declareQueue(scope, channel, "fanout.1");
        String two = declareQueue(scope, channel, "fanout.2");
        channel.queueBind(one, exchange, "ignored");
        channel.queueBind(one, exchange, "also ignored");
        channel.queueBind(two, exchange, "");
        publish(channel, exchange, "any key", "to all");
        same(List.of("to all"), drain(channel, one), "fanout: one copy despite two bindings");
        same(List.of("to all"), drain(channel, two), "fanout: second queue");
    }

    private static void topic(Scope scope, Channel channel) throws Exception {
        String exchange = scope.exchange("topic");
        channel.exchangeDeclare(exchange, BuiltinExchangeType.TOPIC, true);
        // Empty words count, but an empty key has no words at all.
        Map<String, List<String>> expected = Map.of(
            "*.orange.*", List.of("quick.orange.rabbit"),
            "lazy.#", List.of("lazy.orange", "lazy", "lazy.", "lazy.a.b.c"),
            "#.rabbit", List.of("quick.orange.rabbit", "rabbit"),
            "*", List.of("lazy", "rabbit"),
            "", List.of(""),
            "#", KEYS,
            "a.#.z", List.of("a.z", "a.b.z", "a.b.c.z"),
            "#.*.#", List.of("quick.orange.rabbit", "lazy.orange", "lazy", "lazy.", "lazy.a.b.c", "rabbit", "a.z", "a.b.z",
                "a.b.c.z"),
            "lazy.*", List.of("lazy.orange", "lazy."));
        Map<String, String> queues = new HashMap<>();
        for (String pattern : expected.keySet()) {
            String queue = declareQueue(scope, channel, "topic." + pattern);
            queues.put(pattern, queue);
            channel.queueBind(queue, exchange, pattern);
        }
        for (String key : KEYS) {
            publish(channel, exchange, key, key);
        }
        for (var entry : expected.entrySet()) {
            same(entry.getValue(), drain(channel, queues.get(entry.getKey())), "topic: " + entry.getKey());
        }
    }

    private static void headers(Scope scope, Channel channel) throws Exception {
        String exchange = scope.exchange("headers");
        channel.exchangeDeclare(exchange, BuiltinExchangeType.HEADERS);
        String all = declareQueue(scope, channel, "headers.all");
        String any = declareQueue(scope, channel, "headers.any");
        String byDefault = declareQueue(scope, channel, "headers.default");
        channel.queueBind(all, exchange, "", Map.of("x-match", "all", "format", "pdf", "pages", 3));
        channel.queueBind(any, exchange, "", Map.of("x-match", "any", "format", "pdf", "pages", 3));
        channel.queueBind(byDefault, exchange, "", Map.of("format", "pdf"));
        List<Map<String, Object>> headers = List.of(
            Map.of("format", "pdf", "pages", 3, "more", true), Map.of("format", "pdf"), Map.of("pages", 3),
            Map.of("format", "zip", "pages", "3"), Map.of());
        channel.confirmSelect();
        for (int i = 0; i < headers.size(); i++) {
            var properties = new AMQP.BasicProperties.Builder().headers(headers.get(i)).build();
            channel.basicPublish(exchange, "ignored", properties, bytes("" + i));
        }
        channel.basicPublish(exchange, "ignored", null, bytes("no headers"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        same(List.of("0"), drain(channel, all), "headers: all");
        same(List.of("0", "1", "2"), drain(channel, any), "headers: any");
        same(List.of("0", "1"), drain(channel, byDefault), "headers: all by default");
        channel.queueUnbind(any, exchange, "", Map.of("x-match", "any", "format", "pdf", "pages", 3));
        channel.basicPublish(exchange, "", new AMQP.BasicProperties.Builder().headers(headers.get(0)).build(), bytes("5"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        same(List.of(), drain(channel, any), "headers: unbound");
        same(List.of("5"), drain(channel, all), "headers: still bound");
    }

    private static void exchangeToExchange(Scope scope, Channel channel) throws Exception {
        String source = scope.exchange("source");
        String destination = scope.exchange("destination");
        channel.exchangeDeclare(source, BuiltinExchangeType.TOPIC);
        channel.exchangeDeclare(destination, BuiltinExchangeType.FANOUT, true, false, true, null);
        String queue = declareQueue(scope, channel, "behind");
        channel.queueBind(queue, destination, "");
        channel.queueBind(queue, source, "order.new");
        channel.exchangeBind(destination, source, "order.*");
        // A cycle must neither loop nor multiply messages.
        channel.exchangeBind(source, destination, "#");
        publish(channel, source, "order.new", "by two ways");
        publish(channel, source, "order.paid", "by the exchange");
        publish(channel, source, "invoice.paid", "no way");
        same(List.of("by two ways", "by the exchange"), drain(channel, queue), "exchange to exchange");
        channel.exchangeUnbind(destination, source, "order.*");
        publish(channel, source, "order.paid", "after unbind");
        same(List.of(), drain(channel, queue), "exchange to exchange: unbound");

        Channel intruder = channel.getConnection().createChannel();
        channelError(intruder, AMQP.ACCESS_REFUSED,
            "ACCESS_REFUSED - cannot publish to internal exchange '" + destination + "' in vhost '/'", 60, 40,
            () -> intruder.basicPublish(destination, "", null, bytes("from outside")));
    }

    private static void alternateExchange(Scope scope, Channel channel) throws Exception {
        String fallback = scope.exchange("fallback");
        String main = scope.exchange("main");
        channel.exchangeDeclare(main, BuiltinExchangeType.DIRECT, true, false, Map.of("alternate-exchange", fallback));
        String routed = declareQueue(scope, channel, "routed");
        String unrouted = declareQueue(scope, channel, "unrouted");
        channel.queueBind(routed, main, "known");

        BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
        channel.addReturnListener(returns::add);
        channel.confirmSelect();
        channel.basicPublish(main, "unknown", true, null, bytes("no alternate exchange yet"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        same(List.of("no alternate exchange yet"), new ArrayList<>(returns).stream().map(r -> text(r.getBody())).toList(),
            "alternate exchange: returned while it is missing");
        returns.clear();
        channel.exchangeDeclare(fallback, BuiltinExchangeType.FANOUT, true);
        channel.queueBind(unrouted, fallback, "");
        channel.basicPublish(main, "known", true, null, bytes("routed"));
        channel.basicPublish(main, "unknown", true, null, bytes("unrouted"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        same(0, returns.size(), "alternate exchange: returns");
        same(List.of("routed"), drain(channel, routed), "alternate exchange: routed");
        same(List.of("unrouted"), drain(channel, unrouted), "alternate exchange: unrouted");
    }
}
