"""A crate: the static library behind a safe interface in Rust, which `cargo` builds as it is.

It unpacks to a folder that may be a path dependency, or lie among vendored crates. Manifest format:
doc.rust-lang.org/cargo/reference/manifest.html; vendored crates: .../source-replacement.html.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree, content
from levit_deploy.packaging.contents import Contents, check_places
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.handout import facts
from levit_deploy.runtime.templating import render
from levit_deploy.targets.system import Arch, Family
from levit_deploy.targets.target import Target

RUST_VERSION = "1.63"  # Debian 12's; CStr is not in `core` before 1.64, so texts are read by hand

_CRATE = Path(__file__).parent / "crate"
_MANIFEST = "Cargo.toml.j2"
_TRIPLES = {
    (Family.GLIBC, Arch.X86_64): "x86_64-unknown-linux-gnu",
    (Family.GLIBC, Arch.AARCH64): "aarch64-unknown-linux-gnu",
    (Family.GLIBC, Arch.ARMV7): "armv7-unknown-linux-gnueabihf",
    (Family.MUSL, Arch.X86_64): "x86_64-unknown-linux-musl",
    (Family.MUSL, Arch.AARCH64): "aarch64-unknown-linux-musl",
    (Family.MUSL, Arch.ARMV7): "armv7-unknown-linux-musleabihf",
    (Family.ANDROID, Arch.X86_64): "x86_64-linux-android",
    (Family.ANDROID, Arch.AARCH64): "aarch64-linux-android",
    (Family.ANDROID, Arch.ARMV7): "armv7-linux-androideabi",
    (Family.WINDOWS, Arch.X86_64): "x86_64-pc-windows-gnu",
    (Family.WINDOWS, Arch.AARCH64): "aarch64-pc-windows-gnullvm",
    (Family.MACOS, Arch.AARCH64): "aarch64-apple-darwin",
    (Family.IOS, Arch.AARCH64): "aarch64-apple-ios",
}
# The reference's keywords, strict and reserved, and the crates that every program has.
_TAKEN = """
abstract as async await become box break const continue crate do dyn else enum extern false final
fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static
struct super trait true try type typeof unsafe unsized use virtual where while yield _
alloc core proc_macro std test
"""


def check(contents: Contents) -> None:
    """Raise DeployError for names that Rust has taken, and libraries that are not one for each
    Rust target."""
    name = crate_name(contents)
    if name in _TAKEN.split():
        raise DeployError(
            f"`{contents.name}` cannot be a crate's name: Rust has something of that name",
            hint=f"compile the model with --name levit_{name.strip('_') or 'model'}",
        )
    rule = "a crate holds one library for each Rust target"
    check_places(contents, triple_of, rule, hint="make a crate for each of them")


def file_name(contents: Contents) -> str:
    """Such as `levit_128s_int8-1.0.0.crate`, a .tar.gz of one folder."""
    return f"{_top(contents)}.crate"


def tree(contents: Contents) -> Tree:
    """The version ends in a digest of all other files: a path dependency whose files are replaced
    cargo compares by their times, and in an archive of ours they have none."""
    settings = _settings(contents)
    files: dict[str, bytes | Path] = {}
    for path in sorted(path for path in _CRATE.rglob("*") if path.is_file()):
        inside = path.relative_to(_CRATE).as_posix()
        if path.suffix != ".j2":
            files[inside] = path
        elif inside != _MANIFEST:
            files[inside.removesuffix(".j2")] = render(inside, settings, _CRATE).encode()
    for artifact, target in contents.pairs:
        place = f"lib/{triple_of(artifact, target)}"
        files[f"{place}/lib{artifact.name}.a"] = artifact.static_library
    build = hashlib.sha256(_checksums(files)).hexdigest()[:12]
    files["Cargo.toml"] = render(_MANIFEST, {**settings, "build": build}, _CRATE).encode()
    files[".cargo-checksum.json"] = _checksums(files)
    return {f"{_top(contents)}/{path}": entry for path, entry in files.items()}


def crate_name(contents: Contents) -> str:
    """The library's as Rust writes names."""
    return re.sub("_+", "_", contents.name.lower())


def triple_of(artifact: Artifact, target: Target) -> str:
    """What Rust calls the CPU and system that an artifact was linked for; of Windows the kind whose
    linker takes MinGW's objects."""
    return _TRIPLES[artifact.system.family, target.arch]


def _top(contents: Contents) -> str:
    return f"{crate_name(contents)}-{_version(contents)}"


def _version(contents: Contents) -> str:
    """Three numbers, as cargo wants them."""
    return ".".join([*contents.version.split("."), "0", "0"][:3])


def _settings(contents: Contents) -> Mapping[str, object]:
    m = contents.manifest
    triples = [triple_of(*pair) for pair in contents.pairs]
    return {
        **facts(contents.artifacts[0]),
        "crate": crate_name(contents),
        "version": _version(contents),
        "rust": RUST_VERSION,
        "description": f"{m.model} ({m.precision}) for {', '.join(triples)}",
        "triples": sorted(triples),
        "libraries": [
            (triple, target.description, artifact.manifest.system)
            for triple, (artifact, target) in sorted(zip(triples, contents.pairs, strict=True))
        ],
        "image_size": m.image_size,
        "channels": m.card.in_chans,
        "outputs": "logits" if m.card.heads else "features",
    }


def _checksums(files: Mapping[str, bytes | Path]) -> bytes:
    """What cargo holds a vendored crate against."""
    digests = {path: hashlib.sha256(content(entry)).hexdigest() for path, entry in files.items()}
    return json.dumps({"files": digests, "package": None}).encode()
