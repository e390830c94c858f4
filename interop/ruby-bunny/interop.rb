# frozen_string_literal: true

require_relative "harness"
require "bigdecimal"
require "digest"

# The broker cuts a reply text that does not fit into a short string.
def reply_text(text) = text.bytesize > 255 ? "#{text[0, 252]}..." : text

LOCKED = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. " \
         "It could be originally declared on another connection or the exclusive property value " \
         "does not match that of the original declaration."

Interop.test("publish_confirms") do
  channel = connect.create_channel
  channel.confirm_select
  queue = channel.queue(unique("q"), durable: true)
  120.times { |i| queue.publish("message #{i}", persistent: true) }
  check(channel.wait_for_confirms, "nacked: #{channel.nacked_set.to_a}")
  equal([], channel.unconfirmed_set.to_a, "unconfirmed")
  equal(121, channel.next_publish_seq_no, "next sequence number")
  equal(120, ready(channel, queue.name), "messages in the queue")

  # The return has to come before the confirm, or a publisher would take the message for routed.
  events = Interop::Inbox.new
  confirming = connect.create_channel
  confirming.confirm_select(->(tag, multiple, nack) { events << [:confirm, tag, multiple, nack] })
  exchange = confirming.default_exchange
  exchange.on_return { |info, _, body| events << [:return, info.reply_code, body] }
  exchange.publish("nowhere", routing_key: unique("missing"), mandatory: true)
  equal([[:return, 312, "nowhere"], [:confirm, 1, false, false]], events.take(2), "events")
  check(confirming.wait_for_confirms, "the unroutable message was not acked")
end

Interop.test("consume_acks") do
  connection = connect
  channel = connection.create_channel
  queue = channel.queue(unique("q"), durable: true)
  10.times { |i| queue.publish("m#{i}", persistent: i.even?) }
  first = subscribe(queue).take(10)
  equal((0..9).map { |i| "m#{i}" }, bodies(first), "bodies")
  equal((1..10).to_a, first.map { |d| d.tag.to_i }, "delivery tags")
  equal([false], first.map(&:redelivered?).uniq, "redelivered")
  channel.ack(first[4].tag, true)
  channel.ack(first[6].tag)
  channel.close

  channel = connection.create_channel
  queue = channel.queue(queue.name, durable: true)
  equal(4, queue.message_count, "messages returned by the closed channel")
  second = subscribe(queue).take(4)
  equal(%w[m5 m7 m8 m9], bodies(second), "bodies after the channel closed")
  equal([true], second.map(&:redelivered?).uniq, "redelivered")
  channel.ack(0, true)
  channel.close
  equal(0, ready(connection.create_channel, queue.name), "messages left")
end

Interop.test("prefetch") do
  connection = connect
  channel = connection.create_channel
  queue = channel.queue(unique("q"))
  10.times { |i| queue.publish(i.to_s) }
  channel.prefetch(3)
  inbox = subscribe(queue)
  taken = inbox.take(3)
  equal(7, ready(channel, queue.name), "ready while three are unacked")
  channel.ack(taken.shift.tag)
  taken += inbox.take(1)
  equal(6, ready(channel, queue.name), "ready after an ack")
  channel.ack(taken.last.tag, true)
  equal(%w[4 5 6], bodies(inbox.take(3)), "after acking all three")
  equal(3, ready(channel, queue.name), "ready after acking all three")
  check(inbox.empty?, "more deliveries than the prefetch count allows")

  # Without global, each consumer of the channel has the limit to itself.
  other = channel.queue(unique("other"))
  10.times { |i| other.publish(i.to_s) }
  second = subscribe(other)
  equal(%w[0 1 2], bodies(second.take(3)), "second consumer")
  equal(7, ready(channel, other.name), "ready for the second consumer")

  shared = connection.create_channel
  shared.basic_qos(4, true)
  queues = Array.new(2) { |i| shared.queue(unique("shared#{i}")) }
  queues.each { |q| 5.times { |i| q.publish(i.to_s) } }
  inbox = Interop::Inbox.new
  queues.each { |q| q.subscribe(manual_ack: true) { |*delivery| inbox << Interop::Delivery.new(*delivery) } }
  deliveries = inbox.take(4)
  equal(6, queues.sum { |q| ready(shared, q.name) }, "ready while the channel's limit is used up")
  shared.ack(deliveries.first.tag)
  inbox.take(1)
  equal(5, queues.sum { |q| ready(shared, q.name) }, "ready after an ack")
  check(inbox.empty?, "more deliveries than the channel's limit allows")
