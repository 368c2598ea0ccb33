"""Cycles of the loops of float32 products on Cortex-A53 and A55, which issue in order: a model.

    python -m benchmarks.inorder DIR [DIR ...]

Each DIR is an artifact for a 64-bit ARM. For every innermost loop that is mostly fmla: cycles of
one turn, and the share of one fmla a cycle that is. Caches always hit. Needs `llvm-objdump`.

The rules are those that others measured. Cortex-A53: qsdr-benchmarks of github.com/daniestevez/qsdr
(fadd instead of fmla). Both: docs/developer-guide/arm-a53-a55-dual-issue.md of
github.com/Tencent/ncnn. Assumed: latencies of the A55 but for fmla, that two fmla of one sum start
four cycles apart, and that nothing else pairs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from levit_deploy.runtime.artifact import Artifact

TURNS, WARM_TURNS = 8, 4
# Cycles between two instructions where the second changes what the first wrote.
SAME = {("fmla", "fmla"): 4, ("ldr d", "ins"): 1, ("ins", "ins"): 1}


class Core(NamedTuple):
    """`latency`: cycles to a result that fmla reads, by kind; `pairs`: kinds that start together,
    in this order."""

    latency: dict[str, int]
    pairs: frozenset[tuple[str, str]]


# Cycles in which nothing else starts, beside the one in which the instruction itself does.
ALONE = {"ldr q": 1, "ldp q": 3}
_WITH_INTEGERS = {("int", kind) for kind in ("int", "fmla", "ins", "ldr x", "ldr d", "branch")}
_BOTH = {*_WITH_INTEGERS, *(pair[::-1] for pair in _WITH_INTEGERS), ("fmla", "ldr x")}
_BOTH |= {("fmla", "branch"), ("ins", "ins"), ("ins", "ldr d"), ("ldr d", "ins")}
CORES = {
    "Cortex-A53": Core(
        {"ldr q": 4, "ldp q": 4, "ldr d": 3, "ldr x": 3, "ins": 2, "fmla": 8, "int": 1},
        frozenset(_BOTH),
    ),
    "Cortex-A55": Core(
        {"ldr q": 4, "ldp q": 4, "ldr d": 3, "ldr x": 3, "ins": 2, "fmla": 4, "int": 1},
        frozenset(
            {*_BOTH, ("ldr x", "fmla")}
            | {pair for kind in ("ins", "ldr d") for pair in ((kind, "fmla"), ("fmla", kind))}
        ),
    ),
}


class Instruction(NamedTuple):
    kind: str
    writes: list[str]
    reads: list[str]

    @staticmethod
    def of(name: str, operands: str) -> Instruction:
        registers = [
            ("v" if letter in "vqds" else "x") + number
            for letter, number in re.findall(r"\b([vqdsxw])(\d+)\b", operands)
        ]
        if name.startswith("b."):
            return Instruction("branch", [], ["flags"])
        if name.startswith(("prf", "st", "cmp")):
            flags = ["flags"] * (name == "cmp")
            return Instruction("int" if flags else "ldr x", flags, registers)
        if name == "fmla" or (name in ("mov", "ins") and ".d[" in operands.split(",")[0]):
            return Instruction("fmla" if name == "fmla" else "ins", registers[:1], registers)
        results = 2 if name.startswith("ldp") else 1
        width = operands[:1].replace("w", "x")
        kind = f"{name[:3]} {width}" if name.startswith("ld") else "int"
        flags = ["flags"] * (name in ("subs", "adds"))
        return Instruction(kind, registers[:results] + flags, registers[results:])


def cycles(loop: Iterable[Instruction], core: Core) -> float:
    """Of one turn, once the loop runs."""
    ready: dict[str, tuple[int, str]] = {}  # when a register can be read, and what writes it
    now, before, starts = 0, "", []
    body = list(loop)
    for _ in range(TURNS):
        starts.append(now)
        for kind, writes, reads in body:
            start = now
            for place, register in enumerate(reads):
                when, writer = ready.get(register, (0, ""))
                if place == 0 and (writer, kind) in SAME:
                    when -= core.latency[writer] - SAME[writer, kind]
                start = max(start, when)
            if start == now and before and (before, kind) in core.pairs:
                before = ""  # the cycle is full
                now += 1
            else:
                start += start == now and bool(before)
                now, before = start, kind
                if kind in ALONE or kind == "branch":
                    now, before = now + 1 + ALONE.get(kind, 0), ""
            for place, register in enumerate(writes):
                later = 2 * place if kind == "ldp q" else 0
                ready[register] = (start + core.latency.get(kind, 0) + later, kind)
    return (now - starts[WARM_TURNS]) / (TURNS - WARM_TURNS)


def loops(library: Path) -> Iterator[tuple[str, list[Instruction]]]:
    """The innermost ones of each function that are mostly fmla, with its name."""
    command = ("llvm-objdump", "-d", "--no-show-raw-insn", library)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name, body in re.findall(r"^[0-9a-f]+ <([^>]+)>:\n((?:.+\n)+)", text, re.MULTILINE):
        lines = re.findall(r"^ *([0-9a-f]+): *\t(\S+)[ \t]*(.*)", body, re.MULTILINE)
        index = {int(address, 16): i for i, (address, _, _) in enumerate(lines)}
        for end, (_, instruction, operands) in enumerate(lines):
            target = re.match(r"0x([0-9a-f]+)", operands)
            if not instruction.startswith("b.") or target is None:
                continue
            start = index.get(int(target[1], 16), end + 1)
            loop = [Instruction.of(*line[1:]) for line in lines[start : end + 1]]
            innermost = sum(i.kind == "branch" for i in loop) == 1
            if innermost and 3 * sum(i.kind == "fmla" for i in loop) > len(loop):
                yield name, loop


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        artifact = Artifact.load(folder)
        for name, loop in loops(artifact.static_library):
            products = sum(instruction.kind == "fmla" for instruction in loop)
            figures = (
                f"{core} {turn:.0f} cycles, {products / turn:.0%}"
                for core, turn in ((core, cycles(loop, rules)) for core, rules in CORES.items())
            )
            print(f"{name}: {products} fmla, {'; '.join(figures)} (modelled)")


if __name__ == "__main__":
    main()
