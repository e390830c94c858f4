using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Reflection;
using System.Text;
using System.Threading;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

class Failure : Exception
{
    public Failure(string message) : base(message) { }
}

/// <summary>What this client's own interface cannot express.</summary>
class NotApplicable : Exception
{
    public NotApplicable(string message) : base(message) { }
}

/// <summary>Marks the methods that are cases.</summary>
[AttributeUsage(AttributeTargets.Method)]
class CaseAttribute : Attribute
{
    public readonly string Name;
    public CaseAttribute(string name) { Name = name; }
}

/// <summary>Runs the cases one by one, each with its own connections and broker objects.</summary>
abstract class Harness
{
    // A broker that never answers must not hold up the run for long.
    const int RunSeconds = 50;
    const int CaseSeconds = 15;
    protected const int EventMilliseconds = 5000;

    static readonly Random random = new Random();

    string host;
    int port;
    IProtocol protocol;
    string prefix;
    readonly List<string> names = new List<string>();
    readonly List<IConnection> connections = new List<IConnection>();

    public static int RunAll<T>(string host, int port, IDictionary<string, IProtocol> protocols)
        where T : Harness, new()
    {
        int passed = 0, failed = 0;
        var deadline = DateTime.UtcNow.AddSeconds(RunSeconds);
        foreach (var protocol in protocols)
        {
            foreach (var method in typeof(T).GetMethods().OrderBy(method => method.MetadataToken))
            {
                var test = (CaseAttribute)Attribute.GetCustomAttribute(method, typeof(CaseAttribute));
                if (test == null)
                {
                    continue;
                }
                var label = protocol.Key + "/" + test.Name;
                var harness = new T
                {
                    host = host,
                    port = port,
                    protocol = protocol.Value,
                    prefix = string.Format("interop.dotnet.{0:x8}.{1}", random.Next(), test.Name)
                };
                var error = harness.Run(method, deadline);
                if (error is NotApplicable)
                {
                    Console.WriteLine("n/a {0}: {1}", label, error.Message);
                }
                else if (error == null)
                {
                    passed++;
                    Console.WriteLine("ok {0}", label);
                }
                else
                {
                    failed++;
                    Console.Error.WriteLine(error);
                    Console.WriteLine("FAIL {0}: {1}: {2}", label, error.GetType().Name, error.Message.Split('\n')[0]);
                }
            }
        }
        Console.WriteLine("{0} passed, {1} failed", passed, failed);
        return failed == 0 ? 0 : 1;
    }

    // The client waits for answers without a limit, so the case gets a thread that can be given up on.
    Exception Run(MethodInfo method, DateTime deadline)
    {
        Exception error = null;
        var thread = new Thread(() =>
        {
            try
            {
                method.Invoke(this, null);
            }
            catch (TargetInvocationException e)
            {
                error = e.InnerException;
            }
            CleanUp();
        }) { IsBackground = true };
        var limit = new[] { deadline - DateTime.UtcNow, TimeSpan.FromSeconds(CaseSeconds) }.Min();
        if (limit <= TimeSpan.Zero)
        {
            return new Failure("no time left to run it");
        }
        thread.Start();
        if (thread.Join(limit))
        {
            return error;
        }
        return error ?? new Failure("did not end in time");
    }

    void CleanUp()
    {
        try
        {
            connections.ForEach(connection => connection.Abort(EventMilliseconds));
            using (var connection = Factory().CreateConnection())
            {
                var model = connection.CreateModel();
                foreach (var name in names)
                {
                    model.QueueDelete(name, false, false, false);
                    model.ExchangeDelete(name, false, false);
                }
            }
        }
        catch (Exception e)
        {
            Console.Error.WriteLine("cleaning up after {0}: {1}", prefix, e);
        }
    }

    protected ConnectionFactory Factory()
    {
        return new ConnectionFactory { HostName = host, Port = port, Protocol = protocol };
    }

    protected IConnection Connect(ConnectionFactory factory = null)
    {
        var connection = (factory ?? Factory()).CreateConnection();
        connections.Add(connection);
        return connection;
    }

    protected IModel Model()
    {
        return Connect().CreateModel();
    }

    /// <summary>A name no other run uses; whatever is declared under it is deleted after the case.</summary>
    protected string Unique(string suffix)
    {
        names.Add(prefix + "." + suffix);
        return names.Last();
    }

    protected string Queue(IModel model, string suffix, bool durable = false, bool exclusive = false,
                           bool autoDelete = false, IDictionary arguments = null)
    {
        return model.QueueDeclare(Unique(suffix), false, durable, exclusive, autoDelete, false, arguments);
    }

    protected string Exchange(IModel model, string suffix, string type, bool durable = false, bool autoDelete = false,
                              IDictionary arguments = null)
    {
        var name = Unique(suffix);
        model.ExchangeDeclare(name, type, false, durable, autoDelete, false, false, arguments);
        return name;
    }

    protected static void Bind(IModel model, string queue, string exchange, string key, IDictionary arguments = null)
    {
        model.QueueBind(queue, exchange, key, false, arguments);
    }

    protected static void Publish(IModel model, string exchange, string key, string body,
                                  IBasicProperties properties = null, bool mandatory = false)
    {
        model.BasicPublish(exchange, key, mandatory, false, properties, Encoding.UTF8.GetBytes(body));
    }

    protected static IBasicProperties Persistent(IModel model)
    {
        var properties = model.CreateBasicProperties();
        properties.DeliveryMode = 2;
        return properties;
    }

