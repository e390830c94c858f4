import assert from 'node:assert/strict'
import { Inbox, within } from '../node-amqplib/harness.js'
import { channelError, drain, publish, readyCount } from './scope.js'

export async function publishConfirms(scope) {
  const channel = await scope.confirmChannel()
  const queue = scope.queue('durable')
  await channel.queueDeclare(queue)

  const sent = Array.from({ length: 200 }, (_, i) => `message ${i + 1}`)
  const acks = sent.map((body) => channel.basicPublish('', queue, body, { deliveryMode: 2 }))
  assert.deepEqual(await within(Promise.all(acks), 'acks'), Array.from(sent, (_, i) => i + 1), 'acked delivery tags')
  assert.equal(await readyCount(channel, queue), sent.length)
  assert.deepEqual(await drain(channel, queue), sent)

  // An unroutable message is confirmed too, and if it is mandatory, returned before that.
  const events = new Inbox()
  channel.onReturn = (message) => events.push(`return ${message.bodyString()}`)
  const missing = scope.queue('missing')
  channel.basicPublish('', missing, 'unroutable', {}, true).then((tag) => events.push(`ack ${tag}`))
  channel.basicPublish('', missing, 'dropped').then((tag) => events.push(`ack ${tag}`))
  assert.deepEqual(await events.takeMany(3), ['return unroutable', 'ack 201', 'ack 202'])
}

export async function returns(scope) {
  const channel = await scope.channel()
  const returned = new Inbox()
  channel.onReturn = returned.push
  const exchange = scope.exchange('direct')
  const queue = scope.queue('bound')
  await channel.exchangeDeclare(exchange, 'direct', { durable: false })
  await channel.queueDeclare(queue, { durable: false })
  await channel.queueBind(queue, exchange, 'bound')

  const properties = {
    contentType: 'text/plain', deliveryMode: 2, messageId: 'm-1', timestamp: new Date(1_700_000_000_000), headers: { n: 42 },
  }
  await channel.basicPublish(exchange, 'unbound', 'come back', properties, true)
  const back = await returned.take('return')
  assert.deepEqual(
    [back.replyCode, back.replyText, back.exchange, back.routingKey, back.bodyString()],
    [312, 'NO_ROUTE', exchange, 'unbound', 'come back'],
  )
  assert.deepEqual(back.properties, properties)

  await channel.basicPublish('', scope.queue('missing'), null, {}, true)
  const empty = await returned.take('return')
  assert.deepEqual([empty.exchange, empty.bodySize], ['', 0])

  // Neither a routable message nor one that is not mandatory comes back.
  await channel.confirmSelect()
  await publish(channel, exchange, 'unbound', 'drop')
  await channel.basicPublish(exchange, 'bound', 'routed', {}, true)
  assert.equal(returned.size, 0)
  assert.deepEqual(await drain(channel, queue), ['routed'])
}

export async function transactions(scope) {
  const observer = await scope.channel()
  const channel = await scope.channel()
  const queue = scope.queue('durable')
  await channel.queueDeclare(queue)
  await channel.txSelect()

  await channel.basicPublish('', queue, 'committed 1', { deliveryMode: 2 })
  await channel.basicPublish('', queue, 'committed 2')
  // The declare-ok shows that the broker has read the publishes and still holds them back.
  assert.equal(await readyCount(channel, queue), 0, 'messages before commit')
  await channel.txCommit()
  assert.equal(await readyCount(observer, queue), 2, 'messages after commit')

  await channel.basicPublish('', queue, 'rolled back')
  await channel.txRollback()
  await channel.txCommit()
  assert.equal(await readyCount(observer, queue), 2, 'messages after rollback')

  // A rolled back acknowledgement leaves the message unacknowledged and outstanding; a committed one settles it.
  const { deliveryTag } = await channel.basicGet(queue, { noAck: false })
  await channel.basicAck(deliveryTag)
  await channel.txRollback()
  assert.equal(await readyCount(observer, queue), 1, 'ready messages while one is outstanding')
  await channel.basicAck(deliveryTag)
  await channel.txCommit()
  await (await channel.basicGet(queue, { noAck: false })).ack()
  await channel.close()
  assert.deepEqual(await drain(observer, queue), ['committed 2'], 'messages whose acknowledgement was not committed')

  const connection = await scope.connect()
  await channelError(connection, [406, 'PRECONDITION_FAILED - channel is not transactional'], (channel) => channel.txCommit())
  await channelError(connection, [406, 'PRECONDITION_FAILED - cannot switch from confirm to tx mode'], async (channel) => {
    await channel.confirmSelect()
    await channel.txSelect()
  })
}
