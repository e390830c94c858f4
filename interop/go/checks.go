package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 5 * time.Second

// failf ends the case; the runner reports the text.
func failf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func check(err error) {
	if err != nil {
		failf("%v", err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func same(what string, expected, actual any) {
	if !reflect.DeepEqual(expected, actual) {
		failf("%s: expected <%v> but got <%v>", what, expected, actual)
	}
}

func await(what string, condition func() bool) {
	end := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(end) {
			failf("timed out waiting until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func receive[T any](what string, from <-chan T) T {
	select {
	case value, ok := <-from:
		if !ok {
			failf("%s: the channel was closed", what)
		}
		return value
	case <-time.After(patience):
		failf("%s: nothing came in time", what)
		panic("unreachable")
	}
}

// expectNone pauses, as only that can show that nothing comes; callers first await the state after which nothing should.
func expectNone(deliveries <-chan amqp.Delivery) {
	select {
	case delivery, ok := <-deliveries:
		if ok {
			failf("unexpected delivery of %s", delivery.Body)
		}
	case <-time.After(150 * time.Millisecond):
	}
}

func take(deliveries <-chan amqp.Delivery, count int) []amqp.Delivery {
	var taken []amqp.Delivery
	for len(taken) < count {
		taken = append(taken, receive("delivery", deliveries))
	}
	return taken
}

// sameDeliveries checks bodies, order and the redelivered flag of each.
func sameDeliveries(what string, expected []string, redelivered bool, actual []amqp.Delivery) {
	same(what, expected, bodies(actual))
	for _, delivery := range actual {
		same(fmt.Sprintf("%s: redelivered of %s", what, delivery.Body), redelivered, delivery.Redelivered)
	}
}

func bodies(deliveries []amqp.Delivery) []string {
	texts := []string{}
	for _, delivery := range deliveries {
		texts = append(texts, string(delivery.Body))
	}
	return texts
}

func text(body string) amqp.Publishing {
	return amqp.Publishing{ContentType: "text/plain", Body: []byte(body)}
}

func send(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	check(channel.PublishWithContext(context.Background(), exchange, key, false, false, message))
}

// publish uses confirm mode, so that the messages are in their queues when it returns.
func publish(channel *amqp.Channel, exchange, key string, messages ...string) {
	for _, message := range messages {
		confirmed(channel, exchange, key, text(message))
	}
}

func confirmed(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	check(channel.Confirm(false))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	confirmation := must(channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false, message))
	if !must(confirmation.WaitContext(ctx)) {
		failf("publish %d was nacked", confirmation.DeliveryTag)
	}
}

func declareQueue(channel *amqp.Channel, name string, durable bool, args amqp.Table) amqp.Queue {
	return must(channel.QueueDeclare(name, durable, false, false, false, args))
}

func declareExchange(channel *amqp.Channel, name, kind string, durable bool, args amqp.Table) {
	check(channel.ExchangeDeclare(name, kind, durable, false, false, false, args))
}

func bind(channel *amqp.Channel, queue, key, exchange string, args amqp.Table) {
	check(channel.QueueBind(queue, key, exchange, false, args))
}

func consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	return must(channel.Consume(queue, "", autoAck, false, false, false, nil))
}

func inspect(channel *amqp.Channel, queue string) amqp.Queue {
	return must(channel.QueueDeclarePassive(queue, false, false, false, false, nil))
}

func awaitReady(channel *amqp.Channel, queue string, count int) {
	await(fmt.Sprintf("%s has %d ready messages", queue, count), func() bool {
		return inspect(channel, queue).Messages == count
	})
}

// drain takes all ready messages.
func drain(channel *amqp.Channel, queue string) []string {
	messages := []string{}
	for {
		delivery, ok, err := channel.Get(queue, true)
		check(err)
		if !ok {
			return messages
		}
		messages = append(messages, string(delivery.Body))
	}
}

// channelError checks that the broker closes the channel, and nothing but the channel, with exactly this reply.
func channelError(connection *amqp.Connection, code int, reason string, action func(*amqp.Channel) error) {
	channel := must(connection.Channel())
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	// A synchronous call returns the error, an asynchronous one does not; the listener hears of both.
	_ = action(channel)
	reply := receive("channel.close "+reason, closed)
	same("channel.close", []any{code, reason, true}, []any{reply.Code, reply.Reason, reply.Server})
	if connection.IsClosed() {
		failf("a channel error closed the connection: %v", reply)
	}
}

func notFound(queue string) string {
	return "NOT_FOUND - no queue '" + queue + "' in vhost '/'"
}

func declarePassive(queue string) func(*amqp.Channel) error {
	return func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
		return err
	}
}

func queueGone(connection *amqp.Connection, queue string) {
	channelError(connection, amqp.NotFound, notFound(queue), declarePassive(queue))
}

// awaitQueueGone is for queues that go in the background, after the reply to what makes them go.
func awaitQueueGone(connection *amqp.Connection, queue string) {
	await(queue+" is gone", func() bool {
		channel := must(connection.Channel())
		defer channel.Close()
		var reply *amqp.Error
		return errors.As(declarePassive(queue)(channel), &reply) && reply.Code == amqp.NotFound
	})
	queueGone(connection, queue)
}

func exchangeGone(connection *amqp.Connection, exchange string) {
	channelError(connection, amqp.NotFound, "NOT_FOUND - no exchange '"+exchange+"' in vhost '/'",
		func(channel *amqp.Channel) error {
			return channel.ExchangeDeclarePassive(exchange, "direct", false, false, false, false, nil)
		})
}
