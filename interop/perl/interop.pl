use v5.36;

use Digest::SHA qw(sha256_hex);
use Harness;
use Net::AMQP::Value;

my $LOCKED =
      "405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It could be originally "
    . 'declared on another connection or the exclusive property value does not match that of the original '
    . 'declaration.';

test publish_confirms => sub {
    my $channel = channel(connection());
    my $queue   = queue($channel, 'q', durable => 1);
    call($channel, 'confirm');
    confirm_publish($channel, '', $queue, map {"message $_"} 1 .. 120);
    equal(120, ready($channel, $queue), 'messages in the queue');

    # The return has to come before the confirm, or a publisher would take the message for routed.
    my $events = inbox();
    publish(
        $channel, '', unique('missing'), 'nowhere',
        mandatory => 1,
        on_return => sub ($frame) { $events->put('return ' . $frame->method_frame->reply_code) },
        on_ack    => sub ($frame) { $events->put('ack ' . $frame->method_frame->delivery_tag) },
    );
    equal(['return 312', 'ack 121'], [$events->take(2)], 'events');
};

test consume_acks => sub {
    my $connection = connection();
    my $channel    = channel($connection);
    my $queue      = queue($channel, 'q', durable => 1);
    publish($channel, '', $queue, "m$_", header => { delivery_mode => 1 + $_ % 2 }) for 0 .. 9;
    my @first = consume($channel, $queue)->take(10);
    equal(join(' ', map {"m$_"} 0 .. 9), bodies(@first),      'bodies');
    equal(join(' ', 1 .. 10), join(' ', map { tag($_) } @first), 'delivery tags');
    equal(join(' ', (0) x 10), redelivered(@first), 'redelivered');
    $channel->ack(delivery_tag => tag($first[4]), multiple => 1);
    $channel->ack(delivery_tag => tag($first[6]));
    call($channel, 'close');

    $channel = channel($connection);
    equal(4, ready($channel, $queue), 'messages returned by the closed channel');
    my @second = consume($channel, $queue)->take(4);
    equal('m5 m7 m8 m9', bodies(@second),      'bodies after the channel closed');
    equal('1 1 1 1',     redelivered(@second), 'redelivered');
    # Without a tag, the client acks all there is with tag 0 and multiple.
    $channel->ack;
    call($channel, 'close');
    equal(0, ready(channel($connection), $queue), 'messages left');
};

test prefetch => sub {
    my $connection = connection();
    my $channel    = channel($connection);
    my ($queue, $other) = map { queue($channel, $_) } qw(q other);
    for my $i (0 .. 9) {
        publish($channel, '', $queue, "m$i");
        publish($channel, '', $other, "o$i");
    }
    call($channel, qos => prefetch_count => 3);
    my $inbox = consume($channel, $queue);
    my @taken = $inbox->take(3);
    equal(7, ready($channel, $queue), 'ready while three are unacked');
    $channel->ack(delivery_tag => tag($taken[0]));
    push @taken, $inbox->take;
    equal(6, ready($channel, $queue), 'ready after an ack');
    $channel->ack(delivery_tag => tag($taken[3]), multiple => 1);
    equal('m4 m5 m6', bodies($inbox->take(3)), 'after acking all three');
    equal(3, ready($channel, $queue), 'ready after acking all three');
    equal(0, $inbox->count, 'deliveries beyond the prefetch count');

    # Without global, each consumer of the channel has the limit to itself.
    my $second = consume($channel, $other);
    equal('o0 o1 o2', bodies($second->take(3)), 'second consumer');
    equal(7, ready($channel, $other), 'ready for the second consumer');

    my $shared = channel($connection);
    call($shared, qos => prefetch_count => 4, global => 1);
    my @queues = map { queue($shared, "shared$_") } 0, 1;
    publish($shared, '', $queues[ $_ % 2 ], "s$_") for 0 .. 9;
    $inbox = inbox();
    consume($shared, $_, inbox => $inbox) for @queues;
    my $left = sub { ready($shared, $queues[0]) + ready($shared, $queues[1]) };
    @taken = $inbox->take(4);
    equal(6, $left->(), "ready while the channel's limit is used up");
    $shared->ack(delivery_tag => tag($taken[0]));
    $inbox->take;
    equal(5, $left->(), 'ready after an ack');
    equal(0, $inbox->count, "deliveries beyond the channel's limit");
};

