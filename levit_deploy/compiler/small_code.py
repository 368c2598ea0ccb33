"""LLVM's text for ARMv7 -> the same code with multiply-adds of one instruction.

    attributes #0 = { .. }      attributes #0 = { minsize .. }
    %q = sdiv i32 %x, 49    ->  (%x * 2804876602 >> 37) + (%x < 0)

TVM tells LLVM to fuse what it can; then LLVM takes `vmla`, which rounds twice as vmul and vadd do,
in small code only (UseFPVMLx of ARMPredicates.td). There it also calls a function for each
division, so these are written as multiplications before.
"""

from __future__ import annotations

import re

_DEFINED = re.compile(r'^(attributes #\d+ = \{)(?=.*"target-cpu")', re.MULTILINE)
_DIVISION = re.compile(
    r"^  %(?P<name>[\w.$-]+) = (?P<kind>[su](?:div|rem))(?: exact)? "
    r"i(?P<bits>8|16|32) (?P<x>%[\w.$-]+), (?P<divisor>[1-9]\d*)$",
    re.MULTILINE,
)
_BITS = (
    31  # of a magnitude: TIR's integers are signed, unsigned ones of LLVM were those or narrower
)


def multiplier(divisor: int) -> tuple[int, int]:
    """(m, shift) with x * m >> shift == x // divisor for all 0 <= x < 2**31.

    m * divisor is at most `divisor` more than 2**shift, and that at most 2**(shift - 31): Granlund
    and Montgomery, Division by Invariant Integers using Multiplication, theorem 4.2.
    """
    shift = _BITS + (divisor - 1).bit_length()
    return (1 << shift) // divisor + 1, shift


def small_code(text: str) -> str:
    """A module of functions for ARMv7, changed as above."""
    return _DEFINED.sub(r"\1 minsize", _DIVISION.sub(_multiplied, text))


def _multiplied(found: re.Match[str]) -> str:
    name, x, divisor = found["name"], found["x"], int(found["divisor"])
    kind, bits = f"i{found['bits']}", int(found["bits"])
    factor, shift = multiplier(divisor)

    def part(what: str) -> str:
        return f'%"{name}.{what}"'

    signed, takes_rest = found["kind"].startswith("s"), found["kind"].endswith("rem")
    quotient = part("quotient") if takes_rest else f"%{name}"
    lines = [
        f"{part('wide')} = {'sext' if signed else 'zext'} {kind} {x} to i64",
        f"{part('product')} = mul i64 {part('wide')}, {factor}",
        f"{part('shifted')} = ashr i64 {part('product')}, {shift}",
        f"{part('floor')} = trunc i64 {part('shifted')} to {kind}",
        f"{part('sign')} = ashr {kind} {x}, {bits - 1}" if signed else "",
        f"{quotient} = sub {kind} {part('floor')}, {part('sign') if signed else 0}",
    ]
    if takes_rest:
        lines += [
            f"{part('whole')} = mul {kind} {quotient}, {divisor}",
            f"%{name} = sub {kind} {x}, {part('whole')}",
        ]
    return "\n".join(f"  {line}" for line in lines if line)
