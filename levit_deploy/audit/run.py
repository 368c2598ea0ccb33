"""Images -> chunks on disk, several at a time: decode, classify by every runner, store.

Each chunk is made by one worker from beginning to end and dropped once it is stored, so memory is
that of as many chunks as there are workers however large the set is. A worker is a thread, as
runners work in child processes or release Python's lock, or a process of a cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.chunk import UNLABELLED, Chunk
from levit_deploy.audit.images import AuditImages, LoadedImages
from levit_deploy.audit.probe import LayerProbe
from levit_deploy.audit.result import Output, RunnerName
from levit_deploy.audit.settings import Settings
from levit_deploy.audit.state import State
from levit_deploy.audit.statistics import as_classes
from levit_deploy.audit.tensor_sums import FIELDS
from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import RunError
from levit_deploy.verify.artifact_runner import ArtifactRunner
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.runner import Runner

PICTURE_SIDE = 128  # larger ones are made smaller before they are kept for the report


@dataclass(frozen=True, eq=False)
class Work:
    """What makes chunks. `machine`: the CPU model of this one, or of each board and its name.
    `probe`: None for no look inside."""

    settings: Settings
    images: AuditImages
    runners: Mapping[RunnerName, Runner]
    machine: str
    probe: LayerProbe | None
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def chunk(self, number: int) -> Chunk:
        """Raises DeployError for a broken image, or if a runner gives no logits."""
        loaded = self.images.read(self.settings.positions(number))
        self._check_preparation(loaded)
        logits = {name: self._infer(name, loaded) for name in self.settings.runners}
        tensor_sums, taps_equal = self._probe(loaded, logits[RunnerName.ARTIFACT])
        count = len(loaded.indices)
        unlabelled = np.full(count, UNLABELLED, np.int64)
        return Chunk(
            number=number,
            machine=self.machine,
            skipped=loaded.skipped,
            indices=loaded.indices,
            names=loaded.names,
            labels=unlabelled if loaded.labels is None else loaded.labels,
            digests=np.frombuffer(b"".join(loaded.digests), np.uint8).reshape(count, 32),
            logits=logits,
            pictures={
                int(loaded.indices[row]): _small(loaded.images.pixels[row])
                for row in _disagreements(logits, self.settings.output)
            },
            tensor_sums=tensor_sums,
            taps_equal=taps_equal,
            lost=self._lost(),
        )

    def _lost(self) -> tuple[str, ...]:
        runner = self.runners[RunnerName.ARTIFACT]
        on_boards = runner.boards if isinstance(runner, ArtifactRunner) else None
        return on_boards.lost_lately() if on_boards else ()

    def _check_preparation(self, loaded: LoadedImages) -> None:
        """What the library makes of a picture must be what Pillow does, to the bit.

        Then what is audited is what a frame of a camera gets.
        """
        runner = self.runners[RunnerName.ARTIFACT]
        if not len(loaded.indices) or not isinstance(runner, ArtifactRunner):
            return
        with _explained(f"the artifact made no images of `{loaded.names[0]}` and those after it"):
            prepared = runner.prepare(loaded.images)
        different = (prepared != loaded.images.pixels).reshape(len(prepared), -1).any(axis=1)
        if different.any():
            raise DeployError(
                f"the artifact makes another image of `{loaded.names[int(different.argmax())]}` "
                "than the reference's preprocessing",
                hint="levit-deploy verify DIR --weights W",
            )

    def _infer(self, name: RunnerName, loaded: LoadedImages) -> Logits:
        if not len(loaded.indices):
            return np.empty((0, self.settings.classes), np.float32)
        where = f"on `{loaded.names[0]}` to `{loaded.names[-1]}`"
        with _explained(f"the {name} gave no logits {where}"):
            logits = self.runners[name].infer(loaded.images)
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

    def _probe(
        self, loaded: LoadedImages, logits: Logits
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of every `layer_step`-th image: sums of the tensors, and whether the logits are equal."""
        sums, equal = [], []
        if self.probe is not None:
            for row, position in enumerate(loaded.positions):
                if position % self.settings.layer_step == 0:
                    with self._one_at_a_time, _explained("the debug build failed"):
                        tapped, of_image = self.probe.probe(loaded.images.pixels[row])
                    sums.append(of_image)
                    equal.append(tapped.tobytes() == logits[row].tobytes())
        shape = (len(sums), len(self.settings.tensors), FIELDS)
        return np.array(sums, np.float64).reshape(shape), np.array(equal, np.bool_)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """A crash of what is audited, as an error of the audit."""
    try:
        yield
    except RunError as error:
        raise DeployError(
            f"{what}: {error.message}", hint=error.hint or "levit-deploy verify DIR --weights W"
        ) from error


def run_chunks(
    settings: Settings,
    state: State,
    numbers: Sequence[int],
    executor: Executor,
    chunk: Callable[[int], Chunk],
    on_images: Callable[[int, int], None],
) -> None:
    """Have those chunks made that are not in `state` yet: `executor` calls `chunk`.

    `on_images` is told how many images are done, and how many there are. Raises DeployError as
    `Work.chunk` does; the caller ends what `executor` still does then.
    """
    sizes = {number: len(settings.positions(number)) for number in numbers}
    missing = [number for number in numbers if not state.has(number)]
    total = sum(sizes.values())
    left = sum(sizes[number] for number in missing)
    on_images(total - left, total)

    for done in as_completed([executor.submit(chunk, number) for number in missing]):
        made = done.result()
        state.store(made.number, made)
        left -= sizes[made.number]
        on_images(total - left, total)


def _disagreements(logits: Mapping[RunnerName, Logits], output: Output) -> NDArray[np.intp]:
    """Rows on which not all runners have the same answer; none of features, which answer nothing
    alone."""
    if output is Output.FEATURES:
        return np.empty(0, np.intp)
    first, *others = (as_classes(rows, output).argmax(axis=1) for rows in logits.values())
    differs = np.zeros(len(first), np.bool_)
    for other in others:
        differs |= other != first
    return np.flatnonzero(differs)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Square blocks averaged until no side is longer than PICTURE_SIDE."""
    block = -(-len(picture) // PICTURE_SIDE)
    side = len(picture) // block
    cut = picture[: side * block, : side * block].reshape(side, block, side, block, -1)
    small: NDArray[np.uint8] = np.rint(cut.mean(axis=(1, 3))).astype(np.uint8)
    return small
