"""Calls: the program that the network is lowered to, while it is being written.

Values have names instead of places in memory. A float tensor that some layer reads in 8 bits gets
its 8-bit copy from the kernel that makes it, where that kernel can:

    gemm(x, w, t);  quantize(t, c, q)   =>   gemm_quantized(x, w, c, q)         nobody else reads t
                                             gemm_and_quantized(x, w, c, t, q)  somebody does

Of several 8-bit copies of one tensor the first is made so. A 16-bit copy is always made so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.flat_program import Constant, FlatProgram, QuantizedCopy, Step, Value
from levit_deploy.compiler.kernels.gemm.spec import Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.quantize import QuantizeSpec, pack_quantization, quantize_kernel
from levit_deploy.compiler.program import Entry, Space
from levit_deploy.compiler.tiles.table import TileTable
from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.spec import Normalization
from levit_deploy.targets.target import Target

IMAGE = Value(Space.IMAGE)

_HALVED = {HalfFormat.FP16: Stored.HALF, HalfFormat.BF16: Stored.BF16}

Make = Callable[[str, Stored], Kernel]


@dataclass(frozen=True)
class Tensor:
    """A float32 tensor of the program: tokens of so many channels, in whatever layout."""

    value: Value
    rows: int
    channels: int


@dataclass
class _Call:
    """`make`: the kernel of a symbol, with its result stored in one of the ways it can be.
    `stores_copies`: whether copies of fewer bits are among them."""

    symbol: str
    make: Make
    inputs: tuple[Value, ...]
    out: Value
    entry: Entry
    stores_copies: bool
    copy: _Copy | None = None


@dataclass(frozen=True)
class _Copy:
    """`stored`: that of the copy alone. `constants`: what it is made with."""

    stored: Stored
    constants: tuple[Value, ...]
    out: Value


@dataclass
class Calls:
    """`name` starts every symbol; `tiles` says how each kernel is cut for `target`.

    `normalization`: what kernels that read 8-bit images do to them first. `activation`: the
    network's.
    """

    name: str
    target: Target
    tiles: TileTable
    normalization: Normalization
    activation: Activation
    _calls: list[_Call] = field(default_factory=list)
    _buffer_bytes: list[int] = field(default_factory=list)
    _constants: dict[tuple[str, tuple[int, ...], bytes], tuple[int, Constant]] = field(
        default_factory=dict
    )
    _copies: dict[tuple[Value, int, bytes], Value] = field(default_factory=dict)
    _quantized: dict[int, QuantizedCopy] = field(default_factory=dict)

    def call(
        self,
        symbol: str,
        make: Make,
        operands: Sequence[Value | NDArray[np.generic]],
        out: Value | int,
        *,
        stores_copies: bool = False,
        entry: Entry = Entry.BOTH,
    ) -> Value:
        """Call a kernel (operands.., out); arrays become constants.

        `symbol`: what follows the program's name; it decides which kernel it is. `out`: where the
        result goes, or the size in bytes of the tensor that is made for it.
        """
        inputs = tuple(o if isinstance(o, Value) else self._constant(o) for o in operands)
        if isinstance(out, int):
            self._buffer_bytes.append(out)
            out = Value(Space.ARENA, len(self._buffer_bytes) - 1)
        symbol = f"{self.name}_{symbol}"
        self._calls.append(_Call(symbol, make, inputs, out, entry, stores_copies))
        return out

    def quantized(
        self, x: Tensor, factors: NDArray[np.float32], zero_point: int, reader: str
    ) -> Value:
        """The 8-bit copy of x for the layer `reader`, as the target stores it:
        q[k] = clamp(rint(x[k] * factors[k]), -zero_point, 255 - zero_point) + zero_point."""
        key = (x.value, zero_point, factors.tobytes())
        if key not in self._copies:
            storage = isa_of(self.target).storage
            spec = QuantizeSpec(x.rows, x.channels)
            self._copies[key] = self.call(
                f"quantize_r{x.rows}_k{x.channels}",
                lambda symbol, _: quantize_kernel(symbol, spec, self.target),
                [x.value, pack_quantization(factors, zero_point)],
                storage.size(x.rows, x.channels),
            )
            self._join_writer(self._calls[-1])
            self._quantized[self._copies[key].index] = QuantizedCopy(
                rows=x.rows,
                channels=x.channels,
                signed=storage.dtype == "int8",
                zero=zero_point + storage.offset,
                inverse_scales=factors,
                strides=storage.strides(x.channels),
            )
        copy = self._copies[key]
        self._quantized[copy.index].readers.append(reader)
        return copy

    def halved(
        self, x: Tensor, format: HalfFormat, reader: str, layout: Layout = Layout.ROWS
    ) -> Value:
        """The copy of x in `format`, in its `layout`, for the layer or attention `reader`.

        Raises DeployError if what makes x does not make such a copy.
        """
        writer = next(call for call in self._calls if call.out == x.value)
        if writer.copy is None and writer.stores_copies:
            size = self._buffer_bytes[x.value.index] // 2
            if layout is Layout.ROWS:
                storage = isa_of(self.target).half_storage(format)
                size = format.dtype.itemsize * storage.size(x.rows, x.channels)
            self._buffer_bytes.append(size)
            out = Value(Space.ARENA, len(self._buffer_bytes) - 1)
            writer.copy = _Copy(_HALVED[format], (), out)
        if writer.copy is None or writer.copy.stored is not _HALVED[format]:
            raise DeployError(
                f"`{reader}` reads in {format} what another arithmetic makes: there is no kernel",
                hint=f"compile the checkpoint: --precision {format}",
            )
        return writer.copy.out

    def _join_writer(self, quantize: _Call) -> None:
        """Let the call that makes the tensor make its copy too, if it can."""
        tensor, constant = quantize.inputs
        writer = next((call for call in self._calls if call.out == tensor), None)
        if writer is not None and writer.stores_copies and writer.copy is None:
            writer.copy = _Copy(Stored.QUANTIZED, (constant,), quantize.out)
            self._calls.remove(quantize)

    def finish(self, logits: Value) -> FlatProgram:
        """What was called, with `logits` in the caller's own buffer."""
        reads = Counter(value for call in self._calls for value in call.inputs)
        kernels: dict[str, Kernel] = {}
        steps: list[Step] = []
        for call in self._calls:
            symbol, stored = call.symbol, Stored.FLOAT
            values = [*call.inputs, call.out]
            if call.copy is not None:
                keeps = bool(reads[call.out]) or call.out == logits
                stored = call.copy.stored.with_float if keeps else call.copy.stored
                symbol = f"{symbol}_{'and_' * keeps}{call.copy.stored}"
                values = [*call.inputs, *call.copy.constants, *[call.out] * keeps, call.copy.out]
            if symbol not in kernels:
                kernels[symbol] = call.make(symbol, stored)
            placed = (Value(Space.LOGITS) if value == logits else value for value in values)
            steps.append(Step(symbol, tuple(placed), call.entry))
        constants = tuple(array for _, array in self._constants.values())
        return FlatProgram(
            tuple(steps), tuple(self._buffer_bytes), constants, self._quantized, kernels
        )

    def _constant(self, array: Constant) -> Value:
        key = (array.dtype.str, array.shape, array.tobytes())
        index, _ = self._constants.setdefault(key, (len(self._constants), array))
        return Value(Space.CONSTANT, index)
