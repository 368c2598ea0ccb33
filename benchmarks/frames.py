"""From a 1920 x 1080 frame to an answer: our library beside Pillow and OpenCV with ONNX Runtime.

    python -m benchmarks.frames ARTIFACT MODEL.onnx [--rounds 200] [--threads 2]
        [--target x86-64-v3 ...] [--pillow-simd PYTHON]

ARTIFACT: what `levit-deploy compile --target host` made of a model; MODEL.onnx: what
`levit-deploy export` made of the same. One thread, one process, all in turns, the shortest time of
each: first the picture alone, then the whole way. OpenCV's resize is not the one that models are
trained with, and torch's has Pillow's weights in 16 bits; they are timed because programs use them.
`--target`: also the picture by a library for such CPUs, made of MODEL. `--threads`: also answers by
several. `--pillow-simd`: also the picture in a Python of its own, by itself. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import model_sized
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.levit import Format, Frame
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain

WIDTH, HEIGHT = 1920, 1080
RESIZE_ELSEWHERE = """
import sys, time
from PIL import Image, __version__
width, height, *size, rounds = map(int, sys.argv[1:])
image, shortest = Image.frombytes("RGB", (width, height), sys.stdin.buffer.read()), float("inf")
for _ in range(rounds):
    begin = time.perf_counter()
    image.resize(size, Image.BICUBIC)
    shortest = min(shortest, time.perf_counter() - begin)
print(__version__, shortest * 1e3)
"""
Pixels = NDArray[np.uint8]
Act = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--pillow-simd", metavar="PYTHON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    library, model = Library(options.artifact), ExportedModel.load(options.model)
    others = {target: library_for(target, model) for target in options.target}
    together = Library(options.artifact, threads=options.threads) if options.threads > 1 else None
    for title, acts in (
        ("picture", pictures(library, model, others)),
        ("answer", answers(library, model, together)),
    ):
        times = shortest_ms(acts, options.rounds)
        first = next(iter(times.values()))
        print(f"| {title} | ms | of the first |\n|---|---|---|")
        for name, taken in times.items():
            print(f"| {name} | {taken:.2f} | {taken / first:.2f} |")
    if options.pillow_simd:
        size = resized_size(model)
        arguments = map(str, (WIDTH, HEIGHT, *size, options.rounds))
        command = [options.pillow_simd, "-c", RESIZE_ELSEWHERE, *arguments]
        pixels = frames()[0].planes[0].tobytes()
        done = subprocess.run(command, input=pixels, check=True, capture_output=True)
        version, taken = done.stdout.decode().split()
        print(f"| picture, Pillow {version} by itself, RGB | {float(taken):.2f} | |")


def library_for(target: str, model: ExportedModel) -> Library:
    """Good for pictures alone: its self-test knows no answers."""
    program = compile_model(model, get_target(target))
    self_test = SelfTest((0.0,) * program.classes, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        toolchain = find_toolchain(get_target(target))
        return Library(build_artifact(program, toolchain, self_test, Path(folder)).folder)


def resized_size(model: ExportedModel) -> tuple[int, int]:
    side = model.card.preprocessing.resized_side(model.image_size)
    return side * WIDTH // HEIGHT, side


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


def by_torch(model: ExportedModel, pixels: torch.Tensor) -> torch.Tensor:
    """`pixels` (1, 3, height, width), as torchvision resizes uint8: all columns, not those of the
    crop."""
    size = resized_size(model)[::-1]
    return torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)


def by_opencv(model: ExportedModel, rgb: Pixels, interpolation: int) -> Pixels:
    size = model.image_size
    resized = cv2.resize(rgb, resized_size(model), interpolation=interpolation)
    top, left = ((length - size) // 2 for length in resized.shape[:2])
    return np.ascontiguousarray(resized[top : top + size, left : left + size], np.uint8)


def pictures(library: Library, model: ExportedModel, others: dict[str, Library]) -> dict[str, Act]:
    rgb, nv12 = frames()
    pixels = rgb.planes[0]
    ours, filter_ = library.prepare(rgb), Image.Resampling.BICUBIC
    if not np.array_equal(ours, by_pillow(model, pixels)):
        raise SystemExit("the artifact is of another preprocessing than the model")
    image = Image.fromarray(pixels)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    of_others = {
        f"ours for {target}, {name}": partial(other.prepare, frame)
        for target, other in others.items()
        for name, frame in (("RGB", rgb), ("NV12", nv12))
    }
    return {
        "ours, RGB": lambda: library.prepare(rgb),
        "ours, NV12": lambda: library.prepare(nv12),
        **of_others,
        "Pillow, RGB": lambda: image.resize(resized_size(model), filter_),
        "torch, RGB": lambda: by_torch(model, tensor),
        "OpenCV area, RGB": lambda: by_opencv(model, pixels, cv2.INTER_AREA),
        "OpenCV linear, RGB": lambda: by_opencv(model, pixels, cv2.INTER_LINEAR),
        "OpenCV conversion and area, NV12": lambda: by_opencv(model, rgb_of(nv12), cv2.INTER_AREA),
    }


def answers(library: Library, model: ExportedModel, together: Library | None) -> dict[str, Act]:
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
    of_several: dict[str, Act] = {}
    if together:
        of_several = {
            "ours, several threads, the network alone": lambda: together.run_rgb8(ready),
            "ours, several threads, RGB": lambda: together.classify(rgb),
            "ours, several threads, NV12": lambda: together.classify(nv12),
        }
    return {
        "ours, the network alone": lambda: library.run_rgb8(ready),
        "ours, RGB": lambda: library.classify(rgb),
        "ours, NV12": lambda: library.classify(nv12),
        **of_several,
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
