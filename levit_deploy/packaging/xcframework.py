"""An XCFramework: the static libraries for Apple's systems with headers, as a module for Swift.

    NAME.xcframework/
      Info.plist
      ios-arm64/    libNAME.a  Headers/NAME/{module.modulemap, NAME.h, ...}
      macos-arm64/  the same

What `xcodebuild -create-xcframework -library libNAME.a -headers DIR` lays out (developer.apple.com,
"Creating a multiplatform binary framework bundle"). The zip of it is what a binary target of a
Swift package takes. Headers have a folder of their own, as Xcode copies those of all such libraries
into one place.
"""

from __future__ import annotations

import plistlib
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree
from levit_deploy.packaging.contents import (
    Contents,
    check_places,
    check_systems,
    documents,
)
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.handout import Layout, interface_files
from levit_deploy.targets.system import Arch, Os
from levit_deploy.targets.target import Target

_SYSTEMS = (Os.MACOS, Os.IOS)  # by the names that Apple gives them
_ARCHS = {Arch.AARCH64: "arm64"}
_HEADERS = "Headers"
_MODULE_MAP = 'module {name} {{\n    header "{name}.h"\n    export *\n}}\n'
# The Swift book's keywords of declarations, statements and expressions, and modules of the system.
_TAKEN = """
associatedtype class deinit enum extension fileprivate func import init inout internal let open
operator private precedencegroup protocol public rethrows static struct subscript typealias var
break case catch continue default defer do else fallthrough for guard if in repeat return throw
switch where while Any as await false is nil self Self super throws true try
Swift Darwin Foundation
"""


def check(contents: Contents) -> None:
    """Raise DeployError for names that Swift has taken, for other systems than Apple's, and for two
    libraries of one of them."""
    if contents.name in _TAKEN.split():
        raise DeployError(
            f"`{contents.name}` cannot be a Swift module's name: Swift has something of that name",
            hint=f"compile the model with --name levit_{contents.name.lower()}",
        )
    hint = "compile the model with --os macos or --os ios"
    check_systems(contents, _SYSTEMS, "an xcframework", hint)
    rule = "an xcframework holds one library for each system"
    check_places(contents, _slice, rule, hint="name one of them")


def file_name(contents: Contents) -> str:
    """Such as `levit_128s-1.0.xcframework.zip`."""
    return f"{contents.name}-{contents.version}.xcframework.zip"


def tree(contents: Contents) -> Tree:
    name = contents.name
    pairs = sorted(contents.pairs, key=lambda pair: _slice(*pair))
    top = f"{name}.xcframework"
    files: dict[str, bytes | Path] = {
        f"{top}/Info.plist": _info([_library(*pair) for pair in pairs])
    }
    for artifact, target in pairs:
        place = f"{top}/{_slice(artifact, target)}"
        headers = f"{place}/{_HEADERS}/{name}/"
        interface = interface_files(artifact, target, Layout("", headers, "", ""), contents.version)
        files |= {
            f"{place}/{artifact.static_library.name}": artifact.static_library,
            f"{headers}module.modulemap": _MODULE_MAP.format(name=name).encode(),
            f"{headers}{artifact.header.name}": artifact.header,
            **{path: text for path, text in interface.items() if path.endswith(".hpp")},
            **{f"{place}/doc/{path.name}": path for path in documents(artifact)},
        }
    return files


def _slice(artifact: Artifact, target: Target) -> str:
    """Apple's name of a system and CPU, such as `ios-arm64`."""
    return f"{artifact.system.os}-{_ARCHS[target.arch]}"


def _library(artifact: Artifact, target: Target) -> dict[str, object]:
    """What Info.plist says of a slice."""
    library = artifact.static_library.name
    return {
        "BinaryPath": library,
        "HeadersPath": _HEADERS,
        "LibraryIdentifier": _slice(artifact, target),
        "LibraryPath": library,
        "SupportedArchitectures": [_ARCHS[target.arch]],
        "SupportedPlatform": str(artifact.system.os),
    }


def _info(libraries: list[dict[str, object]]) -> bytes:
    return plistlib.dumps(
        {
            "AvailableLibraries": libraries,
            "CFBundlePackageType": "XFWK",
            "XCFrameworkFormatVersion": "1.0",
        }
    )
