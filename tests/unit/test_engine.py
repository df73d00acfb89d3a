"""The engine: items in, one line each out, bad ones apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jobs.errors import NotFoundError
from jobs.items import decode_outcomes
from tests.support.brightness import Brightness, decode
from worker.engine import Engine, top
from worker.models.loader import load
from worker.models.runtime import Images, Scores


def fetch(ref: str) -> bytes:
    return ref.encode()


@pytest.fixture
def engine() -> Engine:
    return Engine(Brightness(), decode, batch_size=3)


def test_every_item_gets_its_line_in_order(engine: Engine) -> None:
    result = engine.run(["0", "1", "2", "3", "0"], fetch, top_k=1)
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, 3, 0]
    assert (result.succeeded, result.failed) == (5, 0)


def test_bad_items_fail_alone(engine: Engine) -> None:
    result = engine.run(["bad", "1", "bad", "3", "bad"], fetch, top_k=1)
    outcomes = list(decode_outcomes(result.lines))
    assert outcomes == [
        ["corrupt_image", "cut short"],
        [1, 10_000],
        ["corrupt_image", "cut short"],
        [3, 10_000],
        ["corrupt_image", "cut short"],
    ]
    assert (result.succeeded, result.failed) == (2, 3)


def test_a_batch_on_which_the_model_raises_is_tried_item_by_item(engine: Engine) -> None:
    result = engine.run(["1", "255", "2"], fetch, top_k=1)
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [1, "model_error", 2]
    assert (result.succeeded, result.failed) == (2, 1)


def test_batches_are_no_larger_than_the_best_size(engine: Engine) -> None:
    engine.run(list("0123012"), fetch, top_k=1)
    assert engine.runtime.batches == [3, 3, 1]  # type: ignore[attr-defined]


class Watched(Engine):
    """Writes down what it does, and in what order."""

    def __init__(self) -> None:
        super().__init__(Brightness(), self._decode, batch_size=2)
        self.runtime.predict = self._predicted  # type: ignore[method-assign]
        self.done: list[str] = []

    def look(self) -> None:
        self.done.append("look")

    def _decode(self, data: bytes, out: Images) -> None:
        self.done.append(data.decode())
        decode(data, out)

    def _predicted(self, images: Images) -> Scores:
        self.done.append(f"predict {len(images)}")
        return Brightness.predict(Brightness(), images)


def test_a_chunk_is_decoded_in_one_go_and_then_predicted_in_full_batches() -> None:
    engine = Watched()
    result = engine.run([*"012", "bad", "3"], fetch, top_k=1, decoded=engine.look)
    assert " ".join(engine.done) == "0 1 look 2 bad look 3 look predict 2 look predict 2"
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, "corrupt_image", 3]


def test_what_waits_for_other_machines_is_predicted_batch_by_batch() -> None:
    engine = Watched()
    result = engine.run([*"012", "bad", "3"], fetch, top_k=1, waits=True, decoded=engine.look)
    assert " ".join(engine.done) == "0 1 look predict 2 2 bad look predict 1 3 look predict 1"
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, "corrupt_image", 3]


@pytest.mark.parametrize(
    ("most", "waits", "done"),
    [
        (100, False, "read 0, read bad, read 1, 0, bad, 1, read 2, 2"),
        (4, False, "read 0, read bad, 0, bad, read 1, 1, read 2, 2"),
        (1, False, "read 0, 0, read bad, bad, read 1, 1, read 2, 2"),
        (100, True, "read 0, 0, read bad, bad, read 1, 1, read 2, 2"),
    ],
)
def test_files_of_a_batch_are_read_together_up_to_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch, most: int, waits: bool, done: str
) -> None:
    def read(ref: str) -> bytes:
        if ref == "gone":
            raise NotFoundError()
        engine.done.append(f"read {ref}")
        return ref.encode()

    monkeypatch.setattr("worker.engine.READ_BYTES", most)
    engine = Watched()
    engine.batch_size = 4
    result = engine.run(["0", "bad", "gone", "1", "2"], read, top_k=1, waits=waits)
    assert ", ".join(step for step in engine.done if "predict" not in step) == done
    outcomes = decode_outcomes(result.lines)
    assert [outcome[0] for outcome in outcomes] == [0, "corrupt_image", "not_found", 1, 2]


@pytest.mark.parametrize("waits", [False, True])
def test_what_reading_and_decoding_take_is_told_apart(monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
    now = 0.0

    def read(ref: str) -> bytes:
        nonlocal now
        now += 1
        if ref == "gone":
            raise NotFoundError()
        return ref.encode()

    def decode_slowly(data: bytes, out: Images) -> None:
        nonlocal now
        now += 100
        decode(data, out)

    monkeypatch.setattr("worker.engine.perf_counter", lambda: now)
    engine = Engine(Brightness(), decode_slowly, batch_size=2)
    spent = engine.run(["0", "gone", "bad", "1"], read, top_k=1, waits=waits).spent
    assert (spent.fetch_s, spent.decode_s) == (4, 300)


def test_files_are_let_go_before_the_next_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    most = 0

    class File(bytes):
        """Bytes that say when they are gone."""

        def __del__(self) -> None:
            alive.pop()

    def read(ref: str) -> bytes:
        nonlocal most
        alive.append(1)
        most = max(most, len(alive))
        return File(b"1")

    monkeypatch.setattr("worker.engine.READ_BYTES", 4)
    Engine(Brightness(), decode, batch_size=64).run(["x"] * 40, read, top_k=1)
    assert most <= 4 + 1


def test_what_is_decoded_in_one_go_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = Brightness.card.preprocessing.size
    for room, goes in ((0, 2), (5 * height * width * 3, 4)):
        monkeypatch.setattr("worker.engine.TOGETHER", room)
        engine = Watched()
        result = engine.run(list("01230123"), fetch, top_k=1)
        assert " ".join(engine.done).split(" predict")[0] == " ".join("0123"[:goes])
        assert [outcome[0] for outcome in decode_outcomes(result.lines)] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_what_a_look_raises_ends_the_run() -> None:
    def look() -> None:
        raise KeyboardInterrupt

    engine = Watched()
    with pytest.raises(KeyboardInterrupt):
        engine.run(list("0123"), fetch, top_k=1, decoded=look)
    assert engine.done == ["0", "1"]


def test_nothing_is_no_work(engine: Engine) -> None:
    assert engine.run([], fetch, top_k=1).lines == b""


def test_a_model_that_answers_for_fewer_images_fails_them_instead_of_shifting_labels() -> None:
    class Short(Brightness):
        def predict(self, images: Images) -> Scores:
            return super().predict(images)[:-1]

    result = Engine(Short(), decode, batch_size=3).run(["0", "1"], fetch, top_k=1)
    assert [outcome[0] for outcome in decode_outcomes(result.lines)] == ["model_error", "model_error"]


def test_noop_neither_fetches_nor_decodes() -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError

    result = Engine(load("noop"), refuse, batch_size=32).run(["x", "y"], refuse, top_k=2)  # type: ignore[arg-type]
    assert list(decode_outcomes(result.lines)) == [[0, 5000, 1, 2500]] * 2


def naive_top(row: Scores, k: int) -> list[tuple[int, int]]:
    ranked = sorted(((-round(float(score) * 10_000), index) for index, score in enumerate(row)))
    return [(index, -units) for units, index in ranked[:k]]


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_top_is_what_sorting_everything_would_give(classes: int, k: int) -> None:
    scores = np.random.default_rng(classes).dirichlet(np.ones(classes) * 0.05, 7).astype(np.float32)
    found = top(scores, k)
    for row, indices, units in zip(scores, found.indices, found.units, strict=True):
        assert list(zip(indices.tolist(), units.tolist(), strict=True)) == naive_top(row, k)


@pytest.mark.parametrize("order", [lambda x: x, lambda x: x[::-1]])
def test_noise_in_the_last_bits_never_swaps_two_labels(order: Callable[[Scores], Scores]) -> None:
    noise = np.float32([0, 1e-7, 2e-7])
    scores = (np.float32([0.33, 0.33, 0.33]) + order(noise))[np.newaxis]
    assert top(scores, 3).indices.tolist() == [[0, 1, 2]]
