"""Which code of a library for several CPUs a CPU gets."""

from __future__ import annotations

from levit_deploy.runtime.manifest import Manifest
from levit_deploy.targets.host import Cpu
from levit_deploy.targets.table import get_target


def level_for(manifest: Manifest, cpu: Cpu) -> str | None:
    """Which code of a library for several CPUs `cpu` uses, or an emulator of the least demanding
    one; None if the library has no choice."""
    if not manifest.levels:
        return None
    fitting = (level for level in manifest.levels if cpu.runs(get_target(level)))
    return next(fitting, manifest.levels[-1])
