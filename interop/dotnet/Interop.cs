using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;
using RabbitMQ.Client.MessagePatterns;

class Interop : Harness
{
    const string Locked =
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{0}' in vhost '/'. It could be originally " +
        "declared on another connection or the exclusive property value does not match that of the original " +
        "declaration.";

    static int Main(string[] arguments)
    {
        var protocols = new SortedDictionary<string, IProtocol>
        {
            { "0-8", Protocols.AMQP_0_8 },
            { "0-9", Protocols.AMQP_0_9 }
        };
        return RunAll<Interop>(arguments[0], int.Parse(arguments[1]), protocols);
    }

    [Case("publish_confirms")]
    public void PublishConfirms()
    {
        throw new NotApplicable("the client is older than publisher confirms");
    }

    [Case("consume_acks")]
    public void ConsumeAcks()
    {
        var connection = Connect();
        var model = connection.CreateModel();
        var queue = Queue(model, "q", durable: true);
        for (int i = 0; i < 10; i++)
        {
            Publish(model, "", queue, "m" + i, i % 2 == 0 ? null : Persistent(model));
        }
        var first = Take(Consume(model, queue), 10);
        for (int i = 0; i < 10; i++)
        {
            Equal("m" + i, Text(first[i].Body), "body");
            Equal((ulong)i + 1, first[i].DeliveryTag, "delivery tag");
            Equal(false, first[i].Redelivered, "redelivered");
            Equal(queue, first[i].RoutingKey, "routing key");
        }
        model.BasicAck(first[4].DeliveryTag, true);
        model.BasicAck(first[6].DeliveryTag, false);
        model.Close();

        model = connection.CreateModel();
        var second = Take(Consume(model, queue), 4);
        Equal("m5 m7 m8 m9", string.Join(" ", second.Select(d => Text(d.Body))), "bodies after the channel closed");
        Check(second.All(delivery => delivery.Redelivered), "not marked as redelivered");
        model.BasicAck(0, true);
        model.Close();
        Equal("", Drain(connection.CreateModel(), queue), "messages left");
    }

    [Case("prefetch")]
    public void Prefetch()
    {
        var connection = Connect();
        var model = connection.CreateModel();
        string queue = Queue(model, "q"), other = Queue(model, "other");
        for (int i = 0; i < 10; i++)
        {
            Publish(model, "", queue, "m" + i);
            Publish(model, "", other, "o" + i);
        }
        model.BasicQos(0, 3, false);
        var consumer = Consume(model, queue);
        var taken = Take(consumer, 3);
        Equal(7u, Ready(connection, queue), "ready while three are unacked");
        model.BasicAck(taken[0].DeliveryTag, false);
        var fourth = Take(consumer);
        Equal(6u, Ready(connection, queue), "ready after an ack");
        model.BasicAck(fourth.DeliveryTag, true);
        Equal("m4 m5 m6", string.Join(" ", Take(consumer, 3).Select(d => Text(d.Body))), "after acking all three");
        Equal(3u, Ready(connection, queue), "ready after acking all three");
        NothingMore(model, consumer);

        // Without global, each consumer of the channel has the limit to itself.
        var second = Consume(model, other);
        Equal("o0 o1 o2", string.Join(" ", Take(second, 3).Select(d => Text(d.Body))), "second consumer");
        Equal(7u, Ready(connection, other), "ready for the second consumer");

        var shared = connection.CreateModel();
        shared.BasicQos(0, 4, true);
        var queues = new[] { Queue(shared, "shared0"), Queue(shared, "shared1") };
        for (int i = 0; i < 10; i++)
        {
            Publish(shared, "", queues[i % 2], "s" + i);
        }
        consumer = new QueueingBasicConsumer(shared);
        foreach (var name in queues)
        {
            shared.BasicConsume(name, false, null, consumer);
        }
        var deliveries = Take(consumer, 4);
        Equal(6L, queues.Sum(name => Ready(connection, name)), "ready while the channel's limit is used up");
        shared.BasicAck(deliveries[0].DeliveryTag, false);
        Take(consumer);
        Equal(5L, queues.Sum(name => Ready(connection, name)), "ready after an ack");
        NothingMore(shared, consumer);
    }

