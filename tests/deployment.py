"""A tiny LeViT compiled once for this machine, in float and 8 bits, and how to do it again."""

from pathlib import Path

import pytest
import tvm
import tvm_ffi

from levit_deploy.calibration.image_set import ImageSet, open_images
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.compiler import pipeline
from levit_deploy.compiler.codegen import Functions, emit_object
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.deploy import Calibration, Deployment, deploy
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.expectation import Reference
from levit_deploy.verify.images import Images, real_images
from levit_deploy.verify.verification import reference_self_test

_emitted: dict[tuple[int, str], tuple[tvm.IRModule, bytes]] = {}


def emit_once(functions: Functions, target: tvm.target.Target) -> bytes:
    """`emit_object`, but the same kernels go through LLVM once in a process."""
    module = tvm.IRModule(dict(functions))
    key = tvm_ffi.structural_hash(module), str(target)
    known, kernels = _emitted.get(key, (None, b""))
    if known is None or not tvm_ffi.structural_equal(known, module):
        kernels = emit_object(functions, target)
        _emitted[key] = module, kernels
    return kernels


@pytest.fixture(autouse=True)
def kernels_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets that differ in their weights have the same kernels; the compiler's tests make all."""
    if "compiler" not in request.path.parts:
        monkeypatch.setattr(pipeline, "emit_object", emit_once)


@pytest.fixture(scope="session")
def tiny(data_dir: Path) -> Checkpoint:
    return load_checkpoint(data_dir / "levit_tiny_cifar10.safetensors", TINY)


@pytest.fixture(scope="session")
def tiny_export(tiny: Checkpoint) -> ExportedModel:
    return export_model(tiny.build(), name=tiny.spec.name, weights_digest=tiny.digest)


@pytest.fixture(scope="session")
def tiny_images(tiny: Checkpoint) -> Images:
    return real_images(tiny.spec, 8, tiny.preprocessing)


class Builder:
    """`program(target)` compiles the tiny net; `artifact(program)` links what it became."""

    def __init__(self, exported: ExportedModel, checkpoint: Checkpoint) -> None:
        self._exported, self._self_test = (
            exported,
            reference_self_test(Reference.of_weights(checkpoint)),
        )

    def program(self, target: Target) -> Program:
        return compile_model(self._exported, target)

    def artifact(self, program: Program, parent: Path) -> Artifact:
        toolchain = find_toolchain(get_target(program.target))
        return build_artifact(program, toolchain, self._self_test, parent)


@pytest.fixture(scope="session")
def builder(tiny: Checkpoint, tiny_export: ExportedModel) -> Builder:
    return Builder(tiny_export, tiny)


@pytest.fixture(scope="session")
def host_program(builder: Builder) -> Program:
    return builder.program(get_target("host"))


@pytest.fixture(scope="session")
def host_artifact(
    builder: Builder, host_program: Program, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    return builder.artifact(host_program, tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="session")
def pictures(tiny: Checkpoint) -> ImageSet:
    return open_images("demo", tiny.preprocessing, TINY.image_size, maximum=24)


@pytest.fixture(scope="session")
def int8_deployment(
    tiny: Checkpoint, pictures: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """The tiny net in 8 bits for this machine."""
    parent = tmp_path_factory.mktemp("int8")
    toolchain = find_toolchain(get_target("host"))
    return deploy(tiny, toolchain, parent, calibration=Calibration(pictures, DEFAULT_RECIPE))
