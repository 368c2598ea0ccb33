"""The inside of 8-bit artifacts against models in ONNX Runtime, and planted faults."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from levit_deploy.audit.probe import LayerProbe
from levit_deploy.audit.result import Suspect
from levit_deploy.audit.suspect import find_suspect
from levit_deploy.audit.tapped_program import TappedProgram, stored
from levit_deploy.audit.tapped_tensor import TappedTensor
from levit_deploy.audit.tensor_sums import (
    Field,
    Float64,
    add_sums,
    no_sums,
    tensor_fidelities,
)
from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.deploy import Calibration, Deployment, deploy
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.machines.local import LocalMachine
from levit_deploy.machines.machine import RunError
from levit_deploy.machines.open import open_machine
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.network.network import Linear
from levit_deploy.runtime.artifact import Artifact, DebugBuild
from levit_deploy.runtime.build import build_debug
from levit_deploy.runtime.instrument import build_taps
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.images import Images
from levit_deploy.verify.model_of import table_of
from tests.boards.sshd import OnBoard, Sshd
from tests.machine import prefix_for

HOST = get_target("host")
UNTESTED = SelfTest((0.0,) * 10, 0.0)


@pytest.fixture(scope="session")
def table(int8_deployment: Deployment) -> CalibrationTable:
    table = table_of(int8_deployment.artifact)
    assert table is not None
    return table


@pytest.fixture(scope="session")
def taps(int8_deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> DebugBuild:
    folder = tmp_path_factory.mktemp("taps") / "debug"
    build = build_taps(int8_deployment.artifact, find_toolchain(HOST), folder)
    assert DebugBuild.load(folder) == build
    return build


@pytest.fixture(scope="session")
def probe_of(
    tiny_export: ExportedModel, table: CalibrationTable
) -> Callable[..., tuple[tuple[TappedTensor, ...], Float64]]:
    """Compiles a model, honest or not, and probes it against the honest one."""

    def probe(
        model: ExportedModel,
        images: Images,
        folder: Path,
        target_name: str = "host",
        table: CalibrationTable = table,
    ) -> tuple[tuple[TappedTensor, ...], Float64]:
        target = get_target(target_name)
        toolchain = find_toolchain(target)
        build = build_debug(compile_model(model, target), toolchain, UNTESTED, folder / target_name)
        emulator = prefix_for(target)
        with LayerProbe(build, tiny_export, table, toolchain, LocalMachine(emulator)) as inside:
            sums = no_sums(len(inside.tensors))
            for pixels in images.pixels:
                sums = add_sums(sums, inside.probe(pixels)[1])
            return inside.tensors, sums

    return probe


def test_the_debug_build_is_the_artifact(
    int8_deployment: Deployment,
    taps: DebugBuild,
    tiny_export: ExportedModel,
    tiny_images: Images,
    table: CalibrationTable,
):
    """The same bits of logits, and every tensor is within a few steps of the model's."""
    library = Library(int8_deployment.artifact.folder)
    with LayerProbe(taps, tiny_export, table, find_toolchain(HOST), LocalMachine()) as inside:
        assert [tensor.is_quantized for tensor in inside.tensors] == [True] * 21 + [False]
        sums = no_sums(len(inside.tensors))
        for pixels, floats in zip(tiny_images.pixels, tiny_images.floats, strict=True):
            logits, image_sums = inside.probe(pixels)
            assert logits.tobytes() == library.run(floats).tobytes()
            sums = add_sums(sums, image_sums)
        fidelities = tensor_fidelities(inside.tensors, sums)
        assert find_suspect(inside.tensors, sums) is None
    assert (sums[:, Field.IMAGES] == len(tiny_images)).all()
    assert (sums[:, Field.DEVIATION] <= 0.5 * sums[:, Field.MODEL_ERROR]).all()
    assert [fidelity.tensor for fidelity in fidelities] == [t.tensor for t in table.tensors]
    for fidelity, scale in zip(fidelities, table.tensors, strict=True):
        assert fidelity.sqnr_db is not None
        assert fidelity.sqnr_db > 20
        assert fidelity.cosine > 0.99
        assert fidelity.layer in scale.readers
        np.testing.assert_allclose(fidelity.high - fidelity.low, 255 * scale.scale, rtol=1e-6)
        assert 0.1 < fidelity.range_used <= 1


