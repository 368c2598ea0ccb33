"""A group: a part of the Relax graph for which there are generated kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tvm.ir import Expr
from tvm.relax.dpl import DFPattern

from levit_deploy.compiler.groups.kernel_calls import KernelCalls

Parts = Mapping[str, Expr]


class Plan(Protocol):
    """Everything about one matched group that is known at compile time."""

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        """Write the kernel calls; returns the tensor that takes the group's place."""


@dataclass(frozen=True)
class Group:
    """`pattern` finds it; `parts` are the places in the pattern that `plan` looks at.

    `plan` answers None for "not mine": the operators then stay as they are. Of the group's inputs
    it may read only type and shape.
    """

    name: str
    pattern: DFPattern
    parts: Mapping[str, DFPattern]
    plan: Callable[[Parts], Plan | None]
