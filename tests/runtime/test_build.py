"""An artifact's folder appears whole, or not at all, whatever happens."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from levit_deploy import files
from levit_deploy.compiler.program import Program
from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact, folder_name
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.system import Os
from levit_deploy.targets.toolchain import Toolchain
from tests.runtime.small_network import SmallNetwork, random_image

FOLDER = "small-host-fp32"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def build_of(
    program: Program, network: SmallNetwork, host_toolchain: Toolchain
) -> Callable[..., Artifact]:
    def build(parent: Path, **options: object) -> Artifact:
        return build_artifact(program, host_toolchain, network.self_test(), parent, **options)

    return build


BUILD_SCRIPT = """
import os, pickle, resource, signal, sys
from pathlib import Path
from levit_deploy.errors import DeployError
from levit_deploy.runtime.build import build_artifact
program, toolchain, self_test, parent, mode = pickle.load(open(sys.argv[1], "rb"))
check = None
if mode == "killed":
    check = lambda artifact: os.kill(os.getpid(), signal.SIGKILL)
elif mode == "interrupted":
    def check(artifact):
        os.kill(os.getpid(), signal.SIGINT)
elif mode == "full":
    limit = 20_000  # less than the constants
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build_artifact(program, toolchain, self_test, parent, check=check)
except DeployError as error:
    print(error.message)
    sys.exit(1)