test get => sub {
    my $channel = channel(connection());
    my $queue   = queue($channel, 'q', durable => 1);
    equal(undef, get($channel, $queue), 'empty queue');
    publish($channel, '', $queue, "m$_", header => { message_id => "id$_" }) for 0 .. 2;
    for my $i (0 .. 2) {
        my $message = get($channel, $queue);
        my $ok      = $message->{ok}->method_frame;
        equal(["m$i", "id$i"], [body($message), $message->{header}->message_id], 'message');
        equal(2 - $i, $ok->message_count, 'remaining');
        equal(['', $queue, 0, $i + 1], [map { $ok->$_ } qw(exchange routing_key redelivered delivery_tag)], 'envelope');
        $channel->ack(delivery_tag => $ok->delivery_tag);
    }
    equal(undef, get($channel, $queue), 'emptied queue');
};

# The client has no basic.nack, so basic.recover stands in for requeueing several messages.
test reject_requeue => sub {
    my $connection = connection();
    my $channel    = channel($connection);
    my $queue      = queue($channel, 'q');
    publish($channel, '', $queue, $_) for qw(a b c d);
    $channel->reject(delivery_tag => tag(get($channel, $queue)), requeue => 1);
    my ($a, $b, $c) = get_all($channel, $queue, 3);
    equal('a b c', bodies($a, $b, $c),      'after reject with requeue');
    equal('1 0 0', redelivered($a, $b, $c), 'redelivered');
    # Position, not arrival, decides: b goes back in front of d although c is still out.
    $channel->reject(delivery_tag => tag($b), requeue => 1);
    $b = get($channel, $queue);
    equal('b 1', bodies($b) . ' ' . redelivered($b), 'after reject with requeue');
    call($channel, recover => requeue => 1);
    my @again = get_all($channel, $queue, 4);
    equal('a b c d', bodies(@again),      'order after recover');
    equal('1 1 1 0', redelivered(@again), 'redelivered after recover');
    $channel->reject(delivery_tag => tag($_), requeue => 0) for @again[0 .. 2];
    $channel->reject(delivery_tag => tag($again[3]), requeue => 1);
    call($channel, 'close');
    equal('d', drain(channel($connection), $queue), 'what is left');
};

# The client reads the returned content off the wire but keeps it from the callback.
test returns => sub {
    my $returned   = inbox();
    my $connection = connection();
    my $channel    = channel($connection);
    $connection->{on_return} = sub ($frame) { $returned->put($frame->method_frame) };
    my $exchange = exchange($channel, 'x', 'direct', durable => 1);
    publish($channel, $exchange, 'nowhere', 'dropped');
    publish($channel, $exchange, 'nowhere', "\0returned\xff", mandatory => 1);
    my $return = $returned->take;
    equal(
        [312, 'NO_ROUTE', $exchange, 'nowhere'],
        [map { $return->$_ } qw(reply_code reply_text exchange routing_key)],
        'basic.return'
    );
    my $queue = queue($channel, 'q');
    bind_queue($channel, $queue, $exchange, 'somewhere');
    publish($channel, $exchange, 'somewhere', 'routed', mandatory => 1);
    equal('routed', drain($channel, $queue), 'routed message');
    equal(0, $returned->count, 'returns of routed or non-mandatory messages');
};

