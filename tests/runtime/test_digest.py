"""A damaged library says so: one bit of its weights, code or tables, and a self test finds it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.program import Program
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.digest import digest, seal
from levit_deploy.runtime.elf import Elf
from levit_deploy.targets.system import ObjectFormat
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import prefix_for
from tests.runtime.c_program import link_static, load_library_program, run
from tests.runtime.small_network import SmallNetwork

DAMAGED = 7


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of(part: slice, count: int) -> list[int]:
    """`count` random bits of the file, and the first and the last one of `part`."""
    first, last = 8 * part.start, 8 * part.stop - 1
    return [first, last, *random.Random(0).choices(range(first, last), k=count)]


@pytest.mark.parametrize(("target", "count"), [("host", 100), ("arm64", 10), ("armv7", 10)])
def test_one_bit(target: str, count: int, network: SmallNetwork, tmp_path: Path) -> None:
    """In the weights every flip is told. Elsewhere too, unless it ends the program before."""
    toolchain = find_toolchain(get_target(target))
    program = network.program(toolchain, tmp_path / "work")
    built = build_artifact(program, toolchain, network.self_test(), tmp_path)
    loader, prefix = load_library_program(toolchain, tmp_path), prefix_for(toolchain.target)
    copy, whole = tmp_path / "copy.so", built.shared_library.read_bytes()

    def self_test(data: bytes) -> int | None:
        """Its code; None if it does not come to an end."""
        copy.write_bytes(data)
        command = [*prefix, loader, copy, "small"]
        try:
            return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode
        except subprocess.TimeoutExpired:
            return None

    assert self_test(whole) == 0
    start = whole.index(program.constants)
    for bit in bits_of(slice(start, start + len(program.constants)), count):
        assert self_test(flipped(whole, bit)) == DAMAGED
    tables, code = Elf.parse(whole).read_only
    assert tables.start < start < tables.stop
    before, behind = slice(tables.start, start), slice(start + len(program.constants), tables.stop)
    for part in (before, behind, code):
        answers = [self_test(flipped(whole, bit)) for bit in bits_of(part, count)]
        assert 0 not in answers
        assert answers.count(DAMAGED) > count / 2


def test_weights_in_a_program(artifact: Artifact, program: Program, tmp_path: Path) -> None:
    """The static library knows its weights too."""
    source = """
    #include "small.h"
    #include <stdio.h>
    int main(void)
    {
        static unsigned char workspace[SMALL_WORKSPACE_BYTES];
        int code = small_self_test(workspace);
        puts(small_strerror(code));
        return code;
    }
    """
    main = link_static(find_toolchain(get_target("host")), source, [artifact], tmp_path)
    whole = main.read_bytes()
    start = whole.index(program.constants)
    for bit in bits_of(slice(start, start + len(program.constants)), 10):
        main.write_bytes(flipped(whole, bit))
        done = subprocess.run([main], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (
            DAMAGED,
            "self test: weights or code are not what was built\n",
        )


@pytest.mark.parametrize("size", [1, 7, 8, 31, 33, 4095, 4096, 4097, 3 * 4096 + 40])
def test_any_damage_within_8_bytes(size: int) -> None:
    rng = np.random.default_rng(size)
    data = rng.integers(0, 256, size, np.uint8)
    whole = digest(data.tobytes())
    for first in rng.integers(0, size, 50) // 8 * 8:
        changed = data.copy()
        changed[first : first + 8] ^= rng.integers(
            1, 256, len(changed[first : first + 8]), np.uint8
        )
        assert digest(changed.tobytes()) != whole


def test_the_same_bit_of_many_words() -> None:
    """As a broken line of a bus damages them."""
    data = np.random.default_rng(0).integers(0, 256, 8192, np.uint8).view(np.uint64)
    whole = digest(data.tobytes())
    for bit in range(64):
        for step in (1, 2, 4, 8):
            changed = data.copy()
            changed[::step] ^= np.uint64(1) << np.uint64(bit)
            assert digest(changed.tobytes()) != whole


def test_a_library_that_is_sealed_already(
    artifact: Artifact, program: Program, tmp_path: Path
) -> None:
    copy = tmp_path / "libsmall.so"
    copy.write_bytes(artifact.shared_library.read_bytes())
    with pytest.raises(ValueError, match="0 places"):
        seal(copy, len(program.constants), ObjectFormat.ELF)


def test_a_stripped_library(artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path) -> None:
    """As distributions do it: the file's headers change."""
    if shutil.which("strip") is None:
        pytest.skip("no strip: apt-get install binutils")
    stripped = tmp_path / "libsmall.so"
    subprocess.run(["strip", "-o", stripped, artifact.shared_library], check=True)
    assert stripped.read_bytes()[:64] != artifact.shared_library.read_bytes()[:64]
    run(load_library_program(host_toolchain, tmp_path), arguments=(str(stripped), "small"))
