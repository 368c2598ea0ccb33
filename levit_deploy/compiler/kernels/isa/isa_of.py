"""Which instruction set a target has."""

from __future__ import annotations

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.neon32 import Neon32
from levit_deploy.compiler.kernels.isa.neon64 import Neon64
from levit_deploy.compiler.kernels.isa.x86 import X86
from levit_deploy.errors import DeployError
from levit_deploy.targets.target import Arch, Target

_BY_ARCH: dict[Arch, type[Isa]] = {
    Arch.X86_64: X86,
    Arch.AARCH64: Neon64,
    Arch.ARMV7: Neon32,
}


def isa_of(target: Target) -> Isa:
    """The instruction set of `target`.

    Raises DeployError for an architecture, or a way to multiply integers on it, without kernels.
    """
    isa = _BY_ARCH.get(target.arch)
    if isa is None or target.int8_dot not in isa.PRODUCTS:
        raise DeployError(
            f"no kernels for `{target.arch}` with `{target.int8_dot}`",
            hint="`levit-deploy targets` lists the CPUs that have kernels",
        )
    return isa.of(target)
