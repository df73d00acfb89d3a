"""A lean HTTP client for the peers that serve over HTTP: connections that stay open, a request at a time on each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson

from benchmarks.peers.work import Answer

__all__ = ["HttpClient", "free_port"]

#: Seconds before a connection that was refused is tried again.
AGAIN_S = 0.05
HOST = "127.0.0.1"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


class HttpClient:
    """Posts a body for each path: ``body`` makes it, ``answer`` takes the labels out of the reply's JSON.

    It tries nothing twice, as a user's script would not: what comes back, an error too, is the answer.
    """

    def __init__(
        self, port: int, path: str, body: Callable[[str], Any], answer: Callable[[Any], list[int]], connections: int
    ) -> None:
        self._port, self._path = port, path
        self._body, self._answer = body, answer
        self._connections = connections

    def __call__(self, paths: Sequence[str], deadline: float) -> list[Answer]:
        """An answer for each path."""
        return asyncio.run(self._all(paths, deadline))

    async def _all(self, paths: Sequence[str], deadline: float) -> list[Answer]:
        answers: list[Answer] = [None] * len(paths)
        todo = iter(range(len(paths)))

        async def connection() -> None:
            streams = None
            for place in todo:
                try:
                    streams = streams or await asyncio.open_connection(HOST, self._port)
                    answers[place] = await self._ask(*streams, paths[place])
                except (OSError, asyncio.IncompleteReadError) as exc:
                    answers[place] = "connection refused" if streams is None else "connection dropped"
                    if streams is not None:
                        streams[1].close()
                    streams = None
                    del exc
                    await asyncio.sleep(AGAIN_S)
            if streams is not None:
                streams[1].close()

        tasks = [asyncio.create_task(connection()) for _ in range(self._connections)]
        _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        for task in late:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        return answers

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> Answer:
        body = orjson.dumps(self._body(path))
        head = f"POST {self._path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        reply = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(reply[9:12])
        length = int(reply.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        content = await reader.readexactly(length)
        return self._answer(orjson.loads(content)) if status == 200 else f"{status} {content[:80].decode()}"
