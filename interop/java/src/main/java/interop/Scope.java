package interop;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeoutException;

/** The connections and the broker objects of one case; closing it removes them all. */
final class Scope implements AutoCloseable {
    private final String host;
    private final int port;
    private final String prefix;
    private final List<Connection> connections = new ArrayList<>();
    private final List<String> queues = new ArrayList<>();
    private final List<String> exchanges = new ArrayList<>();

    Scope(String host, int port, String caseName) {
        this.host = host;
        this.port = port;
        this.prefix = "interop.java." + caseName + "." + UUID.randomUUID().toString().substring(0, 8) + ".";
    }

    ConnectionFactory factory() {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(host);
        factory.setPort(port);
        factory.setConnectionTimeout(5_000);
        factory.setChannelRpcTimeout(10_000);
        return factory;
    }

    Connection connect() throws IOException, TimeoutException {
        return connect(factory());
    }

    Connection connect(ConnectionFactory factory) throws IOException, TimeoutException {
        Connection connection = factory.newConnection(prefix + "connection");
        connections.add(connection);
        return connection;
    }

    /** A unique queue name; a queue that exists under it at the end of the case is deleted. */
    String queue(String suffix) {
        queues.add(prefix + suffix);
        return prefix + suffix;
    }

    /** A unique exchange name; an exchange that exists under it at the end of the case is deleted. */
    String exchange(String suffix) {
        exchanges.add(prefix + suffix);
        return prefix + suffix;
    }

    @Override
    public void close() throws Exception {
        connections.forEach(connection -> connection.abort(2_000));
        try (Connection connection = factory().newConnection(); Channel channel = connection.createChannel()) {
            for (String queue : queues) {
                channel.queueDelete(queue);
            }
            for (String exchange : exchanges) {
                channel.exchangeDelete(exchange);
            }
        }
    }
}
