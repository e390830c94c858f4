import { consumeAcks, get, prefetch, rejectRequeue } from './consuming.js'
import { largeMessage, tables } from './content.js'
import { errors, reconnect } from './failures.js'
import { main } from './harness.js'
import { publishConfirms, returns, transactions } from './publishing.js'
import { Scope } from './scope.js'
import { exchanges, exclusiveAutoDelete } from './topology.js'
import { tutorials } from './tutorials.js'

await main(Scope, {
  publish_confirms: publishConfirms,
  consume_acks: consumeAcks,
  prefetch,
  get,
  reject_requeue: rejectRequeue,
  returns,
  exclusive_auto_delete: exclusiveAutoDelete,
  tables,
  exchanges,
  large_message: largeMessage,
  errors,
  transactions,
  reconnect,
  tutorials,
})
