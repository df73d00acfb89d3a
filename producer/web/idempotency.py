"""``Idempotency-Key``: the same request again is the same job.

The key's record names the job before the job is made, so that a request that was cut off can be repeated and goes on
where it was: what the job has accepted is not sent again. Two at once take turns, by the job's own lock.
"""

from __future__ import annotations

import hashlib

import orjson
import redis

from jobs.ledger import new_job_id
from producer.web.problems import Problem

__all__ = ["MAX_KEY_CHARS", "claim"]

#: Longest key, in characters.
MAX_KEY_CHARS = 255


def claim(client: redis.Redis, key: str, fingerprint: str, *, prefix: str, kept_s: float) -> tuple[str, bool]:
    """The id of the key's job, and whether the key is new.

    Raises :class:`Problem` (422) where the key was used for a request of other content. One round trip.
    """
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise Problem(400, "bad_idempotency_key", f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters")
    name = f"{prefix}idempotency:{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}"
    fresh = orjson.dumps({"job": new_job_id(), "fingerprint": fingerprint})
    with client.pipeline() as pipe:  # SET with NX and GET in one is of Redis 7
        pipe.set(name, fresh, nx=True, ex=int(kept_s))
        pipe.get(name)
        new, kept = pipe.execute()
    record = orjson.loads(kept)
    if record["fingerprint"] != fingerprint:
        raise Problem(422, "idempotency_mismatch", "this Idempotency-Key was used for a request of other content")
    return str(record["job"]), bool(new)
