import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { replies } from '../node-amqplib/harness.js'
import { channelError, consume, drain, publish, texts } from './scope.js'

// Every type that this client can write: what is sent, and as what it reads it. The client chooses the width of a number
// by its size and writes no decimals.
const fields = {
  true: [true, true],
  false: [false, false],
  int32: [-(2 ** 31), -(2 ** 31)],
  'zero int32': [0, 0],
  int64: [Number.MIN_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
  'bigint as int64': [-(2n ** 62n), -(2 ** 62)],
  float: [0.1, Math.fround(0.1)],
  double: [2 ** 33 + 0.5, 2 ** 33 + 0.5],
  string: ['Grüße, 兎 🐇', 'Grüße, 兎 🐇'],
  'empty string': ['', ''],
  'long string': ['x'.repeat(1000), 'x'.repeat(1000)],
  'byte array': [Uint8Array.of(0, 1, 0xce, 0xff), Uint8Array.of(0, 1, 0xce, 0xff)],
  timestamp: [new Date(1_700_000_000_000), new Date(1_700_000_000_000)],
  table: [
    { void: null, empty: {}, deep: { deeper: [{ deepest: true }] } },
    { void: null, empty: {}, deep: { deeper: [{ deepest: true }] } },
  ],
  array: [
    [1, 'two', true, null, undefined, [], Uint8Array.of(4), { k: 'v' }],
    [1, 'two', true, null, null, [], Uint8Array.of(4), { k: 'v' }],
  ],
  void: [null, null],
  '': ['the empty name', 'the empty name'],
  'name with spaces and ü': [1, 1],
}
const written = (changes = {}) => ({ ...Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, v[0]])), ...changes })
const read = Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, v[1]]))

export async function tables(scope) {
  const channel = await scope.confirmChannel()
  await properties(scope, channel)
  await rewritten(scope, channel)
  await argumentTables(scope, channel)
}

async function properties(scope, channel) {
  const { name: queue } = await channel.queueDeclare(scope.queue('properties'))
  const inbox = await consume(channel, queue, { noAck: true })
  // cluster-id is the one property that this client does not offer.
  const all = {
    contentType: 'application/json', contentEncoding: 'gzip', deliveryMode: 2, priority: 9, correlationId: 'correlation',
    replyTo: 'reply', expiration: '600000', messageId: 'message', timestamp: new Date(1_600_000_000_000), type: 'type',
    userId: 'guest', appId: 'app',
  }
  await channel.basicPublish('', queue, Uint8Array.of(1), { ...all, headers: written() })
  assert.deepEqual((await inbox.take()).properties, { ...all, headers: read })
  await channel.basicPublish('', queue, Uint8Array.of(2), { headers: {}, appId: 'a' })
  assert.deepEqual((await inbox.take()).properties, { headers: {}, appId: 'a' })
  await channel.basicPublish('', queue, Uint8Array.of(3))
  assert.deepEqual((await inbox.take()).properties, {})
}

// To take out BCC, the broker has to write the headers itself.
async function rewritten(scope, channel) {
  const { name: open } = await channel.queueDeclare(scope.queue('open'), { durable: false })
  const { name: blind } = await channel.queueDeclare(scope.queue('blind'), { durable: false })
  const headers = written({ CC: ['nowhere'], BCC: [blind] })
  await channel.basicPublish('', open, Uint8Array.of(1, 2, 3), { headers, priority: 3, type: 't' })
  for (const queue of [open, blind]) {
    const message = await (await consume(channel, queue, { noAck: true })).take()
    assert.deepEqual([[...message.body], message.routingKey], [[1, 2, 3], open])
    assert.deepEqual(message.properties, { headers: { ...read, CC: ['nowhere'] }, priority: 3, type: 't' })
  }
}

async function argumentTables(scope, channel) {
  const queue = scope.queue('arguments')
  const declare = (channel, ttl, length) =>
    channel.queueDeclare(queue, {}, written({ 'x-message-ttl': ttl, 'x-max-length': length }))
  await declare(channel, 600_000, 1000)
  await declare(channel, 600_000, 1000)
  // The width of an integer makes no difference.
  await declare(channel, 600_000n, 1000n)
  const inequivalent = replies.inequivalent('queue', queue, 'x-message-ttl', "'5' but current is '600000'")
  await channelError(await scope.connect(), [406, inequivalent], (channel) => declare(channel, 5, 1000))

  const exchange = scope.exchange('arguments')
  await channel.exchangeDeclare(exchange, 'direct', {}, written())
  await channel.exchangeDeclare(exchange, 'direct', {}, written())

  // The arguments are part of a binding's identity: only equal ones take it away.
  await channel.queueBind(queue, exchange, 'key', written())
  await channel.queueUnbind(queue, exchange, 'key', written({ int32: 0 }))
  await channel.queueUnbind(queue, exchange, 'key')
  await publish(channel, exchange, 'key', 'bound')
  await channel.queueUnbind(queue, exchange, 'key', written())
  await publish(channel, exchange, 'key', 'unbound')
  assert.deepEqual(await drain(channel, queue), ['bound'])

  const inbox = await consume(channel, queue, { noAck: true, args: written({ 'x-priority': 5 }) })
  await publish(channel, '', queue, 'consumed')
  assert.deepEqual(texts(await inbox.takeMany(1)), ['consumed'])
}

export async function largeMessage(scope) {
  // This client asks for the smallest frames unless told otherwise.
  const connection = await scope.connect()
  assert.equal(connection.frameMax, 8192)
  await roundTrips(connection, scope.queue('small frames'))

  const large = await scope.connect({ frameMax: 131_072 })
  assert.equal(large.frameMax, 131_072)
  await roundTrips(large, scope.queue('large'))
}

async function roundTrips(connection, queue) {
  const channel = await connection.channel()
  await channel.queueDeclare(queue, { durable: false })
  const inbox = await consume(channel, queue)
  const frame = connection.frameMax - 8
  for (const size of [10 * 2 ** 20, 0, 1, frame - 1, frame, frame + 1, 2 * frame]) {
    const body = randomBytes(size)
    await channel.basicPublish('', queue, body)
    const message = await inbox.take()
    assert.equal(message.bodySize, size)
    assert.equal(sha256(message.body), sha256(body), `hash of a body of ${size} bytes`)
    await message.ack()
  }
}

const sha256 = (body) => createHash('sha256').update(body).digest('hex')
