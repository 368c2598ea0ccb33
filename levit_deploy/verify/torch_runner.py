"""The reference itself."""

from __future__ import annotations

import torch

from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.runner import Runner


class TorchRunner(Runner):
    """A module (n, channels, size, size) -> (n, classes), one image at a time, as on a device."""

    name = "torch reference"

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module.eval()

    @torch.inference_mode()
    def infer(self, images: Images) -> Logits:
        batch = torch.from_numpy(images.floats)
        logits: Logits = torch.cat([self._module(one[None]) for one in batch]).numpy()
        return logits
