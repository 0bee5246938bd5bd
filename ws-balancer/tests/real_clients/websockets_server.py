"""An application on the package websockets: answers each message with its own name and the message. Ends with its stdin."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def answer(socket):
    async for message in socket:
        await socket.send(f"{name} {message}")


async def main():
    async with serve(answer, host, int(port)):
        print("listening", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


name, host, port = sys.argv[1:]
asyncio.run(main())
