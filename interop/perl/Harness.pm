package Harness;

use v5.36;

use AnyEvent;
use AnyEvent::RabbitMQ;
use Exporter 'import';
use Scalar::Util qw(refaddr);
use Time::HiRes qw(time);

our @EXPORT = qw(
    test run_all connection channel call closes_channel close_reason refused unique
    queue exclusive_queue exchange bind_queue ready queue_exists exchange_exists eventually
    publish consume inbox get get_all drain body bodies tag redelivered
    confirm_publish equal check drop_socket
);

# In seconds. A broker that never answers must not hold up the run for long.
use constant { RUN_TIMEOUT => 50, CASE_TIMEOUT => 15, EVENT_TIMEOUT => 5 };

my ($host, $port);
my @cases;
my %close_reason;

# Of the running case.
my ($prefix, @names, @connections);

sub test ($name, $code) { push @cases, [$name, $code]; return }

sub run_all (@target) {
    ($host, $port) = @target;
    STDOUT->autoflush(1);
    my ($passed, $failed) = (0, 0);
    my $deadline = time + RUN_TIMEOUT;
    for (@cases) {
        my ($name, $code) = @$_;
        $prefix = sprintf 'interop.perl.%08x.%s', int rand 2**32, $name;
        my $limit = int($deadline - time);
        $limit = CASE_TIMEOUT if $limit > CASE_TIMEOUT;
        my $ok = eval {
            die "no time left to run it\n" if $limit <= 0;
            local $SIG{ALRM} = sub { die "did not end in time\n" };
            alarm $limit;
            $code->();
            1;
        };
        my $error = $@;
        alarm 0;
        if ($ok) {
            $passed++;
            say "ok $name";
        }
        else {
            $failed++;
            say "FAIL $name: ", $error =~ s/\s*\n.*//sr;
        }
        clean_up();
    }
    say "$passed passed, $failed failed";
    return $failed == 0;
}

sub clean_up () {
    my @all = splice @connections;
    my $ok  = eval {
        for (@all) {
            wait_for('closing a connection', sub ($done, $) { $_->close(on_success => $done, on_failure => $done) });
        }
        my $channel = channel(connection());
        for my $name (splice @names) {
            call($channel, delete_queue => queue => $name);
            call($channel, delete_exchange => exchange => $name);
        }
        my $last = pop @connections;
        wait_for('closing a connection', sub ($done, $) { $last->close(on_success => $done, on_failure => $done) });
        1;
    };
    warn "cleaning up after $prefix: $@" unless $ok;
    %close_reason = ();
    return;
}

# Runs the event loop until one of the two callbacks given to the code has been called.
sub wait_for ($what, $code) {
    my $cv    = AE::cv;
    my $timer = AE::timer EVENT_TIMEOUT, 0, sub { $cv->croak("$what: no answer in time\n") };
    $code->(sub (@result) { $cv->send(@result) }, sub (@reason) { $cv->croak("$what: @reason\n") });
    return $cv->recv;
}

sub connect_with ($args, $on_success, $on_failure, $on_close) {
    my $connection = AnyEvent::RabbitMQ->new->load_xml_spec;
    push @connections, $connection;
    $connection->connect(
        host       => $host,
        port       => $port,
        user       => 'guest',
        pass       => 'guest',
        vhost      => '/',
        timeout    => EVENT_TIMEOUT,
        on_success => $on_success,
        on_failure => $on_failure,
        on_close   => $on_close,
        %$args,
    );
    return;
}

sub connection (%args) {
    my $on_close = delete $args{on_close} // sub { };
    return wait_for('connecting', sub ($done, $failed) { connect_with(\%args, $done, $failed, $on_close) });
}

# The connection.close with which the broker refuses such a connection.
sub refused (%args) {
    my $frame = wait_for(
        'being refused',
        sub ($done, $failed) {
            connect_with(\%args, sub { $failed->('the connection was accepted') }, $failed, $done);
        }
    );
    pop @connections;
    return join ' ', $frame->method_frame->reply_code, $frame->method_frame->reply_text;
}

# The socket belongs to the library, which has no method that leaves without connection.close.
sub drop_socket ($connection) {
    shutdown $connection->{_handle}->fh, 2 or die "shutdown: $!\n";
    return;
}

sub channel ($connection) {
    my $id;
    my $channel = wait_for(
        'channel.open',
        sub ($done, $failed) {
            $connection->open_channel(
                on_success => $done,
                on_failure => $failed,
                on_close   => sub ($frame) { $close_reason{$id} = $frame if $id },
            );
        }
    );
    $id = refaddr $channel;
    return $channel;
}

sub call ($channel, $method, %args) {
    return wait_for(
        $method,
        sub ($done, $failed) { $channel->$method(%args, on_success => $done, on_failure => $failed) }
    );
}

sub close_reason ($channel) {
    my $frame = $close_reason{ refaddr $channel } or return;
    return join ' ', $frame->method_frame->reply_code, $frame->method_frame->reply_text;
}

# The operation must make the broker close the channel, and only the channel.
sub closes_channel ($expected, $connection, $operation) {
    my $channel = channel($connection);
    eval { $operation->($channel) };
    eventually("channel.close $expected", sub { close_reason($channel) });
    my ($code, $text) = $expected =~ /^(\d+) (.*)/s;
    # A reply text that does not fit into a short string is cut.
    $text = substr($text, 0, 252) . '...' if length $text > 255;
    equal("$code $text", close_reason($channel), 'channel.close');
    check(!$channel->is_open,   "the channel is still open after $text");
    check($connection->is_open, "the connection closed after $text");
    return;
}

