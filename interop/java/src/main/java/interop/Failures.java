package interop;

import static interop.Checks.awaitReady;
import static interop.Checks.bytes;
import static interop.Checks.channelError;
import static interop.Checks.check;
import static interop.Checks.connectionError;
import static interop.Checks.drain;
import static interop.Checks.notFound;
import static interop.Checks.publish;
import static interop.Checks.same;
import static interop.Checks.sameConnectionClose;
import static interop.Checks.sameDeliveries;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoverableConnection;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.SocketConfigurators;
import java.io.IOException;
import java.net.Socket;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

final class Failures {
    private Failures() {}

    static void errors(Scope scope) throws Exception {
        Connection connection = scope.connect();
        // What happens to the other channels must not touch this one and its consumer.
        Channel bystander = connection.createChannel();
        String watched = scope.queue("watched");
        bystander.queueDeclare(watched, false, false, false, null);
        Inbox inbox = Inbox.consume(bystander, watched, true);

        String missing = scope.queue("missing");
        channelError(connection, AMQP.NOT_FOUND, notFound(missing), 60, 20, channel -> Inbox.consume(channel, missing, true));
        channelError(connection, AMQP.NOT_FOUND, notFound(missing), 50, 10, channel -> channel.queueDeclarePassive(missing));
        channelError(connection, AMQP.NOT_FOUND, notFound(missing), 60, 70, channel -> channel.basicGet(missing, true));
        String noExchange = "NOT_FOUND - no exchange '" + missing + "' in vhost '/'";
        channelError(connection, AMQP.NOT_FOUND, noExchange, 40, 10, channel -> channel.exchangeDeclarePassive(missing));
        channelError(connection, AMQP.NOT_FOUND, noExchange, 60, 40,
            channel -> channel.basicPublish(missing, "", null, bytes("lost")));
        channelError(connection, AMQP.NOT_FOUND, noExchange, 50, 20, channel -> channel.queueBind(watched, missing, ""));
        same(0, bystander.queueDelete(missing).getMessageCount(), "delete-ok of a missing queue");

        String queue = scope.queue("declared");
        bystander.queueDeclare(queue, true, false, false, Map.of("x-message-ttl", 1_800_000L));
        String inequivalent = "PRECONDITION_FAILED - inequivalent arg '%s' for queue '" + queue + "' in vhost '/': received %s";
        channelError(connection, AMQP.PRECONDITION_FAILED, inequivalent.formatted("durable", "'false' but current is 'true'"),
            50, 10, channel -> channel.queueDeclare(queue, false, false, false, Map.of("x-message-ttl", 1_800_000L)));
        channelError(connection, AMQP.PRECONDITION_FAILED,
            inequivalent.formatted("x-message-ttl", "none but current is the value '1800000' of type 'long'"),
            50, 10, channel -> channel.queueDeclare(queue, true, false, false, null));
        String exchange = scope.exchange("declared");
        bystander.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true);
        channelError(connection, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '"
            + exchange + "' in vhost '/': received 'fanout' but current is 'direct'", 40, 10,
            channel -> channel.exchangeDeclare(exchange, BuiltinExchangeType.FANOUT, true));
        publish(bystander, "", queue, "message");
        channelError(connection, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - queue '" + queue + "' in vhost '/' not empty",
            50, 40, channel -> channel.queueDelete(queue, false, true));
        channelError(connection, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - queue '" + watched + "' in vhost '/' in use",
            50, 40, channel -> channel.queueDelete(watched, true, false));
        channelError(connection, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80,
            channel -> channel.basicAck(1, false));
        channelError(connection, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80, channel -> {
            channel.basicAck(channel.basicGet(queue, false).getEnvelope().getDeliveryTag(), false);
            channel.basicAck(1, false);
        });
        String reserved = "amq." + missing;
        channelError(connection, AMQP.ACCESS_REFUSED,
            "ACCESS_REFUSED - queue name '" + reserved + "' contains reserved prefix 'amq.*'", 50, 10,
            channel -> channel.queueDeclare(reserved, false, false, false, null));
        channelError(connection, AMQP.ACCESS_REFUSED, "ACCESS_REFUSED - operation not permitted on the default exchange", 50, 20,
            channel -> channel.queueBind(queue, "", "key"));

        publish(bystander, "", watched, "still here");
        sameDeliveries(List.of("still here"), false, inbox.take(1), "consumer on another channel");
        check(connection.isOpen() && bystander.isOpen(), "the connection and its other channel are still open");

