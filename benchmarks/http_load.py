"""64 clients at once on ``POST /predict``, each on a connection of its own: latency, answers, the gateway's memory.

    .venv/bin/python -m benchmarks.http_load [--model efficientnet-lite0] [--seconds 60] [--clients 64]
    .venv/bin/python -m benchmarks.http_load --overhead [--model noop]

Starts ``labelmill gateway`` with its embedded pair on this machine and sends nothing anywhere else. Exit code 1 where
an answer was anything but 200 or an honest 429 or 503 with Retry-After, or where memory grew by more than a tenth after
the first third of the run. ``--overhead`` measures one caller instead, over HTTP and with plain Celery on the same
Redis and worker, in turns.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import redis_server, worker_process

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photos" / "coffee.jpg"
#: Seconds between two looks at memory, and the longest wait of a client for one answer.
LOOK_S, ANSWER_S = 1.0, 90.0
#: Turns of one caller, and calls of a turn, when the overhead is measured.
TURNS, CALLS = 10, 50
#: Growth of memory after the first third of a run that is taken for none.
FLAT = 1.1


class Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._lock = threading.Lock()

    def note(self, answer: str, seconds: float) -> None:
        """One answer; only those with labels count for latency."""
        with self._lock:
            self.answers[answer] += 1
            if answer == "200":
                self.seconds.append(seconds)


def client(port: int, body: bytes, until: float, load: Load) -> None:
    """One client: the next request as soon as there is an answer."""
    headers = {"Content-Type": "multipart/form-data; boundary=load"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    while (started := time.monotonic()) < until:
        try:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as exc:
            load.note(type(exc).__name__, 0.0)
            connection.close()
            continue
        wait = answer.headers["Retry-After"]
        honest = answer.status in (429, 503) and wait is not None
        load.note(f"{answer.status} with Retry-After" if honest else str(answer.status), time.monotonic() - started)
        if honest:
            time.sleep(float(wait))
    connection.close()


def memory(web: GatewayProcess) -> int:
    """Resident bytes of the gateway's own processes, without its Redis and its worker."""
    children = [child for child in psutil.Process(web.pid).children() if "gateway" in child.cmdline()]
    return sum(process.memory_info().rss for process in [psutil.Process(web.pid), *children])


def run(web: GatewayProcess, *, clients: int, seconds: float) -> tuple[Load, list[int]]:
    """The load, and the gateway's memory second by second."""
    load, body = Load(), _form()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client, args=(web.port, body, until, load)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    resident = []
    while time.monotonic() < until:
        time.sleep(LOOK_S)
        resident.append(memory(web))
    for thread in threads:
        thread.join()
    return load, resident


def report(load: Load, resident: list[int], seconds: float) -> bool:
    """Print it; True where all was as it must be."""
    ordered = sorted(load.seconds)
    print("answers: " + ", ".join(f"{count} x {answer}" for answer, count in sorted(load.answers.items())))
    if ordered:
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        print(f"{len(ordered) / seconds:.0f} pictures/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    settled = resident[len(resident) // 3 :]
    print(f"gateway memory: {settled[0] / 1e6:.0f} MB after a third, {settled[-1] / 1e6:.0f} MB at the end")
    honest = all(answer == "200" or answer.endswith("Retry-After") for answer in load.answers)
    return bool(ordered) and honest and settled[-1] <= FLAT * settled[0]


def _form() -> bytes:
    head = b'--load\r\nContent-Disposition: form-data; name="image"; filename="coffee.jpg"\r\n\r\n'
    return head + PHOTO.read_bytes() + b"\r\n--load--\r\n"


def overhead(model: str) -> None:
    """Print what a call takes over HTTP and with plain Celery, one after the other, and the difference."""
    taken: dict[str, list[float]] = {"plain Celery": [], "HTTP": []}
    with redis_server() as redis, worker_process(redis, model=model), gateway(redis=redis, model=model) as web:
        os.environ["LABELMILL_BROKER_URL"] = redis.broker_url
        from tasks import classify  # reads the broker's address

        data, body = base64.b64encode(PHOTO.read_bytes()).decode(), _form()
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=ANSWER_S)

        def over_http() -> None:
            connection.request("POST", "/predict", body, {"Content-Type": "multipart/form-data; boundary=load"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()

        def with_celery() -> None:
            classify.delay(PHOTO.name, model=model, data=data).get(timeout=ANSWER_S)

        for _ in range(TURNS):
            for name, call in (("plain Celery", with_celery), ("HTTP", over_http)):
                call()  # not measured: the first of a turn finds cold caches
                for _ in range(CALLS):
                    started = time.perf_counter()
                    call()
                    taken[name].append(time.perf_counter() - started)
    middle = {name: sorted(seconds)[len(seconds) // 2] * 1000 for name, seconds in taken.items()}
    print(", ".join(f"{name}: p50 {ms:.1f} ms" for name, ms in middle.items()))
    print(f"overhead of the gateway: {middle['HTTP'] - middle['plain Celery']:+.1f} ms a call")


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--overhead", action="store_true", help="one caller, against plain Celery")
    args = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f}")
    if args.overhead:
        overhead(args.model)
        return 0
    with gateway(model=args.model, env={"LABELMILL_WEB_PROCESSES": "2"}) as web:
        load, resident = run(web, clients=args.clients, seconds=args.seconds)
    return 0 if report(load, resident, args.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