    [Case("get")]
    public void Get()
    {
        var model = Model();
        var queue = Queue(model, "q", durable: true);
        Equal(null, model.BasicGet(queue, true), "empty queue");
        for (int i = 0; i < 3; i++)
        {
            var properties = model.CreateBasicProperties();
            properties.MessageId = "id" + i;
            Publish(model, "", queue, "m" + i, properties);
        }
        for (uint i = 0; i < 3; i++)
        {
            var result = model.BasicGet(queue, false);
            Equal("m" + i, Text(result.Body), "body");
            Equal("id" + i, result.BasicProperties.MessageId, "message-id");
            Equal(2 - i, result.MessageCount, "remaining");
            Equal((ulong)i + 1, result.DeliveryTag, "delivery tag");
            Equal(false, result.Redelivered, "redelivered");
            Equal("", result.Exchange, "exchange");
            Equal(queue, result.RoutingKey, "routing key");
            model.BasicAck(result.DeliveryTag, false);
        }
        Equal(null, model.BasicGet(queue, false), "emptied queue");
    }

    [Case("reject_requeue")]
    public void RejectRequeue()
    {
        var connection = Connect();
        var model = connection.CreateModel();
        var queue = Queue(model, "q");
        foreach (var body in new[] { "a", "b", "c", "d" })
        {
            Publish(model, "", queue, body);
        }
        Func<string, bool, ulong> get = (body, redelivered) =>
        {
            var result = model.BasicGet(queue, false);
            Equal(body, Text(result.Body), "body");
            Equal(redelivered, result.Redelivered, "redelivered of " + body);
            return result.DeliveryTag;
        };
        model.BasicReject(get("a", false), true);
        get("a", true);
        var b = get("b", false);
        get("c", false);
        // Position, not arrival, decides: b goes back in front of d although c is still out.
        model.BasicReject(b, true);
        get("b", true);
        model.BasicRecover(true);
        var again = new[] { get("a", true), get("b", true), get("c", true), get("d", false) };
        foreach (var tag in again.Take(3))
        {
            model.BasicReject(tag, false);
        }
        model.BasicReject(again[3], true);
        model.Close();
        Equal("d", Drain(connection.CreateModel(), queue), "what is left");
    }

    [Case("returns")]
    public void Returns()
    {
        var model = Model();
        var exchange = Exchange(model, "x", "direct", durable: true);
        var returned = new List<BasicReturnEventArgs>();
        var arrived = new ManualResetEvent(false);
        model.BasicReturn += (_, arguments) =>
        {
            returned.Add(arguments);
            arrived.Set();
        };
        var properties = model.CreateBasicProperties();
        properties.CorrelationId = "c1";
        properties.DeliveryMode = 1;
        properties.Headers = new Hashtable { { "answer", 42 } };
        Publish(model, exchange, "nowhere", "dropped");
        Publish(model, exchange, "nowhere", "\0returned", properties, true);
        Check(arrived.WaitOne(EventMilliseconds), "no basic.return in time");
        var message = returned[0];
        Equal("312 NO_ROUTE", message.ReplyCode + " " + message.ReplyText, "reply");
        Equal(exchange, message.Exchange, "exchange");
        Equal("nowhere", message.RoutingKey, "routing key");
        Equal("\0returned", Text(message.Body), "body");
        Equal("c1", message.BasicProperties.CorrelationId, "correlation-id");
        Equal(1, message.BasicProperties.DeliveryMode, "delivery-mode");
        Equal(Describe(properties.Headers), Describe(message.BasicProperties.Headers), "headers");

        var queue = Queue(model, "q");
        Bind(model, queue, exchange, "somewhere");
        Publish(model, exchange, "somewhere", "routed", null, true);
        Equal("routed", Drain(model, queue), "routed message");
        Equal(1, returned.Count, "returned messages");
    }

