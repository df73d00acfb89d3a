"""What one chunk costs Redis: CPU of submit, claim and finish, and bytes of a queued item and of a stored result.

    .venv/bin/python -m benchmarks.ledger_cost [--chunk 32] [--chunks 3000]

Items go by reference, with five labels an image. Redis's own CPU time is read before and after, so
that the Python side does not count.
"""

from __future__ import annotations

import argparse
from typing import Any

from jobs.items import Item, encode_chunk
from jobs.ledger import JobRequest
from tests.support.servers import redis_server

RESULT = b"[967,9512,504,210,969,31,550,22,968,11]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunk", type=int, default=32, help="images of a chunk")
    parser.add_argument("--chunks", type=int, default=3000)
    args = parser.parse_args()
    images = args.chunk * args.chunks
    with redis_server() as redis:
        ledger, client = redis.ledger, redis.client

        def used() -> tuple[float, int]:
            info: dict[str, Any] = client.info()
            return info["used_cpu_sys"] + info["used_cpu_user"], info["used_memory"]

        ledger.create("job", JobRequest(model="noop"))
        cpu, empty = used()
        for number in range(args.chunks):
            items = (Item(f"{number:06}-{i:04}.jpg", f"/data/photos/{number:06}-{i:04}.jpg") for i in range(args.chunk))
            ledger.submit("job", number, encode_chunk(items, base="/data/photos"))
        submitted, queued = used()
        for number in range(args.chunks):
            claim = ledger.claim("noop.bulk", str(number), lease_s=60)
            assert claim is not None
            results = b"\n".join([RESULT] * args.chunk)
            ledger.finish(claim, succeeded=args.chunk, failed=0, results=results, digest="sha256:0")
        finished, stored = used()
    per_chunk = (finished - cpu) / args.chunks
    print(f"{args.chunk} images a chunk: submit {(submitted - cpu) / args.chunks * 1e6:.0f} us of Redis a chunk, "
          f"claim and finish {(finished - submitted) / args.chunks * 1e6:.0f} us: {1 / per_chunk:,.0f} chunks/s or "
          f"{args.chunk / per_chunk:,.0f} images/s of one core")  # fmt: skip
    print(f"bytes: {(queued - empty) / images:.0f} a queued item, {(stored - empty) / images:.0f} a finished one")


if __name__ == "__main__":
    main()
