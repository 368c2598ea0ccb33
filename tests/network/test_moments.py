"""What BatchNorms know of a network's tensors, against those tensors in training itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import ConvBN, Levit, LinearBN
from levit_deploy.models.spec import TINY
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.moments import trained_moments
from tests.randomize import randomize


def test_they_are_those_of_the_batch_that_was_trained_on():
    """One step of training with momentum 1: then the statistics are the batch's own."""
    net = randomize(Levit(TINY), seed=2).double().train()
    written: dict[str, np.ndarray] = {}

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            tensor = output.movedim(1, -1) if output.ndim == 4 else output
            written[name] = tensor.flatten(0, -2).numpy()

        return hook

    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
        elif isinstance(module, ConvBN | LinearBN):
            module.register_forward_hook(keep(name))
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        net(images)
    moments = trained_moments(net.eval())
    readers = {layer.name for layer, tensor in fold_model(net).reading()}
    assert set(moments) == set(written) == readers - {"head"}
    for name, seen in written.items():
        np.testing.assert_allclose(moments[name].mean, seen.mean(axis=0), atol=1e-9, err_msg=name)
        np.testing.assert_allclose(
            moments[name].deviation, seen.std(axis=0), rtol=1e-3, err_msg=name
        )


def test_folded_batchnorms_know_nothing():
    net = randomize(Levit(TINY), seed=2)
    net.blocks[0].m.qkv.bn.running_mean.zero_()
    with pytest.raises(DeployError, match=r"BatchNorm of `blocks\.0\.m\.qkv` is folded") as caught:
        trained_moments(net)
    assert "--data" in str(caught.value.hint)
