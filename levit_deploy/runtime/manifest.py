"""manifest.json: what an artifact is, what made it, and the SHA-256 of each of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from levit_deploy import __version__
from levit_deploy.compiler.program import KernelCall
from levit_deploy.errors import DeployError
from levit_deploy.runtime.one_step import write_in_one_step

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
_PACKAGES = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "torch",
)


@dataclass(frozen=True)
class FileRecord:
    bytes: int
    sha256: str

    @staticmethod
    def of(path: Path) -> FileRecord:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return FileRecord(path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class KernelRecord:
    """One kernel call: what it computes, in what tile, over how many tasks, and what it costs.

    `entry`: for which kind of image it is made (compiler.program.Entry).
    """

    symbol: str
    entry: str
    kind: str
    shape: str
    tile: str
    tasks: int
    multiply_adds: int
    bytes_moved: int

    @staticmethod
    def of(call: KernelCall) -> KernelRecord:
        return KernelRecord(
            symbol=call.symbol,
            entry=call.entry.value,
            kind=call.kind,
            shape=call.shape,
            tile=call.tile,
            tasks=call.tasks,
            multiply_adds=call.multiply_adds,
            bytes_moved=call.bytes_moved,
        )


@dataclass(frozen=True)
class AuditRecord:
    """What an audit of the artifact found. `sha256`: of its audit.json."""

    sha256: str
    passed: bool

    @staticmethod
    def read(fields: Mapping[str, Any] | None) -> AuditRecord | None:
        return None if fields is None else AuditRecord(**fields)


@dataclass(frozen=True)
class Manifest:
    """`base_target`: the CPU class that `target` stands for, if that is a board or `host`.

    `program_digest`: of kernels, constants and calls; `build_id` is also of the self test and the C
    around them. Sizes in bytes. `arena_bytes` and `scratch_bytes` are parts of `workspace_bytes`.

    `libc` is what the libraries were linked for; `toolchain` and `versions` are the tools and
    packages of the machine that built them. `kernels`: in the order of the calls. `files`: by
    their path in the folder, all but this file and verify.json. `audit`: the last one of the
    artifact, None before the first.
    """

    name: str
    model: str
    precision: str
    target: str
    base_target: str
    libc: str
    image_size: int
    classes: int
    weights_digest: str
    program_digest: str
    build_id: str
    abi_version: int
    workspace_bytes: int
    arena_bytes: int
    scratch_bytes: int
    constants_bytes: int
    command_line: tuple[str, ...]
    toolchain: str
    versions: Mapping[str, str]
    kernels: tuple[KernelRecord, ...]
    files: Mapping[str, FileRecord]
    audit: AuditRecord | None = None

    def save(self, folder: Path) -> None:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2)
        write_in_one_step(folder / FILE_NAME, text + "\n")

    @staticmethod
    def load(folder: Path) -> Manifest:
        """Read `folder`/manifest.json; raises DeployError if it is missing, damaged or of another
        schema version."""
        path = folder / FILE_NAME
        try:
            fields = json.loads(path.read_text())
            found = fields.pop("schema_version")
            if found != SCHEMA_VERSION:
                raise DeployError(
                    f"`{path}` has schema version `{found}`, expected `{SCHEMA_VERSION}`",
                    hint="compile the model again with this version of levit-deploy",
                )
            files = {name: FileRecord(**record) for name, record in fields.pop("files").items()}
            kernels = tuple(KernelRecord(**record) for record in fields.pop("kernels"))
            command_line = tuple(fields.pop("command_line"))
            audit = AuditRecord.read(fields.pop("audit", None))
            return Manifest(
                **fields, files=files, kernels=kernels, command_line=command_line, audit=audit
            )
        except OSError as error:
            raise DeployError(
                f"`{folder}` is not an artifact: {FILE_NAME}: {error.strerror}",
                hint="levit-deploy compile --target host levit_128s --weights demo",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeployError(f"`{path}` is damaged", hint="compile the model again") from error


def package_versions() -> dict[str, str]:
    """Versions of this package and of the installed ones that have a part in a library's making."""
    versions = {"levit-deploy": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
