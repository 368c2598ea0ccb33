"""Time the generated kernels of a model one by one.

    python -m benchmarks.kernels gemm
    python -m benchmarks.kernels conv attention --model levit_256 --target x86-64-v3
    python -m benchmarks.kernels gemm --tiles 6x16x8,4x24x8     # mr x nr x depth_unroll

One thread, constants cold (see benchmarks/timing.py). `share` is of the core's multiply-add peak,
measured between the kernels with registers only.
"""

from __future__ import annotations

import argparse

from benchmarks.timing import time_kernels

from benchmarks.shapes import FAMILIES, gemms
from levit_deploy.compiler.kernels.gemm import GemmTile, gemm_kernel
from levit_deploy.models.spec import get_spec
from levit_deploy.targets.table import get_target

CONSTANTS = ("panels", "mirrored_bias")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="+", choices=FAMILIES)
    parser.add_argument("--model", default="levit_128s")
    parser.add_argument("--target", default="host")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiles", help="for gemm: compare these")
    options = parser.parse_args()
    model, target = get_spec(options.model), get_target(options.target)

    if options.tiles:
        sizes = [tuple(map(int, tile.split("x"))) for tile in options.tiles.split(",")]
        lanes = target.float_lanes
        tiles = [GemmTile(mr, nr, lanes, unroll) for mr, nr, unroll in sizes]
        for spec, count in gemms(model).items():
            kernels = [gemm_kernel("kernel", spec, tile, target) for tile in tiles]
            timings = time_kernels(kernels, CONSTANTS, target, options.rounds)
            shares = "  ".join(
                f"{tile} {timing.share_of_peak:.3f}"
                for tile, timing in zip(tiles, timings, strict=True)
            )
            print(f"{count} x {kernels[0].shape:50} {shares}", flush=True)
        return

    total = 0.0
    for family in options.families:
        for kernel, count in FAMILIES[family](model, target):
            (timing,) = time_kernels([kernel], CONSTANTS, target, options.rounds)
            total += timing.seconds * count
            print(
                f"{count} x {kernel.kind:10} {kernel.shape:50} {kernel.tile:28}"
                f" {timing.seconds * 1e6:8.1f} us  share {timing.share_of_peak:.3f}",
                flush=True,
            )
    print(f"together {total * 1e6:.0f} us")


if __name__ == "__main__":
    main()
