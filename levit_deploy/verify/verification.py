"""Run an artifact on real images and hold it against its reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import Machine, NotExecutedError, RunError
from levit_deploy.machines.open import NothingRunsError, machine_for
from levit_deploy.machines.process import noexec_hint
from levit_deploy.models.images import normalize
from levit_deploy.network.network import Precision
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.manifest import Build
from levit_deploy.runtime.self_test import SelfTest, self_test_image
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.expectation import Expectation, Reference, expect
from levit_deploy.verify.images import Function, Images, own_images, real_images
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.program_runner import ProgramRunner, link_run_images
from levit_deploy.verify.report import Check, Outcome, Verification
from levit_deploy.verify.runner import Runner

NATIVE_IMAGES = 16
EMULATED_IMAGES = 2  # an emulator takes seconds for what the CPU does in milliseconds

OnCheck = Callable[[str], None]


def reference_self_test(reference: Reference) -> SelfTest:
    """What a library made of `reference` must compute for its built-in image."""
    normalization = reference.normalization
    pixels = self_test_image(reference.image_size, normalization.channels)[None]
    images = Images(pixels, normalize(pixels, normalization), "self test")
    precision = reference.model.precision if reference.model else Precision.FP32
    expected = expect(reference, precision, images)
    logits = expected.logits[0]
    span = float(np.ptp(np.append(logits, 0.0)))
    return SelfTest(tuple(logits.tolist()), expected.tolerance.fraction * span)


def verify_artifact(
    artifact: Artifact,
    reference: Reference,
    *,
    images: int | None = None,
    pictures: ImageSet | None = None,
    board: Machine | None = None,
    on_check: OnCheck | None = None,
) -> Verification:
    """Run every entry point of `artifact` wherever this machine can, or on `board`, and compare.

    `images`: how many (default: 16, or 2 under an emulator). `pictures`: which, of the model's size
    (default: test images in the package). `on_check` is told of each run before it is made. Raises
    DeployError if what it must compute is not known, or if the board is of another CPU or is gone;
    whatever the artifact does wrong is in the result, and so is what this machine does not execute.
    """
    manifest = artifact.manifest
    count = images or (EMULATED_IMAGES if _is_slow(manifest.device, board) else NATIVE_IMAGES)
    batch = (
        own_images(reference, count, pictures)
        if pictures
        else real_images(reference, count, reference.preprocessing)
    )
    hint: str | None = None
    expected = expect(reference, manifest.precision, batch)
    checks: list[Check] = []
    for level in manifest.levels or (None,):
        target = manifest.on_device(level or manifest.base_target)
        try:
            machine = machine_for(target, board)
        except NothingRunsError as error:
            hint = error.hint
            used = f" as {level}" if level else ""
            checks.append(Check(f"{manifest.name}{used}", Outcome.NOT_EXECUTED, error.message))
            continue
        if machine.loads(target):
            checks += _check_shared(artifact, level, batch, expected, on_check)
        checks += _check_static(artifact, target, level, machine, batch, expected, on_check)
    if not hint and any(check.outcome is Outcome.NOT_EXECUTED for check in checks):
        hint = noexec_hint((artifact.shared_library, Path(tempfile.gettempdir())))
    return Verification(
        **Build.of(manifest),
        machine=f"{board.cpu().model}, {board.name}" if board else read_cpu().model,
        reference=expected.reference,
        images=f"{len(batch)} {batch.source}",
        assumed=manifest.card.assumed,
        checks=tuple(checks),
        hint=hint,
        audit=manifest.audit,
    )


def _is_slow(device: Target, board: Machine | None) -> bool:
    """Raises DeployError if the board is not one for its code."""
    try:
        return machine_for(device, board).emulated
    except NothingRunsError:
        if board is not None:
            raise
        return True


def _check_shared(
    artifact: Artifact,
    level: str | None,
    batch: Images,
    expected: Expectation,
    on_check: OnCheck | None,
) -> Iterator[Check]:
    for function in batch.functions():
        yield _check(LibraryRunner(artifact, function, level=level), batch, expected, on_check)


def _check_static(
    artifact: Artifact,
    target: Target,
    level: str | None,
    machine: Machine,
    batch: Images,
    expected: Expectation,
    on_check: OnCheck | None,
) -> Iterator[Check]:
    try:
        toolchain = find_toolchain(target)
    except DeployError as error:  # as on a device that has Python, but no compiler
        yield Check(artifact.static_library.name, Outcome.NOT_EXECUTED, error.message)
        return
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        program = Path(folder) / "run_images"
        link_run_images(artifact, toolchain, program, level)
        with ProgramRunner(program, Function.RUN, machine, level) as runner:
            for function in batch.functions():
                yield _check(runner.doing(function), batch, expected, on_check)


def _check(runner: Runner, batch: Images, expected: Expectation, on_check: OnCheck | None) -> Check:
    if on_check:
        on_check(runner.name)
    try:
        logits = runner.infer(batch)
    except NotExecutedError as error:
        return Check(runner.name, Outcome.NOT_EXECUTED, error.message)
    except RunError as error:
        return Check(runner.name, Outcome.FAILED, error.message)
    if logits.shape != expected.logits.shape:
        detail = f"logits of shape {logits.shape}, expected {expected.logits.shape}"
        return Check(runner.name, Outcome.FAILED, detail)
    comparison = compare(expected.logits, logits, expected.tolerance)
    outcome = Outcome.PASSED if comparison else Outcome.FAILED
    detail = comparison.describe() + expected.agreement(logits)
    return Check(runner.name, outcome, detail, comparison)
