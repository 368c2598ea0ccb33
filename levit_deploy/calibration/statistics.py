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
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from levit_deploy.calibration.image_set import ImageSet, Progress
from levit_deploy.calibration.second_moments import MomentsSum, SecondMoments
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, ExportedModel
from levit_deploy.models.images import normalize
from levit_deploy.network.network import Float64

SAMPLE_TOKENS = 2048  # per tensor: a quarter of a million values where there are 128 channels
SAMPLE_WINDOWS = 16384  # of what a convolution reads: many for each of its inputs

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """`lows`, `highs`: (2, channels), each channel's range over the even and the odd images.

    `sample`: tokens (n, channels), evenly spaced over the images and in each of them. `windows`:
    of a tensor that a convolution reads, what it multiplies for one output: (n, channels, 3, 3),
    evenly spaced too. `moments`: of a tensor that linear layers read, over all tokens of the even
    and of the odd images. None if no picture was seen.
    """

    images: int
    lows: Float64
    highs: Float64
    sample: Float32
    windows: Float32 | None = None
    moments: tuple[SecondMoments, SecondMoments] | None = None

    @property
    def largest(self) -> Float64:
        """Largest magnitude of each channel over all images, (channels,)."""
        largest: Float64 = np.maximum(-self.lows.min(axis=0), self.highs.max(axis=0)).clip(min=0)
        return largest

    def scaled(self, factors: Float64) -> TensorStatistics:
        """The statistics of the tensor times positive factors, (channels,)."""
        sample = (self.sample * factors).astype(np.float32)
        windows = None
        if self.windows is not None:
            windows = (self.windows * factors[:, None, None]).astype(np.float32)
        moments = None
        if self.moments is not None:
            even, odd = self.moments
            moments = even.scaled(factors), odd.scaled(factors)
        lows, highs = self.lows * factors, self.highs * factors
        return TensorStatistics(self.images, lows, highs, sample, windows, moments)


def collect_statistics(
    exported: ExportedModel, images: ImageSet, progress: Progress = lambda done, total: None
) -> Mapping[str, TensorStatistics]:
    """Statistics of every tensor but the image that a layer reads, by the tensor's name.

    A place of a grid (1, channels, y, x) is a token.

    Raises DeployError, naming the tensor, if an image makes a value that is not finite.
    """
    names = list(dict.fromkeys(t for _, t in exported.network.reading() if t != INPUT_NAME))
    session = tapped_session(exported.graph, names)
    watched = {name: _Watched(len(images)) for name in names}
    for done, picture in enumerate(images, start=1):
        image = normalize(picture[None], exported.normalization)
        for name, tensor in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
            if not np.isfinite(tensor).all():
                raise DeployError(
                    f"image {done} of `{images.source}` makes `{name}` overflow or NaN",
                    hint="check the weights: `levit-deploy export` compares them with PyTorch",
                )
            watched[name].see(tensor)
        progress(done, len(images))
    return {name: tensor.statistics() for name, tensor in watched.items()}


class _Watched:
    """One tensor, image after image."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._seen = 0
        self._ranges: list[tuple[Float64, Float64]] = []  # of the even images, of the odd ones
        self._sample: list[Float32] = []
        self._windows: list[Float32] = []
        self._moments: list[MomentsSum] = []  # of the even images, of the odd ones

    def see(self, tensor: Float32) -> None:
        rows = _tokens(tensor)
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        half = self._seen % 2
        if self._seen < 2:
            self._ranges.append((low, high))
        else:
            before = self._ranges[half]
            self._ranges[half] = np.minimum(before[0], low), np.maximum(before[1], high)
        self._sample.append(rows[self._places(SAMPLE_TOKENS, len(rows))])
        if tensor.ndim == 4:
            outputs = ((tensor.shape[-1] + 1) // 2) ** 2
            self._windows.append(_windows(tensor, self._places(SAMPLE_WINDOWS, outputs)))
        else:
            if self._seen < 2:
                self._moments.append(MomentsSum(rows.shape[1]))
            self._moments[half].add(rows)
        self._seen += 1

    def _places(self, wanted: int, places: int) -> NDArray[np.int64]:
        """Which of so many places of this image are sampled, if all images are to give `wanted`."""
        if self._seen % math.ceil(self._images / wanted):
            return np.arange(0)
        count = min(math.ceil(wanted / self._images), places)
        walking = np.arange(count) * places // count + self._seen  # all places in turn
        return walking % places

    def statistics(self) -> TensorStatistics:
        lows, highs = (np.stack(sides) for sides in zip(*self._ranges, strict=True))
        windows = np.concatenate(self._windows) if self._windows else None
        moments = None
        if self._moments:
            even, odd = self._moments
            moments = even.total(), odd.total()
        sample = np.concatenate(self._sample)
        return TensorStatistics(self._seen, lows, highs, sample, windows, moments)


def _tokens(tensor: Float32) -> Float32:
    """(tokens, channels)."""
    if tensor.ndim == 4:
        tensor = tensor.transpose(0, 2, 3, 1)
    return tensor.reshape(-1, tensor.shape[-1])


def _windows(tensor: Float32, places: NDArray[np.int64]) -> Float32:
    """(1, channels, size, size) -> (places, channels, 3, 3): what a convolution of the stem reads
    for its outputs at `places`, row by row."""
    padded = np.pad(tensor[0], ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    y, x = np.divmod(places, windows.shape[2])
    return windows[:, y, x].swapaxes(0, 1)


def tapped_session(
    model: onnx.ModelProto, names: list[str], *, as_written: bool = False
) -> onnxruntime.InferenceSession:
    """ONNX Runtime, one thread, on a graph whose tensors `names` are outputs too.

    `as_written`: no graph optimisations.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    unknown = dict.fromkeys(name for name in names if name not in known)
    tapped.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, unknown))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
