package main

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func publishConfirms(s *scope) {
	channel := s.channel()
	queue := s.queue("durable")
	declareQueue(channel, queue, true, nil)
	check(channel.Confirm(false))

	const count = 200
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, count))
	sent := []string{}
	for i := 1; i <= count; i++ {
		same("publish sequence number", uint64(i), channel.GetNextPublishSeqNo())
		sent = append(sent, fmt.Sprint("message ", i))
		message := text(sent[i-1])
		message.DeliveryMode = amqp.Persistent
		send(channel, "", queue, message)
	}
	// The client hands the confirmations out one by one and in order, also those that came with multiple set.
	for i := 1; i <= count; i++ {
		same("confirmation", amqp.Confirmation{DeliveryTag: uint64(i), Ack: true}, receive("confirmation", confirms))
	}
	same("messages in the queue", count, inspect(channel, queue).Messages)
	same("messages", sent, drain(channel, queue))

	// An unroutable message is confirmed too, and if it is mandatory, returned before that. Without buffers the two
	// listeners cannot overtake each other.
	other := s.channel()
	check(other.Confirm(false))
	returned := other.NotifyReturn(make(chan amqp.Return))
	acked := other.NotifyPublish(make(chan amqp.Confirmation))
	events := make(chan string, 4)
	go func() {
		for i := 0; i < cap(events); i++ {
			select {
			case r := <-returned:
				events <- "return " + string(r.Body)
			case c := <-acked:
				events <- fmt.Sprint("confirmation ", c.DeliveryTag, " ", c.Ack)
			}
		}
	}()
	missing := s.queue("missing")
	check(other.PublishWithContext(context.Background(), "", missing, true, false, text("unroutable")))
	send(other, "", missing, text("dropped"))
	same("first event", "return unroutable", receive("return", events))
	same("second event", "confirmation 1 true", receive("confirmation", events))
	same("third event", "confirmation 2 true", receive("confirmation", events))
}

func returns(s *scope) {
	channel := s.channel()
	returned := channel.NotifyReturn(make(chan amqp.Return, 10))
	exchange, queue := s.exchange("direct"), s.queue("bound")
	declareExchange(channel, exchange, "direct", false, nil)
	declareQueue(channel, queue, false, nil)
	bind(channel, queue, "bound", exchange, nil)

	timestamp := time.Unix(1_700_000_000, 0)
	check(channel.PublishWithContext(context.Background(), exchange, "unbound", true, false, amqp.Publishing{
		Headers: amqp.Table{"n": int32(42)}, ContentType: "text/plain", DeliveryMode: amqp.Persistent, MessageId: "m-1",
		Timestamp: timestamp, Body: []byte("come back"),
	}))
	back := receive("return", returned)
	if !back.Timestamp.Equal(timestamp) {
		failf("returned timestamp: %v", back.Timestamp)
	}
	back.Timestamp = time.Time{}
	same("basic.return", amqp.Return{
		ReplyCode: amqp.NoRoute, ReplyText: "NO_ROUTE", Exchange: exchange, RoutingKey: "unbound",
		Headers: amqp.Table{"n": int32(42)}, ContentType: "text/plain", DeliveryMode: amqp.Persistent, MessageId: "m-1",
		Body: []byte("come back"),
	}, back)

	check(channel.PublishWithContext(context.Background(), "", s.queue("missing"), true, false, amqp.Publishing{}))
	back = receive("return", returned)
	same("returned by the default exchange", []any{"", 0}, []any{back.Exchange, len(back.Body)})

	// Neither a routable message nor one that is not mandatory comes back.
	check(channel.Confirm(false))
	send(channel, exchange, "unbound", text("drop"))
	routed := must(channel.PublishWithDeferredConfirm(exchange, "bound", true, false, text("routed")))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	same("ack", true, must(routed.WaitContext(ctx)))
	same("further returns", 0, len(returned))
	same("routed messages", []string{"routed"}, drain(channel, queue))
}

func transactions(s *scope) {
	observer, channel := s.channel(), s.channel()
	queue := s.queue("durable")
	declareQueue(channel, queue, true, nil)
	check(channel.Tx())

	send(channel, "", queue, text("committed 1"))
	send(channel, "", queue, text("committed 2"))
	// The declare-ok shows that the broker has read the publishes and still holds them back.
	same("messages before commit", 0, inspect(channel, queue).Messages)
	check(channel.TxCommit())
	same("messages after commit", 2, inspect(observer, queue).Messages)

	send(channel, "", queue, text("rolled back"))
	check(channel.TxRollback())
	check(channel.TxCommit())
	same("messages after rollback", 2, inspect(observer, queue).Messages)

	// A rolled back acknowledgement leaves the message unacknowledged and outstanding; a committed one settles it.
	first := getOne(channel, queue)
	check(first.Ack(false))
	check(channel.TxRollback())
	same("ready messages while one is outstanding", 1, inspect(observer, queue).Messages)
	check(first.Ack(false))
	check(channel.TxCommit())
	check(getOne(channel, queue).Ack(false))
	check(channel.Close())
	same("messages whose acknowledgement was not committed", []string{"committed 2"}, drain(observer, queue))

	connection := s.connect()
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - channel is not transactional",
		func(channel *amqp.Channel) error { return channel.TxCommit() })
	channelError(connection, amqp.PreconditionFailed, "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
		func(channel *amqp.Channel) error {
			check(channel.Confirm(false))
			return channel.Tx()
		})
}
