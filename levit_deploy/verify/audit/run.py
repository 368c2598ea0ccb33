"""Images -> chunks on disk, several at a time: decode, classify by every runner, store.

Each chunk is made by one thread from beginning to end, so memory is that of `jobs` chunks however
large the set is; runners work in child processes or release Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.verify.audit.chunk import UNLABELLED, Chunk
from levit_deploy.verify.audit.images import AuditImages, LoadedImages
from levit_deploy.verify.audit.result import RunnerName
from levit_deploy.verify.audit.settings import Settings
from levit_deploy.verify.audit.state import State
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.runner import RunError, Runner

PICTURE_SIDE = 128  # larger ones are made smaller before they are kept for the report


@dataclass(frozen=True, eq=False)
class Work:
    """What makes chunks. `machine`: the CPU model of this one."""

    settings: Settings
    images: AuditImages
    runners: Mapping[RunnerName, Runner]
    machine: str

    def chunk(self, number: int) -> Chunk:
        """Raises DeployError for a broken image, or if a runner gives no logits."""
        loaded = self.images.read(self.settings.positions(number))
        logits = {name: self._infer(name, loaded) for name in self.settings.runners}
        count = len(loaded.indices)
        unlabelled = np.full(count, UNLABELLED, np.int64)
        return Chunk(
            machine=self.machine,
            skipped=loaded.skipped,
            indices=loaded.indices,
            names=loaded.names,
            labels=unlabelled if loaded.labels is None else loaded.labels,
            digests=np.frombuffer(b"".join(loaded.digests), np.uint8).reshape(count, 32),
            logits=logits,
            pictures={
                int(loaded.indices[row]): _small(loaded.images.rgb8[row])
                for row in _disagreements(logits)
            },
        )

    def _infer(self, name: RunnerName, loaded: LoadedImages) -> Logits:
        if not len(loaded.indices):
            return np.empty((0, self.settings.classes), np.float32)
        where = f"on `{loaded.names[0]}` to `{loaded.names[-1]}`"
        try:
            logits = self.runners[name].infer(loaded.images)
        except RunError as error:
            raise DeployError(
                f"the {name} gave no logits {where}: {error.message}",
                hint="what was done before is kept: go on with --resume",
            ) from error
        if logits.shape != (len(loaded.indices), self.settings.classes):
            raise DeployError(f"the {name} gave logits {logits.shape} {where}")
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            culprit = loaded.names[int(finite.argmin())]
            raise DeployError(
                f"the {name} gave logits that are not finite for `{culprit}`",
                hint="levit-deploy verify DIR --weights W",
            )
        return logits


def run_chunks(
    work: Work,
    state: State,
    numbers: Sequence[int],
    jobs: int,
    on_images: Callable[[int, int], None],
) -> None:
    """Make those chunks that are not in `state` yet, `jobs` at a time.

    `on_images` is told how many images are done, and how many there are. Raises DeployError as
    `Work.chunk` does.
    """
    sizes = {number: len(work.settings.positions(number)) for number in numbers}
    missing = [number for number in numbers if not state.has(number)]
    total = sum(sizes.values())
    left = sum(sizes[number] for number in missing)
    on_images(total - left, total)

    def make(number: int) -> int:
        state.store(number, work.chunk(number))
        return sizes[number]

    pool = ThreadPoolExecutor(jobs)
    try:
        for done in as_completed([pool.submit(make, number) for number in missing]):
            left -= done.result()
            on_images(total - left, total)
    finally:
        pool.shutdown(cancel_futures=True)


def _disagreements(logits: Mapping[RunnerName, Logits]) -> NDArray[np.intp]:
    """Rows on which not all runners have the same top-1."""
    first, *others = (rows.argmax(axis=1) for rows in logits.values())
    differs = np.zeros(len(first), np.bool_)
    for other in others:
        differs |= other != first
    return np.flatnonzero(differs)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Square blocks averaged until no side is longer than PICTURE_SIDE."""
    block = -(-max(picture.shape) // PICTURE_SIDE)
    side = len(picture) // block
    cut = picture[: side * block, : side * block].reshape(side, block, side, block, 3)
    small: NDArray[np.uint8] = np.rint(cut.mean(axis=(1, 3))).astype(np.uint8)
    return small