# A name no other run uses; whatever is declared under it is deleted after the case.
sub unique ($suffix) {
    push @names, "$prefix.$suffix";
    return $names[-1];
}

sub queue ($channel, $suffix, %args) {
    return call($channel, declare_queue => queue => unique($suffix), %args)->method_frame->queue;
}

sub exclusive_queue ($channel) {
    return call($channel, declare_queue => exclusive => 1)->method_frame->queue;
}

sub exchange ($channel, $suffix, $type, %args) {
    my $name = unique($suffix);
    call($channel, declare_exchange => exchange => $name, type => $type, %args);
    return $name;
}

sub bind_queue ($channel, $queue, $exchange, $key = '', %args) {
    return call($channel, bind_queue => queue => $queue, exchange => $exchange, routing_key => $key, %args);
}

sub ready ($channel, $queue) {
    return call($channel, declare_queue => queue => $queue, passive => 1)->method_frame->message_count;
}

sub exists_by ($method, %args) {
    my $connection = connection();
    my $channel    = channel($connection);
    my $found      = eval { call($channel, $method => passive => 1, %args); 1 };
    check(close_reason($channel) =~ /^404 /, close_reason($channel)) unless $found;
    @connections = grep { $_ != $connection } @connections;
    return $found;
}

sub queue_exists    ($name) { return exists_by(declare_queue    => queue    => $name) }
sub exchange_exists ($name) { return exists_by(declare_exchange => exchange => $name) }

sub eventually ($what, $condition) {
    my $deadline = time + EVENT_TIMEOUT;
    until ($condition->()) {
        die "not in time: $what\n" if time > $deadline;
        my $pause = AE::cv;
        my $timer = AE::timer 0.02, 0, $pause;
        $pause->recv;
    }
    return;
}

sub publish ($channel, $exchange, $key, $body, %args) {
    $channel->publish(exchange => $exchange, routing_key => $key, body => $body, %args);
    return;
}

# Publishes the bodies in confirm mode and waits until the broker has acked all of them.
sub confirm_publish ($channel, $exchange, $key, @bodies) {
    my %missing = map { $_ => 1 } 0 .. $#bodies;
    wait_for(
        'publisher confirms',
        sub ($done, $failed) {
            for my $i (0 .. $#bodies) {
                publish(
                    $channel, $exchange, $key, $bodies[$i],
                    header  => { delivery_mode => 2 },
                    on_ack  => sub { delete $missing{$i}; $done->() unless %missing },
                    on_nack => sub { $failed->("message $i was nacked") },
                );
            }
        }
    );
    return;
}

sub inbox () { return Harness::Inbox->new }

# The consumer tag and the inbox the deliveries go to.
sub consume ($channel, $queue, %args) {
    my $inbox = delete $args{inbox} // inbox();
    my $frame = call($channel, consume => queue => $queue, no_ack => 0, %args, on_consume => sub { $inbox->put(@_) });
    return wantarray ? ($inbox, $frame->method_frame->consumer_tag) : $inbox;
}

sub get ($channel, $queue, %args) {
    my $message = call($channel, get => queue => $queue, no_ack => 0, %args);
    return $message->{empty} ? undef : $message;
}

sub get_all ($channel, $queue, $count) { return map { get($channel, $queue) } 1 .. $count }

# The bodies of everything that is ready in the queue, joined with spaces.
sub drain ($channel, $queue) {
    my @bodies;
    while (my $message = get($channel, $queue, no_ack => 1)) {
        push @bodies, body($message);
    }
    return "@bodies";
}

sub method_frame ($message) { return ($message->{deliver} // $message->{ok})->method_frame }
sub body         ($message) { return $message->{body} ? $message->{body}->payload : '' }
sub bodies       (@messages) { return join ' ', map { body($_) } @messages }
sub tag          ($message) { return method_frame($message)->delivery_tag }
sub redelivered  (@messages) { return join ' ', map { method_frame($_)->redelivered ? 1 : 0 } @messages }

sub check ($condition, $what) {
    die "$what\n" unless $condition;
    return;
}

sub equal ($expected, $actual, $what) {
    my ($e, $a) = map { dumped($_) } $expected, $actual;
    return if $e eq $a;
    die sprintf "%s: expected %s, got %s\n", $what, map { length > 300 ? substr($_, 0, 300) . '...' : $_ } $e, $a;
}

# The client does not tell numbers from strings when reading, so neither does this.
sub dumped ($value) {
    return 'undef' unless defined $value;
    return '[' . join(', ', map { dumped($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return '{' . join(', ', map {"$_ => " . dumped($value->{$_})} sort keys %$value) . '}' if ref $value eq 'HASH';
    return "'$value'";
}

# Hands what callbacks are called with to the case.
package Harness::Inbox;

sub new ($class) { return bless { items => [], waiting => undef }, $class }

sub put ($self, $item) {
    push @{ $self->{items} }, $item;
    $self->{waiting}->() if $self->{waiting};
    return;
}

sub count ($self) { return scalar @{ $self->{items} } }

sub take ($self, $count = 1) {
    Harness::wait_for(
        "waiting for $count events",
        sub ($done, $) {
            $self->{waiting} = sub { $done->() if $self->count >= $count };
            $self->{waiting}->();
        }
    );
    $self->{waiting} = undef;
    my @taken = splice @{ $self->{items} }, 0, $count;
    return wantarray ? @taken : $taken[0];
}

1;
