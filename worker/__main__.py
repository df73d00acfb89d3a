"""``python -m worker`` is ``labelmill-worker``."""

from __future__ import annotations

from worker.cli import entry

if __name__ == "__main__":
    entry()
