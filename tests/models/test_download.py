"""Downloads from servers that behave, and from those that do not."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import levit_deploy.models.download
from levit_deploy.errors import DeployError
from levit_deploy.models.download import ATTEMPTS, CHUNK_BYTES, download
from tests.models.file_server import FileServer, serve

CONTENT = bytes(range(256)) * (5 * CHUNK_BYTES // 512)  # two and a half chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(CONTENT) as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pth"


def refuse(server: FileServer, path: Path, match: str, **options: float) -> DeployError:
    with pytest.raises(DeployError, match=match) as caught:
        download(f"{server.url}/w.pth", path, sha256=SHA256, **options)  # type: ignore[arg-type]
    assert not path.exists()
    return caught.value


def test_good_file_is_fetched_once_with_progress(server: FileServer, path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    for _ in range(2):
        download(server.url, path, sha256=SHA256, progress=lambda *now: seen.append(now))
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [now for now, _ in seen] == sorted(now for now, _ in seen)
    assert not list(path.parent.glob("*.part"))


def test_unknown_length_and_unknown_hash(server: FileServer, path: Path) -> None:
    server.declares_length = False
    download(server.url, path, sha256=None)
    assert path.read_bytes() == CONTENT


def test_damaged_cache_is_fetched_again(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1] + b"!")
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_wrong_hash_leaves_nothing(server: FileServer, path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(server.content).hexdigest()
    error = refuse(server, path, f"has SHA-256 `{found}`, expected it to begin with `{SHA256}`")
    assert error.hint
    assert not path.with_name("weights.pth.part").exists()


def test_cut_off_is_taken_up_at_once(server: FileServer, path: Path) -> None:
    server.cuts = [1000, 0, 5000]
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-", "bytes=1000-", "bytes=6000-"]


def test_cut_off_again_and_again_goes_on_in_the_next_run(server: FileServer, path: Path) -> None:
    server.cuts = [1000] * ATTEMPTS
    error = refuse(server, path, f"cut off {ATTEMPTS} times, last at {1000 * ATTEMPTS} bytes")
    assert error.hint == "run the same command again: it goes on where it stopped"
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == f"bytes={1000 * ATTEMPTS}-"


def test_server_without_ranges_starts_anew(server: FileServer, path: Path) -> None:
    server.ranges = False
    server.cuts = [1000]
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"other bytes", CONTENT + b"more", CONTENT], ids=len)
def test_stale_part_is_not_trusted(stale: bytes, server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pth.part").write_bytes(stale)
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_part_without_a_known_hash_is_not_continued(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pth.part").write_bytes(b"other bytes")
    download(server.url, path, sha256=None)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]


def test_slow_server_times_out_and_keeps_what_came(server: FileServer, path: Path) -> None:
    server.pause_s = 1.0
    refuse(server, path, r"sent nothing for 0.2 s", timeout_s=0.2)
    server.pause_s = 0.0
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=10-"]


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (503, "Service Unavailable")])
def test_error_answers(status: int, reason: str, server: FileServer, path: Path) -> None:
    server.status = status
    refuse(server, path, f"answers {status} {reason}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/w.pth", "http://no-such-host.invalid/w.pth"])
def test_unreachable_server(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DeployError, match="cannot reach"):
        download(url, path, sha256=SHA256)


@pytest.mark.parametrize("url", ["http://[1", "http://a b/c", "http://host:port/w.pth"])
def test_malformed_url(url: str, path: Path) -> None:
    with pytest.raises(DeployError, match="is not a URL"):
        download(url, path, sha256=SHA256)


def test_cache_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refuse(server, tmp_path / "file" / "weights.pth", r"cannot write `.*file")


def test_two_processes_share_one_download(server: FileServer, path: Path) -> None:
    """The second waits for the first, and finds its file."""
    server.pause_s = 1.0
    script = (
        "import sys; from pathlib import Path;"
        "from levit_deploy.models.download import download;"
        "download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    command = [sys.executable, "-c", script, server.url, str(path), SHA256]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


# Another version at the same address


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_another_version_is_fetched_and_told(header: str, server: FileServer, path: Path) -> None:
    server.headers = {header: "one"}
    assert download(server.url, path, sha256=None) is None
    assert download(server.url, path, sha256=None) is None
    assert len(server.requests) == 1
    server.content, server.headers = CONTENT[::-1], {header: "two"}
    note = download(server.url, path, sha256=None)
    assert note is not None
    assert "has changed since it was downloaded" in note
    assert path.read_bytes() == CONTENT[::-1]
    assert download(server.url, path, sha256=None) is None


@pytest.mark.parametrize("silence", ["no header", "no HEAD", "no server"])
def test_what_is_there_is_used_where_the_server_does_not_say(
    silence: str, server: FileServer, path: Path
) -> None:
    server.headers = {"ETag": "one"}
    download(server.url, path, sha256=None)
    server.headers, server.content = {}, b"other"
    server.knows_head = silence != "no HEAD"
    server.status = 503 if silence == "no server" else None
    assert download(server.url, path, sha256=None) is None
    assert path.read_bytes() == CONTENT


def test_a_known_hash_asks_nothing(server: FileServer, path: Path) -> None:
    server.headers = {"ETag": "one"}
    download(server.url, path, sha256=SHA256)
    server.headers = {"ETag": "two"}
    assert download(server.url, path, sha256=SHA256) is None
    assert len(server.requests) == 1


# What a server may not do


def test_a_length_that_is_no_number(server: FileServer, path: Path) -> None:
    server.declares_length, server.headers = False, {"Content-Length": "abc"}
    assert refuse(server, path, "a length that is no number: `abc`").hint


@pytest.mark.parametrize("declares", [True, False])
def test_more_than_any_checkpoint_has(
    declares: bool, server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levit_deploy.models.download, "MAX_BYTES", CHUNK_BYTES)
    server.declares_length = declares
    assert refuse(server, path, "has more than").hint
    assert not path.with_name("weights.pth.part").exists()


@pytest.mark.parametrize("name", ["weights.pth.lock", "weights.pth.part", "weights.pth.version"])
def test_links_in_the_cache_are_not_followed(name: str, server: FileServer, path: Path) -> None:
    mine = path.parent.parent / "mine"
    mine.write_text("years of work")
    path.parent.mkdir()
    path.with_name(name).symlink_to(mine)
    server.headers = {"ETag": "one"}
    with suppress(DeployError):  # that the lock cannot be had
        download(server.url, path, sha256=None)
    assert mine.read_text() == "years of work"


def test_a_pipe_in_the_cache_is_not_waited_for(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    for name in ("weights.pth", "weights.pth.part", "weights.pth.lock"):
        os.mkfifo(path.with_name(name))
    download(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_the_version_is_not_kept_before_the_file(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the next run fetches the new file."""
    server.headers = {"ETag": "one"}
    download(server.url, path, sha256=None)
    server.content, server.headers = CONTENT[::-1], {"ETag": "two"}
    with monkeypatch.context() as patch:
        patch.setattr(levit_deploy.models.download, "put_in_place", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            download(server.url, path, sha256=None)
    download(server.url, path, sha256=None)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("fault", ["status", "length", "URL", "nothing"])
def test_passwords_and_tokens_are_not_said(fault: str, server: FileServer, path: Path) -> None:
    url = f"{server.url}/w.pth?token=s3cret#s3cret"
    if fault == "status":
        server.status = 403
    elif fault == "length":
        server.declares_length, server.headers = False, {"Content-Length": "abc"}
    elif fault == "URL":
        url = url.replace("://", "://user:s3cret@")
    else:
        server.content = b"nothing"
    with pytest.raises(DeployError) as caught:
        download(url, path, sha256=SHA256)
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
