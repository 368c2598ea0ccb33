"""What `--weights` accepts, and that nothing else ever takes its place."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from levit_deploy.errors import DeployError
from levit_deploy.models import weights
from levit_deploy.models.catalogue import PAPER_TOP1
from levit_deploy.models.demo import DEMO_WEIGHTS
from levit_deploy.models.preprocessing import (
    DEMO_PREPROCESSING,
    ORIGINAL_PREPROCESSING,
    TIMM_PREPROCESSING,
    Preprocessing,
)
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY, get_spec
from levit_deploy.models.weights import OFFICIAL, find_weights, load_weights
from tests.models.file_server import FileServer, serve


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def server(data_dir: Path) -> Iterator[FileServer]:
    with serve((data_dir / "levit_tiny_cifar10.pth").read_bytes()) as server:
        yield server


def official(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the server's file be the tiny net's official weights; returns its URL."""
    url = f"{server.url}/LeViT-tiny-{hashlib.sha256(server.content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(weights.OFFICIAL_URLS, TINY.name, url)
    return url


def test_official_weights_have_a_checked_url_for_every_variant() -> None:
    assert set(weights.OFFICIAL_URLS) == set(PAPER_TOP1) < set(FAMILY)
    for url in weights.OFFICIAL_URLS.values():
        assert weights._sha256_in_name(url) == url[-12:-4]


@pytest.mark.parametrize("classes", [1000, 999])
def test_labels_of_the_official_weights(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known of those alone, and not of any others with as many classes."""
    torch.save(Levit(replace(TINY, classes=classes)).state_dict(), tmp_path / "a.pth")
    with serve((tmp_path / "a.pth").read_bytes()) as server:
        url = official(server, monkeypatch)
        cards = [load_weights(TINY, named).card for named in (OFFICIAL, url)]
    for card in cards:
        assert card.labels[:1] == (("tench, Tinca tinca",) if classes == 1000 else ())
    assert load_weights(TINY, str(tmp_path / "a.pth")).card.labels == ()


def test_default_is_the_official_download(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = official(server, monkeypatch)
    seen: list[int] = []
    checkpoint = load_weights(TINY, progress=lambda done, total: seen.append(done))
    assert checkpoint.source == url
    assert checkpoint.preprocessing == ORIGINAL_PREPROCESSING
    assert seen[-1] == len(server.content)
    assert find_weights(TINY).path.is_relative_to(cache)
    assert len(server.requests) == 1


def test_offline_serves_the_cache_alone(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(server, monkeypatch)
    with pytest.raises(DeployError, match="--offline forbids") as caught:
        find_weights(TINY, offline=True)
    assert server.requests == []
    assert caught.value.hint is not None
    assert "--weights demo" in caught.value.hint
    path = find_weights(TINY).path
    assert find_weights(TINY, offline=True).path == path
    path.write_bytes(b"damaged")
    with pytest.raises(DeployError, match="--offline forbids"):
        find_weights(TINY, offline=True)


def test_no_network_hints_at_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.OFFICIAL_URLS, "levit_128s", "http://127.0.0.1:1/w-00000000.pth")
    with pytest.raises(DeployError, match="cannot reach") as caught:
        load_weights(get_spec("levit_128s"))
    assert caught.value.hint is not None
    assert "--weights demo" in caught.value.hint


def test_url_with_a_query(server: FileServer) -> None:
    checkpoint = load_weights(TINY, f"{server.url}/resolve/model%20a.pth?token=s3cret")
    assert checkpoint.spec == TINY
    assert checkpoint.source == f"{server.url}/resolve/model%20a.pth?..."


def test_a_digest_that_is_asked_for(server: FileServer) -> None:
    url, right = f"{server.url}/w.pth", hashlib.sha256(server.content).hexdigest()
    assert load_weights(TINY, url, sha256=right).spec == TINY
    with pytest.raises(DeployError, match=f"expected it to begin with `{'0' * 64}`"):
        load_weights(TINY, url, sha256="0" * 64)
    with pytest.raises(DeployError, match="`demo` is no URL"):
        load_weights(TINY, "demo", sha256=right)


def test_a_page_in_place_of_weights_is_not_kept(server: FileServer, cache: Path) -> None:
    weights, server.content = server.content, b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(DeployError, match="no checkpoint: it begins with `<!DOCTYPE html>"):
        load_weights(TINY, f"{server.url}/w.pth")
    assert not list(cache.rglob("*.pth"))
    server.content = weights
    assert load_weights(TINY, f"{server.url}/w.pth").spec == TINY


def test_weights_that_have_changed_are_told_of(server: FileServer, data_dir: Path) -> None:
    url, server.headers = f"{server.url}/model", {"ETag": "one"}
    first = load_weights(TINY, url)
    server.headers = {"ETag": "two"}
    server.content = (data_dir / "levit_tiny_cifar10.safetensors").read_bytes()
    second = load_weights(TINY, url)
    assert second.digest != first.digest
    assert second.notes == (f"`{url}` has changed since it was downloaded: fetched again",)


def test_different_urls_do_not_share_a_file(server: FileServer, data_dir: Path) -> None:
    first = find_weights(TINY, f"{server.url}/a/model.safetensors").path
    server.content = (data_dir / "levit_tiny_cifar10.safetensors").read_bytes()
    second = find_weights(TINY, f"{server.url}/b/model.safetensors").path
    assert first.read_bytes() != second.read_bytes()


def test_hash_in_the_name_of_any_url_is_checked(server: FileServer) -> None:
    with pytest.raises(DeployError, match="expected it to begin with `00000000`"):
        find_weights(TINY, f"{server.url}/mine-00000000.pth")


def test_demo_is_in_the_package_with_its_own_preprocessing() -> None:
    checkpoint = load_weights(get_spec("levit_128s"), "demo", offline=True)
    assert checkpoint.spec == replace(get_spec("levit_128s"), classes=10)
    assert checkpoint.source == "demo"
    assert checkpoint.preprocessing == DEMO_PREPROCESSING
    assert find_weights(get_spec("levit_128s"), "demo").path == DEMO_WEIGHTS


def test_demo_of_another_variant_is_refused() -> None:
    with pytest.raises(DeployError, match="for levit_128s, not levit_256") as caught:
        find_weights(get_spec("levit_256"), "demo")
    assert caught.value.hint == "levit-deploy compile --target host levit_128s --weights demo"


def test_path(data_dir: Path) -> None:
    path = str(data_dir / "levit_tiny_cifar10.pth")
    assert load_weights(TINY, path).source == path


@pytest.mark.parametrize("typed", ["Demo", "fb_dist", "none.pth", "ftp://host/w.pth", ""])
def test_neither_tag_nor_url_nor_path(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeployError, match=f"no weights at `{typed}`") as caught:
        find_weights(TINY, typed)
    assert caught.value.hint is not None
    assert "fb_dist_in1k, demo" in caught.value.hint


@pytest.mark.parametrize(
    ("preprocessing", "side"),
    [(ORIGINAL_PREPROCESSING, 256), (TIMM_PREPROCESSING, 248), (DEMO_PREPROCESSING, 224)],
    ids=lambda value: getattr(value, "name", value),
)
def test_resized_side_at_224(preprocessing: Preprocessing, side: int) -> None:
    """int(256 / 224 * size) in the original, floor(size / 0.9) in timm, no crop in the demo."""
    assert preprocessing.resized_side(224) == side