end

Interop.test("get") do
  channel = connect.create_channel
  queue = channel.queue(unique("q"), durable: true)
  equal([nil, nil, nil], queue.pop, "empty queue")
  3.times { |i| queue.publish("m#{i}", message_id: "id#{i}") }
  3.times do |i|
    # Queue#pop leaves out the remaining count, so this asks the channel.
    info, properties, body = channel.basic_get(queue.name, manual_ack: true)
    equal(["m#{i}", "id#{i}"], [body, properties[:message_id]], "message")
    equal(2 - i, info.message_count, "remaining")
    equal(["", queue.name, false], [info.exchange, info.routing_key, info.redelivered], "envelope")
    equal(i + 1, info.delivery_tag.to_i, "delivery tag")
    channel.ack(info.delivery_tag)
  end
  equal([nil, nil, nil], queue.pop(manual_ack: true), "emptied queue")
end

Interop.test("reject_requeue") do
  connection = connect
  channel = connection.create_channel
  queue = channel.queue(unique("q"))
  get = -> { Interop::Delivery.new(*queue.pop(manual_ack: true)) }
  %w[a b c d].each { |body| queue.publish(body) }

  a = get.call
  channel.reject(a.tag, true)
  a = get.call
  equal(["a", true], [a.body, a.redelivered?], "after reject with requeue")
  b = get.call
  equal(["b", false], [b.body, b.redelivered?], "next message")
  c = get.call
  # Position, not arrival, decides: b goes back in front of d although c is still out.
  channel.nack(b.tag, false, true)
  b = get.call
  equal(["b", true], [b.body, b.redelivered?], "after nack with requeue")
  channel.nack(b.tag, true, true)
  again = Array.new(4) { get.call }
  equal(%w[a b c d], bodies(again), "order after nack multiple")
  equal([true, true, true, false], again.map(&:redelivered?), "redelivered after nack multiple")
  channel.reject(again[0].tag, false)
  channel.nack(again[2].tag, true, false)
  channel.nack(again[3].tag, false, true)
  channel.close

  queue = connection.create_channel.queue(queue.name)
  equal(%w[d], drain(queue), "what is left")
end

Interop.test("returns") do
  channel = connect.create_channel
  exchange = channel.direct(unique("x"), durable: true)
  returned = Interop::Inbox.new
  exchange.on_return { |info, properties, body| returned << [info, properties, body] }
  exchange.publish("dropped", routing_key: "nowhere")
  exchange.publish("\x00returned\xff".b, routing_key: "nowhere", mandatory: true, correlation_id: "c1",
                                         headers: { "answer" => 42 }, persistent: false)
  info, properties, body = returned.take_one
  equal([312, "NO_ROUTE"], [info.reply_code, info.reply_text], "reply")
  equal([exchange.name, "nowhere"], [info.exchange, info.routing_key], "envelope")
  equal(["c1", { "answer" => 42 }, 1], [properties.correlation_id, properties.headers, properties.delivery_mode],
        "properties")
  equal("\x00returned\xff".b, body.b, "body")

  queue = channel.queue(unique("q")).bind(exchange, routing_key: "somewhere")
  exchange.publish("routed", routing_key: "somewhere", mandatory: true)
  equal(%w[routed], drain(queue), "routed message")
  check(returned.empty?, "a routed or non-mandatory message was returned")
end

