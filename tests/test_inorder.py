"""The model of cores that issue in order, against cycles that were measured on a Cortex-A53
(qsdr-benchmarks) and what ncnn's guide says of both."""

import pytest

from benchmarks.inorder import CORES, Instruction, cycles

PRODUCTS = [f"fmla v{i}.4s, v30.4s, v31.s[0]" for i in range(5)]


@pytest.mark.parametrize(
    ("code", "a53", "a55"),
    [
        (["ldr d16, [x1]"], 1, 1),
        (["ldr q16, [x1]"], 2, 2),
        (["ldp q16, q17, [x1]"], 4, 4),
        (["ldp q16, q17, [x1]", "fmla v1.4s, v17.4s, v30.s[0]"], 7, 7),
        (["ldr d16, [x1]", "mov v17.d[1], x2"], 1, 1),
        (["mov v16.d[1], x2", "mov v17.d[1], x3"], 1, 1),
        ([*PRODUCTS, "ldr x2, [x1]"], 5, 5),
        ([*PRODUCTS, "ldr d16, [x1]"], 6, 5),
        ([*PRODUCTS, "mov v16.d[1], x2"], 6, 5),
        ([*PRODUCTS, "ldr q16, [x1]"], 7, 7),
    ],
)
def test_cycles(code: list[str], a53: int, a55: int) -> None:
    loop = [Instruction.of(*line.split(" ", 1)) for line in code]
    assert [cycles(loop, core) for core in CORES.values()] == [a53, a55]
