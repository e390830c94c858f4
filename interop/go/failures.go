package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func errorReplies(s *scope) {
	connection := s.connect()
	// What happens to the other channels must not touch this one and its consumer.
	bystander := must(connection.Channel())
	watched := s.queue("watched")
	declareQueue(bystander, watched, false, nil)
	deliveries := consume(bystander, watched, true)

	missing := s.queue("missing")
	channelError(connection, amqp.NotFound, notFound(missing), declarePassive(missing))
	channelError(connection, amqp.NotFound, notFound(missing), func(channel *amqp.Channel) error {
		_, err := channel.Consume(missing, "", true, false, false, false, nil)
		return err
	})
	channelError(connection, amqp.NotFound, notFound(missing), func(channel *amqp.Channel) error {
		_, _, err := channel.Get(missing, true)
		return err
	})
	exchangeGone(connection, missing)
	noExchange := "NOT_FOUND - no exchange '" + missing + "' in vhost '/'"
	channelError(connection, amqp.NotFound, noExchange, func(channel *amqp.Channel) error {
		return channel.PublishWithContext(context.Background(), missing, "", false, false, text("lost"))
	})
	channelError(connection, amqp.NotFound, noExchange, func(channel *amqp.Channel) error {
		return channel.QueueBind(watched, "", missing, false, nil)
	})
	same("delete-ok of a missing queue", 0, must(bystander.QueueDelete(missing, false, false, false)))

	queue := s.queue("declared")
	ttl := amqp.Table{"x-message-ttl": int64(1_800_000)}
	declareQueue(bystander, queue, true, ttl)
	inequivalent := "PRECONDITION_FAILED - inequivalent arg '%s' for %s '%s' in vhost '/': received %s"
	redeclare := func(durable bool, args amqp.Table) func(*amqp.Channel) error {
		return func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclare(queue, durable, false, false, false, args)
			return err
		}
	}
	channelError(connection, amqp.PreconditionFailed,
		fmt.Sprintf(inequivalent, "durable", "queue", queue, "'false' but current is 'true'"), redeclare(false, ttl))
	channelError(connection, amqp.PreconditionFailed, fmt.Sprintf(inequivalent, "x-message-ttl", "queue", queue,
		"none but current is the value '1800000' of type 'long'"), redeclare(true, nil))
	exchange := s.exchange("declared")
	declareExchange(bystander, exchange, "direct", true, nil)
	channelError(connection, amqp.PreconditionFailed,
		fmt.Sprintf(inequivalent, "type", "exchange", exchange, "'fanout' but current is 'direct'"),
		func(channel *amqp.Channel) error {
			return channel.ExchangeDeclare(exchange, "fanout", true, false, false, false, nil)
		})
	publish(bystander, "", queue, "message")
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - queue '"+queue+"' in vhost '/' not empty",
		func(channel *amqp.Channel) error {
			_, err := channel.QueueDelete(queue, false, true, false)
			return err
		})
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - queue '"+watched+"' in vhost '/' in use",
		func(channel *amqp.Channel) error {
			_, err := channel.QueueDelete(watched, true, false, false)
			return err
		})
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag 1",
		func(channel *amqp.Channel) error { return channel.Ack(1, false) })
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag 1",
		func(channel *amqp.Channel) error {
			check(getOne(channel, queue).Ack(false))
			return channel.Ack(1, false)
		})
	channelError(connection, amqp.AccessRefused,
		"ACCESS_REFUSED - queue name 'amq."+missing+"' contains reserved prefix 'amq.*'",
		func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclare("amq."+missing, false, false, false, false, nil)
			return err
		})
	channelError(connection, amqp.AccessRefused, "ACCESS_REFUSED - operation not permitted on the default exchange",
		func(channel *amqp.Channel) error { return channel.QueueBind(queue, "key", "", false, nil) })

	publish(bystander, "", watched, "still here")
	sameDeliveries("consumer on another channel", []string{"still here"}, false, take(deliveries, 1))

	connectionErrors(s, watched)
}

