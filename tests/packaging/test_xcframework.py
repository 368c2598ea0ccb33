"""An XCFramework: its layout, and its module as clang imports it. No Xcode, no Swift: looked at."""

from __future__ import annotations

import json
import plistlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.macho import MachO
from levit_deploy.targets.system import Arch, Os, System
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.cli.conftest import Cli
from tests.packaging.conftest import LABELS, Variant, build_small
from tests.packaging.test_package import assert_refused

# Of clang, for C; Swift's `import small` asks it for the same module.
IMPORT = """
#pragma clang module import small
int main(void) { return small_self_test(0) != SMALL_ERROR_NULL; }
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    folder = tmp_path_factory.mktemp("apple")
    return [build_small("arm64", folder, system=System.parse(os)) for os in ("macos", "ios")]


@pytest.fixture
def framework(cli: Cli, artifacts: list[Artifact]) -> Path:
    folders = [artifact.folder for artifact in artifacts]
    done = cli.run("package", *folders, "--as", "xcframework", "--version", "1.2", "--json")
    path = Path(json.loads(done.stdout)["path"])
    assert path.name == "small-1.2.xcframework.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(cli.folder)
    return cli.folder / "small.xcframework"


def test_the_layout_is_xcodes(artifacts: list[Artifact], framework: Path, tmp_path: Path) -> None:
    """The keys that `xcodebuild -create-xcframework` writes for static libraries with headers."""
    info = plistlib.loads((framework / "Info.plist").read_bytes())
    libraries = info.pop("AvailableLibraries")
    assert info == {"CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}
    assert {path.name for path in framework.iterdir()} == {
        "Info.plist",
        *(library["LibraryIdentifier"] for library in libraries),
    }
    sealed = {artifact.system.os: artifact.static_library for artifact in artifacts}
    for library, os in zip(libraries, (Os.IOS, Os.MACOS), strict=True):
        assert library == {
            "BinaryPath": "libsmall.a",
            "HeadersPath": "Headers",
            "LibraryIdentifier": f"{os}-arm64",
            "LibraryPath": "libsmall.a",
            "SupportedArchitectures": ["arm64"],
            "SupportedPlatform": os,
        }
        place = framework / library["LibraryIdentifier"]
        archive = place / library["LibraryPath"]
        assert archive.read_bytes() == sealed[os].read_bytes()
        (tmp_path / os).mkdir()
        subprocess.run(("ar", "x", archive.absolute()), cwd=tmp_path / os, check=True)
        objects = [MachO.read(path) for path in (tmp_path / os).glob("*.o")]
        assert objects
        assert {(file.arch, file.os) for file in objects} == {(Arch.AARCH64, os)}
        headers = {path.name for path in (place / "Headers" / "small").iterdir()}
        assert headers == {"module.modulemap", "small.h", "small.hpp", "levit_deploy.hpp"}
        assert (place / "doc" / "labels.txt").read_text(encoding="utf-8").split() == list(LABELS)


def test_clang_imports_the_module(framework: Path, tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target("arm64").on(System.parse("macos")))
    (tmp_path / "main.c").write_text(IMPORT)
    headers = framework / "macos-arm64" / "Headers"
    flags = ("-fmodules", f"-fmodules-cache-path={tmp_path / 'cache'}", f"-I{headers}")
    toolchain.compile(tmp_path / "main.c", tmp_path / "main.o", flags)
    assert "small_self_test" in MachO.read(tmp_path / "main.o").undefined
    assert list((tmp_path / "cache").rglob("small-*.pcm"))


def test_what_is_refused(cli: Cli, variant: Variant) -> None:
    linux, mac = variant(), variant(base_target="arm64", system="macos-11.0")
    package = ("package", "--as", "xcframework")
    words, hint = f"cannot hold `{linux.folder}`", "--os macos or --os ios"
    assert_refused(cli, *package, mac.folder, linux.folder, words=words, hint=hint)
    other = variant(base_target="arm64-dotprod", system="macos-11.0")
    words = "`arm64-dotprod` and `arm64` are both `macos-arm64`"
    assert_refused(cli, *package, mac.folder, other.folder, words=words)
    swift = variant(name="guard", base_target="arm64", system="macos-11.0")
    words = "`guard` cannot be a Swift module's name"
    assert_refused(cli, *package, swift.folder, words=words, hint="--name levit_guard")
