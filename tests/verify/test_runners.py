"""One case list, many runners: all of them compute what the PyTorch reference computes."""

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.export.exported import ExportedModel
from levit_deploy.machines.local import LocalMachine
from levit_deploy.machines.machine import RunError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from levit_deploy.verify.runner import Runner
from levit_deploy.verify.tolerance import CLOSE, EXACT
from levit_deploy.verify.torch_runner import TorchRunner
from tests.deployment import Builder
from tests.machine import emulator_for, require_native

FUNCTIONS = (Function.RUN, Function.RUN_RGB8, Function.RUN_FRAME)
EMULATED = ("x86-64", "x86-64-v3", "arm64", "armv7")
LIKE_ARM64 = ("arm64-dotprod", "arm64-i8mm")  # in float32


@pytest.fixture(scope="module")
def expected(tiny: Checkpoint, tiny_images: Images) -> np.ndarray:
    return TorchRunner(tiny.build()).infer(tiny_images)


def logits_of(runner: Runner, images: Images) -> np.ndarray:
    with runner:
        return runner.infer(images)


def test_the_reference_knows_the_images(tiny_images: Images, expected: np.ndarray):
    """66 % of CIFAR-10 is far from chance: the images arrive as the net was trained on them."""
    assert len(np.unique(expected.argmax(axis=1))) > 2
    assert expected.dtype == np.float32
    assert expected.shape == (len(tiny_images), 10)


def test_onnx_runtime(tiny_export: ExportedModel, tiny_images: Images, expected: np.ndarray):
    assert compare(expected, logits_of(OnnxRunner(tiny_export), tiny_images), CLOSE.of(0))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_shared_library(
    host_artifact: Artifact,
    tiny_images: Images,
    expected: np.ndarray,
    function: Function,
    threads: int,
):
    runner = LibraryRunner(host_artifact, function, threads=threads)
    assert compare(expected, logits_of(runner, tiny_images), CLOSE.of(0))


def test_the_static_library_gives_the_same_bits(
    host_artifact: Artifact, tiny_images: Images, tmp_path: Path
):
    link_run_images(host_artifact, find_toolchain(get_target("host")), tmp_path / "program")
    for function in FUNCTIONS:
        static = logits_of(
            ProgramRunner(tmp_path / "program", function, LocalMachine()), tiny_images
        )
        shared = logits_of(LibraryRunner(host_artifact, function), tiny_images)
        assert compare(shared, static, EXACT)


@pytest.mark.parametrize(
    "name", [*EMULATED, *(pytest.param(name, marks=pytest.mark.slow) for name in LIKE_ARM64)]
)
def test_another_cpu_under_an_emulator(
    name: str,
    builder: Builder,
    host_artifact: Artifact,
    tiny_images: Images,
    expected: np.ndarray,
    tmp_path: Path,
):
    """Close to the reference; and all CPUs with fused multiply-add give the same bits."""
    target = get_target(name)
    command = emulator_for(target)
    artifact = builder.artifact(builder.program(target), tmp_path)
    link_run_images(artifact, find_toolchain(target), tmp_path / "program")
    for function in FUNCTIONS:
        runner = ProgramRunner(tmp_path / "program", function, LocalMachine(command))
        logits = logits_of(runner, tiny_images)
        assert compare(expected, logits, CLOSE.of(0))
        assert command[2] in runner.name
        if target.fma and get_target("host").fma:
            native = logits_of(LibraryRunner(host_artifact, function), tiny_images)
            assert compare(native, logits, EXACT)


def test_an_emulator_is_really_used(host_artifact: Artifact, tiny_images: Images, tmp_path: Path):
    """Code for this CPU fails on a lesser one, by its own check and not by a crash."""
    require_native(get_target("x86-64-v3"), "an older CPU than this one")
    command = emulator_for(get_target("x86-64"))
    link_run_images(host_artifact, find_toolchain(get_target("host")), tmp_path / "program")
    runner = ProgramRunner(tmp_path / "program", Function.RUN, LocalMachine(command))
    with pytest.raises(RunError, match="this CPU lacks an instruction"):
        logits_of(runner, tiny_images)


@pytest.mark.parametrize("size", [0, 79])
def test_a_program_that_writes_too_few_logits(tiny_images: Images, tmp_path: Path, size: int):
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nhead -c {4 * size} /dev/zero > "$3"\n')
    program.chmod(0o755)
    with pytest.raises(RunError, match=f"wrote {size} logits for 8 images"):
        logits_of(ProgramRunner(program, Function.RUN, LocalMachine()), tiny_images)
