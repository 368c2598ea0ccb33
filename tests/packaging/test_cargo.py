"""A crate, built and run by cargo alone: no network, no other crate, warnings as errors."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.levit import Format, Frame, Matrix, Range
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.cli.conftest import ROOT, Cli
from tests.deployment import Builder
from tests.machine import emulator_for
from tests.packaging.conftest import Variant
from tests.packaging.test_package import assert_refused

HERE = Path(__file__).parent
needs_cargo = pytest.mark.skipif(
    shutil.which("cargo") is None, reason="cargo is not installed: rustup.rs"
)
# Bytes of the rows of each plane of 48 x 32 pixels, as in app.rs.
ROW_BYTES = {
    **dict.fromkeys((Format.RGB, Format.BGR), (144,)),
    **dict.fromkeys((Format.RGBA, Format.BGRA), (192,)),
    Format.GRAY8: (48,),
    **dict.fromkeys((Format.NV12, Format.NV21), (48, 48)),
    Format.I420: (48, 24, 24),
    **dict.fromkeys((Format.YUYV, Format.UYVY), (96,)),
}
PAGE_MAIN = """
fn main() -> Result<(), Error> {
    let (y, uv) = (vec![90; 1920 * 1080], vec![128; 1920 * 540]);
    print_labels(&mut Classifier::new(), &y, &uv)
}
"""


def frames(data: bytes) -> Iterator[Frame]:
    """Those of app.rs."""
    for number, (format, row_bytes) in enumerate(ROW_BYTES.items()):
        for upwards in (False, True):
            planes = []
            for plane, count in enumerate(row_bytes):
                pixels = np.frombuffer(data, np.uint8, offset=8000 * plane)
                rows = 32 if plane == 0 else 16
                view = np.lib.stride_tricks.as_strided(pixels, (rows, count), (count + 7, 1))
                planes.append(view[::-1] if upwards else view)
            yield Frame(
                planes=tuple(planes),
                width=48,
                height=32,
                format=format,
                rotation=number % 4 * 90,
                mirrored=number % 3 == 1,
                matrix=Matrix(number % 2),
                range=Range.FULL if upwards else Range.LIMITED,
            )


def expected_logits(artifact: Artifact, data: bytes) -> bytes:
    library = Library(artifact.folder)
    return b"".join(library.run_frame(frame).tobytes() for frame in frames(data))


def pack(cli: Cli, *artifacts: Artifact) -> Path:
    """The folder that the crate of artifacts unpacks to."""
    folders = [artifact.folder for artifact in artifacts]
    done = cli.run("package", *folders, "--as", "cargo", "--version", "1.2", "--json")
    with tarfile.open(json.loads(done.stdout)["path"]) as archive:
        archive.extractall(cli.folder / "unpacked", filter="data")
    (folder,) = (cli.folder / "unpacked").iterdir()
    return folder


def write_app(folder: Path, dependency: str) -> Path:
    """A program that calls the crate `small`, and the page's, that calls the same `levit_128s`."""
    page = (ROOT / "docs" / "packages.md").read_text()
    (block,) = re.findall(r"^```rust\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (folder / "src" / "bin").mkdir(parents=True)
    shutil.copy(HERE / "app.rs", folder / "src" / "bin" / "app.rs")
    (folder / "src" / "bin" / "page.rs").write_text(
        block.replace("levit_128s", "small") + PAGE_MAIN
    )
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
        f"[dependencies]\nsmall = {{ {dependency} }}\n"
    )
    return folder


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("target")


