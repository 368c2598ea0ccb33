"""The reference module against a training run's own logits and original key names."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from levit_deploy.models.images import model_input
from levit_deploy.models.reference import Levit, attention_bias_indices
from levit_deploy.models.spec import FAMILY, TINY
from tests.randomize import randomize


def test_trained_tiny_gives_the_logits_of_its_training_run(
    trained_tiny: Levit, data_dir: Path
) -> None:
    pixels = np.load(data_dir / "val_2000.npz")["images"][:100]
    expected = np.load(data_dir / "levit_tiny_ref_logits_val2000.npz")["logits"][:100]
    image = torch.from_numpy(model_input(pixels, TINY))
    with torch.no_grad():
        logits = trained_tiny(image).numpy()
    assert np.abs(logits - expected).max() <= 1e-5 * np.ptp(expected)


def test_keys_are_those_of_the_original_repository(data_dir: Path) -> None:
    original = torch.load(data_dir / "levit_tiny_cifar10.pth", weights_only=True)["model"]
    ours = Levit(TINY).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in original.items()}


@pytest.mark.parametrize(("grid", "stride"), [(1, 1), (2, 2), (4, 1), (5, 2), (7, 1), (14, 2)])
def test_bias_indices_enumerate_offsets_as_the_original_does(grid: int, stride: int) -> None:
    """The original numbers the offsets in the order in which its loops meet them first."""
    points = list(itertools.product(range(grid), range(grid)))
    queries = list(itertools.product(range(0, grid, stride), range(0, grid, stride)))
    seen: dict[tuple[int, int], int] = {}
    expected = [
        [seen.setdefault((abs(qy - ky), abs(qx - kx)), len(seen)) for ky, kx in points]
        for qy, qx in queries
    ]
    assert attention_bias_indices(grid, stride).tolist() == expected
    with torch.device("meta"):
        assert attention_bias_indices(grid, stride).shape == np.shape(expected)
    assert len(seen) == grid * grid


# Millions, from table 2 of the paper.
PAPER = {
    "levit_128s": 7.8, "levit_128": 9.2, "levit_192": 10.9, "levit_256": 18.9, "levit_384": 39.1
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_family_has_the_parameter_counts_of_the_paper(name: str) -> None:
    with torch.device("meta"):
        module = Levit(FAMILY[name])
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    assert millions == pytest.approx(PAPER[name], abs=0.06)


@pytest.mark.parametrize("image_size", [16, 32, 48, 80, 112])
@pytest.mark.parametrize("distilled", [True, False])
def test_any_multiple_of_16_and_any_class_count(image_size: int, distilled: bool) -> None:
    spec = replace(TINY, image_size=image_size, classes=3, distilled=distilled)
    module = randomize(Levit(spec), seed=1)
    with torch.no_grad():
        logits = module(torch.randn(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()
    assert hasattr(module, "head_dist") is distilled


def test_randomized_tiny_uses_every_tensor(random_tiny: Levit) -> None:
    """A tensor without influence on the logits could hide a wrong fold."""
    spec = replace(TINY, image_size=96)  # three tokens a side at the end: every bias is read
    module = randomize(Levit(spec), seed=2)
    logits = module(torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3)))
    logits.square().sum().backward()
    idle = [n for n, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []
