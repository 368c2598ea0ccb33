"""Accuracy of float16 arithmetic: a model of what the kernels compute, and libraries under qemu.

    python -m benchmarks.half_arithmetic                   # 2,000 test images, minutes
    python -m benchmarks.half_arithmetic --images 50 DIR   # and an artifact, seconds an image

The model rounds where the kernels' definitions do (tests/compiler/kernels holds those against the
kernels to the bit), layer by layer, and runs on any x86 with AVX2. It is not the library to the
bit: the convolution of the image is PyTorch's, and see half_chains.c; with DIR both are compared.
There is no model of bfloat16: of a DIR in bf16 the library alone is held against float32.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.quantization import SPEC, float_logits, test_set
from levit_deploy.compiler.kernels.conv.block_fp16 import Fp16Block
from levit_deploy.export.export_model import export_checkpoint, with_half
from levit_deploy.half_format import FP16_CHAIN, HalfFormat
from levit_deploy.machines.local import LocalMachine
from levit_deploy.models.images import model_input
from levit_deploy.models.weights import DEMO, load_weights
from levit_deploy.network.network import (
    Attention,
    Block,
    Conv,
    Linear,
    Mlp,
    Network,
    ShrinkingAttention,
    writing_layer,
)
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.emulator import emulator_command
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from tests.compiler.kernels.attention_fp16_cases import exponential
from tests.compiler.kernels.rounding import hardswish, hardswish_float16

Array = NDArray[np.float32]
Activate = Callable[[Array], NDArray[np.floating]]
Product = Callable[[Array, Array, Array, Sequence[int], int], Array]

WIDTH = 32
PAIR, FOUR = 2, 4  # chains that are added in float16


def halves(x: Array) -> Array:
    return x.astype(np.float16).astype(np.float32)


def compiled(folder: Path) -> Product:
    """start + a @ w in chains; a (rows, depth), w (depth, columns), numbers of float16."""
    library = folder / "half_chains.so"
    source = Path(__file__).with_name("half_chains.c")
    flags = ("-O3", "-mavx2", "-mfma", "-mf16c", "-shared", "-fPIC")
    subprocess.run(["cc", *flags, "-o", library, source], check=True)
    function = ctypes.CDLL(str(library)).half_chains

    def product(start: Array, a: Array, w: Array, chains: Sequence[int], together: int) -> Array:
        missing = -w.shape[1] % WIDTH
        w = np.ascontiguousarray(np.pad(w, ((0, 0), (0, missing))), np.float32)
        total = np.zeros((len(a), w.shape[1]), np.float32)
        total[:, : w.shape[1] - missing] = start
        counts = (ctypes.c_int * len(chains))(*chains)
        a = np.ascontiguousarray(a, np.float32)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (total, a, w)]
        function(*pointers, *a.shape, w.shape[1], counts, len(chains), together)
        return total[:, : w.shape[1] - missing]

    return product


def chains_of(depth: int) -> list[int]:
    return [min(FP16_CHAIN, depth - first) for first in range(0, depth, FP16_CHAIN)]


class Model:
    """A float16 network; `product`: of `compiled`."""

    def __init__(self, network: Network, product: Product) -> None:
        self.network, self.product = network, product

    def logits(self, image: Array) -> Array:
        """(classes,) of an image (3, size, size)."""
        first, *convolutions = self.network.stem
        tensors = [torch.from_numpy(np.array(x)) for x in (image[None], first.weight, first.bias)]
        x = F.conv2d(*tensors, stride=2, padding=1)[0].permute(1, 2, 0).numpy()
        for conv in convolutions:
            x = self.convolve(conv, halves(hardswish(x)))
        x = x.reshape(-1, x.shape[2])
        *blocks, last = self.network.blocks
        for block in blocks:
            x = self.block(block, x)
        hidden = self.branch(last, x, hardswish).mean(axis=0, keepdims=True)
        x = x.mean(axis=0, keepdims=True) + self.linear(writing_layer(last), hidden)
        assert self.network.head is not None
        return self.linear(self.network.head, x)[0]

    def convolve(self, conv: Conv, x: Array) -> Array:
        """(y, x, out) before the activation: a row of the kernel after the other."""
        side, channels = (len(x) + 1) // 2, x.shape[2]
        padded = np.zeros((2 * side + 1, 2 * side + 1, channels), np.float32)
        padded[1 : len(x) + 1, 1 : len(x) + 1] = x
        columns = [padded[:, tap : tap + 2 * side : 2] for tap in range(3)]
        wide = np.concatenate(columns, axis=2)
        rows = [wide[row : row + 2 * side : 2].reshape(side**2, -1) for row in range(3)]
        weights = halves(conv.weight).transpose(2, 3, 1, 0).reshape(-1, conv.outputs)
        chains = Fp16Block.chains(3 * channels) * 3
        values = np.concatenate(rows, axis=1)
        return self.product(conv.bias, values, weights, chains, PAIR).reshape(side, side, -1)

    def linear(self, layer: Linear, x: Array) -> Array:
        return self.product(layer.bias, halves(x), layer.weight.T, chains_of(layer.inputs), FOUR)

    def block(self, block: Block, x: Array) -> Array:
        branch = self.linear(writing_layer(block), self.branch(block, x))
        return branch if isinstance(block, ShrinkingAttention) else x + branch

    def branch(self, block: Block, x: Array, hidden: Activate = hardswish_float16) -> Array:
        """`hidden`: the activation of an MLP."""
        if isinstance(block, Mlp):
            return hidden(self.linear(block.expand, x)).astype(np.float32)
        heads, d = len(block.bias), block.key_dim
        if isinstance(block, Attention):
            parts = self.linear(block.qkv, x).reshape(len(x), heads, -1)
            q, k, v = parts[..., :d], parts[..., d : 2 * d], parts[..., 2 * d :]
        else:
            side = round(len(x) ** 0.5)
            asking = x.reshape(side, side, -1)[::2, ::2].reshape(-1, x.shape[1])
            q = self.linear(block.q, asking).reshape(len(asking), heads, d)
            parts = self.linear(block.kv, x).reshape(len(x), heads, -1)
            k, v = parts[..., :d], parts[..., d:]
        return hardswish(
            np.concatenate(
                [
                    self.attend(block.bias[h], *(halves(part[:, h]) for part in (q, k, v)))
                    for h in range(heads)
                ],
                axis=1,
            )
        )

    def attend(self, bias: Array, q: Array, k: Array, v: Array) -> Array:
        scores = self.product(bias, q, k.T, chains_of(q.shape[1]), PAIR)
        e = exponential(scores - scores.max(axis=1, keepdims=True))
        sums = self.product(np.zeros(v.shape[1], np.float32), halves(e), v, chains_of(len(v)), PAIR)
        return sums / e.sum(axis=1, keepdims=True)


def of_model(pixels: NDArray[np.uint8]) -> Array:
    """What the model computes of test images."""
    exported = export_checkpoint(load_weights(SPEC, DEMO))
    network = with_half(exported, HalfFormat.FP16).network
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        model = Model(network, compiled(Path(folder)))
        inputs = (model_input(picture[None], SPEC)[0] for picture in pixels)
        return np.stack([model.logits(image) for image in inputs])


def of_library(artifact: Artifact, images: Iterable[Images]) -> Array:
    """What the library computes on its emulated CPU."""
    target = get_target(artifact.manifest.target)
    emulator = emulator_command(target)
    assert emulator is not None, "no emulator"
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        program = Path(folder) / "run_images"
        link_run_images(artifact, find_toolchain(target), program)
        with ProgramRunner(program, Function.RUN, LocalMachine(emulator)) as runner:
            return np.concatenate([runner.infer(image) for image in images])


def report(name: str, got: Array, expected: NDArray[np.float64]) -> None:
    error = got - expected
    sqnr = 10 * np.log10(np.square(expected).sum() / np.square(error).sum())
    same = 100 * (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
    print(f"{name}: {sqnr:.1f} dB, {same:.2f} % the same top-1, {len(got)} images", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "artifact", type=Path, nargs="?", help="of levit_128s, demo, in fp16 or bf16"
    )
    parser.add_argument("--images", type=int, default=2000, help="test images")
    options = parser.parse_args()
    artifact = Artifact.load(options.artifact) if options.artifact else None
    pixels = test_set()[0][: options.images]
    expected = float_logits(options.images)
    modelled: Array | None = None
    if artifact is None or artifact.manifest.precision == HalfFormat.FP16:
        modelled = of_model(pixels)
        report("model against float32", modelled, expected)
    if artifact:
        images = (Images(x[None], model_input(x[None], SPEC), "test image") for x in pixels)
        got = of_library(artifact, images)
        report("library against float32", got, expected)
        if modelled is not None:
            report("library against the model", got, modelled.astype(np.float64))


if __name__ == "__main__":
    main()
