"""Read a kernel's assembly: the loops in which it spends its time, and what they cost."""

from __future__ import annotations

import re

import tvm

from levit_deploy.compiler.codegen import Functions, finish, lower_kernels, translate
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.targets.target import Target

Loop = list[str]  # instructions

# A vector register on the stack: what the register allocator had no room for.
STACK = re.compile(r"%[xyz]mm.*\(%rsp|\(%rsp.*%[xyz]mm|\tv?(?:ld|st)\S*\t[qvd{].*\[sp")
_BRANCH = re.compile(r"\t(?:j[a-z]+|b|b\.?[a-z]{2}|cbn?z|tbn?z)\t.*?(\.LBB\w+)")
_MULTIPLY_ADD = re.compile(
    r"\t(?:vfmadd\d+ps|v?mulps|fmla|vmul\.f32|vmla\.f32|vfma\.f32"
    r"|v?pmaddwd|vpdpbusd|vpdpwssd|vdpbf16ps|sdot|smmla|bfmmla|smlal2?|vmlal\.s\d+)\t"
)


def lower(kernel: Kernel, target: Target) -> Functions:
    """One kernel as the pipeline lowers it."""
    kernels = {kernel.symbol: kernel}
    return lower_kernels(kernels, {kernel.symbol: kernel.unaligned}, llvm_target(target))


def assembly(kernel: Kernel, target: Target) -> str:
    """What LLVM makes of `kernel`."""
    return str(compiled(kernel, target).inspect_source("asm"))


def compiled(kernel: Kernel, target: Target) -> tvm.runtime.Module:
    """One kernel as it gets into an object."""
    return finish(translate(lower(kernel, target), llvm_target(target)), target)


def innermost_loops(assembly: str) -> list[Loop]:
    """Instructions of every loop that holds no other loop."""
    lines = [line for line in assembly.splitlines() if not line.startswith((".Ltmp", "\t."))]
    labels = {line.split(":")[0]: at for at, line in enumerate(lines) if line.startswith(".LBB")}
    spans = [
        (labels[match[1]], at)
        for at, line in enumerate(lines)
        if (match := _BRANCH.match(line)) and labels.get(match[1], at) < at
    ]
    return [
        lines[start:end]
        for start, end in spans
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
    ]


def hot_loops(assembly: str) -> list[Loop]:
    """Innermost loops that multiply and add."""
    return [loop for loop in innermost_loops(assembly) if _multiply_adds(loop)]


def spills(loops: list[Loop]) -> int:
    """Instructions that move vectors to the stack or from it."""
    return sum(bool(STACK.search(line)) for loop in loops for line in loop)


def instructions_per_multiply_add(loops: list[Loop]) -> float:
    """1 would be a loop of nothing but multiply-adds; infinite if there are none."""
    useful = sum(map(_multiply_adds, loops))
    return sum(map(_instructions, loops)) / useful if useful else float("inf")


def _multiply_adds(loop: Loop) -> int:
    return sum(bool(_MULTIPLY_ADD.match(line)) for line in loop)


def _instructions(loop: Loop) -> int:
    return sum(line.startswith("\t") for line in loop)
