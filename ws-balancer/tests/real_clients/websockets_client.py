"""A client on the package websockets: numbered messages all the time, and a line of JSON about them for each line of stdin."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

seen = {"opens": 0, "closes": 0, "sent": 0, "answered": 0, "wrong": 0, "pods": []}


async def send(socket):
    while True:
        await socket.send(str(seen["sent"]))
        seen["sent"] += 1
        await asyncio.sleep(0.005)


async def hear(socket):
    async for message in socket:
        pod, number = message.split(" ")
        seen["wrong"] += int(number) != seen["answered"]
        seen["answered"] += 1
        if pod not in seen["pods"]:
            seen["pods"].append(pod)


async def converse(url, key):
    async with connect(url, additional_headers={"ws-user-id": key}) as socket:
        seen["opens"] += 1
        try:
            await asyncio.gather(send(socket), hear(socket))
        except ConnectionClosed:
            pass
        seen["closes"] += 1


async def main(url, key):
    talk = asyncio.create_task(converse(url, key))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(seen), flush=True)
    talk.cancel()


asyncio.run(main(*sys.argv[1:]))