Interop.test("exclusive_auto_delete") do
  connection = connect
  other = connect
  channel = connection.create_channel
  exclusive = channel.queue("", exclusive: true)
  check(exclusive.name.match?(/\Aamq\.gen-[A-Za-z0-9_-]{22}\z/), "server-generated name #{exclusive.name}")
  check(channel.queue("", exclusive: true).name != exclusive.name, "server-generated names are not unique")
  # Bunny sends the name as it is, so an empty one means the last queue declared on this channel.
  channel.queue_bind("", "amq.fanout")
  named = channel.queue(unique("exclusive"), exclusive: true)
  locked = ->(queue, &operation) { raises(Bunny::ResourceLocked, reply_text(LOCKED % queue.name), &operation) }
  locked.call(named) { other.create_channel.queue_declare(named.name) }
  locked.call(exclusive) { other.queue_exists?(exclusive.name) }
  locked.call(exclusive) { other.create_channel.basic_consume(exclusive.name) }
  locked.call(exclusive) { other.create_channel.queue_delete(exclusive.name) }
  connection.close
  [exclusive, named].each do |queue|
    check(!exists?(other, :queue, queue.name), "#{queue.name} outlived its connection")
  end

  channel = other.create_channel
  queue = channel.queue(unique("auto"), auto_delete: true)
  consumers = Array.new(2) { queue.subscribe { nil } }
  consumers.first.cancel
  equal(1, queue.consumer_count, "consumers left")
  consumers.last.cancel
  eventually("auto-delete queue gone") { !exists?(other, :queue, queue.name) }

  exchange = channel.direct(unique("x"), auto_delete: true)
  queue = channel.queue(unique("q"))
  2.times { |i| queue.bind(exchange, routing_key: "key#{i}") }
  queue.unbind(exchange, routing_key: "key0")
  check(exists?(other, :exchange, exchange.name), "the exchange went with its first binding")
  queue.unbind(exchange, routing_key: "key1")
  eventually("auto-delete exchange gone") { !exists?(other, :exchange, exchange.name) }
end

# Every type Bunny can write. Its decoder drops a short last element of a table or an array, hence the order.
TABLE = {
  "true" => true, "false" => false,
  "long" => 2**62 + 1, "negative" => -(2**63), "zero" => 0,
  "float" => AMQ::Protocol::Float32Bit.new(0.5), "double" => -Math::PI, "decimal" => BigDecimal("4294967295"),
  "string" => "gr\u00fc\u00dfe".b, "empty" => "", "bytes" => (0..255).to_a.pack("C*"),
  "time" => Time.at(1_700_000_000), "void" => nil,
  "table" => { "nested" => { "deep" => 1 }, "none" => {} },
  "array" => [true, nil, 1, -2.5, "s", Time.at(0), ["inner"], { "key" => "value" }]
}.freeze

READ_TABLE = TABLE.merge("float" => 0.5).freeze

Interop.test("tables") do
  channel = connect.create_channel
  queue = channel.queue(unique("q"), durable: true)
  properties = {
    content_type: "application/octet-stream", content_encoding: "gzip", headers: TABLE, delivery_mode: 2,
    priority: 9, correlation_id: "correlation", reply_to: "reply", expiration: "60000", message_id: "id",
    timestamp: 1_700_000_000, type: "type", user_id: "guest", app_id: "app", cluster_id: "cluster"
  }
  queue.publish("body", properties.dup)
  _, got, body = queue.pop
  equal("body", body, "body")
  expected = properties.merge(headers: READ_TABLE, timestamp: Time.at(1_700_000_000))
  expected.each { |key, value| equal(value, got.to_hash[key], key.to_s) }
  equal(expected.keys.sort, got.to_hash.keys.sort, "set of properties")

  arguments = TABLE.merge("x-message-ttl" => 1_800_000)
  typed = channel.queue(unique("typed"), durable: true, arguments: arguments)
  channel.queue_declare(typed.name, durable: true, arguments: arguments)
  raises(Bunny::PreconditionFailed,
         "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '#{typed.name}' in vhost '/': " \
         "received none but current is the value '1800000' of type 'long'") do
    connect.create_channel.queue_declare(typed.name, durable: true)
  end

  # A headers exchange compares values by type, so a match proves that the binding's table came through whole.
  exchange = channel.headers(unique("headers"), arguments: TABLE)
  binding = TABLE.merge("x-match" => "all")
  typed.bind(exchange, arguments: binding)
  exchange.publish("same", headers: TABLE)
  TABLE.each_key do |key|
    # A void binding value asks for presence only, any other one for equality.
    changed = key == "void" ? TABLE.reject { |k, _| k == key } : TABLE.merge(key => "changed")
    exchange.publish("without #{key}", headers: changed)
  end
  equal(%w[same], drain(typed), "messages matching the typed binding")
  typed.unbind(exchange, arguments: binding.merge("long" => 1))
  exchange.publish("still bound", headers: TABLE)
  typed.unbind(exchange, arguments: binding)
  exchange.publish("unbound", headers: TABLE)
  equal(["still bound"], drain(typed), "after unbinding")
