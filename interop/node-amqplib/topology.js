import assert from 'node:assert/strict'
import { Inbox, replies, topicKeys, topicMatches } from './harness.js'
import { awaitQueueGone, channelError, consume, drain, exchangeGone, publish, queueGone, text } from './scope.js'

export async function exclusiveAutoDelete(scope) {
  const owner = await scope.connect()
  const other = await scope.connect()
  const channel = await owner.createConfirmChannel()

  // The client declares queues as durable by default, these too.
  const exclusive = (await channel.assertQueue('', { exclusive: true })).queue
  assert.match(exclusive, /^amq\.gen-[A-Za-z0-9_-]{22}$/)
  await publish(channel, '', exclusive, 'mine')
  assert.deepEqual(await drain(await owner.createChannel(), exclusive), ['mine'])
  const locked = replies.locked(exclusive)
  await channelError(other, [405, locked, 50, 10], (channel) => channel.checkQueue(exclusive))
  await channelError(other, [405, locked, 60, 20], (channel) => channel.consume(exclusive, () => {}))
  await channelError(other, [405, locked, 50, 40], (channel) => channel.deleteQueue(exclusive))

  // An empty queue name stands for the queue last declared on the channel.
  const bound = (await channel.assertQueue('', { exclusive: true, durable: false })).queue
  await channel.bindQueue('', 'amq.direct', `${bound}.key`)
  await publish(channel, 'amq.direct', `${bound}.key`, 'to the last declared')
  assert.deepEqual(await drain(channel, ''), ['to the last declared'])
  await channelError(owner, [404, 'NOT_FOUND - no previously declared queue', 60, 70], (channel) => channel.get(''))

  const named = scope.queue('named-exclusive')
  await channel.assertQueue(named, { exclusive: true })
  await owner.close()
  await queueGone(other, exclusive)
  await queueGone(other, bound)
  await queueGone(other, named)

  const survivor = await other.createChannel()
  const autoDelete = scope.queue('auto-delete')
  await survivor.assertQueue(autoDelete, { autoDelete: true, durable: false })
  const { consumerTag } = await consume(survivor, autoDelete)
  const closing = await other.createChannel()
  await consume(closing, autoDelete)
  await survivor.cancel(consumerTag)
  assert.equal((await survivor.checkQueue(autoDelete)).consumerCount, 1)
  await closing.close()
  await awaitQueueGone(other, autoDelete)

  const exchange = scope.exchange('auto-delete')
  const left = scope.queue('left')
  const right = scope.queue('right')
  await survivor.assertExchange(exchange, 'direct', { autoDelete: true, durable: false })
  await survivor.assertQueue(left, { durable: false })
  await survivor.assertQueue(right)
  await survivor.bindQueue(left, exchange, 'key')
  await survivor.bindQueue(right, exchange, 'key')
  await survivor.unbindQueue(left, exchange, 'key')
  await survivor.checkExchange(exchange)
  await survivor.deleteQueue(right)
  await exchangeGone(other, exchange)
}

export async function exchanges(scope) {
  const channel = await scope.confirmChannel()
  await directExchange(scope, channel)
  await fanoutExchange(scope, channel)
  await topicExchange(scope, channel)
  await headersExchange(scope, channel)
  await exchangeToExchange(scope, channel)
  await alternateExchange(scope, channel)
}

async function declareQueue(scope, channel, suffix) {
  return (await channel.assertQueue(scope.queue(suffix), { durable: false })).queue
}

async function directExchange(scope, channel) {
  const { exchange } = await channel.assertExchange(scope.exchange('direct'), 'direct')
  const one = await declareQueue(scope, channel, 'direct.1')
  const two = await declareQueue(scope, channel, 'direct.2')
  await channel.bindQueue(one, exchange, 'a')
  await channel.bindQueue(one, exchange, 'b')
  await channel.bindQueue(two, exchange, 'b')
  await channel.bindQueue(two, exchange, 'b')
  for (const key of ['a', 'b', '*']) await publish(channel, exchange, key, `to ${key}`)
  assert.deepEqual(await drain(channel, one), ['to a', 'to b'], 'direct: both keys')
  assert.deepEqual(await drain(channel, two), ['to b'], 'direct: one key, bound twice')
  await channel.unbindQueue(one, exchange, 'b')
  await publish(channel, exchange, 'b', 'after unbind')
  assert.deepEqual(await drain(channel, one), [], 'direct: unbound')
  assert.deepEqual(await drain(channel, two), ['after unbind'], 'direct: still bound')
  // Unbinding what is not bound is no error.
  await channel.unbindQueue(one, exchange, 'b')

  // CC and BCC are further routing keys; only CC reaches the consumer.
  await channel.bindQueue(one, exchange, 'copy')
  channel.publish(exchange, 'b', Buffer.from('copied'), { CC: 'copy', BCC: ['blind'] })
  await channel.bindQueue(one, exchange, 'blind')
  channel.publish(exchange, 'nowhere', Buffer.from('blind copy'), { BCC: ['blind'] })
  await channel.waitForConfirms()
  const copy = await channel.get(one, { noAck: true })
  assert.deepEqual([text(copy), copy.fields.routingKey, copy.properties.headers], ['copied', 'b', { CC: ['copy'] }])
  const blind = await channel.get(one, { noAck: true })
  assert.deepEqual([text(blind), blind.properties.headers], ['blind copy', {}])
}