def test_libraries_to_look_inside_come_with_debug_taps(
    taps: DebugBuild,
    tiny: Checkpoint,
    pictures: ImageSet,
    tiny_images: Images,
    tiny_export: ExportedModel,
    tmp_path: Path,
):
    """The shared one, from Python, shows what the C program around the static one does."""
    calibration = Calibration(pictures, DEFAULT_RECIPE)
    made = deploy(tiny, find_toolchain(HOST), tmp_path, calibration=calibration, debug_taps=True)
    artifact = Artifact.load(made.artifact.folder)
    assert artifact.debug_folder is not None
    build = DebugBuild.load(artifact.debug_folder)
    assert build.taps == DebugBuild.load(artifact.folder).taps == taps.taps
    assert {f"debug/{path.name}" for path in build.folder.iterdir()} <= set(artifact.manifest.files)

    loaded = ctypes.CDLL(str(build.shared_library))
    seen: list[bytes] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def finished(_: int, step: int, arena: int) -> None:
        for tensor in build.taps.tensors:
            if tensor.step == step:
                seen.append(ctypes.string_at(arena + tensor.offset_bytes, tensor.size_bytes))

    image = tiny_images.floats[0]
    logits = np.empty(tiny.spec.classes, np.float32)
    workspace = np.empty(artifact.manifest.workspace_bytes, np.uint8)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (image, logits, workspace))
    assert getattr(loaded, f"{build.taps.name}_taps")(*pointers, finished, None) == 0
    assert logits.tobytes() == Library(artifact.folder).run(image).tobytes()
    with TappedProgram(taps, tiny.spec.classes, find_toolchain(HOST), LocalMachine()) as program:
        other_logits, tensors = program.run(image)
    assert logits.tobytes() == other_logits.tobytes()
    for tensor, data, values in zip(build.taps.tensors, seen, tensors, strict=True):
        np.testing.assert_array_equal(stored(tensor, data), values)


def test_an_artifact_that_does_not_say_where_its_tensors_are(
    host_artifact: Artifact, tmp_path: Path
):
    with pytest.raises(DeployError, match=r"cannot read `.*taps\.json`"):
        build_taps(host_artifact, find_toolchain(HOST), tmp_path / "debug")
    assert not (tmp_path / "debug").exists()


@pytest.mark.parametrize(
    "target_name",
    [pytest.param("arm64-dotprod", marks=pytest.mark.slow), "arm64-i8mm", "x86-64-v3"],
)
def test_other_cpus_have_the_same_figures(
    target_name: str,
    tiny_export: ExportedModel,
    table: CalibrationTable,
    tiny_images: Images,
    probe_of: Callable[..., tuple[tuple[TappedTensor, ...], Float64]],
    tmp_path: Path,
):
    """Targets with fused multiply-add compute the same bits, however they store them."""
    model = quantize(tiny_export, table)
    here, sums = probe_of(model, tiny_images.first(1), tmp_path)
    there, others = probe_of(model, tiny_images.first(1), tmp_path, target_name)
    assert here == there
    np.testing.assert_array_equal(sums, others)


