"""The value of `--weights` -> a checkpoint: a tag, a URL or a path.

`fb_dist_in1k`: the official weights, downloaded once to the user's cache. `demo`: those in the
package. http(s)://...: downloaded likewise. Anything else is a path.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import platformdirs

from levit_deploy.errors import DeployError
from levit_deploy.models.card import ModelCard, with_labels
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.checkpoint_files import is_checkpoint, onnx_file
from levit_deploy.models.demo import DEMO_MODEL, DEMO_WEIGHTS, DemoSplit, demo_images
from levit_deploy.models.download import Progress, download, ignore_progress, is_intact
from levit_deploy.models.foreign_onnx.load import load_foreign
from levit_deploy.models.imagenet import imagenet_classes
from levit_deploy.models.key_names import Origin
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.models.side_files import SideFiles
from levit_deploy.models.spec import ModelSpec
from levit_deploy.urls import public

OFFICIAL = "fb_dist_in1k"
DEMO = "demo"

# The eight digits before the extension are the beginning of the file's SHA-256: all that was ever
# published of it. They tell a damaged file, not a forged one.
OFFICIAL_URLS = {
    "levit_128s": "https://dl.fbaipublicfiles.com/LeViT/LeViT-128S-96703c44.pth",
    "levit_128": "https://dl.fbaipublicfiles.com/LeViT/LeViT-128-b88c2750.pth",
    "levit_192": "https://dl.fbaipublicfiles.com/LeViT/LeViT-192-92712e41.pth",
    "levit_256": "https://dl.fbaipublicfiles.com/LeViT/LeViT-256-13b5763e.pth",
    "levit_384": "https://dl.fbaipublicfiles.com/LeViT/LeViT-384-9bdaf2e2.pth",
}


@dataclass(frozen=True)
class WeightsFile:
    """`path`: a local file or folder. `source`: where it is from, for people and the manifest.

    `note`: what is to be told of it, if anything.
    """

    path: Path
    source: str
    note: str | None = None


def load_weights(
    spec: ModelSpec | None,
    weights: str = OFFICIAL,
    *,
    sha256: str | None = None,
    key: str | None = None,
    features: bool = False,
    offline: bool = False,
    progress: Progress = ignore_progress,
) -> Checkpoint:
    """The weights that `--weights` names, of the variant `spec`, or of any if that is None.

    `sha256`: what the file at a URL must have, hexadecimal.
    Raises DeployError if they cannot be had, or as `load_checkpoint` and `load_foreign` do.
    """
    found = find_weights(spec, weights, sha256=sha256, offline=offline, progress=progress)
    if file := onnx_file(found.path):
        beside = SideFiles.beside_onnx(found.path)
        checkpoint = load_foreign(file, beside, spec, features=features)
    else:
        checkpoint = load_checkpoint(found.path, spec, key=key, features=features)
    notes = (found.note, *checkpoint.notes) if found.note else checkpoint.notes
    checkpoint = replace(checkpoint, source=found.source, notes=notes)
    if weights == DEMO:
        return checkpoint.with_card(_demo_card(checkpoint.card))
    if weights in (OFFICIAL, *OFFICIAL_URLS.values()):
        return checkpoint.with_card(_official_card(checkpoint))
    return checkpoint


def _official_card(checkpoint: Checkpoint) -> ModelCard:
    """How the original repository's weights were trained: on ImageNet-1k."""
    card, classes = checkpoint.card, checkpoint.spec.classes
    words = imagenet_classes().values()
    if classes == len(words):
        card = with_labels(card, words, classes, "ImageNet-1k, official weights")
    source = "the original repository"
    return _certain(card.stated(source, licence="Apache-2.0"), source)


def _demo_card(card: ModelCard) -> ModelCard:
    """How the demo's weights were trained."""
    labels = demo_images(DemoSplit.TEST).classes
    card = card.stated(
        "the demo",
        preprocessing=DEMO_PREPROCESSING,
        origin=Origin.OURS,
        labels=labels,
        licence="CC0-1.0",
    )
    return _certain(card, "the demo")


def _certain(card: ModelCard, source: str) -> ModelCard:
    """The same values, where they are known to be right."""
    return replace(card, sources={**card.sources, **dict.fromkeys(card.assumed, source)})


def find_weights(
    spec: ModelSpec | None,
    weights: str = OFFICIAL,
    *,
    sha256: str | None = None,
    offline: bool = False,
    progress: Progress = ignore_progress,
) -> WeightsFile:
    """Where on this machine the weights are, after a download if need be.

    Raises DeployError if they cannot be had; no other weights are ever put in their place.
    """
    is_url = weights.startswith(("http://", "https://"))
    if sha256 and not is_url:
        raise DeployError(f"`{weights}` is no URL", hint="leave out --sha256, or name a URL")
    if weights == DEMO:
        if spec and spec.name != DEMO_MODEL:
            raise DeployError(
                f"`demo` weights are for {DEMO_MODEL}, not {spec.name}",
                hint=f"levit-deploy compile --target host {DEMO_MODEL} --weights demo",
            )
        return WeightsFile(DEMO_WEIGHTS, DEMO)
    if weights == OFFICIAL:
        if spec is None:
            raise DeployError(
                f"`{OFFICIAL}` are weights of several models", hint="name one: levit_128s"
            )
        if spec.name not in OFFICIAL_URLS:
            raise DeployError(
                f"there are no official weights for `{spec.name}`",
                hint="pass a checkpoint: --weights FILE",
            )
        url = OFFICIAL_URLS[spec.name]
        return _from_url(spec, url, _sha256_in_name(url), offline, progress)
    if is_url:
        return _from_url(spec, weights, sha256 or _sha256_in_name(weights), offline, progress)
    path = Path(weights)
    if not weights or not path.exists():
        raise DeployError(
            f"no weights at `{weights}`",
            hint=f"pass a file, a folder, a URL, or one of the tags {OFFICIAL}, {DEMO}",
        )
    return WeightsFile(path, weights)


def _from_url(
    spec: ModelSpec | None, url: str, sha256: str | None, offline: bool, progress: Progress
) -> WeightsFile:
    path = cached_path(url)
    if offline:
        if not is_intact(path, sha256):
            raise DeployError(
                f"`{public(url)}` is not in the cache, and --offline forbids to fetch it",
                hint=_without_network(spec),
            )
        return WeightsFile(path, public(url))
    try:
        note = download(url, path, sha256=sha256, progress=progress)
    except DeployError as error:
        raise DeployError(error.message, hint=error.hint or _without_network(spec)) from error
    if not is_checkpoint(path):
        start = path.read_bytes()[:40].decode(errors="replace").strip()
        path.unlink()
        raise DeployError(
            f"`{public(url)}` gives no checkpoint: it begins with `{start}`",
            hint="a page may ask to log in: open the address in a browser, and pass the file",
        )
    return WeightsFile(path, public(url), note)


def cached_path(url: str) -> Path:
    """Where the file of a URL is kept; different URLs never meet."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    safe_name = re.sub(r"[^\w.-]", "_", name)[-100:]
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("levit-deploy") / "weights" / f"{key}-{safe_name}"


def _sha256_in_name(url: str) -> str | None:
    """PyTorch's convention: `NAME-<first digits of the SHA-256>.EXTENSION`."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path)
    return match[1] if match else None


def _without_network(spec: ModelSpec | None) -> str:
    if spec is None or spec.name == DEMO_MODEL:
        return "check the network, or use the weights in the package: --weights demo"
    return (
        "check the network, or pass a file: --weights FILE; "
        f"only {DEMO_MODEL} has weights in the package: --weights demo"
    )
