<?php

declare(strict_types=1);

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPAbstractCollection;
use PhpAmqpLib\Wire\AMQPDecimal;
use PhpAmqpLib\Wire\AMQPTable;

class Failure extends Exception
{
}

/** What the protocol or php-amqplib has no way to express. */
class NotApplicable extends Exception
{
}

/** Runs the public methods of its subclass as cases, each with its own connections and broker objects. */
abstract class Harness
{
    protected const TIMEOUT = 5;

    private string $prefix;
    private array $names = [];
    private array $connections = [];

    final public function __construct(
        private string $host,
        private int $port,
        protected bool $amqp08,
        string $case
    ) {
        $this->prefix = sprintf('interop.php.%s.%s', bin2hex(random_bytes(4)), $case);
    }

    final public static function runAll(string $host, int $port, bool $amqp08): void
    {
        foreach ((new ReflectionClass(static::class))->getMethods(ReflectionMethod::IS_PUBLIC) as $method) {
            if ($method->class === static::class) {
                $label = ($amqp08 ? '0-8/' : '') . $method->name;
                echo (new static($host, $port, $amqp08, $method->name))->runCase($method->name, $label), "\n";
            }
        }
    }

    private function runCase(string $case, string $label): string
    {
        try {
            $this->$case();
            return "ok $label";
        } catch (NotApplicable $e) {
            return "n/a $label: {$e->getMessage()}";
        } catch (Throwable $e) {
            fwrite(STDERR, "$label: $e\n");
            return sprintf('FAIL %s: %s: %s', $label, get_class($e), strtok($e->getMessage(), "\n"));
        } finally {
            $this->cleanUp();
        }
    }

    private function cleanUp(): void
    {
        try {
            foreach ($this->connections as $connection) {
                $connection->close();
            }
            $connection = $this->connect();
            $channel = $connection->channel();
            foreach ($this->names as $name) {
                $channel->queue_delete($name);
                $channel->exchange_delete($name);
            }
            $connection->close();
        } catch (Throwable $e) {
            fwrite(STDERR, "cleaning up after $this->prefix: $e\n");
        }
    }

    final protected function connect(string $password = 'guest', string $vhost = '/'): AMQPStreamConnection
    {
        return $this->connections[] = new AMQPStreamConnection(
            $this->host,
            $this->port,
            'guest',
            $password,
            $vhost,
            connection_timeout: self::TIMEOUT,
            read_write_timeout: self::TIMEOUT,
            channel_rpc_timeout: self::TIMEOUT
        );
    }

    final protected function channel(): AMQPChannel
    {
        return $this->connect()->channel();
    }

    /** A name no other run uses; whatever is declared under it is deleted after the case. */
    final protected function unique(string $suffix): string
    {
        return $this->names[] = "$this->prefix.$suffix";
    }

    final protected function queue(
        AMQPChannel $channel,
        string $suffix,
        bool $durable = false,
        bool $autoDelete = false,
        array|AMQPTable $arguments = []
    ): string {
        $name = $this->unique($suffix);
        $channel->queue_declare($name, false, $durable, false, $autoDelete, false, $arguments);
        return $name;
    }

    final protected function exclusiveQueue(AMQPChannel $channel): string
    {
        return $channel->queue_declare('', false, false, true, false)[0];
    }

    final protected function exchange(
        AMQPChannel $channel,
        string $suffix,
        string $type,
        bool $durable = false,
        bool $autoDelete = false,
        array|AMQPTable $arguments = []
    ): string {
        $name = $this->unique($suffix);
        $channel->exchange_declare($name, $type, false, $durable, $autoDelete, false, false, $arguments);
        return $name;
    }

    final protected function publish(
        AMQPChannel $channel,
        string $exchange,
        string $key,
        string $body,
        array $properties = [],
        bool $mandatory = false
    ): void {
        $channel->basic_publish(new AMQPMessage($body, $properties), $exchange, $key, $mandatory);
    }

    final protected function ready(AMQPChannel $channel, string $queue): int
    {
        return $channel->queue_declare($queue, true)[1];
    }

