"""Runner: anything that turns images into logits, so that one case list serves them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images


class Runner(ABC):
    """Use as a context manager: `activate` builds or loads what is costly, `deactivate` drops it.

    `name` says in a report what was run and where.
    """

    name: str

    @abstractmethod
    def infer(self, images: Images) -> Logits:
        """Logits (images, classes) float32; raises RunError if there are none."""

    def activate(self) -> None:  # noqa: B027 (most runners have nothing to prepare)
        """Make ready for `infer`."""

    def deactivate(self) -> None:  # noqa: B027
        """Release what `activate` took."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.deactivate()
