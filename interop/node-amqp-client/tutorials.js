import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { Inbox, fibonacci, within } from '../node-amqplib/harness.js'
import { awaitReady, consume, readyCount, sameDeliveries } from './scope.js'

// The patterns of RabbitMQ's seven tutorials, in the client's high-level API where it has one for them.
export async function tutorials(scope) {
  await helloWorld(scope)
  await workQueues(scope)
  await publishSubscribe(scope)
  await routing(scope)
  await topics(scope)
  await rpc(scope)
  await publisherConfirms(scope)
}

async function subscribe(queue, parameters) {
  const inbox = new Inbox()
  const subscription = await queue.subscribe(parameters, inbox.push)
  return Object.assign(inbox, { subscription })
}

async function helloWorld(scope) {
  const name = scope.queue('hello')
  const sender = await scope.session()
  await (await sender.queue(name, { durable: false })).publish('Hello World!')
  await sender.stop()
  const receiver = await scope.session()
  const queue = await receiver.queue(name, { durable: false })
  sameDeliveries([await (await subscribe(queue, { noAck: true })).take()], ['Hello World!'], false, 'hello world')
}

async function workQueues(scope) {
  const name = scope.queue('task_queue')
  const worker = async () => {
    const session = await scope.session()
    const inbox = await subscribe(await session.queue(name, { durable: true }), { prefetch: 1, manualAck: true })
    return Object.assign(inbox, { session })
  }
  const busy = await worker()
  const idle = await worker()

  const producer = await (await scope.session()).queue(name, { durable: true })
  for (let i = 1; i <= 5; i++) await producer.publish(`task ${i}`, { deliveryMode: 2 })
  sameDeliveries([await busy.take()], ['task 1'], false, 'first worker')
  // While one worker is busy, the other gets all the rest.
  for (let i = 2; i <= 5; i++) {
    const task = await idle.take()
    sameDeliveries([task], [`task ${i}`], false, 'second worker')
    await idle.expectNone()
    await task.ack()
  }
  await busy.expectNone()
  // A worker that dies leaves its task to the other.
  await busy.session.stop()
  const inherited = await idle.take()
  sameDeliveries([inherited], ['task 1'], true, 'inherited task')
  await inherited.ack()
  await awaitReady(await scope.channel(), name, 0)
}

async function receiveLogs(scope, exchange, type, ...keys) {
  const session = await scope.session()
  const logs = await session.exchange(exchange, type, { durable: false })
  const queue = await session.queue('')
  for (const key of keys) await queue.bind(logs, key)
  return subscribe(queue, { noAck: true })
}

async function emitLogs(scope, exchange, type, ...keys) {
  const logs = await (await scope.session()).exchange(exchange, type, { durable: false })
  for (const key of keys) await logs.publish(key, { routingKey: key })
}

async function publishSubscribe(scope) {
  const logs = scope.exchange('logs')
  const one = await receiveLogs(scope, logs, 'fanout', '')
  const two = await receiveLogs(scope, logs, 'fanout', '')
  await emitLogs(scope, logs, 'fanout', 'info')
  sameDeliveries([await one.take()], ['info'], false, 'first subscriber')
  sameDeliveries([await two.take()], ['info'], false, 'second subscriber')
}

async function routing(scope) {
  const logs = scope.exchange('direct_logs')
  const all = await receiveLogs(scope, logs, 'direct', 'info', 'warning', 'error')
  const errors = await receiveLogs(scope, logs, 'direct', 'error')
  await emitLogs(scope, logs, 'direct', 'info', 'error', 'debug', 'warning')
  sameDeliveries(await all.takeMany(3), ['info', 'error', 'warning'], false, 'all severities')
  sameDeliveries(await errors.takeMany(1), ['error'], false, 'errors only')
  await all.expectNone()
  await errors.expectNone()
}

async function topics(scope) {
  const logs = scope.exchange('topic_logs')
  const everything = await receiveLogs(scope, logs, 'topic', '#')
  const kernel = await receiveLogs(scope, logs, 'topic', 'kern.*')
  const mixed = await receiveLogs(scope, logs, 'topic', 'kern.*', '*.critical')
  const keys = ['kern.critical', 'kern.info', 'auth.critical', 'auth.info']
  await emitLogs(scope, logs, 'topic', ...keys)
  sameDeliveries(await everything.takeMany(4), keys, false, '#')
  sameDeliveries(await kernel.takeMany(2), keys.slice(0, 2), false, 'kern.*')
  sameDeliveries(await mixed.takeMany(3), keys.slice(0, 3), false, 'kern.* and *.critical')
  for (const inbox of [everything, kernel, mixed]) await inbox.expectNone()
}

async function rpc(scope) {
  const requests = scope.queue('rpc_queue')
  const server = await scope.session()
  await server.rpcServer(requests, (request) => `${fibonacci(Number(request.bodyString()))}`)

  const client = await scope.channel()
  const { name: replyTo } = await client.queueDeclare('')
  const callbacks = await consume(client, replyTo, { noAck: true })
  for (const [n, expected] of [[10, '55'], [30, '832040']]) {
    const correlationId = randomUUID()
    await client.basicPublish('', requests, `${n}`, { correlationId, replyTo })
    const reply = await callbacks.take()
    assert.deepEqual([reply.properties.correlationId, reply.bodyString()], [correlationId, expected])
  }

  // The client's own RPC uses direct reply-to.
  const session = await scope.session()
  const direct = await session.rpcClient()
  assert.equal((await direct.call(requests, '10', { timeout: 5_000 })).bodyString(), '55')
  assert.equal((await direct.call(requests, '20', { timeout: 5_000 })).bodyString(), '6765')
  await direct.close()
  assert.equal((await session.rpcCall(requests, '11', { timeout: 5_000 })).bodyString(), '89')
}

async function publisherConfirms(scope) {
  const channel = await scope.confirmChannel()
  const { name: queue } = await channel.queueDeclare('')
  for (let i = 1; i <= 10; i++) {
    assert.equal(await within(channel.basicPublish('', queue, 'individually'), 'ack'), i)
    assert.equal(await readyCount(channel, queue), i)
  }
  const batch = Array.from({ length: 100 }, () => channel.basicPublish('', queue, 'in a batch'))
  await within(Promise.all(batch), 'acks')
  assert.equal(await readyCount(channel, queue), 110)
}
