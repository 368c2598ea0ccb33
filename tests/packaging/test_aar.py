"""An Android archive: its class run by this machine's Java, its libraries held to bionic's rules.

Java runs what is compiled for this machine in place of Android: the same class, the same C.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.packaging import aar
from levit_deploy.packaging.archives import write_zip
from levit_deploy.packaging.contents import open_contents
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.elf import Elf
from levit_deploy.runtime.levit import Format, Frame, Range
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.system import System
from levit_deploy.targets.table import get_target
from tests.cli.conftest import Cli
from tests.packaging.conftest import Variant, build_small
from tests.packaging.test_cargo import expected_logits, frames
from tests.packaging.test_docs import blocks
from tests.packaging.test_package import assert_refused

needs_jdk = pytest.mark.skipif(
    None in map(shutil.which, ("java", "javac")),
    reason="no JDK: apt-get install default-jdk-headless",
)
PAGE_MAIN = """
final class PageMain {
    public static void main(String[] arguments) {
        ByteBuffer y = ByteBuffer.allocateDirect(1920 * 1080);
        ByteBuffer u = ByteBuffer.allocateDirect(1920 * 540 - 1);
        try (Classifier classifier = new Classifier()) {
            Page.printLabels(classifier, y, u, u.duplicate());
        }
    }
}
"""


def make(path: Path, *artifacts: Artifact) -> Path:
    """The archive, whatever the libraries are for."""
    with open_contents([artifact.folder for artifact in artifacts], "1.2") as contents:
        write_zip(aar.tree(contents), path)
    return path


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """By a name that Java's symbols spell otherwise."""
    return build_small("host", tmp_path_factory.mktemp("named"), "levit_128s")