end

Interop.test("exchanges") do
  channel = connect.create_channel
  queues = Hash.new { |all, key| all[key] = channel.queue(unique("q.#{key}")) }
  routes = lambda do |exchange, options|
    exchange.publish("x", options)
    queues.select { |_, queue| drain(queue).tap { |got| check(got.size < 2, "duplicate") } == ["x"] }.keys
  end

  direct = channel.direct(unique("direct"), durable: true)
  queues[:a].bind(direct, routing_key: "one").bind(direct, routing_key: "two")
  queues[:b].bind(direct, routing_key: "two")
  equal(%i[a], routes.call(direct, routing_key: "one"), "direct one")
  equal(%i[a b], routes.call(direct, routing_key: "two"), "direct two")
  equal([], routes.call(direct, routing_key: "three"), "direct three")
  queues[:a].unbind(direct, routing_key: "two")
  equal(%i[b], routes.call(direct, routing_key: "two"), "direct two after unbind")

  fanout = channel.fanout(unique("fanout"))
  queues[:a].bind(fanout)
  queues[:b].bind(fanout, routing_key: "ignored")
  equal(%i[a b], routes.call(fanout, routing_key: "anything"), "fanout")

  topic = channel.topic(unique("topic"))
  { star: "*.orange.*", hash: "lazy.#", all: "#", middle: "quick.#.fox", two: "*.*" }.each do |queue, pattern|
    queues[queue].bind(topic, routing_key: pattern)
  end
  queues[:hash].bind(topic, routing_key: "*.*.rabbit")
  equal(%i[star hash all], routes.call(topic, routing_key: "lazy.orange.rabbit"), "topic lazy.orange.rabbit")
  equal(%i[star all middle], routes.call(topic, routing_key: "quick.orange.fox"), "topic quick.orange.fox")
  equal(%i[all middle two], routes.call(topic, routing_key: "quick.fox"), "topic quick.fox")
  equal(%i[hash all], routes.call(topic, routing_key: "lazy"), "topic lazy")
  equal(%i[all], routes.call(topic, routing_key: ""), "topic with an empty key")
  equal(%i[all two], routes.call(topic, routing_key: "."), "topic with two empty words")

  headers = channel.headers(unique("headers"))
  queues[:a].bind(headers, arguments: { "x-match" => "all", "kind" => "report", "pages" => 3 })
  queues[:b].bind(headers, arguments: { "x-match" => "any", "kind" => "report", "pages" => 3 })
  equal(%i[a b], routes.call(headers, headers: { "kind" => "report", "pages" => 3, "more" => true }), "headers both")
  equal(%i[b], routes.call(headers, headers: { "kind" => "report", "pages" => 4 }), "headers one of two")
  equal([], routes.call(headers, headers: { "pages" => "3" }), "headers of another type")
  equal([], routes.call(headers, {}), "no headers")

  source = channel.topic(unique("source"))
  direct.bind(source, routing_key: "two.#")
  fanout.bind(source, routing_key: "#.all")
  queues[:b].bind(direct, routing_key: "two.x.all")
  equal(%i[a b], routes.call(source, routing_key: "two.x.all"), "exchange-to-exchange, once per queue")
  equal(%i[b], routes.call(source, routing_key: "two.x.all") - %i[a], "exchange-to-exchange keeps the key")
  fanout.unbind(source, routing_key: "#.all")
  equal(%i[b], routes.call(source, routing_key: "two.x.all"), "after exchange.unbind")

  alternate = channel.fanout(unique("alternate"))
  main = channel.direct(unique("main"), arguments: { "alternate-exchange" => alternate.name })
  queues[:other].bind(alternate)
  queues[:a].bind(main, routing_key: "known")
  equal(%i[a], routes.call(main, routing_key: "known"), "routed")
  equal(%i[other], routes.call(main, routing_key: "unknown", mandatory: true), "alternate exchange")
