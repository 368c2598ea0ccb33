"""The target table: consistent rows, and names that lead somewhere."""

import itertools

import pytest
import tvm

from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.errors import DeployError
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.target import Arch

PROMISED = [
    *("x86-64", "x86-64-v3", "x86-64-v3-vnni", "x86-64-v4"),
    *("x86-64-v4-vnni", "x86-64-v4-bf16"),
    *("arm64", "arm64-dotprod", "arm64-i8mm", "armv7"),
    *("rpi3", "rpi4", "rpi5", "graviton2", "graviton3", "imx8mp", "jetson-orin"),
    *("x86-64-any", "arm64-any"),
]


def test_the_promised_targets_exist():
    assert list(TARGETS) == PROMISED


@pytest.mark.parametrize("name", PROMISED)
def test_a_row_is_consistent(name):
    target = get_target(name)
    assert target.name == name
    assert target.vector_bytes in (16, 32, 64)
    assert target.l1d_bytes < target.l2_bytes
    assert len(set(target.required_features)) == len(target.required_features)
    assert all(feature[0] in "+-" for feature in target.features)


@pytest.mark.parametrize("name", [name for name in PROMISED if TARGETS[name].base])
def test_a_board_runs_the_code_of_its_base(name):
    board, base = TARGETS[name], TARGETS[TARGETS[name].base]
    assert base.base is None
    assert board.required_features == base.required_features
    for field in ("arch", "triple", "vector_bytes", "vector_registers", "fma", "int8_dot"):
        assert getattr(board, field) == getattr(base, field)
    assert board.l1d_bytes >= base.l1d_bytes
    assert board.l2_bytes >= base.l2_bytes


def test_more_demanding_classes_come_later():
    """Host detection takes the last row that fits."""
    for arch in Arch:
        rows = [t for t in TARGETS.values() if t.base is None and t.arch is arch]
        demands = [set(t.required_features) for t in rows]
        for earlier, later in itertools.pairwise(demands):
            assert not later < earlier


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("x86_64-v3", "x86-64-v3"), ("arm-64", "arm64"), ("rpi6", "rpi5"), ("hots", "host")],
)
def test_an_unknown_target_gets_the_nearest_names(typo, meant):
    with pytest.raises(DeployError, match=f"unknown target `{typo}`") as caught:
        get_target(typo)
    assert f"`{meant}`" in caught.value.hint


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(DeployError) as caught:
        get_target("quantum")
    assert caught.value.hint == "`levit-deploy targets` lists all of them"


@pytest.mark.parametrize("name", ["wasm", "RISCV64"])
def test_a_platform_that_is_not_built_is_said_to_be_that(name):
    with pytest.raises(DeployError, match=f"`{name}` is not a target yet") as caught:
        get_target(name)
    assert "did you mean" not in caught.value.hint


def test_armv7_is_scheduled_as_a_later_core_without_its_instructions() -> None:
    target = llvm_target(get_target("armv7"))
    generic = dict(target.attrs) | {"kind": "llvm", "mcpu": "generic", "mattr": ["+neon"]}
    features = tvm.target.codegen.llvm_get_cpu_features
    more = set(features(target)) - set(features(tvm.target.Target(generic)))
    assert more <= {"a53", "fpao", "use-misched"}  # a name, and orders of instructions
