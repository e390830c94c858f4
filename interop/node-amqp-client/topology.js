import assert from 'node:assert/strict'
import { Inbox, replies, topicKeys, topicMatches } from '../node-amqplib/harness.js'
import {
  awaitQueueGone, channelError, consume, drain, exchangeGone, inspect, publish, queueGone, texts,
} from './scope.js'

export async function exclusiveAutoDelete(scope) {
  const owner = await scope.connect()
  const other = await scope.connect()
  const channel = await owner.channel()
  await channel.confirmSelect()

  const { name: exclusive } = await channel.queueDeclare()
  assert.match(exclusive, /^amq\.gen-[A-Za-z0-9_-]{22}$/)
  await publish(channel, '', exclusive, 'mine')
  assert.deepEqual(await drain(await owner.channel(), exclusive), ['mine'])
  const locked = [405, replies.locked(exclusive)]
  await channelError(other, locked, (channel) => inspect(channel, exclusive))
  await channelError(other, locked, (channel) => channel.basicConsume(exclusive, {}, () => {}))
  await channelError(other, locked, (channel) => channel.queueDelete(exclusive))

  // An empty queue name stands for the queue last declared on the channel.
  const { name: bound } = await channel.queueDeclare('')
  await channel.queueBind('', 'amq.direct', `${bound}.key`)
  await publish(channel, 'amq.direct', `${bound}.key`, 'to the last declared')
  assert.deepEqual(await drain(channel, ''), ['to the last declared'])
  await channelError(owner, [404, 'NOT_FOUND - no previously declared queue'], (channel) => channel.basicGet(''))

  const named = scope.queue('named-exclusive')
  await channel.queueDeclare(named, { exclusive: true, durable: true })
  await owner.close()
  await queueGone(other, exclusive)
  await queueGone(other, bound)
  await queueGone(other, named)

  const survivor = await other.channel()
  const autoDelete = scope.queue('auto-delete')
  await survivor.queueDeclare(autoDelete, { autoDelete: true, durable: false })
  const { consumer } = await consume(survivor, autoDelete)
  const closing = await other.channel()
  await consume(closing, autoDelete)
  await consumer.cancel()
  assert.equal((await inspect(survivor, autoDelete)).consumerCount, 1)
  await closing.close()
  await awaitQueueGone(other, autoDelete)

  const exchange = scope.exchange('auto-delete')
  const left = scope.queue('left')
  const right = scope.queue('right')
  await survivor.exchangeDeclare(exchange, 'direct', { autoDelete: true, durable: false })
  await survivor.queueDeclare(left, { durable: false })
  await survivor.queueDeclare(right)
  await survivor.queueBind(left, exchange, 'key')
  await survivor.queueBind(right, exchange, 'key')
  await survivor.queueUnbind(left, exchange, 'key')
  await survivor.exchangeDeclare(exchange, 'direct', { passive: true })
  await survivor.queueDelete(right)
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
  return (await channel.queueDeclare(scope.queue(suffix), { durable: false })).name
}

async function directExchange(scope, channel) {
  const exchange = scope.exchange('direct')
  await channel.exchangeDeclare(exchange, 'direct')
  const one = await declareQueue(scope, channel, 'direct.1')
  const two = await declareQueue(scope, channel, 'direct.2')
  await channel.queueBind(one, exchange, 'a')
  await channel.queueBind(one, exchange, 'b')
  await channel.queueBind(two, exchange, 'b')
  await channel.queueBind(two, exchange, 'b')
  for (const key of ['a', 'b', '*']) await publish(channel, exchange, key, `to ${key}`)
  assert.deepEqual(await drain(channel, one), ['to a', 'to b'], 'direct: both keys')
  assert.deepEqual(await drain(channel, two), ['to b'], 'direct: one key, bound twice')
  await channel.queueUnbind(one, exchange, 'b')
  await publish(channel, exchange, 'b', 'after unbind')
  assert.deepEqual(await drain(channel, one), [], 'direct: unbound')
  assert.deepEqual(await drain(channel, two), ['after unbind'], 'direct: still bound')
  // Unbinding what is not bound is no error.
  await channel.queueUnbind(one, exchange, 'b')
}

async function fanoutExchange(scope, channel) {
  const exchange = scope.exchange('fanout')
  await channel.exchangeDeclare(exchange, 'fanout', { durable: false })
  const one = await declareQueue(scope, channel, 'fanout.1')
  const two = await declareQueue(scope, channel, 'fanout.2')
  await channel.queueBind(one, exchange, 'ignored')
  await channel.queueBind(one, exchange, 'also ignored')
  await channel.queueBind(two, exchange, '')
  await publish(channel, exchange, 'any key', 'to all')
  assert.deepEqual(await drain(channel, one), ['to all'], 'fanout: one copy despite two bindings')
  assert.deepEqual(await drain(channel, two), ['to all'], 'fanout: second queue')
}

