"""Labels as users keep them."""

from pathlib import Path

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.models.labels import read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "ape\nnewt, a\nzebra\n"),
        ("labels.json", '["ape", "newt, a", "zebra"]'),
        ("labels.json", '{"2": "zebra", "0": "ape", "1": "newt, a"}'),
        ("config.json", '{"id2label": {"0": "ape", "1": "newt, a", "2": "zebra"}, "depths": 1}'),
        ("config.json", '{"label_names": ["ape", "newt, a", "zebra"], "architecture": "x"}'),
    ],
)
def test_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_labels(str(tmp_path / name)) == ("ape", "newt, a", "zebra")


def test_names() -> None:
    assert read_labels("ape, newt,zebra") == ("ape", "newt", "zebra")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", b"", "holds no labels"),
        ("a.txt", b"\xff\xfe", "cannot read"),
        ("a.json", b"[", "is not JSON"),
        ("a.json", b"[1, 2]", "expected names"),
        ("a.json", b'{"cat": 0}', "expected names by number"),
    ],
)
def test_others(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeployError, match=match) as caught:
        read_labels(str(tmp_path / name))
    assert caught.value.hint


def test_nothing_there() -> None:
    with pytest.raises(DeployError, match="no labels at `labels"):
        read_labels("labels.txt")


@pytest.mark.parametrize("content", ["1", "1.5", "true", "null", '"a"', "[" * 100_000])
def test_json_that_is_no_list(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(DeployError, match=r"holds no labels|is not JSON") as caught:
        read_labels(str(tmp_path / "labels.json"))
    assert caught.value.hint
