"""What an operator can set of the gateway, beside :class:`~jobs.settings.Settings`.

Every variable is ``LABELMILL_`` and the field's name in capitals: ``LABELMILL_API_TOKENS``, ``LABELMILL_WEB_MAX_BODY``.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.settings import Settings, parse_bytes, parse_count, parse_names, parse_seconds, setting

__all__ = ["WebSettings"]

#: Shorter tokens can be guessed.
MIN_TOKEN_CHARS = 8
#: Threads beside those that wait, stream or take an upload: health, status, models, the page.
SPARE_THREADS = 16


def _tokens(value: str) -> tuple[str, ...]:
    tokens = parse_names(value)
    if any(len(token) < MIN_TOKEN_CHARS or not token.isascii() or " " in token for token in tokens):
        raise ValueError(f"each token must have at least {MIN_TOKEN_CHARS} ASCII characters and no space")
    return tokens


def _count_or_none(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("must be 0 or above")
    return number


@dataclass(frozen=True, repr=False)
class WebSettings(Settings):
    """Limits and guards of the gateway. Times in seconds, sizes in bytes; counts are for each process of it."""

    api_tokens: tuple[str, ...] = setting((), _tokens, "bearer tokens, comma-separated; empty: none is asked for")
    web_hosts: tuple[str, ...] = setting(
        (), parse_names, "host names that requests may name; empty: any, or this machine's own when bound to loopback"
    )
    web_proxies: int = setting(0, _count_or_none, "how many proxies in front to believe X-Forwarded-* of")
    web_processes: int = setting(2, parse_count, "processes of the gateway")
    web_max_body: int = setting(1 << 30, parse_bytes, "largest body of a request")
    web_max_files: int = setting(10_000, parse_count, "most images of one request")
    web_max_json: int = setting(8 << 20, parse_bytes, "largest JSON body, which is held in memory")
    web_predict_bytes: int = setting(8 << 20, parse_bytes, "largest picture of a single call, which is held in memory")
    web_predict_timeout_s: float = setting(30.0, parse_seconds, "longest wait for the answer to a single call")
    web_submit_timeout_s: float = setting(300.0, parse_seconds, "longest wait for Redis to have room for an upload")
    web_waiting: int = setting(64, parse_count, "single calls that wait for an answer at once")
    web_uploads: int = setting(16, parse_count, "large bodies that are received at once")
    web_streams: int = setting(24, parse_count, "results and events that are streamed at once")
    web_backlog: int = setting(256, parse_count, "single calls in a model's queue past which more are refused")
    web_requests_per_minute: int = setting(0, _count_or_none, "requests of one token or address; 0: any number")
    web_spool_dir: str = setting("", str, "folder for uploads on their way; empty: the system's temporary folder")

    @property
    def web_threads(self) -> int:
        """Threads of one process, so that no kind of request can take them all."""
        return self.web_waiting + self.web_uploads + self.web_streams + SPARE_THREADS
