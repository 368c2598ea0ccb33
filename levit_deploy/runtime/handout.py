"""What stands beside an artifact's libraries, so that an app can use them as they are.

A module for Python, a header for C++, what CMake and pkg-config look for, the labels as a file, and
a page for people. None of it is needed to run the library, which describes itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.compiler.program import EIGHT_BIT
from levit_deploy.records import printable
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.templating import TEMPLATES, render
from levit_deploy.targets.target import Arch, Target

PYTHON_MODULE = Path(__file__).parent / "levit.py"
README = "README.md"
LABELS = "labels.txt"
FIRST_VERSION = "1.0"
_CPP_HEADER = "levit_deploy.hpp"


@dataclass(frozen=True)
class Layout:
    """Where files go, as folders that end in a slash, or "" for the top."""

    libraries: str
    headers: str
    cmake: str
    pkg_config: str


IN_ARTIFACT = Layout(libraries="", headers="", cmake="cmake/", pkg_config="")


def handout(artifact: Artifact, target: Target) -> dict[str, bytes]:
    """Files by their path in the artifact's folder. `artifact`: its manifest lists the libraries.

    `target`: what the artifact was compiled for.
    """
    files = interface_files(artifact, target, IN_ARTIFACT, FIRST_VERSION)
    files["levit.py"] = PYTHON_MODULE.read_bytes()
    if artifact.manifest.card.heads:
        files[LABELS] = labels_text(artifact).encode()
    files[README] = render("readme.md.j2", facts(artifact)).encode()
    return files


def interface_files(
    artifact: Artifact, target: Target, layout: Layout, version: str
) -> dict[str, bytes]:
    """The header for C++, and what CMake and pkg-config look for, by their paths in the layout."""
    name = artifact.name
    settings = {
        **facts(artifact),
        "version": version,
        "libraries": layout.libraries,
        "headers": layout.headers,
        "pointer_bytes": 4 if target.arch is Arch.ARMV7 else 8,
    }
    texts = {
        f"{layout.headers}{name}.hpp": render("name.hpp.j2", settings),
        f"{layout.headers}{_CPP_HEADER}": (TEMPLATES / _CPP_HEADER).read_text(),
    }
    for folder, file, template in (
        (layout.cmake, f"{name}Config.cmake", "config.cmake.j2"),
        (layout.cmake, f"{name}ConfigVersion.cmake", "config_version.cmake.j2"),
        (layout.pkg_config, f"{name}.pc", "name.pc.j2"),
    ):
        up = os.path.relpath(".", folder or ".")
        texts[f"{folder}{file}"] = render(template, {**settings, "up": up})
    return {path: text.encode() for path, text in texts.items()}


def labels_text(artifact: Artifact) -> str:
    """What each class is called, one a line, as the library says it."""
    manifest = artifact.manifest
    labels = manifest.card.labels or tuple(f"class {i}" for i in range(manifest.classes))
    return "".join(f"{printable(label)}\n" for label in labels)


def facts(artifact: Artifact) -> dict[str, object]:
    """What the templates of files for apps say of an artifact."""
    m = artifact.manifest
    others = ", ".join(m.levels) or m.base_target
    provenance = m.provenance
    made_from = ["nobody says"], "nobody says"
    if provenance:
        made_from = [provenance.weights, provenance.key or ""], provenance.data or "none"
    return {
        "name": m.name,
        "upper": m.name.upper(),
        "model": m.model,
        "precision": m.precision,
        "target": m.target if m.target == others else f"{m.target} ({others})",
        "libc": m.system,
        "tool_version": m.versions["levit-deploy"],
        "toolchain": m.toolchain,
        "build_id": m.build_id,
        "answers": m.card.heads > 0,
        "classes": m.classes,
        "run_8bit": EIGHT_BIT[m.card.in_chans].function,
        "top": min(3, m.classes),
        "library_files": artifact.system.libraries(m.name),
        "shared_file": artifact.system.shared_library(m.name),
        "import_file": artifact.system.import_library(m.name),
        "static_file": artifact.static_library.name,
        "recipe": m.card.recipe,
        "rows": [tuple(map(_cell, row)) for row in m.card.rows()],
        "weights": ", ".join(_cell(text) for text in made_from[0] if text),
        "weights_digest": m.weights_digest,
        "licence": _cell(m.card.licence) or "unknown: nothing beside them says",
        "data": _cell(made_from[1]),
        "digests": [(name, m.files[name].sha256) for name in artifact.built_files],
    }


def _cell(text: str) -> str:
    """What may stand in a cell of a Markdown table, whoever wrote it."""
    return printable(text).translate({ord(c): f"\\{c}" for c in "\\`*_[]<>|"})
