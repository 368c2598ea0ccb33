"""A kernel family: all that the rest of the compiler knows about one kind of generated kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.targets.target import Target

SpecT = TypeVar("SpecT")
TileT = TypeVar("TileT")


class CutBy(Generic[TileT]):
    """A spec of kernels whose work is cut by a tile of the class in brackets."""


@dataclass(frozen=True)
class Family(Generic[SpecT, TileT]):
    """Kernels of any `spec` of a class, cut by a tile.

    `name`: in files of tiles. `default_tile`: the tile where none was found by search.
    `shared_tile`: one whose constants are the same for all CPUs of an architecture; None where the
    constants are small. `is_legal`: whether a tile computes the right result and keeps its
    accumulators in registers; how fast it is, measurements say. `neighbours`: tiles that a search
    tries besides the default one, which it gets, the nearest first; not all are legal. `generate`:
    the kernel of a symbol, with its result stored in one of the ways that it can be. `symbol`: the
    symbol without the program's name, which decides which kernel it is.
    """

    name: str
    spec: type[SpecT]
    tile: type[TileT]
    default_tile: Callable[[SpecT, Target], TileT]
    is_legal: Callable[[TileT, SpecT, Target], bool]
    neighbours: Callable[[SpecT, TileT, Target], Iterable[TileT]]
    generate: Callable[[str, SpecT, TileT, Target, Stored], Kernel]
    symbol: Callable[[SpecT, TileT], str]
    shared_tile: Callable[[SpecT, Target], TileT] | None = None

    def maker(self, spec: SpecT, tile: TileT, target: Target) -> Callable[[str, Stored], Kernel]:
        """`generate` for one spec: what is left open is the symbol, and how results are stored."""
        return lambda symbol, stored: self.generate(symbol, spec, tile, target, stored)


def float_only(
    generate: Callable[[str, SpecT, TileT, Target], Kernel],
) -> Callable[[str, SpecT, TileT, Target, Stored], Kernel]:
    """The `generate` of a family whose results are float32 and nothing else."""

    def kernel(symbol: str, spec: SpecT, tile: TileT, target: Target, stored: Stored) -> Kernel:
        assert stored is Stored.FLOAT, "it makes no 8-bit copies"
        return generate(symbol, spec, tile, target)

    return kernel
