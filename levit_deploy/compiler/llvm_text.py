"""LLVM's text of a module -> the same code, private to its library and hardened.

    define dllexport i32 @f(..) #0 !dbg !5      define hidden i32 @f(..) #0
    define weak i16 @__truncsfhf2(..) {..}  ->  (gone)
    call @x86.avx512bf16.f(..)              ->  call @llvm.x86.avx512bf16.f(..)
    %2 = call @fptrunc.bfloat.4(.. %1)      ->  %bf2 = fptrunc .. %1 to ..; %2 = bitcast .. %bf2
    attributes #0 = { .. }                      attributes #0 = { .. "branch-target-enforcement" }

TVM gives every function default visibility, describes it to debuggers by names of its own, and adds
conversions from and to half precision under names of the compiler's run-time library. It has no
bfloat16, of which LLVM's intrinsics were integers once: that form it still reads. Hardening
(BTI and PAC of AArch64, CET of x86) is what LLVM makes of attributes and module flags, see
`Verifier::visitModuleFlag` and the passes AArch64BranchTargets and X86IndirectBranchTracking; the
ELF note that says so comes with it. On Windows functions that use the stack have unwind tables.
"""

from __future__ import annotations

import re

from levit_deploy.compiler.kernels.isa.bf16_instructions import (
    ARM_PREFIX,
    ROUNDING,
    X86_PREFIX,
)
from levit_deploy.compiler.small_code import small_code
from levit_deploy.targets.system import ObjectFormat
from levit_deploy.targets.target import Arch, Target

_DEBUG_RECORD = re.compile(r"^ +#dbg_\w+\(.*\n", re.MULTILINE)
_DEBUG_LOCATION = re.compile(r",? !dbg !\d+")
_DEBUG_UNITS = re.compile(r"^!llvm\.dbg\.cu = .*\n", re.MULTILINE)
_CONVERSION = re.compile(
    r"^define weak .*@__(?:truncsfhf2|extendhfsf2)\(.*\{\n(?:.*\n)*?^\}\n", re.MULTILINE
)
_ROUNDED = re.compile(
    rf"^( *)%(\d+) = (?:tail )?call <(\d+) x i16> @{re.escape(ROUNDING)}\.\d+\((.*)\)[^)\n]*$",
    re.MULTILINE,
)
_DEFINED = re.compile(r'^(attributes #\d+ = \{)(?=.*"target-cpu")', re.MULTILINE)
_MODULE_FLAGS = re.compile(r"^!llvm\.module\.flags = !\{", re.MULTILINE)
_MINIMUM = 8  # how flags of linked modules are joined: llvm::Module::ModFlagBehavior::Min
_ATTRIBUTES = {
    Arch.AARCH64: '"branch-target-enforcement" "sign-return-address"="non-leaf" '
    '"sign-return-address-key"="a_key"',
}
_FLAGS = {
    Arch.X86_64: ("cf-protection-branch", "cf-protection-return"),
    Arch.AARCH64: ("branch-target-enforcement", "sign-return-address"),
}


def finish_text(text: str, target: Target) -> str:
    """A module as TVM makes it for `target`, finished as above."""
    for pattern in (_DEBUG_RECORD, _DEBUG_LOCATION, _DEBUG_UNITS, _CONVERSION):
        text = pattern.sub("", text)
    text = text.replace("define dllexport ", "define hidden ")
    for prefix in (X86_PREFIX, ARM_PREFIX):
        text = text.replace(f"@{prefix}", f"@llvm.{prefix}")
    text = _ROUNDED.sub(
        r"\1%bf\2 = fptrunc \4 to <\3 x bfloat>\n\1%\2 = bitcast <\3 x bfloat> %bf\2 to <\3 x i16>",
        text,
    )
    if target.arch is Arch.ARMV7:
        text = small_code(text)
    match target.system.format:
        case ObjectFormat.ELF:
            text = _DEFINED.sub(rf"\1 {_ATTRIBUTES.get(target.arch, '')}", text)
            return _with_flags(text, _FLAGS.get(target.arch, ()))
        case ObjectFormat.COFF:
            return _DEFINED.sub(r"\1 uwtable", text)
        case ObjectFormat.MACHO:
            return text


def _with_flags(text: str, flags: tuple[str, ...]) -> str:
    first = 1 + max(int(number) for number in re.findall(r"^!(\d+) = ", text, re.MULTILINE))
    numbers = range(first, first + len(flags))
    text = _MODULE_FLAGS.sub(lambda found: found[0] + "".join(f"!{n}, " for n in numbers), text)
    return text + "".join(
        f'!{number} = !{{i32 {_MINIMUM}, !"{flag}", i32 1}}\n'
        for number, flag in zip(numbers, flags, strict=True)
    )
