"""Where an artifact's time goes: every kernel call, timed in a profile build, against the peak."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.manifest import KernelRecord
from levit_deploy.targets.target import Arch
from levit_deploy.targets.toolchain import Toolchain

RUNS = 300
_PEAK_SOURCE = Path(__file__).parent / "csrc" / "peak.c"


@dataclass(frozen=True)
class KernelTime:
    """The fastest of RUNS runs of one call; a multiply-add counts as two operations.

    `share_of_peak`: of what the core does in float32; products of 8 bits may exceed it.
    """

    kind: str
    shape: str
    tile: str
    min_us: float
    gflops: float
    share_of_peak: float


def profile_library(
    library: Path,
    kernels: tuple[KernelRecord, ...],
    peak_gflops: float,
    on_run: Callable[[int], None] = lambda done: None,
) -> list[KernelTime]:
    """Time the calls of a profile build (runtime/instrument.py) in this process."""
    loaded = Library(library)
    shape = (loaded.describe().channels, *[loaded.describe().image_size] * 2)
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    fastest = np.full(len(kernels), np.iinfo(np.uint64).max, np.uint64)
    for run in range(RUNS):
        fastest = np.minimum(fastest, loaded.profile(image, len(kernels)))
        on_run(run + 1)
    return [
        _kernel_time(kernel, int(ns), peak_gflops)
        for kernel, ns in zip(kernels, fastest, strict=True)
        if ns  # steps of the 8-bit entry do not run
    ]


def _kernel_time(kernel: KernelRecord, ns: int, peak_gflops: float) -> KernelTime:
    gflops = 2 * kernel.multiply_adds / ns
    return KernelTime(
        kind=kernel.kind,
        shape=kernel.shape,
        tile=kernel.tile,
        min_us=ns / 1e3,
        gflops=gflops,
        share_of_peak=gflops / peak_gflops,
    )


def measure_peak_gflops(toolchain: Toolchain, work: Path) -> float:
    """What one core does in a loop of multiply-adds that touches only registers.

    Raises DeployError if this CPU cannot run the target's code.
    """
    target = toolchain.target
    program = work / "peak"
    flags = ["-ffp-contract=fast", f"-DVECTOR_BYTES={target.vector_bytes}"]
    if target.arch is Arch.X86_64:  # the vectors of ARM are in its baseline
        wanted = {"fma", "avx2", "avx512f"} & set(target.required_features)
        flags += (f"-m{name}" for name in sorted(wanted))
    source = shutil.copy(_PEAK_SOURCE, work)
    toolchain.link_program((Path(source),), program, flags)
    done = subprocess.run((program,), capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeployError(
            f"this CPU cannot run code for `{target.name}`", hint="levit-deploy targets"
        )
    return 2 * float(done.stdout)
