import assert from 'node:assert/strict'
import { until, within } from '../node-amqplib/harness.js'
import { awaitReady, consume, drain, getMany, inspect, publish, readyCount, sameDeliveries, texts } from './scope.js'

export async function consumeAcks(scope) {
  const connection = await scope.connect()
  const channel = await connection.channel()
  await channel.confirmSelect()
  const queue = scope.queue('durable')
  assert.deepEqual(await channel.queueDeclare(queue), { name: queue, messageCount: 0, consumerCount: 0 })
  await publish(channel, '', queue, '1', '2', '3', '4', '5', '6', '7', '8')

  const first = await connection.channel()
  const inbox = await consume(first, queue)
  assert.match(inbox.consumer.tag, /^amq\.ctag-/)
  const messages = await inbox.takeMany(8)
  sameDeliveries(messages, ['1', '2', '3', '4', '5', '6', '7', '8'], false, 'first deliveries')
  messages.forEach(({ consumerTag, deliveryTag, exchange, routingKey }, i) =>
    assert.deepEqual([consumerTag, deliveryTag, exchange, routingKey], [inbox.consumer.tag, i + 1, '', queue]),
  )
  assert.equal((await inspect(channel, queue)).consumerCount, 1)
  await messages[1].ack()
  await messages[3].ack(true)
  await messages[6].ack()
  await first.close()

  const second = await connection.channel()
  const again = await consume(second, queue)
  sameDeliveries(await again.takeMany(3), ['5', '6', '8'], true, 'after the channel closed')
  // Tag 0 with multiple stands for everything outstanding.
  await second.basicAck(0, true)
  await again.expectNone()
  await second.close()
  assert.deepEqual(await inspect(channel, queue), { name: queue, messageCount: 0, consumerCount: 0 })

  // With automatic acknowledgement nothing comes back.
  await publish(channel, '', queue, 'taken')
  const third = await connection.channel()
  sameDeliveries([await (await consume(third, queue, { noAck: true })).take()], ['taken'], false)
  await third.close()
  assert.equal(await readyCount(channel, queue), 0)

  await consumerCancellation(scope, connection)
}

// The broker tells a consumer that its queue was deleted, and no deliveries follow a client's own cancel.
async function consumerCancellation(scope, connection) {
  const channel = await connection.channel()
  await channel.confirmSelect()
  const queue = scope.queue('cancelled')
  await channel.queueDeclare(queue, { durable: false })
  const inbox = await consume(channel, queue, { tag: 'my-tag', noAck: true })
  assert.equal(inbox.consumer.tag, 'my-tag')
  await inbox.consumer.cancel()
  await publish(channel, '', queue, 'unseen')
  await inbox.expectNone()
  assert.deepEqual(await drain(channel, queue), ['unseen'])

  // The iterator ends when this side cancels and throws when the broker does.
  const consumer = await channel.basicConsume(queue, { noAck: true })
  await channel.queueDelete(queue)
  await assert.rejects(within(consumer.messages.next(), 'cancellation'), { message: 'Consumer cancelled by the server' })
}

export async function prefetch(scope) {
  const connection = await scope.connect()
  const admin = await connection.channel()
  await admin.confirmSelect()
  const queue = scope.queue('transient')
  await admin.queueDeclare(queue, { durable: false })
  await publish(admin, '', queue, '1', '2', '3', '4', '5', '6', '7', '8', '9', '10')

  // The limit holds for each consumer that is started later.
  const perConsumer = await connection.channel()
  await perConsumer.prefetch(3)
  const one = await consume(perConsumer, queue)
  const held = await one.takeMany(3)
  sameDeliveries(held, ['1', '2', '3'], false, 'first consumer')
  await awaitReady(admin, queue, 7)
  await one.expectNone()
  const two = await consume(perConsumer, queue)
  const others = await two.takeMany(3)
  sameDeliveries(others, ['4', '5', '6'], false, 'second consumer')
  await awaitReady(admin, queue, 4)
  await held[0].ack()
  sameDeliveries([await one.take()], ['7'], false, 'after an ack')
  await one.expectNone()
  await others[1].ack()
  sameDeliveries([await two.take()], ['8'], false, 'after an ack')
  await two.expectNone()
  await awaitReady(admin, queue, 2)
  // A get is not subject to the limit.
  sameDeliveries(await getMany(perConsumer, queue, 1), ['9'], false, 'get beside exhausted consumers')
  await perConsumer.close()
  await awaitReady(admin, queue, 8)

  // The limit is shared by all consumers of the channel.
  const perChannel = await connection.channel()
  await perChannel.basicQos(4, 0, true)
  const other = scope.queue('other')
  await admin.queueDeclare(other, { durable: false })
  await publish(admin, '', other, 'a', 'b', 'c')
  const left = await consume(perChannel, queue)
  const shared = await left.takeMany(4)
  sameDeliveries(shared, ['2', '3', '4', '6'], true, 'first consumer')
  const right = await consume(perChannel, other)
  await awaitReady(admin, queue, 4)
  await awaitReady(admin, other, 3)
  await right.expectNone()
  await left.expectNone()
  // Either consumer may get what the acks make room for, but no more than that.
  const ready = (count) => async () => (await readyCount(admin, queue)) + (await readyCount(admin, other)) === count
  await shared[1].ack(true)
  await until('two more are delivered', ready(5))
  await shared[3].ack(true)
  await until('again two more are delivered', ready(3))
  // Zero lifts the limit, for what is already being consumed, too.
  await perChannel.basicQos(0, 0, true)
  await until('everything is delivered', ready(0))
  sameDeliveries(await right.takeMany(3), ['a', 'b', 'c'], false, 'second consumer')
  assert.deepEqual(texts(await left.takeMany(4)), ['7', '8', '9', '10'])
}

