"""compile, export, verify and inspect from end to end on the tiny LeViT."""

import ctypes
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
from levit_deploy.models.rounding_cost import rounding_cost
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.images import real_images
from levit_deploy.verify.tolerance import CLOSE
from levit_deploy.verify.torch_runner import TorchRunner
from tests.cli.conftest import TINY_WEIGHTS, Cli, compile_args
from tests.machine import foreign_target, prefix_for

FILES = {
    "liblevit_tiny.so",
    "liblevit_tiny.a",
    "levit_tiny.h",
    "levit_tiny.hpp",
    "levit_deploy.hpp",
    "levit_tiny.pc",
    "cmake",
    "levit.py",
    "labels.txt",
    "README.md",
    "sbom.cdx.json",
    "manifest.json",
    "verify.json",
}


def test_compile_makes_a_verified_artifact(compiled: tuple[Path, str]):
    folder, stdout = compiled
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    result = json.loads(stdout)
    assert result["folder"] == "build/levit_tiny-host-fp32"
    assert result["verification"]["passed"] is True
    assert result["command_line"] == [
        "levit-deploy",
        *map(str, compile_args("-o", "build", "--json")),
    ]
    images = real_images(TINY, 2, ORIGINAL_PREPROCESSING)
    library = Library(folder)
    logits = np.stack([library.run(image) for image in images.floats])
    reference = load_checkpoint(TINY_WEIGHTS, TINY).build()
    close = CLOSE.of(rounding_cost(reference, images.floats))
    assert compare(TorchRunner(reference).infer(images), logits, close)


def test_inspect_says_what_an_artifact_is(cli: Cli, compiled: tuple[Path, str]):
    folder, stdout = compiled
    made = json.loads(stdout)
    listed = json.loads(cli.run("inspect", folder, "--json").stdout)
    assert {**listed, "folder": ""} == {**made, "folder": "", "verified": "passed"}
    for_people = cli.run("inspect", folder)
    assert for_people.returncode == 0
    assert for_people.stderr == ""
    for fact in (made["weights_digest"], made["build_id"], "levit_tiny, 64 px, 10 classes"):
        assert fact in for_people.stdout
    assert for_people.stdout.count("passed:") == 6
    kernels = [call["shape"] for call in made["kernels"]]
    assert kernels
    assert all(shape in for_people.stdout for shape in kernels)


def test_what_a_manifest_holds_does_not_command_the_terminal(cli: Cli, fp32: Path):
    manifest = fp32 / "manifest.json"
    document = json.loads(manifest.read_text())
    document["command_line"] = ["levit-deploy", "\x1b[2J", "\udc80"]
    manifest.write_text(json.dumps(document))
    done = cli.run("inspect", fp32)
    assert done.returncode == 0
    assert "levit-deploy \N{REPLACEMENT CHARACTER}[2J \N{REPLACEMENT CHARACTER}" in done.stdout
    done = cli.run("inspect", fp32.with_name("\x1b[2J"))
    assert done.returncode in (1, 2)
    assert "\x1b" not in done.stderr


def test_verify_runs_an_artifact_again(cli: Cli, compiled: tuple[Path, str]):
    folder = cli.folder / "copy"
    shutil.copytree(compiled[0], folder)
    (folder / "verify.json").unlink()
    done = cli.run("verify", folder, "--weights", TINY_WEIGHTS, "--images", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "verify.json").read_text())
    assert "3 CIFAR-10 test images" in done.stdout


def test_verify_refuses_other_weights(cli: Cli, compiled: tuple[Path, str]):
    before = (compiled[0] / "verify.json").read_bytes()
    other = TINY_WEIGHTS.with_name("levit_tiny_cifar10.pth")  # fp32; the other is rounded to fp16
    done = cli.run("verify", compiled[0], "--weights", other)
    assert done.returncode == 1
    assert "was compiled from weights" in done.stderr
    assert (compiled[0] / "verify.json").read_bytes() == before


def test_the_same_command_twice_gives_the_same_library(cli: Cli, compiled: tuple[Path, str]):
    again = json.loads(cli.compile("-o", "elsewhere", "--json").stdout)
    first = json.loads(compiled[1])
    assert again["files"] == first["files"]
    assert again["build_id"] == first["build_id"]


def test_two_names_link_into_one_program(cli: Cli, compiled: tuple[Path, str]):
    """A name given with --name is what the files and every symbol begin with."""
    done = cli.compile("--name", "other_net", "-o", "build")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("build/other_net-host-fp32/")
    other = ctypes.CDLL(str(cli.folder / "build" / "other_net-host-fp32" / "libother_net.so"))
    assert other.other_net_run is not None
    assert not hasattr(other, "levit_tiny_run")


def test_export_writes_what_onnx_runtime_runs(cli: Cli):
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "-o", "tiny.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny.onnx ")
    session = onnxruntime.InferenceSession(cli.folder / "tiny.onnx")
    images = real_images(TINY, 1, ORIGINAL_PREPROCESSING)
    (logits,) = session.run(["logits"], {"image": images.floats})
    reference = load_checkpoint(TINY_WEIGHTS, TINY).build()
    close = CLOSE.of(rounding_cost(reference, images.floats))
    assert compare(TorchRunner(reference).infer(images), logits, close)


def test_settings_are_told_before_the_work_and_stdout_stays_clean(cli: Cli):
    done = cli.compile("--dump-ir", "ir")
    settings = dict(line.split(maxsplit=1) for line in done.stderr.splitlines()[:17])
    assert settings["model"] == "levit_tiny, 64 px, 10 classes"
    assert settings["mean"] == "0.485 0.456 0.406  assumed: original evaluates so"
    assert settings["system"] == "glibc-2.17"
    assert settings["output"] == "levit_tiny-host-fp32"
    phases = [line.split()[0] for line in done.stderr.splitlines()[17:22]]
    assert phases == ["weights", "export", "compile", "link", "verify"]
    summary = "\n".join(done.stderr.splitlines()[22:])
    assert "million multiply-adds" in summary
    assert "constants 0.50 MB" in summary
    *dumps, log = sorted(path.name for path in (cli.folder / "ir").iterdir())
    assert dumps[0].startswith("01_")
    assert (cli.folder / "ir" / log).read_text().endswith(summary + "\n")


@pytest.mark.parametrize("target", ["arm64", "armv7"])
def test_another_cpu(cli: Cli, target: str):
    emulated = prefix_for(get_target(target)) != ()
    done = cli.compile("--libc", "musl", "--json", target=target)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)["verification"]["checks"]
    assert [check["outcome"] for check in checks] == ["passed"] * 3
    assert all(("qemu-a" in check["what"]) == emulated for check in checks)


def test_without_an_emulator_the_artifact_is_made_and_the_user_warned(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(cli.folder))
    target = foreign_target().name
    done = cli.compile(target=target)
    assert done.returncode == 0
    assert f"not executed: no emulator for {target}" in done.stdout.splitlines()
    assert "warning: the library was made, but not executed" in done.stderr.splitlines()
    assert "hint: apt-get install qemu-user" in done.stderr.splitlines()
    assert (cli.folder / f"levit_tiny-{target}-fp32" / "liblevit_tiny.so").exists()