    final protected function consume(AMQPChannel $channel, string $queue, Inbox $inbox, bool $noAck = false): string
    {
        return $channel->basic_consume($queue, '', false, $noAck, false, false, $inbox);
    }

    /** Waits until so many messages, or other events, have come in on the channel. */
    final protected function take(AMQPChannel $channel, Inbox $inbox, int $count): array
    {
        while (count($inbox->items) < $count) {
            $channel->wait(null, false, self::TIMEOUT);
        }
        return array_splice($inbox->items, 0, $count);
    }

    /** The channel only hands out what has arrived when asked to. */
    final protected function nothingMore(AMQPChannel $channel, Inbox $inbox, string $what): void
    {
        while ($channel->hasPendingMethods()) {
            $channel->wait(null, true);
        }
        $this->equal([], $this->bodies($inbox->items), $what);
    }

    /** Everything that is ready in the queue, taken with basic.get. */
    final protected function drain(AMQPChannel $channel, string $queue): array
    {
        $bodies = [];
        while ($message = $channel->basic_get($queue, true)) {
            $bodies[] = $message->getBody();
        }
        return $bodies;
    }

    final protected function bodies(array $messages): array
    {
        return array_map(fn ($message) => $message->getBody(), $messages);
    }

    final protected function redelivered(array $messages): array
    {
        return array_map(fn ($message) => $message->isRedelivered(), $messages);
    }

    final protected function equal(mixed $expected, mixed $actual, string $what): void
    {
        if ($expected !== $actual) {
            throw new Failure("$what: expected {$this->shorten($expected)}, got {$this->shorten($actual)}");
        }
    }

    final protected function check(bool $condition, string $what): void
    {
        if (!$condition) {
            throw new Failure($what);
        }
    }

    /** The operation must make the broker close the channel, and only the channel. */
    final protected function closesChannel(int $code, string $text, AMQPChannel $channel, callable $operation): void
    {
        $connection = $channel->getConnection();
        try {
            $operation($channel);
        } catch (AMQPProtocolChannelException $e) {
            // A reply text that does not fit into a short string is cut.
            $text = strlen($text) > 255 ? substr($text, 0, 252) . '...' : $text;
            $this->equal([$code, $text], [$e->getCode(), $e->getMessage()], 'channel.close');
            $this->check(!$channel->is_open(), "the channel is still open after $text");
            $this->check($connection->isConnected(), "the connection closed after $text");
            return;
        }
        throw new Failure("no error, expected $code $text");
    }

    final protected function exists(string $queueOrExchange, bool $exchange = false): bool
    {
        $channel = $this->channel();
        try {
            $exchange
                ? $channel->exchange_declare($queueOrExchange, '', true)
                : $channel->queue_declare($queueOrExchange, true);
            return true;
        } catch (AMQPProtocolChannelException $e) {
            $this->equal(404, $e->getCode(), $e->getMessage());
            return false;
        } finally {
            array_pop($this->connections)->close();
        }
    }

    final protected function eventually(string $what, callable $condition): void
    {
        $deadline = microtime(true) + self::TIMEOUT;
        while (!$condition()) {
            if (microtime(true) > $deadline) {
                throw new AMQPTimeoutException("not in time: $what");
            }
            usleep(20000);
        }
    }

    /** The table with its types, in a form that === compares. */
    final protected function describe(mixed $value): mixed
    {
        if ($value instanceof AMQPAbstractCollection) {
            $described = [];
            foreach ($value as $key => [$type, $element]) {
                $described[$key] = [$type, $this->describe($element)];
            }
            return $described;
        }
        if ($value instanceof AMQPDecimal) {
            return [$value->getN(), $value->getE()];
        }
        // Booleans are written as such but read as octets.
        return is_bool($value) ? (int) $value : $value;
    }

    private function shorten(mixed $value): string
    {
        $text = json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR);
        return strlen($text) > 300 ? sprintf('%s... (%d characters)', substr($text, 0, 300), strlen($text)) : $text;
    }
}

/** Collects what a callback is called with. */
class Inbox
{
    public array $items = [];

    public function __invoke(mixed ...$arguments): void
    {
        $this->items[] = count($arguments) === 1 ? $arguments[0] : $arguments;
    }
}
