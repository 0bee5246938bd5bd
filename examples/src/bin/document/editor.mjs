// One editor of a shared document, as a page in a browser is one: Yjs with y-websocket's own provider. It is told what to
// do by lines on stdin, and says how it is doing by lines of JSON.
//
//   node editor.mjs URL DOCUMENT NAME RESYNC_MS

import { createHash } from 'node:crypto'
import readline from 'node:readline'
import WebSocket from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const [url, document, name, resync] = process.argv.slice(2)

// What a browser has by itself. Every socket that the provider opens is counted: a second one would mean that it has
// connected again.
let sockets = 0
globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args)
    sockets += 1
  }
}

const doc = new Y.Doc()
const lines = doc.getArray('lines')
const provider = new WebsocketProvider(url, document, doc, { resyncInterval: Number(resync), disableBc: true })
let closes = 0
provider.on('connection-close', () => { closes += 1 })

let typed = 0
let typing
function type() {
  lines.insert(Math.floor(Math.random() * (lines.length + 1)), [`${name} ${typed}`])
  typed += 1
}

function state() {
  const all = lines.toArray()
  const hash = createHash('sha256').update(all.join('\n')).digest('hex').slice(0, 16)
  return { typed, lines: all.length, different: new Set(all).size, hash, synced: provider.synced, sockets, closes }
}

const orders = {
  type: () => { typing ??= setInterval(type, 10) },
  rest: () => { typing = clearInterval(typing) },
  state: () => console.log(JSON.stringify(state())),
}
readline.createInterface({ input: process.stdin })
  .on('line', (order) => orders[order]())
  .on('close', () => process.exit()) // whoever started it has gone
