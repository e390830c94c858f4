// What the cases of the Node.js clients share; it knows no client.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

const caseLimit = 20_000
const totalLimit = 50_000
const patience = 5_000

// Thrown by cases which the client's own API cannot do.
export class NotApplicable extends Error {}

export const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

export async function within(promise, what, limit = patience) {
  // Made here, its stack shows who waits.
  const late = new Error(`${what}: nothing came in time`)
  let timer
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late), limit)
  })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    clearTimeout(timer)
  }
}

export async function until(what, condition) {
  const end = Date.now() + patience
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`timed out waiting until ${what}`)
    await delay(10)
  }
}

// Events in the order of their arrival, for a case to take.
export class Inbox {
  #items = []
  #takers = []

  push = (item) => {
    const taker = this.#takers.shift()
    if (taker) taker(item)
    else this.#items.push(item)
  }

  get size() {
    return this.#items.length
  }

  take(what = 'delivery') {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift())
    return within(new Promise((resolve) => this.#takers.push(resolve)), what)
  }

  async takeMany(count) {
    const taken = []
    while (taken.length < count) taken.push(await this.take())
    return taken
  }

  // Only a pause can show that nothing comes; callers first await the state after which nothing should.
  async expectNone() {
    await delay(150)
    assert.equal(this.size, 0, 'unexpected deliveries')
  }
}

// Gives out names that no other run uses, and remembers them for the cleaning up.
export class Names {
  queues = []
  exchanges = []

  constructor(client, caseName) {
    this.prefix = `interop.${client}.${caseName}.${randomBytes(4).toString('hex')}.`
  }

  queue(suffix) {
    this.queues.push(this.prefix + suffix)
    return this.prefix + suffix
  }

  exchange(suffix) {
    this.exchanges.push(this.prefix + suffix)
    return this.prefix + suffix
  }
}

// What the broker and the cases have to agree on about topic patterns: empty words count, but an empty key has no words.
export const topicKeys = [
  'quick.orange.rabbit', 'lazy.orange', 'lazy', 'lazy.', 'lazy.a.b.c', 'rabbit', 'a.z', 'a.b.z', 'a.b.c.z', '',
]
export const topicMatches = {
  '*.orange.*': ['quick.orange.rabbit'],
  'lazy.#': ['lazy.orange', 'lazy', 'lazy.', 'lazy.a.b.c'],
  '#.rabbit': ['quick.orange.rabbit', 'rabbit'],
  '*': ['lazy', 'rabbit'],
  '': [''],
  '#': topicKeys,
  'a.#.z': ['a.z', 'a.b.z', 'a.b.c.z'],
  '#.*.#': topicKeys.slice(0, -1),
  'lazy.*': ['lazy.orange', 'lazy.'],
}

export const replies = {
  noQueue: (queue) => `NOT_FOUND - no queue '${queue}' in vhost '/'`,
  noExchange: (exchange) => `NOT_FOUND - no exchange '${exchange}' in vhost '/'`,
  locked: (queue) =>
    `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'. It could be originally ` +
    'declared on another connection or the exclusive property value does not match that of the original declaration.',
  inequivalent: (what, name, argument, difference) =>
    `PRECONDITION_FAILED - inequivalent arg '${argument}' for ${what} '${name}' in vhost '/': received ${difference}`,
}

export function fibonacci(n) {
  let [a, b] = [0, 1]
  for (; n > 0; n--) [a, b] = [b, a + b]
  return a
}

// Runs every case against the broker at HOST PORT and reports one line per case.
export async function main(Scope, cases) {
  const [host, port] = process.argv.slice(2)
  if (!port) {
    console.error('usage: run HOST PORT')
    process.exit(2)
  }

  // What a client throws in an event handler belongs to the case that is running.
  let fail
  process.on('uncaughtException', (error) => fail(error))
  process.on('unhandledRejection', (error) => fail(error))

  const end = Date.now() + totalLimit
  let passed = 0
  let failed = 0
  for (const [name, body] of Object.entries(cases)) {
    const scope = new Scope(host, Number(port), name)
    const stray = new Promise((_, reject) => (fail = reject))
    stray.catch(() => {})
    const run = async () => {
      try {
        await body(scope)
      } finally {
        await scope.close()
      }
    }
    try {
      const limit = Math.max(0, Math.min(caseLimit, end - Date.now()))
      await within(Promise.race([run(), stray]), 'the case as a whole', limit)
      passed++
      console.log(`ok ${name}`)
    } catch (error) {
      if (error instanceof NotApplicable) {
        console.log(`n/a ${name}: ${error.message}`)
      } else {
        failed++
        console.error(error)
        console.log(`FAIL ${name}: ${String(error.message ?? error).replace(/\s+/g, ' ')}`)
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`)
  // Connections of a case that timed out would keep the process alive.
  process.exit(failed === 0 ? 0 : 1)
}
