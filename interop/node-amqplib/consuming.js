import assert from 'node:assert/strict'
import { until } from './harness.js'
import { awaitReady, consume, drain, getMany, publish, readyCount, sameDeliveries, text } from './scope.js'

export async function consumeAcks(scope) {
  const connection = await scope.connect()
  const channel = await connection.createConfirmChannel()
  const queue = scope.queue('durable')
  assert.deepEqual({ ...(await channel.assertQueue(queue)) }, { queue, messageCount: 0, consumerCount: 0 })
  await publish(channel, '', queue, '1', '2', '3', '4', '5', '6', '7', '8')

  const first = await connection.createChannel()
  const inbox = await consume(first, queue)
  assert.match(inbox.consumerTag, /^amq\.ctag-/)
  const messages = await inbox.takeMany(8)
  sameDeliveries(messages, ['1', '2', '3', '4', '5', '6', '7', '8'], false, 'first deliveries')
  messages.forEach((message, i) => {
    const { consumerTag, deliveryTag, exchange, routingKey } = message.fields
    assert.deepEqual([consumerTag, deliveryTag, exchange, routingKey], [inbox.consumerTag, i + 1, '', queue])
  })
  assert.equal((await channel.checkQueue(queue)).consumerCount, 1)
  first.ack(messages[1])
  first.ack(messages[3], true)
  first.ack(messages[6])
  await first.close()

  const second = await connection.createChannel()
  const again = await consume(second, queue)
  sameDeliveries(await again.takeMany(3), ['5', '6', '8'], true, 'after the channel closed')
  second.ackAll()
  await again.expectNone()
  await second.close()
  assert.deepEqual({ ...(await channel.checkQueue(queue)) }, { queue, messageCount: 0, consumerCount: 0 })

  // With automatic acknowledgement nothing comes back.
  await publish(channel, '', queue, 'taken')
  const third = await connection.createChannel()
  sameDeliveries([await (await consume(third, queue, { noAck: true })).take()], ['taken'], false)
  await third.close()
  assert.equal(await readyCount(channel, queue), 0)

  await consumerCancellation(scope, connection)
}

// The broker tells a consumer that its queue was deleted, and no deliveries follow a client's own cancel.
async function consumerCancellation(scope, connection) {
  const channel = await connection.createConfirmChannel()
  const queue = scope.queue('cancelled')
  await channel.assertQueue(queue, { durable: false })
  const inbox = await consume(channel, queue, { noAck: true, consumerTag: 'my-tag' })
  assert.equal(inbox.consumerTag, 'my-tag')
  assert.equal((await channel.cancel('my-tag')).consumerTag, 'my-tag')
  await publish(channel, '', queue, 'unseen')
  await inbox.expectNone()
  assert.deepEqual(await drain(channel, queue), ['unseen'])

  const cancelled = await consume(channel, queue, { noAck: true })
  await channel.deleteQueue(queue)
  assert.equal(await cancelled.take('cancellation'), null)
}

export async function prefetch(scope) {
  const connection = await scope.connect()
  const admin = await connection.createConfirmChannel()
  const queue = scope.queue('transient')
  await admin.assertQueue(queue, { durable: false })
  await publish(admin, '', queue, '1', '2', '3', '4', '5', '6', '7', '8', '9', '10')

  // The limit holds for each consumer that is started later.
  const perConsumer = await connection.createChannel()
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
  perConsumer.ack(held[0])
  sameDeliveries([await one.take()], ['7'], false, 'after an ack')
  await one.expectNone()
  perConsumer.ack(others[1])
  sameDeliveries([await two.take()], ['8'], false, 'after an ack')
  await two.expectNone()
  await awaitReady(admin, queue, 2)
  // A get is not subject to the limit.
  assert.equal(text(await perConsumer.get(queue)), '9')
  await perConsumer.close()
  await awaitReady(admin, queue, 8)

  // The limit is shared by all consumers of the channel.
  const perChannel = await connection.createChannel()
  await perChannel.prefetch(4, true)
  const other = scope.queue('other')
  await admin.assertQueue(other, { durable: false })
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
  perChannel.ack(shared[1], true)
  await until('two more are delivered', ready(5))
  perChannel.ack(shared[3], true)
  await until('again two more are delivered', ready(3))
  // Zero lifts the limit, for what is already being consumed, too.
  await perChannel.prefetch(0, true)
  await until('everything is delivered', ready(0))
  sameDeliveries(await right.takeMany(3), ['a', 'b', 'c'], false, 'second consumer')
  assert.deepEqual((await left.takeMany(4)).map(text), ['7', '8', '9', '10'])
}

