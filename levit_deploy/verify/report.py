"""What a verification found, for people and as verify.json in the artifact's folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from levit_deploy.files import write_files
from levit_deploy.records import Text, load_record, to_json
from levit_deploy.runtime.manifest import AuditRecord, Build
from levit_deploy.verify.comparison import Comparison

FILE_NAME = "verify.json"


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_EXECUTED = "not executed"


@dataclass(frozen=True)
class Check:
    """One run of the artifact, held against the reference.

    `comparison` is None where there are no logits: the run crashed, or could not be made.
    """

    what: str
    outcome: Outcome
    detail: Text
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Verification(Build):
    """Truthy unless a check failed; an artifact that could not be executed has not failed.

    `machine`: the CPU model that ran it, or ran the emulator. `images`: what was classified.
    `assumed`: what nobody said of the model, and was taken to be as its origin has it, by the names
    of the card's fields. `hint`: what would let it be executed, if it was not. `audit`: the last
    one, if there was one.
    """

    SCHEMA_VERSION: ClassVar[int] = 4
    DERIVED: ClassVar[tuple[str, ...]] = ("passed", "executed")

    machine: Text
    reference: str
    images: Text
    assumed: tuple[str, ...]
    checks: tuple[Check, ...]
    hint: str | None = None
    audit: AuditRecord | None = None

    def __bool__(self) -> bool:
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    @property
    def executed(self) -> bool:
        return any(check.outcome is not Outcome.NOT_EXECUTED for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether it was executed, and no check failed."""
        return bool(self) and self.executed

    def is_of(self, build: Build) -> bool:
        """Whether that is what was verified."""
        return Build.of(self) == Build.of(build)

    @property
    def outcome(self) -> Outcome:
        """All checks in one."""
        if not self.executed:
            return Outcome.NOT_EXECUTED
        return Outcome.PASSED if self.passed else Outcome.FAILED

    def save(self, folder: Path) -> None:
        """Write `folder`/verify.json; a reader sees the old one or the new one."""
        write_files({folder / FILE_NAME: to_json(self).encode()}, hint=f"chmod u+w {folder}")

    @staticmethod
    def load(folder: Path) -> Verification | None:
        """Read what `save` wrote; None if there is nothing.

        Raises DeployError if it is damaged or of another schema version.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        return load_record(Verification, path, hint=f"levit-deploy verify {folder}")