test exclusive_auto_delete => sub {
    my $owner     = connection();
    my $channel   = channel($owner);
    my $generated = exclusive_queue($channel);
    check($generated =~ /\Aamq\.gen-[A-Za-z0-9_-]{22}\z/, "server-generated name $generated");
    # An empty name means the last queue declared on this channel.
    bind_queue($channel, '', 'amq.fanout');
    my $named = queue($channel, 'exclusive', exclusive => 1);

    my $other   = connection();
    my @attempt = (
        [$named,     declare_queue => exclusive => 1],
        [$generated, declare_queue => passive   => 1],
        [$generated, 'consume'],
        [$generated, 'delete_queue'],
    );
    for (@attempt) {
        my ($queue, $method, @args) = @$_;
        closes_channel(sprintf($LOCKED, $queue), $other, sub ($ch) { call($ch, $method => queue => $queue, @args) });
    }
    call($owner, 'close');
    check(!queue_exists($_), "$_ outlived its connection") for $named, $generated;

    $channel = channel($other);
    my $queue = queue($channel, 'auto', auto_delete => 1);
    my @tags  = map { (consume($channel, $queue))[1] } 1, 2;
    call($channel, cancel => consumer_tag => $tags[0]);
    equal(
        1,
        call($channel, declare_queue => queue => $queue, passive => 1)->method_frame->consumer_count,
        'consumers left'
    );
    call($channel, cancel => consumer_tag => $tags[1]);
    eventually('auto-delete queue gone', sub { !queue_exists($queue) });

    my $exchange = exchange($channel, 'x', 'direct', auto_delete => 1);
    $queue = queue($channel, 'q');
    bind_queue($channel, $queue, $exchange, $_) for qw(one two);
    call($channel, unbind_queue => queue => $queue, exchange => $exchange, routing_key => 'one');
    check(exchange_exists($exchange), 'the exchange went with its first binding');
    call($channel, unbind_queue => queue => $queue, exchange => $exchange, routing_key => 'two');
    eventually('auto-delete exchange gone', sub { !exchange_exists($exchange) });
};

# Every type the client can both write and read, which leaves out void.
sub table () {
    return {
        string  => "gr\xc3\xbc\xc3\x9fe",
        octets  => join('', map { chr } 0 .. 255),
        digits  => Net::AMQP::Value::String->new('42'),
        integer => Net::AMQP::Value::Integer->new(-2**31),
        time    => Net::AMQP::Value::Timestamp->new(1_700_000_000),
        true    => Net::AMQP::Value::true,
        false   => Net::AMQP::Value::false,
        table   => { nested => { deep => 1 }, none => {} },
        array   => [1, 'two', Net::AMQP::Value::true, { key => 'value' }, ['inner'], []],
    };
}

# What the client makes of it when reading.
sub table_read () {
    return {
        %{ table() },
        digits  => '42',
        integer => -2**31,
        time    => 1_700_000_000,
        true    => 1,
        false   => 0,
        array   => [1, 'two', 1, { key => 'value' }, ['inner'], []],
    };
}

test tables => sub {
    my $channel    = channel(connection());
    my $queue      = queue($channel, 'q', durable => 1);
    my %properties = (
        content_type     => 'text/plain',
        content_encoding => 'gzip',
        delivery_mode    => 2,
        priority         => 9,
        correlation_id   => 'correlation',
        reply_to         => 'reply',
        expiration       => '60000',
        message_id       => 'id',
        timestamp        => 1_700_000_000,
        type             => 'type',
        user_id          => 'guest',
        app_id           => 'app',
        # What RabbitMQ calls cluster-id has this name in the specification the client loads.
        reserved         => 'cluster',
    );
    publish($channel, '', $queue, 'body', header => { %properties, headers => table() });
    my $message = get($channel, $queue, no_ack => 1);
    equal('body', body($message), 'body');
    equal(\%properties, { map { $_ => $message->{header}->$_ } keys %properties }, 'properties');
    equal(table_read(), $message->{header}->headers, 'headers');

    my %arguments = (%{ table() }, 'x-message-ttl' => 1_800_000);
    my $typed     = queue($channel, 'typed', durable => 1, arguments => \%arguments);
    call($channel, declare_queue => queue => $typed, durable => 1, arguments => \%arguments);
    closes_channel(
        "406 PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '$typed' in vhost '/': "
            . "received none but current is the value '1800000' of type 'signedint'",
        connection(), sub ($ch) { call($ch, declare_queue => queue => $typed, durable => 1) }
    );

    # A headers exchange compares values by type, so a match proves that the binding's table came through whole.
    my $exchange = exchange($channel, 'headers', 'headers', arguments => table());
    my $binding  = { %{ table() }, 'x-match' => 'all' };
    bind_queue($channel, $typed, $exchange, '', arguments => $binding);
    publish($channel, $exchange, '', 'same', header => { headers => table() });
    for my $key (sort keys %{ table() }) {
        publish($channel, $exchange, '', "another-$key", header => { headers => { %{ table() }, $key => 'changed' } });
    }
    equal('same', drain($channel, $typed), 'messages matching the typed binding');
    my $unbind = sub ($arguments) {
        my %binding = (queue => $typed, exchange => $exchange, routing_key => '', arguments => $arguments);
        call($channel, unbind_queue => %binding);
    };
    $unbind->({ 'x-match' => 'all' });
    publish($channel, $exchange, '', 'still-bound', header => { headers => table() });
    $unbind->($binding);
    publish($channel, $exchange, '', 'unbound', header => { headers => table() });
    equal('still-bound', drain($channel, $typed), 'after unbinding');
};

