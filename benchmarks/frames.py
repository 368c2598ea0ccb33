"""From a 1920 x 1080 frame to an answer: our library beside Pillow and OpenCV with ONNX Runtime.

    python -m benchmarks.frames ARTIFACT MODEL.onnx [--rounds 200]

ARTIFACT: what `levit-deploy compile --target host` made of a model; MODEL.onnx: what
`levit-deploy export` made of the same. One thread, one process, all in turns, the shortest time of
each: first the picture alone, then the whole way. OpenCV's resize is not the one that models are
trained with; it is timed because programs use it. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import model_sized
from levit_deploy.runtime.levit import Format, Frame
from levit_deploy.runtime.loader import Library

WIDTH, HEIGHT = 1920, 1080
Pixels = NDArray[np.uint8]
Act = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    library, model = Library(options.artifact), ExportedModel.load(options.model)
    for title, acts in (
        ("picture", pictures(library, model)),
        ("answer", answers(library, model)),
    ):
        times = shortest_ms(acts, options.rounds)
        first = next(iter(times.values()))
        print(f"| {title} | ms | of the first |\n|---|---|---|")
        for name, taken in times.items():
            print(f"| {name} | {taken:.2f} | {taken / first:.2f} |")


def frames() -> tuple[Frame, Frame]:
    """The same size as RGB and as NV12."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    rgb = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    luma = np.ascontiguousarray(rgb[..., 1])
    chroma = np.ascontiguousarray(rgb[::2, ::2, [0, 2]].reshape(HEIGHT // 2, WIDTH))
    return Frame.of(rgb), Frame((luma, chroma), WIDTH, HEIGHT, Format.NV12)


def rgb_of(frame: Frame) -> Pixels:
    """OpenCV's conversion of NV12, the fastest beside ours."""
    luma, chroma = frame.planes
    pairs = chroma.reshape(HEIGHT // 2, WIDTH // 2, 2)
    return np.asarray(cv2.cvtColorTwoPlane(luma, pairs, cv2.COLOR_YUV2RGB_NV12), np.uint8)


def by_pillow(model: ExportedModel, rgb: Pixels) -> Pixels:
    return model_sized(rgb, model.card.preprocessing, model.image_size)


def by_opencv(model: ExportedModel, rgb: Pixels, interpolation: int) -> Pixels:
    size = model.image_size
    side = model.card.preprocessing.resized_side(size)
    resized = cv2.resize(rgb, (side * WIDTH // HEIGHT, side), interpolation=interpolation)
    top, left = ((length - size) // 2 for length in resized.shape[:2])
    return np.ascontiguousarray(resized[top : top + size, left : left + size], np.uint8)


def pictures(library: Library, model: ExportedModel) -> dict[str, Act]:
    rgb, nv12 = frames()
    pixels = rgb.planes[0]
    ours, filter_ = library.prepare(rgb), Image.Resampling.BICUBIC
    if not np.array_equal(ours, by_pillow(model, pixels)):
        raise SystemExit("the artifact is of another preprocessing than the model")
    side = model.card.preprocessing.resized_side(model.image_size)
    image = Image.fromarray(pixels)
    return {
        "ours, RGB": lambda: library.prepare(rgb),
        "ours, NV12": lambda: library.prepare(nv12),
        "Pillow, RGB": lambda: image.resize((side * WIDTH // HEIGHT, side), filter_),
        "OpenCV area, RGB": lambda: by_opencv(model, pixels, cv2.INTER_AREA),
        "OpenCV linear, RGB": lambda: by_opencv(model, pixels, cv2.INTER_LINEAR),
        "OpenCV conversion and area, NV12": lambda: by_opencv(model, rgb_of(nv12), cv2.INTER_AREA),
    }


def answers(library: Library, model: ExportedModel) -> dict[str, Act]:
    rgb, nv12 = frames()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def best(picture: Pixels) -> int:
        images = normalize(picture[None], model.normalization)
        return int(session.run(None, {name: images})[0].argmax())

    pixels, ready = rgb.planes[0], library.prepare(rgb)
    return {
        "ours, the network alone": lambda: library.run_rgb8(ready),
        "ours, RGB": lambda: library.classify(rgb),
        "ours, NV12": lambda: library.classify(nv12),
        "Pillow and ONNX Runtime, RGB": lambda: best(by_pillow(model, pixels)),
        "OpenCV area and ONNX Runtime, RGB": lambda: best(by_opencv(model, pixels, cv2.INTER_AREA)),
        "OpenCV linear and ONNX Runtime, NV12": lambda: best(
            by_opencv(model, rgb_of(nv12), cv2.INTER_LINEAR)
        ),
    }


def shortest_ms(acts: dict[str, Act], rounds: int) -> dict[str, float]:
    shortest = dict.fromkeys(acts, float("inf"))
    for _ in range(rounds):
        for name, act in acts.items():
            begin = time.perf_counter()
            act()
            shortest[name] = min(shortest[name], (time.perf_counter() - begin) * 1e3)
    return shortest


if __name__ == "__main__":
    main()
