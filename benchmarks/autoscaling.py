"""Autoscaling by the backlog's seconds: workers that only sleep, a backlog that comes and goes, and the rule.

    .venv/bin/python -m benchmarks.autoscaling [--seconds 60] [--target 4] [--most 12]

A real Redis with the real ledger; each "worker" is a thread that claims a chunk, sleeps as long as its images would
take, and finishes it. Each half second the rule reads the figures that a scaler reads: as many workers as it takes to
be done in ``--target`` seconds, fewer only after they were too many for a while. Writes
``build/bench/autoscaling.json`` (time, images that wait, seconds, workers) and ``build/bench/autoscaling.svg``.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections import deque
from pathlib import Path

from jobs.backlog import BacklogWatch
from jobs.items import Item, encode_chunk
from jobs.ledger import JobRequest, Ledger
from jobs.registry import ModelInfo, WorkerInfo
from tests.support.servers import RedisServer, redis_server

MODEL, IMAGES, RATE = "sleeper", 10, 100.0
TICK_S, PATIENCE_S = 0.5, 5.0
#: Images that arrive each second, by the share of the run that has passed: quiet, a wave, quiet, a higher wave, quiet.
ARRIVALS = ((0.1, 50), (0.35, 500), (0.5, 50), (0.7, 900), (1.0, 0))


class NoSingles:
    """No single request waits."""

    def waiting(self, lane: str) -> int:
        """None."""
        return 0


class Sleeper(threading.Thread):
    """A worker of one process."""

    def __init__(self, redis: RedisServer, name: str) -> None:
        super().__init__(daemon=True)
        self.ledger, self.registry = redis.ledger, redis.registry
        self.info = WorkerInfo(name, "READY", "here", 1, 1, (ModelInfo(MODEL, "sha256:0", images_per_s=RATE),))
        self.leave = threading.Event()

    def run(self) -> None:
        """Work until asked to leave."""
        announced = number = 0.0
        while not self.leave.is_set():
            if time.monotonic() - announced > 2:
                self.registry.announce(self.info)
                announced = time.monotonic()
            number += 1
            claim = self.ledger.claim(f"{MODEL}.bulk", f"{self.info.node}-{number}", lease_s=10)
            if claim is None:
                self.leave.wait(0.05)
                continue
            time.sleep(len(claim.chunk.items) / RATE)
            lines = b"\n".join([b"[0,1]"] * len(claim.chunk.items))
            self.ledger.finish(claim, succeeded=len(claim.chunk.items), failed=0, results=lines, digest="sha256:0")
        self.registry.withdraw(self.info.node)


class Fleet:
    """Starts and ends workers as the rule says."""

    def __init__(self, redis: RedisServer, *, target_s: float, most: int) -> None:
        self.redis, self.target_s, self.most = redis, target_s, most
        self.workers: list[Sleeper] = []
        self.wanted: deque[tuple[float, int]] = deque()
        self.made = 0

    def follow(self, seconds: float, now: float) -> None:
        """The rule: up at once, down only to the most that was wanted lately."""
        need = math.ceil(seconds * max(1, len(self.workers)) / self.target_s)
        self.wanted.append((now, max(1, min(self.most, need))))
        while self.wanted[0][0] < now - PATIENCE_S:
            self.wanted.popleft()
        self.set(max(number for _, number in self.wanted))

    def set(self, number: int) -> None:
        """Have so many workers."""
        while len(self.workers) > number:
            self.workers.pop().leave.set()
        while len(self.workers) < number:
            self.made += 1
            worker = Sleeper(self.redis, f"sleeper-{self.made}")
            worker.start()
            self.workers.append(worker)


def arriving(share: float) -> int:
    """Images a second at this share of the run."""
    return next(number for until, number in ARRIVALS if share <= until)


def submit(ledger: Ledger, number: int, images: int) -> int:
    """Add chunks to the job; returns the next chunk's number."""
    for _ in range(images // IMAGES):
        ledger.submit("wave", number, encode_chunk([Item(f"{number}-{i}", str(i)) for i in range(IMAGES)]))
        number += 1
    return number


def simulate(redis: RedisServer, *, seconds: float, target_s: float, most: int) -> list[dict[str, float]]:
    """Run it; one row each half second."""
    ledger, watch = redis.ledger, BacklogWatch(redis.client, NoSingles())  # type: ignore[arg-type]
    ledger.create("wave", JobRequest(model=MODEL))
    fleet = Fleet(redis, target_s=target_s, most=most)
    fleet.set(1)
    rows, chunk, began = [], 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        chunk = submit(ledger, chunk, int(arriving(now / seconds) * TICK_S))
        backlog = watch.look().get(MODEL)
        if backlog:
            fleet.follow(backlog.seconds, now)
            row = {"at_s": now, "items": backlog.items, "seconds": backlog.seconds, "workers": len(fleet.workers)}
            rows.append({key: round(value, 2) for key, value in row.items()})
        time.sleep(TICK_S)
    fleet.set(0)
    return rows


def picture(rows: list[dict[str, float]]) -> str:
    """Workers (steps) and seconds of backlog (line) over time, as SVG."""
    width, height, last = 800, 300, rows[-1]["at_s"]
    top = {key: max(row[key] for row in rows) or 1 for key in ("workers", "items")}

    def line(key: str, colour: str) -> str:
        points = [f"{60 + 700 * r['at_s'] / last:.1f},{260 - 220 * r[key] / top[key]:.1f}" for r in rows]
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>'

    words = (
        (60, 20, "#1667b7", f"workers, at most {top['workers']:g}"),
        (300, 20, "#c2491d", f"images that wait, at most {top['items']:g}"),
        (680, 290, "#555", f"{last:.0f} s"),
    )
    texts = "".join(f'<text x="{x}" y="{y}" fill="{colour}">{text}</text>' for x, y, colour, text in words)
    axes = '<path d="M60 40V260H760" fill="none" stroke="#999"/>'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
    body = f'<rect width="100%" height="100%" fill="#fff"/>{axes}{line("items", "#c2491d")}'
    return f"{frame}{body}{line('workers', '#1667b7')}{texts}</svg>\n"


def main() -> None:
    """Run, write, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--target", type=float, default=4.0, help="seconds in which all that waits is to be done")
    parser.add_argument("--most", type=int, default=12, help="workers at the most")
    args = parser.parse_args()
    with redis_server() as redis:
        rows = simulate(redis, seconds=args.seconds, target_s=args.target, most=args.most)
    folder = Path("build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "autoscaling.json").write_text(json.dumps(rows, indent=1))
    (folder / "autoscaling.svg").write_text(picture(rows))
    most = max(row["workers"] for row in rows)
    print(f"workers 1 to {most:g}, images that waited at most {max(row['items'] for row in rows):g}, "
          f"at the end {rows[-1]['workers']:g} workers and {rows[-1]['items']:g} images")  # fmt: skip


if __name__ == "__main__":
    main()