    [Case("exclusive_auto_delete")]
    public void ExclusiveAutoDelete()
    {
        var owner = Connect();
        var model = owner.CreateModel();
        var generated = model.QueueDeclare();
        Check(Regex.IsMatch(generated, @"\Aamq\.gen-[A-Za-z0-9_-]{22}\z"), "server-generated name " + generated);
        // An empty name means the last queue declared on this channel.
        Bind(model, "", "amq.fanout", "");
        var named = Queue(model, "exclusive", exclusive: true);

        var other = Connect();
        ClosesModel(405, string.Format(Locked, named), other,
                    m => m.QueueDeclare(named, false, false, true, false, false, null));
        ClosesModel(405, string.Format(Locked, generated), other,
                    m => m.QueueDeclare(generated, true, false, false, false, false, null));
        ClosesModel(405, string.Format(Locked, generated), other, m => Consume(m, generated));
        ClosesModel(405, string.Format(Locked, generated), other, m => m.QueueDelete(generated, false, false, false));
        owner.Close();
        Check(!QueueExists(named), "the exclusive queue outlived its connection");
        Check(!QueueExists(generated), "the server-named queue outlived its connection");

        model = other.CreateModel();
        var queue = Queue(model, "auto", autoDelete: true);
        var consumers = new[] { Consume(model, queue), Consume(model, queue) };
        model.BasicCancel(consumers[0].ConsumerTag);
        Check(QueueExists(queue), "the queue went with its first consumer");
        model.BasicCancel(consumers[1].ConsumerTag);
        Eventually("auto-delete queue gone", () => !QueueExists(queue));

        var exchange = Exchange(model, "x", "direct", autoDelete: true);
        queue = Queue(model, "q");
        Bind(model, queue, exchange, "one");
        Bind(model, queue, exchange, "two");
        model.QueueUnbind(queue, exchange, "one", null);
        Check(ExchangeExists(exchange), "the exchange went with its first binding");
        model.QueueUnbind(queue, exchange, "two", null);
        Eventually("auto-delete exchange gone", () => !ExchangeExists(exchange));
    }

    // Every type the client can write.
    static IDictionary Table()
    {
        return new Hashtable
        {
            { "string", "gr\u00fc\u00dfe" },
            { "empty", "" },
            { "int", int.MinValue },
            { "decimal", -3.14159m },
            { "timestamp", new AmqpTimestamp(1700000000) },
            { "table", new Hashtable { { "nested", new Hashtable { { "deep", 1 } } }, { "none", new Hashtable() } } },
            { "octet", (byte)127 },
            { "short", short.MinValue },
            { "long", long.MinValue },
            { "float", 0.5f },
            { "double", -Math.PI },
            { "true", true },
            { "false", false },
            { "binary", new BinaryTableValue(Enumerable.Range(0, 256).Select(i => (byte)i).ToArray()) },
            { "null", null },
            { "array", new ArrayList { 1, "two", null, new Hashtable { { "key", 3L } }, new ArrayList { "inner" } } }
        };
    }

    static IDictionary TableWith(string key, object value)
    {
        var table = Table();
        table[key] = value;
        return table;
    }

