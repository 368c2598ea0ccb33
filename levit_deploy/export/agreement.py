"""Does the exported graph compute what the PyTorch reference computes? Through ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.models.reference import Levit
from levit_deploy.models.rounding_cost import Floats, evaluate, rounding_bound, share_of_range


def check_against_reference(exported: ExportedModel, net: Levit, images: Floats) -> float:
    """The largest difference in any logit, as a share of the range of the reference's logits.

    images: (n, channels, size, size) normalised. The range counts zero in, so that a single class
    has one too. Raises DeployError if the share is not a number, or above what float32 costs this
    net on these images in another order of its sums.
    """
    session = onnxruntime.InferenceSession(
        exported.graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    logits = np.concatenate(
        [session.run([OUTPUT_NAME], {INPUT_NAME: image[None]})[0] for image in images]
    )
    expected = evaluate(net, images)
    difference = share_of_range(expected, logits)
    bound = rounding_bound(net, images)
    if not difference <= bound:
        raise DeployError(
            f"the exported `{exported.name}` differs from the PyTorch reference by "
            f"`{difference:.1e}` of the logits' range; rounding explains {bound:.1e}",
            hint="check the checkpoint for weights or BatchNorm statistics of extreme size",
        )
    return difference
