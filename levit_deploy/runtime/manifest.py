"""manifest.json: what an artifact is, what made it, and the SHA-256 of each of its files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import ClassVar

from levit_deploy import __version__
from levit_deploy.compiler.program import Entry, Identity, KernelCall
from levit_deploy.errors import DeployError
from levit_deploy.files import open_regular, write_files
from levit_deploy.models.card import ModelCard
from levit_deploy.records import Text, load_record, printable, to_json
from levit_deploy.targets.system import System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target

FILE_NAME = "manifest.json"
MAX_FILE_BYTES = 1 << 32
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "onnxsim", "torch")


@dataclass(frozen=True)
class FileRecord:
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raises ValueError for what is no size of a file of ours."""
        if not 0 <= self.bytes <= MAX_FILE_BYTES:
            raise ValueError(f"`{self.bytes}` bytes")

    def is_of(self, path: Path, copy: Path | None = None) -> bool:
        """Whether the file is that one; `copy` gets what was read. Raises OSError as `of` does."""
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size != self.bytes:
                return False
            if copy is None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            copy.parent.mkdir(parents=True, exist_ok=True)
            with copy.open("xb") as taken:
                shutil.copyfileobj(file, taken)
        return FileRecord.of(copy) == self

    @staticmethod
    def of(path: Path) -> FileRecord:
        """Raises OSError, also for what is no regular file."""
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256")
            return FileRecord(os.fstat(file.fileno()).st_size, digest.hexdigest())


@dataclass(frozen=True)
class KernelRecord:
    """One kernel call: what it computes, in what tile, over how many tasks, and what it costs."""

    symbol: str
    entry: Entry
    kind: str
    shape: str
    tile: str
    tasks: int
    multiply_adds: int
    bytes_moved: int

    @staticmethod
    def of(call: KernelCall) -> KernelRecord:
        return KernelRecord(**{f.name: getattr(call, f.name) for f in fields(KernelRecord)})


@dataclass(frozen=True)
class Provenance:
    """What an artifact was made from, by lasting names (see models/lasting_names.py).

    `key`: which of several weights, None if nobody said. `data`: the pictures that its 8 bits were
    calibrated on, None if there were none; `data_digest`: hexadecimal SHA-256 of their content.
    """

    weights: Text
    key: Text | None = None
    data: Text | None = None
    data_digest: str | None = None


class Verdict(StrEnum):
    """What an audit says in one word; only FAILED forbids to ship."""

    PASSED = "passed"
    NOT_ENOUGH = "not enough images"
    NOT_JUDGED = "not judged"
    FAILED = "failed"


@dataclass(frozen=True)
class AuditRecord:
    """What an audit of the artifact found. `sha256`: of its audit.json."""

    sha256: str
    verdict: Verdict


@dataclass(frozen=True)
class Facts(Identity):
    """What decides a library's bytes, and what is known of it from that.

    `base_target`: the CPU class that `target` stands for, if that is a board or `host`; of a
    library for several CPUs the least demanding one. `levels`: their targets, the most capable
    first, of which `kernels` are; else empty.
    `system`: what the libraries were linked for, by `toolchain`.
    `card`: how pictures become its images, and what its outputs mean.
    `program_digest`: of kernels, constants and calls; `sources_digest`: of the C around them, the
    self test among it. Both are hexadecimal SHA-256.
    Sizes in bytes. `arena_bytes` and `scratch_bytes` are parts of `workspace_bytes`.
    `kernels`: in the order of the calls.
    """

    base_target: str
    levels: tuple[str, ...]
    system: str
    toolchain: str
    image_size: int
    classes: int
    card: ModelCard
    program_digest: str
    sources_digest: str
    abi_version: int
    workspace_bytes: int
    arena_bytes: int
    scratch_bytes: int
    constants_bytes: int
    kernels: tuple[KernelRecord, ...]

    @property
    def facts_digest(self) -> str:
        """40 hexadecimal digits of all that, but of the card only of what the library knows."""
        card = (self.card.heads, self.card.labels, self.card.recipe)
        text = to_json({**Facts.of(self), "card": card})
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Build(Identity):
    """Which library it is. `build_id`: `Facts.facts_digest`; the library says it too."""

    build_id: str


@dataclass(frozen=True)
class Manifest(Build, Facts):
    """`versions`: of the packages on the machine that built it. `provenance`: None if nobody says.

    `files`: by their path in the folder, all but this file and verify.json. `audit`: the last one
    of the artifact, None before the first.
    """

    SCHEMA_VERSION: ClassVar[int] = 5

    command_line: tuple[Text, ...]
    provenance: Provenance | None
    versions: Mapping[str, str]
    files: Mapping[str, FileRecord]
    audit: AuditRecord | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if it names files outside of the folder."""
        if not re.fullmatch(r"\w+", self.name, re.ASCII):
            raise ValueError(f"`name` is `{self.name}`, not a name")
        for name in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or printable(name) != str(path):
                raise ValueError(f"`files` has `{printable(name)}`, which is no file of the folder")

    @property
    def device(self) -> Target:
        """The CPU and the system that it is for; raises DeployError if we know none such."""
        return self.on_device(self.base_target)

    def on_device(self, target: str) -> Target:
        """The same of one of its `levels`."""
        return get_target(target).on(System.parse(self.system))

    def save(self, folder: Path) -> None:
        write_files({folder / FILE_NAME: to_json(self).encode()}, hint=f"chmod u+w {folder}")

    @staticmethod
    def load(folder: Path) -> Manifest:
        """Read `folder`/manifest.json; raises DeployError if it is missing, damaged or of another
        schema version."""
        path = folder / FILE_NAME
        if not path.exists():
            raise DeployError(
                f"`{folder}` is not an artifact: it has no {FILE_NAME}",
                hint="levit-deploy compile --target host levit_128s --weights demo",
            )
        return load_record(
            Manifest, path, hint="compile the model again with this version of levit-deploy"
        )


def package_versions() -> dict[str, str]:
    """Versions of this package and of the installed ones that have a part in a library's making."""
    versions = {"levit-deploy": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
