import assert from 'node:assert/strict'
import { Inbox, NotApplicable, within } from './harness.js'
import { drain, readyCount, text } from './scope.js'

export async function publishConfirms(scope) {
  const channel = await scope.confirmChannel()
  const queue = scope.queue('durable')
  await channel.assertQueue(queue, { durable: true })

  const sent = Array.from({ length: 200 }, (_, i) => `message ${i + 1}`)
  const acks = sent.map(
    (body) =>
      new Promise((resolve, reject) => {
        channel.sendToQueue(queue, Buffer.from(body), { persistent: true }, (nack) => (nack ? reject(nack) : resolve()))
      }),
  )
  await within(Promise.all(acks), 'acks')
  assert.equal(await readyCount(channel, queue), sent.length)
  assert.deepEqual(await drain(channel, queue), sent)

  // An unroutable message is confirmed too, and if it is mandatory, returned before that.
  const events = new Inbox()
  channel.on('return', (message) => events.push(`return ${text(message)}`))
  const confirmed = (body) => (nack) => events.push(`${nack ? 'nack' : 'ack'} ${body}`)
  const missing = scope.queue('missing')
  channel.sendToQueue(missing, Buffer.from('unroutable'), { mandatory: true }, confirmed('unroutable'))
  channel.sendToQueue(missing, Buffer.from('dropped'), {}, confirmed('dropped'))
  assert.deepEqual(await events.takeMany(3), ['return unroutable', 'ack unroutable', 'ack dropped'])
}

export async function returns(scope) {
  const channel = await scope.confirmChannel()
  const returned = new Inbox()
  channel.on('return', returned.push)
  const exchange = scope.exchange('direct')
  const queue = scope.queue('bound')
  await channel.assertExchange(exchange, 'direct', { durable: false })
  await channel.assertQueue(queue, { durable: false })
  await channel.bindQueue(queue, exchange, 'bound')

  channel.publish(exchange, 'unbound', Buffer.from('come back'), {
    mandatory: true, contentType: 'text/plain', persistent: true, messageId: 'm-1', timestamp: 1_700_000_000,
    headers: { n: 42 },
  })
  const back = await returned.take('return')
  assert.deepEqual(back.fields, { replyCode: 312, replyText: 'NO_ROUTE', exchange, routingKey: 'unbound' })
  const { contentType, deliveryMode, messageId, timestamp, headers, priority } = back.properties
  assert.deepEqual(
    { contentType, deliveryMode, messageId, timestamp, headers, priority },
    {
      contentType: 'text/plain', deliveryMode: 2, messageId: 'm-1', timestamp: 1_700_000_000, headers: { n: 42 },
      priority: undefined,
    },
  )
  assert.equal(text(back), 'come back')

  channel.sendToQueue(scope.queue('missing'), Buffer.alloc(0), { mandatory: true })
  const empty = await returned.take('return')
  assert.deepEqual([empty.fields.exchange, empty.content.length], ['', 0])

  // Neither a routable message nor one that is not mandatory comes back.
  channel.publish(exchange, 'unbound', Buffer.from('drop'))
  channel.publish(exchange, 'bound', Buffer.from('routed'), { mandatory: true })
  await channel.waitForConfirms()
  assert.equal(returned.size, 0)
  assert.deepEqual(await drain(channel, queue), ['routed'])
}

export async function transactions() {
  throw new NotApplicable('amqplib has no tx methods')
}
