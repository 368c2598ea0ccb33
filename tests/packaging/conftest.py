"""Small artifacts to pack, a JPEG, and a folder that has Pillow and nothing else."""

from __future__ import annotations

import shutil
import site
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.cli.conftest import cli, small_disk  # noqa: F401
from tests.runtime.small_network import SmallNetwork

LABELS = ("cat", "dog", "Käse", "plane", "ship")
Variant = Callable[..., Artifact]


def build_small(target: str, folder: Path, name: str = "small") -> Artifact:
    """The small network with labels."""
    network, toolchain = SmallNetwork.random(seed=0), find_toolchain(get_target(target))
    program = network.program(toolchain, folder / "kernels", name)
    program = replace(program, card=program.card.stated("a test", labels=LABELS))
    return build_artifact(program, toolchain, network.self_test(), folder)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return build_small("host", tmp_path_factory.mktemp("artifact"))


@pytest.fixture
def variant(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """variant(**changes): the same files, by another name where that changes, under a manifest
    that says something else."""

    def make(*, name: str = "small", **changes: object) -> Artifact:
        folder = tmp_path_factory.mktemp("variant")
        files = {}
        for path, record in artifact.manifest.files.items():
            renamed = path.replace("small", name)
            (folder / renamed).parent.mkdir(exist_ok=True)
            shutil.copyfile(artifact.folder / path, folder / renamed)
            files[renamed] = record
        manifest = replace(artifact.manifest, name=name, files=files, **changes)
        manifest = replace(manifest, build_id=manifest.facts_digest)
        manifest.save(folder)
        return Artifact(folder, manifest)

    return make


@pytest.fixture(scope="session")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with an EXIF orientation, which this model's pictures are not turned by."""
    path = tmp_path_factory.mktemp("pictures") / "cat.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = 6
    picture.save(path, exif=picture.getexif())
    return path


@pytest.fixture(scope="session")
def only_pillow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pillow")
    for package in ("PIL", "pillow.libs"):
        for place in site.getsitepackages():
            if (Path(place) / package).is_dir():
                (folder / package).symlink_to(Path(place) / package)
    return folder
