package main

import (
	"context"
	"fmt"
	"regexp"

	amqp "github.com/rabbitmq/amqp091-go"
)

func exclusiveAutoDelete(s *scope) {
	owner, other := s.connect(), s.connect()
	channel := must(owner.Channel())

	exclusive := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	if !regexp.MustCompile(`^amq\.gen-[A-Za-z0-9_-]{22}$`).MatchString(exclusive) {
		failf("server-generated name: %s", exclusive)
	}
	publish(channel, "", exclusive, "mine")
	same("messages of the exclusive queue", []string{"mine"}, drain(must(owner.Channel()), exclusive))
	locked := "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + exclusive +
		"' in vhost '/'. It could be originally declared on another connection or the exclusive property value" +
		" does not match that of the original declaration."
	channelError(other, amqp.ResourceLocked, locked, declarePassive(exclusive))
	channelError(other, amqp.ResourceLocked, locked, func(channel *amqp.Channel) error {
		_, err := channel.Consume(exclusive, "", true, false, false, false, nil)
		return err
	})
	channelError(other, amqp.ResourceLocked, locked, func(channel *amqp.Channel) error {
		_, err := channel.QueueDelete(exclusive, false, false, false)
		return err
	})

	// An empty queue name stands for the queue last declared on the channel.
	bound := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	bind(channel, "", bound+".key", "amq.direct", nil)
	publish(channel, "amq.direct", bound+".key", "to the last declared")
	same("get with an empty name", []string{"to the last declared"}, drain(channel, ""))
	channelError(owner, amqp.NotFound, "NOT_FOUND - no previously declared queue", func(channel *amqp.Channel) error {
		_, _, err := channel.Get("", true)
		return err
	})

	durable := s.queue("durable-exclusive")
	must(channel.QueueDeclare(durable, true, false, true, false, nil))
	check(owner.Close())
	queueGone(other, exclusive)
	queueGone(other, bound)
	queueGone(other, durable)

	survivor := must(other.Channel())
	autoDelete := s.queue("auto-delete")
	must(survivor.QueueDeclare(autoDelete, false, true, false, false, nil))
	must(survivor.Consume(autoDelete, "tag", true, false, false, false, nil))
	closing := must(other.Channel())
	consume(closing, autoDelete, true)
	check(survivor.Cancel("tag", false))
	same("consumers of the auto-delete queue", 1, inspect(survivor, autoDelete).Consumers)
	check(closing.Close())
	awaitQueueGone(other, autoDelete)

	exchange, left, right := s.exchange("auto-delete"), s.queue("left"), s.queue("right")
	check(survivor.ExchangeDeclare(exchange, "direct", false, true, false, false, nil))
	declareQueue(survivor, left, false, nil)
	declareQueue(survivor, right, true, nil)
	bind(survivor, left, "key", exchange, nil)
	bind(survivor, right, "key", exchange, nil)
	check(survivor.QueueUnbind(left, "key", exchange, nil))
	check(survivor.ExchangeDeclarePassive(exchange, "direct", false, true, false, false, nil))
	must(survivor.QueueDelete(right, false, false, false))
	exchangeGone(other, exchange)
}

func exchanges(s *scope) {
	channel := s.channel()
	directExchange(s, channel)
	fanoutExchange(s, channel)
	topicExchange(s, channel)
	headersExchange(s, channel)
	exchangeToExchange(s, channel)
	alternateExchange(s, channel)
}

func directExchange(s *scope, channel *amqp.Channel) {
	exchange, one, two := s.exchange("direct"), s.queue("direct.1"), s.queue("direct.2")
	declareExchange(channel, exchange, "direct", true, nil)
	declareQueue(channel, one, false, nil)
	declareQueue(channel, two, false, nil)
	bind(channel, one, "a", exchange, nil)
	bind(channel, one, "b", exchange, nil)
	bind(channel, two, "b", exchange, nil)
	bind(channel, two, "b", exchange, nil)
	for _, key := range []string{"a", "b", "*"} {
		publish(channel, exchange, key, "to "+key)
	}
	same("direct: both keys", []string{"to a", "to b"}, drain(channel, one))
	same("direct: one key, bound twice", []string{"to b"}, drain(channel, two))
	check(channel.QueueUnbind(one, "b", exchange, nil))
	publish(channel, exchange, "b", "after unbind")
	same("direct: unbound", []string{}, drain(channel, one))
	same("direct: still bound", []string{"after unbind"}, drain(channel, two))
	// Unbinding what is not bound is no error.
	check(channel.QueueUnbind(one, "b", exchange, nil))
}

func fanoutExchange(s *scope, channel *amqp.Channel) {
	exchange, one, two := s.exchange("fanout"), s.queue("fanout.1"), s.queue("fanout.2")
	declareExchange(channel, exchange, "fanout", false, nil)
	declareQueue(channel, one, false, nil)
	declareQueue(channel, two, false, nil)
	bind(channel, one, "ignored", exchange, nil)
	bind(channel, one, "also ignored", exchange, nil)
	bind(channel, two, "", exchange, nil)
	publish(channel, exchange, "any key", "to all")
	same("fanout: one copy despite two bindings", []string{"to all"}, drain(channel, one))
	same("fanout: second queue", []string{"to all"}, drain(channel, two))
}

