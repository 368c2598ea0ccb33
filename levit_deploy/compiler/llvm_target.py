"""Target -> what TVM's LLVM backend wants to know about it."""

from __future__ import annotations

import tvm

from levit_deploy.targets.system import Os
from levit_deploy.targets.target import Arch, Target


def llvm_target(target: Target) -> tvm.target.Target:
    """The TVM target, its own host: kernels never launch anything on another device."""
    reserves_x18 = target.arch is Arch.AARCH64 and target.system.reserves_x18
    config: dict[str, object] = {
        "kind": "llvm",
        "mtriple": target.triple,
        "mcpu": target.cpu,
        "mattr": [*target.features, *(["+reserve-x18"] if reserves_x18 else [])],
    }
    if target.arch is Arch.ARMV7:
        # The triple alone does not do it: expf would get its argument in an integer register.
        config["mfloat-abi"] = "soft" if target.system.os is Os.ANDROID else "hard"
    tvm_target = tvm.target.Target(config)
    return tvm_target.with_host(tvm_target)
