"""What an artifact is made of, as a bill of materials (SBOM) in CycloneDX 1.6, JSON."""

from __future__ import annotations

import json
import uuid

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from levit_deploy.runtime.manifest import Manifest

FILE_NAME = "sbom.cdx.json"
_OWN_LICENCE = "Apache-2.0"
_NAMESPACE = uuid.UUID("6c3f4d0e-6f0b-5a83-9a39-5a1f4a6a2c55")  # of serial numbers made here


def bill_of_materials(manifest: Manifest) -> bytes:
    """The bill of the artifact with that manifest: its files with their SHA-256, the weights, our
    own C in it, and the tools that made it. The same manifest gives the same bytes."""
    bom = Bom(
        serial_number=uuid.uuid5(_NAMESPACE, manifest.build_id), components=_components(manifest)
    )
    bom.metadata.component = Component(
        type=ComponentType.LIBRARY,
        name=manifest.name,
        version=manifest.build_id,
        bom_ref=manifest.name,
        properties=[
            Property(name="target", value=manifest.target),
            Property(name="precision", value=manifest.precision),
        ],
    )
    bom.metadata.tools.components.update(
        Component(
            type=ComponentType.APPLICATION,
            name=name,
            version=tool,
            bom_ref=f"tool:{name}",
            purl=PackageURL("pypi", name=name, version=tool),
        )
        for name, tool in manifest.versions.items()
    )
    linker, _, linker_version = manifest.toolchain.rpartition(" ")
    bom.metadata.tools.components.add(
        Component(
            type=ComponentType.APPLICATION,
            name=linker or manifest.toolchain,
            version=linker_version,
            bom_ref="tool:linker",
        )
    )
    bom.register_dependency(
        bom.metadata.component, [each for each in bom.components if each.type is not _FILE]
    )
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]  # when it was made is not what it is made of
    return (json.dumps(document, indent=2) + "\n").encode()


_FILE = ComponentType.FILE


def _components(manifest: Manifest) -> list[Component]:
    licence = manifest.card.licence
    weights = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.model,
        version=manifest.weights_digest,
        bom_ref="weights",
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],
        description="the trained weights; the version is their canonical SHA-256",
    )
    version = manifest.versions["levit-deploy"]
    runtime = Component(
        type=ComponentType.LIBRARY,
        name="levit-deploy-runtime",
        version=version,
        bom_ref="runtime",
        licenses=[DisjunctiveLicense(id=_OWN_LICENCE)],
        purl=PackageURL("pypi", name="levit-deploy", version=version),
        description="the C around the generated kernels",
    )
    files = [
        Component(
            type=_FILE,
            name=path,
            bom_ref=f"file:{path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=record.sha256)],
        )
        for path, record in manifest.files.items()
    ]
    return [weights, runtime, *files]