def test_another_board_goes_on(
    taps: DebugBuild, tiny: Checkpoint, tiny_images: Images, on_board: OnBoard, sshd: Sshd
):
    """All connections end, and one of the two boards is gone for good."""
    boards = open_machine(on_board.other_url), open_machine(on_board.url)
    with TappedProgram(taps, tiny.spec.classes, find_toolchain(HOST), LocalMachine()) as here:
        expected = here.run(tiny_images.floats[0])
    with TappedProgram(taps, tiny.spec.classes, find_toolchain(HOST), *boards) as program:
        for lost in (False, True):
            if lost:
                on_board.profile("[ $BOARD = board ] || exit 1")
                for connection in sshd.connections():
                    os.kill(connection, signal.SIGKILL)
            logits, tensors = program.run(tiny_images.floats[0])
            np.testing.assert_array_equal(logits, expected[0])
            for tensor, right in zip(tensors, expected[1], strict=True):
                np.testing.assert_array_equal(tensor, right)
    for board in boards:
        board.close()


def test_a_program_that_crashes_is_a_result(
    taps: DebugBuild, tiny_export: ExportedModel, table: CalibrationTable, tiny_images: Images
):
    first, *others = taps.taps.tensors
    far = replace(first, offset_bytes=1 << 40)
    broken = replace(taps, taps=replace(taps.taps, tensors=(far, *others)))
    inside = LayerProbe(broken, tiny_export, table, find_toolchain(HOST), LocalMachine())
    with inside, pytest.raises(RunError, match="SIGSEGV"):
        inside.probe(tiny_images.pixels[0])


def test_a_table_of_another_recipe_is_refused(
    taps: DebugBuild, tiny_export: ExportedModel, table: CalibrationTable
):
    fewer = tuple(tensor for tensor in table.tensors if "head" not in tensor.readers)
    with pytest.raises(DeployError, match="`head` is in 8 bits"):
        LayerProbe(
            taps, tiny_export, replace(table, tensors=fewer), find_toolchain(HOST), LocalMachine()
        )


LAYERS = (
    "blocks.0.m.qkv",
    "blocks.4.m.proj.1",
    "blocks.5.m.0",
    "blocks.5.m.2",
    "blocks.6.kv",
    "blocks.2.q.1",
    "head",
)


@pytest.mark.parametrize("layer", LAYERS)
def test_shuffled_weights_are_found(
    layer: str,
    tiny_export: ExportedModel,
    table: CalibrationTable,
    tiny_images: Images,
    probe_of: Callable[..., tuple[tuple[TappedTensor, ...], Float64]],
    tmp_path: Path,
):
    shuffled = quantize(_with_shuffled(tiny_export, f"{layer}.weight"), table)
    tensors, sums = probe_of(shuffled, tiny_images.first(2), tmp_path)
    suspect = find_suspect(tensors, sums)
    assert suspect is not None
    assert layer in suspect.layers
    assert len(suspect.layers) <= 2
    made = next(tensor for tensor in tensors if tensor.name == suspect.tensor)
    assert made.makers == suspect.layers


def with_scale(table: CalibrationTable, tensor: str, factor: float) -> CalibrationTable:
    """The table with the scale of `tensor` multiplied by `factor`."""
    entries = tuple(
        replace(entry, scale=entry.scale * factor) if entry.tensor == tensor else entry
        for entry in table.tensors
    )
    return replace(table, tensors=entries)


@pytest.mark.parametrize(
    ("tensor", "factor"),
    [("patch_embed.tokens", 0.125), ("blocks.5.m.1", 8.0), ("head.mean", 8.0)],
)
def test_a_wrong_scale_is_found(
    tensor: str,
    factor: float,
    tiny_export: ExportedModel,
    table: CalibrationTable,
    tiny_images: Images,
    probe_of: Callable[..., tuple[tuple[TappedTensor, ...], Float64]],
    tmp_path: Path,
):
    tampered = quantize(tiny_export, with_scale(table, tensor, factor))
    tensors, sums = probe_of(tampered, tiny_images.first(2), tmp_path)
    readers = next(entry.readers for entry in table.tensors if entry.tensor == tensor)
    suspect = find_suspect(tensors, sums)
    assert suspect is not None
    assert suspect.tensor == tensor
    assert suspect.layers == readers
    # the figures alone tell too, for whoever has only them
    honest = [replace(entry, scale=entry.table_scale) for entry in tensors]
    numeric = find_suspect(honest, sums)
    assert numeric is not None
    assert numeric.tensor == tensor


