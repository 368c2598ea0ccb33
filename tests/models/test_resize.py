"""A smaller size reads the biases of the same offsets, and a larger one has none to read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.reference import Levit, attention_bias_indices
from levit_deploy.models.resize import for_image_size
from levit_deploy.models.spec import TINY
from tests.randomize import randomize


@pytest.mark.parametrize(("trained", "size"), [(96, 64), (112, 64), (80, 16), (96, 96)])
def test_biases_of_each_offset(trained: int, size: int, tmp_path: Path) -> None:
    """A corner of the trained grid holds the same tokens: its table is that of the small one."""
    net = randomize(Levit(replace(TINY, image_size=trained)), seed=1)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    small = for_image_size(load_checkpoint(tmp_path / "a.pth"), size)
    assert (small.spec.image_size, small.card.image_size) == (size, size)
    assert small.card.sources["image_size"] == "--size"
    compared = 0
    for name, biases in net.state_dict().items():
        if not name.endswith("attention_biases"):
            continue
        stride = 1 if ".m." in name else 2
        grid = int(biases.shape[1] ** 0.5)
        cut = int(small.state[name].shape[1] ** 0.5)
        queries, corner = -(-grid // stride), -(-cut // stride)
        table = biases[:, attention_bias_indices(grid, stride)]
        table = table.unflatten(2, (grid, grid)).unflatten(1, (queries, queries))
        expected = table[:, :corner, :corner, :cut, :cut].flatten(3).flatten(1, 2)
        got = small.state[name][:, attention_bias_indices(cut, stride)]
        assert torch.equal(got, expected)
        compared += 1
    assert compared == 5
    assert small.build()(torch.zeros(1, 3, size, size)).shape == (1, 10)


def test_sizes_that_cannot_be(tmp_path: Path) -> None:
    torch.save(Levit(TINY).state_dict(), tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(DeployError, match="the weights are for 64 px: at `80`") as caught:
        for_image_size(checkpoint, 80)
    assert "at most 64" in str(caught.value.hint)
    with pytest.raises(DeployError, match="image size `50`"):
        for_image_size(checkpoint, 50)