async function topicExchange(scope, channel) {
  const exchange = scope.exchange('topic')
  await channel.exchangeDeclare(exchange, 'topic')
  const queues = {}
  for (const pattern of Object.keys(topicMatches)) {
    queues[pattern] = await declareQueue(scope, channel, `topic.${pattern}`)
    await channel.queueBind(queues[pattern], exchange, pattern)
  }
  for (const key of topicKeys) await publish(channel, exchange, key, key)
  for (const [pattern, keys] of Object.entries(topicMatches)) {
    assert.deepEqual(await drain(channel, queues[pattern]), keys, `topic: ${pattern}`)
  }
}

async function headersExchange(scope, channel) {
  const exchange = scope.exchange('headers')
  await channel.exchangeDeclare(exchange, 'headers', { durable: false })
  const all = await declareQueue(scope, channel, 'headers.all')
  const any = await declareQueue(scope, channel, 'headers.any')
  const byDefault = await declareQueue(scope, channel, 'headers.default')
  await channel.queueBind(all, exchange, '', { 'x-match': 'all', format: 'pdf', pages: 3 })
  await channel.queueBind(any, exchange, '', { 'x-match': 'any', format: 'pdf', pages: 3 })
  await channel.queueBind(byDefault, exchange, '', { format: 'pdf' })
  const both = { format: 'pdf', pages: 3, more: true }
  const headers = [both, { format: 'pdf' }, { pages: 3 }, { format: 'zip', pages: '3' }, {}, undefined]
  for (const [i, one] of headers.entries()) await channel.basicPublish(exchange, 'ignored', `${i}`, { headers: one })
  assert.deepEqual(await drain(channel, all), ['0'], 'headers: all')
  assert.deepEqual(await drain(channel, any), ['0', '1', '2'], 'headers: any')
  assert.deepEqual(await drain(channel, byDefault), ['0', '1'], 'headers: all by default')
  await channel.queueUnbind(any, exchange, '', { 'x-match': 'any', format: 'pdf', pages: 3 })
  await channel.basicPublish(exchange, '', 'after unbind', { headers: both })
  assert.deepEqual(await drain(channel, any), [], 'headers: unbound')
  assert.deepEqual(await drain(channel, all), ['after unbind'], 'headers: still bound')
}

async function exchangeToExchange(scope, channel) {
  const source = scope.exchange('source')
  const destination = scope.exchange('destination')
  await channel.exchangeDeclare(source, 'topic', { durable: false })
  await channel.exchangeDeclare(destination, 'fanout', { internal: true })
  const queue = await declareQueue(scope, channel, 'behind')
  await channel.queueBind(queue, destination, '')
  await channel.queueBind(queue, source, 'order.new')
  await channel.exchangeBind(destination, source, 'order.*')
  // A cycle must neither loop nor multiply messages.
  await channel.exchangeBind(source, destination, '#')
  await publish(channel, source, 'order.new', 'by two ways')
  await publish(channel, source, 'order.paid', 'by the exchange')
  await publish(channel, source, 'invoice.paid', 'no way')
  assert.deepEqual(await drain(channel, queue), ['by two ways', 'by the exchange'], 'exchange to exchange')
  await channel.exchangeUnbind(destination, source, 'order.*')
  await publish(channel, source, 'order.paid', 'after unbind')
  assert.deepEqual(await drain(channel, queue), [], 'exchange to exchange: unbound')

  const refused = `ACCESS_REFUSED - cannot publish to internal exchange '${destination}' in vhost '/'`
  await channelError(await scope.connect(), [403, refused], (channel) =>
    channel.basicPublish(destination, '', 'from outside'),
  )
}

async function alternateExchange(scope, channel) {
  const fallback = scope.exchange('fallback')
  const exchange = scope.exchange('main')
  await channel.exchangeDeclare(exchange, 'direct', {}, { 'alternate-exchange': fallback })
  const routed = await declareQueue(scope, channel, 'routed')
  const unrouted = await declareQueue(scope, channel, 'unrouted')
  await channel.queueBind(routed, exchange, 'known')

  const returned = new Inbox()
  channel.onReturn = returned.push
  await channel.basicPublish(exchange, 'unknown', 'no alternate exchange yet', {}, true)
  assert.deepEqual(texts(await returned.takeMany(1)), ['no alternate exchange yet'])
  await channel.exchangeDeclare(fallback, 'fanout')
  await channel.queueBind(unrouted, fallback, '')
  await channel.basicPublish(exchange, 'known', 'routed', {}, true)
  await channel.basicPublish(exchange, 'unknown', 'unrouted', {}, true)
  assert.equal(returned.size, 0, 'alternate exchange: returns')
  assert.deepEqual(await drain(channel, routed), ['routed'], 'alternate exchange: routed')
  assert.deepEqual(await drain(channel, unrouted), ['unrouted'], 'alternate exchange: unrouted')
}
