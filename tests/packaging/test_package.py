"""What goes into a package, and what is refused with nothing left behind."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from levit_deploy.packaging.formats import FORMATS
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.handout import LABELS as LABELS_FILE
from tests.cli.conftest import Cli
from tests.packaging.conftest import LABELS, Variant


@pytest.mark.parametrize("format", ["wheel", "cmake", "cargo"])  # others: test_aar.py and so on
def test_equal_artifacts_give_equal_bytes(cli: Cli, artifact: Artifact, format: str) -> None:
    packages = []
    for parent in ("here", "there/below"):
        done = cli.run("package", artifact.folder, "--as", format, "-o", parent, "--json")
        path = Path(json.loads(done.stdout)["path"])
        assert [path] == list(Path(parent).iterdir())
        packages.append(path.read_bytes())
    assert packages[0] == packages[1]
    names = names_in(packages[0])
    assert len(names) == len(set(names))
    libraries = {artifact.shared_library.name, artifact.static_library.name}
    assert libraries & {Path(name).name for name in names}


def names_in(package: bytes) -> list[str]:
    if zipfile.is_zipfile(io.BytesIO(package)):
        return zipfile.ZipFile(io.BytesIO(package)).namelist()
    return tarfile.open(fileobj=io.BytesIO(package)).getnames()


def test_labels_are_one_a_line(artifact: Artifact) -> None:
    text = (artifact.folder / LABELS_FILE).read_text(encoding="utf-8")
    assert text == "".join(f"{label}\n" for label in LABELS)


def test_the_page_says_what_it_is(artifact: Artifact) -> None:
    page = (artifact.folder / "README.md").read_text(encoding="utf-8")
    manifest = artifact.manifest
    for fact in (
        *(manifest.build_id, manifest.weights_digest, manifest.card.recipe, manifest.system),
        *(manifest.files[name].sha256 for name in ("libsmall.so", "libsmall.a", "small.h")),
        "licence of the weights: unknown: nothing beside them says",
        "| labels | cat, dog, Käse, ... (5) | from a test |",
        "| licence | unknown | from nobody |",
    ):
        assert fact in page


def test_an_existing_package_is_replaced_only_if_asked(cli: Cli, artifact: Artifact) -> None:
    args = ("package", artifact.folder, "--as", "wheel")
    assert cli.run(*args).returncode == 0
    (path,) = Path("dist").iterdir()
    path.write_bytes(b"mine")
    assert_refused(cli, *args, words=f"`{path}` exists", hint="--force")
    assert path.read_bytes() == b"mine"
    assert cli.run(*args, "--force").returncode == 0
    assert zipfile.is_zipfile(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "int8"}, "differ in precision: `fp32` and `int8`"),
        ({"model": "levit_256"}, "differ in model: `small` and `levit_256`"),
        ({"weights_digest": "1" * 64}, "differ in weights"),
        ({}, "are both for"),
    ],
)
def test_artifacts_of_one_package_are_one_model(
    cli: Cli, artifact: Artifact, variant: Variant, change: dict, words: str
) -> None:
    folders = artifact.folder, variant(**change).folder
    before = set(cli.folder.rglob("*"))
    assert_refused(cli, "package", *folders, "--as", "wheel", words=words)
    assert set(cli.folder.rglob("*")) == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_refuses_what_it_cannot_hold(cli: Cli, variant: Variant, format: str) -> None:
    """Libraries for two CPUs or two systems."""
    change, words = {
        "wheel": ({"system": "musl"}, "a wheel is for one system"),
        "cmake": ({"system": "musl"}, "the library of one CPU"),
        "cargo": ({"base_target": "x86-64-v3"}, "one library for each Rust target"),
        "aar": ({"base_target": "x86-64-v3"}, "one library for each ABI"),
        "xcframework": ({"system": "glibc-2.17"}, "an xcframework cannot hold"),
    }[format]
    system = {"aar": "android-21", "xcframework": "macos-11.0"}.get(format, "glibc-2.17")
    first = {"base_target": "arm64" if format == "xcframework" else "x86-64", "system": system}
    folders = variant(**first).folder, variant(**{**first, **change}).folder
    assert_refused(cli, "package", *folders, "--as", format, words=words)


@pytest.mark.parametrize(("target", "system"), [("armv7", "android-21"), ("arm64", "android-21")])
def test_a_wheel_is_for_systems_that_pip_serves(
    cli: Cli, variant: Variant, target: str, system: str
) -> None:
    folder = variant(base_target=target, system=system).folder
    words = f"for `{target}` with {system}"
    assert_refused(cli, "package", folder, "--as", "wheel", words=words, hint="glibc, musl")


def test_prefixes_of_two_systems_have_two_names(cli: Cli, variant: Variant) -> None:
    for system in ("glibc-2.17", "android-21"):
        folder = variant(base_target="arm64", target="arm64", system=system).folder
        assert cli.run("package", folder, "--as", "cmake").returncode == 0
    names = {path.name for path in Path("dist").iterdir()}
    assert names == {"small-1.0-arm64.tar.gz", "small-1.0-arm64-android.tar.gz"}


def test_a_system_that_no_such_cpu_has(cli: Cli, variant: Variant) -> None:
    folder = variant(base_target="armv7", system="windows").folder
    words = "there are no windows libraries for `armv7`"
    assert_refused(cli, "package", folder, "--as", "cargo", words=words)


@pytest.mark.parametrize(
    ("name", "hint"), [("lambda", "--name levit_lambda"), ("json", "--name levit_json"), ("a_", "")]
)
def test_a_name_that_python_cannot_import(cli: Cli, variant: Variant, name: str, hint: str) -> None:
    folder = variant(name=name).folder
    assert_refused(cli, "package", folder, "--as", "wheel", words=f"`{name}` cannot be", hint=hint)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--as", "rpm"), 2, "unknown format `rpm`"),
        ((), 2, "--as"),
        (("--as", "wheel", "--version", "1.0-beta"), 1, "`1.0-beta` cannot be a package's version"),
        (("--as", "wheel", "--version", "01"), 1, "`01` cannot be a package's version"),
        (("--as", "wheel", "-o", "/proc"), 1, "cannot write `/proc/"),
        (("--as", "wheel", "-o", "file"), 2, "file"),
        (("--as", "wheel", "-o", "file/below"), 1, "cannot write `file/below/"),
    ],
)
def test_wrong_usage(
    cli: Cli, artifact: Artifact, args: tuple[str, ...], code: int, words: str
) -> None:
    Path("file").write_text("mine")
    assert_refused(cli, "package", artifact.folder, *args, words=words, code=code, left={"file"})


def test_a_changed_artifact_is_refused(cli: Cli, variant: Variant) -> None:
    changed = variant()
    with (changed.folder / "libsmall.so").open("r+b") as file:
        file.seek(5000)
        file.write(b"!")
    words = "its SHA-256 differs"
    assert_refused(cli, "package", changed.folder, "--as", "wheel", words=words)
    assert_refused(cli, "package", "nowhere", "--as", "wheel", words="`nowhere` is not an artifact")


def test_a_full_disk_leaves_nothing(cli: Cli, artifact: Artifact, small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(250_000))
    args = ("package", artifact.folder, "--as", "wheel", "-o", small_disk)
    assert_refused(cli, *args, words="No space left", hint="free some space")
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def assert_refused(
    cli: Cli,
    *args: str | Path,
    words: str,
    hint: str = "",
    code: int = 1,
    left: set[str] | None = None,
) -> None:
    """One error with a hint, and no folder `dist`."""
    done = cli.run(*args)
    assert (done.returncode, done.stdout) == (code, "")
    error = done.stderr[done.stderr.index("error: ") :]
    assert words in error
    assert "\nhint: " in error
    assert hint in error
    if left is not None:
        assert {path.name for path in cli.folder.iterdir()} == left