def cargo(
    folder: Path, target: Path, *arguments: str, fails: bool = False, **environment: str
) -> str:
    """What cargo says."""
    done = subprocess.run(
        ["cargo", *arguments, "--offline", "--quiet"],
        cwd=folder,
        env={
            **os.environ,
            "CARGO_TARGET_DIR": str(target),
            "RUSTFLAGS": "-Dwarnings",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(*command: str | Path) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@needs_cargo
def test_an_app_gets_the_bits_of_the_library(
    cli: Cli, artifact: Artifact, tmp_path: Path, build_folder: Path
) -> None:
    crate = pack(cli, artifact)
    app = write_app(tmp_path / "app", f'path = "{crate}"')
    cargo(app, build_folder, "build")
    data = np.random.default_rng(3).bytes(24000)
    (tmp_path / "data").write_bytes(data)
    printed = run(build_folder / "debug" / "app", tmp_path / "data", "small")
    assert printed == expected_logits(artifact, data)
    assert len(run(build_folder / "debug" / "page").splitlines()) == 3


@needs_cargo
def test_the_example_reads_pictures(
    cli: Cli, artifact: Artifact, tmp_path: Path, build_folder: Path
) -> None:
    cargo(pack(cli, artifact), build_folder, "build", "--examples")
    example = build_folder / "debug" / "examples" / "classify"
    rgb = np.random.default_rng(4).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    (tmp_path / "p.rgb").write_bytes(rgb.tobytes())
    (tmp_path / "p.ppm").write_bytes(b"P6\n90 60\n255\n" + rgb.tobytes())
    answers = Library(artifact.folder).classify(rgb)
    for arguments in ((tmp_path / "p.ppm",), ("90", "60", tmp_path / "p.rgb")):
        lines = run(example, *arguments).decode().splitlines()
        found = [line.split("  ") for line in lines]
        assert [label for _, label in found] == [answer.label for answer in answers]
        assert [np.float32(p) for p, _ in found] == [answer.probability for answer in answers]
    for arguments in (("90", "61", "p.rgb"), ("p.rgb",), ("-1", "60", "p.rgb"), ("none",), ()):
        done = subprocess.run([example, *arguments], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: ")


@needs_cargo
@pytest.mark.parametrize(
    ("changes", "features"),
    [
        ({}, "--all-features"),
        ({}, "--no-default-features"),
        ({"heads": 0}, "--all-features"),
        ({"in_chans": 1, "mean": (0.5,), "std": (0.5,)}, "--all-features"),
    ],
    ids=["classes", "no_std", "features", "grey"],
)
def test_linters_find_nothing(
    cli: Cli, artifact: Artifact, variant: Variant, build_folder: Path, changes: dict, features: str
) -> None:
    """Whatever the library gives and takes."""
    crate = pack(cli, variant(card=artifact.manifest.card.stated("a test", **changes)))
    check = ("clippy", "--all-targets") if shutil.which("cargo-clippy") else ("check", "--lib")
    cargo(crate, build_folder, *check, features)
    if shutil.which("rustfmt"):
        run("cargo", "fmt", "--manifest-path", crate / "Cargo.toml", "--check")


@needs_cargo
def test_it_may_be_vendored(
    cli: Cli, artifact: Artifact, tmp_path: Path, build_folder: Path
) -> None:
    """Where cargo holds its files against their digests."""
    crate, app = pack(cli, artifact), write_app(tmp_path / "app", 'version = "1.2"')
    (app / ".cargo").mkdir()
    (app / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "vendored"\n'
        f'[source.vendored]\ndirectory = "{crate.parent}"\n'
    )
    cargo(app, build_folder, "check")
    (crate / "src" / "error.rs").write_text("")
    assert "checksum" in cargo(app, tmp_path / "target", "check", fails=True)


@needs_cargo
def test_another_cpu_is_told(cli: Cli, variant: Variant, build_folder: Path) -> None:
    """By a crate for two machines, at the place of one that was built before."""
    others = (
        variant(base_target="arm64", system="musl"),
        variant(base_target="armv7", system="musl"),
    )
    words = cargo(pack(cli, *others), build_folder, "check", fails=True)
    assert "small has no library for `" in words
    assert "`aarch64-unknown-linux-musl`, `armv7-unknown-linux-musleabihf`" in words


@pytest.mark.parametrize(
    ("target", "system", "triple"),
    [
        ("x86-64-v3", "windows", "x86_64-pc-windows-gnu"),
        ("arm64", "windows", "aarch64-pc-windows-gnullvm"),
        ("arm64-dotprod", "android-21", "aarch64-linux-android"),
        ("armv7", "android-21", "armv7-linux-androideabi"),
        ("arm64", "macos-11.0", "aarch64-apple-darwin"),
        ("arm64", "ios-13.0", "aarch64-apple-ios"),
    ],
)
def test_libraries_lie_where_rust_looks(
    cli: Cli, variant: Variant, target: str, system: str, triple: str
) -> None:
    """By Rust's name of the system, as its linker there looks for a static library."""
    artifact = variant(base_target=target, system=system)
    found = [path for path in (pack(cli, artifact) / "lib").rglob("*") if path.is_file()]
    assert [path.parts[-2:] for path in found] == [(triple, "libsmall.a")]
    assert found[0].read_bytes() == artifact.static_library.read_bytes()


@pytest.mark.slow
@needs_cargo
@pytest.mark.parametrize(
    ("target", "triple", "debian"),
    [
        ("arm64", "aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
        ("armv7", "armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf"),
    ],
)
def test_another_cpu_gives_the_same_bits(
    cli: Cli,
    builder: Builder,
    host_artifact: Artifact,
    tmp_path: Path,
    target: str,
    triple: str,
    debian: str,
) -> None:
    """One crate for two CPUs; zig links the program, and qemu runs it with that CPU's glibc."""
    sysroot = run("rustc", "--print", "sysroot").decode().strip()
    if not (Path(sysroot) / "lib" / "rustlib" / triple).is_dir():
        pytest.skip(f"Rust has no library for {triple}: rustup target add {triple}")
    system = Path(os.environ.get("QEMU_LD_PREFIX", f"/usr/{debian}"))
    if not system.is_dir():
        pytest.skip("no glibc to run with: apt-get install libc6-arm64-cross libc6-armhf-cross")
    cpu, emulator = get_target(target), emulator_for(get_target(target))
    foreign = builder.artifact(builder.program(cpu), tmp_path)
    crate = pack(cli, foreign, host_artifact)
    dependency = f'path = "{crate}", package = "{host_artifact.name}"'
    app, linker = write_app(tmp_path / "app", dependency), tmp_path / "linker"
    linker.write_text(f'#!/bin/sh\nexec {shlex.join(find_toolchain(cpu).compiler)} "$@"\n')
    linker.chmod(0o755)
    option = f"CARGO_TARGET_{triple.upper().replace('-', '_')}_LINKER"
    cargo(app, tmp_path, "build", "--target", triple, **{option: str(linker)})
    data = np.random.default_rng(3).bytes(24000)
    (tmp_path / "data").write_bytes(data)
    program = tmp_path / triple / "debug" / "app"
    printed = run(*emulator, "-L", system, program, tmp_path / "data", host_artifact.name)
    expected = expected_logits(host_artifact, data)
    assert len(printed) == len(expected)
    if cpu.fma and get_target(host_artifact.manifest.base_target).fma:
        assert printed == expected


@pytest.mark.parametrize("name", ["fn", "async", "Self", "std", "_"])
def test_a_name_that_rust_has_taken(cli: Cli, variant: Variant, name: str) -> None:
    folder = variant(name=name).folder
    words = f"`{name}` cannot be a crate's name"
    assert_refused(cli, "package", folder, "--as", "cargo", words=words, hint="--name levit_")


def test_names_are_as_rust_writes_them(cli: Cli, variant: Variant) -> None:
    assert pack(cli, variant(name="My__net")).name == "my_net-1.2.0"
