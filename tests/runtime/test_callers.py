"""What a caller may do: modes of floating point, odd values, tight memory, small stacks, crowds.

The programs are in callers/; they call a whole LeViT, tiny and randomised, in float and in 8 bits.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.self_test import SelfTest, self_test_image
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.compiler.graphs import Array, reference
from tests.compiler.levit import exported_tiny
from tests.compiler.quantized import quantized_attention
from tests.compiler.test_bits import demo_model
from tests.machine import prefix_for

CALLERS = Path(__file__).with_name("callers")
MODELS = {"fp32": exported_tiny, "int8": quantized_attention}
REAL = {f"levit_128s {name}": functools.partial(demo_model, name) for name in MODELS}
TARGETS = ["host", "arm64", "armv7"]


@functools.cache
def kept_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def self_test(model: ExportedModel) -> SelfTest:
    """The logits are ONNX Runtime's; a step of 8 bits that falls the other way moves them."""
    normalised = (self_test_image(model.image_size, 3) / 255 - model.card.normalization.mean) / (
        np.array(model.card.normalization.std)
    )
    logits = reference(model, normalised.transpose(2, 0, 1)[None].astype(np.float32))
    return SelfTest(tuple(map(float, logits)), 2e-2 * float(np.ptp(logits)))


@functools.cache
def library(name: str, target: str) -> tuple[Toolchain, Artifact]:
    """The model `name` of those above, as a library called `tiny`."""
    toolchain, model = find_toolchain(get_target(target)), {**MODELS, **REAL}[name]()
    program = compile_model(model, toolchain.target, name="tiny")
    folder = Path(kept_folder().name, name)
    return toolchain, build_artifact(program, toolchain, self_test(model), folder)


def output_of(name: str, model: str, target: str, folder: Path, *arguments: str) -> str:
    """What the caller `name` prints, linked with the static library; it must succeed."""
    prefix = prefix_for(get_target(target))
    toolchain, artifact = library(model, target)
    program = folder / f"{name}-{target}"
    inputs = [CALLERS / f"{name}.c", artifact.static_library]
    toolchain.link_program(inputs, program, (f"-I{artifact.folder}",))
    done = subprocess.run(
        [*prefix, program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        *(("fp32", "host"), ("int8", "host"), ("fp32", "arm64")),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [("int8", "arm64"), ("fp32", "armv7"), ("int8", "armv7")]
        ),
    ],
)
@pytest.mark.parametrize("name", ["modes", "guards", "stack"])
def test_it_succeeds(name: str, precision: str, target: str, tmp_path: Path) -> None:
    output_of(name, precision, target, tmp_path)


def test_guards_guard(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit -11"):
        output_of("guards", "fp32", "host", tmp_path, "touch")


def test_many_callers_at_once(tmp_path: Path) -> None:
    for precision in MODELS:
        output_of("crowd", precision, "host", tmp_path)


@functools.cache
def host_values(precision: str) -> str:
    return output_of("values", precision, "host", Path(kept_folder().name))


def odd_image(model: ExportedModel, bits: int, everywhere: bool) -> Array:
    """As values.c makes it."""
    image = (np.arange(3 * model.image_size**2) * 7919 % 1000).astype(np.float32) / 250 - 2
    image[:: 2 if everywhere else image.size] = np.uint32(bits).view(np.float32)
    return image.reshape(1, 3, model.image_size, model.image_size)


SLOW_TARGETS = [
    "x86-64",
    "x86-64-v3",
    "x86-64-v4",
    "x86-64-v4-vnni",
    "arm64-dotprod",
    "arm64-i8mm",
]


@pytest.mark.parametrize(
    "target",
    [*TARGETS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TARGETS)],
)
@pytest.mark.parametrize("precision", MODELS)
def test_values_that_no_picture_has(precision: str, target: str, tmp_path: Path) -> None:
    """NaN in, NaN out; what is finite is defined, with FMA to the bit."""
    model, output = MODELS[precision](), output_of("values", precision, target, tmp_path)
    if get_target(target).fma:
        assert output == host_values(precision)
    assert len(output.splitlines()) == 14
    for line in output.splitlines():
        bits, everywhere, *words = line.split()
        logits = np.array([int(word, 16) for word in words], np.uint32).view(np.float32)
        expected = reference(model, odd_image(model, int(bits, 16), everywhere == "1"))
        bound = (2e-2 if precision == "int8" else 1e-5) * np.ptp(expected)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=bound, err_msg=line)


@pytest.mark.slow
@pytest.mark.parametrize("target", [*TARGETS, *SLOW_TARGETS])
@pytest.mark.parametrize("model", REAL)
@pytest.mark.parametrize("name", ["guards", "stack"])
def test_a_real_network(name: str, model: str, target: str, tmp_path: Path) -> None:
    output_of(name, model, target, tmp_path)