    [Case("tables")]
    public void Tables()
    {
        var model = Model();
        var queue = Queue(model, "q", durable: true);
        var sent = model.CreateBasicProperties();
        sent.ContentType = "application/octet-stream";
        sent.ContentEncoding = "gzip";
        sent.Headers = Table();
        sent.DeliveryMode = 2;
        sent.Priority = 9;
        sent.CorrelationId = "correlation";
        sent.ReplyTo = "reply";
        sent.Expiration = "60000";
        sent.MessageId = "id";
        sent.Timestamp = new AmqpTimestamp(1700000000);
        sent.Type = "type";
        sent.UserId = "guest";
        sent.AppId = "app";
        sent.ClusterId = "cluster";
        Publish(model, "", queue, "body", sent);
        var result = model.BasicGet(queue, true);
        var got = result.BasicProperties;
        Equal("body", Text(result.Body), "body");
        Equal(sent.ContentType, got.ContentType, "content-type");
        Equal(sent.ContentEncoding, got.ContentEncoding, "content-encoding");
        Equal(Describe(sent.Headers), Describe(got.Headers), "headers");
        Equal(sent.DeliveryMode, got.DeliveryMode, "delivery-mode");
        Equal(sent.Priority, got.Priority, "priority");
        Equal(sent.CorrelationId, got.CorrelationId, "correlation-id");
        Equal(sent.ReplyTo, got.ReplyTo, "reply-to");
        Equal(sent.Expiration, got.Expiration, "expiration");
        Equal(sent.MessageId, got.MessageId, "message-id");
        Equal(sent.Timestamp.UnixTime, got.Timestamp.UnixTime, "timestamp");
        Equal(sent.Type, got.Type, "type");
        Equal(sent.UserId, got.UserId, "user-id");
        Equal(sent.AppId, got.AppId, "app-id");
        Equal(sent.ClusterId, got.ClusterId, "cluster-id");

        Publish(model, "", queue, "bare");
        got = model.BasicGet(queue, true).BasicProperties;
        Check(!got.IsHeadersPresent() && !got.IsContentTypePresent() && !got.IsTimestampPresent(),
              "properties nobody set");

        var arguments = TableWith("x-message-ttl", 1800000);
        var typed = Queue(model, "typed", durable: true, arguments: arguments);
        model.QueueDeclare(typed, false, true, false, false, false, arguments);
        ClosesModel(406,
                    "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + typed + "' in vhost '/': " +
                    "received none but current is the value '1800000' of type 'signedint'",
                    Connect(), m => m.QueueDeclare(typed, true));

        // A headers exchange compares values by type, so a match proves that the binding's table came through whole.
        var exchange = Exchange(model, "headers", "headers", arguments: Table());
        var binding = TableWith("x-match", "all");
        Bind(model, typed, exchange, "", binding);
        Action<string, IDictionary> publish = (body, headers) =>
        {
            var properties = model.CreateBasicProperties();
            properties.Headers = headers;
            Publish(model, exchange, "", body, properties);
        };
        publish("same", Table());
        foreach (string key in Table().Keys)
        {
            var changed = TableWith(key, "changed");
            // A void binding value asks for presence only, any other one for equality.
            if (Table()[key] == null)
            {
                changed.Remove(key);
            }
            publish("another-" + key, changed);
        }
        Equal("same", Drain(model, typed), "messages matching the typed binding");
        model.QueueUnbind(typed, exchange, "", new Hashtable { { "x-match", "all" } });
        publish("still-bound", Table());
        model.QueueUnbind(typed, exchange, "", binding);
        publish("unbound", Table());
        Equal("still-bound", Drain(model, typed), "after unbinding");
    }

