"""What a library must say of itself to be the one of its manifest.

The child that runs a library compares the two before it runs anything else of it: library_worker,
and csrc/run_images.c.
"""

from __future__ import annotations

import numpy as np

from levit_deploy.runtime.manifest import Manifest
from levit_deploy.verify.library_worker import FIELDS, description_text


def expected_description(manifest: Manifest, level: str | None = None) -> str:
    """`description_text` of the library that `manifest` is of, with `level` in use."""
    values = {name: getattr(manifest, name) for name in FIELDS if hasattr(manifest, name)}
    return description_text(
        {
            **values,
            "target": level or manifest.target,
            "channels": manifest.card.in_chans,
            "exif": manifest.card.preprocessing.exif,
            "tool_version": manifest.versions.get("levit-deploy"),
            "preprocessing": manifest.card.recipe,
            "mean": tuple(map(np.float32, manifest.card.normalization.mean)),
            "std": tuple(map(np.float32, manifest.card.normalization.std)),
        }
    )