test exchanges => sub {
    my $channel = channel(connection());
    my @labels  = qw(a b star hash all middle two other);
    my %queue   = map { $_ => queue($channel, "q.$_") } @labels;
    my $bind    = sub ($label, $exchange, $key, %args) { bind_queue($channel, $queue{$label}, $exchange, $key, %args) };
    my $routes  = sub ($expected, $exchange, $key, %headers) {
        publish($channel, $exchange, $key, 'x', %headers ? (header => { headers => \%headers }) : ());
        my %got = map { $_ => drain($channel, $queue{$_}) } @labels;
        equal($expected, join(' ', grep { $got{$_} } @labels), "queues for '$key' in $exchange");
        equal('x', $got{$_}, "copies in queue $_") for split ' ', $expected;
    };

    my $direct = exchange($channel, 'direct', 'direct', durable => 1);
    $bind->('a', $direct, 'one');
    $bind->('a', $direct, 'two');
    $bind->('b', $direct, 'two');
    $routes->('a',   $direct, 'one');
    $routes->('a b', $direct, 'two');
    $routes->('',    $direct, 'three');
    call($channel, unbind_queue => queue => $queue{a}, exchange => $direct, routing_key => 'two');
    $routes->('b', $direct, 'two');

    my $fanout = exchange($channel, 'fanout', 'fanout');
    $bind->('a', $fanout, '');
    $bind->('b', $fanout, 'ignored');
    $routes->('a b', $fanout, 'anything');

    my $topic = exchange($channel, 'topic', 'topic');
    $bind->('star',   $topic, '*.orange.*');
    $bind->('hash',   $topic, 'lazy.#');
    $bind->('hash',   $topic, '*.*.rabbit');
    $bind->('all',    $topic, '#');
    $bind->('middle', $topic, 'quick.#.fox');
    $bind->('two',    $topic, '*.*');
    $routes->('star hash all',   $topic, 'lazy.orange.rabbit');
    $routes->('star all middle', $topic, 'quick.orange.fox');
    $routes->('all middle two',  $topic, 'quick.fox');
    $routes->('hash all',        $topic, 'lazy');
    $routes->('all',             $topic, '');
    $routes->('all two',         $topic, '.');

    my $headers = exchange($channel, 'headers', 'headers');
    my $three   = Net::AMQP::Value::Integer->new(3);
    $bind->('a', $headers, '', arguments => { 'x-match' => 'all', kind => 'report', pages => $three });
    $bind->('b', $headers, '', arguments => { 'x-match' => 'any', kind => 'report', pages => $three });
    $routes->('a b', $headers, 'both', kind => 'report', pages => $three, more => 'x');
    $routes->('b', $headers, 'one of two', kind => 'report', pages => Net::AMQP::Value::Integer->new(4));
    # The client turns numbers in message headers into strings.
    $routes->('', $headers, 'another type', pages => 3);
    $routes->('', $headers, 'none');

    my $source = exchange($channel, 'source', 'topic');
    call($channel, bind_exchange => source => $source, destination => $direct, routing_key => 'two.#');
    call($channel, bind_exchange => source => $source, destination => $fanout, routing_key => '#.all');
    $bind->('b', $direct, 'two.x.all');
    # b is reached through both exchanges but gets one copy.
    $routes->('a b', $source, 'two.x.all');
    call($channel, unbind_exchange => source => $source, destination => $fanout, routing_key => '#.all');
    $routes->('b', $source, 'two.x.all');

    my $alternate = exchange($channel, 'alternate', 'fanout');
    my $main      = exchange($channel, 'main', 'direct', arguments => { 'alternate-exchange' => $alternate });
    $bind->('other', $alternate, '');
    $bind->('a', $main, 'known');
    $routes->('a',     $main, 'known');
    $routes->('other', $main, 'unknown');
};