func topicExchange(s *scope, channel *amqp.Channel) {
	keys := []string{"quick.orange.rabbit", "lazy.orange", "lazy", "lazy.", "lazy.a.b.c", "rabbit", "a.z", "a.b.z",
		"a.b.c.z", ""}
	// Empty words count, but an empty key has no words at all.
	expected := []struct {
		pattern string
		keys    []string
	}{
		{"*.orange.*", []string{"quick.orange.rabbit"}},
		{"lazy.#", []string{"lazy.orange", "lazy", "lazy.", "lazy.a.b.c"}},
		{"#.rabbit", []string{"quick.orange.rabbit", "rabbit"}},
		{"*", []string{"lazy", "rabbit"}},
		{"", []string{""}},
		{"#", keys},
		{"a.#.z", []string{"a.z", "a.b.z", "a.b.c.z"}},
		{"#.*.#", keys[:len(keys)-1]},
		{"lazy.*", []string{"lazy.orange", "lazy."}},
	}
	exchange := s.exchange("topic")
	declareExchange(channel, exchange, "topic", true, nil)
	queues := make([]string, len(expected))
	for i, e := range expected {
		queues[i] = s.queue("topic." + e.pattern)
		declareQueue(channel, queues[i], false, nil)
		bind(channel, queues[i], e.pattern, exchange, nil)
	}
	for _, key := range keys {
		publish(channel, exchange, key, key)
	}
	for i, e := range expected {
		same("topic "+e.pattern, e.keys, drain(channel, queues[i]))
	}
}

func headersExchange(s *scope, channel *amqp.Channel) {
	exchange := s.exchange("headers")
	all, anyOf, byDefault := s.queue("headers.all"), s.queue("headers.any"), s.queue("headers.default")
	declareExchange(channel, exchange, "headers", false, nil)
	for _, queue := range []string{all, anyOf, byDefault} {
		declareQueue(channel, queue, false, nil)
	}
	anyArguments := amqp.Table{"x-match": "any", "format": "pdf", "pages": int32(3)}
	bind(channel, all, "", exchange, amqp.Table{"x-match": "all", "format": "pdf", "pages": int32(3)})
	bind(channel, anyOf, "", exchange, anyArguments)
	bind(channel, byDefault, "", exchange, amqp.Table{"format": "pdf"})
	both := amqp.Table{"format": "pdf", "pages": int32(3), "more": true}
	for i, headers := range []amqp.Table{
		both, {"format": "pdf"}, {"pages": int32(3)}, {"format": "zip", "pages": "3"}, {}, nil,
	} {
		message := text(fmt.Sprint(i))
		message.Headers = headers
		confirmed(channel, exchange, "ignored", message)
	}
	same("headers: all", []string{"0"}, drain(channel, all))
	same("headers: any", []string{"0", "1", "2"}, drain(channel, anyOf))
	same("headers: all by default", []string{"0", "1"}, drain(channel, byDefault))
	check(channel.QueueUnbind(anyOf, "", exchange, anyArguments))
	confirmed(channel, exchange, "", amqp.Publishing{Headers: both, Body: []byte("after unbind")})
	same("headers: unbound", []string{}, drain(channel, anyOf))
	same("headers: still bound", []string{"after unbind"}, drain(channel, all))
}

func exchangeToExchange(s *scope, channel *amqp.Channel) {
	source, destination, queue := s.exchange("source"), s.exchange("destination"), s.queue("behind")
	declareExchange(channel, source, "topic", false, nil)
	check(channel.ExchangeDeclare(destination, "fanout", true, false, true, false, nil))
	declareQueue(channel, queue, false, nil)
	bind(channel, queue, "", destination, nil)
	bind(channel, queue, "order.new", source, nil)
	check(channel.ExchangeBind(destination, "order.*", source, false, nil))
	// A cycle must neither loop nor multiply messages.
	check(channel.ExchangeBind(source, "#", destination, false, nil))
	publish(channel, source, "order.new", "by two ways")
	publish(channel, source, "order.paid", "by the exchange")
	publish(channel, source, "invoice.paid", "no way")
	same("exchange to exchange", []string{"by two ways", "by the exchange"}, drain(channel, queue))
	check(channel.ExchangeUnbind(destination, "order.*", source, false, nil))
	publish(channel, source, "order.paid", "after unbind")
	same("exchange to exchange: unbound", []string{}, drain(channel, queue))

	channelError(s.connect(), amqp.AccessRefused,
		"ACCESS_REFUSED - cannot publish to internal exchange '"+destination+"' in vhost '/'",
		func(channel *amqp.Channel) error {
			return channel.PublishWithContext(context.Background(), destination, "", false, false, text("from outside"))
		})
}

func alternateExchange(s *scope, channel *amqp.Channel) {
	fallback, primary, routed, unrouted := s.exchange("fallback"), s.exchange("main"), s.queue("routed"), s.queue("unrouted")
	declareExchange(channel, primary, "direct", true, amqp.Table{"alternate-exchange": fallback})
	declareQueue(channel, routed, false, nil)
	declareQueue(channel, unrouted, false, nil)
	bind(channel, routed, "known", primary, nil)

	returned := channel.NotifyReturn(make(chan amqp.Return, 10))
	mandatory := func(key, body string) {
		confirmation := must(channel.PublishWithDeferredConfirm(primary, key, true, false, text(body)))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		same("ack", true, must(confirmation.WaitContext(ctx)))
	}
	mandatory("unknown", "no alternate exchange yet")
	same("alternate exchange: returned while it is missing", "no alternate exchange yet",
		string(receive("return", returned).Body))
	declareExchange(channel, fallback, "fanout", true, nil)
	bind(channel, unrouted, "", fallback, nil)
	mandatory("known", "routed")
	mandatory("unknown", "unrouted")
	same("alternate exchange: returns", 0, len(returned))
	same("alternate exchange: routed", []string{"routed"}, drain(channel, routed))
	same("alternate exchange: unrouted", []string{"unrouted"}, drain(channel, unrouted))
}
