// A client on the package ws: numbered messages all the time, and a line of JSON about them for each line of stdin.
//   node ws_client.mjs URL KEY
import readline from 'node:readline'
import WebSocket from 'ws'

const [url, key] = process.argv.slice(2)
const seen = { opens: 0, closes: 0, sent: 0, answered: 0, wrong: 0, pods: [] }
const socket = new WebSocket(`${url}?ws-user-id=${key}`)
socket.on('open', () => {
  seen.opens += 1
  setInterval(() => socket.send(String(seen.sent++)), 5)
})
socket.on('message', (message) => {
  const [pod, number] = String(message).split(' ')
  if (Number(number) !== seen.answered) seen.wrong += 1
  if (!seen.pods.includes(pod)) seen.pods.push(pod)
  seen.answered += 1
})
socket.on('close', () => { seen.closes += 1 })
readline.createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify(seen)))
  .on('close', () => process.exit())
