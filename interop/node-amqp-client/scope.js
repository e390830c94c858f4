import assert from 'node:assert/strict'
import { AMQPClient, AMQPSession } from '@cloudamqp/amqp-client'
import { Inbox, Names, replies, until, within } from '../node-amqplib/harness.js'

// The connections and the broker objects of one case.
export class Scope extends Names {
  #open = []

  constructor(host, port, caseName) {
    super('amqp-client', caseName)
    this.host = host
    this.port = port
  }

  url({ password = 'guest', vhost = '', ...parameters } = {}) {
    const query = new URLSearchParams({ name: `${this.prefix}connection`, ...parameters })
    return `amqp://guest:${password}@${this.host}:${this.port}/${encodeURIComponent(vhost)}?${query}`
  }

  // The low-level API: a connection without recovery.
  async connect(settings) {
    const client = new AMQPClient(this.url(settings))
    await within(client.connect(), 'connection')
    this.#open.push(() => client.close())
    return client
  }

  async channel() {
    return (await this.connect()).channel()
  }

  async confirmChannel() {
    const channel = await this.channel()
    await channel.confirmSelect()
    return channel
  }

  // The high-level API, which recovers connection and consumers.
  async session(options = {}) {
    const session = await within(AMQPSession.connect(this.url(), options), 'session')
    this.#open.push(() => session.stop())
    return session
  }

  async close() {
    // One that is closed already refuses; what a case expects of its connections it checks itself.
    await Promise.allSettled(this.#open.map((close) => within(close(), 'close-ok', 2_000)))
    const client = new AMQPClient(this.url())
    await within(client.connect(), 'connection')
    const channel = await client.channel()
    for (const queue of this.queues) await channel.queueDelete(queue)
    for (const exchange of this.exchanges) await channel.exchangeDelete(exchange)
    await client.close()
  }
}

export async function consume(channel, queue, parameters = { noAck: false }) {
  const inbox = new Inbox()
  const consumer = await channel.basicConsume(queue, parameters, inbox.push)
  return Object.assign(inbox, { consumer })
}

// Publishes on a confirm channel, where the promise of a publish waits for the ack.
export const publish = (channel, exchange, key, ...messages) =>
  within(Promise.all(messages.map((message) => channel.basicPublish(exchange, key, message))), 'acks')

export async function drain(channel, queue) {
  const messages = []
  for (let message; (message = await channel.basicGet(queue, { noAck: true })); ) messages.push(message.bodyString())
  return messages
}

export async function getMany(channel, queue, count) {
  const messages = []
  while (messages.length < count) {
    const message = await channel.basicGet(queue, { noAck: false })
    assert(message, `${queue} has only ${messages.length} messages instead of ${count}`)
    messages.push(message)
  }
  return messages
}

export const inspect = (channel, queue) => channel.queueDeclare(queue, { passive: true })

export const readyCount = async (channel, queue) => (await inspect(channel, queue)).messageCount

export const awaitReady = (channel, queue, count) =>
  until(`${queue} has ${count} ready messages`, async () => (await readyCount(channel, queue)) === count)

export const texts = (messages) => messages.map((message) => message.bodyString())

// Checks bodies, order and the redelivered flag of each.
export function sameDeliveries(messages, expected, redelivered, what) {
  assert.deepEqual(
    messages.map((message) => [message.bodyString(), message.redelivered]),
    expected.map((body) => [body, redelivered]),
    what,
  )
}

// Checks that the broker closes the channel, and nothing but the channel, with exactly this reply.
export async function channelError(connection, [code, reply], action) {
  const channel = await connection.channel()
  const errors = new Inbox()
  channel.onerror = errors.push
  // A synchronous method rejects, an asynchronous one does not; onerror hears of both.
  const result = Promise.resolve(action(channel)).catch(() => {})
  assert.equal(await errors.take(`channel.close ${reply}`), `channel ${channel.id} closed: ${reply} (${code})`)
  await result
  assert(!connection.closed, `a channel error closed the connection: ${reply}`)
}

export const queueGone = (connection, queue) =>
  channelError(connection, [404, replies.noQueue(queue)], (channel) => inspect(channel, queue))

// For queues that go in the background, after the reply to what makes them go.
export async function awaitQueueGone(connection, queue) {
  await until(`${queue} is gone`, async () => {
    const channel = await connection.channel()
    try {
      await inspect(channel, queue)
    } catch (error) {
      return error.message.endsWith('(404)')
    }
    await channel.close()
    return false
  })
  await queueGone(connection, queue)
}

export const exchangeGone = (connection, exchange) =>
  channelError(connection, [404, replies.noExchange(exchange)], (channel) =>
    channel.exchangeDeclare(exchange, 'direct', { passive: true }),
  )
