"""The artifact: a folder with a library in both forms, its header and its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.runtime.debug_build import FILE_NAME as TAPS_FILE
from levit_deploy.runtime.manifest import FileRecord, Manifest

CALIBRATION_FILE = "calibration.json"
DEBUG_FOLDER = "debug"


@dataclass(frozen=True)
class Artifact:
    """`folder`: absolute or relative path of `<name>-<target>-<precision>`."""

    folder: Path
    manifest: Manifest

    @property
    def shared_library(self) -> Path:
        return self.folder / f"lib{self.manifest.name}.so"

    @property
    def static_library(self) -> Path:
        return self.folder / f"lib{self.manifest.name}.a"

    @property
    def header(self) -> Path:
        return self.folder / f"{self.manifest.name}.h"

    @property
    def calibration_table(self) -> Path | None:
        """What the 8-bit model that it was compiled from is made by; None if it is fp32."""
        return self.folder / CALIBRATION_FILE if CALIBRATION_FILE in self.manifest.files else None

    @property
    def debug_folder(self) -> Path | None:
        """The debug build of the same program; None if the artifact has none."""
        has_one = f"{DEBUG_FOLDER}/{TAPS_FILE}" in self.manifest.files
        return self.folder / DEBUG_FOLDER if has_one else None

    @staticmethod
    def load(folder: Path) -> Artifact:
        """Read an artifact folder.

        Raises DeployError if it is none, or if a file is missing or not the one that was built.
        """
        artifact, hint = Artifact(folder, Manifest.load(folder)), "compile the model again"
        for name, record in artifact.manifest.files.items():
            path = folder / name
            try:
                inside = path.resolve().is_relative_to(folder.resolve())
                same = inside and FileRecord.of(path) == record
            except OSError as error:
                raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=hint) from error
            if not same:
                reason = "its SHA-256 differs" if inside else "it lies elsewhere"
                raise DeployError(f"`{path}` is not the file that was built: {reason}", hint=hint)
        return artifact


def folder_name(name: str, target: str, precision: str) -> str:
    """`levit_128s-arm64-int8`, for the library `levit_128s_int8` too."""
    return f"{name.removesuffix(f'_{precision}')}-{target}-{precision}"