func connectionErrors(s *scope, queue string) {
	_, err := amqp.DialConfig(s.url("guest:wrong"), s.config())
	// This client does not announce authentication_failure_close, so the broker closes the socket without a word, from
	// which the client concludes this.
	if !errors.Is(err, amqp.ErrCredentials) {
		failf("wrong password: %v", err)
	}

	config := s.config()
	config.Vhost = "no such vhost"
	_, err = amqp.DialConfig(s.url("guest:guest"), config)
	sameReply("unknown vhost", amqp.NotAllowed, "NOT_ALLOWED - vhost no such vhost not found", err)

	immediate := s.connect()
	closed := immediate.NotifyClose(make(chan *amqp.Error, 1))
	channel := must(immediate.Channel())
	check(channel.PublishWithContext(context.Background(), "", queue, false, true, text("now")))
	sameReply("immediate", amqp.NotImplemented, "NOT_IMPLEMENTED - immediate=true", receive("connection.close", closed))

	duplicate := s.connect()
	channel = must(duplicate.Channel())
	must(channel.Consume(queue, "tag", true, false, false, false, nil))
	_, err = channel.Consume(queue, "tag", true, false, false, false, nil)
	sameReply("duplicate consumer tag", amqp.NotAllowed, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", err)
}

func sameReply(what string, code int, reason string, err error) {
	var reply *amqp.Error
	if !errors.As(err, &reply) {
		failf("%s: no reply of the broker but %v", what, err)
	}
	same(what, []any{code, reason, true}, []any{reply.Code, reply.Reason, reply.Server})
}

func reconnect(s *scope) {
	admin := s.channel()
	queue, exchange := s.queue("durable"), s.exchange("fanout")

	config := s.config()
	dial := config.Dial
	var socket *net.TCPConn
	config.Dial = func(network, address string) (net.Conn, error) {
		connection, err := dial(network, address)
		if socket == nil && err == nil {
			socket = connection.(*net.TCPConn)
		}
		return connection, err
	}
	config.Recovery = &amqp.Recovery{
		ReconnectionConfig: &amqp.ReconnectionConfig{MaxRetryCount: 5, RetryInterval: 300 * time.Millisecond},
	}
	connection := s.connectWith(config)
	states := make(chan *amqp.StateChanged, 10)
	connection.NotifyStateChange(states)
	channel := must(connection.Channel())
	declareQueue(channel, queue, true, nil)
	check(channel.ExchangeDeclare(exchange, "fanout", false, true, false, false, nil))
	temporary := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	bind(channel, temporary, "", exchange, nil)
	fromExchange := consume(channel, temporary, true)
	publish(admin, "", queue, "1", "2", "3", "4", "5", "6", "7")

	check(channel.Qos(3, 0, false))
	deliveries := consume(channel, queue, false)
	before := take(deliveries, 3)
	check(before[1].Ack(true))
	before = append(before, take(deliveries, 2)...)
	sameDeliveries("before the cut", []string{"1", "2", "3", "4", "5"}, false, before)
	awaitReady(admin, queue, 2)

	check(socket.SetLinger(0))
	check(socket.Close())
	same("state", amqp.StateReconnecting, receive("state change", states).To)
	same("state", amqp.StateOpen, receive("state change", states).To)

	after := take(deliveries, 3)
	sameDeliveries("after recovery", []string{"3", "4", "5"}, true, after)
	check(after[2].Ack(true))
	after = take(deliveries, 2)
	sameDeliveries("what had not been delivered before", []string{"6", "7"}, false, after)
	check(after[1].Ack(true))
	// The server-named queue has a new name now, yet its binding and consumer are back.
	publish(admin, exchange, "", "to the recovered queue")
	sameDeliveries("recovered topology", []string{"to the recovered queue"}, false, take(fromExchange, 1))
	other := s.connect()
	queueGone(other, temporary)

	// What an orderly closed connection leaves unacknowledged comes back just the same.
	publish(channel, "", queue, "8")
	sameDeliveries("before closing", []string{"8"}, false, take(deliveries, 1))
	check(connection.Close())
	next := must(other.Channel())
	after = take(consume(next, queue, false), 1)
	sameDeliveries("on the next connection", []string{"8"}, true, after)
	check(after[0].Ack(false))
	check(next.Close())
	same("messages left", []string{}, drain(admin, queue))
}