async function fanoutExchange(scope, channel) {
  const { exchange } = await channel.assertExchange(scope.exchange('fanout'), 'fanout', { durable: false })
  const one = await declareQueue(scope, channel, 'fanout.1')
  const two = await declareQueue(scope, channel, 'fanout.2')
  await channel.bindQueue(one, exchange, 'ignored')
  await channel.bindQueue(one, exchange, 'also ignored')
  await channel.bindQueue(two, exchange, '')
  await publish(channel, exchange, 'any key', 'to all')
  assert.deepEqual(await drain(channel, one), ['to all'], 'fanout: one copy despite two bindings')
  assert.deepEqual(await drain(channel, two), ['to all'], 'fanout: second queue')
}

async function topicExchange(scope, channel) {
  const { exchange } = await channel.assertExchange(scope.exchange('topic'), 'topic')
  const queues = {}
  for (const pattern of Object.keys(topicMatches)) {
    queues[pattern] = await declareQueue(scope, channel, `topic.${pattern}`)
    await channel.bindQueue(queues[pattern], exchange, pattern)
  }
  for (const key of topicKeys) await publish(channel, exchange, key, key)
  for (const [pattern, keys] of Object.entries(topicMatches)) {
    assert.deepEqual(await drain(channel, queues[pattern]), keys, `topic: ${pattern}`)
  }
}

async function headersExchange(scope, channel) {
  const { exchange } = await channel.assertExchange(scope.exchange('headers'), 'headers', { durable: false })
  const all = await declareQueue(scope, channel, 'headers.all')
  const any = await declareQueue(scope, channel, 'headers.any')
  const byDefault = await declareQueue(scope, channel, 'headers.default')
  await channel.bindQueue(all, exchange, '', { 'x-match': 'all', format: 'pdf', pages: 3 })
  await channel.bindQueue(any, exchange, '', { 'x-match': 'any', format: 'pdf', pages: 3 })
  await channel.bindQueue(byDefault, exchange, '', { format: 'pdf' })
  const both = { format: 'pdf', pages: 3, more: true }
  const headers = [both, { format: 'pdf' }, { pages: 3 }, { format: 'zip', pages: '3' }, {}, undefined]
  headers.forEach((headers, i) => channel.publish(exchange, 'ignored', Buffer.from(`${i}`), { headers }))
  await channel.waitForConfirms()
  assert.deepEqual(await drain(channel, all), ['0'], 'headers: all')
  assert.deepEqual(await drain(channel, any), ['0', '1', '2'], 'headers: any')
  assert.deepEqual(await drain(channel, byDefault), ['0', '1'], 'headers: all by default')
  await channel.unbindQueue(any, exchange, '', { 'x-match': 'any', format: 'pdf', pages: 3 })
  channel.publish(exchange, '', Buffer.from('after unbind'), { headers: both })
  await channel.waitForConfirms()
  assert.deepEqual(await drain(channel, any), [], 'headers: unbound')
  assert.deepEqual(await drain(channel, all), ['after unbind'], 'headers: still bound')
}

async function exchangeToExchange(scope, channel) {
  const { exchange: source } = await channel.assertExchange(scope.exchange('source'), 'topic', { durable: false })
  const { exchange: destination } = await channel.assertExchange(scope.exchange('destination'), 'fanout', { internal: true })
  const queue = await declareQueue(scope, channel, 'behind')
  await channel.bindQueue(queue, destination, '')
  await channel.bindQueue(queue, source, 'order.new')
  await channel.bindExchange(destination, source, 'order.*')
  // A cycle must neither loop nor multiply messages.
  await channel.bindExchange(source, destination, '#')
  await publish(channel, source, 'order.new', 'by two ways')
  await publish(channel, source, 'order.paid', 'by the exchange')
  await publish(channel, source, 'invoice.paid', 'no way')
  assert.deepEqual(await drain(channel, queue), ['by two ways', 'by the exchange'], 'exchange to exchange')
  await channel.unbindExchange(destination, source, 'order.*')
  await publish(channel, source, 'order.paid', 'after unbind')
  assert.deepEqual(await drain(channel, queue), [], 'exchange to exchange: unbound')

  const refused = `ACCESS_REFUSED - cannot publish to internal exchange '${destination}' in vhost '/'`
  await channelError(await scope.connect(), [403, refused, 60, 40], (channel) =>
    channel.publish(destination, '', Buffer.from('from outside')),
  )
}

async function alternateExchange(scope, channel) {
  const fallback = scope.exchange('fallback')
  const { exchange } = await channel.assertExchange(scope.exchange('main'), 'direct', { alternateExchange: fallback })
  const routed = await declareQueue(scope, channel, 'routed')
  const unrouted = await declareQueue(scope, channel, 'unrouted')
  await channel.bindQueue(routed, exchange, 'known')

  const returned = new Inbox()
  channel.on('return', returned.push)
  channel.publish(exchange, 'unknown', Buffer.from('no alternate exchange yet'), { mandatory: true })
  assert.equal(text(await returned.take('return')), 'no alternate exchange yet')
  await channel.assertExchange(fallback, 'fanout')
  await channel.bindQueue(unrouted, fallback, '')
  channel.publish(exchange, 'known', Buffer.from('routed'), { mandatory: true })
  channel.publish(exchange, 'unknown', Buffer.from('unrouted'), { mandatory: true })
  await channel.waitForConfirms()
  assert.equal(returned.size, 0, 'alternate exchange: returns')
  assert.deepEqual(await drain(channel, routed), ['routed'], 'alternate exchange: routed')
  assert.deepEqual(await drain(channel, unrouted), ['unrouted'], 'alternate exchange: unrouted')
}
