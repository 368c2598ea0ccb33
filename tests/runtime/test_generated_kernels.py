"""A whole LeViT, tiny and randomised, from C: the compiler's own kernels keep the contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.export_model import export_model
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.runtime.self_test import SelfTest, self_test_image
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import prefix_for
from tests.randomize import randomize
from tests.runtime.c_program import link_static, run, self_test_shared_library


@dataclass(frozen=True)
class Built:
    toolchain: Toolchain
    artifact: Artifact
    net: Levit


def reference(net: Levit, image: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return net(torch.from_numpy(np.ascontiguousarray(image))[None])[0].numpy()


@pytest.fixture(scope="module", params=["host", "arm64", "armv7"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    toolchain = find_toolchain(get_target(request.param))
    net = randomize(Levit(TINY), seed=5)
    exported = export_model(net, name="levit_tiny", weights_digest="0" * 64)
    program = compile_model(exported, toolchain.target)
    normalised = (self_test_image(TINY.image_size, 3) / 255 - program.card.mean) / np.array(
        program.card.std
    )
    logits = reference(net, normalised.transpose(2, 0, 1).astype(np.float32))
    self_test = SelfTest(tuple(map(float, logits)), 1e-3 * float(np.ptp(logits)))
    folder = tmp_path_factory.mktemp("generated")
    return Built(toolchain, build_artifact(program, toolchain, self_test, folder), net)


CONTRACT = """
#include "levit_tiny.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __arm__
enum { STEP = 4 }; /* elsewhere floats may lie at any byte */
#else
enum { STEP = 5 };
#endif
enum { VALUES = 3 * LEVIT_TINY_IMAGE_SIZE * LEVIT_TINY_IMAGE_SIZE, MARGIN = 4096, MARK = 0x5a };

static unsigned char *guarded(size_t bytes, int shift)
{
    unsigned char *memory = malloc(bytes + 2 * MARGIN + 64);
    memset(memory, MARK, bytes + 2 * MARGIN + 64);
    return memory + MARGIN + shift;
}

/* Were the bytes around the buffer left alone? */
static int intact(const unsigned char *buffer, size_t bytes)
{
    for (int i = 1; i <= MARGIN; i++)
        if (buffer[-i] != MARK || buffer[bytes + i - 1] != MARK) return 0;
    return 1;
}

int main(void)
{
    float expected[LEVIT_TINY_CLASSES];
    for (int shift = 0; shift < 64; shift += STEP) {
        unsigned char *image = guarded(VALUES * 4, shift), *copy = guarded(VALUES * 4, shift);
        unsigned char *rgb = guarded(VALUES, shift), *logits = guarded(sizeof expected, shift);
        unsigned char *workspace = guarded(LEVIT_TINY_WORKSPACE_BYTES, shift);
        levit_tiny_threads *threads = levit_tiny_threads_create(1 + shift % 5);
        for (int i = 0; i < VALUES; i++) {
            float value = (float)(i * 7919 % 1000) / 250 - 2;
            memcpy(image + 4 * i, &value, 4);
            rgb[i] = (unsigned char)(i * 7919 % 251);
        }
        memcpy(copy, image, VALUES * 4);
        if (levit_tiny_run((void *)image, (void *)logits, workspace)) return 1;
        if (shift == 0) memcpy(expected, logits, sizeof expected);
        if (memcmp(expected, logits, sizeof expected)) return 2;
        memset(logits, 0, sizeof expected);
        if (levit_tiny_run_threads((void *)image, (void *)logits, workspace, threads)) return 3;
        if (memcmp(expected, logits, sizeof expected)) return 4;
        if (memcmp(copy, image, VALUES * 4)) return 5;
        if (levit_tiny_run_rgb8(rgb, (void *)logits, workspace)) return 6;
        if (levit_tiny_self_test(workspace)) return 7;
        if (!intact(image, VALUES * 4) || !intact(rgb, VALUES)) return 8;
        if (!intact(logits, sizeof expected)) return 9;
        if (!intact(workspace, LEVIT_TINY_WORKSPACE_BYTES)) return 10;
        levit_tiny_threads_destroy(threads);
    }
    for (int i = 0; i < LEVIT_TINY_CLASSES; i++) printf("%.9g ", expected[i]);
    return 0;
}
"""


def test_contract_from_c(built: Built, tmp_path: Path) -> None:
    """Any alignment, nothing written outside, the image unharmed, the same bits by threads."""
    prefix = prefix_for(built.toolchain.target)
    output = run(link_static(built.toolchain, CONTRACT, [built.artifact], tmp_path), prefix)
    size = TINY.image_size
    pattern = (np.arange(3 * size * size) * 7919 % 1000).astype(np.float32) / 250 - 2
    expected = reference(built.net, pattern.reshape(3, size, size))
    found = np.array(output.split(), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))
    shared = self_test_shared_library(built.toolchain, built.artifact, prefix, tmp_path)
    assert shared.endswith("success\n")


@pytest.mark.parametrize("built", ["host"], indirect=True)
@pytest.mark.parametrize("count", [2, 3, 16])
def test_same_bits_for_every_thread_count(built: Built, count: int) -> None:
    rng = np.random.default_rng(0)
    size = TINY.image_size
    alone = Library(built.artifact.folder)
    together = Library(built.artifact.folder, threads=count)
    for _ in range(20):
        image = rng.normal(size=(3, size, size)).astype(np.float32)
        rgb = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        assert together.run(image).tobytes() == alone.run(image).tobytes()
        assert together.run_rgb8(rgb).tobytes() == alone.run_rgb8(rgb).tobytes()
    together.close()
