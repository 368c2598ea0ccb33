"""The figures of an audit: logits and labels, chunk after chunk -> shares, tests, distances.

Sums are float64 and are added in the order in which the chunks come, so that the same chunks give
the same bits however often a run was stopped in between. Logits are (images, classes), float32,
finite.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.result import (
    ConfidenceBin,
    Cosine,
    Difference,
    Fidelity,
    Output,
    RunnerName,
    Share,
)
from levit_deploy.verify.comparison import Logits

CONFIDENCE = 0.95
CALIBRATION_BINS = 15

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


def wilson(count: int, total: int) -> Share:
    """`count` of `total` with its score interval: E. B. Wilson, JASA 22 (1927), p. 209.

    Raises ValueError unless 0 <= count <= total and total > 0.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"{count} of {total} is no share")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z * z / total)
    # at 0 and 1 the bounds are exact; rounding must not move them
    low = 0.0 if count == 0 else middle - half
    high = 1.0 if count == total else middle + half
    return Share(count, total, low, high)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of McNemar's test, exact: twice P(X <= the fewer), X ~ Binomial(both, 1/2).

    Q. McNemar, Psychometrika 12 (1947), p. 153. In whole numbers up to the last division.
    """
    discordant, fewer = lost + won, min(lost, won)
    tail, term = 0, 1
    for k in range(fewer + 1):
        tail += term
        term = term * (discordant - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << discordant))


def difference(
    runner: RunnerName, reference: RunnerName, right: Bool, reference_right: Bool
) -> Difference:
    """What `runner` gets right against what `reference` does, both (images,)."""
    lost = int((reference_right & ~right).sum())
    won = int((right & ~reference_right).sum())
    drop_points = 100 * (lost - won) / len(right)
    return Difference(runner, reference, lost, won, drop_points, mcnemar(lost, won))


def as_classes(outputs: Logits, output: Output) -> Logits:
    """Logits of the answers: one logit x is 0 and x, whose softmax is its sigmoid."""
    if output is not Output.LOGIT:
        return outputs
    return np.concatenate([np.zeros_like(outputs), outputs], axis=1)


def ranks(logits: Logits, labels: Int64) -> Int64:
    """How many classes come before the label's, (images,); of equal logits the first class leads.

    Top-k is `ranks < k`; `ranks == 0` is where argmax gives the label.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    before: Int64 = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return before


def softmax(logits: Logits) -> Float64:
    """Probabilities (images, classes)."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Logits) -> Float64:
    """Finite wherever the logits are, also where a probability would round to zero."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: Float64 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def divergence(reference: Logits, actual: Logits) -> Float64:
    """KL(softmax(reference) || softmax(actual)) of each image in nats, (images,).

    S. Kullback, R. A. Leibler, Ann. Math. Statist. 22 (1951), p. 79.
    """
    p, q = log_softmax(reference), log_softmax(actual)
    result: Float64 = (np.exp(p) * (p - q)).sum(axis=1).clip(min=0.0)
    return result


def sqnr_db(signal_energy: float, error_energy: float) -> float | None:
    """10 log10(signal / error); None without an error, finite also without a signal."""
    if error_energy == 0.0:
        return None
    tiny = float(np.finfo(np.float64).tiny)
    return 10 * (math.log10(max(signal_energy, tiny)) - math.log10(error_energy))


def cosine(product: float, energy: float, other_energy: float) -> float:
    """a.b / (|a| |b|) from a.b, a.a and b.b; 1 if both are zero, 0 if one is."""
    if energy == 0.0 or other_energy == 0.0:
        return 1.0 if energy == other_energy else 0.0
    return max(-1.0, min(1.0, product / (math.sqrt(energy) * math.sqrt(other_energy))))


