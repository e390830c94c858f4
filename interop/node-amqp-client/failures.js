import assert from 'node:assert/strict'
import { Inbox, replies } from '../node-amqplib/harness.js'
import { awaitReady, channelError, consume, drain, exchangeGone, publish, queueGone, sameDeliveries } from './scope.js'

export async function errors(scope) {
  const connection = await scope.connect()
  // What happens to the other channels must not touch this one and its consumer.
  const bystander = await connection.channel()
  await bystander.confirmSelect()
  const { name: watched } = await bystander.queueDeclare(scope.queue('watched'), { durable: false })
  const inbox = await consume(bystander, watched, { noAck: true })
  const expect = (reply, action) => channelError(connection, reply, action)

  const missing = scope.queue('missing')
  await queueGone(connection, missing)
  await expect([404, replies.noQueue(missing)], (channel) => channel.basicConsume(missing, {}, () => {}))
  await expect([404, replies.noQueue(missing)], (channel) => channel.basicGet(missing))
  await exchangeGone(connection, missing)
  await expect([404, replies.noExchange(missing)], (channel) => channel.basicPublish(missing, '', 'lost'))
  await expect([404, replies.noExchange(missing)], (channel) => channel.queueBind(watched, missing, ''))
  assert.deepEqual(await bystander.queueDelete(missing), { messageCount: 0 })

  const queue = scope.queue('declared')
  const ttl = { 'x-message-ttl': 1_800_000n }
  await bystander.queueDeclare(queue, {}, ttl)
  await expect([406, replies.inequivalent('queue', queue, 'durable', "'false' but current is 'true'")], (channel) =>
    channel.queueDeclare(queue, { durable: false }, ttl),
  )
  const none = "none but current is the value '1800000' of type 'long'"
  await expect([406, replies.inequivalent('queue', queue, 'x-message-ttl', none)], (channel) => channel.queueDeclare(queue))
  const exchange = scope.exchange('declared')
  await bystander.exchangeDeclare(exchange, 'direct')
  await expect([406, replies.inequivalent('exchange', exchange, 'type', "'fanout' but current is 'direct'")], (channel) =>
    channel.exchangeDeclare(exchange, 'fanout'),
  )
  await publish(bystander, '', queue, 'message')
  await expect([406, `PRECONDITION_FAILED - queue '${queue}' in vhost '/' not empty`], (channel) =>
    channel.queueDelete(queue, { ifEmpty: true }),
  )
  await expect([406, `PRECONDITION_FAILED - queue '${watched}' in vhost '/' in use`], (channel) =>
    channel.queueDelete(watched, { ifUnused: true }),
  )
  const unknownTag = [406, 'PRECONDITION_FAILED - unknown delivery tag 1']
  await expect(unknownTag, (channel) => channel.basicAck(1))
  await expect(unknownTag, async (channel) => {
    const { deliveryTag } = await channel.basicGet(queue, { noAck: false })
    await channel.basicAck(deliveryTag)
    await channel.basicAck(deliveryTag)
  })
  await expect([403, `ACCESS_REFUSED - queue name 'amq.${missing}' contains reserved prefix 'amq.*'`], (channel) =>
    channel.queueDeclare(`amq.${missing}`),
  )
  await expect([403, 'ACCESS_REFUSED - operation not permitted on the default exchange'], (channel) =>
    channel.queueBind(queue, '', 'key'),
  )

  await publish(bystander, '', watched, 'still here')
  sameDeliveries([await inbox.take()], ['still here'], false, 'consumer on another channel')

  await connectionErrors(scope, watched)
}

async function connectionErrors(scope, queue) {
  const refused =
    'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.'
  await assert.rejects(scope.connect({ password: 'wrong' }), { message: `connection closed: ${refused} (403)` })
  await assert.rejects(scope.connect({ vhost: 'no such vhost' }), {
    message: 'connection closed: NOT_ALLOWED - vhost no such vhost not found (530)',
  })

  const immediate = await scope.connect()
  const closed = new Inbox()
  immediate.ondisconnect = (error) => closed.push(error.message)
  const channel = await immediate.channel()
  await channel.basicPublish('', queue, 'now', {}, false, true)
  assert.equal(await closed.take('connection.close'), 'connection closed: NOT_IMPLEMENTED - immediate=true (540)')

  const duplicate = await scope.connect()
  const second = await duplicate.channel()
  await second.basicConsume(queue, { tag: 'tag' }, () => {})
  await assert.rejects(second.basicConsume(queue, { tag: 'tag' }, () => {}), {
    message: "connection closed: NOT_ALLOWED - attempt to reuse consumer tag 'tag' (530)",
  })
}

export async function reconnect(scope) {
  const admin = await scope.confirmChannel()
  const queue = scope.queue('durable')
  const exchange = scope.exchange('fanout')

  const fromExchange = new Inbox()
  const temporary = new Inbox()
  const connected = new Inbox()
  const session = await scope.session({
    reconnectInterval: 300,
    // Named queues' subscriptions recover by themselves; server-named queues are the application's to set up anew.
    onconnect: async (session) => {
      const own = await session.queue('')
      temporary.push(own.name)
      await session.fanoutExchange(exchange, { autoDelete: true, durable: false })
      await own.bind(exchange)
      await own.subscribe({ noAck: true }, fromExchange.push)
      connected.push()
    },
  })
  await connected.take('connection')
  const inbox = new Inbox()
  const handle = await session.queue(queue)
  for (const body of ['1', '2', '3', '4', '5', '6', '7']) await handle.publish(body)
  const subscription = await handle.subscribe({ prefetch: 3, manualAck: true }, inbox.push)

  const before = await inbox.takeMany(3)
  await before[1].ack(true)
  before.push(...(await inbox.takeMany(2)))
  sameDeliveries(before, ['1', '2', '3', '4', '5'], false, 'before the cut')
  await awaitReady(admin, queue, 2)

  subscription.channel.connection.socket.resetAndDestroy()
  await connected.take('reconnection')

  const after = await inbox.takeMany(3)
  sameDeliveries(after, ['3', '4', '5'], true, 'after the reconnection')
  await after[2].ack(true)
  const rest = await inbox.takeMany(2)
  sameDeliveries(rest, ['6', '7'], false, 'what had not been delivered before')
  await rest[1].ack(true)
  await publish(admin, exchange, '', 'to the new queue')
  sameDeliveries([await fromExchange.take()], ['to the new queue'], false)
  const other = await scope.connect()
  await queueGone(other, await temporary.take())

  // What an orderly closed connection leaves unacknowledged comes back just the same.
  await handle.publish('8')
  sameDeliveries([await inbox.take()], ['8'], false, 'before closing')
  await session.stop()
  const next = await other.channel()
  const again = await (await consume(next, queue)).take()
  sameDeliveries([again], ['8'], true, 'on the next connection')
  await again.ack()
  await next.close()
  assert.deepEqual(await drain(admin, queue), [])
}
