package interop;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.Method;
import com.rabbitmq.client.ShutdownNotifier;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Assertions and the small steps that many cases share. */
final class Checks {
    static final long WAIT_MILLIS = 5_000;

    private Checks() {}

    interface Action {
        void run() throws Exception;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void check(boolean condition, String message) {
        check(condition, () -> message);
    }

    static void check(boolean condition, Supplier<String> message) {
        if (!condition) {
            throw new AssertionError(message.get());
        }
    }

    static void same(Object expected, Object actual, String what) {
        check(Objects.equals(expected, actual), () -> what + ": expected <" + expected + "> but got <" + actual + ">");
    }

    static void sameBytes(byte[] expected, byte[] actual, String what) {
        check(Arrays.equals(expected, actual),
            () -> what + ": expected <" + text(expected) + "> but got <" + text(actual) + ">");
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static List<String> bodies(List<Delivery> deliveries) {
        return deliveries.stream().map(delivery -> text(delivery.getBody())).toList();
    }

    /** Asserts bodies, order and the redelivered flag of each. */
    static void sameDeliveries(List<String> expected, boolean redelivered, List<Delivery> actual, String what) {
        same(expected, bodies(actual), what);
        for (Delivery delivery : actual) {
            same(redelivered, delivery.getEnvelope().isRedeliver(), what + ": redelivered of " + text(delivery.getBody()));
        }
    }

    static void await(Condition condition, String what) throws Exception {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MILLIS);
        while (!condition.holds()) {
            check(System.nanoTime() < end, () -> "timed out waiting until " + what);
            Thread.sleep(10);
        }
    }

    static void awaitReady(Channel channel, String queue, long count) throws Exception {
        await(() -> channel.messageCount(queue) == count, queue + " has " + count + " ready messages");
    }

    /** Publishes in confirm mode, so that the messages are in their queues when this returns. */
    static void publish(Channel channel, String exchange, String key, String... messages) throws Exception {
        channel.confirmSelect();
        for (String message : messages) {
            channel.basicPublish(exchange, key, null, bytes(message));
        }
        channel.waitForConfirmsOrDie(WAIT_MILLIS);
    }

    /** Takes all ready messages. */
    static List<String> drain(Channel channel, String queue) throws IOException {
        List<String> messages = new ArrayList<>();
        for (GetResponse got = channel.basicGet(queue, true); got != null; got = channel.basicGet(queue, true)) {
            messages.add(text(got.getBody()));
        }
        return messages;
    }

    /** Asserts that the broker answers the call by closing the channel, with exactly this reply. */
    static void channelError(Channel channel, int code, String text, int classId, int methodId, Action action)
            throws Exception {
        BlockingQueue<ShutdownSignalException> signals = shutdowns(channel);
        runIntoShutdown(action);
        ShutdownSignalException signal = signals.poll(WAIT_MILLIS, TimeUnit.MILLISECONDS);
        check(signal != null, () -> "the channel was not closed; expected " + text);
        check(!signal.isHardError(), () -> "a channel error closed the connection: " + signal);
        AMQP.Channel.Close close = (AMQP.Channel.Close) signal.getReason();
        same(List.of(code, text, classId, methodId),
            List.of(close.getReplyCode(), close.getReplyText(), close.getClassId(), close.getMethodId()),
            "channel.close");
    }

    /** Asserts that the broker answers the call by closing the connection, with exactly this reply. */
    static void connectionError(Connection connection, int code, String text, int classId, int methodId, Action action)
            throws Exception {
        BlockingQueue<ShutdownSignalException> signals = shutdowns(connection);
        runIntoShutdown(action);
        ShutdownSignalException signal = signals.poll(WAIT_MILLIS, TimeUnit.MILLISECONDS);
        check(signal != null, () -> "the connection was not closed; expected " + text);
        sameConnectionClose(signal, code, text, classId, methodId);
    }

    static void sameConnectionClose(ShutdownSignalException signal, int code, String text, int classId, int methodId) {
        Method reason = signal.getReason();
        check(reason instanceof AMQP.Connection.Close, () -> "no connection.close but " + signal);
        AMQP.Connection.Close close = (AMQP.Connection.Close) reason;
        same(List.of(code, text, classId, methodId),
            List.of(close.getReplyCode(), close.getReplyText(), close.getClassId(), close.getMethodId()),
            "connection.close");
    }

    private static BlockingQueue<ShutdownSignalException> shutdowns(ShutdownNotifier notifier) {
        BlockingQueue<ShutdownSignalException> signals = new LinkedBlockingQueue<>();
        notifier.addShutdownListener(signals::add);
        return signals;
    }

    /** A synchronous call throws, an asynchronous one does not; the shutdown listener hears of both. */
    private static void runIntoShutdown(Action action) throws Exception {
        try {
            action.run();
        } catch (AlreadyClosedException e) {
            // What closed it is in the signal.
        } catch (IOException e) {
            if (!(e.getCause() instanceof ShutdownSignalException)) {
                throw e;
            }
        }
    }

    static String notFound(String queue) {
        return "NOT_FOUND - no queue '" + queue + "' in vhost '/'";
    }

    static void queueGone(Connection connection, String queue) throws Exception {
        Channel channel = connection.createChannel();
        channelError(channel, AMQP.NOT_FOUND, notFound(queue), 50, 10, () -> channel.queueDeclarePassive(queue));
    }

    /** For queues that go in the background, after the reply to what makes them go. */
    static void awaitQueueGone(Connection connection, String queue) throws Exception {
        await(() -> {
            Channel probe = connection.createChannel();
            try {
                probe.queueDeclarePassive(queue);
                probe.close();
                return false;
            } catch (IOException e) {
                return !probe.isOpen();
            }
        }, queue + " is gone");
        queueGone(connection, queue);
    }

    static void exchangeGone(Connection connection, String exchange) throws Exception {
        Channel channel = connection.createChannel();
        channelError(channel, AMQP.NOT_FOUND, "NOT_FOUND - no exchange '" + exchange + "' in vhost '/'", 40, 10,
            () -> channel.exchangeDeclarePassive(exchange));
    }

    /** Makes a field table comparable with equals, keeping strings and byte arrays apart. */
    static Object comparable(Object value) {
        if (value instanceof LongString) {
            return value.toString();
        }
        if (value instanceof byte[] array) {
            return ByteBuffer.wrap(array);
        }
        if (value instanceof List<?> list) {
            List<Object> result = new ArrayList<>();
            list.forEach(element -> result.add(comparable(element)));
            return result;
        }
        if (value instanceof Map<?, ?> map) {
            Map<Object, Object> result = new HashMap<>();
            map.forEach((key, element) -> result.put(key, comparable(element)));
            return result;
        }
        return value;
    }
}