@pytest.fixture(scope="module")
def unpacked(named: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aar")
    with zipfile.ZipFile(make(folder / "it.aar", named)) as archive:
        archive.extractall(folder)
    return folder


def abi_of(artifact: Artifact) -> str:
    return aar.ABIS[get_target(artifact.manifest.base_target).arch]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def java(named: Artifact, unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> list:
    """What runs a class of App.java, or of the page: compiled without a warning."""
    folder = tmp_path_factory.mktemp("app")
    (block,) = blocks("java")
    (folder / "Page.java").write_text(block + PAGE_MAIN)
    sources = folder / "Page.java", Path(__file__).parent / "App.java"
    classes = unpacked / "classes.jar"
    lint = ("-Xlint:all,-options", "-Werror", "--release", "8", "-encoding", "UTF-8", "-d", folder)
    run("javac", *lint, unpacked / "doc" / "Classifier.java", *sources)
    shutil.rmtree(folder / "levitdeploy")  # the one in the archive is run
    return jvm(named, unpacked, f"{classes}:{folder}")


def jvm(named: Artifact, unpacked: Path, class_path: str) -> list:
    place = f"-Djava.library.path={unpacked / 'jni' / abi_of(named)}"
    return ["java", "-Xcheck:jni", "-XX:TieredStopAtLevel=1", place, "-cp", class_path]


@needs_jdk
def test_java_gets_the_bits_of_the_library(named: Artifact, java: list, tmp_path: Path) -> None:
    data = np.random.default_rng(3).bytes(24000)
    (tmp_path / "data").write_bytes(data)
    logits, answers = tmp_path / "logits", tmp_path / "answers"
    assert run(*java, "App", tmp_path / "data", logits, answers) == ""  # nor a word of -Xcheck
    assert logits.read_bytes() == expected_logits(named, data)
    *_, last = frames(data)
    library = Library(named.folder)
    *lines, build_id, preprocessing = answers.read_text(encoding="utf-8").splitlines()
    assert lines == [
        f"{a.class_index} {a.label} {np.float32(a.probability).view(np.int32)}"
        for a in library.classify(last, 100)
    ]
    assert build_id == named.manifest.build_id
    assert preprocessing == named.manifest.card.recipe


@needs_jdk
def test_the_page_works(java: list) -> None:
    assert len(run(*java, "PageMain").splitlines()) == 3


@pytest.mark.slow
@needs_jdk
@pytest.mark.skipif(shutil.which("kotlinc") is None, reason="no Kotlin: apt-get install kotlin")
def test_kotlin_reads_as_kotlin(named: Artifact, unpacked: Path, tmp_path: Path) -> None:
    """The page's lines and app.kt, compiled without a warning: the answers of the library."""
    *_, block = blocks("kotlin")
    (tmp_path / "Page.kt").write_text(block)
    classes = unpacked / "classes.jar"
    options = ("-Werror", "-include-runtime", "-cp", classes, "-d", tmp_path / "app.jar")
    run("kotlinc", *options, tmp_path / "Page.kt", Path(__file__).parent / "app.kt")
    data = np.random.default_rng(3).bytes(90 * 60 * 4)
    (tmp_path / "data").write_bytes(data)
    program = jvm(named, unpacked, f"{classes}:{tmp_path / 'app.jar'}")
    rgba, camera, *described = run(*program, "AppKt", tmp_path / "data").splitlines()
    library = Library(named.folder)
    frame = Frame.of_bytes(data, 90, 60, Format.RGBA, rotation=90)
    assert rgba == "\t".join(answer.label for answer in library.classify(frame, 3))
    nv12 = Frame.of_bytes(data[: 90 * 90], 90, 60, Format.NV12, rotation=270)
    assert camera == library.classify(replace(nv12, range=Range.FULL), 1)[0].label
    assert described == [named.manifest.build_id, "plane 0 has 1 bytes, the frame needs 16200"]


@needs_jdk
def test_what_is_in_it(named: Artifact, unpacked: Path) -> None:
    abi = abi_of(named)
    module = f"prefab/modules/levit_128s/libs/android.{abi}"
    with zipfile.ZipFile(unpacked / "it.aar") as archive:
        assert set(archive.namelist()) == {
            *("AndroidManifest.xml", "R.txt", "proguard.txt", "classes.jar"),
            *(f"jni/{abi}/liblevit_128s.so", f"jni/{abi}/liblevit_128s_jni.so"),
            *("prefab/prefab.json", "prefab/modules/levit_128s/module.json"),
            *(f"{module}/abi.json", f"{module}/liblevit_128s.so", f"{module}/include/levit_128s.h"),
            *(f"{module}/include/levit_128s.hpp", f"{module}/include/levit_deploy.hpp"),
            *("doc/Classifier.java", f"doc/{abi}/README.md", f"doc/{abi}/labels.txt"),
        }
        sealed = named.shared_library.read_bytes()
        assert archive.read(f"jni/{abi}/liblevit_128s.so") == sealed
        assert archive.read(f"{module}/liblevit_128s.so") == sealed
        manifest = archive.read("AndroidManifest.xml").decode()
        abi_json = json.loads(archive.read(f"{module}/abi.json"))
    assert 'package="levitdeploy.levit_128s"' in manifest
    assert abi_json["abi"] == abi
    with zipfile.ZipFile(unpacked / "classes.jar") as jar:
        data = jar.read("levitdeploy/levit_128s/Classifier.class")
    assert data[:8] == bytes.fromhex("cafebabe00000034")  # Java 8, which Android's D8 takes


@needs_jdk
def test_equal_artifacts_give_equal_archives(
    named: Artifact, unpacked: Path, tmp_path: Path
) -> None:
    assert make(tmp_path / "b.aar", named).read_bytes() == (unpacked / "it.aar").read_bytes()


@needs_jdk
@pytest.mark.parametrize("kind", ["classes", "features"])
def test_each_native_method_has_its_function(
    named: Artifact, variant: Variant, tmp_path: Path, kind: str
) -> None:
    model, symbol = named, "levit_1128s"
    if kind == "features":
        card = named.manifest.card.stated("a test", heads=0)
        model, symbol = variant(card=card), "small"
    with open_contents([model.folder], "1") as contents:
        source = aar.java_source(contents)
        aar.compile_classes(contents, tmp_path)
        elf = Elf.read(aar.link_bridge(contents.artifacts[0], tmp_path))
    methods = re.findall(r"static native \w+ (\w+)\(", source)
    exported = {symbol.name for symbol in elf.symbols if symbol.defined}
    assert exported == {f"Java_levitdeploy_{symbol}_Classifier_{method}" for method in methods}
    assert ("nativeSoftmax" in methods) == (kind == "classes")
    assert set(elf.needed) <= {f"lib{model.name}.so", "libc.so.6"}


@needs_jdk
def test_androids_loader_takes_the_libraries(cli: Cli, tmp_path: Path) -> None:
    """Its rules: libc by one name, no versions, pages of 16 KiB, a hash table that API 21 reads."""
    android = System.parse("android")
    folders = [
        build_small(target, tmp_path / target, system=android).folder
        for target in ("arm64", "armv7", "x86-64")
    ]
    done = cli.run("package", *folders, "--as", "aar", "--json")
    with zipfile.ZipFile(json.loads(done.stdout)["path"]) as archive:
        libraries = {
            name: Elf.parse(archive.read(name))
            for name in archive.namelist()
            if name.endswith(".so")
        }
        manifest = archive.read("AndroidManifest.xml").decode()
    assert 'minSdkVersion="21"' in manifest
    for abi in ("arm64-v8a", "armeabi-v7a", "x86_64"):
        assert libraries[f"jni/{abi}/libsmall.so"].needed == ("libc.so",)
        assert set(libraries[f"jni/{abi}/libsmall_jni.so"].needed) <= {"libsmall.so", "libc.so"}
    for elf in libraries.values():
        assert elf.versions == ()
        assert all(alignment % 16384 == 0 for alignment in elf.alignments)
        assert 4 in elf.dynamic  # DT_HASH


@pytest.mark.parametrize("system", ["glibc-2.17", "musl"])
def test_other_systems_are_refused(cli: Cli, variant: Variant, system: str) -> None:
    folder = variant(base_target="arm64", system=system).folder
    words, hint = f"for `arm64` with {system}", "--libc android"
    assert_refused(cli, "package", folder, "--as", "aar", words=words, hint=hint)


@pytest.mark.parametrize("name", ["native", "fun"])
def test_a_name_that_java_or_kotlin_has_taken(cli: Cli, variant: Variant, name: str) -> None:
    folder = variant(name=name, system="android-21").folder
    words = f"`{name}` cannot be a Java package's name"
    assert_refused(cli, "package", folder, "--as", "aar", words=words, hint="--name levit_")


def test_without_a_jdk(cli: Cli, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = variant(system="android-21").folder
    monkeypatch.setenv("PATH", "/nowhere")
    words = "there is no Java compiler"
    assert_refused(cli, "package", folder, "--as", "aar", words=words, hint="jdk", left=set())
