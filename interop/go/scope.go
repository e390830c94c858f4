package main

import (
	"fmt"
	"math/rand"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// scope holds the connections and the broker objects of one case.
type scope struct {
	address     string
	prefix      string
	connections []*amqp.Connection
	queues      []string
	exchanges   []string
}

func newScope(address, caseName string) *scope {
	random := rand.New(rand.NewSource(time.Now().UnixNano()))
	return &scope{address: address, prefix: fmt.Sprintf("interop.go.%s.%08x.", caseName, random.Uint32())}
}

func (s *scope) url(userinfo string) string {
	return "amqp://" + userinfo + "@" + s.address + "/"
}

func (s *scope) config() amqp.Config {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(s.prefix + "connection")
	return amqp.Config{Vhost: "/", Locale: "en_US", Properties: properties, Dial: amqp.DefaultDial(5 * time.Second)}
}

func (s *scope) connect() *amqp.Connection {
	return s.connectWith(s.config())
}

func (s *scope) connectWith(config amqp.Config) *amqp.Connection {
	connection := must(amqp.DialConfig(s.url("guest:guest"), config))
	s.connections = append(s.connections, connection)
	return connection
}

// channel opens a channel on a connection of its own.
func (s *scope) channel() *amqp.Channel {
	return must(s.connect().Channel())
}

// queue makes a unique name; a queue that exists under it at the end of the case is deleted.
func (s *scope) queue(suffix string) string {
	s.queues = append(s.queues, s.prefix+suffix)
	return s.prefix + suffix
}

// exchange makes a unique name; an exchange that exists under it at the end of the case is deleted.
func (s *scope) exchange(suffix string) string {
	s.exchanges = append(s.exchanges, s.prefix+suffix)
	return s.prefix + suffix
}

func (s *scope) close() {
	for _, connection := range s.connections {
		// It may be closed already; what a case expects of its connections it checks itself.
		_ = connection.CloseDeadline(time.Now().Add(2 * time.Second))
	}
	connection := must(amqp.DialConfig(s.url("guest:guest"), s.config()))
	defer connection.Close()
	channel := must(connection.Channel())
	for _, queue := range s.queues {
		must(channel.QueueDelete(queue, false, false, false))
	}
	for _, exchange := range s.exchanges {
		check(channel.ExchangeDelete(exchange, false, false))
	}
}
