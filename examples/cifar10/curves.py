"""Loss and accuracy over the epochs as one picture, drawn with Pillow: nothing else need be installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont
from recipe import Epoch

__all__ = ["draw"]

#: Pixels: of one panel, and from its edge to its axes (left, top, right, bottom).
PANEL_WIDTH, PANEL_HEIGHT = 560, 400
LEFT, TOP, RIGHT, BOTTOM = 64, 44, 20, 48
INK, GRID = "#222222", "#dddddd"
TRAINING, TEST = "#c2571a", "#1f5fa8"
TICKS = 5

Line = tuple[str, str, Sequence[float]]  # name, colour, one value an epoch


def draw(history: Sequence[Epoch]) -> Image.Image:
    """Two panels side by side, cross-entropy and top-1 accuracy, each of training and of the test set."""
    picture = Image.new("RGB", (2 * PANEL_WIDTH, PANEL_HEIGHT), "white")
    loss = [
        ("training (augmented, dropout)", TRAINING, [epoch.train_loss for epoch in history]),
        ("test", TEST, [epoch.test_loss for epoch in history]),
    ]
    accuracy = [
        ("training (augmented, dropout)", TRAINING, [100 * epoch.train_accuracy for epoch in history]),
        ("test", TEST, [100 * epoch.test_accuracy for epoch in history]),
    ]
    _panel(picture, 0, "loss (cross-entropy)", loss, "{:.2f}".format)
    _panel(picture, PANEL_WIDTH, "top-1 accuracy, %", accuracy, "{:.0f}".format)
    return picture


def _panel(picture: Image.Image, offset: int, title: str, lines: Sequence[Line], label: Callable[[float], str]) -> None:
    pen = ImageDraw.Draw(picture)
    font, bold = ImageFont.load_default(13), ImageFont.load_default(16)
    values = [value for _, _, series in lines for value in series]
    low, high, count = min(values), max(values), len(lines[0][2])
    right, bottom = offset + PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM

    def x(epoch: float) -> float:
        return offset + LEFT + (right - offset - LEFT) * (epoch - 1) / max(count - 1, 1)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - low) / ((high - low) or 1.0)

    for tick in range(TICKS + 1):
        value, epoch = low + (high - low) * tick / TICKS, 1 + round((count - 1) * tick / TICKS)
        pen.line([(offset + LEFT, y(value)), (right, y(value))], fill=GRID)
        pen.text((offset + LEFT - 8, y(value)), label(value), fill=INK, font=font, anchor="rm")
        pen.text((x(epoch), bottom + 8), str(epoch), fill=INK, font=font, anchor="mt")
    pen.text((offset + LEFT, 12), title, fill=INK, font=bold)
    pen.text((right, PANEL_HEIGHT - 16), "epoch", fill=INK, font=font, anchor="rm")
    for row, (name, colour, series) in enumerate(lines):
        pen.line([(x(epoch), y(value)) for epoch, value in enumerate(series, 1)], fill=colour, width=2)
        middle = (TOP + bottom) / 2 + 20 * row
        pen.line([(right - 230, middle), (right - 206, middle)], fill=colour, width=3)
        pen.text((right - 198, middle), name, fill=INK, font=font, anchor="lm")
