"""Chunks -> AuditResult, in one pass that holds one chunk at a time, of features all.

Chunks are added in the order of the images. So the result is the same to the last bit whether they
were made by one run, by several or on several machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.chunk import UNLABELLED, Chunk
from levit_deploy.audit.gate import Gate
from levit_deploy.audit.neighbours import same_neighbours
from levit_deploy.audit.result import (
    Accuracy,
    Audited,
    AuditResult,
    ConfusionCell,
    Difference,
    Fidelity,
    Flip,
    FloatPlan,
    Latency,
    Output,
    RunnerName,
    Sensitivity,
    Subject,
)
from levit_deploy.audit.settings import Settings
from levit_deploy.audit.statistics import (
    CalibrationBins,
    FidelitySums,
    as_classes,
    difference,
    ranks,
    wilson,
)
from levit_deploy.audit.suspect import find_suspect
from levit_deploy.audit.tensor_sums import add_sums, no_sums, tensor_fidelities
from levit_deploy.calibration.pictures import set_digest
from levit_deploy.errors import DeployError
from levit_deploy.verify.comparison import Logits

MAX_FLIPS = 48
_TOP5_CLASSES = 6  # with fewer, top-5 says nothing

_FROM_REFERENCE = (RunnerName.REFERENCE, RunnerName.QDQ, RunnerName.ARTIFACT)


class Totals:
    """`pictures`: of the flips, by index."""

    def __init__(self, settings: Settings, gate: Gate) -> None:
        self._settings, self._gate = settings, gate
        present = [name for name in _FROM_REFERENCE if name in settings.runners]
        pairs = [(runner, other) for other, runner in combinations(present, 2)]
        self._pairs = sorted(pairs, key=lambda pair: pair != gate.pair)
        self._fidelity = {pair: FidelitySums(settings.output) for pair in self._pairs}
        self._features: dict[RunnerName, list[Logits]] = {name: [] for name in present}
        self._bins = {name: CalibrationBins() for name in present}
        self._right: dict[RunnerName, list[NDArray[np.bool_]]] = {name: [] for name in present}
        self._top5 = dict.fromkeys(present, 0)
        self._confusion = np.zeros((2, settings.answers, settings.answers), np.int64)
        self._images = self._skipped = 0
        self._flips: list[Flip] = []
        self._sums = no_sums(len(settings.tensors))
        self._taps_equal: bool | None = None
        self._digest = set_digest()
        self._machines: set[str] = set()
        self._lost: list[str] = []
        self.pictures: dict[int, NDArray[np.uint8]] = {}

    def add(self, chunk: Chunk) -> None:
        self._skipped += chunk.skipped
        self._lost += chunk.lost
        if not len(chunk.indices):
            return
        self._images += len(chunk.indices)
        self._machines.add(chunk.machine)
        self._digest.update(chunk.digests.tobytes())
        for (runner, reference), fidelity in self._fidelity.items():
            fidelity.add(chunk.logits[reference], chunk.logits[runner])
        for sums in chunk.tensor_sums:
            self._sums = add_sums(self._sums, sums)
        if len(chunk.taps_equal):
            self._taps_equal = self._taps_equal is not False and bool(chunk.taps_equal.all())
        output = self._settings.output
        if output is Output.FEATURES:
            for name, features in self._features.items():
                features.append(chunk.logits[name])
            return
        logits = {name: as_classes(rows, output) for name, rows in chunk.logits.items()}
        self._add_flips(chunk, logits)
        if self._settings.labelled:
            self._add_labelled(chunk.labels, logits)

    def result(
        self,
        sensitivities: tuple[Sensitivity, ...] = (),
        plan: FloatPlan | None = None,
        latencies: tuple[Latency, ...] = (),
    ) -> AuditResult:
        """Of all chunks so far, and what was measured otherwise.

        Raises DeployError if they hold no image.
        """
        if not self._images:
            raise DeployError(
                f"no image of `{self._settings.source}` could be read", hint="name others: --data"
            )
        fidelities = self._fidelities()
        differences, tensors = self._differences(), self._settings.tensors
        return AuditResult(
            audited=self._audited(),
            latencies=latencies,
            limits=tuple(self._gate.limits(differences, fidelities[0])),
            accuracies=self._accuracies(),
            differences=differences,
            fidelities=fidelities,
            flipped=fidelities[0].agreement.total - fidelities[0].agreement.count,
            flips=tuple(self._flips),
            confusion=self._confusion_cells(),
            tensors=tensor_fidelities(tensors, self._sums),
            suspect=find_suspect(self._settings.tensors, self._sums)
            if self._taps_equal is not None
            else None,
            sensitivities=sensitivities,
            plan=plan,
        )

    def _fidelities(self) -> tuple[Fidelity, ...]:
        pairs = self._fidelity.items()
        if self._settings.output is not Output.FEATURES:
            return tuple(sums.fidelity(*pair) for pair, sums in pairs)
        features = {name: np.concatenate(rows) for name, rows in self._features.items()}
        same = same_neighbours(features, self._pairs)
        return tuple(sums.fidelity(*pair, same[pair]) for pair, sums in pairs)

    def _add_flips(self, chunk: Chunk, logits: Mapping[RunnerName, Logits]) -> None:
        """Keep the worst, and their pictures."""
        artifact, reference = (logits[name] for name in self._gate.pair)
        rows = np.flatnonzero(reference.argmax(axis=1) != artifact.argmax(axis=1))
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

    def _add_labelled(self, labels: NDArray[np.int64], logits: Mapping[RunnerName, Logits]) -> None:
        for name, rows in logits.items():
            before = ranks(rows, labels)
            self._right[name].append(before == 0)
            self._top5[name] += int((before < 5).sum())
            self._bins[name].add(rows, labels)
        for counts, name in zip(self._confusion, self._gate.pair, strict=True):
            np.add.at(counts, (labels, logits[name].argmax(axis=1)), 1)

    def _accuracies(self) -> tuple[Accuracy, ...]:
        if not self._settings.labelled:
            return ()
        top5 = self._settings.answers >= _TOP5_CLASSES
        return tuple(
            Accuracy(
                runner=name,
                top1=wilson(sum(int(right.sum()) for right in rights), self._images),
                top5=wilson(self._top5[name], self._images) if top5 else None,
                calibration_error=self._bins[name].error,
                bins=self._bins[name].bins,
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

    def _confusion_cells(self) -> tuple[ConfusionCell, ...]:
        return tuple(
            ConfusionCell(int(label), int(predicted), int(before), int(after))
            for label, predicted in np.argwhere(self._confusion.any(axis=0))
            for after, before in [self._confusion[:, label, predicted]]
        )

    def _audited(self) -> Audited:
        return Audited(
            **Subject.of(self._settings),
            machine=", ".join(sorted(self._machines)),
            images=self._images,
            images_digest=self._digest.hexdigest(),
            skipped=self._skipped,
            taps_equal=self._taps_equal,
            lost=tuple(self._lost),
        )


def _margin(logits: Logits) -> float:
    """First minus second."""
    second, first = np.partition(logits.astype(np.float64), -2)[-2:]
    return float(first - second)