    [Case("exchanges")]
    public void Exchanges()
    {
        var model = Model();
        var queues = new[] { "a", "b", "star", "hash", "all", "middle", "two", "other" }
            .ToDictionary(label => label, label => Queue(model, "q." + label));
        Action<string, string, string, IDictionary> route = (expected, exchange, key, headers) =>
        {
            var properties = model.CreateBasicProperties();
            if (headers != null)
            {
                properties.Headers = headers;
            }
            Publish(model, exchange, key, "x", properties, expected != "");
            var got = queues.ToDictionary(queue => queue.Key, queue => Drain(model, queue.Value));
            Check(got.Values.All(bodies => bodies == "" || bodies == "x"), "a queue got several copies");
            Equal(expected, string.Join(" ", queues.Keys.Where(label => got[label] != "")),
                  string.Format("queues for '{0}' in {1}", key, exchange));
        };

        var direct = Exchange(model, "direct", ExchangeType.Direct, durable: true);
        Bind(model, queues["a"], direct, "one");
        Bind(model, queues["a"], direct, "two");
        Bind(model, queues["b"], direct, "two");
        route("a", direct, "one", null);
        route("a b", direct, "two", null);
        route("", direct, "three", null);
        model.QueueUnbind(queues["a"], direct, "two", null);
        route("b", direct, "two", null);

        var fanout = Exchange(model, "fanout", ExchangeType.Fanout);
        Bind(model, queues["a"], fanout, "");
        Bind(model, queues["b"], fanout, "ignored");
        route("a b", fanout, "anything", null);

        var topic = Exchange(model, "topic", ExchangeType.Topic);
        Bind(model, queues["star"], topic, "*.orange.*");
        Bind(model, queues["hash"], topic, "lazy.#");
        Bind(model, queues["hash"], topic, "*.*.rabbit");
        Bind(model, queues["all"], topic, "#");
        Bind(model, queues["middle"], topic, "quick.#.fox");
        Bind(model, queues["two"], topic, "*.*");
        route("star hash all", topic, "lazy.orange.rabbit", null);
        route("star all middle", topic, "quick.orange.fox", null);
        route("all middle two", topic, "quick.fox", null);
        route("hash all", topic, "lazy", null);
        route("all", topic, "", null);
        route("all two", topic, ".", null);

        var headersExchange = Exchange(model, "headers", "headers");
        Bind(model, queues["a"], headersExchange, "",
             new Hashtable { { "x-match", "all" }, { "kind", "report" }, { "pages", 3 } });
        Bind(model, queues["b"], headersExchange, "",
             new Hashtable { { "x-match", "any" }, { "kind", "report" }, { "pages", 3 } });
        route("a b", headersExchange, "both",
              new Hashtable { { "kind", "report" }, { "pages", 3 }, { "more", "x" } });
        route("b", headersExchange, "one of two", new Hashtable { { "kind", "report" }, { "pages", 4 } });
        route("", headersExchange, "of another type", new Hashtable { { "pages", "3" } });
        route("", headersExchange, "none", null);

        // Neither 0-8 nor 0-9 has exchange.bind, so exchange-to-exchange bindings are left to other clients.
        var alternate = Exchange(model, "alternate", ExchangeType.Fanout);
        var main = Exchange(model, "main", ExchangeType.Direct,
                            arguments: new Hashtable { { "alternate-exchange", alternate } });
        Bind(model, queues["other"], alternate, "");
        Bind(model, queues["a"], main, "known");
        route("a", main, "known", null);
        route("other", main, "unknown", null);
    }

    [Case("large_message")]
    public void LargeMessage()
    {
        var random = new Random(1);
        foreach (uint frameMax in new[] { 131072u, 8192u })
        {
            var factory = Factory();
            factory.RequestedFrameMax = frameMax;
            var connection = Connect(factory);
            Equal(frameMax, connection.FrameMax, "negotiated frame_max");
            var model = connection.CreateModel();
            var queue = Queue(model, "q" + frameMax, durable: true);
            // Around one and two frames' worth an off-by-one in splitting the body would show.
            int payload = (int)frameMax - 8;
            var sizes = new[] { 10 * 1024 * 1024, 0, payload - 1, payload, payload + 1, 2 * payload };
            var bodies = sizes.Select(size => new byte[size]).ToList();
            bodies.ForEach(random.NextBytes);
            bodies.ForEach(body => model.BasicPublish("", queue, null, body));
            var consumer = Consume(model, queue, noAck: true);
            foreach (var body in bodies)
            {
                Check(Take(consumer).Body.SequenceEqual(body), "a body of " + body.Length + " bytes came back changed");
            }
        }
    }

