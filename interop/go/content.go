package main

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// fullTable has every type that this client can write.
func fullTable() amqp.Table {
	return amqp.Table{
		"true":         true,
		"false":        false,
		"int8":         int8(math.MinInt8),
		"uint8":        uint8(math.MaxUint8),
		"int16":        int16(math.MinInt16),
		"uint16":       uint16(math.MaxUint16),
		"int32":        int32(math.MinInt32),
		"uint32":       uint32(math.MaxUint32),
		"int64":        int64(math.MinInt64),
		"max int64":    int64(math.MaxInt64),
		"float32":      float32(0.1),
		"float64":      math.Pi,
		"decimal":      amqp.Decimal{Scale: 4, Value: 123456789},
		"string":       "Grüße, 兎 🐇",
		"empty string": "",
		"long string":  strings.Repeat("x", 3000),
		"byte array":   []byte{0, 1, 0xce, 0xff},
		"timestamp":    time.Unix(1_700_000_000, 0).UTC(),
		// One field at most, as the client writes fields in random order and the broker sorts outer tables only.
		"table":                  amqp.Table{"deep": amqp.Table{"deeper": []any{amqp.Table{"deepest": true}}}},
		"table of void":          amqp.Table{"void": nil},
		"empty table":            amqp.Table{},
		"array":                  []any{int32(1), int64(2), "three", true, nil, []any{}, []byte{4}, amqp.Table{"k": "v"}},
		"void":                   nil,
		"":                       "the empty name",
		"name with spaces and ü": int16(1),
	}
}

// comparableValue levels what DeepEqual would tell apart though it means the same: the location of times, and empty
// against nil arrays.
func comparableValue(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		result := amqp.Table{}
		for key, element := range v {
			result[key] = comparableValue(element)
		}
		return result
	case []any:
		result := []any{}
		for _, element := range v {
			result = append(result, comparableValue(element))
		}
		return result
	case time.Time:
		return v.UTC()
	}
	return value
}

func sameTable(what string, expected, actual amqp.Table) {
	same(what, comparableValue(expected), comparableValue(actual))
}

func tables(s *scope) {
	channel := s.channel()
	properties(s, channel)
	rewritten(s, channel)
	arguments(s, channel)
}

func properties(s *scope, channel *amqp.Channel) {
	queue := s.queue("properties")
	declareQueue(channel, queue, true, nil)
	deliveries := consume(channel, queue, true)
	// cluster-id is the one property that this client does not offer.
	for _, sent := range []amqp.Publishing{
		{
			ContentType: "application/json", ContentEncoding: "gzip", Headers: fullTable(), DeliveryMode: amqp.Persistent,
			Priority: 9, CorrelationId: "correlation", ReplyTo: "reply", Expiration: "600000", MessageId: "message",
			Timestamp: time.Unix(1_600_000_000, 0).UTC(), Type: "type", UserId: "guest", AppId: "app", Body: []byte{1},
		},
		{Headers: amqp.Table{"only": "header"}, AppId: "a", Body: []byte{2}},
		{Body: []byte{3}},
	} {
		send(channel, "", queue, sent)
		got := receive("delivery", deliveries)
		sameTable("headers", sent.Headers, got.Headers)
		sent.Headers = nil
		same("properties", sent, amqp.Publishing{
			ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, DeliveryMode: got.DeliveryMode,
			Priority: got.Priority, CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo, Expiration: got.Expiration,
			MessageId: got.MessageId, Timestamp: utc(got.Timestamp), Type: got.Type, UserId: got.UserId, AppId: got.AppId,
			Body: got.Body,
		})
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// To take out BCC, the broker has to write the headers itself.
func rewritten(s *scope, channel *amqp.Channel) {
	open, blind := s.queue("open"), s.queue("blind")
	declareQueue(channel, open, false, nil)
	declareQueue(channel, blind, false, nil)
	headers, expected := fullTable(), fullTable()
	headers["CC"], expected["CC"] = []any{"nowhere"}, []any{"nowhere"}
	headers["BCC"] = []any{blind}
	send(channel, "", open, amqp.Publishing{Headers: headers, Priority: 3, Type: "t", Body: []byte{1, 2, 3}})
	for _, queue := range []string{open, blind} {
		got := receive("delivery", consume(channel, queue, true))
		sameTable("headers without BCC", expected, got.Headers)
		same("delivery", []any{[]byte{1, 2, 3}, uint8(3), "t", open}, []any{got.Body, got.Priority, got.Type, got.RoutingKey})
	}
}

func arguments(s *scope, channel *amqp.Channel) {
	args := fullTable()
	args["x-message-ttl"], args["x-max-length"] = int32(600_000), int64(1000)
	queue := s.queue("arguments")
	declareQueue(channel, queue, true, args)
	declareQueue(channel, queue, true, args)
	// The width of an integer makes no difference.
	args["x-message-ttl"], args["x-max-length"] = int64(600_000), int16(1000)
	declareQueue(channel, queue, true, args)
	args["x-message-ttl"] = int32(5)
	channelError(s.connect(), amqp.PreconditionFailed, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '"+
		queue+"' in vhost '/': received '5' but current is '600000'", func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(queue, true, false, false, false, args)
		return err
	})

	exchange := s.exchange("arguments")
	declareExchange(channel, exchange, "direct", true, fullTable())
	declareExchange(channel, exchange, "direct", true, fullTable())

	// The arguments are part of a binding's identity: only equal ones take it away.
	altered := fullTable()
	altered["int64"] = int64(0)
	bind(channel, queue, "key", exchange, fullTable())
	check(channel.QueueUnbind(queue, "key", exchange, altered))
	check(channel.QueueUnbind(queue, "key", exchange, nil))
	publish(channel, exchange, "key", "bound")
	check(channel.QueueUnbind(queue, "key", exchange, fullTable()))
	publish(channel, exchange, "key", "unbound")
	same("messages", []string{"bound"}, drain(channel, queue))

	consumerArguments := fullTable()
	consumerArguments["x-priority"] = int32(5)
	deliveries := must(channel.Consume(queue, "", true, false, false, false, consumerArguments))
	publish(channel, "", queue, "consumed")
	sameDeliveries("message for a consumer with arguments", []string{"consumed"}, false, take(deliveries, 1))
}

func largeMessage(s *scope) {
	connection := s.connect()
	same("negotiated frame_max", 131_072, connection.Config.FrameSize)
	roundTrips(connection, s.queue("large"))

	config := s.config()
	config.FrameSize = 8192
	small := s.connectWith(config)
	same("lowered frame_max", 8192, small.Config.FrameSize)
	roundTrips(small, s.queue("small frames"))
}

func roundTrips(connection *amqp.Connection, queue string) {
	channel := must(connection.Channel())
	declareQueue(channel, queue, false, nil)
	deliveries := consume(channel, queue, false)
	frame := connection.Config.FrameSize - 8
	random := rand.New(rand.NewSource(42))
	for _, size := range []int{10 << 20, 0, 1, frame - 1, frame, frame + 1, 2 * frame} {
		body := make([]byte, size)
		random.Read(body)
		send(channel, "", queue, amqp.Publishing{Body: body})
		delivery := receive("delivery", deliveries)
		same("body size", size, len(delivery.Body))
		same(fmt.Sprintf("hash of a body of %d bytes", size), sha256.Sum256(body), sha256.Sum256(delivery.Body))
		check(delivery.Ack(false))
	}
}