end

Interop.test("large_message") do
  random = Random.new(1)
  large = random.bytes(10 * 1024 * 1024)
  [{}, { frame_max: 8192 }].each do |options|
    connection = connect(options)
    equal(options.fetch(:frame_max, 131_072), connection.frame_max, "negotiated frame_max")
    payload = connection.frame_max - 8
    channel = connection.create_channel
    channel.confirm_select
    queue = channel.queue(unique("q#{connection.frame_max}"), durable: true)
    # Around one and two frames' worth an off-by-one in splitting the body would show.
    sent = [large, "".b] + [payload - 1, payload, payload + 1, 2 * payload].map { |size| random.bytes(size) }
    sent.each { |body| queue.publish(body) }
    check(channel.wait_for_confirms, "not confirmed")
    got = bodies(subscribe(queue, {}).take(sent.size))
    equal(sent.map(&:bytesize), got.map(&:bytesize), "sizes")
    equal(sent.map { |body| Digest::SHA256.hexdigest(body) }, got.map { |body| Digest::SHA256.hexdigest(body) },
          "hashes")
  end
end

Interop.test("errors") do
  connection = connect
  bystander = connection.create_channel
  queue = bystander.queue(unique("q"), durable: true)
  exchange = bystander.direct(unique("x"))
  missing = "missing.#{queue.name}"
  on_channel = lambda do |error, text, &operation|
    channel = connection.create_channel
    raises(error, text) { operation.call(channel) }
    check(channel.closed?, "the channel is still open after #{text}")
    raises(Bunny::ChannelAlreadyClosed, "cannot use a closed channel! Channel id: #{channel.id}, closed due to " \
                                        "a server-reported channel error: #{text}") { channel.prefetch(1) }
  end

  no_queue = "NOT_FOUND - no queue '#{missing}' in vhost '/'"
  no_exchange = "NOT_FOUND - no exchange '#{missing}' in vhost '/'"
  on_channel.call(Bunny::NotFound, no_queue) { |ch| ch.queue_declare(missing, passive: true) }
  on_channel.call(Bunny::NotFound, no_queue) { |ch| ch.basic_consume(missing) }
  on_channel.call(Bunny::NotFound, no_queue) { |ch| ch.queue_bind(missing, "amq.direct") }
  on_channel.call(Bunny::NotFound, no_exchange) { |ch| ch.queue_bind(queue.name, missing) }
  on_channel.call(Bunny::NotFound, no_exchange) { |ch| ch.exchange_declare(missing, "direct", passive: true) }
  on_channel.call(Bunny::PreconditionFailed,
                  "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '#{queue.name}' in vhost '/': " \
                  "received 'false' but current is 'true'") { |ch| ch.queue_declare(queue.name, durable: false) }
  on_channel.call(Bunny::PreconditionFailed,
                  "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '#{queue.name}' in vhost '/': " \
                  "received the value '10' of type 'long' but current is none") do |ch|
    ch.queue_declare(queue.name, durable: true, arguments: { "x-max-length" => 10 })
  end
  on_channel.call(Bunny::PreconditionFailed,
                  "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '#{exchange.name}' in vhost '/': " \
                  "received 'topic' but current is 'direct'") { |ch| ch.exchange_declare(exchange.name, "topic") }
  on_channel.call(Bunny::AccessRefused,
                  "ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'") do |ch|
    ch.queue_declare("amq.interop")
  end
  on_channel.call(Bunny::AccessRefused,
                  "ACCESS_REFUSED - operation not permitted on the default exchange") do |ch|
    ch.queue_bind(queue.name, "")
  end

  # Bunny hands errors of methods without a reply to a callback instead of raising them.
  closed = Interop::Inbox.new
  channel = connection.create_channel
  channel.on_error { |_, close| closed << [close.reply_code, close.reply_text, close.class_id, close.method_id] }
  channel.ack(99)
  equal([406, "PRECONDITION_FAILED - unknown delivery tag 99", 60, 80], closed.take_one, "unknown delivery tag")
  check(channel.closed?, "the channel is still open after acking an unknown tag")

  queue.publish("still here")
  equal(["still here"], drain(queue), "other channels of the connection")
  check(connection.open?, "the connection closed")

  begin
    connect(password: "wrong")
    check(false, "a wrong password was accepted")
  rescue Bunny::AuthenticationFailureError
    # Bunny keeps the broker's words out of the exception but logs them.
    check(log.string.include?("403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. " \
                              "For details see the broker logfile."), "refusal: #{log.string}")
  end
  raises(Bunny::NotAllowedError, "Connection-level error: NOT_ALLOWED - vhost #{missing} not found") do
    connect(vhost: missing)
  end