export async function get(scope) {
  const connection = await scope.connect()
  const channel = await connection.channel()
  await channel.confirmSelect()
  const queue = scope.queue('transient')
  await channel.queueDeclare(queue, { durable: false })
  assert.equal(await channel.basicGet(queue), null)
  const properties = { contentType: 'text/plain', messageId: 'm-1' }
  await channel.basicPublish('', queue, '1', properties)
  await publish(channel, '', queue, '2', '3')

  const got = await channel.basicGet(queue, { noAck: false })
  assert.deepEqual(
    [got.bodyString(), got.deliveryTag, got.redelivered, got.exchange, got.routingKey, got.messageCount],
    ['1', 1, false, '', queue, 2],
  )
  assert.deepEqual(got.properties, properties)
  const unacknowledged = await channel.basicGet(queue, { noAck: true })
  const { deliveryTag, messageCount } = unacknowledged
  assert.deepEqual([unacknowledged.bodyString(), deliveryTag, messageCount], ['2', 2, 1])
  const last = await channel.basicGet(queue, { noAck: false })
  assert.deepEqual([last.bodyString(), last.deliveryTag, last.messageCount], ['3', 3, 0])
  assert.equal(await channel.basicGet(queue), null)
  await last.ack()
  await channel.close()

  const second = await connection.channel()
  await second.confirmSelect()
  const back = await second.basicGet(queue, { noAck: false })
  assert.deepEqual([back.bodyString(), back.redelivered, back.messageCount], ['1', true, 0])
  await back.ack()
  await publish(second, '', queue, 'purged', 'purged')
  assert.deepEqual(await second.queuePurge(queue), { messageCount: 2 })
  assert.equal(await second.basicGet(queue), null)
}

export async function rejectRequeue(scope) {
  const channel = await scope.confirmChannel()
  const queue = scope.queue('durable')
  await channel.queueDeclare(queue)
  await publish(channel, '', queue, '1', '2', '3', '4', '5')

  let got = await getMany(channel, queue, 3)
  sameDeliveries(got, ['1', '2', '3'], false, 'messages')
  await got[1].reject(true)
  const again = await channel.basicGet(queue, { noAck: false })
  sameDeliveries([again], ['2'], true, 'rejected message')
  // It goes back to its own place also when later messages have returned before it.
  await got[2].reject(true)
  await again.reject(true)
  await got[0].reject(true)
  got = await getMany(channel, queue, 4)
  sameDeliveries(got.slice(0, 3), ['1', '2', '3'], true, 'messages after requeue')
  sameDeliveries(got.slice(3), ['4'], false, 'message that was not requeued')

  await got[0].reject(false)
  await got[2].nack(true, true)
  got = await getMany(channel, queue, 3)
  assert.deepEqual(texts(got), ['2', '3', '5'], 'messages after nack with multiple')
  await channel.basicRecover(true)
  got = await getMany(channel, queue, 4)
  assert.deepEqual(texts(got), ['2', '3', '4', '5'], 'messages after recover')
  await got[1].nack(false, true)
  await got[3].nack(false, false)
  await got[2].nack(true, false)
  assert.deepEqual(await drain(channel, queue), ['4'], 'messages after nack without requeue')
  // The messages rejected without requeue are not merely outstanding.
  await channel.close()
  assert.deepEqual(await drain(await scope.channel(), queue), [])
}
