// A client on socket.io, by WebSocket only: numbered messages all the time, each acknowledged, and a line of JSON about
// them for each line of stdin.
//   node socketio_client.mjs URL KEY
import readline from 'node:readline'
import { io } from 'socket.io-client'

const [url, key] = process.argv.slice(2)
const seen = { opens: 0, closes: 0, sent: 0, answered: 0, wrong: 0, pods: [] }
const socket = io(url, { transports: ['websocket'], query: { 'ws-user-id': key }, retries: 100, ackTimeout: 5000 })
let talking
socket.on('connect', () => {
  seen.opens += 1
  talking ??= setInterval(talk, 5)
})
socket.on('disconnect', () => { seen.closes += 1 })

function talk() {
  socket.emit('say', seen.sent++, (error, answer) => {
    const [pod, number] = error ? [] : answer.split(' ')
    if (Number(number) !== seen.answered) seen.wrong += 1
    if (!seen.pods.includes(pod)) seen.pods.push(pod)
    seen.answered += 1
  })
}

readline.createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify(seen)))
  .on('close', () => process.exit())
