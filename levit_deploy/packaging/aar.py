"""An Android archive: libraries for each ABI, a class for Kotlin and Java, headers for the NDK.

Layout: developer.android.com/studio/projects/android-library; prefab: google.github.io/prefab. The
artifacts' libraries are in it as they were sealed; beside each is a small one that the class calls.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree, write_zip
from levit_deploy.packaging.contents import (
    Contents,
    check_places,
    check_systems,
    documents,
)
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.handout import Layout, facts, interface_files
from levit_deploy.runtime.templating import render
from levit_deploy.targets.system import Arch, Os
from levit_deploy.targets.toolchain import find_toolchain

ABIS = {Arch.AARCH64: "arm64-v8a", Arch.ARMV7: "armeabi-v7a", Arch.X86_64: "x86_64"}

_SOURCES = Path(__file__).parent / "android"
# Symbols of C have the names of the class and its native methods.
_KEPT = "-keep class {}.Classifier {{ native <methods>; }}\n"
_NDK = 21  # a major release, which prefab wants to be told; the libraries are of none
# The language specification's keywords and literals (3.9), and Kotlin's hard keywords.
_TAKEN = """
abstract assert boolean break byte case catch char class const continue default do double else enum
extends final finally float for goto if implements import instanceof int interface long native new
package private protected public return short static strictfp super switch synchronized this throw
throws transient try void volatile while true false null
as fun in is object typealias typeof val var when
"""


def check(contents: Contents) -> None:
    """Raise DeployError for names that Java or Kotlin has taken, for libraries that are not one for
    each ABI of Android, and where there is no Java compiler."""
    if contents.name in _TAKEN.split():
        raise DeployError(
            f"`{contents.name}` cannot be a Java package's name: it is a word of Java or Kotlin",
            hint=f"compile the model with --name levit_{contents.name}",
        )
    check_systems(contents, (Os.ANDROID,), "an aar", "compile the model with --libc android")
    check_places(
        contents,
        lambda artifact, target: ABIS[target.arch],
        "an aar holds one library for each ABI",
        hint="name one of them, or compile for all: --target arm64-any or x86-64-any",
    )
    _javac()


def file_name(contents: Contents) -> str:
    """Such as `levit_128s_int8-1.0.aar`."""
    return f"{contents.name}-{contents.version}.aar"


def tree(contents: Contents) -> Tree:
    """Raises DeployError if a compiler fails."""
    name = contents.name
    files: dict[str, bytes | Path] = {
        "AndroidManifest.xml": _manifest(contents).encode(),
        "R.txt": b"",
        "proguard.txt": _KEPT.format(java_package(name)).encode(),
        "doc/Classifier.java": java_source(contents).encode(),
        "prefab/prefab.json": _json(
            schema_version=2, name=name, version=contents.version, dependencies=[]
        ),
        f"prefab/modules/{name}/module.json": _json(export_libraries=[], android={}),
    }
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as scratch:
        work = Path(scratch)
        files["classes.jar"] = compile_classes(contents, work).read_bytes()
        for artifact, target in sorted(contents.pairs, key=lambda pair: ABIS[pair[1].arch]):
            abi, library = ABIS[target.arch], artifact.shared_library
            bridge = link_bridge(artifact, work)
            files[f"jni/{abi}/{library.name}"] = library
            files[f"jni/{abi}/{bridge.name}"] = bridge.read_bytes()
            place = f"prefab/modules/{name}/libs/android.{abi}"
            files[f"{place}/abi.json"] = _json(
                abi=abi, api=_api(artifact), ndk=_NDK, stl="none", static=False
            )
            files[f"{place}/{library.name}"] = library
            # Sizes of workspaces differ from ABI to ABI.
            files[f"{place}/include/{artifact.header.name}"] = artifact.header
            layout = Layout("", f"{place}/include/", "", "")
            interface = interface_files(artifact, target, layout, contents.version)
            files |= {path: text for path, text in interface.items() if path.endswith(".hpp")}
            files |= {f"doc/{abi}/{path.name}": path for path in documents(artifact)}
    return files


def java_package(name: str) -> str:
    """Of the class for the library `name`; Android wants a name of two parts."""
    return f"levitdeploy.{name}"


def java_source(contents: Contents) -> str:
    """The class `Classifier`, which is the same for all ABIs."""
    return render("Classifier.java.j2", _settings(contents.artifacts[0]), _SOURCES)


def compile_classes(contents: Contents, work: Path) -> Path:
    """`work`/classes.jar; raises DeployError if there is no Java compiler, or if it fails."""
    source, classes = work / "Classifier.java", work / "classes"
    source.write_text(java_source(contents), encoding="utf-8")
    done = subprocess.run(
        (
            *(_javac(), "-encoding", "UTF-8", "--release", "8", "-Xlint:-options"),
            *("-d", classes, source),
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()[:30]) or f"exit status {done.returncode}"
        raise DeployError(
            f"cannot compile `{source.name}`: {reason}",
            hint="a JDK that compiles for Java 8: apt-get install openjdk-17-jdk-headless",
        )
    paths = sorted(path for path in classes.rglob("*.class"))
    jar = work / "classes.jar"
    manifest = {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\n\r\n"}
    write_zip({**manifest, **{p.relative_to(classes).as_posix(): p for p in paths}}, jar)
    return jar


def link_bridge(artifact: Artifact, work: Path) -> Path:
    """The library that the class calls, in a new folder of `work`: it asks for the artifact's own.

    Raises DeployError if the compiler fails.
    """
    device = artifact.manifest.device
    toolchain, folder = find_toolchain(device), work / ABIS[device.arch]
    folder.mkdir()
    source, compiled = folder / "bridge.c", folder / "bridge.o"
    source.write_text(render("bridge.c.j2", _settings(artifact), _SOURCES))
    shutil.copyfile(artifact.header, folder / artifact.header.name)
    toolchain.compile(source, compiled, ["-fno-builtin"])  # or it asks for functions of libc
    library = folder / f"lib{artifact.name}_jni.so"
    toolchain.link_shared([compiled, artifact.shared_library], library)
    return library


def _javac() -> str:
    javac = shutil.which("javac")
    if javac is None:
        raise DeployError(
            "there is no Java compiler", hint="a JDK: apt-get install default-jdk-headless"
        )
    return javac


def _settings(artifact: Artifact) -> dict[str, object]:
    m = artifact.manifest
    package = java_package(m.name)
    return {
        **facts(artifact),
        "package": package,
        # The specification's names of native methods (Java Native Interface, chapter 2).
        "symbol": "Java_" + f"{package}.Classifier".replace("_", "_1").replace(".", "_"),
        "image_size": m.image_size,
        "channels": m.card.in_chans,
        "outputs": "logits" if m.card.heads else "features",
    }


def _manifest(contents: Contents) -> str:
    oldest = max(map(_api, contents.artifacts))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<manifest xmlns:android="http://schemas.android.com/apk/res/android"\n'
        f'    package="{java_package(contents.name)}">\n'
        f'    <uses-sdk android:minSdkVersion="{oldest}" />\n'
        "</manifest>\n"
    )


def _api(artifact: Artifact) -> int:
    """The oldest API level that a library runs on."""
    return artifact.system.floor[0]


def _json(**values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
