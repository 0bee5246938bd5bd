// An application on socket.io: acknowledges each message with its own name and the message. Ends with its stdin.
//   node socketio_server.mjs NAME HOST PORT
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const [name, host, port] = process.argv.slice(2)
const http = createServer()
const server = new Server(http, { transports: ['websocket'] })
server.on('connection', (socket) => {
  socket.on('say', (message, acknowledge) => acknowledge(`${name} ${message}`))
})
http.listen(Number(port), host, () => console.log('listening'))
process.stdin.on('close', () => process.exit()).resume()
