"""An echo server with permessage-deflate."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, host, int(port), compression="deflate", max_size=None):
        print("listening", flush=True)
        # Whoever started it holds its input: it ends with that.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


host, port = sys.argv[1:]
asyncio.run(main())
