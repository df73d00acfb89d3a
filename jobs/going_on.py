"""A finish, and a claim for later, that are sent now and answered later: nobody waits for what Redis takes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from jobs.ledger import Ledger
from jobs.records import Claim, Done, Next

__all__ = ["Answer", "Finish", "GoingOn"]


@dataclass(frozen=True)
class Finish:
    """What :meth:`~jobs.ledger.Ledger.finish_and_claim` is told."""

    claim: Claim
    then: Next
    done: Done


class Answer(NamedTuple):
    """``recorded`` and ``following`` are those of the finish; ``later`` is what is held for later from now on."""

    recorded: bool = False
    following: Claim | None = None
    later: Claim | None = None


class GoingOn:
    """Sends a finish, where there is one, and then a claim for later. Ends with one :meth:`answer`, or :meth:`forget`.

    ``held`` is what the token will hold for later by then, see :meth:`~jobs.ledger.Ledger.claim_ahead`; None claims
    nothing. Raises what redis-py raises where it cannot be sent.
    """

    def __init__(
        self, ledger: Ledger, token: str, lane: str, *, lease_s: float, finish: Finish | None, held: int | None
    ) -> None:
        self.finish = finish
        self._scripts = ledger.scripts
        self._token = token
        self._claims = held is not None
        commands = []
        if finish:
            commands.append(
                ledger.scripts.command("finish", *ledger.finish_args(finish.claim, finish.then, finish.done))
            )
        if held is not None:
            commands.append(ledger.scripts.command("claim_ahead", lane, token, int(lease_s * 1000), held))
        self._sent = _Sent(ledger.redis, commands)

    def is_answered(self) -> bool:
        """Whether something came, if only that the connection was lost."""
        return self._sent.is_answered()

    def answer(self) -> Answer:
        """What came of it.

        Raises what redis-py raises; then a finish may be recorded or not, and is to be repeated, as may the claim.
        Where only the claim is refused, as by a Redis that is full, nothing is held.
        """
        answers = self._sent.answers()
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._scripts.reload()
        later = answers.pop() if self._claims else None
        recorded, following = _sound(answers.pop()) if self.finish else (0, None)
        if isinstance(later, ResponseError) and self.finish:
            later = None
        return Answer(
            bool(recorded), Claim.from_answer(self._token, following), Claim.from_answer(self._token, _sound(later))
        )

    def forget(self) -> None:
        """Nobody will ask."""
        self._sent.forget()


class _Sent:
    """Commands on a connection of their own, until their answers are read."""

    def __init__(self, client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> None:
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()
        self._count = len(commands)
        try:
            packed = self._connection.pack_commands(commands)  # type: ignore[no-untyped-call]
            self._connection.send_packed_command(packed)  # type: ignore[no-untyped-call]
        except BaseException:
            self.forget()
            raise

    def is_answered(self) -> bool:
        """See :class:`GoingOn`."""
        try:
            return self._connection.can_read()
        except RedisError:
            return True  # reading says it

    def answers(self) -> list[Any]:
        """One for each command, be it an error."""
        try:
            return [self._answer() for _ in range(self._count)]
        except BaseException:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            self._pool.release(self._connection)

    def _answer(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as exc:  # the others are answered all the same
            return exc

    def forget(self) -> None:
        """An answer that nobody reads must not be taken for another one's."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(self._connection)


def _sound(answer: Any) -> Any:
    """The same; raises what is an error."""
    if isinstance(answer, ResponseError):
        raise answer
    return answer
