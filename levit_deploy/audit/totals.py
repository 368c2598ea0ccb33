"""Chunks -> AuditResult, in one pass that holds one chunk at a time.

Chunks are added in the order of the images. So the result is the same to the last bit whether they
were made by one run, by several or on several machines.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.chunk import UNLABELLED, Chunk
from levit_deploy.audit.gate import Gate
from levit_deploy.audit.result import (
    Accuracy,
    Audited,
    AuditResult,
    ConfusionChange,
    Difference,
    Flip,
    FloatPlan,
    RunnerName,
    Sensitivity,
)
from levit_deploy.audit.settings import Settings
from levit_deploy.audit.statistics import (
    CalibrationBins,
    FidelitySums,
    difference,
    ranks,
    wilson,
)
from levit_deploy.audit.suspect import find_suspect
from levit_deploy.audit.tensor_sums import add_sums, no_sums, tensor_fidelities
from levit_deploy.calibration.pictures import SetDigest
from levit_deploy.errors import DeployError
from levit_deploy.runtime.manifest import Build
from levit_deploy.verify.comparison import Logits

MAX_FLIPS = 48
MAX_CONFUSION_CHANGES = 100
_TOP5_CLASSES = 6  # with fewer, top-5 says nothing

_FROM_REFERENCE = (RunnerName.REFERENCE, RunnerName.QDQ, RunnerName.ARTIFACT)


class Totals:
    """`pictures`: of the flips, by index."""

    def __init__(self, settings: Settings, gate: Gate) -> None:
        self._settings, self._gate = settings, gate
        present = [name for name in _FROM_REFERENCE if name in settings.runners]
        pairs = [(runner, other) for other, runner in combinations(present, 2)]
        self._pairs = sorted(pairs, key=lambda pair: pair != gate.pair)
        self._fidelity = {pair: FidelitySums() for pair in self._pairs}
        self._bins = {name: CalibrationBins() for name in present}
        self._right: dict[RunnerName, list[NDArray[np.bool_]]] = {name: [] for name in present}
        self._top5 = dict.fromkeys(present, 0)
        self._confusion = np.zeros((2, settings.classes, settings.classes), np.int64)
        self._images = self._skipped = self._flipped = 0
        self._flips: list[Flip] = []
        self._sums = no_sums(len(settings.tensors))
        self._taps_equal: bool | None = None
        self._digest = SetDigest()
        self._machines: set[str] = set()
        self.pictures: dict[int, NDArray[np.uint8]] = {}

    def add(self, chunk: Chunk) -> None:
        self._skipped += chunk.skipped
        if not len(chunk.indices):
            return
        self._images += len(chunk.indices)
        self._machines.add(chunk.machine)
        for content in chunk.digests:
            self._digest.add(content.tobytes())
        for (runner, reference), fidelity in self._fidelity.items():
            fidelity.add(chunk.logits[reference], chunk.logits[runner])
        for sums in chunk.tensor_sums:
            self._sums = add_sums(self._sums, sums)
        if len(chunk.taps_equal):
            self._taps_equal = self._taps_equal is not False and bool(chunk.taps_equal.all())
        self._add_flips(chunk)
        if self._settings.labelled:
            self._add_labelled(chunk)

    def result(
        self, sensitivities: tuple[Sensitivity, ...] = (), plan: FloatPlan | None = None
    ) -> AuditResult:
        """Of all chunks so far, and what was measured otherwise.

        Raises DeployError if they hold no image.
        """
        if not self._images:
            raise DeployError(
                f"no image of `{self._settings.source}` could be read", hint="name others: --data"
            )
        fidelities = tuple(sums.fidelity(*pair) for pair, sums in self._fidelity.items())
        differences, tensors = self._differences(), self._settings.tensors
        return AuditResult(
            audited=self._audited(),
            limits=tuple(self._gate.limits(differences, fidelities[0])),
            accuracies=self._accuracies(),
            differences=differences,
            fidelities=fidelities,
            flipped=self._flipped,
            flips=tuple(self._flips),
            confusion=self._confusion_changes(),
            tensors=tensor_fidelities(tensors, self._sums),
            suspect=find_suspect(self._settings.tensors, self._sums)
            if self._taps_equal is not None
            else None,
            sensitivities=sensitivities,
            plan=plan,
        )

    def _add_flips(self, chunk: Chunk) -> None:
        """Keep the worst, and their pictures."""
        artifact, reference = (chunk.logits[name] for name in self._gate.pair)
        rows = np.flatnonzero(reference.argmax(axis=1) != artifact.argmax(axis=1))
        self._flipped += len(rows)
        for row in rows:
            label = int(chunk.labels[row])
            self._flips.append(
                Flip(
                    index=int(chunk.indices[row]),
                    name=chunk.names[row],
                    label=None if label == UNLABELLED else label,
                    reference_class=int(reference[row].argmax()),
                    artifact_class=int(artifact[row].argmax()),
                    reference_margin=_margin(reference[row]),
                    artifact_margin=_margin(artifact[row]),
                )
            )
        self._flips.sort(key=lambda flip: (-flip.reference_margin, flip.index))
        del self._flips[MAX_FLIPS:]
        pictures = {**self.pictures, **chunk.pictures}
        self.pictures = {flip.index: pictures[flip.index] for flip in self._flips}

    def _add_labelled(self, chunk: Chunk) -> None:
        for name, logits in chunk.logits.items():
            before = ranks(logits, chunk.labels)
            self._right[name].append(before == 0)
            self._top5[name] += int((before < 5).sum())
            self._bins[name].add(logits, chunk.labels)
        for counts, name in zip(self._confusion, self._gate.pair, strict=True):
            np.add.at(counts, (chunk.labels, chunk.logits[name].argmax(axis=1)), 1)

    def _accuracies(self) -> tuple[Accuracy, ...]:
        if not self._settings.labelled:
            return ()
        top5 = self._settings.classes >= _TOP5_CLASSES
        return tuple(
            Accuracy(
                runner=name,
                top1=wilson(sum(int(right.sum()) for right in rights), self._images),
                top5=wilson(self._top5[name], self._images) if top5 else None,
                calibration_error=self._bins[name].error,
            )
            for name, rights in self._right.items()
        )

    def _differences(self) -> tuple[Difference, ...]:
        if not self._settings.labelled:
            return ()
        right = {name: np.concatenate(rights) for name, rights in self._right.items()}
        return tuple(
            difference(runner, other, right[runner], right[other]) for runner, other in self._pairs
        )

    def _confusion_changes(self) -> tuple[ConfusionChange, ...]:
        artifact, reference = self._confusion
        change = np.abs(artifact - reference)
        np.fill_diagonal(change, 0)  # what is called by its name is no confusion
        cells = [(int(label), int(predicted)) for label, predicted in np.argwhere(change)]
        cells.sort(key=lambda cell: (-int(change[cell]), cell))
        return tuple(
            ConfusionChange(label, predicted, int(before), int(after))
            for label, predicted in cells[:MAX_CONFUSION_CHANGES]
            for after, before in [self._confusion[:, label, predicted]]
        )

    def _audited(self) -> Audited:
        settings = self._settings
        return Audited(
            **Build.of(settings),
            machine=", ".join(sorted(self._machines)),
            emulated=settings.emulated,
            images=self._images,
            classes=settings.classes,
            class_names=settings.class_names,
            labelled=settings.labelled,
            source=settings.source,
            preprocessing=settings.preprocessing,
            images_digest=self._digest.hexdigest(),
            skipped=self._skipped,
            taps_equal=self._taps_equal,
        )


def _margin(logits: Logits) -> float:
    """First minus second; 0 of one class alone."""
    if len(logits) < 2:
        return 0.0
    second, first = np.partition(logits.astype(np.float64), -2)[-2:]
    return float(first - second)
