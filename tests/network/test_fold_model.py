"""All folds together, exact in float64; what is no LeViT is refused by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from levit_deploy.network.fold_model import fold_model
from tests.network.forward import forward
from tests.randomize import randomize


@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        replace(TINY, image_size=112, depths=(2, 1, 2)),
        replace(TINY, image_size=80, distilled=False),
    ],
)
def test_the_folded_network_is_the_reference(spec):
    net = randomize(Levit(spec), seed=4)
    shape = (2, 3, spec.image_size, spec.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    logits = forward(fold_model(net), images)
    with torch.inference_mode():
        expected = net.double()(images).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-11, atol=1e-11)


def test_a_batchnorm_left_is_refused_by_name(random_tiny):
    random_tiny.blocks[1].m.append(torch.nn.BatchNorm1d(32))
    with pytest.raises(DeployError, match=r"BatchNorm `blocks\.1\.m\.3` is left"):
        fold_model(random_tiny)


@pytest.mark.parametrize("foreign", [torch.nn.GELU(), torch.nn.Linear(32, 32)])
def test_a_foreign_block_is_refused_by_name(random_tiny, foreign):
    random_tiny.blocks[1] = foreign
    with pytest.raises(DeployError, match=r"`blocks\.1` is a"):
        fold_model(random_tiny)