"""


@pytest.fixture
def start_build(
    program: Program, network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Starts a build in another process, which `mode` makes end badly."""
    numbers = itertools.count()

    def start(parent: Path, mode: str, program: Program = program) -> subprocess.Popen[str]:
        job = tmp_path / f"{next(numbers)}.pickle"
        job.write_bytes(pickle.dumps((program, host_toolchain, network.self_test(), parent, mode)))
        command = [sys.executable, "-c", BUILD_SCRIPT, str(job)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_manifest_lists_what_is_there(artifact: Artifact, program: Program) -> None:
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    files = set(contents(artifact.folder))
    assert files == {
        *("libsmall.so", "libsmall.a", "small.h", "manifest.json", "levit.py", "labels.txt"),
        *("README.md", "small.hpp", "levit_deploy.hpp", "small.pc", "sbom.cdx.json"),
        *("cmake/smallConfig.cmake", "cmake/smallConfigVersion.cmake"),
    }
    assert set(manifest["files"]) == files - {"manifest.json"}
    for name, record in manifest["files"].items():
        data = (artifact.folder / name).read_bytes()
        assert record == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["schema_version"] == 5
    assert manifest["arena_bytes"] == program.arena_bytes
    assert manifest["weights_digest"] == program.weights_digest
    assert manifest["toolchain"].startswith("zig ")
    assert manifest["versions"]["torch"]
    assert Artifact.load(artifact.folder) == artifact


def test_same_program_gives_the_same_bytes(
    artifact: Artifact, build_of: Callable[..., Artifact], tmp_path: Path
) -> None:
    again = build_of(tmp_path / "somewhere" / "else")
    assert contents(again.folder) == contents(artifact.folder)


def test_every_input_shows_in_the_build_id(
    artifact: Artifact,
    program: Program,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path: Path,
) -> None:
    changed = [
        replace(program, constants=program.constants[:-1] + b"\1"),
        replace(program, weights_digest="1" * 64),
        replace(program, calls=program.calls[:-1]),
    ]
    ids = {
        build_artifact(p, host_toolchain, network.self_test(), tmp_path).manifest.build_id
        for p in changed
    }
    tolerant = build_artifact(program, host_toolchain, network.self_test(1.0), tmp_path)
    assert len(ids | {artifact.manifest.build_id, tolerant.manifest.build_id}) == 5


def test_newer_build_replaces_the_older(
    build_of: Callable[..., Artifact],
    program: Program,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path: Path,
) -> None:
    older = build_of(tmp_path)
    (older.folder / "verify.json").write_text("{}")
    newer = build_artifact(
        replace(program, weights_digest="2" * 64), host_toolchain, network.self_test(), tmp_path
    )
    assert newer.folder == older.folder
    assert newer.manifest != older.manifest
    assert not (newer.folder / "verify.json").exists()
    assert Artifact.load(newer.folder) == newer
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_file_system_that_cannot_exchange(
    build_of: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_of(tmp_path)
    monkeypatch.setattr(files, "_renameat2", lambda *_: errno.EINVAL)
    newer = build_of(tmp_path, command_line=("newer",))
    assert Artifact.load(tmp_path / FOLDER) == newer
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_failed_check_leaves_the_older_folder(
    build_of: Callable[..., Artifact], tmp_path: Path
) -> None:
    before = contents(build_of(tmp_path).folder)

    def refuse(artifact: Artifact) -> None:
        Library(artifact.folder).run(random_image(0))
        raise DeployError("the library is wrong")

    with pytest.raises(DeployError, match="is wrong"):
        build_of(tmp_path, check=refuse, command_line=("other",))
    assert contents(tmp_path / FOLDER) == before
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_check_may_add_files(build_of: Callable[..., Artifact], tmp_path: Path) -> None:
    def add(artifact: Artifact) -> None:
        (artifact.folder / "verify.json").write_text("{}")

    assert (build_of(tmp_path, check=add).folder / "verify.json").read_text() == "{}"


@pytest.mark.parametrize("older", [False, True])
def test_killed_build(
    older: bool,
    build_of: Callable[..., Artifact],
    start_build: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    parent = tmp_path / "out"
    before = contents(build_of(parent, command_line=("older",)).folder) if older else None
    assert start_build(parent, "killed").wait(60) == -signal.SIGKILL
    assert (contents(parent / FOLDER) if older else None) == before
    assert (parent / FOLDER).exists() == older
    leftovers = [path for path in parent.iterdir() if path.name != FOLDER]
    assert all(path.name.startswith(".") for path in leftovers)
    assert leftovers
    build_of(parent)
    assert [path.name for path in parent.iterdir()] == [FOLDER]


def test_interrupted_build_leaves_nothing(
    start_build: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start_build(tmp_path / "out", "interrupted")
    assert process.wait(60) != 0
    assert not list((tmp_path / "out").iterdir())


def test_full_disk_as_a_file_size_limit(
    start_build: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start_build(tmp_path / "out", "full")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "small-host-fp32`: File too large" in output
    assert not list((tmp_path / "out").iterdir())


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[None]:
    folder.mkdir()
    options = f"size={int(megabytes * 1024)}k"
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("cannot mount a tmpfs: not root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("megabytes", [0.03, 0.1, 0.15, 0.2])
def test_full_disk(megabytes: float, build_of: Callable[..., Artifact], tmp_path: Path) -> None:
    """Full while the sources are written, while a tool runs, or while it links."""
    if not Path("/bin/mount").exists():
        pytest.skip("no mount")
    with small_disk(tmp_path / "disk", megabytes):
        parent = tmp_path / "disk"
        with pytest.raises(DeployError, match="No space left on device") as caught:
            build_of(parent)
        assert caught.value.hint is not None
        assert "free some space" in caught.value.hint
        assert not list(parent.iterdir())


def test_two_builds_into_one_folder(
    start_build: Callable[..., subprocess.Popen[str]], program: Program, tmp_path: Path
) -> None:
    """The later one to end stays, whole."""
    parent = tmp_path / "out"
    digests = [str(i) * 64 for i in range(4)]
    processes = [
        start_build(parent, "normal", replace(program, weights_digest=digest)) for digest in digests
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert [path.name for path in parent.iterdir()] == [FOLDER]
    assert Artifact.load(parent / FOLDER).manifest.weights_digest in digests


RIVAL_SCRIPT = """
import sys
from pathlib import Path
from levit_deploy.runtime.publish import artifact_folder
for i in range(100):
    with artifact_folder(Path(sys.argv[1])) as folder:
        for name in ("one", "two", "manifest.json"):
            (folder / name).write_text(f"{sys.argv[2]} {i}")
"""


def test_many_rivals(tmp_path: Path) -> None:
    """No build trips over another one, and at any moment there is one whole folder."""
    destination = tmp_path / "folder"
    commands = [[sys.executable, "-c", RIVAL_SCRIPT, str(destination), str(i)] for i in range(4)]
    rivals = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    looks = 0
    while any(rival.poll() is None for rival in rivals):
        try:
            folder = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            assert looks == 0
            continue
        files = os.listdir(folder)
        os.close(folder)
        looks += 1
        time.sleep(0.001)
        # An old folder is being emptied after it was taken away; the manifest goes with the rest.
        assert set(files) <= {"one", "two", "manifest.json"}
    for rival in rivals:
        _, errors = rival.communicate()
        assert rival.returncode == 0, errors
    assert looks
    assert len({path.read_text() for path in destination.iterdir()}) == 1
    assert len(list(destination.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("parent", ["/proc/nowhere", "/dev/null/below"])
def test_place_that_cannot_be_written(parent: str, build_of: Callable[..., Artifact]) -> None:
    with pytest.raises(DeployError, match=f"cannot write `{parent}/{FOLDER}`"):
        build_of(Path(parent))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(build_of: Callable[..., Artifact], tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DeployError, match="Permission denied"):
        build_of(tmp_path)


def test_folder_of_another_kind_is_not_replaced(
    build_of: Callable[..., Artifact], tmp_path: Path
) -> None:
    thesis = tmp_path / FOLDER / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(DeployError, match="is not an artifact"):
        build_of(tmp_path)
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize("name", ["", "2fast", "le-vit", "levit 128s", "a" * 65, "läuft"])
def test_name_that_no_symbol_can_begin_with(
    name: str, program: Program, network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    with pytest.raises(DeployError, match="library's name"):
        build_artifact(
            replace(program, name=name), host_toolchain, network.self_test(), tmp_path / "out"
        )


def test_damaged_artifact_is_told(build_of: Callable[..., Artifact], tmp_path: Path) -> None:
    folder = build_of(tmp_path).folder
    with (folder / "libsmall.a").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DeployError, match="SHA-256"):
        Artifact.load(folder)
    (folder / "libsmall.a").unlink()
    with pytest.raises(DeployError, match="cannot read"):
        Artifact.load(folder)
    (folder / "manifest.json").write_text('{"schema_version": 6}')
    with pytest.raises(DeployError, match="schema version `6`"):
        Artifact.load(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(DeployError, match="not an object"):
        Artifact.load(folder)
    with pytest.raises(DeployError, match="is not an artifact"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
def test_only_files_of_the_folder_are_read(
    kind: str, build_of: Callable[..., Artifact], tmp_path: Path
) -> None:
    library = build_of(tmp_path).folder / "libsmall.a"
    outside = tmp_path / "outside.a"
    library.rename(outside)
    if kind == "pipe":
        os.mkfifo(library)
    elif kind == "folder":
        library.mkdir()
    else:
        library.symlink_to("/dev/zero" if kind == "device" else outside)
    with pytest.raises(DeployError, match=r"cannot read `.*libsmall\.a`|lies elsewhere") as caught:
        Artifact.load(library.parent)
    assert caught.value.hint == "compile the model again"


@pytest.mark.parametrize("name", ["../outside.a", "/etc/passwd", "a/../../b", "a//b", "", "a\0b"])
def test_files_elsewhere_are_not_believed(
    name: str, build_of: Callable[..., Artifact], tmp_path: Path
) -> None:
    manifest = build_of(tmp_path).folder / "manifest.json"
    document = json.loads(manifest.read_text())
    document["files"][name] = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    manifest.write_text(json.dumps(document))
    with pytest.raises(DeployError, match=r"`.*manifest.json`: .*files") as caught:
        Artifact.load(manifest.parent)
    assert caught.value.hint


def test_folder_names() -> None:
    assert folder_name("levit_128s", "arm64", "fp32") == "levit_128s-arm64-fp32"
    assert folder_name("levit_128s_int8", "arm64", "int8") == "levit_128s-arm64-int8"
    assert folder_name("levit_128s", "arm64", "fp32", Os.IOS) == "levit_128s-arm64-ios-fp32"
