// An application on the package ws: answers each message with its own name and the message. Ends with its stdin.
//   node ws_server.mjs NAME HOST PORT
import { WebSocketServer } from 'ws'

const [name, host, port] = process.argv.slice(2)
const server = new WebSocketServer({ host, port: Number(port) }, () => console.log('listening'))
server.on('connection', (socket) => {
  socket.on('message', (message) => socket.send(`${name} ${message}`))
})
process.stdin.on('close', () => process.exit()).resume()
