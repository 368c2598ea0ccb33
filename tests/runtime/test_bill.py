"""The bill of materials, read by the library of CycloneDX."""

from __future__ import annotations

import hashlib
import json

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import ComponentType

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.bill import FILE_NAME, bill_of_materials


def test_it_lists_what_is_there(host_artifact: Artifact) -> None:
    bom = Bom.from_json(json.loads((host_artifact.folder / FILE_NAME).read_text()))  # type: ignore[attr-defined]
    assert bom.metadata.component.version == host_artifact.manifest.build_id
    assert {tool.name for tool in bom.metadata.tools.components} >= {"levit-deploy", "zig"}
    files = {c.name: c for c in bom.components if c.type is ComponentType.FILE}
    assert {"levit_tiny.h", "liblevit_tiny.so", "liblevit_tiny.a"} <= set(files)
    for name, component in files.items():
        content = (host_artifact.folder / name).read_bytes()
        assert [each.content for each in component.hashes] == [hashlib.sha256(content).hexdigest()]
    model = next(c for c in bom.components if c.type is ComponentType.MACHINE_LEARNING_MODEL)
    assert model.version == host_artifact.manifest.weights_digest


def test_the_same_manifest_gives_the_same_bytes(host_artifact: Artifact) -> None:
    manifest = host_artifact.manifest
    assert bill_of_materials(manifest) == bill_of_materials(manifest)