    [Case("errors")]
    public void Errors()
    {
        var connection = Connect();
        var bystander = connection.CreateModel();
        var queue = Queue(bystander, "q", durable: true);
        var exchange = Exchange(bystander, "x", "direct");
        var missing = Unique("missing");
        var noQueue = "NOT_FOUND - no queue '" + missing + "' in vhost '/'";
        var limit = new Hashtable { { "x-max-length", 10 } };
        var noExchange = "NOT_FOUND - no exchange '" + missing + "' in vhost '/'";

        ClosesModel(404, noQueue, connection, m => m.QueueDeclare(missing, true, false, false, false, false, null));
        ClosesModel(404, noQueue, connection, m => Consume(m, missing));
        ClosesModel(404, noQueue, connection, m => m.BasicGet(missing, true));
        ClosesModel(404, noExchange, connection, m => Bind(m, queue, missing, ""));
        ClosesModel(404, noExchange, connection,
                    m => m.ExchangeDeclare(missing, "direct", true, false, false, false, false, null));
        ClosesModel(404, noExchange, connection, m => Publish(m, missing, "key", "lost"));
        ClosesModel(406,
                    "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue + "' in vhost '/': " +
                    "received 'false' but current is 'true'",
                    connection, m => m.QueueDeclare(queue));
        ClosesModel(406,
                    "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '" + queue + "' in vhost '/': " +
                    "received the value '10' of type 'signedint' but current is none",
                    connection, m => m.QueueDeclare(queue, false, true, false, false, false, limit));
        ClosesModel(406,
                    "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '" + exchange + "' in vhost '/': " +
                    "received 'topic' but current is 'direct'",
                    connection, m => m.ExchangeDeclare(exchange, "topic"));
        ClosesModel(403, "ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'",
                    connection, m => m.QueueDeclare("amq.interop"));
        ClosesModel(406, "PRECONDITION_FAILED - unknown delivery tag 99", connection, m => m.BasicAck(99, false));

        Publish(bystander, "", queue, "still-here");
        Equal("still-here", Drain(bystander, queue), "other channels of the connection");

        // Without the capability to be told, a client that is refused just sees its socket closed.
        Check(Refusal(factory => factory.Password = "wrong") is PossibleAuthenticationFailureException,
              "a wrong password was not taken for one");
        var reason = ((OperationInterruptedException)Refusal(factory => factory.VirtualHost = missing)).ShutdownReason;
        Equal("530 NOT_ALLOWED - vhost " + missing + " not found", reason.ReplyCode + " " + reason.ReplyText,
              "connection.close");
    }

    Exception Refusal(Action<ConnectionFactory> change)
    {
        var factory = Factory();
        change(factory);
        try
        {
            Connect(factory);
        }
        catch (BrokerUnreachableException e)
        {
            return e.ConnectionErrors.Values.Cast<Exception>().Single();
        }
        throw new Failure("the connection was accepted");
    }

    [Case("transactions")]
    public void Transactions()
    {
        var connection = Connect();
        var observer = connection.CreateModel();
        var model = connection.CreateModel();
        var queue = Queue(model, "q", durable: true);
        model.TxSelect();
        for (int i = 0; i < 3; i++)
        {
            Publish(model, "", queue, "m" + i, Persistent(model));
        }
        // Asking on the same channel makes sure that the publishes have reached the broker.
        Equal(null, model.BasicGet(queue, true), "before commit");
        model.TxCommit();
        Equal(3u, Ready(connection, queue), "ready after commit");
        Publish(model, "", queue, "discarded");
        model.TxRollback();
        model.TxCommit();
        Equal(3u, Ready(connection, queue), "ready after rollback");

        model.BasicAck(model.BasicGet(queue, false).DeliveryTag, false);
        model.TxCommit();
        model.BasicAck(model.BasicGet(queue, false).DeliveryTag, false);
        model.TxRollback();
        model.Close();
        Equal("m1 m2", Drain(observer, queue), "messages whose ack was not committed");
        ClosesModel(406, "PRECONDITION_FAILED - channel is not transactional", connection, m => m.TxCommit());
    }

