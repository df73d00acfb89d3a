"""``labelmill-worker`` that keeps a diary: ``python -m tests.chaos.worker serve --model noop``.

Its images take time or do harm as :mod:`tests.support.poison_app` says; everything else is the product's own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import worker.decode
from jobs.going_on import Answer, GoingOn
from jobs.ledger import Claim, Ledger
from tests.chaos.diary import Diary
from tests.support import poison_app
from worker.cli import main
from worker.turn import Turn

__all__ = ["keep_diary"]


def keep_diary(diary: Diary) -> None:
    """From now on, in this process and those it forks."""
    hand = threading.local()
    worker.decode.decode_into = _decoding(worker.decode.decode_into, diary, hand)
    Ledger.claim = _claiming(Ledger.claim, diary, hand)  # type: ignore[method-assign]
    Ledger.claim_ahead = _holding(Ledger.claim_ahead, diary)  # type: ignore[method-assign]
    Ledger.finish_and_claim = _finishing(Ledger.finish_and_claim, diary, hand)  # type: ignore[method-assign]
    GoingOn.answer = _answering(GoingOn.answer, diary)  # type: ignore[method-assign]
    Turn.serve_chunk = _serving(Turn.serve_chunk, diary, hand)  # type: ignore[method-assign]


def _take(found: Claim | None, diary: Diary, hand: threading.local) -> None:
    if found and getattr(hand, "claim", None) != found:
        hand.claim = found
        names = [item.custom_id for item in found.chunk.items]
        diary.write("claimed", found.job, found.chunk_id, found.token, names)


def _claiming(claim: Callable[..., Any], diary: Diary, hand: threading.local) -> Any:
    def claim_and_tell(self: Ledger, lane: str, token: str, *, lease_s: float) -> Claim | None:
        found: Claim | None = claim(self, lane, token, lease_s=lease_s)
        _take(found, diary, hand)
        return found

    return claim_and_tell


def _serving(serve: Callable[..., Any], diary: Diary, hand: threading.local) -> Any:
    def take_and_serve(self: Turn, claim: Claim) -> Claim | None:
        _take(claim, diary, hand)  # what was held for later, and is begun before Redis has said so
        following: Claim | None = serve(self, claim)
        return following

    return take_and_serve


def _answering(answer: Callable[..., Answer], diary: Diary) -> Any:
    def answer_and_tell(self: GoingOn) -> Answer:
        found = answer(self)
        if self.finish:
            claim = self.finish.claim
            diary.write("recorded" if found.recorded else "late", claim.job, claim.chunk_id, claim.token)
        if later := found.later:
            diary.write("held", later.job, later.chunk_id, later.token, [i.custom_id for i in later.chunk.items])
        return found

    return answer_and_tell


def _holding(claim_ahead: Callable[..., Any], diary: Diary) -> Any:
    def hold_and_tell(self: Ledger, *args: Any, **named: Any) -> Claim | None:
        found: Claim | None = claim_ahead(self, *args, **named)
        if found:
            diary.write("held", found.job, found.chunk_id, found.token, [i.custom_id for i in found.chunk.items])
        return found

    return hold_and_tell


def _decoding(decode: Callable[..., None], diary: Diary, hand: threading.local) -> Any:
    def decode_and_tell(data: bytes, *args: Any, **named: Any) -> None:
        decode(data, *args, **named)
        name = data.decode().split()[-1]
        diary.write("computed", hand.claim.job, hand.claim.chunk_id, name)

    return decode_and_tell


def _finishing(finish: Callable[..., tuple[bool, Claim | None]], diary: Diary, hand: threading.local) -> Any:
    def finish_and_tell(self: Ledger, claim: Claim, then: Any, **named: Any) -> tuple[bool, Claim | None]:
        is_recorded, following = finish(self, claim, then, **named)
        diary.write("recorded" if is_recorded else "late", claim.job, claim.chunk_id, claim.token)
        _take(following, diary, hand)
        return is_recorded, following

    return finish_and_tell


if __name__ == "__main__":
    assert poison_app.app.main == "labelmill"
    keep_diary(Diary(os.environ["CHAOS_DIARY"]))
    sys.exit(main(sys.argv[1:]))
