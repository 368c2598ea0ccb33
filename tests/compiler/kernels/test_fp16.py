"""What LLVM makes of products of float16."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from levit_deploy.compiler.kernels.gemm.family import GEMM_FP16
from levit_deploy.compiler.kernels.gemm.spec import GemmFp16Spec
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.half_cases import STREAM

PRODUCT = re.compile(r"\t(?:fmul|fmla)\t\S+\.8h, .*\.h\[")
LAYERS = ((49, 64, 512), (16, 96, 384), (196, 40, 128))


@pytest.mark.parametrize("name", ["arm64-dotprod", "arm64-i8mm"])
def test_inner_loops_multiply_in_registers(name: str) -> None:
    """Eight products in each of at least 0.8 of the instructions."""
    target = get_target(name)
    for rows, columns, depth in LAYERS:
        spec = GemmFp16Spec(**vars(replace(STREAM, rows=rows, columns=columns, depth=depth)))
        tile = GEMM_FP16.default_tile(spec, target)
        kernel = GEMM_FP16.generate("kernel", spec, tile, target, Stored.FLOAT_AND_FP16)
        loops = innermost_loops(assembly(kernel, target))
        products = [sum(bool(PRODUCT.match(line)) for line in loop) for loop in loops]
        hot = [(loop, count) for loop, count in zip(loops, products, strict=True) if count > 100]
        assert hot
        for loop, count in hot:
            assert count >= 0.8 * sum(line.startswith("\t") for line in loop), spec
        assert not spills([loop for loop, _ in hot]), spec