export async function get(scope) {
  const connection = await scope.connect()
  const channel = await connection.createConfirmChannel()
  const queue = scope.queue('transient')
  await channel.assertQueue(queue, { durable: false })
  assert.equal(await channel.get(queue), false)
  channel.sendToQueue(queue, Buffer.from('1'), { contentType: 'text/plain', messageId: 'm-1' })
  await publish(channel, '', queue, '2', '3')

  const got = await channel.get(queue)
  assert.deepEqual({ ...got.fields }, { deliveryTag: 1, redelivered: false, exchange: '', routingKey: queue, messageCount: 2 })
  assert.deepEqual([text(got), got.properties.contentType, got.properties.messageId], ['1', 'text/plain', 'm-1'])
  const unacknowledged = await channel.get(queue, { noAck: true })
  const { deliveryTag, messageCount } = unacknowledged.fields
  assert.deepEqual([text(unacknowledged), deliveryTag, messageCount], ['2', 2, 1])
  const last = await channel.get(queue)
  assert.deepEqual([text(last), last.fields.deliveryTag, last.fields.messageCount], ['3', 3, 0])
  assert.equal(await channel.get(queue), false)
  channel.ack(last)
  await channel.close()

  const second = await connection.createConfirmChannel()
  const back = await second.get(queue)
  assert.deepEqual([text(back), back.fields.redelivered, back.fields.messageCount], ['1', true, 0])
  second.ack(back)
  await publish(second, '', queue, 'purged', 'purged')
  assert.equal((await second.purgeQueue(queue)).messageCount, 2)
  assert.equal(await second.get(queue), false)
}

export async function rejectRequeue(scope) {
  const channel = await scope.confirmChannel()
  const queue = scope.queue('durable')
  await channel.assertQueue(queue)
  await publish(channel, '', queue, '1', '2', '3', '4', '5')

  let got = await getMany(channel, queue, 3)
  sameDeliveries(got, ['1', '2', '3'], false, 'messages')
  channel.reject(got[1], true)
  const again = await channel.get(queue)
  sameDeliveries([again], ['2'], true, 'rejected message')
  // It goes back to its own place also when later messages have returned before it.
  channel.reject(got[2], true)
  channel.reject(again, true)
  channel.reject(got[0], true)
  got = await getMany(channel, queue, 4)
  sameDeliveries(got.slice(0, 3), ['1', '2', '3'], true, 'messages after requeue')
  sameDeliveries(got.slice(3), ['4'], false, 'message that was not requeued')

  channel.reject(got[0], false)
  channel.nack(got[2], true, true)
  got = await getMany(channel, queue, 3)
  assert.deepEqual(got.map(text), ['2', '3', '5'], 'messages after nack with multiple')
  await channel.recover()
  got = await getMany(channel, queue, 4)
  assert.deepEqual(got.map(text), ['2', '3', '4', '5'], 'messages after recover')
  channel.nack(got[1], true, false)
  channel.nack(got[3], false, false)
  channel.nack(got[2], false, true)
  assert.deepEqual(await drain(channel, queue), ['4'], 'messages after nack without requeue')
  // The messages rejected without requeue are not merely outstanding.
  await channel.close()
  assert.deepEqual(await drain(await scope.channel(), queue), [])
}
