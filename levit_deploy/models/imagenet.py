"""ImageNet-1k's classes: WordNet's ids, which its folders are called by, and names."""

from __future__ import annotations

import functools
from pathlib import Path

from levit_deploy.records import read_json

_FILE = Path(__file__).parent / "data" / "imagenet_1k.json"


@functools.cache
def imagenet_classes() -> dict[str, str]:
    """`n01440764` -> `tench, Tinca tinca`, in the order of the outputs of networks."""
    content = read_json(_FILE, hint="install levit-deploy again")
    assert isinstance(content, dict)
    return {str(synset): str(words) for synset, words in content["classes"].items()}
