from dataclasses import replace

from levit_deploy.compiler.compile_log import format_calls
from levit_deploy.compiler.program import Arg, Entry, KernelCall, Program, Space
from levit_deploy.models.card import default_card
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import TINY

CALL = KernelCall(
    symbol="net_gemm",
    args=(Arg(Space.IMAGE), Arg(Space.CONSTANT, 64), Arg(Space.LOGITS)),
    tasks=8,
    entry=Entry.BOTH,
    kind="gemm",
    shape="196x256x128 hardswish",
    tile="6x16",
    multiply_adds=6_422_528,
    bytes_moved=431_104,
)
PROGRAM = Program(
    name="net",
    model="net",
    precision="fp32",
    target="x86-64-v3",
    image_size=16,
    classes=10,
    card=default_card(Origin.ORIGINAL, TINY),
    weights_digest="00",
    kernels_object=b"",
    constants=bytes(2_500_000),
    calls=(
        replace(CALL, symbol="net_f32", kind="conv", entry=Entry.FLOAT),
        replace(CALL, symbol="net_rgb8", kind="conv", entry=Entry.RGB8),
        CALL,
        replace(CALL, symbol="net_mean", kind="mean", tile=""),
        replace(CALL, symbol="net_mean", kind="mean", tile=""),
    ),
    tensors=(),
    arena_bytes=1_233_088,
    scratch_bytes=70_208,
    selftest_image_offset=0,
)


def test_every_call_is_a_line() -> None:
    lines = format_calls(PROGRAM).splitlines()
    assert len(lines) == 1 + 5 + 1 + 2
    assert lines[3].split() == ["3", "gemm", "196x256x128", "hardswish", "6x16", "8", "6.42", "431"]
    assert lines[1].endswith("float")
    assert lines[2].endswith("rgb8")
    assert "4 calls, 3 kernels, 25.7 million multiply-adds" in lines[7]
    assert "arena 1233 kB, scratch 70 kB a worker, constants 2.50 MB" in lines[8]


def test_exactness_is_told_of_integer_kernels_alone() -> None:
    assert "saturates" not in format_calls(PROGRAM)
    call = replace(CALL, kind="gemm int8", exactness="sdot, 32 bits: at most 4.2 million")
    lines = format_calls(replace(PROGRAM, calls=(*PROGRAM.calls[:2], call))).splitlines()
    assert "nothing saturates or wraps in products of integers:" in lines
    assert "3  sdot, 32 bits: at most 4.2 million" in lines
