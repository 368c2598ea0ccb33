"""Who works on an audit, as the audit sees them: an executor, and what it is to call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from levit_deploy.audit.chunk import Chunk
from levit_deploy.audit.mixed_precision import Nearness


@dataclass(frozen=True)
class Workers:
    """`executor` calls `chunk` with the number of one, and `nearness` with the layers that are to
    be float32, in this process or elsewhere."""

    executor: Executor
    chunk: Callable[[int], Chunk]
    nearness: Callable[[frozenset[str]], Nearness]
