"""A wheel: the library and levit.py as a Python package, for pip on the device.

Binary distribution format: packaging.python.org/specifications/binary-distribution-format; platform
tags: PEP 600 (manylinux), PEP 656 (musllinux).
"""

from __future__ import annotations

import base64
import hashlib
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from levit_deploy import __version__
from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree, content
from levit_deploy.packaging.contents import Contents, documents, target_name
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.handout import PYTHON_MODULE
from levit_deploy.targets.target import Arch, Target


@dataclass(frozen=True)
class _Platform:
    """`tag`: with `{release}` where the oldest release goes. `machines`: what CPUs are called."""

    tag: str
    machines: Mapping[Arch, str]


_LINUX = {Arch.X86_64: "x86_64", Arch.AARCH64: "aarch64", Arch.ARMV7: "armv7l"}
# By what a manifest calls the system that the library was linked for, without its release.
_PLATFORMS = {
    "glibc": _Platform("manylinux_{release}_{machine}", _LINUX),
    # zig brings musl 1.2, and the oldest Alpine that is looked after has it.
    "musl": _Platform("musllinux_1_2_{machine}", _LINUX),
    "windows": _Platform("win_{machine}", {Arch.X86_64: "amd64", Arch.AARCH64: "arm64"}),
    "macos": _Platform("macosx_{release}_{machine}", {Arch.AARCH64: "arm64"}),
}


def check(contents: Contents) -> None:
    """Raise DeployError for names that Python cannot import, and libraries of several systems."""
    name = contents.name
    stem = re.sub("^levit_", "", name.lower()).strip("_") or "model"
    if keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise DeployError(
            f"`{name}` cannot be a Python package's name: Python has something of that name",
            hint=f"compile the model with --name levit_{stem}",
        )
    if name.endswith("_"):
        raise DeployError(
            f"`{name}` cannot be a wheel's name: it ends in `_`",
            hint=f"compile the model with --name levit_{stem}",
        )
    tags = {platform_tag(artifact, target) for artifact, target in contents.pairs}
    if len(tags) > 1:
        raise DeployError(
            f"a wheel is for one system, not for `{'` and `'.join(sorted(tags))}`",
            hint="make a wheel for each of them; pip chooses",
        )


def file_name(contents: Contents) -> str:
    """Such as `levit_128s_int8-1.0-py3-none-manylinux_2_17_aarch64.whl`."""
    return f"{_distribution(contents)}-{_tag(contents)}.whl"


def tree(contents: Contents) -> Tree:
    """`<name>/__init__.py` is levit.py; of several libraries each has a folder, the best first."""
    package = contents.name
    files: dict[str, bytes | Path] = {
        f"{package}/__init__.py": PYTHON_MODULE,
        f"{package}/py.typed": b"",
    }
    for number, artifact in enumerate(contents.artifacts):
        several = len(contents.artifacts) > 1
        place = f"{package}/{number}-{target_name(artifact)}" if several else package
        for path in (artifact.shared_library, *documents(artifact)):
            files[f"{place}/{path.name}"] = path
    info = f"{_distribution(contents)}.dist-info"
    files[f"{info}/METADATA"] = _metadata(contents).encode()
    files[f"{info}/WHEEL"] = _wheel(contents).encode()
    record = f"{info}/RECORD"
    lines = [*(_recorded(path, content(entry)) for path, entry in files.items()), f"{record},,"]
    files[record] = "".join(f"{line}\n" for line in lines).encode()
    return files


def platform_tag(artifact: Artifact, target: Target) -> str:
    """The oldest system that the library runs on.

    Raises DeployError if pip installs nothing there.
    """
    system = artifact.manifest.system
    name, _, release = system.partition("-")
    platform = _PLATFORMS.get(name)
    if platform is None or target.arch not in platform.machines:
        raise DeployError(
            f"a wheel cannot hold `{artifact.folder}`, for `{target.name}` with {system}",
            hint=f"wheels are for {', '.join(_PLATFORMS)}",
        )
    machine = platform.machines[target.arch]
    return platform.tag.format(release=release.replace(".", "_"), machine=machine)


def _distribution(contents: Contents) -> str:
    """Name and version, as file names of a distribution begin."""
    name = re.sub("_+", "_", contents.name.lower())
    return f"{name}-{contents.version}"


def _tag(contents: Contents) -> str:
    artifact, target = contents.pairs[0]
    return f"py3-none-{platform_tag(artifact, target)}"


def _metadata(contents: Contents) -> str:
    m = contents.manifest
    targets = ", ".join(map(target_name, contents.artifacts))
    return (
        "Metadata-Version: 2.1\n"
        f"Name: {contents.name}\n"
        f"Version: {contents.version}\n"
        f"Summary: {m.model} ({m.precision}) for {targets}\n"
        "Requires-Python: >=3.9\n"
        "Provides-Extra: files\n"
        'Requires-Dist: pillow; extra == "files"\n'
    )


def _wheel(contents: Contents) -> str:
    return (
        "Wheel-Version: 1.0\n"
        f"Generator: levit-deploy {__version__}\n"
        "Root-Is-Purelib: false\n"
        f"Tag: {_tag(contents)}\n"
    )


def _recorded(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}"
