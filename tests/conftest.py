"""What every room's tests share: where the data is, and a LeViT small enough to run everywhere."""

import signal
from pathlib import Path

import pytest
import torch

from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.randomize import randomize

pytest_plugins = ["tests.deployment"]  # its fixtures are made once for all rooms

# The nets are small: more threads only wait for each other, above all beside other test workers.
torch.set_num_threads(1)

# What a shell runs in the background ignores Ctrl-C, and so would all that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """tests/data: tiny trained LeViT, 2000 labelled test images, reference logits of both nets."""
    return Path(__file__).parent / "data"


@pytest.fixture
def random_tiny() -> Levit:
    """The tiny LeViT with every weight, bias and statistic randomised."""
    return randomize(Levit(TINY), seed=0)


@pytest.fixture
def trained_tiny(data_dir: Path) -> Levit:
    """The tiny LeViT as trained on CIFAR-10; its last stage has one token, so q and k are idle."""
    state = torch.load(data_dir / "levit_tiny_cifar10.pth", weights_only=True)["model"]
    module = Levit(TINY)
    module.load_state_dict(state)
    return module
