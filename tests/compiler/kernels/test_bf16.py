"""What multiplies bfloat16, beyond test_families: the code of loops, the copies that are made."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.attention import bf16 as attention
from levit_deploy.compiler.kernels.attention.family import ATTENTION_BF16
from levit_deploy.compiler.kernels.attention.spec import AttentionBf16Spec
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.family import GEMM, GEMM_BF16, GEMM_INT8
from levit_deploy.compiler.kernels.gemm.spec import GemmBf16Spec, GemmInt8Spec, GemmSpec
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.attention_cases import PARTS_OF_PANELS, WHOLE_SPECS, plain, shrinking
from tests.compiler.kernels.bf16_cases import TARGET
from tests.compiler.kernels.rounding import vdpbf16ps
from tests.compiler.kernels.test_gemm import LAYERS

C8, C4, C2, C = 16, 32, 64, 128  # LeViT-128S
HARDSWISH = LAYERS[1].activation
CONVS = (
    ConvSpec(112, C8, C4, HARDSWISH, Source.PADDED_BF16, Destination.PADDED_BF16),
    ConvSpec(28, C2, C, LAYERS[0].activation, Source.PADDED_BF16, Destination.TOKENS),
)


def kernels() -> list[Kernel]:
    gemms = [GemmBf16Spec(**vars(spec)) for spec in LAYERS]
    attentions = [AttentionBf16Spec(**vars(spec)) for spec in (plain(14), shrinking(14))]
    return [
        family.generate("kernel", spec, family.default_tile(spec, TARGET), TARGET, stored)
        for family, specs, stored in (
            (GEMM_BF16, gemms, Stored.BF16),
            (CONV, CONVS, Stored.FLOAT),
            (ATTENTION_BF16, attentions, Stored.BF16),
        )
        for spec in specs
    ]


@pytest.mark.parametrize("kernel", kernels(), ids=lambda kernel: f"{kernel.kind} {kernel.shape}")
def test_inner_loops_multiply_in_registers(kernel: Kernel) -> None:
    """At least half of their instructions; nothing is on the stack, nothing is moved about."""
    loops = innermost_loops(assembly(kernel, TARGET))
    hot = [loop for loop in loops if any("\tvdpbf16ps\t" in line for line in loop)]
    assert hot
    for loop in hot:
        assert sum("\tvdpbf16ps\t" in line for line in loop) >= 0.5 * len(loop)
        assert not spills([loop])
        assert not [line for line in loop if re.search(r"\tvmov[au]ps\t%zmm\d+, %zmm", line)]


@pytest.mark.parametrize(
    ("family", "spec"), [(GEMM, GemmSpec), (GEMM_INT8, GemmInt8Spec)], ids=["fp32", "int8"]
)
def test_other_precisions_have_the_code_of_the_cpu_without(family: object, spec: type) -> None:
    def code(target_name: str) -> str:
        target, layer = get_target(target_name), spec(**vars(replace(LAYERS[3], residual=False)))
        tile = family.default_tile(layer, target)
        return assembly(family.generate("g", layer, tile, target, Stored.FLOAT), target)

    assert code("x86-64-v4-bf16") == code("x86-64-v4-vnni")


def test_what_is_supported() -> None:
    specs = [AttentionBf16Spec(**vars(spec)) for spec in (*WHOLE_SPECS, *PARTS_OF_PANELS)]
    assert [attention.is_supported(spec) for spec in specs] == [True] * 13 + [False] * 4


def test_the_definition_rounds_twice_and_flushes() -> None:
    """What Intel's manual says of the instruction, by hand."""

    def one(total: float, a: tuple[float, float], b: tuple[float, float]) -> float:
        return float(vdpbf16ps(np.float32([total]), np.float32([a]), np.float32([b]))[0])

    tiny = 2.0**-126
    assert one(1, (2.0**-24, 2.0**-23), (1, 1)) == 1 + 2.0**-22  # the second of the pair first
    assert one(1, (2.0**-23, 2.0**-24), (1, 1)) == 1 + 2.0**-23
    assert one(1, (2.0**-25, 2.0**-24), (1, 1)) == 1  # once for each product
    assert one(0, (tiny / 2, 0), (2.0**100, 0)) == 0  # denormal factors, sums, results
    assert one(tiny / 2, (tiny, 0), (1, 0)) == tiny
    assert one(0, (2.0**-64, 0), (2.0**-63, 0)) == 0
    assert one(2.0**127, (2.0**64, -(2.0**64)), (2.0**64, 2.0**63)) == np.inf
