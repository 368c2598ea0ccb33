"""A LeViT of timm's for grey pictures, from its checkpoint to the library, against timm's model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.deploy import Calibration, Deployment, deploy
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.spec import FAMILY, TINY
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.report import Outcome
from tests.machine import prefix_for
from tests.models.libraries import timm_model, timm_module
from tests.randomize import randomize

MEAN, STD = 0.449, 0.226  # ImageNet's, as timm averages them


@dataclass(frozen=True)
class Grey:
    """`theirs`: timm's model. `folder`: pictures, grey and coloured, of several sizes."""

    theirs: nn.Module
    checkpoint: Checkpoint
    folder: Path

    def pixels(self) -> list[NDArray[np.uint8]]:
        """timm's evaluation transform up to its tensor, by Pillow: (size, size)."""
        return [self._pixels(Image.open(path)) for path in sorted(self.folder.iterdir())]

    def _pixels(self, picture: Image.Image) -> NDArray[np.uint8]:
        size = self.checkpoint.spec.image_size
        grey, side = picture.convert("L"), int(size / 0.9)
        shorter = min(grey.size)
        width, height = (side * length // shorter for length in grey.size)
        resized = grey.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return np.asarray(resized.crop((left, top, left + size, top + size)))

    def inputs(self) -> NDArray[np.float32]:
        pixels = np.stack(self.pixels())[:, None].astype(np.float32) / 255
        return (pixels - np.float32(MEAN)) / np.float32(STD)

    def logits(self) -> NDArray[np.float32]:
        with torch.no_grad():
            return self.theirs(torch.from_numpy(self.inputs())).numpy()

    def deploy(self, target: str, parent: Path, precision: str = "fp32") -> Deployment:
        calibration = None
        if precision == "int8":
            way, size = self.checkpoint.preprocessing, self.checkpoint.spec.image_size
            images = open_images(str(self.folder), way, size, channels=1)
            calibration = Calibration(images, DEFAULT_RECIPE)
        toolchain = find_toolchain(get_target(target))
        return deploy(self.checkpoint, toolchain, parent, calibration=calibration)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(demo_images(DemoSplit.TEST).images[:24]):
        size = (60 + 7 * (number % 5), 90 - 6 * (number % 7))
        picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        picture.convert("RGB" if number % 2 else "L").save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Grey:
    work = tmp_path_factory.mktemp("grey")
    theirs = randomize(timm_model(replace(TINY, in_chans=1), conv=False), seed=1).eval()
    torch.save(theirs.state_dict(), work / "grey.pth")
    return Grey(theirs, load_checkpoint(work / "grey.pth"), pictures(work / "pictures"))


def close(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return bool(np.abs(logits - expected).max() <= 1e-4 * np.ptp(expected))


def check_logits(grey: Grey, library: Library) -> None:
    expected = grey.logits()
    assert close(np.stack([library.run(image) for image in grey.inputs()]), expected)
    assert close(np.stack([library.run_gray8(pixels) for pixels in grey.pixels()]), expected)
    assert np.ptp(expected, axis=0).max() >= 1e-2 * np.ptp(expected)  # the pictures tell


def test_float32(grey: Grey, tmp_path: Path) -> None:
    done = grey.deploy("host", tmp_path)
    assert done.verification.passed
    library = Library(done.artifact.folder)
    check_logits(grey, library)
    said = library.describe()
    assert (said.channels, said.mean, said.std) == (
        1,
        (pytest.approx(MEAN),),
        (pytest.approx(STD),),
    )
    with pytest.raises(DeployError, match="reads images of 1 channels"):
        library.run_rgb8(np.zeros((64, 64, 3), np.uint8))
    exported = {s.name for s in Elf.read(done.artifact.shared_library).symbols if s.defined}
    name = done.artifact.manifest.name
    assert {f"{name}_run_gray8", f"{name}_run_gray8_threads"} < exported
    assert not any("rgb" in symbol for symbol in exported)
    header = done.artifact.header.read_text()
    assert f"#define {name.upper()}_CHANNELS 1 /* grey */" in header
    assert done.artifact.manifest.card.in_chans == 1


def test_the_pictures_of_a_set_are_timms(grey: Grey) -> None:
    way, size = grey.checkpoint.preprocessing, grey.checkpoint.spec.image_size
    images = list(open_images(str(grey.folder), way, size, channels=1))
    assert all(np.array_equal(a[..., 0], b) for a, b in zip(images, grey.pixels(), strict=True))


def test_int8(grey: Grey, tmp_path: Path) -> None:
    done = grey.deploy("host", tmp_path, "int8")
    assert done.verification.passed
    checks = done.verification.checks
    assert [check.what.split()[0] for check in checks] == ["run", "run_gray8", "run_frame"] * 2
    assert all(check.outcome is Outcome.PASSED for check in checks)
    library, expected = Library(done.artifact.folder), grey.logits()
    logits = np.stack([library.run_gray8(pixels) for pixels in grey.pixels()])
    correlation = np.corrcoef(logits.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.99


def test_another_architecture(grey: Grey, tmp_path: Path) -> None:
    prefix_for(get_target("arm64"))
    checks = grey.deploy("arm64", tmp_path).verification.checks
    assert [check.what.split()[0] for check in checks] == ["run", "run_gray8", "run_frame"]
    assert all(check.outcome is Outcome.PASSED for check in checks)


@pytest.mark.slow
def test_levit_128s_of_a_hub_folder(tmp_path: Path) -> None:
    theirs = timm_module("timm").create_model("levit_128s", in_chans=1)
    randomize(theirs, seed=2).eval()
    hub = timm_module("timm.models._hub")
    hub.save_for_hf(theirs, tmp_path / "saved", safe_serialization=True)
    checkpoint = load_checkpoint(tmp_path / "saved")
    expected = replace(FAMILY["levit_128s"], in_chans=1)
    assert replace(checkpoint.spec, normalization=expected.normalization) == expected
    assert checkpoint.card.mean == pytest.approx((MEAN,))
    grey = Grey(theirs, checkpoint, pictures(tmp_path / "pictures"))
    done = grey.deploy("host", tmp_path / "fp32")
    check_logits(grey, Library(done.artifact.folder))
    assert grey.deploy("host", tmp_path / "int8", "int8").verification.passed
