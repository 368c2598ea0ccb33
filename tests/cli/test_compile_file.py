"""`compile FILE.onnx`: what export and quantize wrote, in its own precision, no weights named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.loader import Library
from levit_deploy.verify.images import real_images
from tests.cli.conftest import TINY_WEIGHTS, Cli


@pytest.fixture
def float_file(cli: Cli) -> Path:
    done = cli.run("export", "levit_tiny", "--weights", TINY_WEIGHTS, "-o", "tiny.onnx")
    assert done.returncode == 0, done.stderr
    return cli.folder / "tiny.onnx"


def test_a_float_file_gives_the_library_of_its_weights(
    cli: Cli, float_file: Path, compiled: tuple[Path, str]
):
    done = cli.run("compile", "--target", "host", float_file, "--json")
    assert done.returncode == 0, done.stderr
    result, of_weights = json.loads(done.stdout), json.loads(compiled[1])
    assert result["verification"]["passed"]
    assert result["verification"]["reference"] == "exported model in ONNX Runtime"
    (mean,) = (line for line in done.stderr.splitlines() if line.startswith("mean "))
    assert mean.split()[1:4] == ["0.485", "0.456", "0.406"]
    assert result["files"]["levit_tiny.h"] == of_weights["files"]["levit_tiny.h"]
    folder = cli.folder / "levit_tiny-host-fp32"
    image = real_images(TINY, 1, ORIGINAL_PREPROCESSING).floats[0]
    logits, of_weights_too = (Library(where).run(image) for where in (folder, compiled[0]))
    assert logits.tobytes() == of_weights_too.tobytes()
    again = cli.run("verify", folder, "--weights", float_file)
    assert again.returncode == 0, again.stderr
    with_weights = cli.run("verify", folder, "--weights", TINY_WEIGHTS)
    assert with_weights.returncode == 0, with_weights.stderr


def test_an_8_bit_file_gives_an_8_bit_library(cli: Cli):
    made = cli.run(
        *("quantize", "levit_tiny", "--weights", TINY_WEIGHTS, "--data", "demo"),
        *("--recipe", "w8a8-plain", "-o", "q.onnx"),
    )
    assert made.returncode == 0, made.stderr
    done = cli.run("compile", "--target", "host", "q.onnx", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verification"]["passed"]
    assert result["verification"]["reference"] == "8-bit model in ONNX Runtime"
    folder = cli.folder / "levit_tiny-host-int8"
    assert (folder / "liblevit_tiny_int8.so").exists()
    again = cli.run("verify", folder, "--weights", "q.onnx")
    assert again.returncode == 0, again.stderr


def test_a_graph_edited_by_hand_is_refused_by_its_node(cli: Cli, float_file: Path):
    model = onnx.load(float_file)
    next(n for n in model.graph.node if n.op_type == "HardSwish").op_type = "Relu"
    onnx.save(model, float_file)
    done = cli.run("compile", "--target", "host", float_file)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "error: this graph is no LeViT of levit-deploy: the Relu node `patch_embed.1` does not fit"
    )
    assert "hint:" in done.stderr
    assert [path.name for path in cli.folder.iterdir()] == [float_file.name]


def test_edited_weights_compile_to_what_they_say(cli: Cli, float_file: Path):
    """The file is the model: another bias is another library, and no longer that of the weights."""
    model = onnx.load(float_file)
    (bias,) = (c for c in model.graph.initializer if c.name == "head.bias")
    values = numpy_helper.to_array(bias) + np.float32(3)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, float_file)
    done = cli.run("compile", "--target", "host", float_file)
    assert done.returncode == 0, done.stderr
    wrong = cli.run("verify", "levit_tiny-host-fp32", "--weights", TINY_WEIGHTS)
    assert wrong.returncode == 1


@pytest.mark.parametrize(
    "options", [("--weights", "demo"), ("--precision", "int8"), ("--data", "demo")]
)
def test_options_about_weights_are_refused(cli: Cli, float_file: Path, options: tuple[str, str]):
    done = cli.run("compile", "--target", "host", float_file, *options)
    assert done.returncode == 2
    assert f"{options[0]} is for weights" in done.stderr


def test_a_file_that_is_not_there(cli: Cli):
    done = cli.run("compile", "--target", "host", "absent.onnx")
    assert done.returncode == 1
    assert "cannot read `absent.onnx`" in done.stderr
