"""Does the exported graph compute what the PyTorch reference computes? Through ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.models.reference import Levit

TOLERANCE = 1e-4  # of the range of the logits; float32 rounding stays a hundred times below


def check_against_reference(
    exported: ExportedModel, net: Levit, images: NDArray[np.float32]
) -> float:
    """The largest difference in any logit, as a share of the range of the reference's logits.

    images: (n, 3, size, size) normalised RGB. The range counts zero in, so that a single class has
    one too. Raises DeployError if the share is above `TOLERANCE` or not a number.
    """
    session = onnxruntime.InferenceSession(
        exported.graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    logits = np.concatenate(
        [session.run([OUTPUT_NAME], {INPUT_NAME: image[None]})[0] for image in images]
    )
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    difference = float(np.abs(logits - expected).max() / np.ptp(np.append(expected, 0.0)))
    if not difference <= TOLERANCE:
        raise DeployError(
            f"the exported `{exported.name}` differs from the PyTorch reference by "
            f"`{difference:.1e}` of the logits' range, above {TOLERANCE:.0e}",
            hint="check the checkpoint for weights or BatchNorm statistics of extreme size",
        )
    return difference
