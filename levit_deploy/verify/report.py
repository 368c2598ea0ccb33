"""What a verification found, for people and as verify.json in the artifact's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from levit_deploy.errors import DeployError
from levit_deploy.runtime.manifest import AuditRecord
from levit_deploy.runtime.one_step import write_in_one_step
from levit_deploy.verify.comparison import Comparison
from levit_deploy.verify.tolerance import Tolerance

SCHEMA_VERSION = 1
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
    detail: str
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Verification:
    """Truthy unless a check failed; an artifact that could not be executed has not failed.

    `machine`: the CPU model that ran it, or ran the emulator. `images`: what was classified.
    `hint`: what would let it be executed, if it was not. `audit`: the last one, if there was one.
    """

    artifact: str
    target: str
    machine: str
    build_id: str
    weights_digest: str
    reference: str
    images: str
    checks: tuple[Check, ...]
    hint: str | None = None
    audit: AuditRecord | None = None

    def __bool__(self) -> bool:
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    @property
    def executed(self) -> bool:
        return any(check.outcome is not Outcome.NOT_EXECUTED for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """The content of verify.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "artifact": self.artifact,
            "target": self.target,
            "machine": self.machine,
            "build_id": self.build_id,
            "weights_digest": self.weights_digest,
            "passed": bool(self) and self.executed,
            "executed": self.executed,
            "reference": self.reference,
            "images": self.images,
            "checks": [_check_json(check) for check in self.checks],
            "hint": self.hint,
            "audit": None if self.audit is None else asdict(self.audit),
        }

    def save(self, folder: Path) -> None:
        """Write `folder`/verify.json in one step: a reader sees the old one or the new one."""
        write_in_one_step(folder / FILE_NAME, json.dumps(self.to_json(), indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> Verification | None:
        """Read what `save` wrote; None if there is nothing.

        Raises DeployError if it is damaged or of another schema version.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            fields = json.loads(path.read_text())
            version = fields["schema_version"]
            if version != SCHEMA_VERSION:
                raise DeployError(
                    f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`",
                    hint=f"levit-deploy verify {folder}",
                )
            return Verification(
                artifact=fields["artifact"],
                target=fields["target"],
                machine=fields["machine"],
                build_id=fields["build_id"],
                weights_digest=fields["weights_digest"],
                reference=fields["reference"],
                images=fields["images"],
                checks=tuple(_check_from_json(check) for check in fields["checks"]),
                hint=fields["hint"],
                audit=AuditRecord.read(fields.get("audit")),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DeployError(
                f"`{path}` is damaged", hint=f"levit-deploy verify {folder}"
            ) from error


def _check_json(check: Check) -> dict[str, object]:
    entry: dict[str, object] = {
        "what": check.what,
        "outcome": check.outcome.value,
        "detail": check.detail,
    }
    if check.comparison is not None:
        entry["comparison"] = asdict(check.comparison)
    return entry


def _check_from_json(entry: dict[str, Any]) -> Check:
    comparison = None
    if "comparison" in entry:
        fields = dict(entry["comparison"])
        comparison = Comparison(tolerance=Tolerance(**fields.pop("tolerance")), **fields)
    return Check(entry["what"], Outcome(entry["outcome"]), entry["detail"], comparison)
