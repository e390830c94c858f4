import assert from 'node:assert/strict'
import { Inbox, replies } from './harness.js'
import { awaitReady, channelError, consume, drain, exchangeGone, publish, queueGone, sameDeliveries } from './scope.js'

export async function errors(scope) {
  const connection = await scope.connect()
  // What happens to the other channels must not touch this one and its consumer.
  const bystander = await connection.createConfirmChannel()
  const { queue: watched } = await bystander.assertQueue(scope.queue('watched'), { durable: false })
  const inbox = await consume(bystander, watched, { noAck: true })
  const expect = (reply, action) => channelError(connection, reply, action)

  const missing = scope.queue('missing')
  await queueGone(connection, missing)
  await expect([404, replies.noQueue(missing), 60, 20], (channel) => channel.consume(missing, () => {}))
  await expect([404, replies.noQueue(missing), 60, 70], (channel) => channel.get(missing))
  await exchangeGone(connection, missing)
  await expect([404, replies.noExchange(missing), 60, 40], (channel) => channel.publish(missing, '', Buffer.from('lost')))
  await expect([404, replies.noExchange(missing), 50, 20], (channel) => channel.bindQueue(watched, missing, ''))
  assert.equal((await bystander.deleteQueue(missing)).messageCount, 0)

  const queue = scope.queue('declared')
  await bystander.assertQueue(queue, { arguments: { 'x-message-ttl': { '!': 'int64', value: 1_800_000 } } })
  await expect(
    [406, replies.inequivalent('queue', queue, 'durable', "'false' but current is 'true'"), 50, 10],
    (channel) => channel.assertQueue(queue, { durable: false, messageTtl: 1_800_000 }),
  )
  const none = "none but current is the value '1800000' of type 'long'"
  await expect([406, replies.inequivalent('queue', queue, 'x-message-ttl', none), 50, 10], (channel) =>
    channel.assertQueue(queue),
  )
  const { exchange } = await bystander.assertExchange(scope.exchange('declared'), 'direct')
  await expect(
    [406, replies.inequivalent('exchange', exchange, 'type', "'fanout' but current is 'direct'"), 40, 10],
    (channel) => channel.assertExchange(exchange, 'fanout'),
  )
  await publish(bystander, '', queue, 'message')
  await expect([406, `PRECONDITION_FAILED - queue '${queue}' in vhost '/' not empty`, 50, 40], (channel) =>
    channel.deleteQueue(queue, { ifEmpty: true }),
  )
  await expect([406, `PRECONDITION_FAILED - queue '${watched}' in vhost '/' in use`, 50, 40], (channel) =>
    channel.deleteQueue(watched, { ifUnused: true }),
  )
  const unknownTag = [406, 'PRECONDITION_FAILED - unknown delivery tag 1', 60, 80]
  await expect(unknownTag, (channel) => channel.ack({ fields: { deliveryTag: 1 } }))
  await expect(unknownTag, async (channel) => {
    const message = await channel.get(queue)
    channel.ack(message)
    channel.ack(message)
  })
  await expect(
    [403, `ACCESS_REFUSED - queue name 'amq.${missing}' contains reserved prefix 'amq.*'`, 50, 10],
    (channel) => channel.assertQueue(`amq.${missing}`),
  )
  await expect([403, 'ACCESS_REFUSED - operation not permitted on the default exchange', 50, 20], (channel) =>
    channel.bindQueue(queue, '', 'key'),
  )

  await publish(bystander, '', watched, 'still here')
  sameDeliveries([await inbox.take()], ['still here'], false, 'consumer on another channel')

  await connectionErrors(scope, watched)
}

async function connectionErrors(scope, queue) {
  const refused =
    'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.'
  await assert.rejects(scope.connect({ password: 'wrong' }), {
    message: `Handshake terminated by server: 403 (ACCESS-REFUSED) with message "${refused}"`,
  })
  // All that the client tells of the 530 is which method it got.
  await assert.rejects(scope.connect({ vhost: 'no such vhost' }), {
    message: 'Expected ConnectionOpenOk; got <ConnectionClose channel:0>',
  })

  const connection = await scope.connect()
  const closed = new Inbox()
  connection.on('error', closed.push)
  const channel = await connection.createChannel()
  await consume(channel, queue, { consumerTag: 'tag' })
  consume(channel, queue, { consumerTag: 'tag' }).catch(() => {})
  const { code, message } = await closed.take('connection.close')
  assert.equal(code, 530)
  assert.match(message, /with message "NOT_ALLOWED - attempt to reuse consumer tag 'tag'"$/)
}

export async function reconnect(scope) {
  const admin = await scope.confirmChannel()
  const { queue } = await admin.assertQueue(scope.queue('durable'))
  const exchange = scope.exchange('fanout')
  await publish(admin, '', queue, '1', '2', '3', '4', '5', '6', '7')

  const inbox = new Inbox()
  const fromExchange = new Inbox()
  const channels = []
  const sockets = []
  const temporary = []
  // The client runs this on each new connection, the first one included.
  const setup = async (model) => {
    sockets.push(model.connection.stream)
    const channel = await model.createChannel()
    channels.push(channel)
    await channel.assertExchange(exchange, 'fanout', { autoDelete: true, durable: false })
    const { queue: own } = await channel.assertQueue('', { exclusive: true })
    temporary.push(own)
    await channel.bindQueue(own, exchange, '')
    await channel.consume(own, fromExchange.push, { noAck: true })
    await channel.prefetch(3)
    await channel.consume(queue, inbox.push)
  }
  const connection = await scope.connect({}, { recovery: { initialDelay: 300, setup } })
  const connected = new Inbox()
  connection.on('connect', connected.push)

  const before = await inbox.takeMany(3)
  channels[0].ack(before[1], true)
  before.push(...(await inbox.takeMany(2)))
  sameDeliveries(before, ['1', '2', '3', '4', '5'], false, 'before the cut')
  await awaitReady(admin, queue, 2)

  // The client waits for an error event, which resetAndDestroy would not give it.
  sockets[0].destroy(new Error('cut'))
  await connected.take('reconnection')

  const after = await inbox.takeMany(3)
  sameDeliveries(after, ['3', '4', '5'], true, 'after the reconnection')
  channels[1].ack(after[2], true)
  const rest = await inbox.takeMany(2)
  sameDeliveries(rest, ['6', '7'], false, 'what had not been delivered before')
  channels[1].ack(rest[1], true)
  await publish(admin, exchange, '', 'to the new queue')
  sameDeliveries([await fromExchange.take()], ['to the new queue'], false)
  const other = await scope.connect()
  await queueGone(other, temporary[0])

  // What an orderly closed connection leaves unacknowledged comes back just the same.
  await publish(admin, '', queue, '8')
  sameDeliveries([await inbox.take()], ['8'], false, 'before closing')
  await connection.close()
  const next = await other.createChannel()
  const again = await (await consume(next, queue)).take()
  sameDeliveries([again], ['8'], true, 'on the next connection')
  next.ack(again)
  await next.close()
  assert.deepEqual(await drain(admin, queue), [])
}
