import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { channelError, consume, drain, publish } from './scope.js'
import { replies } from './harness.js'

const typed = (type, value) => ({ '!': type, value })

// Every type that this client can write: what is sent, and as what it reads it.
const fields = {
  true: [true, true],
  false: [false, false],
  'guessed byte': [-128, -128],
  'guessed short': [-32768, -32768],
  'guessed int': [-(2 ** 31), -(2 ** 31)],
  'guessed long': [Number.MIN_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
  'guessed double': [Math.PI, Math.PI],
  int8: [typed('int8', -128), -128],
  uint8: [typed('uint8', 255), 255],
  int16: [typed('int16', -32768), -32768],
  uint16: [typed('uint16', 65535), 65535],
  int32: [typed('int32', -(2 ** 31)), -(2 ** 31)],
  uint32: [typed('uint32', 2 ** 32 - 1), 2 ** 32 - 1],
  int64: [typed('int64', -(2n ** 63n)), -(2 ** 63)],
  'small int64': [typed('int64', 1), 1],
  float: [typed('float', 0.1), Math.fround(0.1)],
  double: [typed('double', 2), 2],
  decimal: [typed('decimal', { places: 4, digits: 123456789 }), typed('decimal', { places: 4, digits: 123456789 })],
  string: ['Grüße, 兎 🐇', 'Grüße, 兎 🐇'],
  'empty string': ['', ''],
  'long string': ['x'.repeat(3000), 'x'.repeat(3000)],
  'byte array': [Buffer.from([0, 1, 0xce, 0xff]), Buffer.from([0, 1, 0xce, 0xff])],
  timestamp: [typed('timestamp', 1_700_000_000), typed('timestamp', 1_700_000_000)],
  table: [
    { void: null, empty: {}, deep: { deeper: [{ deepest: true }] } },
    { void: null, empty: {}, deep: { deeper: [{ deepest: true }] } },
  ],
  array: [
    [1, 'two', true, null, [], Buffer.from([4]), { k: 'v' }],
    [1, 'two', true, null, [], Buffer.from([4]), { k: 'v' }],
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
  const { queue } = await channel.assertQueue(scope.queue('properties'))
  const inbox = await consume(channel, queue, { noAck: true })
  // cluster-id is the one property that this client does not offer.
  const all = {
    contentType: 'application/json', contentEncoding: 'gzip', deliveryMode: 2, priority: 9, correlationId: 'correlation',
    replyTo: 'reply', expiration: '600000', messageId: 'message', timestamp: 1_600_000_000, type: 'type', userId: 'guest',
    appId: 'app',
  }
  const none = Object.fromEntries(Object.keys(all).map((name) => [name, undefined]))
  channel.sendToQueue(queue, Buffer.from([1]), { ...all, headers: written() })
  assert.deepEqual({ ...(await inbox.take()).properties }, { ...all, clusterId: undefined, headers: read })
  channel.sendToQueue(queue, Buffer.from([2]), { correlationId: '', headers: { only: 'header' }, priority: 0 })
  assert.deepEqual(
    { ...(await inbox.take()).properties },
    { ...none, clusterId: undefined, correlationId: '', priority: 0, headers: { only: 'header' } },
  )
}

// To take out BCC, the broker has to write the headers itself.
async function rewritten(scope, channel) {
  const { queue: open } = await channel.assertQueue(scope.queue('open'), { durable: false })
  const { queue: blind } = await channel.assertQueue(scope.queue('blind'), { durable: false })
  channel.sendToQueue(open, Buffer.from([1, 2, 3]), {
    headers: written(), CC: 'nowhere', BCC: blind, priority: 3, type: 't',
  })
  for (const queue of [open, blind]) {
    const { content, properties, fields } = await (await consume(channel, queue, { noAck: true })).take()
    assert.deepEqual([[...content], properties.priority, properties.type, fields.routingKey], [[1, 2, 3], 3, 't', open])
    assert.deepEqual(properties.headers, { ...read, CC: ['nowhere'] }, 'headers without BCC')
  }
}

async function argumentTables(scope, channel) {
  const queue = scope.queue('arguments')
  const declare = (channel, ttl, length) =>
    channel.assertQueue(queue, { arguments: written({ 'x-message-ttl': ttl, 'x-max-length': length }) })
  await declare(channel, 600_000, 1000)
  await declare(channel, 600_000, 1000)
  // The width of an integer makes no difference.
  await declare(channel, typed('int64', 600_000), typed('int32', 1000))
  const inequivalent = replies.inequivalent('queue', queue, 'x-message-ttl', "'5' but current is '600000'")
  await channelError(await scope.connect(), [406, inequivalent, 50, 10], (channel) => declare(channel, 5, 1000))

  const exchange = scope.exchange('arguments')
  await channel.assertExchange(exchange, 'direct', { arguments: written() })
  await channel.assertExchange(exchange, 'direct', { arguments: written() })

  // The arguments are part of a binding's identity: only equal ones take it away.
  await channel.bindQueue(queue, exchange, 'key', written())
  await channel.unbindQueue(queue, exchange, 'key', written({ int32: typed('int32', 0) }))
  await channel.unbindQueue(queue, exchange, 'key')
  await publish(channel, exchange, 'key', 'bound')
  await channel.unbindQueue(queue, exchange, 'key', written())
  await publish(channel, exchange, 'key', 'unbound')
  assert.deepEqual(await drain(channel, queue), ['bound'])

  const inbox = await consume(channel, queue, { noAck: true, priority: 5, arguments: written() })
  await publish(channel, '', queue, 'consumed')
  assert.equal((await inbox.take()).content.toString(), 'consumed')
}

export async function largeMessage(scope) {
  const connection = await scope.connect()
  assert.equal(connection.connection.frameMax, 131_072)
  await roundTrips(connection, scope.queue('large'))

  const small = await scope.connect({ frameMax: 8192 })
  assert.equal(small.connection.frameMax, 8192)
  await roundTrips(small, scope.queue('small frames'))
}

async function roundTrips(connection, queue) {
  const channel = await connection.createChannel()
  await channel.assertQueue(queue, { durable: false })
  const inbox = await consume(channel, queue)
  const frame = connection.connection.frameMax - 8
  for (const size of [10 * 2 ** 20, 0, 1, frame - 1, frame, frame + 1, 2 * frame]) {
    const body = randomBytes(size)
    channel.sendToQueue(queue, body)
    const message = await inbox.take()
    assert.equal(message.content.length, size)
    assert.equal(sha256(message.content), sha256(body), `hash of a body of ${size} bytes`)
    channel.ack(message)
  }
}

const sha256 = (body) => createHash('sha256').update(body).digest('hex')
