"""A library for every CPU of an architecture: the right code for each, and the bits of a library
that was made for that CPU alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.compiler.levels import compile_levels, layers_apart
from levit_deploy.compiler.tiles.table import packaged_tiles
from levit_deploy.deploy import Deployment
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.spec import TINY
from levit_deploy.network.arithmetic import Int8
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.emulator import run_prefix
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.system import OLDEST_GLIBC, System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.expectation import Reference
from levit_deploy.verify.level import level_for
from levit_deploy.verify.report import Outcome
from levit_deploy.verify.verification import reference_self_test, verify_artifact
from tests.machine import emulator_for, prefix_for, require_native
from tests.runtime.c_program import link_dll, link_static, run

X86, ARM = "x86-64-any", "arm64-any"
LEVEL = "LEVIT_DEPLOY_LEVEL"

# Which code is in use, and the logits of a picture as hexadecimal words.
SHOW = """
#include <stdio.h>
#include <string.h>
#include "levit_tiny.h"
static unsigned char workspace[LEVIT_TINY_WORKSPACE_BYTES];
static uint8_t picture[3 * LEVIT_TINY_IMAGE_SIZE * LEVIT_TINY_IMAGE_SIZE];
int main(void)
{
    float logits[LEVIT_TINY_CLASSES];
    for (size_t i = 0; i < sizeof picture; i++)
        picture[i] = (uint8_t)(i * i >> 7);
    int code = levit_tiny_run_rgb8(picture, logits, workspace);
    printf("%s %d", levit_tiny_describe()->target, code ? code : levit_tiny_self_test(workspace));
    for (int i = 0; i < LEVIT_TINY_CLASSES && !code; i++) {
        unsigned word;
        memcpy(&word, &logits[i], sizeof word);
        printf(" %08x", word);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def models(tiny_export: ExportedModel, pictures: ImageSet) -> Mapping[str, ExportedModel]:
    return {
        "fp32": tiny_export,
        "int8": quantize_model(tiny_export, pictures, DEFAULT_RECIPE)[0],
    }


@pytest.fixture(scope="module")
def artifact_of(
    models: Mapping[str, ExportedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Artifact]:
    """The library of a target, a precision and a system."""

    @functools.cache
    def build(name: str, precision: str, system: System = OLDEST_GLIBC) -> Artifact:
        model, target = models[precision], get_target(name).on(system)
        program = compile_levels(model, target, tiles=packaged_tiles(), name="levit_tiny")
        self_test = reference_self_test(Reference.of_model(model))
        parent = tmp_path_factory.mktemp("any")
        return build_artifact(program, find_toolchain(target), self_test, parent)

    return build


def picture() -> np.ndarray:
    """That of SHOW."""
    numbers = np.arange(3 * TINY.image_size**2, dtype=np.uint64)
    return (numbers**2 >> 7).astype(np.uint8).reshape(TINY.image_size, TINY.image_size, 3)


# Which of the levels qemu's CPUs get; floats have none for what only helps bytes.
X86_CPUS = {"Nehalem": "x86-64", "Haswell": "x86-64-v3"}
ARM_CPUS = {
    **dict.fromkeys(("cortex-a53", "cortex-a72"), "arm64"),
    "cortex-a76": "arm64-dotprod",
    "max,sve=off": "arm64-i8mm",
}


@pytest.mark.parametrize(
    ("target", "precision", "cpus"),
    [
        pytest.param(X86, "fp32", X86_CPUS, marks=pytest.mark.slow),
        (X86, "int8", X86_CPUS),
        (ARM, "int8", ARM_CPUS),
        pytest.param(ARM, "fp32", dict.fromkeys(ARM_CPUS, "arm64"), marks=pytest.mark.slow),
    ],
)
def test_every_cpu_gets_its_code_and_the_bits_of_a_library_for_one(
    target: str,
    precision: str,
    cpus: Mapping[str, str],
    artifact_of: Callable[..., Artifact],
    host_artifact: Artifact,
    int8_deployment: Deployment,
    tmp_path: Path,
) -> None:
    """CPUs with FMA compute the same bits, this one among them."""
    for_one = host_artifact if precision == "fp32" else int8_deployment.artifact
    expected = Library(for_one.folder).run_rgb8(picture())
    qemu, *_ = emulator_for(get_target(target))
    artifact = artifact_of(target, precision)
    toolchain = find_toolchain(get_target(artifact.manifest.base_target))
    program = link_static(toolchain, SHOW, [artifact], tmp_path)
    for cpu, level in cpus.items():
        used, code, *words = run(program, (qemu, "-cpu", cpu)).split()
        assert (used, code) == (level, "0")
        logits = np.array([int(word, 16) for word in words], np.uint32).view(np.float32)
        if get_target(level).fma:
            assert logits.tobytes() == expected.tobytes()
        else:
            np.testing.assert_allclose(logits, expected, atol=0.05 * np.ptp(expected))
        if level != artifact.manifest.levels[0]:
            best = {LEVEL: artifact.manifest.levels[0]}
            assert run(program, (qemu, "-cpu", cpu), best).split() == [*best.values(), "2"]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "system"), [(X86, "windows"), (ARM, "android")])
def test_other_systems_get_the_same(
    target: str,
    system: str,
    artifact_of: Callable[..., Artifact],
    int8_deployment: Deployment,
    tmp_path: Path,
) -> None:
    """A DLL under wine; for Android its objects, linked with another C library, under qemu."""
    artifact = artifact_of(target, "int8", System.parse(system))
    toolchain = find_toolchain(artifact.manifest.device)
    if system == "windows":
        program = link_dll(toolchain, SHOW, artifact, tmp_path)
        chosen, code, *_ = run(program, prefix_for(toolchain.target)).split()
        assert (chosen, code) == (level_for(artifact.manifest, read_cpu()), "0")
    else:
        program = link_static(toolchain, SHOW, [artifact], tmp_path)
    expected = Library(int8_deployment.artifact.folder).run_rgb8(picture())
    ran = []
    for level in artifact.manifest.levels:
        prefix = run_prefix(artifact.manifest.on_device(level))
        if prefix is not None:
            used, code, *words = run(program, prefix, {LEVEL: level}).split()
            assert (used, code) == (level, "0")
            logits = np.array([int(word, 16) for word in words], np.uint32).view(np.float32)
            if get_target(level).fma:
                assert logits.tobytes() == expected.tobytes()
            ran.append(level)
    assert len(ran) >= 2


def test_each_level_is_verified(
    models: Mapping[str, ExportedModel], artifact_of: Callable[..., Artifact]
) -> None:
    """What this machine runs; and it uses the best, with threads too."""
    require_native(get_target(X86), "loading it")
    artifact = artifact_of(X86, "int8")
    library = Library(artifact.folder, threads=2)
    assert library.describe().target == level_for(artifact.manifest, read_cpu())
    library.self_test()
    library.close()
    verification = verify_artifact(artifact, Reference.of_model(models["int8"]), images=2)
    assert verification.passed
    tried = [check.what for check in verification.checks if check.outcome is Outcome.PASSED]
    for level in ("x86-64", "x86-64-v3"):
        for function in ("run", "run_rgb8", "run_frame"):
            assert any(f"{function} of liblevit_tiny.so as {level} " in what for what in tried)


@pytest.mark.parametrize(
    ("precision", "levels"), [("int8", 5), pytest.param("fp32", 3, marks=pytest.mark.slow)]
)
def test_levels_share_their_weights(
    precision: str,
    levels: int,
    artifact_of: Callable[..., Artifact],
    host_artifact: Artifact,
    int8_deployment: Deployment,
) -> None:
    """Beside them each has its own convolutions, whose weights are few."""
    for_one = {
        "fp32": host_artifact.manifest.constants_bytes,
        "int8": int8_deployment.artifact.manifest.constants_bytes,
    }
    manifest = artifact_of(X86, precision).manifest
    assert len(manifest.levels) == levels
    assert manifest.constants_bytes < 1.1 * for_one[precision]


def test_a_level_that_would_rearrange_weights_has_the_first_for_itself(
    models: Mapping[str, ExportedModel],
) -> None:
    """As many as are a quarter of them; the library's bits are those of the others all the same."""
    network = models["int8"].network
    sizes = [
        (layer.name, layer.weight.size)
        for layer in network.layers()
        if isinstance(layer.arithmetic, Int8)
    ]
    for target in (X86, ARM):
        for level in get_target(target).levels:
            if level.name != "arm64-i8mm":
                assert not layers_apart(network, level)
    apart = layers_apart(network, get_target("arm64-i8mm"))
    assert 0 < len(apart) < len(sizes)
    assert apart == {name for name, _ in sizes[: len(apart)]}
    quarter = sum(size for _, size in sizes) / 4
    taken = sum(size for _, size in sizes[: len(apart)])
    assert taken <= quarter < taken + sizes[len(apart)][1]
    assert not layers_apart(models["fp32"].network, get_target("arm64-i8mm"))