    [Case("reconnect")]
    public void Reconnect()
    {
        var factory = Factory();
        var relay = new Relay(factory.HostName, factory.Port);
        factory.HostName = "127.0.0.1";
        factory.Port = relay.Port;
        var connection = Connect(factory);
        var shutdown = new ManualResetEvent(false);
        connection.ConnectionShutdown += (_, reason) => shutdown.Set();
        var model = connection.CreateModel();
        var queue = Queue(model, "q", durable: true);
        for (int i = 0; i < 5; i++)
        {
            Publish(model, "", queue, "m" + i);
        }
        var consumer = Consume(model, queue);
        model.BasicAck(Take(consumer, 5)[1].DeliveryTag, true);
        // The channel handles its methods in order, so with this answer the acks are past the network.
        Equal(null, model.BasicGet(queue, false), "ready");

        relay.Cut();
        Check(shutdown.WaitOne(EventMilliseconds), "the connection survived its socket");
        connection = Connect();
        model = connection.CreateModel();
        consumer = Consume(model, queue);
        var again = Take(consumer, 3);
        Equal("m2 m3 m4", string.Join(" ", again.Select(delivery => Text(delivery.Body))), "bodies");
        Check(again.All(delivery => delivery.Redelivered), "not marked as redelivered");
        model.BasicAck(again[2].DeliveryTag, true);
        Publish(model, "", queue, "fresh");
        var fresh = Take(consumer);
        Equal("fresh False", Text(fresh.Body) + " " + fresh.Redelivered, "first new message");
        model.BasicAck(fresh.DeliveryTag, false);
        model.Close();
        Equal("", Drain(connection.CreateModel(), queue), "messages left");
    }

    [Case("tutorials")]
    public void Tutorials()
    {
        HelloWorld();
        WorkQueue();
        PublishSubscribe();
        Routing();
        Topics();
        Rpc();
        DirectReplyTo();
    }

    void HelloWorld()
    {
        var receiver = Model();
        var queue = Queue(receiver, "hello");
        var consumer = Consume(receiver, queue, noAck: true);
        Publish(Model(), "", queue, "Hello World!");
        Equal("Hello World!", Text(Take(consumer).Body), "hello");
    }

    void WorkQueue()
    {
        IModel busy = Model(), idle = Model(), sender = Model();
        var queue = Queue(sender, "task_queue", durable: true);
        busy.BasicQos(0, 1, false);
        idle.BasicQos(0, 1, false);
        var busyWorker = Consume(busy, queue);
        var idleWorker = Consume(idle, queue);
        for (int i = 0; i < 4; i++)
        {
            Publish(sender, "", queue, "task " + i, Persistent(sender));
        }
        // Both hold one task each; whoever acks gets the next one, so a busy worker never has a backlog.
        var slow = Take(busyWorker);
        var done = new List<string> { Text(slow.Body) };
        for (int i = 0; i < 3; i++)
        {
            var task = Take(idleWorker);
            done.Add(Text(task.Body));
            idle.BasicAck(task.DeliveryTag, false);
        }
        Equal("task 0, task 1, task 2, task 3", string.Join(", ", done.OrderBy(body => body)), "tasks");
        NothingMore(busy, busyWorker);
        busy.BasicAck(slow.DeliveryTag, false);
        busy.Close();
        idle.Close();
        Equal("", Drain(sender, queue), "tasks left");
    }

    QueueingBasicConsumer Subscriber(string exchange, params string[] keys)
    {
        var model = Model();
        var queue = model.QueueDeclare();
        foreach (var key in keys)
        {
            Bind(model, queue, exchange, key);
        }
        return Consume(model, queue, noAck: true);
    }

    static void Expect(QueueingBasicConsumer consumer, params string[] bodies)
    {
        Equal(string.Join(", ", bodies), string.Join(", ", Take(consumer, bodies.Length).Select(d => Text(d.Body))),
              "deliveries");
        NothingMore(consumer.Model, consumer);
    }

