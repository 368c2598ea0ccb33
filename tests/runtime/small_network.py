"""A Program made by hand, whose kernels are the C functions of kernels.c, and its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import Arg, Entry, KernelCall, Program, Space
from levit_deploy.models.card import default_card
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.self_test import SelfTest, self_test_image
from levit_deploy.targets.toolchain import Toolchain

SIDE, HIDDEN, CLASSES = 8, 50, 5
PIXELS = 3 * SIDE * SIDE
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CARD = default_card(Origin.ORIGINAL, TINY).stated("the test", image_size=SIDE, mean=MEAN, std=STD)


@dataclass(frozen=True)
class SmallNetwork:
    """logits = head @ relu(hidden @ image), from normalised NCHW float or 8-bit HWC images."""

    hidden: NDArray[np.float32]
    head: NDArray[np.float32]

    @staticmethod
    def random(seed: int) -> SmallNetwork:
        rng = np.random.default_rng(seed)
        hidden = rng.normal(size=(HIDDEN, PIXELS)).astype(np.float32)
        return SmallNetwork(hidden, rng.normal(size=(CLASSES, HIDDEN)).astype(np.float32))

    def logits(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        hidden = self.hidden.astype(np.float64) @ image.astype(np.float64).ravel()
        return self.head.astype(np.float64) @ np.maximum(hidden, 0)

    def logits_rgb8(self, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        return self.logits(((rgb / 255.0 - MEAN) / STD).transpose(2, 0, 1))

    def self_test(self, tolerance: float = 1e-3) -> SelfTest:
        return SelfTest(tuple(self.logits_rgb8(self_test_image(SIDE, 3))), tolerance)

    def program(self, toolchain: Toolchain, work: Path, name: str = "small") -> Program:
        """Kernels compiled by `toolchain` in the folder `work`."""
        work.mkdir(parents=True, exist_ok=True)
        kernels = work / "kernels.o"
        source = Path(__file__).with_name("kernels.c")
        toolchain.compile(source, kernels, (f"-DNAME_OF_KERNELS={name}",))
        scale = 1 / (255.0 * np.array(STD))
        constants = bytearray()

        def constant(values: NDArray[np.floating]) -> Arg:
            offset = len(constants)
            constants.extend(values.astype(np.float32).tobytes())
            constants.extend(bytes(-len(constants) % 64))
            return Arg(Space.CONSTANT, offset)

        image, logits = Arg(Space.IMAGE), Arg(Space.LOGITS)
        pixels, units = Arg(Space.ARENA, 0), Arg(Space.ARENA, 4 * PIXELS)
        rgb_offset = 4 * PIXELS + 256
        scale_shift = constant(np.concatenate([scale, -np.array(MEAN) / STD]))
        hidden, head = constant(self.hidden), constant(self.head)

        def call(kernel: str, tasks: int, args: tuple[Arg, ...], entry: Entry) -> KernelCall:
            symbol = f"{name}_{kernel}"
            return KernelCall(symbol, args, tasks, entry, kernel, f"{tasks}", "none", 1, 1)

        scratch = Arg(Space.SCRATCH, 64)
        return Program(
            name=name,
            model="small",
            precision="fp32",
            target=toolchain.target.name,
            image_size=SIDE,
            classes=CLASSES,
            card=CARD,
            weights_digest="0" * 64,
            kernels_object=kernels.read_bytes(),
            calls=(
                call("load_f32", SIDE, (image, pixels), Entry.FLOAT),
                call("load_rgb8", SIDE, (image, scale_shift, pixels), Entry.RGB8),
                call("hidden", HIDDEN, (pixels, hidden, units, scratch), Entry.BOTH),
                call("head", CLASSES, (units, head, logits), Entry.BOTH),
            ),
            tensors=(),
            constants=bytes(constants),
            arena_bytes=rgb_offset + PIXELS,
            scratch_bytes=64 + 4 * PIXELS,
            selftest_image_offset=rgb_offset,
        )


def random_image(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(3, SIDE, SIDE)).astype(np.float32)


def random_rgb(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
