"""Four pixels of a row at a time for the first layer of an INT8 graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.export.graphs import ALIKE, OUTPUTS, WIDTH, float_model, int8_model, pictures, run
from worker.export.blocks import take_blocks
from worker.export.frame import FRAMED, add_frame


@pytest.mark.parametrize(
    ("size", "strides", "pads"),
    [
        ((3, 3), (2, 2), (0, 0, 1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (1, 2), (1, 1, 0, 0)),
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((5, 6), (2, 2), (2, 2, 2, 2)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((4, 4), (4, 4), (0, 0, 0, 0)),
        ((7, 7), (4, 4), (3, 3, 3, 3)),
        ((3, 11), (3, 4), (0, 7, 0, 0)),
    ],
)
@pytest.mark.parametrize("middle", [None, "Relu"])
def test_blocks_of_pixels_give_the_very_same_scores(
    size: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], middle: str | None
) -> None:
    model = int8_model(size=size, strides=strides, pads=pads, middle=middle)
    wanted = run(model, pictures())
    assert take_blocks(model, WIDTH)
    assert np.array_equal(run(model, pictures()), wanted)
    assert len(np.unique(wanted)) > 20


def framed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, a frame of three colours in place of what the layer pads with."""
    layer = next(node for node in model.graph.node if node.op_type == "Conv")
    transpose = next(node for node in model.graph.node if node.op_type == "Transpose")
    for node in reversed(add_frame(model, layer, np.array([200, 3, 90], np.uint8))):
        model.graph.node.insert(0, node)
    transpose.input[0] = FRAMED
    return model


@pytest.mark.parametrize(
    ("size", "strides", "pads"),
    [
        ((3, 3), (2, 2), (0, 0, 1, 1)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (1, 2), (0, 1, 0, 1)),
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((5, 6), (2, 2), (2, 2, 2, 2)),
        ((3, 9), (2, 2), (1, 3, 1, 5)),
        ((3, 3), (2, 2), (1, 5, 1, 5)),
    ],
)
def test_blocks_of_a_framed_picture_give_the_very_same_scores(
    size: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...]
) -> None:
    settings: dict[str, Any] = {"size": size, "strides": strides, "pads": pads}
    model = framed(int8_model(**settings))
    wanted = run(model, pictures())
    assert not np.array_equal(wanted, run(int8_model(**settings), pictures()))
    assert take_blocks(model, WIDTH)
    assert np.array_equal(run(model, pictures()), wanted)
    assert len(np.unique(wanted)) > 20


@pytest.mark.parametrize(
    "model",
    [
        framed(int8_model(size=(3, 4), pads=(1, 2, 1, 0))),
        framed(int8_model(size=(7, 7), strides=(4, 4), pads=(3, 3, 3, 3))),
        int8_model(strides=(1, 1)),
        int8_model(pads=(0, 0, 0, 0)),
        int8_model(dilations=(2, 2), pads=(0, 0, 4, 4)),
        int8_model(pads=(0, 0, 0, 0), auto_pad="SAME_UPPER"),
        int8_model(middle="Sigmoid"),
        int8_model(turned=[0, 3, 2, 1]),
        int8_model(tensors={"wz": np.ones(OUTPUTS, np.int8)}),
        int8_model(tensors={"ws": np.float32(0.01), "wz": np.int8(0)}),
        float_model(ALIKE),
    ],
    ids=[
        "a frame that cannot be widened",
        "a frame with a block too many",
        "every pixel",
        "an odd number",
        "dilated",
        "pads by themselves",
        "another function",
        "turned",
        "a zero point",
        "one step",
        "floats",
    ],
)
def test_layers_whose_results_do_not_fit_blocks_are_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert not take_blocks(model, WIDTH)
    assert model.SerializeToString() == before


def test_a_result_that_others_need_too_is_left_alone() -> None:
    model = int8_model()
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", OUTPUTS, "h", "w"]))
    assert not take_blocks(model, WIDTH)
    bare = int8_model()
    del bare.graph.node[-2:]
    bare.graph.output[0].name = "c"
    assert not take_blocks(bare, WIDTH)


def test_names_that_are_taken_are_left_alone() -> None:
    model = int8_model()
    model.graph.node[-1].name = "labelmill_blocks_of_mine"
    assert not take_blocks(model, WIDTH)


def test_a_width_that_blocks_do_not_divide_is_left_alone() -> None:
    assert not take_blocks(int8_model(), WIDTH + 2)
