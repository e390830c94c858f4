package interop;

import static interop.Checks.bytes;
import static interop.Checks.channelError;
import static interop.Checks.check;
import static interop.Checks.drain;
import static interop.Checks.publish;
import static interop.Checks.same;
import static interop.Checks.sameBytes;
import static interop.Checks.text;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConfirmListener;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Return;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

final class Publishing {
    private Publishing() {}

    static void publishConfirms(Scope scope) throws Exception {
        Channel channel = scope.connect().createChannel();
        String queue = scope.queue("durable");
        channel.queueDeclare(queue, true, false, false, null);
        channel.confirmSelect();

        int count = 200;
        TreeSet<Long> unconfirmed = new TreeSet<>();
        List<Long> nacked = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch done = new CountDownLatch(1);
        ConfirmListener listener = new ConfirmListener() {
            @Override
            public void handleAck(long tag, boolean multiple) {
                synchronized (unconfirmed) {
                    if (multiple) {
                        unconfirmed.headSet(tag, true).clear();
                    } else {
                        unconfirmed.remove(tag);
                    }
                    if (unconfirmed.isEmpty()) {
                        done.countDown();
                    }
                }
            }

            @Override
            public void handleNack(long tag, boolean multiple) {
                nacked.add(tag);
            }
        };
        for (long tag = 1; tag <= count; tag++) {
            unconfirmed.add(tag);
        }
        channel.addConfirmListener(listener);
        List<String> sent = new ArrayList<>();
        for (int i = 1; i <= count; i++) {
            same((long) i, channel.getNextPublishSeqNo(), "publish sequence number");
            sent.add("message " + i);
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("message " + i));
        }
        check(done.await(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS), "not all messages were confirmed");
        same(List.of(), nacked, "nacked");
        channel.removeConfirmListener(listener);
        same((long) count, channel.messageCount(queue), "messages in the queue");
        same(sent, drain(channel, queue), "messages");

        // An unroutable message is confirmed too, and if it is mandatory, returned before that.
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener(returned -> events.add("return " + text(returned.getBody())));
        channel.addConfirmListener((tag, multiple) -> events.add("ack " + tag), (tag, multiple) -> events.add("nack " + tag));
        channel.basicPublish("", scope.queue("missing"), true, null, bytes("unroutable"));
        same("return unroutable", events.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS), "first event");
        same("ack " + (count + 1), events.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS), "second event");
        channel.basicPublish("", scope.queue("missing"), null, bytes("dropped"));
        same("ack " + (count + 2), events.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS), "event of a dropped message");
    }

    static void returns(Scope scope) throws Exception {
        Channel channel = scope.connect().createChannel();
        BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
        channel.addReturnListener(returns::add);
        String exchange = scope.exchange("direct");
        String queue = scope.queue("bound");
        channel.exchangeDeclare(exchange, "direct");
        channel.queueDeclare(queue, false, false, false, null);
        channel.queueBind(queue, exchange, "bound");

        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
            .contentType("text/plain").deliveryMode(2).messageId("m-1").timestamp(new Date(1_700_000_000_000L))
            .headers(Map.of("n", 42)).build();
        channel.basicPublish(exchange, "unbound", true, properties, bytes("come back"));
        Return returned = returns.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS);
        check(returned != null, "the unroutable message was not returned");
        same(List.of(AMQP.NO_ROUTE, "NO_ROUTE", exchange, "unbound"),
            List.of(returned.getReplyCode(), returned.getReplyText(), returned.getExchange(), returned.getRoutingKey()),
            "basic.return");
        same(properties, returned.getProperties(), "returned properties");
        sameBytes(bytes("come back"), returned.getBody(), "returned body");

        channel.basicPublish("", scope.queue("missing"), true, null, new byte[0]);
        returned = returns.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS);
        check(returned != null, "the message to the default exchange was not returned");
        same(List.of("", 0), List.of(returned.getExchange(), returned.getBody().length), "exchange and size");

        // Neither a routable message nor one that is not mandatory comes back.
        channel.confirmSelect();
        channel.basicPublish(exchange, "unbound", false, null, bytes("drop"));
        channel.basicPublish(exchange, "bound", true, null, bytes("routed"));
        channel.waitForConfirmsOrDie(Checks.WAIT_MILLIS);
        same(0, returns.size(), "further returns");
        same(List.of("routed"), drain(channel, queue), "routed messages");
    }

    static void transactions(Scope scope) throws Exception {
        Channel observer = scope.connect().createChannel();
        Channel channel = scope.connect().createChannel();
        String queue = scope.queue("durable");
        channel.queueDeclare(queue, true, false, false, null);
        channel.txSelect();

        channel.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("committed 1"));
        channel.basicPublish("", queue, null, bytes("committed 2"));
        // The declare-ok shows that the broker has read the publishes and still holds them back.
        same(0L, channel.messageCount(queue), "messages before commit");
        channel.txCommit();
        same(2L, observer.messageCount(queue), "messages after commit");

        channel.basicPublish("", queue, null, bytes("rolled back"));
        channel.txRollback();
        channel.txCommit();
        same(2L, observer.messageCount(queue), "messages after rollback");

        // A rolled back acknowledgement leaves the message unacknowledged and outstanding; a committed one settles it.
        long tag = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        channel.basicAck(tag, false);
        channel.txRollback();
        same(1L, observer.messageCount(queue), "ready messages while one is outstanding");
        channel.basicAck(tag, false);
        channel.txCommit();
        long second = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        channel.basicAck(second, false);
        channel.close();
        same(List.of("committed 2"), drain(observer, queue), "messages whose acknowledgement was not committed");

        Channel plain = scope.connect().createChannel();
        channelError(plain, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - channel is not transactional", 90, 20, plain::txCommit);
        Channel confirming = scope.connect().createChannel();
        publish(confirming, "", queue, "confirmed");
        channelError(confirming, AMQP.PRECONDITION_FAILED, "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
            90, 10, confirming::txSelect);
    }
}
