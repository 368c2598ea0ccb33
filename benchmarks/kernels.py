"""Time the generated kernels of a model one by one.

    python -m benchmarks.kernels gemm
    python -m benchmarks.kernels conv attention --model levit_256 --target x86-64-v3
    python -m benchmarks.kernels gemm --tiles 6x16x8,4x24x8     # mr x nr x depth_unroll

One thread, constants cold (see levit_deploy/compiler/tuning/csrc/time_kernels.c). `share` is of the
core's multiply-add peak, measured before the kernels with registers only.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shapes import SPECS
from levit_deploy.compiler.codegen import emit_object
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.tiles.registry import Spec, Tile, family_of
from levit_deploy.compiler.tuning.assembly import lower
from levit_deploy.compiler.tuning.batch import build_batch
from levit_deploy.compiler.tuning.search import generate
from levit_deploy.machines.open import machine_for
from levit_deploy.models.spec import get_spec
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from levit_deploy.tune.timer import KernelTimer
from levit_deploy.verify.kernel_profile import measure_peak_gflops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="+", choices=SPECS)
    parser.add_argument("--model", default="levit_128s")
    parser.add_argument("--target", default="host")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiles", help="for gemm or gemm_bf16: compare these")
    options = parser.parse_args()
    model, target = get_spec(options.model), get_target(options.target)
    toolchain = find_toolchain(target)
    peak_gflops = measure_peak_gflops(toolchain, machine_for(target))

    def share(kernel: Kernel, microseconds: float) -> float:
        return 2e-3 * kernel.multiply_adds / microseconds / peak_gflops

    if options.tiles:
        sizes = [tuple(map(int, tile.split("x"))) for tile in options.tiles.split(",")]
        lanes = target.float_lanes
        tiles = [GemmTile(mr, nr, lanes, unroll) for mr, nr, unroll in sizes]
        for spec, count in SPECS[options.families[0]](model).items():
            timed = time_tiles(spec, tiles, toolchain, options.rounds)
            shares = "  ".join(f"{one.tile} {share(one, time):.3f}" for one, time in timed)
            print(f"{count} x {timed[0][0].shape:50} {shares}", flush=True)
        return

    total = 0.0
    for family in options.families:
        for spec, count in SPECS[family](model).items():
            tile = family_of(spec).default_tile(spec, target)
            ((kernel, time),) = time_tiles(spec, [tile], toolchain, options.rounds)
            total += time * count
            print(
                f"{count} x {kernel.kind:10} {kernel.shape:50} {kernel.tile:28}"
                f" {time:8.1f} us  share {share(kernel, time):.3f}",
                flush=True,
            )
    print(f"together {total:.0f} us")


def time_tiles(
    spec: Spec, tiles: Sequence[Tile], toolchain: Toolchain, rounds: int
) -> list[tuple[Kernel, float]]:
    """The kernel of each tile, and its microseconds, in interleaved rounds; NaN if it is wrong."""
    target = toolchain.target
    kernels = [generate(f"k{index}", spec, tile, target) for index, tile in enumerate(tiles)]
    objects = [emit_object(lower(kernel, target), target) for kernel in kernels]
    here = machine_for(target)
    with tempfile.TemporaryDirectory() as work, here.workplace() as place:
        batch = build_batch(spec, tiles, kernels, objects, toolchain, Path(work))
        times = KernelTimer(batch, place, here.name).microseconds(range(len(tiles)), rounds)
    return [
        (kernel, math.nan if time is None else time)
        for kernel, time in zip(kernels, times, strict=True)
    ]


if __name__ == "__main__":
    main()
