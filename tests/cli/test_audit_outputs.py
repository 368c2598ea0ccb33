"""audit of what gives no logits of classes: features, and a single logit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from levit_deploy.audit.images import open_audit_images
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.loader import Library
from tests.cli.conftest import ROOT, TINY_WEIGHTS, Cli, Spawner, compile_args
from tests.cli.test_audit import report_bytes
from tests.cli.test_bad_input import assert_refused

IMAGES = 70  # two chunks
ANIMALS = (2, 3, 4, 5, 6, 7)


@pytest.fixture(scope="session")
def binary_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LeViT with one logit: its classes that are animals less those that are not."""
    state = load_file(TINY_WEIGHTS)
    signs = torch.tensor([1 / 6 if i in ANIMALS else -1 / 4 for i in range(TINY.classes)])
    for name in [name for name in state if name.endswith((".l.weight", ".l.bias"))]:
        state[name] = (signs @ state[name].float())[None]
    path = tmp_path_factory.mktemp("binary") / "animals.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some test images, and whether they show animals."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    with np.load(ROOT / "tests" / "data" / "val_2000.npz") as val:
        labels = np.isin(val["labels"][:IMAGES], ANIMALS).astype(np.int64)
        np.savez(path, images=val["images"][:IMAGES], labels=labels)
    return path


@pytest.fixture(scope="session")
def features_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LeViT without its head, in 8 bits; tests do not change it but for verdicts."""
    spawner = Spawner(tmp_path_factory.mktemp("features"))
    done = spawner.run(*compile_args("--output", "features", "--precision", "int8"))
    assert done.returncode == 0, done.stderr
    return spawner.folder / "levit_tiny-host-int8"


def outputs_of(library: Path, weights: Path, data: Path, *, features: bool = False):
    """(of PyTorch, of the library) on the same images."""
    checkpoint = load_checkpoint(weights, TINY, features=features)
    loaded = open_audit_images(str(data), checkpoint, skip_broken=False, maximum=None).read(
        range(IMAGES)
    )
    opened = Library(library)
    with torch.no_grad():
        reference = checkpoint.build()(torch.from_numpy(loaded.images.floats))
    return reference.double(), torch.from_numpy(
        np.stack([opened.run(image) for image in loaded.images.floats])
    ).double()


def test_features_are_judged_by_cosine_and_neighbours(cli: Cli, features_int8: Path, data: Path):
    """Figures against torch's own cosine similarity; from compile to the page."""
    args = ("audit", features_int8, "--data", data, "--layer-images", "1")
    done = cli.run(*args, "--json", "--min-agreement", "10", "--min-cosine", "0.9")
    assert done.returncode == 0, done.stderr
    assert "features" in done.stderr
    result = json.loads(done.stdout)
    assert result["accuracies"] == result["flips"] == result["confusion"] == []
    assert [limit["option"] for limit in result["limits"]] == ["--min-agreement", "--min-cosine"]
    assert result["audited"]["classes"] == TINY.channels[-1]

    reference, artifact = outputs_of(features_int8, TINY_WEIGHTS, data, features=True)
    cosines = torch.nn.functional.cosine_similarity(reference, artifact)
    found = result["fidelities"][0]["cosine"]
    assert found["mean"] == pytest.approx(cosines.mean().item(), abs=1e-5)
    assert found["worst"] == pytest.approx(cosines.min().item(), abs=1e-5)
    assert found["worst"] < found["mean"] < 1 - 1e-4  # 8 bits cost something
    nearest = []
    for rows in (reference, artifact):
        unit = torch.nn.functional.normalize(rows)
        nearest.append((unit @ unit.T).fill_diagonal_(-1).argmax(dim=1))
    same = int((nearest[0] == nearest[1]).sum())
    assert result["fidelities"][0]["agreement"]["count"] == same
    assert result["flipped"] == IMAGES - same

    page = (cli.folder / "report" / "audit.html").read_text()
    assert "Same neighbour" in page
    assert 'id="flips"' not in page

    broken = cli.run(*args, "--force", "--min-cosine", "0.99999", "--min-agreement", "10")
    assert broken.returncode == 1
    assert "--min-cosine is broken: cosine of the features, mean over images: 0.9" in broken.stderr


