"""The textbook's way: one task an image, its bytes as base64 in the message, torchvision, eager PyTorch, prefork."""

from __future__ import annotations

import base64
import io
import os
from functools import cache
from typing import Any

from celery import Celery

__all__ = ["app", "classify"]

app = Celery("textbook", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BROKER"))


@cache
def model() -> Any:
    """EfficientNet-Lite0 in eager mode, and its transforms."""
    import torch

    from worker.export import efficientnet
    from worker.export.vision import vision

    vision()  # beside a torch without CUDA it needs help to be imported
    from torchvision import transforms

    torch.set_num_threads(1)
    network = efficientnet.network()
    network.load_state_dict(torch.load(efficientnet.weights_file(), weights_only=True))
    pipeline = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    return network.eval(), pipeline


@app.task
def classify(image: str) -> list[list[float]]:
    """``[index, score]`` of the five most likely labels."""
    import torch
    from PIL import Image

    network, pipeline = model()
    picture = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
    with torch.no_grad():
        scores = torch.softmax(network(pipeline(picture)[None]), dim=1)[0]
        best = scores.topk(5)
    return [[float(index), float(score)] for index, score in zip(best.indices, best.values, strict=True)]
