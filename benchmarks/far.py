"""Photographs from a server that takes its time for each, beside the same as files.

python -m benchmarks.far
python -m benchmarks.far --answer-ms 0 50 200 500 --images 800
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.stack import labelmill
from benchmarks.throughput import PHOTO_MODEL, bulk, images

#: What a server may take: beside the workers, in the same country, across an ocean.
ANSWER_MS = (0.0, 50.0, 200.0)


def main() -> None:
    """Measure, and print a line for each server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.far", description=__doc__)
    parser.add_argument("--answer-ms", type=float, nargs="+", default=ANSWER_MS, help="milliseconds of an answer")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder, paths = images("photo", args.images)
    for answer_ms in args.answer_ms:
        with _server(folder, answer_ms / 1000) as address:
            os.environ["LABELMILL_URL_HOSTS"] = address  # of the workers
            with labelmill(PHOTO_MODEL) as client:
                near = bulk(client, folder, PHOTO_MODEL, len(paths))
                urls = [f"http://{address}/{path.name}" for path in paths]
                far = bulk(client, urls, PHOTO_MODEL, len(urls))
                near(), far()  # so that it is known how fast the workers are under load
                rates = [(near(), far()) for _ in range(args.rounds)]
        by_file, by_url = (statistics.median(each) for each in zip(*rates, strict=True))
        ratio = statistics.median(url / file for file, url in rates)
        print(f"answers after {answer_ms:g} ms: {by_url:.1f} images/s, files {by_file:.1f}; {ratio:.3f} of those")


@contextmanager
def _server(folder: Path, answer_s: float) -> Iterator[str]:
    """A web server of the folder in a process of its own; gives host and port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, answer_s), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, folder: Path, answer_s: float) -> None:
    files: dict[str, bytes] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                name = request.split(b" ", 2)[1].decode().rpartition("/")[2]
                if name not in files:
                    files[name] = (folder / name).read_bytes()
                await asyncio.sleep(answer_s)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(files[name]), files[name]))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the worker has ended

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
