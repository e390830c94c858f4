package interop;

import static interop.Checks.check;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Envelope;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A consumer that keeps its deliveries for the case to take, in the order of their arrival. */
final class Inbox extends DefaultConsumer {
    private final BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();

    Inbox(Channel channel) {
        super(channel);
    }

    static Inbox consume(Channel channel, String queue, boolean autoAck) throws IOException {
        Inbox inbox = new Inbox(channel);
        channel.basicConsume(queue, autoAck, inbox);
        return inbox;
    }

    @Override
    public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
        deliveries.add(new Delivery(envelope, properties, body));
    }

    Delivery take() throws InterruptedException {
        Delivery delivery = deliveries.poll(Checks.WAIT_MILLIS, TimeUnit.MILLISECONDS);
        check(delivery != null, "no delivery came in time");
        return delivery;
    }

    List<Delivery> take(int count) throws InterruptedException {
        List<Delivery> taken = new ArrayList<>();
        while (taken.size() < count) {
            taken.add(take());
        }
        return taken;
    }

    /** Only a pause can show that nothing more comes; callers first await the state after which nothing should. */
    void expectNoMore() throws InterruptedException {
        Delivery delivery = deliveries.poll(150, TimeUnit.MILLISECONDS);
        check(delivery == null, () -> "unexpected delivery of " + Checks.text(delivery.getBody()));
    }

    void ack(Delivery delivery, boolean multiple) throws IOException {
        getChannel().basicAck(delivery.getEnvelope().getDeliveryTag(), multiple);
    }
}
