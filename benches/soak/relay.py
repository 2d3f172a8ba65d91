"""A TCP relay that hands on everything SECONDS later: relay.py PORT TARGET_PORT SECONDS, all on loopback."""

import asyncio
import sys

BLOCK = 65536
# A sender that is ahead of the delay by more than this many blocks waits.
BLOCKS = 256


async def take(reader, queue):
    clock = asyncio.get_running_loop().time
    try:
        while data := await reader.read(BLOCK):
            await queue.put((clock(), data))
    except OSError:
        pass
    await queue.put((clock(), b""))


async def give(queue, writer, delay):
    clock = asyncio.get_running_loop().time
    try:
        while True:
            arrived, data = await queue.get()
            await asyncio.sleep(arrived + delay - clock())
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def relay(reader, writer, target, delay):
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    there, back = asyncio.Queue(BLOCKS), asyncio.Queue(BLOCKS)
    tasks = [
        asyncio.create_task(one)
        for one in (take(reader, there), give(there, far_writer, 0), take(far_reader, back), give(back, writer, delay))
    ]
    # Whichever direction ends first ends the connection.
    await asyncio.wait(tasks[1::2], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    writer.close()
    far_writer.close()


async def main(port, target, delay):
    server = await asyncio.start_server(lambda r, w: relay(r, w, target, delay), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
