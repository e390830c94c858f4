package interop;

import static interop.Checks.awaitReady;
import static interop.Checks.bytes;
import static interop.Checks.check;
import static interop.Checks.same;
import static interop.Checks.text;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;

/** The patterns of RabbitMQ's seven tutorials. */
final class Tutorials {
    private Tutorials() {}

    static void all(Scope scope) throws Exception {
        helloWorld(scope);
        workQueues(scope);
        publishSubscribe(scope);
        routing(scope);
        topics(scope);
        rpc(scope);
        publisherConfirms(scope);
    }

    private static void helloWorld(Scope scope) throws Exception {
        String queue = scope.queue("hello");
        try (Connection connection = scope.connect(); Channel channel = connection.createChannel()) {
            channel.queueDeclare(queue, false, false, false, null);
            channel.basicPublish("", queue, null, bytes("Hello World!"));
        }
        Channel channel = scope.connect().createChannel();
        channel.queueDeclare(queue, false, false, false, null);
        same("Hello World!", text(Inbox.consume(channel, queue, true).take().getBody()), "hello world");
    }

    private static void workQueues(Scope scope) throws Exception {
        String queue = scope.queue("task_queue");
        Channel busy = scope.connect().createChannel();
        busy.queueDeclare(queue, true, false, false, null);
        busy.basicQos(1);
        Inbox busyWorker = Inbox.consume(busy, queue, false);
        Channel idle = scope.connect().createChannel();
        idle.queueDeclare(queue, true, false, false, null);
        idle.basicQos(1);
        Inbox idleWorker = Inbox.consume(idle, queue, false);

        Channel producer = scope.connect().createChannel();
        producer.queueDeclare(queue, true, false, false, null);
        for (int i = 1; i <= 5; i++) {
            producer.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("task " + i));
        }
        Delivery longTask = busyWorker.take();
        same("task 1", text(longTask.getBody()), "first worker's task");
        // While one worker is busy, the other gets all the rest.
        for (int i = 2; i <= 5; i++) {
            Delivery task = idleWorker.take();
            same("task " + i, text(task.getBody()), "second worker's task");
            idleWorker.expectNoMore();
            idleWorker.ack(task, false);
        }
        busyWorker.expectNoMore();
        // A worker that dies leaves its task to the other.
        busy.getConnection().close();
        Delivery inherited = idleWorker.take();
        same("task 1", text(inherited.getBody()), "inherited task");
        check(inherited.getEnvelope().isRedeliver(), "the inherited task is marked as redelivered");
        idleWorker.ack(inherited, false);
        awaitReady(producer, queue, 0);
    }

    private static void publishSubscribe(Scope scope) throws Exception {
        String logs = scope.exchange("logs");
        Inbox one = subscribe(scope, logs, BuiltinExchangeType.FANOUT, "");
        Inbox two = subscribe(scope, logs, BuiltinExchangeType.FANOUT, "");
        Channel emitter = scope.connect().createChannel();
        emitter.exchangeDeclare(logs, BuiltinExchangeType.FANOUT);
        emitter.basicPublish(logs, "", null, bytes("info: Hello World!"));
        same("info: Hello World!", text(one.take().getBody()), "first subscriber");
        same("info: Hello World!", text(two.take().getBody()), "second subscriber");
    }

    private static void routing(Scope scope) throws Exception {
        String logs = scope.exchange("direct_logs");
        Inbox errors = subscribe(scope, logs, BuiltinExchangeType.DIRECT, "error");
        Inbox all = subscribe(scope, logs, BuiltinExchangeType.DIRECT, "info", "warning", "error");
        Channel emitter = scope.connect().createChannel();
        emitter.exchangeDeclare(logs, BuiltinExchangeType.DIRECT);
        for (String severity : List.of("info", "error", "debug", "warning")) {
            emitter.basicPublish(logs, severity, null, bytes(severity));
        }
        same(List.of("info", "error", "warning"), Checks.bodies(all.take(3)), "all severities");
        same(List.of("error"), Checks.bodies(errors.take(1)), "errors only");
        all.expectNoMore();
        errors.expectNoMore();
    }

    private static void topics(Scope scope) throws Exception {
        String logs = scope.exchange("topic_logs");
        Inbox everything = subscribe(scope, logs, BuiltinExchangeType.TOPIC, "#");
        Inbox kernel = subscribe(scope, logs, BuiltinExchangeType.TOPIC, "kern.*");
        Inbox mixed = subscribe(scope, logs, BuiltinExchangeType.TOPIC, "kern.*", "*.critical");
        Channel emitter = scope.connect().createChannel();
        emitter.exchangeDeclare(logs, BuiltinExchangeType.TOPIC);
        for (String key : List.of("kern.critical", "kern.info", "auth.critical", "auth.info")) {
            emitter.basicPublish(logs, key, null, bytes(key));
        }
        same(List.of("kern.critical", "kern.info", "auth.critical", "auth.info"), Checks.bodies(everything.take(4)), "#");
        same(List.of("kern.critical", "kern.info"), Checks.bodies(kernel.take(2)), "kern.*");
        same(List.of("kern.critical", "kern.info", "auth.critical"), Checks.bodies(mixed.take(3)), "kern.* and *.critical");
        for (Inbox inbox : List.of(everything, kernel, mixed)) {
            inbox.expectNoMore();
        }
    }

    private static Inbox subscribe(Scope scope, String exchange, BuiltinExchangeType type, String... keys) throws Exception {
        Channel channel = scope.connect().createChannel();
        channel.exchangeDeclare(exchange, type);
        String queue = channel.queueDeclare().getQueue();
        for (String key : keys) {
            channel.queueBind(queue, exchange, key);
        }
        return Inbox.consume(channel, queue, true);
    }

    private static void rpc(Scope scope) throws Exception {
        String requests = scope.queue("rpc_queue");
        Channel server = scope.connect().createChannel();
        server.queueDeclare(requests, false, false, false, null);
        server.basicQos(1);
        server.basicConsume(requests, false, (tag, request) -> {
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .correlationId(request.getProperties().getCorrelationId()).build();
            int result = fibonacci(Integer.parseInt(text(request.getBody())));
            server.basicPublish("", request.getProperties().getReplyTo(), properties, bytes("" + result));
            server.basicAck(request.getEnvelope().getDeliveryTag(), false);
        }, tag -> {});

        Channel client = scope.connect().createChannel();
        String callbackQueue = client.queueDeclare().getQueue();
        Inbox callbacks = Inbox.consume(client, callbackQueue, true);
        same("55", call(client, requests, callbackQueue, callbacks, "10"), "callback queue: fib(10)");
        same("832040", call(client, requests, callbackQueue, callbacks, "30"), "callback queue: fib(30)");

        Channel direct = scope.connect().createChannel();
        String pseudoQueue = "amq.rabbitmq.reply-to";
        Inbox replies = Inbox.consume(direct, pseudoQueue, true);
        same("55", call(direct, requests, pseudoQueue, replies, "10"), "direct reply-to: fib(10)");
        same("6765", call(direct, requests, pseudoQueue, replies, "20"), "direct reply-to: fib(20)");
    }

    private static String call(Channel channel, String requests, String replyTo, Inbox replies, String argument)
            throws Exception {
        String correlationId = UUID.randomUUID().toString();
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
            .correlationId(correlationId).replyTo(replyTo).build();
        channel.basicPublish("", requests, properties, bytes(argument));
        Delivery reply = replies.take();
        same(correlationId, reply.getProperties().getCorrelationId(), "correlation id");
        return text(reply.getBody());
    }

    private static int fibonacci(int n) {
        int previous = 0;
        int current = 1;
        for (int i = 0; i < n; i++) {
            int next = previous + current;
            previous = current;
            current = next;
        }
        return previous;
    }

    private static void publisherConfirms(Scope scope) throws Exception {
        int count = 100;
        try (Connection connection = scope.connect()) {
            Channel individually = connection.createChannel();
            String queue = individually.queueDeclare().getQueue();
            individually.confirmSelect();
            for (int i = 0; i < 10; i++) {
                individually.basicPublish("", queue, null, bytes("" + i));
                individually.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
                same(i + 1L, individually.messageCount(queue), "individually confirmed");
            }

            Channel inBatches = connection.createChannel();
            inBatches.confirmSelect();
            for (int i = 0; i < count; i++) {
                inBatches.basicPublish("", queue, null, bytes("" + i));
                if (i % 25 == 24) {
                    inBatches.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
                }
            }
            same(10L + count, inBatches.messageCount(queue), "confirmed in batches");

            Channel asynchronously = connection.createChannel();
            asynchronously.confirmSelect();
            ConcurrentNavigableMap<Long, String> outstanding = new ConcurrentSkipListMap<>();
            asynchronously.addConfirmListener((tag, multiple) -> {
                if (multiple) {
                    outstanding.headMap(tag, true).clear();
                } else {
                    outstanding.remove(tag);
                }
            }, (tag, multiple) -> {});
            for (int i = 0; i < count; i++) {
                outstanding.put(asynchronously.getNextPublishSeqNo(), "" + i);
                asynchronously.basicPublish("", queue, null, bytes("" + i));
            }
            Checks.await(outstanding::isEmpty, "all messages are confirmed");
            same(10L + 2 * count, asynchronously.messageCount(queue), "confirmed asynchronously");
        }
    }
}
