"""The inner kernel of 8-bit products by instructions that sum neighbouring k in a 32-bit lane.

    acc[row, column] += sum over the k of one step of a[row, k] * w[k, column]

| instruction | step | a | weights |
|---|---|---|---|
| vpdpbusd (AVX-VNNI, AVX-512 VNNI) | 4 k | 4 unsigned bytes, broadcast | signed bytes |
| pmaddwd, then an addition | 2 k | two int16, broadcast | signed bytes, widened when loaded |
| sdot (dotprod) | 4 k | 4 signed bytes, by lane | signed bytes |

None of them saturates: vpdpbusd and sdot sum four products of at most 255 * 127 exactly into 32
bits (it is vpdpbusds that saturates); pmaddwd's two products of at most 255 * 127 do too. And
2048 k of them stay below 2^27. vpmaddubsw, which saturates at 16 bits, is not used: on this
arithmetic it takes as many multiplier slots as pmaddwd.

A panel's weights are [depth / step][columns][step].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.narrowing import shuffle
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Int8Dot

_MADD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_VPDPBUSD = {8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
_SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"
