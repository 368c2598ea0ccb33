"""What the layers of a float model see on the calibration images.

One pass of ONNX Runtime over the images; what is kept does not grow with their number: each
channel's range over everything, and a sample of tokens as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from levit_deploy.calibration.image_set import ImageSet, Progress, ignore_progress
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, ExportedModel
from levit_deploy.models.images import normalize

Float32 = NDArray[np.float32]

SAMPLE_TOKENS = 4096  # per tensor: half a million values where there are 128 channels


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """`low`, `high`: each channel's range over all images, (channels,).

    `sample`: tokens (n, channels), as many from every image, evenly spaced in it.
    """

    low: Float32
    high: Float32
    sample: Float32


@dataclass(frozen=True)
class Linear:
    """A linear layer of an exported graph: its name, and the tensor that it reads."""

    name: str
    input: str


def linear_layers(model: onnx.ModelProto) -> list[Linear]:
    """The layers `MatMul [weight], Add [bias]` in order of execution."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        Linear(node.name.removesuffix(".matmul"), node.input[0])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    ]


def collect_statistics(
    exported: ExportedModel, images: ImageSet, progress: Progress = ignore_progress
) -> Mapping[str, TensorStatistics]:
    """Statistics of every tensor that a linear layer reads, by the tensor's name.

    Raises DeployError, naming the tensor, if an image makes a value that is not finite.
    """
    names = list(dict.fromkeys(layer.input for layer in linear_layers(exported.graph)))
    session = _session_with_outputs(exported.graph, names)
    tokens = math.ceil(SAMPLE_TOKENS / len(images))
    ranges: dict[str, tuple[Float32, Float32]] = {}
    samples: dict[str, list[Float32]] = {name: [] for name in names}
    for done, picture in enumerate(images, start=1):
        image = normalize(picture[None], exported.normalization)
        for name, tensor in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
            rows = tensor.reshape(-1, tensor.shape[-1])
            if not np.isfinite(rows).all():
                raise DeployError(
                    f"image {done} of `{images.source}` makes `{name}` overflow or NaN",
                    hint="check the weights: `levit-deploy export` compares them with PyTorch",
                )
            low, high = ranges.get(name, (rows[0], rows[0]))
            ranges[name] = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
            samples[name].append(_evenly(rows, tokens, offset=done))
        progress(done, len(images))
    return {name: TensorStatistics(*ranges[name], np.concatenate(samples[name])) for name in names}


def _evenly(rows: Float32, count: int, offset: int) -> Float32:
    """`count` evenly spaced rows; the offset walks with the images, so that all places are seen."""
    count = min(count, len(rows))
    chosen = (np.arange(count) * len(rows) // count + offset) % len(rows)
    return rows[chosen]


def _session_with_outputs(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