        connectionErrors(scope, watched);
    }

    private interface ChannelAction {
        void run(Channel channel) throws Exception;
    }

    private static void channelError(Connection connection, int code, String text, int classId, int methodId,
            ChannelAction action) throws Exception {
        Channel channel = connection.createChannel();
        Checks.channelError(channel, code, text, classId, methodId, () -> action.run(channel));
    }

    private static void connectionErrors(Scope scope, String queue) throws Exception {
        ConnectionFactory wrongPassword = scope.factory();
        wrongPassword.setPassword("wrong");
        try {
            scope.connect(wrongPassword);
            throw new AssertionError("a wrong password was accepted");
        } catch (AuthenticationFailureException e) {
            same("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
                e.getMessage(), "wrong password");
        }

        ConnectionFactory unknownVhost = scope.factory();
        unknownVhost.setVirtualHost("no such vhost");
        try {
            scope.connect(unknownVhost);
            throw new AssertionError("an unknown vhost was accepted");
        } catch (IOException e) {
            sameConnectionClose((ShutdownSignalException) e.getCause(), AMQP.NOT_ALLOWED,
                "NOT_ALLOWED - vhost no such vhost not found", 10, 40);
        }

        ConnectionFactory lasting = scope.factory();
        lasting.setAutomaticRecoveryEnabled(false);
        Connection immediate = scope.connect(lasting);
        Channel publisher = immediate.createChannel();
        connectionError(immediate, AMQP.NOT_IMPLEMENTED, "NOT_IMPLEMENTED - immediate=true", 60, 40,
            () -> publisher.basicPublish("", queue, false, true, null, bytes("now")));
    }

    static void reconnect(Scope scope) throws Exception {
        Channel admin = scope.connect().createChannel();
        String queue = scope.queue("durable");
        String exchange = scope.exchange("fanout");

        AtomicReference<Socket> socket = new AtomicReference<>();
        CountDownLatch recovered = new CountDownLatch(1);
        ConnectionFactory factory = scope.factory();
        factory.setNetworkRecoveryInterval(300);
        factory.setSocketConfigurator(SocketConfigurators.defaultConfigurator().andThen(socket::set));
        Connection connection = scope.connect(factory);
        ((RecoverableConnection) connection).addRecoveryListener(new RecoveryListener() {
            @Override
            public void handleRecovery(Recoverable recoverable) {
                recovered.countDown();
            }

            @Override
            public void handleRecoveryStarted(Recoverable recoverable) {}
        });
        Channel channel = connection.createChannel();
        channel.queueDeclare(queue, true, false, false, null);
        channel.exchangeDeclare(exchange, BuiltinExchangeType.FANOUT, false, true, null);
        String temporary = channel.queueDeclare().getQueue();
        channel.queueBind(temporary, exchange, "");
        Inbox fromExchange = Inbox.consume(channel, temporary, true);
        publish(admin, "", queue, "1", "2", "3", "4", "5", "6", "7");

        channel.basicQos(3);
        Inbox inbox = Inbox.consume(channel, queue, false);
        List<Delivery> before = inbox.take(3);
        inbox.ack(before.get(1), true);
        before.addAll(inbox.take(2));
        sameDeliveries(List.of("1", "2", "3", "4", "5"), false, before, "before the cut");
        awaitReady(admin, queue, 2);

        socket.get().setSoLinger(true, 0);
        socket.get().close();
        check(recovered.await(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS), "the connection did not recover");

        List<Delivery> after = inbox.take(3);
        sameDeliveries(List.of("3", "4", "5"), true, after, "after recovery");
        inbox.ack(after.get(2), true);
        after = inbox.take(2);
        sameDeliveries(List.of("6", "7"), false, after, "what had not been delivered before");
        inbox.ack(after.get(1), true);
        // The server-named queue has a new name now, yet its binding and consumer are back.
        publish(admin, exchange, "", "to the recovered queue");
        sameDeliveries(List.of("to the recovered queue"), false, fromExchange.take(1), "recovered topology");
        Checks.queueGone(admin.getConnection(), temporary);

        // What an orderly closed connection leaves unacknowledged comes back just the same.
        publish(channel, "", queue, "8");
        sameDeliveries(List.of("8"), false, inbox.take(1), "before closing");
        connection.close();
        Channel next = scope.connect().createChannel();
        Inbox again = Inbox.consume(next, queue, false);
        after = again.take(1);
        sameDeliveries(List.of("8"), true, after, "on the next connection");
        again.ack(after.get(0), false);
        next.close();
        same(List.of(), drain(admin, queue), "messages left");
    }
}