test large_message => sub {
    srand 1;
    my $noise = join '', map { chr int rand 256 } 1 .. 65521;
    for my $frame_max (131_072, 8192) {
        my $channel = channel(connection(tune => { frame_max => $frame_max }));
        my $queue   = queue($channel, "q$frame_max", durable => 1);
        # Around one and two frames' worth an off-by-one in splitting the body would show.
        my $payload = $frame_max - 8;
        my @sizes   = (10 * 1024 * 1024, 0, $payload - 1, $payload, $payload + 1, 2 * $payload);
        my @sent    = map { substr $noise x (1 + $_ / length $noise), 0, $_ } @sizes;
        call($channel, 'confirm');
        confirm_publish($channel, '', $queue, @sent);
        my @got = map { body($_) } consume($channel, $queue, no_ack => 1)->take(scalar @sent);
        equal(\@sizes, [map {length} @got], 'sizes');
        equal([map { sha256_hex($_) } @sent], [map { sha256_hex($_) } @got], 'hashes');
    }
};

test errors => sub {
    my $connection = connection();
    my $bystander  = channel($connection);
    my $queue      = queue($bystander, 'q', durable => 1);
    my $exchange   = exchange($bystander, 'x', 'direct');
    my $missing    = unique('missing');
    my $fails      = sub ($text, $method, %args) {
        closes_channel($text, $connection, sub ($ch) { call($ch, $method => %args) });
    };

    my $no_queue    = "404 NOT_FOUND - no queue '$missing' in vhost '/'";
    my $no_exchange = "404 NOT_FOUND - no exchange '$missing' in vhost '/'";
    $fails->($no_queue, declare_queue => queue => $missing, passive => 1);
    $fails->($no_queue, consume => queue => $missing);
    $fails->($no_queue, get => queue => $missing);
    $fails->($no_exchange, bind_queue => queue => $queue, exchange => $missing, routing_key => '');
    $fails->($no_exchange, declare_exchange => exchange => $missing, passive => 1);
    closes_channel($no_exchange, $connection, sub ($ch) { publish($ch, $missing, 'key', 'lost') });
    $fails->(
        "406 PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$queue' in vhost '/': "
            . "received 'false' but current is 'true'",
        declare_queue => queue => $queue
    );
    $fails->(
        "406 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '$queue' in vhost '/': "
            . "received the value '10' of type 'signedint' but current is none",
        declare_queue => queue => $queue,
        durable       => 1,
        arguments     => { 'x-max-length' => 10 }
    );
    $fails->(
        "406 PRECONDITION_FAILED - inequivalent arg 'type' for exchange '$exchange' in vhost '/': "
            . "received 'topic' but current is 'direct'",
        declare_exchange => exchange => $exchange,
        type             => 'topic'
    );
    $fails->(
        "403 ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'",
        declare_queue => queue => 'amq.interop'
    );
    closes_channel(
        '406 PRECONDITION_FAILED - unknown delivery tag 99',
        $connection, sub ($ch) { $ch->ack(delivery_tag => 99) }
    );

    publish($bystander, '', $queue, 'still-here');
    equal('still-here', drain($bystander, $queue), 'other channels of the connection');

    # The client does not ask for it by itself, but can be told to.
    my %to_be_told = (capabilities => { authentication_failure_close => Net::AMQP::Value::true });
    equal(
        '403 ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. '
            . 'For details see the broker logfile.',
        refused(pass => 'wrong', client_properties => \%to_be_told),
        'wrong password'
    );
    equal("530 NOT_ALLOWED - vhost $missing not found", refused(vhost => $missing), 'unknown vhost');
};

