"""What weights mean: read from their folder, said, and overridden from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from levit_deploy.models.spec import TINY
from tests.cli.conftest import TINY_WEIGHTS, Cli
from tests.models.libraries import timm_model, transformers_model, transformers_processor
from tests.randomize import randomize


def folder_of_transformers(folder: Path) -> Path:
    """Trained otherwise than ImageNet's nets: 0.5 everywhere, squashed pictures, own labels."""
    model = randomize(transformers_model(replace(TINY, depths=(2, 1, 1), classes=3)), seed=1).inner
    model.config.id2label = {0: "zebra", 1: "ape", 2: "newt"}
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    processor = transformers_processor(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, size=size, crop_size=size, resample=2
    )
    processor.save_pretrained(folder)
    return folder


def output_of(model: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (input_,) = session.get_inputs()
    return session.run(None, {input_.name: image})[0]


def test_a_folder_says_all(cli: Cli):
    """Compiled, and verified against the same, with nothing given but the folder."""
    folder = folder_of_transformers(cli.folder / "mine")
    done = cli.run("compile", "--target", "host", "--weights", folder, "-o", "build")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "mean 0.5 0.5 0.5 from preprocessor_config.json" in told
    assert "labels zebra, ape, newt from config.json" in told
    assert "both sides bilinear to 64" in told
    artifact = cli.folder / "build" / "levit_custom-host-fp32"
    card = json.loads((artifact / "manifest.json").read_text())["card"]
    assert (card["mean"], card["labels"]) == ([0.5] * 3, ["zebra", "ape", "newt"])
    verified = cli.run("verify", artifact, "--weights", folder, "--images", "2")
    assert verified.returncode == 0, verified.stderr


def test_options_go_before_files(cli: Cli):
    folder = folder_of_transformers(cli.folder / "mine")
    (cli.folder / "labels.txt").write_text("a\nb\nc\n")
    options = ["--mean", "0.1,0.2,0.3", "--std", "0.25", "--labels", "labels.txt"]
    options += ["--preprocess", "timm", "--class-order", "natural"]
    done = cli.run("export", "--weights", folder, *options)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    for line in (
        "mean 0.1 0.2 0.3 from --mean",
        "std 0.25 0.25 0.25 from --std",
        "labels a, b, c from --labels",
        "timm: shorter side bicubic to 71, centre 64 from --preprocess",
        "class_order natural from --class-order",
    ):
        assert line in told
    assert (cli.folder / "levit_custom.onnx").is_file()


def test_features_in_place_of_logits(cli: Cli):
    """timm's own `forward_features`, pooled."""
    model = randomize(timm_model(replace(TINY, distilled=False), conv=False), seed=2)
    torch.save(model.state_dict(), cli.folder / "a.pth")
    options = ("--weights", "a.pth", "--output", "features", "-o", "features.onnx")
    done = cli.run("export", "levit_tiny", *options)
    assert done.returncode == 0, done.stderr
    assert "levit_tiny, 64 px, features" in done.stderr
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(image), pre_logits=True).numpy()
    got = output_of(cli.folder / "features.onnx", image.numpy())
    assert np.abs(got - expected).max() <= 1e-4 * np.ptp(expected)


def test_a_smaller_size(cli: Cli):
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "--size", "48")
    assert done.returncode == 0, done.stderr
    assert "input 3 x 48 x 48 from --size" in " ".join(done.stderr.split())
    shape = onnx.load(cli.folder / "levit_tiny.onnx").graph.input[0].type.tensor_type.shape
    assert [axis.dim_value for axis in shape.dim[1:]] == [3, 48, 48]


def test_the_average_is_told_and_chosen_otherwise(cli: Cli):
    weights = torch.load(TINY_WEIGHTS.with_suffix(".pth"), weights_only=True)["model"]
    raw = {n: t * 0.5 if t.is_floating_point() else t for n, t in weights.items()}
    torch.save({"state_dict": raw, "state_dict_ema": weights}, cli.folder / "run.pth.tar")
    average = cli.run("export", "levit_tiny", "--weights", "run.pth.tar", "--json")
    assert "--key state_dict" in average.stderr
    chosen = cli.run(
        "export", "levit_tiny", "--weights", "run.pth.tar", "--json", "--key", "state_dict"
    )
    assert "moving average" not in chosen.stderr
    digests = {json.loads(done.stdout)["weights_digest"] for done in (average, chosen)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--mean", "half"), 2, "`half` is not numbers"),
        (("--mean", "0.5,0.5"), 1, "takes 3 channels"),
        (("--std", "0"), 1, "is not positive"),
        (("--labels", "none.txt"), 1, "no labels at `none.txt`"),
        (("--labels", "a,b"), 1, "gives `2` labels, the model has 10 classes"),
        (("--preprocess", "best"), 1, "`--preprocess best` is no preprocessing"),
        (("--class-order", "random"), 2, "'random' is not one of"),
        (("--key", "ema"), 1, "no LeViTs under the key `ema`"),
        (("--size", "80"), 1, "the weights are for 64 px"),
        (("--size", "50"), 1, "image size `50`"),
        (("-o", "a.onnx", "-o", "b.onnx"), 2, "one place is enough"),
    ],
)
def test_options_that_do_not_fit(cli: Cli, options: tuple[str, ...], code: int, message: str):
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(cli.folder.iterdir())


def test_official_weights_need_a_name(cli: Cli):
    done = cli.run("export", "--offline")
    assert done.returncode == 1
    assert "weights of several models" in done.stderr
