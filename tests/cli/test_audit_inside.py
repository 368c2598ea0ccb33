"""audit looks into 8-bit artifacts: faults are named, and every CPU gives the same figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import get_recipe
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.export_model import export_checkpoint
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import CALIBRATION_FILE, DEBUG_FOLDER, Artifact
from levit_deploy.runtime.build import build_artifact, build_debug
from levit_deploy.runtime.manifest import Verdict
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.model_of import table_of
from tests.cli.conftest import TINY_WEIGHTS, Cli, Spawner, compile_args
from tests.machine import prefix_for

UNTESTED = SelfTest((0.0,) * TINY.classes, 1e9)


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an int8 artifact for this machine, with its debug build."""
    spawner = Spawner(tmp_path_factory.mktemp("inside"))
    args = ("--precision", "int8", "--data", "demo", "--debug-taps")
    done = spawner.run(*compile_args(*args))
    assert done.returncode == 0, done.stderr
    return spawner.folder / "levit_tiny-host-int8"


def audit(cli: Cli, artifact: Path, *args: str | Path) -> tuple[int, dict]:
    """(exit code, audit.json) of an audit on a few images."""
    images = ("--data", "demo", "--images", "12", "--layer-images", "8", "--max-drop", "100")
    done = cli.run("audit", artifact, "--weights", TINY_WEIGHTS, *images, "--json", *args)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_tensor_is_told_of(cli: Cli, int8: Path):
    code, result = audit(cli, int8)
    assert code == 0
    assert result["audited"]["taps_equal"] is True
    assert result["suspect"] is None
    table = table_of(Artifact.load(int8))
    assert table is not None
    assert [t["tensor"] for t in result["tensors"]] == [t.tensor for t in table.tensors]
    for tensor in result["tensors"]:
        assert tensor["images"] == 6  # every second one: at most 8
        assert tensor["sqnr_db"] > 20


def planted(fault: str, exported: ExportedModel, table: CalibrationTable) -> ExportedModel:
    """The 8-bit model with one thing wrong."""
    if fault == "scale":
        wrong = (
            replace(entry, scale=8 * entry.scale) if entry.tensor == "blocks.5.m.1" else entry
            for entry in table.tensors
        )
        return quantize(exported, replace(table, tensors=tuple(wrong)))
    graph = onnx.ModelProto()
    graph.CopyFrom(exported.graph)
    tensor = next(t for t in graph.graph.initializer if t.name == "blocks.0.m.qkv.weight")
    shuffled = np.random.default_rng(0).permuted(numpy_helper.to_array(tensor), axis=0)
    tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    return quantize(replace(exported, graph=graph), table)


@pytest.mark.parametrize(
    ("fault", "layer"), [("scale", "blocks.5.m.2"), ("weights", "blocks.0.m.qkv")]
)
def test_a_planted_fault_is_named(cli: Cli, int8: Path, fault: str, layer: str):
    """An artifact whose weights' digest and table are honest, and whose program is not."""
    checkpoint = load_checkpoint(TINY_WEIGHTS, TINY)
    table, toolchain = table_of(Artifact.load(int8)), find_toolchain(get_target("host"))
    assert table is not None
    program = compile_model(
        planted(fault, export_checkpoint(checkpoint), table),
        toolchain.target,
        name="levit_tiny_int8",
    )

    def add_files(folder: Path) -> None:
        table.save(folder / CALIBRATION_FILE)
        build_debug(program, toolchain, UNTESTED, folder / DEBUG_FOLDER)

    artifact = build_artifact(program, toolchain, UNTESTED, cli.folder, add_files=add_files)
    code, result = audit(cli, artifact.folder)
    assert code == 1
    assert layer in result["suspect"]["layers"]
    assert len(result["suspect"]["layers"]) <= 2
    assert layer in (cli.folder / "report" / "audit.html").read_text()
    assert Artifact.load(artifact.folder).manifest.audit.verdict is Verdict.FAILED


@pytest.mark.slow  # tests/audit/test_probe.py has other CPUs in the gate
def test_another_cpu_gives_the_same_figures(cli: Cli, int8: Path):
    target = get_target("arm64-dotprod")
    prefix_for(target)
    if not get_target("host").fma:
        pytest.skip("without fused multiply-add this CPU rounds otherwise")
    done = cli.compile("--precision", "int8", "--data", "demo", target=target.name)
    assert done.returncode == 0, done.stderr
    _, there = audit(cli, cli.folder / "levit_tiny-arm64-dotprod-int8", "-o", "there")
    _, here = audit(cli, int8, "-o", "here")
    assert there.pop("latencies") == []
    assert here.pop("latencies") != []
    for audited in (there["audited"], here["audited"]):
        for name in ("target", "build_id", "emulated", "library_bytes", "workspace_bytes"):
            del audited[name]
    assert there == here


def test_a_plan_is_a_recipe(cli: Cli, int8: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cli.folder / "cache"))
    no_look = "--layer-images", "0"
    _, result = audit(cli, int8, *no_look, "--auto", "-1")  # nobody can: all layers are tried
    layers = {entry["layer"] for entry in result["sensitivities"]}
    assert "head" in layers
    assert set(result["plan"]["layers"]) <= layers
    recipe = get_recipe(str(cli.folder / "report" / "recipe.json"))
    assert recipe.float_layers == tuple(result["plan"]["layers"])
    measured = set((cli.folder / "cache" / "levit-deploy" / "sensitivities").iterdir())
    audit(cli, int8, *no_look, "--sensitivity", "--force")
    assert set((cli.folder / "cache" / "levit-deploy" / "sensitivities").iterdir()) == measured