test transactions => sub {
    my $connection = connection();
    my $observer   = channel($connection);
    my $channel    = channel($connection);
    my $queue      = queue($channel, 'q', durable => 1);
    call($channel, 'select_tx');
    publish($channel, '', $queue, "m$_", header => { delivery_mode => 2 }) for 0 .. 2;
    # The channel handles its methods in order, so with this answer the publishes are past the network.
    equal(0, ready($channel, $queue), 'before commit');
    call($channel, 'commit_tx');
    equal(3, ready($observer, $queue), 'after commit');
    publish($channel, '', $queue, 'discarded');
    call($channel, 'rollback_tx');
    call($channel, 'commit_tx');
    equal(3, ready($observer, $queue), 'after rollback');

    $channel->ack(delivery_tag => tag(get($channel, $queue)));
    call($channel, 'commit_tx');
    $channel->ack(delivery_tag => tag(get($channel, $queue)));
    call($channel, 'rollback_tx');
    call($channel, 'close');
    equal('m1 m2', drain($observer, $queue), 'messages whose ack was not committed');
    closes_channel(
        '406 PRECONDITION_FAILED - channel is not transactional',
        $connection, sub ($ch) { call($ch, 'commit_tx') }
    );
};

test reconnect => sub {
    my $lost       = inbox();
    my $connection = connection(on_close => sub ($why) { $lost->put($why) });
    my $channel    = channel($connection);
    my $queue      = queue($channel, 'q', durable => 1);
    publish($channel, '', $queue, "m$_") for 0 .. 4;
    my @before = consume($channel, $queue)->take(5);
    $channel->ack(delivery_tag => tag($before[1]), multiple => 1);
    # The channel handles its methods in order, so with this answer the acks are past the network.
    ready($channel, $queue);

    drop_socket($connection);
    $lost->take;
    $connection = connection();
    $channel    = channel($connection);
    my $inbox = consume($channel, $queue);
    my @again = $inbox->take(3);
    equal('m2 m3 m4', bodies(@again),      'bodies');
    equal('1 1 1',    redelivered(@again), 'redelivered');
    $channel->ack(delivery_tag => tag($again[2]), multiple => 1);
    publish($channel, '', $queue, 'fresh');
    my $fresh = $inbox->take;
    equal('fresh 0', body($fresh) . ' ' . redelivered($fresh), 'first new message');
    $channel->ack(delivery_tag => tag($fresh));
    call($channel, 'close');
    equal(0, ready(channel($connection), $queue), 'messages left');
};

test tutorials => sub {
    hello_world();
    work_queue();
    publish_subscribe();
    routing();
    topics();
    rpc(\&exclusive_queue);
    rpc(sub ($) {'amq.rabbitmq.reply-to'});
    publisher_confirms();
};

sub hello_world () {
    my $receiver = channel(connection());
    my $queue    = queue($receiver, 'hello');
    my $inbox    = consume($receiver, $queue, no_ack => 1);
    publish(channel(connection()), '', $queue, 'Hello World!');
    equal('Hello World!', body($inbox->take), 'hello');
    return;
}

