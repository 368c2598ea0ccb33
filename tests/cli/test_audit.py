"""audit from end to end on the tiny LeViT: its figures, its verdict, and what bad input gets."""

import hashlib
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from levit_deploy.audit.images import open_audit_images
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.manifest import Verdict
from levit_deploy.verify.model_of import quantized_model_of
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.report import Verification
from levit_deploy.verify.torch_runner import TorchRunner
from tests.cli.conftest import ROOT, TINY_WEIGHTS, Cli, Done, Spawner, compile_args
from tests.cli.test_bad_input import assert_refused

IMAGES = 130  # three chunks, the last one not full
FIRST = 750  # of the test images: of those from here on, 8 bits move some answers


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an int8 artifact for this machine; tests that change it copy it."""
    spawner = Spawner(tmp_path_factory.mktemp("int8"))
    done = spawner.run(*compile_args("--precision", "int8", "--data", "demo"))
    assert done.returncode == 0, done.stderr
    return spawner.folder / "levit_tiny-host-int8"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the test images, as a .npz file."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    with np.load(ROOT / "tests" / "data" / "val_2000.npz") as val:
        chosen = slice(FIRST, FIRST + IMAGES)
        np.savez(path, images=val["images"][chosen], labels=val["labels"][chosen])
    return path


# Of 130 images one is 0.8 points: it is chance whether 8 bits lose it.
ONE_IMAGE = ("--max-drop", "1")


def audit_args(artifact: Path, data: Path | str, *args: str | Path) -> tuple[str | Path, ...]:
    return ("audit", artifact, "--weights", TINY_WEIGHTS, "--data", data, *args)


def photos(folder: Path, classes: int = 10) -> Path:
    """A folder of two pictures a class, not of model size."""
    rng = np.random.default_rng(0)
    for index in range(2 * classes):
        path = folder / f"class {index % classes}" / f"<b>{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(path)
    return folder


def report_bytes(report: Path) -> dict[str, bytes]:
    """Of each file, without the only figures that no two runs share: those of latency."""
    found = {path.name: path.read_bytes() for path in report.iterdir() if path.is_file()}
    found["audit.json"] = re.sub(rb'"latencies": \[[^]]*\]', b"", found["audit.json"])
    found["audit.html"] = re.sub(TIMED, b"", found["audit.html"])
    return found


# Three digits of milliseconds, and how many inferences they are of.
TIMED = rb"[\d.]+\xc2\xa0ms|[\d,]+ inferences|, while others used it too"


def test_the_figures_are_those_of_the_runners(cli: Cli, int8: Path, data: Path):
    done = cli.run(*audit_args(int8, data, *ONE_IMAGE, "--json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((cli.folder / "report" / "audit.json").read_text())
    assert result["audited"]["images"] == IMAGES
    (latency,) = result["latencies"]
    assert 0 < latency["min_us"] <= latency["median_us"] < 1e6
    size = (int8 / "liblevit_tiny_int8.so").stat().st_size
    assert result["audited"]["library_bytes"] == size

    checkpoint = load_checkpoint(TINY_WEIGHTS, TINY)
    opened = open_audit_images(str(data), checkpoint, skip_broken=False, maximum=None)
    loaded = opened.read(range(IMAGES))
    library = Library(int8)
    quantized = quantized_model_of(Artifact.load(int8), checkpoint)
    assert quantized is not None
    with OnnxRunner(quantized, as_written=True) as runner:
        qdq = runner.infer(loaded.images)
    logits = {
        "reference": TorchRunner(checkpoint.build()).infer(loaded.images),
        "artifact": np.stack([library.run(image) for image in loaded.images.floats]),
        "qdq": qdq,
    }
    top1 = {name: rows.argmax(axis=1) for name, rows in logits.items()}
    assert loaded.labels is not None
    for accuracy in result["accuracies"]:
        right = top1[accuracy["runner"]] == loaded.labels
        assert accuracy["top1"]["count"] == right.sum() > IMAGES / 2
    for fidelity in result["fidelities"]:
        ours, theirs = fidelity["runner"], fidelity["reference"]
        assert fidelity["agreement"]["count"] == (top1[ours] == top1[theirs]).sum()
        error = np.abs(logits[ours].astype(float) - logits[theirs]).max()
        assert fidelity["largest_error"] == pytest.approx(error, rel=1e-3)
    first = result["fidelities"][0]
    assert (first["runner"], first["reference"]) == ("artifact", "reference")
    flips = np.flatnonzero(top1["artifact"] != top1["reference"])
    assert result["flipped"] == len(flips) > 0
    assert {flip["index"] for flip in result["flips"]} == set(flips.tolist())


def test_the_artifact_gets_the_verdict(cli: Cli, int8: Path, data: Path):
    folder = cli.folder / "artifact"
    shutil.copytree(int8, folder)
    for limit, code in (("100", 0), ("-100", 1)):
        args = ("--max-drop", limit, "--images", "16", "--force")
        done = cli.run(*audit_args(folder, data, *args))
        assert done.returncode == code, done.stderr
        assert ("--max-drop is broken" in done.stderr) == bool(code)
        digest = hashlib.sha256((cli.folder / "report" / "audit.json").read_bytes()).hexdigest()
        verification = Verification.load(folder)
        assert verification is not None
        for audit in (Artifact.load(folder).manifest.audit, verification.audit):
            assert audit is not None
            verdict = Verdict.FAILED if code else Verdict.PASSED
            assert (audit.sha256, audit.verdict) == (digest, verdict)
    assert "failed, sha256" in cli.run("inspect", folder).stdout
    cli.run("verify", folder, "--images", "1")
    assert Verification.load(folder).audit == Artifact.load(folder).manifest.audit


def test_merged_shards_are_one_run(cli: Cli, int8: Path, data: Path):
    assert cli.run(*audit_args(int8, data, *ONE_IMAGE, "-o", "whole")).returncode == 0
    for number in (1, 2, 3):
        args = ("--shard", f"{number}/3", "-o", f"shard-{number}", "--jobs", str(number))
        done = cli.run(*audit_args(int8, data, *ONE_IMAGE, *args))
        assert (done.returncode, done.stdout) == (0, f"shard-{number}\n"), done.stderr
    missing = cli.run("audit", "merge", "shard-1", "shard-3", "-o", "merged")
    assert_refused(missing, 1, "images 64 to 127 of 130 are in none of the shards")
    done = cli.run("audit", "merge", "shard-3", "shard-1", "shard-2", *ONE_IMAGE, "-o", "merged")
    assert done.returncode == 0, done.stderr
    assert report_bytes(cli.folder / "merged") == report_bytes(cli.folder / "whole")
    again = cli.run("audit", "merge", "shard-1", "shard-2", "shard-3", "-o", "merged")
    assert_refused(again, 1, "`merged` holds a report")


def test_a_killed_audit_goes_on(cli: Cli, spawner: Spawner, int8: Path, data: Path):
    args = audit_args(int8, data, *ONE_IMAGE, "--jobs", "1", "-o", "killed")
    with spawner.start(*args) as process:
        while process.poll() is None and not list(cli.folder.glob("killed/.audit/chunk-*.npz")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    made = len(list(cli.folder.glob("killed/.audit/chunk-*.npz")))
    assert 0 < made < 3
    assert "--resume" in assert_refused(cli.run(*args), 1, "was not finished")
    other = cli.run(*args, "--resume", "--images", "100")
    assert_refused(other, 1, "images is `100`, not `130`")
    assert cli.run(*args, "--resume").returncode == 0
    assert cli.run(*audit_args(int8, data, *ONE_IMAGE, "-o", "whole")).returncode == 0
    assert report_bytes(cli.folder / "killed") == report_bytes(cli.folder / "whole")


def test_an_interrupted_audit_says_how_to_go_on(spawner: Spawner, int8: Path, data: Path):
    with spawner.start(*audit_args(int8, data, "--jobs", "1")) as process:
        chunks = spawner.folder / "report" / ".audit"
        while process.poll() is None and not list(chunks.glob("chunk-*.npz")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 143, stderr
    assert "what is done is kept: the same command with --resume goes on" in stderr
    assert stderr.splitlines()[-1] == "error: terminated"


def test_without_labels_only_agreement_is_told(cli: Cli, fp32: Path):
    folder = cli.folder / "photos"
    photos(folder)
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(folder / f"{index}.png")
    done = cli.run(*audit_args(fp32, folder, "--json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accuracies"] == result["differences"] == result["confusion"] == []
    assert [limit["option"] for limit in result["limits"]] == ["--min-agreement"]
    refused = cli.run(*audit_args(fp32, folder, "--max-drop", "1", "--force"))
    assert_refused(refused, 1, "--max-drop needs labels")


def test_broken_pictures(cli: Cli, fp32: Path):
    folder = photos(cli.folder / "photos")
    (folder / "class 3" / "broken.png").write_bytes(b"\x89PNG nothing")
    refused = cli.run(*audit_args(fp32, folder))
    assert "--skip-broken" in assert_refused(refused, 1, "photos/class 3/broken.png`: ")
    done = cli.run(*audit_args(fp32, folder, "--skip-broken", "--force", "--json"))
    audited = json.loads(done.stdout)["audited"]
    assert (audited["images"], audited["skipped"]) == (20, 1)
    assert audited["class_names"] == [f"class {number}" for number in range(10)]


def refused_data(kind: str, folder: Path) -> Path | str:
    match kind:
        case "class counts":
            return photos(folder / "photos", classes=9)
        case "empty":
            (folder / "photos").mkdir()
            return folder / "photos"
        case "label":
            images = np.zeros((20, 8, 8, 3), np.uint8)
            np.savez(folder / "a.npz", images=images, labels=np.arange(20) // 2 * 2 - 1)
            return folder / "a.npz"
        case "no image":
            np.savez(folder / "a.npz", images=np.zeros((0, 8, 8, 3), np.uint8))
            return folder / "a.npz"
        case _:
            return folder / "nowhere"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("class counts", "has folders for 9 classes, the model has 10"),
        ("empty", "no image files"),
        ("label", "is `-1`, the model has 10 classes"),
        ("no image", "no images in"),
        ("nowhere", "no images at"),
    ],
)
def test_data_that_does_not_fit(cli: Cli, fp32: Path, kind: str, message: str):
    done = cli.run(*audit_args(fp32, refused_data(kind, cli.folder)))
    assert_refused(done, 1, message)
    assert not (cli.folder / "report").exists()


def refuse(cli: Cli, folder: Path, *args: str) -> Done:
    return cli.run(*audit_args(folder, "demo", "--images", "1", *args))


def test_what_does_not_belong_together(cli: Cli, fp32: Path):
    other = TINY_WEIGHTS.with_name("levit_tiny_cifar10.pth")  # fp32; the other is rounded to fp16
    done = cli.run("audit", fp32, "--weights", other, "--data", "demo")
    assert_refused(done, 1, "was compiled from weights")
    assert_refused(refuse(cli, fp32, "--reference", "qdq"), 1, "8-bit model")
    assert_refused(refuse(cli, fp32, "--auto", "0.5"), 1, "no layers in 8 bits")
    shard = refuse(cli, fp32, "--auto", "0.5", "--shard", "1/2")
    assert_refused(shard, 2, "leave out --shard")
    assert_refused(refuse(cli, fp32, "--shard", "3/2"), 2, "`3/2` is no shard")
    assert_refused(refuse(cli, fp32, "--resume", "--force"), 2, "use one of them")
    for option in ("--max-drop", "--min-agreement", "--auto"):
        assert_refused(refuse(cli, fp32, option, "nan"), 2, f"'{option}': nan is not a finite")
    assert_refused(cli.run("audit", "merge", "nowhere"), 1, "`nowhere` holds no audit")
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize("option", [(), ("--force",), ("--resume",)])
def test_a_folder_that_is_no_report_is_left_alone(cli: Cli, fp32: Path, option: tuple[str, ...]):
    mine = cli.folder / "report" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    assert_refused(refuse(cli, fp32, *option), 1, "holds `thesis.txt`")
    assert [path.name for path in mine.parent.iterdir()] == ["thesis.txt"]


def test_a_report_is_replaced_only_by_force(cli: Cli, fp32: Path):
    assert refuse(cli, fp32).returncode == 0
    before = report_bytes(cli.folder / "report")
    assert "--force" in assert_refused(refuse(cli, fp32), 1, "holds a report")
    assert report_bytes(cli.folder / "report") == before
    assert refuse(cli, fp32, "--force").returncode == 0
    assert report_bytes(cli.folder / "report") == before
