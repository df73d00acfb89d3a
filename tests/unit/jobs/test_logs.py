"""Log lines: JSON outside a terminal, with what they are about, and never a password."""

from __future__ import annotations

import io
import json
import logging

import pytest

from jobs import logs


@pytest.fixture
def logger() -> logging.Logger:
    """A root logger as in a fresh process."""
    return logging.RootLogger(logging.WARNING)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_json_with_worker_job_and_chunk(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(logger=logger, worker="w1@host", stream=stream)
    with logs.about("job-1", "12"):
        logger.warning("took %d ms", 5)
    logger.info("idle")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "took 5 ms"
    assert (first["worker"], first["job"], first["chunk"]) == ("w1@host", "job-1", "12")
    assert "job" not in second


def test_on_a_terminal_it_is_a_line_for_people(logger: logging.Logger) -> None:
    stream = Terminal()
    logs.configure(logger=logger, stream=stream)
    with logs.about("job-1", "12"):
        logger.warning("slow")
    assert stream.getvalue().endswith("root: slow [job job-1 chunk 12]\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_passwords_are_masked_in_messages_and_tracebacks(logger: logging.Logger, form: str) -> None:
    stream = io.StringIO()
    logs.configure(logger=logger, stream=stream, form=form)
    try:
        raise ValueError("redis://user:secret@host/0")
    except ValueError:
        logger.exception("lost redis://user:secret@host/0")
    assert "secret" not in stream.getvalue()
    assert "redis://user:***@host/0" in stream.getvalue()


def test_a_root_logger_that_somebody_set_up_stays_theirs(logger: logging.Logger) -> None:
    theirs = logging.NullHandler()
    logger.addHandler(theirs)
    logs.configure(logger=logger, stream=io.StringIO())
    assert logger.handlers == [theirs]
