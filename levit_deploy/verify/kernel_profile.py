"""Where an artifact's time goes: every kernel call, timed in a profile build, against the peak."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import Machine
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.manifest import KernelRecord
from levit_deploy.targets.target import Arch
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.link_around import CSRC

RUNS = 300
_PEAK_SOURCE = CSRC / "peak.c"


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
    return kernel_times(kernels, fastest.tolist(), peak_gflops)


def kernel_times(
    kernels: Iterable[KernelRecord], fastest_ns: Iterable[int], peak_gflops: float
) -> list[KernelTime]:
    """What the times of the calls mean; 0 is one of the 8-bit entry, which did not run."""
    return [
        _kernel_time(kernel, ns, peak_gflops)
        for kernel, ns in zip(kernels, fastest_ns, strict=True)
        if ns
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


def require_one_cpu(artifact: Artifact) -> None:
    """Raises DeployError if its kernels cannot be timed one by one."""
    if levels := artifact.manifest.levels:
        raise DeployError(
            f"`{artifact.name}` has kernels for several CPUs, which cannot be timed one by one",
            hint=f"compile it for one: --target {levels[0]}",
        )


def measure_peak_gflops(toolchain: Toolchain, machine: Machine, core: int | None = None) -> float:
    """What one core of `machine` does in a loop of multiply-adds that touches only registers.

    `core`: which one; None: wherever its system likes. Raises DeployError if it does not run code
    of the toolchain's target.
    """
    target = toolchain.target
    flags = ["-ffp-contract=fast", f"-DVECTOR_BYTES={target.vector_bytes}"]
    if target.arch is Arch.X86_64:  # the vectors of ARM are in its baseline
        wanted = {"fma", "avx2", "avx512f"} & set(target.required_features)
        flags += (f"-m{name}" for name in sorted(wanted))
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name, machine.workplace() as place:
        program = Path(name) / "peak"
        toolchain.link_program((_PEAK_SOURCE.resolve(),), program, flags)
        place.put(program, program.name, executable=True)
        printed = place.run((program.name, *([] if core is None else [str(core)])))
    return 2 * float(printed)
