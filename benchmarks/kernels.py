"""Time the generated kernels of a model one by one.

    python -m benchmarks.kernels gemm
    python -m benchmarks.kernels conv attention --model levit_256 --target x86-64-v3
    python -m benchmarks.kernels gemm --tiles 6x16x8,4x24x8     # mr x nr x depth_unroll

One thread, constants cold (see levit_deploy/compiler/tuning/timing.py). `share` is of the core's
multiply-add peak, measured before the kernels with registers only.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.shapes import SPECS, gemms, kernels
from levit_deploy.compiler.kernels.gemm.float32 import gemm_kernel
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.tuning.timing import KernelTimer
from levit_deploy.machines.open import machine_for
from levit_deploy.models.spec import get_spec
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from levit_deploy.verify.kernel_profile import measure_peak_gflops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="+", choices=SPECS)
    parser.add_argument("--model", default="levit_128s")
    parser.add_argument("--target", default="host")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiles", help="for gemm: compare these")
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
        for spec, count in gemms(model).items():
            cut = [gemm_kernel(f"kernel{i}", spec, tile, target) for i, tile in enumerate(tiles)]
            times = time_kernels(cut, toolchain, options.rounds)
            shares = "  ".join(
                f"{kernel.tile} {share(kernel, time):.3f}"
                for kernel, time in zip(cut, times, strict=True)
            )
            print(f"{count} x {cut[0].shape:50} {shares}", flush=True)
        return

    total = 0.0
    for family in options.families:
        for kernel, count in kernels(family, model, target):
            (time,) = time_kernels([kernel], toolchain, options.rounds)
            total += time * count
            print(
                f"{count} x {kernel.kind:10} {kernel.shape:50} {kernel.tile:28}"
                f" {time:8.1f} us  share {share(kernel, time):.3f}",
                flush=True,
            )
    print(f"together {total:.0f} us")


def time_kernels(kernels: Sequence[Kernel], toolchain: Toolchain, rounds: int) -> list[float]:
    """Microseconds of each, in interleaved rounds."""
    with tempfile.TemporaryDirectory() as work:
        timer = KernelTimer(kernels, toolchain, Path(work))
        return timer.microseconds(range(len(kernels)), rounds)


if __name__ == "__main__":
    main()
