"""Sends compressible messages, one for each line of its input, and says who answered and whether the echo was right."""

import asyncio
import sys

from websockets.asyncio.client import connect


def text(n):
    return " ".join(f"message {n} word {i % 7}" for i in range(200))


async def main():
    headers = {"ws-user-id": key}
    loop = asyncio.get_running_loop()
    async with connect(uri, additional_headers=headers, compression="deflate", max_size=None) as socket:
        agreed = socket.response.headers.get("sec-websocket-extensions", "none")
        print(f"agreed {agreed}", flush=True)
        n = 0
        while await loop.run_in_executor(None, sys.stdin.readline):
            await socket.send(text(n))
            name, answer = (await socket.recv()).split(" ", 1)
            print(f"{name} {'right' if answer == text(n) else 'wrong'}", flush=True)
            n += 1


uri, key = sys.argv[1:]
asyncio.run(main())
