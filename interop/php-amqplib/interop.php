<?php

declare(strict_types=1);

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Exception\AMQPConnectionClosedException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPArray;
use PhpAmqpLib\Wire\AMQPDecimal;
use PhpAmqpLib\Wire\AMQPTable;
use PhpAmqpLib\Wire\Constants080;

require_once 'PhpAmqpLib/autoload.php';
require_once __DIR__ . '/harness.php';

class Interop extends Harness
{
    private const PERSISTENT = ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT];

    public function publish_confirms(): void
    {
        $this->needs091('AMQP 0-8 has no publisher confirms');
        $channel = $this->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        $acked = new Inbox();
        $nacked = new Inbox();
        $channel->set_ack_handler($acked);
        $channel->set_nack_handler($nacked);
        $channel->confirm_select();
        $sent = array_map(fn ($i) => "message $i", range(1, 120));
        foreach ($sent as $body) {
            $this->publish($channel, '', $queue, $body, self::PERSISTENT);
        }
        $channel->wait_for_pending_acks(self::TIMEOUT);
        $confirmed = $this->bodies($acked->items);
        // Several queue processes may confirm, so the order is not given.
        sort($confirmed);
        sort($sent);
        $this->equal($sent, $confirmed, 'acked');
        $this->equal([], $nacked->items, 'nacked');
        $this->equal(120, $this->ready($channel, $queue), 'messages in the queue');

        // The return has to come before the confirm, or a publisher would take the message for routed.
        $events = [];
        $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$events) {
            $events[] = "return $code {$message->getBody()}";
        });
        $channel->set_ack_handler(function ($message) use (&$events) {
            $events[] = "ack {$message->getDeliveryTag()}";
        });
        $this->publish($channel, '', $this->unique('missing'), 'nowhere', mandatory: true);
        $channel->wait_for_pending_acks_returns(self::TIMEOUT);
        $this->equal(['return 312 nowhere', 'ack 121'], $events, 'events');
    }

    public function consume_acks(): void
    {
        $connection = $this->connect();
        $channel = $connection->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        foreach (range(0, 9) as $i) {
            $this->publish($channel, '', $queue, "m$i", ['delivery_mode' => 1 + $i % 2]);
        }
        $inbox = new Inbox();
        $this->consume($channel, $queue, $inbox);
        $first = $this->take($channel, $inbox, 10);
        $this->equal(array_map(fn ($i) => "m$i", range(0, 9)), $this->bodies($first), 'bodies');
        $this->equal(range(1, 10), array_map(fn ($message) => $message->getDeliveryTag(), $first), 'delivery tags');
        $this->equal([false], array_unique($this->redelivered($first)), 'redelivered');
        $first[4]->ack(true);
        $first[6]->ack();
        $channel->close();

        $channel = $connection->channel();
        $this->equal(4, $this->ready($channel, $queue), 'messages returned by the closed channel');
        $this->consume($channel, $queue, $inbox);
        $second = $this->take($channel, $inbox, 4);
        $this->equal(['m5', 'm7', 'm8', 'm9'], $this->bodies($second), 'bodies after the channel closed');
        $this->equal([true], array_unique($this->redelivered($second)), 'redelivered');
        $channel->basic_ack(0, true);
        $channel->close();
        $this->equal(0, $this->ready($connection->channel(), $queue), 'messages left');
    }

    public function prefetch(): void
    {
        $connection = $this->connect();
        $channel = $connection->channel();
        [$queue, $other] = [$this->queue($channel, 'q'), $this->queue($channel, 'other')];
        foreach (range(0, 9) as $i) {
            $this->publish($channel, '', $queue, "$i");
            $this->publish($channel, '', $other, "other $i");
        }
        $inbox = new Inbox();
        $channel->basic_qos(0, 3, false);
        $this->consume($channel, $queue, $inbox);
        $taken = $this->take($channel, $inbox, 3);
        $this->equal(7, $this->ready($channel, $queue), 'ready while three are unacked');
        $taken[0]->ack();
        $taken = array_merge($taken, $this->take($channel, $inbox, 1));
        $this->equal(6, $this->ready($channel, $queue), 'ready after an ack');
        $taken[3]->ack(true);
        $this->equal(['4', '5', '6'], $this->bodies($this->take($channel, $inbox, 3)), 'after acking all three');
        $this->equal(3, $this->ready($channel, $queue), 'ready after acking all three');
        $this->nothingMore($channel, $inbox, 'more deliveries than the prefetch count allows');

        // Without global, each consumer of the channel has the limit to itself.
        $this->consume($channel, $other, $inbox);
        $this->equal(
            ['other 0', 'other 1', 'other 2'],
            $this->bodies($this->take($channel, $inbox, 3)),
            'second consumer'
        );
        $this->equal(7, $this->ready($channel, $other), 'ready for the second consumer');

        $shared = $connection->channel();
        $shared->basic_qos(0, 4, true);
        $queues = [$this->queue($shared, 'shared0'), $this->queue($shared, 'shared1')];
        foreach ($queues as $queue) {
            foreach (range(0, 4) as $i) {
                $this->publish($shared, '', $queue, "$i");
            }
        }
        $inbox = new Inbox();
        foreach ($queues as $queue) {
            $this->consume($shared, $queue, $inbox);
        }
        $left = fn () => array_sum(array_map(fn ($queue) => $this->ready($shared, $queue), $queues));
        $deliveries = $this->take($shared, $inbox, 4);
        $this->equal(6, $left(), "ready while the channel's limit is used up");
        $deliveries[0]->ack();
        $this->take($shared, $inbox, 1);
        $this->equal(5, $left(), 'ready after an ack');
        $this->nothingMore($shared, $inbox, "more deliveries than the channel's limit allows");
    }

    public function get(): void
    {
        $channel = $this->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        $this->equal(null, $channel->basic_get($queue), 'empty queue');
        foreach (range(0, 2) as $i) {
            $this->publish($channel, '', $queue, "m$i", ['message_id' => "id$i"]);
        }
        foreach (range(0, 2) as $i) {
            $message = $channel->basic_get($queue);
            $this->equal(["m$i", "id$i"], [$message->getBody(), $message->get('message_id')], 'message');
            $this->equal(2 - $i, $message->getMessageCount(), 'remaining');
            $this->equal(
                ['', $queue, false, $i + 1],
                [
                    $message->getExchange(),
                    $message->getRoutingKey(),
                    $message->isRedelivered(),
                    $message->getDeliveryTag(),
                ],
                'envelope'
            );
            $message->ack();
        }
        $this->equal(null, $channel->basic_get($queue), 'emptied queue');
    }

    public function reject_requeue(): void
    {
        $connection = $this->connect();
        $channel = $connection->channel();
        $queue = $this->queue($channel, 'q');
        foreach (['a', 'b', 'c', 'd'] as $body) {
            $this->publish($channel, '', $queue, $body);
        }
        $get = fn () => $channel->basic_get($queue);

        $get()->reject(true);
        $a = $get();
        $this->equal(['a', true], [$a->getBody(), $a->isRedelivered()], 'after reject with requeue');
        $b = $get();
        $this->equal(['b', false], [$b->getBody(), $b->isRedelivered()], 'next message');
        $c = $get();
        // Position, not arrival, decides: b goes back in front of d although c is still out.
        $this->amqp08 ? $b->reject(true) : $b->nack(true);
        $b = $get();
        $this->equal(['b', true], [$b->getBody(), $b->isRedelivered()], 'after requeueing');
        $this->amqp08 ? $channel->basic_recover(true) : $b->nack(true, true);
        $again = [$get(), $get(), $get(), $get()];
        $this->equal(['a', 'b', 'c', 'd'], $this->bodies($again), 'order after requeueing all');
        $this->equal([true, true, true, false], $this->redelivered($again), 'redelivered after requeueing all');
        $again[0]->reject(false);
        if ($this->amqp08) {
            $again[1]->reject(false);
            $again[2]->reject(false);
            $again[3]->reject(true);
        } else {
            $again[2]->nack(false, true);
            $again[3]->nack(true);
        }
        $channel->close();
        $this->equal(['d'], $this->drain($connection->channel(), $queue), 'what is left');
    }

    public function returns(): void
    {
        $channel = $this->channel();
        $exchange = $this->exchange($channel, 'x', 'direct', durable: true);
        $returned = new Inbox();
        $channel->set_return_listener($returned);
        $properties = [
            'correlation_id' => 'c1',
            'delivery_mode' => 1,
            'application_headers' => new AMQPTable(['answer' => 42]),
        ];
        $this->publish($channel, $exchange, 'nowhere', 'dropped');
        $this->publish($channel, $exchange, 'nowhere', "\x00returned\xff", $properties, mandatory: true);
        [[$code, $text, $from, $key, $message]] = $this->take($channel, $returned, 1);
        $this->equal([312, 'NO_ROUTE', $exchange, 'nowhere'], [$code, $text, $from, $key], 'basic.return');
        $this->equal("\x00returned\xff", $message->getBody(), 'body');
        $this->equal(['c1', 1], [$message->get('correlation_id'), $message->get('delivery_mode')], 'properties');
        $this->equal(['answer' => 42], $message->get('application_headers')->getNativeData(), 'headers');

        $queue = $this->queue($channel, 'q');
        $channel->queue_bind($queue, $exchange, 'somewhere');
        $this->publish($channel, $exchange, 'somewhere', 'routed', mandatory: true);
        $this->equal(['routed'], $this->drain($channel, $queue), 'routed message');
        $this->nothingMore($channel, $returned, 'a routed or non-mandatory message was returned');
    }

    public function exclusive_auto_delete(): void
    {
        $owner = $this->connect();
        $channel = $owner->channel();
        $generated = $this->exclusiveQueue($channel);
        $this->check(preg_match('/^amq\.gen-[A-Za-z0-9_-]{22}$/D', $generated) === 1, "generated name $generated");
        // An empty name means the last queue declared on this channel.
        $channel->queue_bind('', 'amq.fanout');
        $named = $this->unique('exclusive');
        $channel->queue_declare($named, false, false, true, false);

        $other = $this->connect();
        $locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It could be " .
            'originally declared on another connection or the exclusive property value does not match that of the ' .
            'original declaration.';
        $attempts = [
            [$named, fn ($channel) => $channel->queue_declare($named, false, false, true, false)],
            [$generated, fn ($channel) => $channel->queue_declare($generated, true)],
            [$generated, fn ($channel) => $channel->basic_consume($generated)],
            [$generated, fn ($channel) => $channel->queue_delete($generated)],
        ];
        foreach ($attempts as [$queue, $attempt]) {
            $this->closesChannel(405, sprintf($locked, $queue), $other->channel(), $attempt);
        }
        $owner->close();
        foreach ([$named, $generated] as $queue) {
            $this->check(!$this->exists($queue), "$queue outlived its connection");
        }

        $channel = $other->channel();
        $queue = $this->queue($channel, 'auto', autoDelete: true);
        $consumers = [$this->consume($channel, $queue, new Inbox()), $this->consume($channel, $queue, new Inbox())];
        $channel->basic_cancel($consumers[0]);
        $this->equal([$queue, 0, 1], $channel->queue_declare($queue, true), 'after the first consumer left');
        $channel->basic_cancel($consumers[1]);
        $this->eventually('auto-delete queue gone', fn () => !$this->exists($queue));

        $exchange = $this->exchange($channel, 'x', 'direct', autoDelete: true);
        $queue = $this->queue($channel, 'q');
        $channel->queue_bind($queue, $exchange, 'one');
        $channel->queue_bind($queue, $exchange, 'two');
        $channel->queue_unbind($queue, $exchange, 'one');
        $this->check($this->exists($exchange, true), 'the exchange went with its first binding');
        $channel->queue_unbind($queue, $exchange, 'two');
        $this->eventually('auto-delete exchange gone', fn () => !$this->exists($exchange, true));
    }

    public function tables(): void
    {
        $channel = $this->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        $headers = $this->table();
        $properties = [
            'content_type' => 'application/octet-stream',
            'content_encoding' => 'gzip',
            'application_headers' => $headers,
            'delivery_mode' => 2,
            'priority' => 9,
            'correlation_id' => 'correlation',
            'reply_to' => 'reply',
            'expiration' => '60000',
            'message_id' => 'id',
            'timestamp' => 1700000000,
            'type' => 'type',
            'user_id' => 'guest',
            'app_id' => 'app',
            'cluster_id' => 'cluster',
        ];
        $this->publish($channel, '', $queue, 'body', $properties);
        $message = $channel->basic_get($queue, true);
        $got = $message->get_properties();
        $this->equal('body', $message->getBody(), 'body');
        $this->equal($this->describe($headers), $this->describe($got['application_headers']), 'headers');
        unset($properties['application_headers'], $got['application_headers']);
        $this->equal($properties, $got, 'properties');

        $arguments = $this->table();
        $arguments->set('x-message-ttl', 1800000);
        $typed = $this->queue($channel, 'typed', durable: true, arguments: $arguments);
        $channel->queue_declare($typed, false, true, false, false, false, $arguments);
        $this->closesChannel(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '$typed' in vhost '/': " .
            "received none but current is the value '1800000' of type 'signedint'",
            $this->channel(),
            fn ($channel) => $channel->queue_declare($typed, false, true, false, false)
        );

        // A headers exchange compares values by type, so a match proves that the binding's table came through whole.
        $exchange = $this->exchange($channel, 'headers', 'headers', arguments: $this->table());
        $binding = $this->table();
        $binding->set('x-match', 'all');
        $channel->queue_bind($typed, $exchange, '', false, $binding);
        $this->publish($channel, $exchange, '', 'same', ['application_headers' => $this->table()]);
        foreach ($this->table() as $key => [$type, $value]) {
            $changed = $this->table();
            // A void binding value asks for presence only, any other one for equality.
            if ($type === AMQPTable::T_VOID) {
                unset($changed[$key]);
            } else {
                $changed->set($key, 'changed');
            }
            $this->publish($channel, $exchange, '', "another $key", ['application_headers' => $changed]);
        }
        $this->equal(['same'], $this->drain($channel, $typed), 'messages matching the typed binding');
        $channel->queue_unbind($typed, $exchange, '', new AMQPTable(['x-match' => 'all']));
        $this->publish($channel, $exchange, '', 'still bound', ['application_headers' => $this->table()]);
        $channel->queue_unbind($typed, $exchange, '', $binding);
        $this->publish($channel, $exchange, '', 'unbound', ['application_headers' => $this->table()]);
        $this->equal(['still bound'], $this->drain($channel, $typed), 'after unbinding');
    }

    public function exchanges(): void
    {
        $channel = $this->channel();
        $queues = [];
        foreach (['a', 'b', 'star', 'hash', 'all', 'middle', 'two', 'other'] as $name) {
            $queues[$name] = $this->queue($channel, "q.$name");
        }
        $bind = fn ($queue, $exchange, $key = '', $arguments = []) =>
            $channel->queue_bind($queues[$queue], $exchange, $key, false, $arguments);
        $routes = function (
            array $expected,
            string $exchange,
            string $key,
            array $headers = []
        ) use (
            $channel,
            $queues
        ) {
            $properties = $headers ? ['application_headers' => new AMQPTable($headers)] : [];
            $this->publish($channel, $exchange, $key, $key, $properties, mandatory: $expected !== []);
            $got = array_map(fn ($queue) => $this->drain($channel, $queue), $queues);
            $this->equal(array_fill_keys($expected, [$key]), array_filter($got), "queues for '$key' in $exchange");
        };

        $direct = $this->exchange($channel, 'direct', 'direct', durable: true);
        $bind('a', $direct, 'one');
        $bind('a', $direct, 'two');
        $bind('b', $direct, 'two');
        $routes(['a'], $direct, 'one');
        $routes(['a', 'b'], $direct, 'two');
        $routes([], $direct, 'three');
        $channel->queue_unbind($queues['a'], $direct, 'two');
        $routes(['b'], $direct, 'two');

        $fanout = $this->exchange($channel, 'fanout', 'fanout');
        $bind('a', $fanout);
        $bind('b', $fanout, 'ignored');
        $routes(['a', 'b'], $fanout, 'anything');

        $topic = $this->exchange($channel, 'topic', 'topic');
        $bind('star', $topic, '*.orange.*');
        $bind('hash', $topic, 'lazy.#');
        $bind('hash', $topic, '*.*.rabbit');
        $bind('all', $topic, '#');
        $bind('middle', $topic, 'quick.#.fox');
        $bind('two', $topic, '*.*');
        $routes(['star', 'hash', 'all'], $topic, 'lazy.orange.rabbit');
        $routes(['star', 'all', 'middle'], $topic, 'quick.orange.fox');
        $routes(['all', 'middle', 'two'], $topic, 'quick.fox');
        $routes(['hash', 'all'], $topic, 'lazy');
        $routes(['all'], $topic, '');
        $routes(['all', 'two'], $topic, '.');

        $headers = $this->exchange($channel, 'headers', 'headers');
        $bind('a', $headers, '', new AMQPTable(['x-match' => 'all', 'kind' => 'report', 'pages' => 3]));
        $bind('b', $headers, '', new AMQPTable(['x-match' => 'any', 'kind' => 'report', 'pages' => 3]));
        $routes(['a', 'b'], $headers, 'both', ['kind' => 'report', 'pages' => 3, 'more' => 'x']);
        $routes(['b'], $headers, 'one of two', ['kind' => 'report', 'pages' => 4]);
        $routes([], $headers, 'of another type', ['pages' => '3']);
        $routes([], $headers, 'none');

        $alternate = $this->exchange($channel, 'alternate', 'fanout');
        $main = $this->exchange(
            $channel,
            'main',
            'direct',
            arguments: new AMQPTable(['alternate-exchange' => $alternate])
        );
        $bind('other', $alternate);
        $bind('a', $main, 'known');
        $routes(['a'], $main, 'known');
        $routes(['other'], $main, 'unknown');

        // AMQP 0-8 has no exchange.bind.
        if (!$this->amqp08) {
            $source = $this->exchange($channel, 'source', 'topic');
            $channel->exchange_bind($direct, $source, 'two.#');
            $channel->exchange_bind($fanout, $source, '#.all');
            $bind('b', $direct, 'two.x.all');
            $routes(['a', 'b'], $source, 'two.x.all');
            $channel->exchange_unbind($fanout, $source, '#.all');
            $routes(['b'], $source, 'two.x.all');
        }
    }

    public function large_message(): void
    {
        $channel = $this->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        // The client takes the broker's frame_max; around one and two frames' worth an off-by-one would show.
        $payload = 131072 - 8;
        $sizes = [10 * 1024 * 1024, 0, $payload - 1, $payload, $payload + 1, 2 * $payload];
        $sent = array_map(fn ($size) => $size ? random_bytes($size) : '', $sizes);
        foreach ($sent as $body) {
            $this->publish($channel, '', $queue, $body);
        }
        $inbox = new Inbox();
        $this->consume($channel, $queue, $inbox, noAck: true);
        $got = $this->bodies($this->take($channel, $inbox, count($sent)));
        $this->equal($sizes, array_map('strlen', $got), 'sizes');
        $hashes = fn ($bodies) => array_map(fn ($body) => hash('sha256', $body), $bodies);
        $this->equal($hashes($sent), $hashes($got), 'hashes');
    }

    public function errors(): void
    {
        $connection = $this->connect();
        $bystander = $connection->channel();
        $queue = $this->queue($bystander, 'q', durable: true);
        $exchange = $this->exchange($bystander, 'x', 'direct');
        $missing = "missing.$queue";
        $fails = fn (int $code, string $text, callable $operation) =>
            $this->closesChannel($code, $text, $connection->channel(), $operation);

        $noQueue = "NOT_FOUND - no queue '$missing' in vhost '/'";
        $noExchange = "NOT_FOUND - no exchange '$missing' in vhost '/'";
        $fails(404, $noQueue, fn ($channel) => $channel->queue_declare($missing, true));
        $fails(404, $noQueue, fn ($channel) => $channel->basic_consume($missing));
        $fails(404, $noQueue, fn ($channel) => $channel->basic_get($missing));
        $fails(404, $noExchange, fn ($channel) => $channel->queue_bind($queue, $missing));
        $fails(404, $noExchange, fn ($channel) => $channel->exchange_declare($missing, 'direct', true));
        $fails(404, $noExchange, function (AMQPChannel $channel) use ($missing) {
            $this->publish($channel, $missing, 'key', 'lost');
            $channel->wait(null, false, self::TIMEOUT);
        });
        $fails(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$queue' in vhost '/': " .
            "received 'false' but current is 'true'",
            fn ($channel) => $channel->queue_declare($queue, false, false, false, false)
        );
        $fails(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '$queue' in vhost '/': " .
            "received the value '10' of type 'signedint' but current is none",
            fn ($channel) => $channel->queue_declare(
                $queue,
                false,
                true,
                false,
                false,
                false,
                new AMQPTable(['x-max-length' => 10])
            )
        );
        $fails(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '$exchange' in vhost '/': " .
            "received 'topic' but current is 'direct'",
            fn ($channel) => $channel->exchange_declare($exchange, 'topic', false, false, false)
        );
        $fails(
            403,
            "ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'",
            fn ($channel) => $channel->queue_declare('amq.interop')
        );
        $fails(406, 'PRECONDITION_FAILED - unknown delivery tag 99', function (AMQPChannel $channel) {
            $channel->basic_ack(99);
            $channel->wait(null, false, self::TIMEOUT);
        });

        $this->publish($bystander, '', $queue, 'still here');
        $this->equal(['still here'], $this->drain($bystander, $queue), 'other channels of the connection');

        $refused = function (int $code, string $text, callable $connect) {
            try {
                $connect();
            } catch (AMQPConnectionClosedException $e) {
                $this->equal([$code, $text], [$e->getCode(), $e->getMessage()], 'connection.close');
                return;
            }
            throw new Failure("no error, expected $code $text");
        };
        // php-amqplib appends the class and method to the reply text.
        $refused(
            403,
            'ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. ' .
            'For details see the broker logfile.(0, 0)',
            fn () => $this->connect(password: 'wrong')
        );
        $refused(
            530,
            "NOT_ALLOWED - vhost $missing not found(10, 40)",
            fn () => $this->connect(vhost: $missing)
        );
    }

    public function transactions(): void
    {
        $connection = $this->connect();
        $observer = $connection->channel();
        $channel = $connection->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        $channel->tx_select();
        foreach (range(0, 2) as $i) {
            $this->publish($channel, '', $queue, "m$i", self::PERSISTENT);
        }
        $this->equal(0, $this->ready($observer, $queue), 'before commit');
        $channel->tx_commit();
        $this->equal(3, $this->ready($observer, $queue), 'after commit');
        $this->publish($channel, '', $queue, 'discarded');
        $channel->tx_rollback();
        $channel->tx_commit();
        $this->equal(3, $this->ready($observer, $queue), 'after rollback');

        $channel->basic_get($queue)->ack();
        $channel->tx_commit();
        $channel->basic_get($queue)->ack();
        $channel->tx_rollback();
        $channel->close();
        $this->equal(['m1', 'm2'], $this->drain($observer, $queue), 'messages whose ack was rolled back');

        $this->closesChannel(
            406,
            'PRECONDITION_FAILED - channel is not transactional',
            $connection->channel(),
            fn ($channel) => $channel->tx_commit()
        );
    }

    public function reconnect(): void
    {
        $connection = $this->connect();
        $channel = $connection->channel();
        $queue = $this->queue($channel, 'q', durable: true);
        foreach (range(0, 4) as $i) {
            $this->publish($channel, '', $queue, "m$i");
        }
        $inbox = new Inbox();
        $this->consume($channel, $queue, $inbox);
        $this->take($channel, $inbox, 5)[1]->ack(true);
        // The channel handles its methods in order, so with this answer the acks are past the network.
        $this->ready($channel, $queue);

        stream_socket_shutdown($connection->getIO()->getSocket(), STREAM_SHUT_RDWR);
        try {
            $channel->wait(null, false, self::TIMEOUT);
            throw new Failure('the connection survived its socket');
        } catch (AMQPConnectionClosedException) {
            $connection->reconnect();
        }
        $channel = $connection->channel();
        $this->consume($channel, $queue, $inbox);
        $again = $this->take($channel, $inbox, 3);
        $this->equal(['m2', 'm3', 'm4'], $this->bodies($again), 'bodies');
        $this->equal([true], array_unique($this->redelivered($again)), 'redelivered');
        $again[2]->ack(true);
        $this->publish($channel, '', $queue, 'fresh');
        [$fresh] = $this->take($channel, $inbox, 1);
        $this->equal(['fresh', false], [$fresh->getBody(), $fresh->isRedelivered()], 'first new message');
        $fresh->ack();
        $channel->close();
        $this->equal(0, $this->ready($connection->channel(), $queue), 'messages left');
    }

    public function tutorials(): void
    {
        $this->helloWorld();
        $this->workQueue();
        $this->publishSubscribe();
        $this->routing();
        $this->topics();
        $this->rpc(fn ($channel) => $this->exclusiveQueue($channel));
        $this->rpc(fn () => 'amq.rabbitmq.reply-to');
        if (!$this->amqp08) {
            $this->confirms();
        }
    }

    private function helloWorld(): void
    {
        $receiver = $this->channel();
        $queue = $this->queue($receiver, 'hello');
        $inbox = new Inbox();
        $this->consume($receiver, $queue, $inbox, noAck: true);
        $this->publish($this->channel(), '', $queue, 'Hello World!');
        $this->equal('Hello World!', $this->take($receiver, $inbox, 1)[0]->getBody(), 'hello');
    }

    private function workQueue(): void
    {
        [$busy, $idle, $sender] = [$this->channel(), $this->channel(), $this->channel()];
        $queue = $this->queue($sender, 'task_queue', durable: true);
        [$busyInbox, $idleInbox] = [new Inbox(), new Inbox()];
        foreach ([[$busy, $busyInbox], [$idle, $idleInbox]] as [$worker, $inbox]) {
            $worker->basic_qos(0, 1, false);
            $this->consume($worker, $queue, $inbox);
        }
        foreach (range(1, 4) as $i) {
            $this->publish($sender, '', $queue, "task $i", self::PERSISTENT);
        }
        // Both hold one task each; whoever acks gets the next one, so a busy worker never has a backlog.
        [$slow] = $this->take($busy, $busyInbox, 1);
        $done = [$slow->getBody()];
        foreach (range(1, 3) as $i) {
            [$task] = $this->take($idle, $idleInbox, 1);
            $done[] = $task->getBody();
            $task->ack();
        }
        sort($done);
        $this->equal(['task 1', 'task 2', 'task 3', 'task 4'], $done, 'tasks');
        $this->ready($busy, $queue);
        $this->nothingMore($busy, $busyInbox, 'the busy worker got more than one task');
        $slow->ack();
        $busy->getConnection()->close();
        $idle->getConnection()->close();
        $this->equal(0, $this->ready($sender, $queue), 'tasks left');
    }

    private function publishSubscribe(): void
    {
        $sender = $this->channel();
        $logs = $this->exchange($sender, 'logs', 'fanout');
        $subscribers = [];
        foreach (range(1, 2) as $i) {
            $channel = $this->channel();
            $queue = $this->exclusiveQueue($channel);
            $channel->queue_bind($queue, $logs);
            $this->consume($channel, $queue, $inbox = new Inbox(), noAck: true);
            $subscribers[] = [$channel, $inbox];
        }
        $this->publish($sender, $logs, '', 'info: to everybody');
        foreach ($subscribers as [$channel, $inbox]) {
            $this->equal(['info: to everybody'], $this->bodies($this->take($channel, $inbox, 1)), 'logs');
        }
    }

    /** Binds an exclusive queue with each key and consumes from it. */
    private function subscriber(AMQPChannel $channel, string $exchange, array $keys): Inbox
    {
        $queue = $this->exclusiveQueue($channel);
        foreach ($keys as $key) {
            $channel->queue_bind($queue, $exchange, $key);
        }
        $this->consume($channel, $queue, $inbox = new Inbox(), noAck: true);
        return $inbox;
    }

    private function routing(): void
    {
        $channel = $this->channel();
        $logs = $this->exchange($channel, 'direct_logs', 'direct');
        $all = $this->subscriber($channel, $logs, ['info', 'warning', 'error']);
        $errors = $this->subscriber($channel, $logs, ['error']);
        foreach (['info', 'error', 'warning', 'debug'] as $severity) {
            $this->publish($channel, $logs, $severity, "a $severity");
        }
        $this->equal(['a info', 'a error', 'a warning'], $this->bodies($this->take($channel, $all, 3)), 'all');
        $this->equal(['a error'], $this->bodies($this->take($channel, $errors, 1)), 'errors');
        $this->nothingMore($channel, $errors, 'more than the errors');
    }

    private function topics(): void
    {
        $channel = $this->channel();
        $logs = $this->exchange($channel, 'topic_logs', 'topic');
        $kern = $this->subscriber($channel, $logs, ['kern.*']);
        $critical = $this->subscriber($channel, $logs, ['*.critical']);
        foreach (['kern.info', 'cron.critical', 'kern.critical', 'cron.info'] as $key) {
            $this->publish($channel, $logs, $key, $key);
        }
        $this->equal(['kern.info', 'kern.critical'], $this->bodies($this->take($channel, $kern, 2)), 'kern.*');
        $this->equal(
            ['cron.critical', 'kern.critical'],
            $this->bodies($this->take($channel, $critical, 2)),
            '*.critical'
        );
    }

    private function rpc(callable $replyQueue): void
    {
        $fibonacci = function (int $n) use (&$fibonacci): int {
            return $n < 2 ? $n : $fibonacci($n - 1) + $fibonacci($n - 2);
        };
        $server = $this->channel();
        $requests = $this->queue($server, 'rpc_queue');
        $server->basic_qos(0, 1, false);
        $this->consume($server, $requests, $inbox = new Inbox());

        $client = $this->channel();
        $callback = $replyQueue($client);
        $this->consume($client, $callback, $replies = new Inbox(), noAck: true);
        foreach ([10 => '55', 7 => '13'] as $argument => $result) {
            $id = uniqid();
            $properties = ['correlation_id' => $id, 'reply_to' => $callback];
            $this->publish($client, '', $requests, (string) $argument, $properties);

            [$request] = $this->take($server, $inbox, 1);
            $this->publish(
                $server,
                '',
                $request->get('reply_to'),
                (string) $fibonacci((int) $request->getBody()),
                ['correlation_id' => $request->get('correlation_id')]
            );
            $request->ack();

            [$reply] = $this->take($client, $replies, 1);
            $this->equal([$result, $id], [$reply->getBody(), $reply->get('correlation_id')], "reply via $callback");
        }
        $server->close();
    }

    private function confirms(): void
    {
        $channel = $this->channel();
        $nacked = new Inbox();
        $channel->set_nack_handler($nacked);
        $channel->confirm_select();
        $queue = $this->exclusiveQueue($channel);
        $this->publish($channel, '', $queue, 'one by one');
        $channel->wait_for_pending_acks(self::TIMEOUT);
        foreach (range(1, 50) as $i) {
            $channel->batch_basic_publish(new AMQPMessage("batch $i"), '', $queue);
        }
        $channel->publish_batch();
        $channel->wait_for_pending_acks(self::TIMEOUT);
        $this->equal([], $nacked->items, 'nacked');
        $this->equal(51, $this->ready($channel, $queue), 'confirmed messages');
    }

    /**
     * Every type php-amqplib can write, which leaves out the floating-point ones. AMQP 0-8 knows no more than the
     * first five.
     */
    private function table(): AMQPTable
    {
        $table = new AMQPTable();
        $table->set('string', "gr\u{fc}\u{df}e");
        $table->set('long', -2147483648);
        $table->set('decimal', new AMQPDecimal(-314159, 5));
        $table->set('time', new DateTime('@1700000000'));
        $table->set('table', new AMQPTable(['nested' => new AMQPTable(['deep' => 1]), 'none' => new AMQPTable()]));
        if ($this->amqp08) {
            return $table;
        }

        $table->set('true', true);
        $table->set('false', false);
        $table->set('octet', -128, AMQPTable::T_INT_SHORTSHORT);
        $table->set('unsigned octet', 255, AMQPTable::T_INT_SHORTSHORT_U);
        $table->set('short', -32768, AMQPTable::T_INT_SHORT);
        $table->set('unsigned short', 65535, AMQPTable::T_INT_SHORT_U);
        $table->set('unsigned long', 4294967295, AMQPTable::T_INT_LONG_U);
        $table->set('longlong', PHP_INT_MIN, AMQPTable::T_INT_LONGLONG);
        $table->set('bytes', implode(array_map('chr', range(0, 255))), AMQPTable::T_BYTES);
        $table->set('void', null);
        $array = new AMQPArray([true, null, 1, PHP_INT_MAX, 's', ['key' => 'value'], ['inner'], []]);
        $array->push(-1, AMQPArray::T_INT_SHORT);
        $table->set('array', $array);
        return $table;
    }

    private function needs091(string $reason): void
    {
        if ($this->amqp08) {
            throw new NotApplicable($reason);
        }
    }
}

[, $host, $port, $version] = $argv;
if ($version === '0-8') {
    define('AMQP_PROTOCOL', Constants080::VERSION);
}
Interop::runAll($host, (int) $port, $version === '0-8');
