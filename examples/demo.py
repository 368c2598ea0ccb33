"""`make demo`: compile LeViT-128S with the shipped weights, classify real images with the library.

The library is made by the command that a user would type; what follows needs only the `.so` file.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.demo import DEMO_MODEL, DEMO_WEIGHTS, DemoSplit, demo_images
from levit_deploy.models.images import LabelledImages, model_input, rgb8_input
from levit_deploy.models.rounding_cost import rounding_cost
from levit_deploy.models.spec import get_spec
from levit_deploy.runtime.loader import Library
from levit_deploy.verify.comparison import Logits, compare
from levit_deploy.verify.tolerance import CLOSE

OUTPUT = Path("build")
SHOWN = 8
MEASURED = 32  # images on which float32 is held against float64, for the tolerance


def main() -> None:
    compile_command = f"compile --target host {DEMO_MODEL} --weights demo -o {OUTPUT}"
    print(f"$ levit-deploy {compile_command}", flush=True)
    levit_deploy = (sys.executable, "-m", "levit_deploy.cli")  # the same, wherever it is installed
    if code := subprocess.call([*levit_deploy, *shlex.split(compile_command)]):
        sys.exit(code)

    library = Library(OUTPUT / f"{DEMO_MODEL}-host-fp32")
    pictures = demo_images(DemoSplit.TEST)
    spec = get_spec(DEMO_MODEL)
    pixels = rgb8_input(pictures.images, spec.image_size)

    print(f"\nThe first {SHOWN} of {len(pixels)} CIFAR-10 test images, by `{library.path.name}`:")
    print("  is          answer      softmax")
    for image, label in zip(pixels[:SHOWN], pictures.labels[:SHOWN], strict=True):
        logits = library.run_rgb8(image)
        share = np.exp(logits - logits.max())
        share /= share.sum()
        answer = int(share.argmax())
        truth = pictures.classes[label]
        print(f"  {truth:<11} {pictures.classes[answer]:<11} {share[answer]:.1%}")

    print(f"\nAll {len(pixels)} images, the library beside the PyTorch reference ...", flush=True)
    floats = model_input(pictures.images, spec)
    logits = np.stack([library.run(image) for image in floats])
    network = load_checkpoint(DEMO_WEIGHTS, spec).build()
    with torch.inference_mode():
        reference = torch.cat([network(torch.from_numpy(image)[None]) for image in floats]).numpy()
    tolerance = CLOSE.of(rounding_cost(network, floats[:MEASURED]))
    comparison = compare(reference, logits, tolerance)
    print(f"  library                {_share_correct(logits, pictures)} correct")
    print(f"  PyTorch                {_share_correct(reference, pictures)} correct")
    print(f"  {comparison.describe()}")
    sys.exit(0 if comparison else 1)


def _share_correct(logits: Logits, pictures: LabelledImages) -> str:
    return f"{np.mean(logits.argmax(axis=1) == pictures.labels):.1%}"


if __name__ == "__main__":
    main()
