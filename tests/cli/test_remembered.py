"""Weights and pictures that are not named: those that the manifest does, or one error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.models.lasting_names import can_be_found, lasting_name
from levit_deploy.runtime.manifest import Manifest
from tests.cli.conftest import ROOT, TINY_WEIGHTS, Cli, compile_args
from tests.cli.test_bad_input import assert_refused
from tests.models.file_server import serve

OTHER = TINY_WEIGHTS.with_name("levit_tiny_cifar10.pth")  # fp32; the other is rounded to fp16


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and pictures, and the artifact made from both by relative paths."""
    from tests.cli.conftest import Spawner

    spawner = Spawner(tmp_path_factory.mktemp("made"))
    shutil.copy(TINY_WEIGHTS, spawner.folder / "weights.safetensors")
    with np.load(ROOT / "tests" / "data" / "val_2000.npz") as val:
        np.savez(
            spawner.folder / "images.npz", images=val["images"][:20], labels=val["labels"][:20]
        )
    options = ("--weights", "weights.safetensors", "--precision", "int8", "--data", "images.npz")
    done = spawner.run(*compile_args(*options))
    assert done.returncode == 0, done.stderr
    return spawner.folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage, whose manifest names what is in the copy."""
    copy = tmp_path / "made"
    shutil.copytree(made, copy)
    manifest = copy / "levit_tiny-host-int8" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made), str(copy)))
    return copy


def audit_args(folder: Path, *args: str | Path) -> tuple[str | Path, ...]:
    artifact = folder / "levit_tiny-host-int8"
    return ("audit", artifact, "--layer-images", "0", "-o", "report", *args)


def test_they_are_taken_from_the_manifest(cli: Cli, own: Path):
    """From another folder than that of the compile; what was taken is said."""
    artifact = own / "levit_tiny-host-int8"
    kept = Manifest.load(artifact).provenance
    assert kept is not None
    assert (kept.weights, kept.data) == (f"{own}/weights.safetensors", f"{own}/images.npz")
    done = cli.run(*audit_args(own, "--json"))
    assert done.returncode == 0, done.stderr
    assert f"weights {own}/weights.safetensors from the manifest" in done.stderr
    assert f"pictures {own}/images.npz from the manifest: it was calibrated on" in done.stderr
    assert json.loads(done.stdout)["audited"]["source"] == f"{own}/images.npz"
    verified = cli.run("verify", artifact, "--images", "1")
    assert verified.returncode == 0, verified.stderr
    assert f"weights {own}/weights.safetensors from the manifest" in verified.stderr
    assert f"{own}/weights.safetensors" in cli.run("inspect", artifact).stdout


def test_what_is_named_goes_before_the_manifest(cli: Cli, own: Path):
    done = cli.run(*audit_args(own, "--weights", OTHER, "--data", "demo"))
    assert_refused(done, 1, f"those in `{OTHER}` are")
    assert "from the manifest" not in done.stderr
    done = cli.run(*audit_args(own, "--weights", TINY_WEIGHTS, "--images", "2"))
    assert done.returncode == 0, done.stderr
    assert "weights" not in [
        line.split()[0] for line in done.stderr.splitlines() if "from the" in line
    ]


def test_what_is_gone_is_one_error_that_says_what_to_type(cli: Cli, own: Path):
    artifact = own / "levit_tiny-host-int8"
    (own / "weights.safetensors").unlink()
    hint = assert_refused(
        cli.run("verify", artifact), 1, f"`{own}/weights.safetensors`, no longer there"
    )
    assert hint == f"levit-deploy verify {artifact} --weights FILE"
    (own / "images.npz").unlink()
    done = cli.run(*audit_args(own))
    hint = assert_refused(done, 1, f"`{own}/images.npz`, no longer there")
    assert f"`{own}/weights.safetensors`, no longer there" in done.stderr
    assert hint == f"levit-deploy audit {artifact} --weights FILE --data FOLDER"
    hint = assert_refused(cli.run(*audit_args(own, "--data", "demo")), 1, "weights.safetensors`")
    assert hint == f"levit-deploy audit {artifact} --weights FILE"
    assert not Path("report").exists()


def test_what_has_changed_is_refused(cli: Cli, own: Path):
    with np.load(own / "images.npz") as file:
        np.savez(own / "images.npz", images=255 - file["images"], labels=file["labels"])
    hint = assert_refused(
        cli.run(*audit_args(own)), 1, f"`{own}/images.npz` no longer holds the pictures"
    )
    assert hint.endswith(f"--data {own}/images.npz")
    shutil.copy(OTHER, own / "weights.safetensors")
    done = cli.run(*audit_args(own, "--data", "demo"))
    assert_refused(done, 1, f"`{own}/weights.safetensors`")


def test_without_pictures_there_are_none_to_remember(cli: Cli, fp32: Path):
    hint = assert_refused(cli.run("audit", fp32), 1, "names no pictures")
    assert hint == f"levit-deploy audit {fp32} --data FOLDER"


def test_a_file_that_was_compiled_is_no_weights_for_an_audit(cli: Cli, own: Path):
    (own / "weights.safetensors").unlink()
    model = own / "model.onnx"
    exported = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "-o", model)
    assert exported.returncode == 0, exported.stderr
    manifest = own / "levit_tiny-host-int8" / "manifest.json"
    text = manifest.read_text().replace(f"{own}/weights.safetensors", str(model))
    manifest.write_text(text)
    done = cli.run(*audit_args(own))
    assert "--weights FILE" in assert_refused(done, 1, "a model that `export` or `quantize` made")


def test_a_url_is_kept_without_its_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("levit_deploy.models.weights.cached_path", lambda url: cli.folder / "w")
    with serve(TINY_WEIGHTS.read_bytes()) as server:
        secret = f"{server.url}/w.safetensors?token=s3cret#s3cret"
        done = cli.compile("--weights", secret)
        assert done.returncode == 0, done.stderr
        plain = f"{server.url}/w.safetensors"
        artifact = cli.folder / "levit_tiny-host-fp32"
        hint = assert_refused(cli.run("verify", artifact), 1, f"`{plain}?...`, of which a part is")
        assert "s3cret" not in hint
    for path in filter(Path.is_file, artifact.rglob("*")):
        assert b"s3cret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("given", "kept", "found"),
    [
        ("demo", "demo", True),
        ("fb_dist_in1k", "fb_dist_in1k", True),
        ("https://me:s3cret@host/w.pth", "https://host/w.pth", True),
        ("https://host/w.pth?s3cret", "https://host/w.pth?...", False),
        ("/nowhere/w.pth", "/nowhere/w.pth", False),
        ("a/../w.pth", "CWD/w.pth", False),
    ],
)
def test_lasting_names(given: str, kept: str, found: bool):
    kept = kept.replace("CWD", str(Path.cwd()))
    assert lasting_name(given) == kept
    assert lasting_name(kept) == kept
    assert can_be_found(kept) == found
