package main

import (
	"context"
	"fmt"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

// tutorials are the patterns of RabbitMQ's seven tutorials.
func tutorials(s *scope) {
	helloWorld(s)
	workQueues(s)
	publishSubscribe(s)
	routing(s)
	topics(s)
	rpc(s)
	publisherConfirms(s)
}

func helloWorld(s *scope) {
	queue := s.queue("hello")
	sender := s.connect()
	channel := must(sender.Channel())
	declareQueue(channel, queue, false, nil)
	send(channel, "", queue, text("Hello World!"))
	check(sender.Close())
	receiver := s.channel()
	declareQueue(receiver, queue, false, nil)
	sameDeliveries("hello world", []string{"Hello World!"}, false, take(consume(receiver, queue, true), 1))
}

func workQueues(s *scope) {
	queue := s.queue("task_queue")
	worker := func() (*amqp.Connection, <-chan amqp.Delivery) {
		connection := s.connect()
		channel := must(connection.Channel())
		declareQueue(channel, queue, true, nil)
		check(channel.Qos(1, 0, false))
		return connection, consume(channel, queue, false)
	}
	busyConnection, busy := worker()
	_, idle := worker()

	producer := s.channel()
	declareQueue(producer, queue, true, nil)
	for i := 1; i <= 5; i++ {
		task := text(fmt.Sprint("task ", i))
		task.DeliveryMode = amqp.Persistent
		send(producer, "", queue, task)
	}
	sameDeliveries("first worker", []string{"task 1"}, false, take(busy, 1))
	// While one worker is busy, the other gets all the rest.
	for i := 2; i <= 5; i++ {
		task := take(idle, 1)
		sameDeliveries("second worker", []string{fmt.Sprint("task ", i)}, false, task)
		expectNone(idle)
		check(task[0].Ack(false))
	}
	expectNone(busy)
	// A worker that dies leaves its task to the other.
	check(busyConnection.Close())
	inherited := take(idle, 1)
	sameDeliveries("inherited task", []string{"task 1"}, true, inherited)
	check(inherited[0].Ack(false))
	awaitReady(producer, queue, 0)
}

func subscribe(s *scope, exchange, kind string, keys ...string) <-chan amqp.Delivery {
	channel := s.channel()
	declareExchange(channel, exchange, kind, true, nil)
	queue := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	for _, key := range keys {
		bind(channel, queue, key, exchange, nil)
	}
	return consume(channel, queue, true)
}

func emit(s *scope, exchange, kind string, keys ...string) {
	channel := s.channel()
	declareExchange(channel, exchange, kind, true, nil)
	for _, key := range keys {
		send(channel, exchange, key, text(key))
	}
}

func publishSubscribe(s *scope) {
	logs := s.exchange("logs")
	one, two := subscribe(s, logs, "fanout", ""), subscribe(s, logs, "fanout", "")
	emit(s, logs, "fanout", "info")
	sameDeliveries("first subscriber", []string{"info"}, false, take(one, 1))
	sameDeliveries("second subscriber", []string{"info"}, false, take(two, 1))
}

func routing(s *scope) {
	logs := s.exchange("logs_direct")
	all, errorsOnly := subscribe(s, logs, "direct", "info", "warning", "error"), subscribe(s, logs, "direct", "error")
	emit(s, logs, "direct", "info", "error", "debug", "warning")
	sameDeliveries("all severities", []string{"info", "error", "warning"}, false, take(all, 3))
	sameDeliveries("errors only", []string{"error"}, false, take(errorsOnly, 1))
	expectNone(all)
	expectNone(errorsOnly)
}

func topics(s *scope) {
	logs := s.exchange("logs_topic")
	everything, kernel := subscribe(s, logs, "topic", "#"), subscribe(s, logs, "topic", "kern.*")
	mixed := subscribe(s, logs, "topic", "kern.*", "*.critical")
	emit(s, logs, "topic", "kern.critical", "kern.info", "auth.critical", "auth.info")
	sameDeliveries("#", []string{"kern.critical", "kern.info", "auth.critical", "auth.info"}, false, take(everything, 4))
	sameDeliveries("kern.*", []string{"kern.critical", "kern.info"}, false, take(kernel, 2))
	sameDeliveries("kern.* and *.critical", []string{"kern.critical", "kern.info", "auth.critical"}, false, take(mixed, 3))
	for _, deliveries := range []<-chan amqp.Delivery{everything, kernel, mixed} {
		expectNone(deliveries)
	}
}

func rpc(s *scope) {
	requests := s.queue("rpc_queue")
	server := s.channel()
	declareQueue(server, requests, false, nil)
	check(server.Qos(1, 0, false))
	incoming := consume(server, requests, false)
	go func() {
		// A failure here shows as a missing reply.
		for request := range incoming {
			n, _ := strconv.Atoi(string(request.Body))
			reply := text(strconv.Itoa(fibonacci(n)))
			reply.CorrelationId = request.CorrelationId
			_ = server.PublishWithContext(context.Background(), "", request.ReplyTo, false, false, reply)
			_ = request.Ack(false)
		}
	}()

	client := s.channel()
	callbackQueue := must(client.QueueDeclare("", false, false, true, false, nil)).Name
	callbacks := consume(client, callbackQueue, true)
	same("callback queue: fib(10)", "55", call(client, requests, callbackQueue, callbacks, "10"))
	same("callback queue: fib(30)", "832040", call(client, requests, callbackQueue, callbacks, "30"))

	const pseudoQueue = "amq.rabbitmq.reply-to"
	direct := s.channel()
	replies := consume(direct, pseudoQueue, true)
	same("direct reply-to: fib(10)", "55", call(direct, requests, pseudoQueue, replies, "10"))
	same("direct reply-to: fib(20)", "6765", call(direct, requests, pseudoQueue, replies, "20"))
}

func call(channel *amqp.Channel, requests, replyTo string, replies <-chan amqp.Delivery, argument string) string {
	request := text(argument)
	request.CorrelationId, request.ReplyTo = "call "+argument, replyTo
	send(channel, "", requests, request)
	reply := receive("reply", replies)
	same("correlation id", request.CorrelationId, reply.CorrelationId)
	return string(reply.Body)
}

func fibonacci(n int) int {
	a, b := 0, 1
	for ; n > 0; n-- {
		a, b = b, a+b
	}
	return a
}

func publisherConfirms(s *scope) {
	channel := s.channel()
	queue := must(channel.QueueDeclare("", false, false, true, false, nil)).Name
	check(channel.Confirm(false))
	for i := 1; i <= 10; i++ {
		confirmed(channel, "", queue, text("individually"))
		same("individually confirmed", i, inspect(channel, queue).Messages)
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	outstanding := []*amqp.DeferredConfirmation{}
	for i := 0; i < 100; i++ {
		confirmation := must(channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false, text("in a batch")))
		outstanding = append(outstanding, confirmation)
	}
	for _, confirmation := range outstanding {
		same("ack", true, must(confirmation.WaitContext(ctx)))
	}
	same("confirmed in a batch", 110, inspect(channel, queue).Messages)
}
