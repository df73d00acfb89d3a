"""What every runtime promises: same length, same order, float32, batches of any size, safe to share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from worker.models import golden
from worker.models.runtime import Images, Runtime


def images_for(runtime: Runtime, count: int) -> Images:
    height, width = runtime.card.preprocessing.size
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_batch_of_any_size_gives_one_float32_row_an_image(runtime: Runtime, count: int) -> None:
    scores = runtime.predict(images_for(runtime, count))

    assert scores.shape == (count, len(runtime.card.labels))
    assert scores.dtype == np.float32


def test_a_row_is_the_same_alone_and_in_a_batch_so_order_is_kept(runtime: Runtime) -> None:
    images = images_for(runtime, 5)

    together = runtime.predict(images)
    alone = np.concatenate([runtime.predict(image[None]) for image in images])

    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)


def test_a_batch_turned_round_gives_scores_turned_round(runtime: Runtime) -> None:
    images = images_for(runtime, 5)

    np.testing.assert_allclose(runtime.predict(images[::-1]), runtime.predict(images)[::-1], rtol=1e-5, atol=1e-7)


def test_models_that_decode_tell_different_images_apart(runtime: Runtime) -> None:
    scores = runtime.predict(images_for(runtime, 2))

    assert runtime.decodes == bool(np.abs(scores[0] - scores[1]).max() > 1e-6)


def test_scores_are_those_of_softmax_where_the_card_says_so(runtime: Runtime) -> None:
    scores = runtime.predict(images_for(runtime, 5))

    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=2e-3)


def test_the_identity_is_a_sha256(runtime: Runtime) -> None:
    algorithm, _, value = runtime.digest.partition(":")

    assert algorithm == "sha256"
    assert len(bytes.fromhex(value)) == 32


def test_the_golden_sample_is_met(runtime: Runtime) -> None:
    golden.verify(runtime)


def test_one_runtime_serves_several_threads(runtime: Runtime) -> None:
    images = images_for(runtime, 5)
    expected = runtime.predict(images)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: runtime.predict(images), range(16)))

    for answer in answers:
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-7)
