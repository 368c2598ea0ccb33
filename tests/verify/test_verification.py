"""Verification tells the truth: right artifacts pass, planted faults are found and named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.compiler.program import Arg, Program, Space
from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import NotExecutedError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.images import normalize
from levit_deploy.models.rounding_cost import rounding_cost
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.self_test import self_test_image
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.expectation import Reference
from levit_deploy.verify.images import Images
from levit_deploy.verify.model_of import reference_of
from levit_deploy.verify.report import Check, Outcome, Verification
from levit_deploy.verify.runner import Runner
from levit_deploy.verify.tolerance import CLOSE
from levit_deploy.verify.verification import reference_self_test, verify_artifact
from tests.deployment import Builder
from tests.machine import foreign_target


def test_a_right_artifact_passes_every_way_it_can_be_run(host_artifact: Artifact, tiny: Checkpoint):
    told = []
    verification = verify_artifact(
        host_artifact, reference_of(host_artifact, tiny), images=3, on_check=told.append
    )
    assert verification
    assert verification.executed
    assert [check.what for check in verification.checks] == told
    functions = [check.what.split()[0] for check in verification.checks]
    assert functions == ["run", "run_rgb8", "run_frame"] * 2
    for check in verification.checks:
        assert check.outcome is Outcome.PASSED
        assert check.comparison is not None
        assert check.comparison.images == 3
    assert verification.images == "3 CIFAR-10 test images"
    assert verification.hint is None


def test_wrong_weights_inside_are_found(
    host_program: Program, builder: Builder, tiny: Checkpoint, tmp_path: Path
):
    constants = np.frombuffer(host_program.constants, np.uint8).copy()
    halves = constants[: len(constants) // 256 * 256].reshape(-1, 256)
    constants[: halves.size] = halves[::-1].ravel()
    artifact = builder.artifact(replace(host_program, constants=constants.tobytes()), tmp_path)
    verification = verify_artifact(artifact, reference_of(artifact, tiny), images=2)
    assert not verification
    assert {check.outcome for check in verification.checks} == {Outcome.FAILED}


def test_a_library_without_self_test_limits_is_still_compared(
    host_program: Program, builder: Builder, tiny: Checkpoint, tmp_path: Path, monkeypatch
):
    """The comparison alone must catch a small error, were the self test to let it pass."""
    constants = np.frombuffer(host_program.constants, np.float32) * np.float32(1.001)
    generous = replace(reference_self_test(Reference.of_weights(tiny)), tolerance=1e9)
    monkeypatch.setattr(builder, "_self_test", generous)
    artifact = builder.artifact(replace(host_program, constants=constants.tobytes()), tmp_path)
    verification = verify_artifact(artifact, reference_of(artifact, tiny), images=2)
    assert not verification
    assert all("would pass the error" in check.detail for check in verification.checks)


def test_a_crash_is_a_failed_check(
    host_program: Program, builder: Builder, tiny: Checkpoint, tmp_path: Path
):
    *rest, last = host_program.calls  # both entry points make the last call
    wild = replace(last, args=(Arg(Space.ARENA, 1 << 44), *last.args[1:]))
    artifact = builder.artifact(replace(host_program, calls=(*rest, wild)), tmp_path)
    verification = verify_artifact(artifact, reference_of(artifact, tiny), images=1)
    assert not verification
    assert all("crashed with SIGSEGV" in check.detail for check in verification.checks)


def test_logits_of_another_shape_are_a_failed_check(
    host_artifact: Artifact, tiny: Checkpoint, monkeypatch
):
    monkeypatch.setattr(
        "levit_deploy.verify.torch_runner.TorchRunner.infer",
        lambda self, images: np.zeros((len(images), 7), np.float32),
    )
    verification = verify_artifact(host_artifact, reference_of(host_artifact, tiny), images=2)
    assert not verification
    assert verification.checks[0].detail == "logits of shape (2, 10), expected (2, 7)"


def test_other_weights_are_refused(host_artifact: Artifact, tiny: Checkpoint):
    other = replace(tiny, digest="0" * 64)
    with pytest.raises(DeployError, match=f"compiled from weights `{tiny.digest[:12]}`") as caught:
        verify_artifact(host_artifact, reference_of(host_artifact, other))
    assert "--weights" in (caught.value.hint or "")


def test_without_an_emulator_nothing_has_failed(
    host_artifact: Artifact, tiny: Checkpoint, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    name = foreign_target().name
    manifest = replace(host_artifact.manifest, target="elsewhere", base_target=name)
    foreign = replace(host_artifact, manifest=manifest)
    verification = verify_artifact(foreign, reference_of(foreign, tiny))
    assert verification
    assert not verification.executed
    (check,) = verification.checks
    assert f"{check.outcome.value}: {check.detail}" == f"not executed: no emulator for {name}"
    assert verification.hint == "apt-get install qemu-user"
    assert not verification.passed


def test_a_host_artifact_of_another_machine_is_taken_for_what_it_is(
    host_artifact: Artifact, tiny: Checkpoint, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    name = foreign_target().name
    moved = replace(host_artifact, manifest=replace(host_artifact.manifest, base_target=name))
    verification = verify_artifact(moved, reference_of(moved, tiny))
    assert verification.checks[0].detail == f"no emulator for {name}"


def test_without_a_compiler_the_shared_library_is_still_run(
    host_artifact: Artifact, tiny: Checkpoint, monkeypatch
):
    def no_toolchain(target: object) -> None:
        raise DeployError("no cross linker for `host`", hint="pip install ziglang")

    monkeypatch.setattr("levit_deploy.verify.verification.find_toolchain", no_toolchain)
    verification = verify_artifact(host_artifact, reference_of(host_artifact, tiny), images=1)
    outcomes = [check.outcome for check in verification.checks]
    assert outcomes == [Outcome.PASSED] * 3 + [Outcome.NOT_EXECUTED]
    assert verification


def test_what_may_not_be_executed_here_has_not_failed(
    host_artifact: Artifact, tiny: Checkpoint, monkeypatch
):
    """As in a folder mounted noexec, where neither form of the library begins."""

    def may_not(runner: Runner, images: Images) -> None:
        raise NotExecutedError("could not be started: Permission denied")

    monkeypatch.setattr("levit_deploy.verify.library_runner.LibraryRunner.infer", may_not)
    monkeypatch.setattr("levit_deploy.verify.program_runner.ProgramRunner.infer", may_not)
    verification = verify_artifact(host_artifact, reference_of(host_artifact, tiny), images=1)
    assert {check.outcome for check in verification.checks} == {Outcome.NOT_EXECUTED}
    assert verification
    assert not verification.passed


def test_a_users_pictures_are_what_is_compared(
    host_artifact: Artifact, tiny: Checkpoint, pictures: ImageSet
):
    verification = verify_artifact(
        host_artifact, reference_of(host_artifact, tiny), images=3, pictures=pictures
    )
    assert verification.images == "3 pictures of demo"
    assert verification.passed


def test_verify_json_round_trip(tmp_path: Path):
    logits = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    close = compare(logits, logits + np.float32(1e-6), CLOSE.of(1e-6))
    passed = Check("run on a toaster", Outcome.PASSED, close.describe(), close)
    failed = Check("run in the rain", Outcome.FAILED, "too wet")
    verification = Verification(
        name="levit_tiny",
        model="levit_tiny",
        precision="fp32",
        target="toaster",
        machine="Toastmaster 2000",
        build_id="1234",
        weights_digest="5678",
        reference="torch reference",
        images="2 images",
        assumed=("mean", "std"),
        checks=(passed,),
        hint="plug it in",
    )
    for each in (verification, replace(verification, checks=(passed, failed))):
        each.save(tmp_path)
        assert Verification.load(tmp_path) == each
        assert [path.name for path in tmp_path.iterdir()] == ["verify.json"]
    fields = json.loads((tmp_path / "verify.json").read_text())
    assert fields["schema_version"] == Verification.SCHEMA_VERSION
    assert fields["passed"] is False
    assert fields["checks"][0]["comparison"]["tolerance"] == {
        "name": "close",
        "fraction": 8e-6,
        "made_of": "8 x 1.0e-06, from float32 to float64 of the reference; at least 3.8e-06",
    }


def test_no_verify_json(tmp_path: Path):
    assert Verification.load(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 99}', "schema version `99`, expected `4`"),
        ('{"schema_version": 4}', "missing field `assumed`"),
        ("{", "is not JSON"),
        ("[]", "not an object"),
    ],
)
def test_a_verify_json_that_cannot_be_read(tmp_path: Path, text: str, message: str):
    (tmp_path / "verify.json").write_text(text)
    with pytest.raises(DeployError, match=message) as caught:
        Verification.load(tmp_path)
    assert caught.value.hint == f"levit-deploy verify {tmp_path}"


def test_the_self_test_is_the_references(tiny: Checkpoint):
    self_test = reference_self_test(Reference.of_weights(tiny))
    assert len(self_test.logits) == tiny.spec.classes
    span = max(*self_test.logits, 0.0) - min(*self_test.logits, 0.0)
    pixels = self_test_image(tiny.spec.image_size, 3)[None]
    floats = normalize(pixels, tiny.spec.normalization)
    close = CLOSE.of(rounding_cost(tiny.build(), floats))
    assert self_test.tolerance == pytest.approx(close.fraction * span)
    assert self_test.tolerance < 1e-5 * span
