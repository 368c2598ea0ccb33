"""Whom an artifact is held against, and how far it may fall behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from levit_deploy.audit.result import Difference, Fidelity, Limit, RunnerName
from levit_deploy.audit.settings import Settings
from levit_deploy.errors import DeployError

MAX_DROP_POINTS = 0.5  # by default, with labels
MIN_AGREEMENT_PERCENT = 98.0  # by default, without


@dataclass(frozen=True)
class Gate:
    """`max_drop_points`: of top-1; `min_agreement_percent`: of images; None for no limit."""

    reference: RunnerName
    max_drop_points: float | None
    min_agreement_percent: float | None

    @staticmethod
    def of(
        settings: Settings,
        reference: RunnerName,
        max_drop_points: float | None,
        min_agreement_percent: float | None,
    ) -> Gate:
        """With the default for what is None.

        Raises DeployError if an audit with `settings` cannot tell what is asked.
        """
        if reference not in settings.runners:
            raise DeployError(
                f"`{settings.name}` was not compiled from an 8-bit model that is known",
                hint="hold it against PyTorch: --reference fp32",
            )
        if settings.labelled and max_drop_points is None:
            max_drop_points = MAX_DROP_POINTS
        if max_drop_points is not None and not settings.labelled:
            raise DeployError(
                f"--max-drop needs labels, and `{settings.source}` has none",
                hint="limit what needs none: --min-agreement 98",
            )
        if min_agreement_percent is None and not settings.labelled:
            min_agreement_percent = MIN_AGREEMENT_PERCENT
        return Gate(reference, max_drop_points, min_agreement_percent)

    def limits(self, differences: Sequence[Difference], fidelity: Fidelity) -> Iterator[Limit]:
        """The limits held against `fidelity` and the first difference, those of `pair`."""
        if self.max_drop_points is not None:
            drop_points = differences[0].drop_points
            yield Limit(
                option="--max-drop",
                what="top-1 accuracy lost, in percentage points",
                limit=self.max_drop_points,
                value=drop_points,
                passed=drop_points <= self.max_drop_points,
            )
        if self.min_agreement_percent is not None:
            agreement = 100 * fidelity.agreement.value
            yield Limit(
                option="--min-agreement",
                what="images with the same top-1, in percent",
                limit=self.min_agreement_percent,
                value=agreement,
                passed=agreement >= self.min_agreement_percent,
            )

    @property
    def pair(self) -> tuple[RunnerName, RunnerName]:
        """(runner, reference) of what is limited."""
        return RunnerName.ARTIFACT, self.reference
