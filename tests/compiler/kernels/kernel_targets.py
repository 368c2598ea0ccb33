"""The targets that kernels are tested for."""

from __future__ import annotations

from dataclasses import replace

from levit_deploy.targets.table import get_target

# AVX-VNNI's kernels by AVX-512's encoding of the same instructions, which more CPUs can run.
EVEX_256 = replace(
    get_target("x86-64-v3-vnni"),
    name="x86-64-v3-vnni, EVEX",
    cpu="x86-64-v4",
    features=("+avx512vnni",),
    required_features=get_target("x86-64-v4-vnni").required_features,
)
# Vectors of each kind: all that a kernel of floats knows of its target.
FLOAT_TARGETS = tuple(map(get_target, ("x86-64", "x86-64-v3", "x86-64-v4", "arm64", "armv7")))
_INT8_TARGETS = tuple(map(get_target, ("x86-64-v4-vnni", "arm64-dotprod", "arm64-i8mm")))
TARGETS = (*FLOAT_TARGETS, EVEX_256, *_INT8_TARGETS)
# Each kind of vectors with each way to store 8-bit activations.
STORAGE_TARGETS = (*FLOAT_TARGETS, get_target("arm64-i8mm"))
# What targets with FMA must equal to the bit.
FMA_TARGET = get_target("x86-64-v3")