    protected static QueueingBasicConsumer Consume(IModel model, string queue, bool noAck = false)
    {
        var consumer = new QueueingBasicConsumer(model);
        model.BasicConsume(queue, noAck, null, consumer);
        return consumer;
    }

    protected static BasicDeliverEventArgs Take(QueueingBasicConsumer consumer)
    {
        object delivery;
        if (!consumer.Queue.Dequeue(EventMilliseconds, out delivery))
        {
            throw new Failure("no delivery in time");
        }
        return (BasicDeliverEventArgs)delivery;
    }

    protected static List<BasicDeliverEventArgs> Take(QueueingBasicConsumer consumer, int count)
    {
        return Enumerable.Range(0, count).Select(_ => Take(consumer)).ToList();
    }

    protected static void NothingMore(IModel model, QueueingBasicConsumer consumer)
    {
        // Whatever was sent before this answer has been put into the queue by then.
        model.QueueDelete(model.QueueDeclare(), false, false, false);
        var extra = (BasicDeliverEventArgs)consumer.Queue.DequeueNoWait(null);
        Equal(null, extra == null ? null : Text(extra.Body), "one delivery too many");
    }

    /// <summary>The bodies of all that is ready in the queue, taken with basic.get and joined with spaces.</summary>
    protected static string Drain(IModel model, string queue)
    {
        var bodies = new List<string>();
        for (BasicGetResult result; (result = model.BasicGet(queue, true)) != null;)
        {
            bodies.Add(Text(result.Body));
        }
        return string.Join(" ", bodies);
    }

    /// <summary>The number of ready messages. QueueDeclare keeps the counts to itself, so this peeks.</summary>
    protected static uint Ready(IConnection connection, string queue)
    {
        var model = connection.CreateModel();
        var first = model.BasicGet(queue, false);
        model.Close();
        return first == null ? 0 : first.MessageCount + 1;
    }

    protected bool Exists(Action<IModel> passiveDeclare)
    {
        using (var connection = Factory().CreateConnection())
        {
            try
            {
                passiveDeclare(connection.CreateModel());
                return true;
            }
            catch (OperationInterruptedException e)
            {
                Equal(404, e.ShutdownReason.ReplyCode, e.Message);
                return false;
            }
        }
    }

    protected bool QueueExists(string queue)
    {
        return Exists(model => model.QueueDeclare(queue, true, false, false, false, false, null));
    }

    protected bool ExchangeExists(string exchange)
    {
        return Exists(model => model.ExchangeDeclare(exchange, "direct", true, false, false, false, false, null));
    }

    protected static void Eventually(string what, Func<bool> condition)
    {
        var deadline = DateTime.UtcNow.AddMilliseconds(EventMilliseconds);
        while (!condition())
        {
            Check(DateTime.UtcNow < deadline, "not in time: " + what);
            Thread.Sleep(20);
        }
    }

    /// <summary>The operation must make the broker close the channel, and only the channel.</summary>
    protected static void ClosesModel(int code, string text, IConnection connection, Action<IModel> operation)
    {
        var model = connection.CreateModel();
        var closed = new ManualResetEvent(false);
        model.ModelShutdown += (_, reason) => closed.Set();
        try
        {
            operation(model);
        }
        catch (OperationInterruptedException)
        {
            // The reason is looked at below, as it is for methods without an answer.
        }
        Check(closed.WaitOne(EventMilliseconds), "the channel stayed open instead of " + text);
        // A reply text that does not fit into a short string is cut.
        Equal(code + " " + (text.Length > 255 ? text.Substring(0, 252) + "..." : text),
              model.CloseReason.ReplyCode + " " + model.CloseReason.ReplyText, "channel.close");
        Check(connection.IsOpen, "the connection closed after " + text);
    }

    protected static string Text(byte[] body)
    {
        return Encoding.UTF8.GetString(body);
    }

    protected static void Check(bool condition, string what)
    {
        if (!condition)
        {
            throw new Failure(what);
        }
    }

    protected static void Equal<T>(T expected, T actual, string what)
    {
        if (!EqualityComparer<T>.Default.Equals(expected, actual))
        {
            throw new Failure(string.Format("{0}: expected {1}, got {2}", what, expected, actual));
        }
    }

    /// <summary>A table value with its types as text; strings are written from string but read as byte[].</summary>
    protected static string Describe(object value)
    {
        if (value is string)
        {
            value = Encoding.UTF8.GetBytes((string)value);
        }
        if (value == null)
        {
            return "null";
        }
        if (value is byte[])
        {
            return "string " + BitConverter.ToString((byte[])value);
        }
        if (value is BinaryTableValue)
        {
            return "binary " + BitConverter.ToString(((BinaryTableValue)value).Bytes);
        }
        if (value is IDictionary)
        {
            var entries = ((IDictionary)value).Cast<DictionaryEntry>()
                .Select(entry => entry.Key + "=" + Describe(entry.Value))
                .OrderBy(entry => entry, StringComparer.Ordinal);
            return "{" + string.Join(", ", entries) + "}";
        }
        if (value is IList)
        {
            return "[" + string.Join(", ", ((IList)value).Cast<object>().Select(Describe)) + "]";
        }
        // Only the round-trip format shows every bit of a floating-point number.
        var format = value is float || value is double ? "r" : null;
        var text = value is IFormattable
            ? ((IFormattable)value).ToString(format, CultureInfo.InvariantCulture)
            : value.ToString();
        return value.GetType().Name + " " + text;
    }
}