end

Interop.test("transactions") do
  connection = connect
  observer = connection.create_channel
  channel = connection.create_channel
  queue = channel.queue(unique("q"), durable: true)
  channel.tx_select
  3.times { |i| queue.publish("m#{i}", persistent: true) }
  equal(0, ready(observer, queue.name), "before commit")
  channel.tx_commit
  equal(3, ready(observer, queue.name), "after commit")
  2.times { queue.publish("discarded") }
  channel.tx_rollback
  channel.tx_commit
  equal(3, ready(observer, queue.name), "after rollback")

  3.times do |i|
    info, = queue.pop(manual_ack: true)
    channel.ack(info.delivery_tag)
    i.zero? ? channel.tx_commit : channel.tx_rollback
  end
  channel.close
  equal(%w[m1 m2], drain(observer.queue(queue.name, durable: true)), "messages whose ack was rolled back")

  raises(Bunny::PreconditionFailed, "PRECONDITION_FAILED - channel is not transactional") do
    connection.create_channel.tx_commit
  end
  raises(Bunny::PreconditionFailed, "PRECONDITION_FAILED - cannot switch from tx to confirm mode") do
    connection.create_channel.tap(&:tx_select).confirm_select
  end
end

Interop.test("reconnect") do
  recovered = Interop::Inbox.new
  connection = connect(automatically_recover: true, network_recovery_interval: 0.1,
                       recovery_completed: -> { recovered << true })
  channel = connection.create_channel
  channel.prefetch(10)
  exchange = channel.fanout(unique("x"), auto_delete: true)
  durable = channel.queue(unique("q"), durable: true)
  temporary = channel.queue("", exclusive: true).bind(exchange)
  old_name = temporary.name
  inbox = subscribe(durable)
  temporary_inbox = subscribe(temporary)
  5.times { |i| durable.publish("m#{i}") }
  before = inbox.take(5)
  channel.ack(before[1].tag, true)
  # The channel handles its methods in order, so with this answer the acks are past the network.
  ready(channel, durable.name)

  connection.transport.socket.shutdown
  recovered.take_one
  after = inbox.take(3)
  equal(%w[m2 m3 m4], bodies(after), "redelivered bodies")
  equal([true], after.map(&:redelivered?).uniq, "redelivered")
  channel.ack(after.last.tag, true)
  durable.publish("fresh")
  fresh = inbox.take_one
  equal(["fresh", false], [fresh.body, fresh.redelivered?], "first new message")
  channel.ack(fresh.tag)

  # Exclusive queues die with the connection; Bunny declares and binds a successor under a new name.
  check(temporary.name != old_name, "the server-named queue kept its name")
  exchange.publish("to the successor")
  equal("to the successor", temporary_inbox.take_one.body, "recovered binding and consumer")
  channel.close
  equal(0, ready(connection.create_channel, durable.name), "messages left")
end