class CalibrationBins:
    """Expected calibration error: |accuracy - confidence| of 15 equal bins, by their images.

    C. Guo et al., On Calibration of Modern Neural Networks (2017), equation 3; the confidence is
    the softmax of the first class, and bin m holds ((m - 1) / 15, m / 15].
    """

    def __init__(self) -> None:
        self._confidence = np.zeros(CALIBRATION_BINS)
        self._right = np.zeros(CALIBRATION_BINS)
        self._images = np.zeros(CALIBRATION_BINS, np.int64)

    def add(self, logits: Logits, labels: Int64) -> None:
        """`labels`: (images,)."""
        confidence = softmax(logits).max(axis=1)
        bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
        bins = bins.clip(0, CALIBRATION_BINS - 1)
        np.add.at(self._confidence, bins, confidence)
        np.add.at(self._right, bins, (ranks(logits, labels) == 0).astype(np.float64))
        np.add.at(self._images, bins, 1)

    @property
    def error(self) -> float:
        """Of all images so far, at least one."""
        return float(np.abs(self._right - self._confidence).sum() / self._images.sum())

    @property
    def bins(self) -> tuple[ConfidenceBin, ...]:
        """Those that hold an image, in order."""
        sums = zip(self._images, self._confidence, self._right, strict=True)
        return tuple(
            ConfidenceBin(int(n), float(confidence / n), float(right / n))
            for n, confidence, right in sums
            if n
        )


class FidelitySums:
    """Everything in `Fidelity`, summed over chunks of images; `output`: what the outputs are."""

    def __init__(self, output: Output = Output.CLASSES) -> None:
        self._output = output
        self._images = self._agreeing = self._equal_bits = 0
        self._signal = self._error = self._divergence = self._largest = 0.0
        self._sum = 0.0
        self._cosines: list[float] = []

    def add(self, reference: Logits, actual: Logits) -> None:
        """Of the same images, in the same order."""
        r, a = reference.astype(np.float64), actual.astype(np.float64)
        self._images += len(r)
        self._equal_bits += int(_same_bytes(reference, actual).sum())
        self._sum += float(r.sum())
        self._signal += float((r * r).sum())
        self._error += float(((a - r) ** 2).sum())
        self._largest = max(self._largest, float(np.abs(a - r).max()))
        if self._output is not Output.FEATURES:
            wanted, found = as_classes(reference, self._output), as_classes(actual, self._output)
            self._agreeing += int((wanted.argmax(axis=1) == found.argmax(axis=1)).sum())
            self._divergence += float(divergence(wanted, found).sum())
        if self._output is not Output.LOGIT:
            sums = ((r * a).sum(axis=1), (r * r).sum(axis=1), (a * a).sum(axis=1))
            self._cosines += [cosine(*map(float, image)) for image in zip(*sums, strict=True)]

    def fidelity(
        self, runner: RunnerName, reference: RunnerName, same_neighbours: int = 0
    ) -> Fidelity:
        """Of all images so far, at least one; of features, `same_neighbours` images agree."""
        features = self._output is Output.FEATURES
        return Fidelity(
            runner=runner,
            reference=reference,
            agreement=wilson(same_neighbours if features else self._agreeing, self._images),
            sqnr_db=sqnr_db(self._signal, self._error),
            cosine=_cosines(self._cosines) if self._cosines else None,
            spread_error=self._spread_error() if self._output is Output.LOGIT else None,
            divergence=None if features else self._divergence / self._images,
            largest_error=self._largest,
            equal_bits=self._equal_bits,
        )

    def _spread_error(self) -> float | None:
        variance = self._signal / self._images - (self._sum / self._images) ** 2
        if variance <= 1e-12 * self._signal:  # rounding: all are the same
            return None
        return math.sqrt(self._error / self._images / variance)


def _cosines(values: list[float]) -> Cosine:
    worst, one, five, half = np.percentile(values, (0, 1, 5, 50))
    mean = math.fsum(values) / len(values)
    return Cosine(mean, float(worst), float(one), float(five), float(half))


def _same_bytes(reference: Logits, actual: Logits) -> Bool:
    same: Bool = (reference.view(np.uint32) == actual.view(np.uint32)).all(axis=1)
    return same