sub work_queue () {
    my @connections = map { connection() } 1 .. 3;
    my ($busy, $idle, $sender) = map { channel($_) } @connections;
    my $queue = queue($sender, 'task_queue', durable => 1);
    call($_, qos => prefetch_count => 1) for $busy, $idle;
    my ($busy_inbox, $idle_inbox) = map { scalar consume($_, $queue) } $busy, $idle;
    publish($sender, '', $queue, "task$_", header => { delivery_mode => 2 }) for 1 .. 4;
    # Both hold one task each; whoever acks gets the next one, so a busy worker never has a backlog.
    my @done = my $slow = $busy_inbox->take;
    for (1 .. 3) {
        push @done, $idle_inbox->take;
        $idle->ack(delivery_tag => tag($done[-1]));
    }
    equal('task1 task2 task3 task4', join(' ', sort map { body($_) } @done), 'tasks');
    ready($busy, $queue);
    equal(0, $busy_inbox->count, 'further tasks of the busy worker');
    $busy->ack(delivery_tag => tag($slow));
    call($_, 'close') for @connections[0, 1];
    equal(0, ready($sender, $queue), 'tasks left');
    return;
}

# The inbox of an exclusive queue that is bound with each key.
sub subscriber ($exchange, @keys) {
    my $channel = channel(connection());
    my $queue   = exclusive_queue($channel);
    bind_queue($channel, $queue, $exchange, $_) for @keys;
    return consume($channel, $queue, no_ack => 1);
}

sub publish_subscribe () {
    my $sender      = channel(connection());
    my $logs        = exchange($sender, 'logs', 'fanout');
    my @subscribers = map { scalar subscriber($logs, '') } 1, 2;
    publish($sender, $logs, '', 'info: to everybody');
    equal('info: to everybody', body($_->take), 'logs') for @subscribers;
    return;
}

sub routing () {
    my $sender = channel(connection());
    my $logs   = exchange($sender, 'direct_logs', 'direct');
    my $all    = subscriber($logs, qw(info warning error));
    my $errors = subscriber($logs, 'error');
    publish($sender, $logs, $_, $_) for qw(info warning debug error info);
    equal('info warning error info', bodies($all->take(4)), 'all severities');
    equal('error', bodies($errors->take), 'errors only');
    equal(0, $errors->count, 'more than the errors');
    return;
}

sub topics () {
    my $sender   = channel(connection());
    my $logs     = exchange($sender, 'topic_logs', 'topic');
    my $kern     = subscriber($logs, 'kern.*');
    my $critical = subscriber($logs, '*.critical');
    publish($sender, $logs, $_, $_) for qw(kern.info cron.critical cron.info kern.critical);
    equal('kern.info kern.critical',     bodies($kern->take(2)),     'kern.*');
    equal('cron.critical kern.critical', bodies($critical->take(2)), '*.critical');
    return;
}

sub fibonacci ($n) { return $n < 2 ? $n : fibonacci($n - 1) + fibonacci($n - 2) }

sub rpc ($reply_queue) {
    my $server   = channel(connection());
    my $requests = queue($server, 'rpc_queue', exclusive => 0, auto_delete => 1);
    call(
        $server,
        consume    => queue => $requests,
        no_ack     => 0,
        on_consume => sub ($request) {
            my $header = $request->{header};
            publish(
                $server, '', $header->reply_to,
                fibonacci(body($request)),
                header => { correlation_id => $header->correlation_id },
            );
            $server->ack(delivery_tag => tag($request));
        },
    );

    my $client   = channel(connection());
    my $callback = $reply_queue->($client);
    my $replies  = consume($client, $callback, no_ack => 1);
    for ([10, 55], [7, 13]) {
        my ($argument, $result) = @$_;
        my $id = "call $argument";
        publish($client, '', $requests, $argument, header => { correlation_id => $id, reply_to => $callback });
        my $reply = $replies->take;
        equal([$result, $id], [body($reply), $reply->{header}->correlation_id], "reply through $callback");
    }
    call($server, 'close');
    return;
}

sub publisher_confirms () {
    my $channel = channel(connection());
    my $queue   = exclusive_queue($channel);
    call($channel, 'confirm');
    confirm_publish($channel, '', $queue, 'one by one');
    confirm_publish($channel, '', $queue, map {"batch $_"} 1 .. 50);
    equal(51, ready($channel, $queue), 'confirmed messages');
    return;
}

exit(run_all(@ARGV) ? 0 : 1);