@pytest.mark.parametrize(
    ("tensor", "factor", "why"),
    [("blocks.5.m.1", 0.125, "cuts off"), ("head.mean", 8.0, "of which it uses")],
)
def test_a_wrong_scale_in_the_table_is_found(
    tensor: str,
    factor: float,
    why: str,
    tiny_export: ExportedModel,
    table: CalibrationTable,
    tiny_images: Images,
    probe_of: Callable[..., tuple[tuple[TappedTensor, ...], Float64]],
    tmp_path: Path,
):
    """The library does what the table says, and so does the 8-bit model."""
    tampered = with_scale(table, tensor, factor)
    model = quantize(tiny_export, tampered)
    tensors, sums = probe_of(model, tiny_images.first(4), tmp_path, table=tampered)
    suspect = find_suspect(tensors, sums)
    assert suspect is not None
    assert (suspect.tensor, why in suspect.why) == (tensor, True)
    assert suspect.layers == next(e.readers for e in table.tensors if e.tensor == tensor)


@pytest.mark.parametrize(
    ("layer", "honest_table"),
    [("blocks.0.m.qkv", True), ("blocks.5.m.0", False), ("head", False)],
)
def test_wrong_scales_of_weights_are_found(
    layer: str,
    honest_table: bool,
    tiny_export: ExportedModel,
    table: CalibrationTable,
    tiny_images: Images,
    probe_of: Callable[..., tuple[tuple[TappedTensor, ...], Float64]],
    tmp_path: Path,
):
    """An eighth of what they should be: the largest weights are cut off."""
    wrong = tuple(
        replace(entry, scales=tuple(scale / 8 for scale in entry.scales))
        if entry.layer == layer
        else entry
        for entry in table.layers
    )
    tampered = replace(table, layers=wrong)
    tensors, sums = probe_of(
        quantize(tiny_export, tampered),
        tiny_images.first(2),
        tmp_path,
        table=table if honest_table else tampered,
    )
    suspect = find_suspect(tensors, sums)
    assert suspect is not None
    assert suspect.layers == (layer,)


def test_every_layer_makes_a_tensor_that_is_tapped(
    taps: DebugBuild, tiny_export: ExportedModel, table: CalibrationTable
):
    """Whatever layer is at fault, there is a tensor that it would be named for."""
    inside = LayerProbe(taps, tiny_export, table, find_toolchain(HOST), LocalMachine())
    makers = [maker for tensor in inside.tensors for maker in tensor.makers]
    layers = [layer.name for layer in tiny_export.network.layers() if isinstance(layer, Linear)]
    assert set(layers) < set(makers)
    assert len(makers) == len(layers) + 4


def test_figures_of_no_error_raise_no_suspicion():
    tensor = TappedTensor("x", ("a",), ("b",), True, 1.0, 1.0, 0.0, 255.0)
    sums = no_sums(1)
    sums[0, Field.IMAGES], sums[0, Field.COUNT] = 1, 4
    assert find_suspect([tensor], sums) is None
    sums[0, Field.SIGNAL], sums[0, Field.ERROR], sums[0, Field.DEVIATION] = 1, 1, 1
    suspect = find_suspect([tensor], sums)
    assert isinstance(suspect, Suspect)
    assert suspect.layers == ("b",)
    assert "where 8 bits allow no error" in suspect.why


def _with_shuffled(exported: ExportedModel, constant: str) -> ExportedModel:
    graph = onnx.ModelProto()
    graph.CopyFrom(exported.graph)
    (entry,) = (entry for entry in graph.graph.initializer if entry.name == constant)
    weight = numpy_helper.to_array(entry)
    shuffled = np.random.default_rng(0).permutation(weight.ravel()).reshape(weight.shape)
    entry.CopyFrom(numpy_helper.from_array(shuffled, constant))
    return replace(exported, graph=graph)