Interop.test("tutorials") do
  hello = lambda do
    queue = connect.create_channel.queue(unique("hello"))
    inbox = subscribe(queue, {})
    connect.create_channel.default_exchange.publish("Hello World!", routing_key: queue.name)
    equal("Hello World!", inbox.take_one.body, "hello")
  end

  work_queue = lambda do
    name = unique("task_queue")
    workers = Array.new(2) do
      channel = connect.create_channel
      channel.prefetch(1)
      [channel, subscribe(channel.queue(name, durable: true))]
    end
    queue = connect.create_channel.queue(name, durable: true)
    4.times { |i| queue.publish("task #{i}", persistent: true) }
    # Both hold one task each; whoever acks gets the next one, so a busy worker never has a backlog.
    busy = workers[0][1].take_one
    idle_channel, idle_inbox = workers[1]
    done = Array.new(3) { idle_inbox.take_one.tap { |delivery| idle_channel.ack(delivery.tag) } }
    equal((0..3).map { |i| "task #{i}" }, (bodies(done) << busy.body).sort, "tasks")
    check(workers[0][1].empty?, "the busy worker got more than one task")
    workers[0][0].ack(busy.tag)
    workers.each { |channel, _| channel.connection.close }
    equal(0, queue.message_count, "tasks left")
  end

  publish_subscribe = lambda do
    channel = connect.create_channel
    logs = channel.fanout(unique("logs"))
    inboxes = Array.new(2) { subscribe(connect.create_channel.queue("", exclusive: true).bind(logs), {}) }
    logs.publish("info: to everybody")
    inboxes.each { |inbox| equal("info: to everybody", inbox.take_one.body, "logs") }
  end

  routing = lambda do
    channel = connect.create_channel
    logs = channel.direct(unique("direct_logs"))
    errors, all = [%w[error], %w[info warning error]].map do |severities|
      queue = channel.queue("", exclusive: true)
      severities.each { |severity| queue.bind(logs, routing_key: severity) }
      subscribe(queue, {})
    end
    %w[info error warning debug].each { |severity| logs.publish("a #{severity}", routing_key: severity) }
    equal(["a info", "a error", "a warning"], bodies(all.take(3)), "all severities")
    equal("a error", errors.take_one.body, "errors only")
    check(errors.empty?, "more than the errors")
  end

  topics = lambda do
    channel = connect.create_channel
    logs = channel.topic(unique("topic_logs"))
    kern, critical = ["kern.*", "*.critical"].map do |key|
      subscribe(channel.queue("", exclusive: true).bind(logs, routing_key: key), {})
    end
    %w[kern.info cron.critical kern.critical cron.info].each { |key| logs.publish(key, routing_key: key) }
    equal(%w[kern.info kern.critical], bodies(kern.take(2)), "kern.*")
    equal(%w[cron.critical kern.critical], bodies(critical.take(2)), "*.critical")
  end

  fibonacci = ->(n) { n < 2 ? n : fibonacci.call(n - 1) + fibonacci.call(n - 2) }
  rpc = lambda do |reply_queue|
    server = connect.create_channel
    requests = server.queue(unique("rpc_queue"))
    requests.subscribe(manual_ack: true) do |info, properties, body|
      server.default_exchange.publish(fibonacci.call(Integer(body)).to_s, routing_key: properties.reply_to,
                                                                         correlation_id: properties.correlation_id)
      server.ack(info.delivery_tag)
    end

    channel = connect.create_channel
    callback = reply_queue.call(channel)
    replies = subscribe(callback, {})
    [[10, "55"], [7, "13"]].each do |argument, result|
      id = SecureRandom.uuid
      channel.default_exchange.publish(argument.to_s, routing_key: requests.name, correlation_id: id,
                                                      reply_to: callback.name)
      reply = replies.take_one
      equal([result, id], [reply.body, reply.properties.correlation_id], "RPC reply through #{callback.name}")
    end
  end

  confirms = lambda do
    channel = connect.create_channel
    channel.confirm_select
    queue = channel.queue("", exclusive: true)
    queue.publish("one by one")
    check(channel.wait_for_confirms, "a single message was nacked")
    50.times { |i| queue.publish("batch #{i}") }
    check(channel.wait_for_confirms, "a message of the batch was nacked")
    equal(51, queue.message_count, "confirmed messages")
  end

  hello.call
  work_queue.call
  publish_subscribe.call
  routing.call
  topics.call
  rpc.call(->(channel) { channel.queue("", exclusive: true) })
  rpc.call(->(channel) { channel.queue("amq.rabbitmq.reply-to", no_declare: true) })
  confirms.call
end

exit Interop.run_all(ARGV.fetch(0), Integer(ARGV.fetch(1)))