def test_features_are_resumed_and_merged(cli: Cli, features_int8: Path, data: Path):
    """Neighbours are those among all images, whichever run or shard they were in."""
    args = ("audit", features_int8, "--data", data, "--layer-images", "0", "--min-agreement", "10")
    assert cli.run(*args, "-o", "whole").returncode == 0
    for number in (1, 2):
        done = cli.run(*args, "--shard", f"{number}/2", "-o", f"shard-{number}")
        assert done.returncode == 0, done.stderr
    merge = ("audit", "merge", "shard-2", "shard-1", "-o", "merged", "--min-agreement", "10")
    assert cli.run(*merge).returncode == 0
    assert report_bytes(cli.folder / "merged") == report_bytes(cli.folder / "whole")

    (cli.folder / "shard-1" / ".audit" / "timing.json").unlink()
    assert cli.run(*args, "--resume", "-o", "shard-1").returncode == 0
    assert report_bytes(cli.folder / "shard-1") == report_bytes(cli.folder / "whole")


def test_limits_of_another_kind_are_refused(cli: Cli, features_int8: Path, fp32: Path, data: Path):
    features = ("audit", features_int8, "--data", data, "--layer-images", "0")
    assert_refused(cli.run(*features, "--max-drop", "1"), 1, "features have none")
    refused = cli.run(*features, "--max-error", "1")
    assert_refused(refused, 1, "for a single logit, and `levit_tiny_int8` gives features")
    refused = cli.run("audit", fp32, "--data", "demo", "--min-cosine", "0.9")
    assert_refused(refused, 1, "--min-cosine is for features")


@pytest.fixture(scope="session")
def binary_int8(binary_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one logit, in 8 bits."""
    spawner = Spawner(tmp_path_factory.mktemp("binary_int8"))
    options = ("--weights", binary_weights, "--precision", "int8")
    done = spawner.run(*compile_args(*options))
    assert done.returncode == 0, done.stderr
    return spawner.folder / "levit_tiny-host-int8"


def test_one_logit_is_judged_by_its_sign_and_its_error(
    cli: Cli, binary_weights: Path, binary_int8: Path, data: Path
):
    args = ("audit", binary_int8, "--data", data, "--layer-images", "0", "--max-drop", "20")
    done = cli.run(*args, "--json")
    result = json.loads(done.stdout)
    assert [limit["option"] for limit in result["limits"]] == ["--max-drop", "--max-error"]

    reference, artifact = outputs_of(binary_int8, binary_weights, data)
    with np.load(data) as file:
        labels = torch.from_numpy(file["labels"])[:, None]
    for accuracy, values in zip(result["accuracies"], (reference, artifact), strict=False):
        assert accuracy["top1"]["count"] == ((values > 0) == labels).sum() > 0.8 * IMAGES
    fidelity = result["fidelities"][0]
    assert fidelity["agreement"]["count"] == ((reference > 0) == (artifact > 0)).sum()
    error = ((artifact - reference) ** 2).mean().sqrt() / reference.std(unbiased=False)
    assert fidelity["spread_error"] == pytest.approx(error.item(), rel=1e-3)
    assert fidelity["cosine"] is None
    assert result["limits"][1]["value"] == pytest.approx(100 * error.item(), rel=1e-3)
    pairs = {(cell["label"], cell["predicted"]) for cell in result["confusion"]}
    assert {(0, 0), (1, 1)} <= pairs <= {(0, 0), (0, 1), (1, 0), (1, 1)}

    strict = cli.run(*args, "--force", "--max-error", "0.001")
    assert strict.returncode == 1
    assert "--max-error is broken" in strict.stderr


def test_folders_of_one_logit_are_its_signs(cli: Cli, binary_int8: Path):
    """The first is below zero; named the other way round, the reference is worse than chance."""
    with np.load(ROOT / "tests" / "data" / "val_2000.npz") as val:
        for index in range(40):
            name = "animal" if val["labels"][index] in ANIMALS else "other"
            path = cli.folder / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(val["images"][index]).save(path)
    args = ("audit", binary_int8, "--data", "photos", "--layer-images", "0", "--force")
    done = cli.run(*args)
    assert done.returncode == 1
    assert "no better than guessing among 2 classes" in " ".join(done.stdout.split())
    (cli.folder / "photos" / "animal").rename(cli.folder / "photos" / "yes")
    done = cli.run(*args, "--json", "--max-drop", "20")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accuracies"][0]["top1"]["count"] > 32
    assert result["audited"]["class_names"] == ["other", "yes"]
