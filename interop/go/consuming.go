package main

import (
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

func getOne(channel *amqp.Channel, queue string) amqp.Delivery {
	delivery, ok, err := channel.Get(queue, false)
	check(err)
	if !ok {
		failf("%s is empty", queue)
	}
	return delivery
}

func getSome(channel *amqp.Channel, queue string, count int) []amqp.Delivery {
	var got []amqp.Delivery
	for len(got) < count {
		got = append(got, getOne(channel, queue))
	}
	return got
}

func expectEmpty(channel *amqp.Channel, queue string) {
	delivery, ok, err := channel.Get(queue, true)
	check(err)
	if ok {
		failf("%s holds %s instead of being empty", queue, delivery.Body)
	}
}

func consumeAcks(s *scope) {
	connection := s.connect()
	channel := must(connection.Channel())
	queue := s.queue("durable")
	same("declare-ok", amqp.Queue{Name: queue}, declareQueue(channel, queue, true, nil))
	publish(channel, "", queue, "1", "2", "3", "4", "5", "6", "7", "8")

	first := must(connection.Channel())
	deliveries := take(must(first.Consume(queue, "my-tag", false, false, false, false, nil)), 8)
	sameDeliveries("first deliveries", []string{"1", "2", "3", "4", "5", "6", "7", "8"}, false, deliveries)
	for i, delivery := range deliveries {
		same("delivery", []any{uint64(i + 1), "my-tag", "", queue},
			[]any{delivery.DeliveryTag, delivery.ConsumerTag, delivery.Exchange, delivery.RoutingKey})
	}
	same("consumers", 1, inspect(channel, queue).Consumers)
	check(deliveries[1].Ack(false))
	check(deliveries[3].Ack(true))
	check(deliveries[6].Ack(false))
	check(first.Close())

	second := must(connection.Channel())
	again := consume(second, queue, false)
	sameDeliveries("after the channel closed", []string{"5", "6", "8"}, true, take(again, 3))
	// Tag 0 with multiple stands for everything outstanding.
	check(second.Ack(0, true))
	expectNone(again)
	check(second.Close())
	same("left in the queue", amqp.Queue{Name: queue}, inspect(channel, queue))

	// With automatic acknowledgement nothing comes back.
	publish(channel, "", queue, "taken")
	third := must(connection.Channel())
	sameDeliveries("automatically acknowledged", []string{"taken"}, false, take(consume(third, queue, true), 1))
	check(third.Close())
	same("messages after automatic acknowledgement", 0, inspect(channel, queue).Messages)

	consumerCancellation(s, connection)
}

// The broker tells a consumer that its queue was deleted, and no deliveries follow a client's own cancel.
func consumerCancellation(s *scope, connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := s.queue("cancelled")
	declareQueue(channel, queue, false, nil)
	deliveries := must(channel.Consume(queue, "tag", true, false, false, false, nil))
	check(channel.Cancel("tag", false))
	publish(channel, "", queue, "unseen")
	if delivery, ok := <-deliveries; ok {
		failf("delivery of %s after cancel", delivery.Body)
	}
	same("messages", []string{"unseen"}, drain(channel, queue))

	cancelled := channel.NotifyCancel(make(chan string, 1))
	must(channel.Consume(queue, "doomed", true, false, false, false, nil))
	must(channel.QueueDelete(queue, false, false, false))
	same("cancelled consumer tag", "doomed", receive("basic.cancel", cancelled))
}

func prefetch(s *scope) {
	connection := s.connect()
	admin := must(connection.Channel())
	queue := s.queue("transient")
	declareQueue(admin, queue, false, nil)
	publish(admin, "", queue, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")

	// The limit holds for each consumer that is started later.
	perConsumer := must(connection.Channel())
	check(perConsumer.Qos(3, 0, false))
	one := consume(perConsumer, queue, false)
	held := take(one, 3)
	sameDeliveries("first consumer", []string{"1", "2", "3"}, false, held)
	awaitReady(admin, queue, 7)
	expectNone(one)
	two := consume(perConsumer, queue, false)
	others := take(two, 3)
	sameDeliveries("second consumer", []string{"4", "5", "6"}, false, others)
	awaitReady(admin, queue, 4)
	check(held[0].Ack(false))
	sameDeliveries("after an ack", []string{"7"}, false, take(one, 1))
	expectNone(one)
	check(others[1].Ack(false))
	sameDeliveries("after an ack", []string{"8"}, false, take(two, 1))
	expectNone(two)
	awaitReady(admin, queue, 2)
	// A get is not subject to the limit.
	same("get beside exhausted consumers", "9", string(getOne(perConsumer, queue).Body))
	check(perConsumer.Close())
	awaitReady(admin, queue, 8)

	// The limit is shared by all consumers of the channel.
	perChannel := must(connection.Channel())
	check(perChannel.Qos(4, 0, true))
	other := s.queue("other")
	declareQueue(admin, other, false, nil)
	publish(admin, "", other, "a", "b", "c")
	left := consume(perChannel, queue, false)
	shared := take(left, 4)
	sameDeliveries("first consumer", []string{"2", "3", "4", "6"}, true, shared)
	right := consume(perChannel, other, false)
	awaitReady(admin, queue, 4)
	awaitReady(admin, other, 3)
	expectNone(right)
	expectNone(left)
	// Either consumer may get what the acks make room for, but no more than that.
	ready := func(count int) func() bool {
		return func() bool { return inspect(admin, queue).Messages+inspect(admin, other).Messages == count }
	}
	check(shared[1].Ack(true))
	await("two more are delivered", ready(5))
	check(shared[3].Ack(true))
	await("again two more are delivered", ready(3))
	// Zero lifts the limit, for what is already being consumed, too.
	check(perChannel.Qos(0, 0, true))
	await("everything is delivered", ready(0))
	sameDeliveries("second consumer", []string{"a", "b", "c"}, false, take(right, 3))
	same("first consumer", []string{"7", "8", "9", "10"}, bodies(take(left, 4)))
}

func get(s *scope) {
	connection := s.connect()
	channel := must(connection.Channel())
	queue := s.queue("transient")
	declareQueue(channel, queue, false, nil)
	expectEmpty(channel, queue)
	confirmed(channel, "", queue, amqp.Publishing{ContentType: "text/plain", MessageId: "m-1", Body: []byte("1")})
	publish(channel, "", queue, "2", "3")

	got := getOne(channel, queue)
	got.Acknowledger = nil
	same("get-ok", amqp.Delivery{
		Body: []byte("1"), ContentType: "text/plain", MessageId: "m-1", MessageCount: 2, DeliveryTag: 1, RoutingKey: queue,
	}, got)
	unacknowledged, _, err := channel.Get(queue, true)
	check(err)
	same("get without ack", []any{"2", uint32(1), uint64(2)},
		[]any{string(unacknowledged.Body), unacknowledged.MessageCount, unacknowledged.DeliveryTag})
	last := getOne(channel, queue)
	same("last get", []any{"3", uint32(0), uint64(3)}, []any{string(last.Body), last.MessageCount, last.DeliveryTag})
	expectEmpty(channel, queue)
	check(last.Ack(false))
	check(channel.Close())

	second := must(connection.Channel())
	back := getOne(second, queue)
	same("message of the closed channel", []any{"1", true, uint32(0)},
		[]any{string(back.Body), back.Redelivered, back.MessageCount})
	check(back.Ack(false))
	publish(second, "", queue, "purged", "purged")
	same("purged", 2, must(second.QueuePurge(queue, false)))
	expectEmpty(second, queue)
}

func rejectRequeue(s *scope) {
	channel := s.channel()
	queue := s.queue("durable")
	declareQueue(channel, queue, true, nil)
	publish(channel, "", queue, strings.Split("1 2 3 4 5", " ")...)

	got := getSome(channel, queue, 3)
	sameDeliveries("messages", []string{"1", "2", "3"}, false, got)
	check(got[1].Reject(true))
	again := getOne(channel, queue)
	sameDeliveries("rejected message", []string{"2"}, true, []amqp.Delivery{again})
	// It goes back to its own place also when later messages have returned before it.
	check(got[2].Reject(true))
	check(again.Reject(true))
	check(got[0].Reject(true))
	got = getSome(channel, queue, 4)
	sameDeliveries("messages after requeue", []string{"1", "2", "3"}, true, got[:3])
	sameDeliveries("message that was not requeued", []string{"4"}, false, got[3:])

	check(got[0].Reject(false))
	check(got[2].Nack(true, true))
	got = getSome(channel, queue, 3)
	same("messages after nack with multiple", []string{"2", "3", "5"}, bodies(got))
	check(channel.Recover(true))
	got = getSome(channel, queue, 4)
	same("messages after recover", []string{"2", "3", "4", "5"}, bodies(got))
	check(got[1].Nack(true, false))
	check(got[3].Nack(false, false))
	check(got[2].Nack(false, true))
	same("messages after nack without requeue", []string{"4"}, drain(channel, queue))
}