    void PublishSubscribe()
    {
        var sender = Model();
        var logs = Exchange(sender, "logs", ExchangeType.Fanout);
        var subscribers = new[] { Subscriber(logs, ""), Subscriber(logs, "") };
        Publish(sender, logs, "", "info: to everybody");
        foreach (var subscriber in subscribers)
        {
            Expect(subscriber, "info: to everybody");
        }
    }

    void Routing()
    {
        var sender = Model();
        var logs = Exchange(sender, "direct_logs", ExchangeType.Direct);
        var all = Subscriber(logs, "info", "warning", "error");
        var errors = Subscriber(logs, "error");
        foreach (var severity in new[] { "info", "error", "warning", "debug" })
        {
            Publish(sender, logs, severity, "a " + severity);
        }
        Expect(all, "a info", "a error", "a warning");
        Expect(errors, "a error");
    }

    void Topics()
    {
        var sender = Model();
        var logs = Exchange(sender, "topic_logs", ExchangeType.Topic);
        var kern = Subscriber(logs, "kern.*");
        var critical = Subscriber(logs, "*.critical");
        foreach (var key in new[] { "kern.info", "cron.critical", "kern.critical", "cron.info" })
        {
            Publish(sender, logs, key, key);
        }
        Expect(kern, "kern.info", "kern.critical");
        Expect(critical, "cron.critical", "kern.critical");
    }

    static int Fibonacci(int n)
    {
        return n < 2 ? n : Fibonacci(n - 1) + Fibonacci(n - 2);
    }

    class FibonacciServer : SimpleRpcServer
    {
        public FibonacciServer(Subscription subscription) : base(subscription) { }

        public override byte[] HandleSimpleCall(bool isRedelivered, IBasicProperties requestProperties, byte[] body,
                                                out IBasicProperties replyProperties)
        {
            replyProperties = null;
            return Encoding.UTF8.GetBytes(Fibonacci(int.Parse(Text(body))).ToString());
        }
    }

    // Subscription, SimpleRpcServer and SimpleRpcClient are the client's own versions of these patterns.
    void Rpc()
    {
        var model = Model();
        var queue = Queue(model, "rpc_queue");
        var server = new FibonacciServer(new Subscription(model, queue));
        var loop = new Task(server.MainLoop, TaskCreationOptions.LongRunning);
        loop.Start();
        var client = new SimpleRpcClient(Model(), queue) { TimeoutMilliseconds = EventMilliseconds };
        Equal("55", Text(client.Call(Encoding.UTF8.GetBytes("10"))), "RPC");
        Equal("13", Text(client.Call(Encoding.UTF8.GetBytes("7"))), "RPC");
        client.Close();
        server.Close();
        Check(loop.Wait(EventMilliseconds), "the RPC server did not stop");
    }

    void DirectReplyTo()
    {
        const string replyTo = "amq.rabbitmq.reply-to";
        IModel server = Model(), client = Model();
        var queue = Queue(server, "direct_rpc_queue");
        var requests = Consume(server, queue);
        var replies = Consume(client, replyTo, noAck: true);
        foreach (var n in new[] { 10, 7 })
        {
            var properties = client.CreateBasicProperties();
            properties.ReplyTo = replyTo;
            properties.CorrelationId = "call " + n;
            Publish(client, "", queue, n.ToString(), properties);

            var request = Take(requests);
            var answer = server.CreateBasicProperties();
            answer.CorrelationId = request.BasicProperties.CorrelationId;
            Check(request.BasicProperties.ReplyTo.StartsWith(replyTo + "."), "reply-to was not rewritten");
            Publish(server, "", request.BasicProperties.ReplyTo, Fibonacci(n).ToString(), answer);
            server.BasicAck(request.DeliveryTag, false);

            var reply = Take(replies);
            Equal(Fibonacci(n) + " call " + n, Text(reply.Body) + " " + reply.BasicProperties.CorrelationId, "reply");
        }
    }
}
