"""Library: what a user of Python sees of an artifact."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.program import Program
from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.instrument import build_profile_library
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import foreign_target
from tests.runtime.small_network import CLASSES, SIDE, SmallNetwork, random_image, random_rgb


def test_float_and_8_bit_images_give_the_networks_logits(
    artifact: Artifact, network: SmallNetwork
) -> None:
    library = Library(artifact.folder)
    for seed in range(3):
        image, rgb = random_image(seed), random_rgb(seed)
        np.testing.assert_allclose(library.run(image), network.logits(image), atol=1e-4)
        np.testing.assert_allclose(library.run(image[None]), network.logits(image), atol=1e-4)
        np.testing.assert_allclose(library.run_rgb8(rgb), network.logits_rgb8(rgb), atol=1e-4)


def test_image_in_any_memory_order(artifact: Artifact, network: SmallNetwork) -> None:
    image = np.asfortranarray(random_image(0))
    np.testing.assert_allclose(
        Library(artifact.folder).run(image), network.logits(image), atol=1e-4
    )


def test_description(artifact: Artifact, program: Program) -> None:
    description = Library(artifact.shared_library).describe()
    manifest = artifact.manifest
    assert (description.name, description.model) == ("small", "small")
    assert (description.image_size, description.classes) == (SIDE, CLASSES)
    assert (description.precision, description.target) == ("fp32", "host")
    assert description.weights_digest == program.weights_digest
    assert description.build_id == manifest.build_id
    assert description.workspace_bytes == manifest.workspace_bytes
    card = program.card
    np.testing.assert_allclose((*description.mean, *description.std), (*card.mean, *card.std))
    assert description.preprocessing == card.recipe


def test_renamed_library_still_tells_its_name(artifact: Artifact, tmp_path: Path) -> None:
    renamed = tmp_path / "classifier.bin"
    shutil.copy(artifact.shared_library, renamed)
    assert Library(renamed).describe().name == "small"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, SIDE, SIDE)),
        np.zeros((3, SIDE, SIDE + 1), np.float32),
        np.zeros((2, 3, SIDE, SIDE), np.float32),
    ],
)
def test_wrong_image_is_refused(artifact: Artifact, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image is"):
        Library(artifact.folder).run(image)


def test_self_test_passes(artifact: Artifact) -> None:
    Library(artifact.folder).self_test()


@pytest.mark.parametrize("change", [2e-3, float("nan")])
def test_self_test_finds_other_weights(
    program: Program,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path: Path,
    change: float,
) -> None:
    constants = np.frombuffer(program.constants, np.float32).copy()
    constants[-64] += change  # in the last row of the head
    damaged = replace(program, constants=constants.tobytes())
    built = build_artifact(damaged, host_toolchain, network.self_test(1e-5), tmp_path)
    with pytest.raises(DeployError, match="self test"):
        Library(built.folder).self_test()


def test_library_of_another_cpu_is_refused(network: SmallNetwork, tmp_path: Path) -> None:
    toolchain = find_toolchain(foreign_target())
    built = build_artifact(
        network.program(toolchain, tmp_path / "work"), toolchain, network.self_test(), tmp_path
    )
    with pytest.raises(DeployError, match=toolchain.target.arch.value):
        Library(built.folder)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 100])
def test_file_that_is_no_library(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    with pytest.raises(DeployError, match="not an ELF file"):
        Library(path)


def test_profile_build_times_the_steps_of_the_float_entry(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    path = tmp_path / "libprofile.so"
    build_profile_library(artifact, host_toolchain, path)
    library = Library(path)
    durations = library.profile(random_image(0), steps=len(artifact.manifest.kernels))
    entries = [kernel.entry for kernel in artifact.manifest.kernels]
    assert [bool(ns) for ns in durations] == [entry != "rgb8" for entry in entries]
    assert library.describe().build_id == artifact.manifest.build_id
    library.self_test()
    assert list(tmp_path.iterdir()) == [path]
