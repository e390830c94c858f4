package interop;

import static interop.Checks.channelError;
import static interop.Checks.comparable;
import static interop.Checks.drain;
import static interop.Checks.publish;
import static interop.Checks.same;
import static interop.Checks.sameBytes;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import java.math.BigDecimal;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;

final class Content {
    private Content() {}

    /** A table with every type that this client can write. */
    private static Map<String, Object> table() {
        Map<String, Object> nested = new HashMap<>();
        nested.put("void", null);
        nested.put("deep", Map.of("deeper", List.of(Map.of("deepest", true))));
        nested.put("empty", Map.of());
        Map<String, Object> table = new HashMap<>();
        table.put("true", true);
        table.put("false", false);
        table.put("byte", Byte.MIN_VALUE);
        table.put("short", Short.MIN_VALUE);
        table.put("int", Integer.MIN_VALUE);
        table.put("long", Long.MIN_VALUE);
        table.put("max long", Long.MAX_VALUE);
        table.put("float", 1.5f);
        table.put("float with a long fraction", 0.1f);
        table.put("double", Math.PI);
        table.put("decimal", new BigDecimal("12345.6789"));
        table.put("string", "Grüße, 兎 🐇");
        table.put("empty string", "");
        table.put("long string", "x".repeat(3000));
        table.put("byte array", new byte[] {0, 1, (byte) 0xce, (byte) 0xff});
        table.put("timestamp", new Date(1_700_000_000_000L));
        table.put("table", nested);
        table.put("array", Arrays.asList(1, 2L, "three", true, null, List.of(), new byte[] {4}, Map.of("k", "v")));
        table.put("void", null);
        table.put("", "the empty name");
        table.put("name with spaces and ü", (short) 1);
        return table;
    }

    static void tables(Scope scope) throws Exception {
        Channel channel = scope.connect().createChannel();
        properties(scope, channel);
        rewritten(scope, channel);
        arguments(scope, channel);
    }

    private static void properties(Scope scope, Channel channel) throws Exception {
        String queue = scope.queue("properties");
        channel.queueDeclare(queue, true, false, false, null);
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
            .contentType("application/json").contentEncoding("gzip").headers(table()).deliveryMode(2).priority(9)
            .correlationId("correlation").replyTo("reply").expiration("600000").messageId("message")
            .timestamp(new Date(1_600_000_000_000L)).type("type").userId("guest").appId("app").clusterId("cluster").build();
        AMQP.BasicProperties few = new AMQP.BasicProperties.Builder().headers(Map.of()).correlationId("").clusterId("c").build();
        Inbox inbox = Inbox.consume(channel, queue, true);
        for (AMQP.BasicProperties properties : List.of(sent, few, new AMQP.BasicProperties())) {
            channel.basicPublish("", queue, properties, new byte[] {1});
            AMQP.BasicProperties received = inbox.take().getProperties();
            same(comparable(properties.getHeaders()), comparable(received.getHeaders()), "headers");
            same(properties.builder().headers(null).build(), received.builder().headers(null).build(), "properties");
        }
    }

    /** To take out BCC, the broker has to write the headers itself. */
    private static void rewritten(Scope scope, Channel channel) throws Exception {
        Map<String, Object> headers = table();
        headers.put("CC", List.of("nowhere"));
        Map<String, Object> expected = new HashMap<>(headers);
        String open = scope.queue("open");
        String blind = scope.queue("blind");
        headers.put("BCC", List.of(blind));
        channel.queueDeclare(open, false, false, false, null);
        channel.queueDeclare(blind, false, false, false, null);
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder().headers(headers).priority(3).type("t").build();
        channel.basicPublish("", open, sent, new byte[] {1, 2, 3});
        for (String queue : List.of(open, blind)) {
            Delivery delivery = Inbox.consume(channel, queue, true).take();
            sameBytes(new byte[] {1, 2, 3}, delivery.getBody(), "body");
            AMQP.BasicProperties received = delivery.getProperties();
            same(comparable(expected), comparable(received.getHeaders()), "headers without BCC");
            same(sent.builder().headers(null).build(), received.builder().headers(null).build(), "properties");
            same(open, delivery.getEnvelope().getRoutingKey(), "routing key");
        }
    }

    private static void arguments(Scope scope, Channel channel) throws Exception {
        Map<String, Object> arguments = table();
        arguments.put("x-message-ttl", 600_000);
        arguments.put("x-max-length", 1000L);
        String queue = scope.queue("arguments");
        channel.queueDeclare(queue, true, false, false, arguments);
        channel.queueDeclare(queue, true, false, false, arguments);
        // The width of an integer makes no difference.
        arguments.put("x-message-ttl", 600_000L);
        arguments.put("x-max-length", (short) 1000);
        channel.queueDeclare(queue, true, false, false, arguments);
        arguments.put("x-message-ttl", 5);
        Channel different = channel.getConnection().createChannel();
        channelError(different, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '"
            + queue + "' in vhost '/': received '5' but current is '600000'", 50, 10,
            () -> different.queueDeclare(queue, true, false, false, arguments));

        String exchange = scope.exchange("arguments");
        channel.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true, false, table());
        channel.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true, false, table());

        // The arguments are part of a binding's identity: only equal ones take it away.
        Map<String, Object> altered = table();
        altered.put("long", 0L);
        channel.queueBind(queue, exchange, "key", table());
        channel.queueUnbind(queue, exchange, "key", altered);
        channel.queueUnbind(queue, exchange, "key");
        publish(channel, exchange, "key", "bound");
        channel.queueUnbind(queue, exchange, "key", table());
        publish(channel, exchange, "key", "unbound");
        same(List.of("bound"), drain(channel, queue), "messages");

        Map<String, Object> consumerArguments = table();
        consumerArguments.put("x-priority", 5);
        Inbox inbox = new Inbox(channel);
        channel.basicConsume(queue, true, "", false, false, consumerArguments, inbox);
        publish(channel, "", queue, "consumed");
        same(List.of("consumed"), Checks.bodies(inbox.take(1)), "message for a consumer with arguments");
    }

    static void largeMessage(Scope scope) throws Exception {
        Connection connection = scope.connect();
        same(131_072, connection.getFrameMax(), "negotiated frame_max");
        roundTrips(scope.queue("large"), connection);

        ConnectionFactory smallFrames = scope.factory();
        smallFrames.setRequestedFrameMax(8192);
        Connection small = scope.connect(smallFrames);
        same(8192, small.getFrameMax(), "lowered frame_max");
        roundTrips(scope.queue("small frames"), small);
    }

    private static void roundTrips(String queue, Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        channel.queueDeclare(queue, false, false, false, null);
        Inbox inbox = Inbox.consume(channel, queue, false);
        int frame = connection.getFrameMax() - 8;
        Random random = new Random(42);
        for (int size : new int[] {10 * 1024 * 1024, 0, 1, frame - 1, frame, frame + 1, 2 * frame}) {
            byte[] body = new byte[size];
            random.nextBytes(body);
            channel.basicPublish("", queue, null, body);
            var delivery = inbox.take();
            same(size, delivery.getBody().length, "body size");
            same(sha256(body), sha256(delivery.getBody()), "hash of a body of " + size + " bytes");
            inbox.ack(delivery, false);
        }
    }

    private static String sha256(byte[] body) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
    }
}
