import assert from 'node:assert/strict'
import amqp from 'amqplib'
import { Inbox, Names, replies, until, within } from './harness.js'

// The connections and the broker objects of one case.
export class Scope extends Names {
  #connections = []

  constructor(host, port, caseName) {
    super('amqplib', caseName)
    this.address = { protocol: 'amqp', hostname: host, port, username: 'guest', password: 'guest', vhost: '/' }
  }

  async connect(settings = {}, options = {}) {
    const connection = await amqp.connect(
      { ...this.address, ...settings },
      { timeout: 5_000, clientProperties: { connection_name: `${this.prefix}connection` }, ...options },
    )
    // An error event without a listener is an exception; the cases that expect one listen themselves.
    connection.on('error', () => {})
    this.#connections.push(connection)
    return connection
  }

  async channel() {
    return (await this.connect()).createChannel()
  }

  async confirmChannel() {
    return (await this.connect()).createConfirmChannel()
  }

  async close() {
    // One that is closed already refuses; what a case expects of its connections it checks itself.
    await Promise.allSettled(this.#connections.map((connection) => within(connection.close(), 'close-ok', 2_000)))
    const connection = await amqp.connect(this.address, { timeout: 5_000 })
    const channel = await connection.createChannel()
    for (const queue of this.queues) await channel.deleteQueue(queue)
    for (const exchange of this.exchanges) await channel.deleteExchange(exchange)
    await connection.close()
  }
}

export const text = (message) => message.content.toString()

export async function consume(channel, queue, options) {
  const inbox = new Inbox()
  const { consumerTag } = await channel.consume(queue, inbox.push, options)
  return Object.assign(inbox, { consumerTag })
}

// Publishes on a confirm channel, so that the messages are in their queues when this returns.
export async function publish(channel, exchange, key, ...messages) {
  for (const message of messages) channel.publish(exchange, key, Buffer.from(message))
  await channel.waitForConfirms()
}

export async function drain(channel, queue) {
  const messages = []
  for (let message; (message = await channel.get(queue, { noAck: true })); ) messages.push(text(message))
  return messages
}

export async function getMany(channel, queue, count) {
  const messages = []
  while (messages.length < count) {
    const message = await channel.get(queue)
    assert(message, `${queue} has only ${messages.length} messages instead of ${count}`)
    messages.push(message)
  }
  return messages
}

export const readyCount = async (channel, queue) => (await channel.checkQueue(queue)).messageCount

export const awaitReady = (channel, queue, count) =>
  until(`${queue} has ${count} ready messages`, async () => (await readyCount(channel, queue)) === count)

// Checks bodies, order and the redelivered flag of each.
export function sameDeliveries(messages, expected, redelivered, what) {
  assert.deepEqual(
    messages.map((message) => [text(message), message.fields.redelivered]),
    expected.map((body) => [body, redelivered]),
    what,
  )
}

// Checks that the broker closes the channel, and nothing but the channel, with exactly this reply.
export async function channelError(connection, [code, reply, classId, methodId], action) {
  const channel = await connection.createChannel()
  const errors = new Inbox()
  let closed = false
  const onClose = () => (closed = true)
  connection.once('close', onClose)
  channel.on('error', errors.push)
  // A synchronous method rejects, an asynchronous one does not; the error event reports both.
  const result = Promise.resolve(action(channel)).catch(() => {})
  const error = await errors.take(`channel.close ${reply}`)
  await result
  assert.deepEqual([error.code, error.classId, error.methodId], [code, classId, methodId], error.message)
  assert(error.message.endsWith(` with message "${reply}"`), `expected ${reply} but got ${error.message}`)
  await (await connection.createChannel()).close()
  assert(!closed, `a channel error closed the connection: ${reply}`)
  connection.off('close', onClose)
}

export const queueGone = (connection, queue) =>
  channelError(connection, [404, replies.noQueue(queue), 50, 10], (channel) => channel.checkQueue(queue))

// For queues that go in the background, after the reply to what makes them go.
export async function awaitQueueGone(connection, queue) {
  await until(`${queue} is gone`, async () => {
    const channel = await connection.createChannel()
    channel.on('error', () => {})
    try {
      await channel.checkQueue(queue)
    } catch (error) {
      return error.code === 404
    }
    await channel.close()
    return false
  })
  await queueGone(connection, queue)
}

export const exchangeGone = (connection, exchange) =>
  channelError(connection, [404, replies.noExchange(exchange), 40, 10], (channel) => channel.checkExchange(exchange))
