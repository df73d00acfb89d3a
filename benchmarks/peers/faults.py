"""What a contender does with one broken image among good ones, and with the death of one model process."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.runner import Driver, Run
from benchmarks.peers.work import Answer

__all__ = ["KILL_WAIT_S", "after_kill", "broken_among", "kill_verdict", "one_broken"]

#: Seconds to wait for answers after the kill, and of work to have been done before it, as a part of an untroubled run.
KILL_WAIT_S, KILL_AT = 30.0, 0.4
#: Seconds to wait for the answers where one image is broken.
BROKEN_WAIT_S = 20.0
#: Images of the folder with a broken one, and the place of that one.
AMONG, PLACE = 64, 20


def broken_among(paths: Sequence[str], folder: Path) -> list[str]:
    """A folder of good images and one whose file ends in the middle, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, path in enumerate(map(Path, paths[:AMONG])):
        data = path.read_bytes()
        file = folder / path.name
        file.write_bytes(data[: len(data) // 2] if number == PLACE else data)
        made.append(str(file))
    return made


def one_broken(driver: Driver, paths: Sequence[str], right: Sequence[list[int]]) -> str:
    """Whether it alone fails, and its neighbours do not."""
    return broken_verdict(driver.run(paths, BROKEN_WAIT_S).answers, right)


def broken_verdict(answers: Sequence[Answer], right: Sequence[list[int]]) -> str:
    """In words. ``right`` has what is right for each, whatever for the broken one."""
    wrong = [place for place in range(len(answers)) if place != PLACE and not _same(answers[place], right[place])]
    own = answers[PLACE]
    if wrong:
        return f"no: {len(wrong)} good neighbours have none either ({_words(answers[wrong[0]])})"
    return f"yes ({_words(own)})" if isinstance(own, str) else f"no: {_words(own)}"


def after_kill(driver: Driver, paths: Sequence[str], right: Sequence[list[int]]) -> str:
    """Kill the busiest model process in the middle of a run, wait, and say what came of it."""
    untroubled = driver.run(paths)
    driver.start(paths, untroubled.seconds + KILL_WAIT_S)
    time.sleep(untroubled.seconds * KILL_AT)
    before = driver.models()
    if not before:
        driver.finish()
        raise RuntimeError("no process with a model was found in the middle of a run")
    os.kill(before[0].pid, signal.SIGKILL)
    run = driver.finish()
    verdict = kill_verdict(run, right, untroubled.seconds)
    if verdict.startswith("completes"):
        return verdict
    return f"{verdict}; model processes before and after: {len(before)}, {len(driver.models())}"


def kill_verdict(run: Run, right: Sequence[list[int]], untroubled_s: float) -> str:
    """In words."""
    missing = sum(answer is None for answer in run.answers)
    errors = Counter(answer for answer in run.answers if isinstance(answer, str))
    if missing:
        said = f", {errors.total()} lost ({_words(errors.most_common(1)[0][0])})" if errors else ""
        return f"not done after {run.seconds - untroubled_s:.0f} s: {missing} of {len(right)} without an answer{said}"
    if errors:
        return f"{errors.total()} of {len(right)} answers lost ({_words(errors.most_common(1)[0][0])})"
    if not all(map(_same, run.answers, right)):
        return "done, with wrong labels"
    return f"completes, {run.seconds - untroubled_s:+.1f} s"


def _same(answer: Answer, right: list[int]) -> bool:
    return isinstance(answer, list) and answer[0::2] == right[0::2]


def _words(answer: Answer) -> str:
    if answer is None:
        return "no answer"
    return "labels" if isinstance(answer, list) else " ".join(answer.split())[:60]
