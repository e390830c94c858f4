import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { fibonacci, within } from './harness.js'
import { awaitReady, consume, readyCount, sameDeliveries, text } from './scope.js'

// The patterns of RabbitMQ's seven tutorials.
export async function tutorials(scope) {
  await helloWorld(scope)
  await workQueues(scope)
  await publishSubscribe(scope)
  await routing(scope)
  await topics(scope)
  await rpc(scope)
  await publisherConfirms(scope)
}

async function helloWorld(scope) {
  const queue = scope.queue('hello')
  const sender = await scope.connect()
  const channel = await sender.createChannel()
  await channel.assertQueue(queue, { durable: false })
  channel.sendToQueue(queue, Buffer.from('Hello World!'))
  // Closing the connection at once would overtake the message in the client's own buffers.
  await channel.close()
  await sender.close()
  const receiver = await scope.channel()
  await receiver.assertQueue(queue, { durable: false })
  const inbox = await consume(receiver, queue, { noAck: true })
  sameDeliveries([await inbox.take()], ['Hello World!'], false, 'hello world')
}

async function workQueues(scope) {
  const queue = scope.queue('task_queue')
  const worker = async () => {
    const connection = await scope.connect()
    const channel = await connection.createChannel()
    await channel.assertQueue(queue, { durable: true })
    await channel.prefetch(1)
    return { connection, channel, inbox: await consume(channel, queue, { noAck: false }) }
  }
  const busy = await worker()
  const idle = await worker()

  const producer = await scope.channel()
  await producer.assertQueue(queue, { durable: true })
  for (let i = 1; i <= 5; i++) producer.sendToQueue(queue, Buffer.from(`task ${i}`), { persistent: true })
  sameDeliveries([await busy.inbox.take()], ['task 1'], false, 'first worker')
  // While one worker is busy, the other gets all the rest.
  for (let i = 2; i <= 5; i++) {
    const task = await idle.inbox.take()
    sameDeliveries([task], [`task ${i}`], false, 'second worker')
    await idle.inbox.expectNone()
    idle.channel.ack(task)
  }
  await busy.inbox.expectNone()
  // A worker that dies leaves its task to the other.
  await busy.connection.close()
  const inherited = await idle.inbox.take()
  sameDeliveries([inherited], ['task 1'], true, 'inherited task')
  idle.channel.ack(inherited)
  await awaitReady(producer, queue, 0)
}

async function subscribe(scope, exchange, type, ...keys) {
  const channel = await scope.channel()
  await channel.assertExchange(exchange, type, { durable: false })
  const { queue } = await channel.assertQueue('', { exclusive: true })
  for (const key of keys) await channel.bindQueue(queue, exchange, key)
  return consume(channel, queue, { noAck: true })
}

async function emit(scope, exchange, type, ...keys) {
  const channel = await scope.channel()
  await channel.assertExchange(exchange, type, { durable: false })
  for (const key of keys) channel.publish(exchange, key, Buffer.from(key))
}

async function publishSubscribe(scope) {
  const logs = scope.exchange('logs')
  const one = await subscribe(scope, logs, 'fanout', '')
  const two = await subscribe(scope, logs, 'fanout', '')
  await emit(scope, logs, 'fanout', 'info')
  sameDeliveries([await one.take()], ['info'], false, 'first subscriber')
  sameDeliveries([await two.take()], ['info'], false, 'second subscriber')
}

async function routing(scope) {
  const logs = scope.exchange('direct_logs')
  const all = await subscribe(scope, logs, 'direct', 'info', 'warning', 'error')
  const errors = await subscribe(scope, logs, 'direct', 'error')
  await emit(scope, logs, 'direct', 'info', 'error', 'debug', 'warning')
  sameDeliveries(await all.takeMany(3), ['info', 'error', 'warning'], false, 'all severities')
  sameDeliveries(await errors.takeMany(1), ['error'], false, 'errors only')
  await all.expectNone()
  await errors.expectNone()
}

async function topics(scope) {
  const logs = scope.exchange('topic_logs')
  const everything = await subscribe(scope, logs, 'topic', '#')
  const kernel = await subscribe(scope, logs, 'topic', 'kern.*')
  const mixed = await subscribe(scope, logs, 'topic', 'kern.*', '*.critical')
  const keys = ['kern.critical', 'kern.info', 'auth.critical', 'auth.info']
  await emit(scope, logs, 'topic', ...keys)
  sameDeliveries(await everything.takeMany(4), keys, false, '#')
  sameDeliveries(await kernel.takeMany(2), keys.slice(0, 2), false, 'kern.*')
  sameDeliveries(await mixed.takeMany(3), keys.slice(0, 3), false, 'kern.* and *.critical')
  for (const inbox of [everything, kernel, mixed]) await inbox.expectNone()
}

async function rpc(scope) {
  const requests = scope.queue('rpc_queue')
  const server = await scope.channel()
  await server.assertQueue(requests, { durable: false })
  await server.prefetch(1)
  await server.consume(requests, (request) => {
    const { replyTo, correlationId } = request.properties
    server.sendToQueue(replyTo, Buffer.from(`${fibonacci(Number(text(request)))}`), { correlationId })
    server.ack(request)
  })

  const client = await scope.channel()
  const { queue: callbackQueue } = await client.assertQueue('', { exclusive: true })
  const callbacks = await consume(client, callbackQueue, { noAck: true })
  assert.equal(await call(client, requests, callbackQueue, callbacks, 10), '55')
  assert.equal(await call(client, requests, callbackQueue, callbacks, 30), '832040')

  const direct = await scope.channel()
  const pseudoQueue = 'amq.rabbitmq.reply-to'
  const directReplies = await consume(direct, pseudoQueue, { noAck: true })
  assert.equal(await call(direct, requests, pseudoQueue, directReplies, 10), '55')
  assert.equal(await call(direct, requests, pseudoQueue, directReplies, 20), '6765')
}

async function call(channel, requests, replyTo, inbox, argument) {
  const correlationId = randomUUID()
  channel.sendToQueue(requests, Buffer.from(`${argument}`), { correlationId, replyTo })
  const reply = await inbox.take()
  assert.equal(reply.properties.correlationId, correlationId)
  return text(reply)
}

async function publisherConfirms(scope) {
  const channel = await scope.confirmChannel()
  const { queue } = await channel.assertQueue('', { exclusive: true })
  for (let i = 1; i <= 10; i++) {
    channel.sendToQueue(queue, Buffer.from('individually'))
    await within(channel.waitForConfirms(), 'ack')
    assert.equal(await readyCount(channel, queue), i)
  }
  for (let i = 0; i < 100; i++) channel.sendToQueue(queue, Buffer.from('in a batch'))
  await within(channel.waitForConfirms(), 'acks')
  assert.equal(await readyCount(channel, queue), 110)

  const confirmed = []
  await within(
    new Promise((resolve, reject) => {
      for (let i = 0; i < 100; i++) {
        channel.sendToQueue(queue, Buffer.from('asynchronously'), {}, (nack) => {
          if (nack) reject(nack)
          else if (confirmed.push(i) === 100) resolve()
        })
      }
    }),
    'acks',
  )
  assert.equal(await readyCount(channel, queue), 210)
}
