"""What multiplies bfloat16, beyond test_families: the code of loops, the copies that are made."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.attention import bf16 as attention
from levit_deploy.compiler.kernels.attention.family import ATTENTION_BF16, ATTENTION_BFMMLA
from levit_deploy.compiler.kernels.attention.spec import AttentionBf16Spec
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.family import GEMM, GEMM_BF16, GEMM_BFMMLA, GEMM_INT8
from levit_deploy.compiler.kernels.gemm.spec import GemmInt8Spec, GemmSpec
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.attention_cases import PARTS_OF_PANELS, WHOLE_SPECS, plain, shrinking
from tests.compiler.kernels.bf16_cases import ARM_TARGET, TARGET
from tests.compiler.kernels.rounding import bfmmla, vdpbf16ps
from tests.compiler.kernels.test_gemm import LAYERS

C8, C4, C2, C = 16, 32, 64, 128  # LeViT-128S
HARDSWISH = LAYERS[1].activation
CONVS = (
    ConvSpec(112, C8, C4, HARDSWISH, Source.PADDED_BF16, Destination.PADDED_BF16),
    ConvSpec(28, C2, C, LAYERS[0].activation, Source.PADDED_BF16, Destination.TOKENS),
    ConvSpec(28, 192, 384, LAYERS[0].activation, Source.PADDED_BF16, Destination.TOKENS),
)


def kernels() -> list[tuple[Kernel, Target, str]]:
    """Each with what multiplies in it."""
    attentions = (plain(14), shrinking(14))
    made = []
    for target, instruction, gemm, attention_family in (
        (TARGET, "vdpbf16ps", GEMM_BF16, ATTENTION_BF16),
        (ARM_TARGET, "bfmmla", GEMM_BFMMLA, ATTENTION_BFMMLA),
    ):
        rows = (
            (gemm, LAYERS, Stored.BF16),
            (CONV, CONVS, Stored.FLOAT),
            (attention_family, attentions, Stored.BF16),
        )
        for family, specs, stored in rows:
            for base in specs:
                spec = base if family is CONV else family.spec(**vars(base))
                tile = family.default_tile(spec, target)
                kernel = family.generate("kernel", spec, tile, target, stored)
                made.append((kernel, target, instruction))
    return made


@pytest.mark.parametrize(
    ("kernel", "target", "instruction"),
    [pytest.param(*row, id=f"{row[2]} {row[0].kind} {row[0].shape}") for row in kernels()],
)
def test_inner_loops_multiply_in_registers(
    kernel: Kernel, target: Target, instruction: str
) -> None:
    """At least half of their instructions, or a third, where bfmmla's operands and results are put
    together in the same loop; nothing is on the stack, nothing is moved about."""
    together = instruction == "bfmmla" and ("keys" in kernel.shape or "every" in kernel.shape)
    loops = innermost_loops(assembly(kernel, target))
    hot = [loop for loop in loops if any(f"\t{instruction}\t" in line for line in loop)]
    assert hot
    moved = r"\tvmov[au]ps\t%zmm\d+, %zmm|\tmov\tv\d+\.16b"
    for loop in hot:
        assert sum(f"\t{instruction}\t" in line for line in loop) >= len(loop) / (
            3 if together else 2
        )
        assert not spills([loop])
        assert not [line for line in loop if re.search(moved, line)]


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


def test_the_definition_of_bfmmla_rounds_to_odd_and_flushes() -> None:
    """What Arm's manual says of the instruction, by hand."""

    def one(total: float, a: tuple[float, ...], b: tuple[float, ...] = (1, 1, 1, 1)) -> float:
        return float(bfmmla(np.float32([total]), np.float32([a]), np.float32([b]))[0])

    tiny, last = 2.0**-126, 2.0**-23
    assert one(1, (2.0**-30, 0, 0, 0)) == 1 + last  # what is lost sets the last bit
    assert one(1, (2.0**-30, 0, 2.0**-30, 0)) == 1 + last
    assert one(1 + last, (2.0**-24, 0, 2.0**-24, 0)) == 1 + last  # of each sum of two, in order
    assert one(1 + last, (2.0**-24, 2.0**-24, 0, 0)) == 1 + 2 * last
    assert one(1, (-(2.0**-30), 0, 0, 0)) == 1 - 2.0**-24
    assert one(0, (tiny / 2, 0, 0, 0), (2.0**100, 0, 0, 0)) == 0  # denormal factors, sums, results
    assert one(tiny / 2, (tiny, 0, 0, 0)) == tiny
    assert one(0, (2.0**-64, 0, 0, 0), (2.0**-63, 0, 0, 0)) == 0
    assert one(0, (2.0**64, 0, -(2.0**64), 0), (2.0**64, 0, 2.0**63, 0)) == np.inf
