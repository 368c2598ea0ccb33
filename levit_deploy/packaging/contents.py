"""What is packed: artifacts of one model for one or several CPUs, opened and digest-checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.models.card import ModelCard
from levit_deploy.runtime.artifact import CALIBRATION_FILE, Artifact, open_artifact
from levit_deploy.runtime.handout import LABELS, README
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.targets.system import Os
from levit_deploy.targets.table import HOST
from levit_deploy.targets.target import Target

_VERSION = r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){0,2}"


@dataclass(frozen=True)
class Contents:
    """`artifacts`: one model in one precision, for different targets, the most capable CPU first.

    Their files are private copies of what the manifests say. `version`: the package's, one to three
    numbers.
    """

    artifacts: tuple[Artifact, ...]
    version: str

    @property
    def manifest(self) -> Manifest:
        """Of the first one; what is about the model is the same in all."""
        return self.artifacts[0].manifest

    @property
    def name(self) -> str:
        """The library's, which its symbols begin with."""
        return self.manifest.name

    @property
    def card(self) -> ModelCard:
        return self.manifest.card

    @property
    def targets(self) -> tuple[Target, ...]:
        """The CPU class of each artifact."""
        return tuple(map(cpu_of, self.artifacts))

    @property
    def pairs(self) -> tuple[tuple[Artifact, Target], ...]:
        """Each artifact with its CPU class."""
        return tuple(zip(self.artifacts, self.targets, strict=True))


def target_name(artifact: Artifact) -> str:
    """What an artifact was compiled for, as any machine understands it: never `host`."""
    manifest = artifact.manifest
    return manifest.base_target if manifest.target == HOST else manifest.target


def cpu_of(artifact: Artifact) -> Target:
    """The CPU class that an artifact is for, whatever board it was compiled for; of several CPUs
    the least demanding one. Raises DeployError if its system is on no such CPU."""
    return artifact.manifest.device


def check_systems(contents: Contents, systems: Collection[Os], package: str, hint: str) -> None:
    """Raise DeployError if an artifact is for another system; `package`: such as `an aar`."""
    for artifact, target in contents.pairs:
        if artifact.system.os not in systems:
            raise DeployError(
                f"{package} cannot hold `{artifact.folder}`, for `{target.name}` with "
                f"{artifact.system}",
                hint=hint,
            )


def check_places(
    contents: Contents, place: Callable[[Artifact, Target], str], rule: str, hint: str
) -> None:
    """Raise DeployError for two artifacts of the same `place`, against `rule`."""
    seen: dict[str, Target] = {}
    for artifact, target in contents.pairs:
        where = place(artifact, target)
        if where in seen:
            raise DeployError(
                f"{rule}: `{seen[where].name}` and `{target.name}` are both `{where}`", hint=hint
            )
        seen[where] = target


def documents(artifact: Artifact) -> tuple[Path, ...]:
    """The files of an artifact that are for people, and go into every package."""
    return tuple(artifact.files / n for n in (README, LABELS) if n in artifact.manifest.files)


@contextmanager
def open_contents(folders: Sequence[Path], version: str) -> Iterator[Contents]:
    """Read the artifacts in `folders`; nothing in them is executed.

    Raises DeployError for what is no artifact or was changed, for artifacts that are not the same
    model, and for two that are for the same CPU and C library.
    """
    check_version(version)
    with ExitStack() as stack:
        artifacts = [stack.enter_context(open_artifact(folder)) for folder in folders]
        for other in artifacts[1:]:
            _require_same_model(artifacts[0], other)
        _require_different_targets(artifacts)
        artifacts.sort(key=lambda artifact: _capability(cpu_of(artifact)), reverse=True)
        yield Contents(tuple(artifacts), version)


def check_version(version: str) -> None:
    """Raise DeployError unless every kind of package can have that version."""
    if re.fullmatch(_VERSION, version, re.ASCII) is None:
        raise DeployError(
            f"`{version}` cannot be a package's version", hint="one to three numbers: --version 1.2"
        )


def _require_same_model(first: Artifact, other: Artifact) -> None:
    mine, others = _model_of(first.manifest), _model_of(other.manifest)
    for what, value in mine.items():
        if others[what] != value:
            raise DeployError(
                f"`{first.folder}` and `{other.folder}` differ in {what}: "
                f"`{value}` and `{others[what]}`",
                hint="a package holds one model in one precision: make one for each",
            )


def _model_of(manifest: Manifest) -> dict[str, object]:
    """What must be the same in all artifacts of a package, by its name for people."""
    table = manifest.files.get(CALIBRATION_FILE)
    return {
        "model": manifest.model,
        "precision": manifest.precision,
        "name": manifest.name,
        "weights": manifest.weights_digest,
        "image size": manifest.image_size,
        "classes": manifest.classes,
        "preprocessing": manifest.card.recipe,
        "EXIF": manifest.card.preprocessing.exif,
        "labels": ", ".join(manifest.card.labels),
        "calibration": table and table.sha256,
        "ABI version": manifest.abi_version,
    }


def _require_different_targets(artifacts: Sequence[Artifact]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for artifact in artifacts:
        key = artifact.manifest.base_target, artifact.manifest.system
        if key in seen:
            raise DeployError(
                f"`{seen[key]}` and `{artifact.folder}` are both for `{key[0]}` with {key[1]}",
                hint="name one of them",
            )
        seen[key] = artifact.folder


def _capability(target: Target) -> tuple[int, int]:
    """Orders CPU classes of an architecture: who runs the greater one runs it best."""
    return target.vector_bytes, len(target.required_features)
