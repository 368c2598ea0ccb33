"""The C ABI as C and C++ programs see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import emulator_for, prefix_for
from tests.runtime.c_program import link_dynamic, link_static, run
from tests.runtime.small_network import SmallNetwork, random_image

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")

PRINT_LOGITS = """
#include <stdio.h>
#include <string.h>
static float image[3 * 8 * 8] = { %(image)s };
static void print(const char *what, const float *logits)
{
    printf("%%s", what);
    for (int i = 0; i < 5; i++) printf(" %%.9g", logits[i]);
    printf("\\n");
}
"""


def c_floats(image: np.ndarray) -> str:
    return ",".join(f"{float(value).hex()}f" for value in image.ravel())


def parse_logits(output: str) -> dict[str, np.ndarray]:
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: np.array(words[1:], np.float32) for words in lines}


@pytest.mark.parametrize(("file", "standard"), [("main.c", "-std=c99"), ("main.cpp", "-std=c++11")])
def test_header_compiles_alone_under_the_strictest_warnings(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path, file: str, standard: str
) -> None:
    source = tmp_path / file
    source.write_text(
        '#include "small.h"\n#include "small.h"\n'
        "static unsigned char workspace[SMALL_WORKSPACE_BYTES];\n"
        "int main(void) { return small_self_test(workspace); }\n"
    )
    flags = (standard, *STRICT, f"-I{artifact.folder}")
    host_toolchain.compile(source, tmp_path / "main.o", flags)


TWO_ARTIFACTS = (
    '#include "small.h"\n#include "other.h"\n'
    + PRINT_LOGITS
    + """
int main(void)
{
    static unsigned char workspace[SMALL_WORKSPACE_BYTES], other_workspace[OTHER_WORKSPACE_BYTES];
    float logits[SMALL_CLASSES];
    if (small_self_test(workspace) || other_self_test(other_workspace)) return 1;
    if (small_run(image, logits, workspace)) return 2;
    print("small", logits);
    if (other_run(image, logits, other_workspace)) return 3;
    print("other", logits);
    return strcmp(small_describe()->name, "small") || strcmp(other_describe()->name, "other");
}
"""
)


@pytest.mark.parametrize("link", [link_static, link_dynamic])
def test_two_artifacts_in_one_program(
    link: object,
    artifact: Artifact,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path: Path,
) -> None:
    other_network = SmallNetwork.random(seed=7)
    other = build_artifact(
        other_network.program(host_toolchain, tmp_path / "work", "other"),
        host_toolchain,
        other_network.self_test(),
        tmp_path,
    )
    image = random_image(3)
    assert callable(link)
    program = link(
        host_toolchain, TWO_ARTIFACTS % {"image": c_floats(image)}, [artifact, other], tmp_path
    )
    logits = parse_logits(run(program))
    np.testing.assert_allclose(logits["small"], network.logits(image), atol=1e-4)
    np.testing.assert_allclose(logits["other"], other_network.logits(image), atol=1e-4)


UNALIGNED = (
    '#include "small.h"\n#include <stdlib.h>\n'
    + PRINT_LOGITS
    + """
int main(void)
{
    unsigned char *memory = malloc(1 << 20);
    for (int shift = 0; shift < 64; shift++) {
        unsigned char *shifted_image = memory + shift, *shifted_logits = memory + 8192 + shift;
        unsigned char *workspace = memory + 16384 + shift;
        memset(memory + 16384, 0x5a, 1 << 19);
        memcpy(shifted_image, image, sizeof image);
        int code = small_run((void *)shifted_image, (void *)shifted_logits, workspace);
#ifdef __arm__
        if (shift %% 4) {
            if (code != SMALL_ERROR_ALIGNMENT) return 6;
            continue;
        }
#endif
        if (code) return 1;
        for (unsigned char *p = memory + 16384; p < workspace; p++) if (*p != 0x5a) return 2;
        for (int i = 0; i < 4096; i++) if (workspace[SMALL_WORKSPACE_BYTES + i] != 0x5a) return 3;
        float logits[SMALL_CLASSES];
        memcpy(logits, shifted_logits, sizeof logits);
        char name[16];
        sprintf(name, "%%d", shift);
        print(name, logits);
        if (small_self_test(workspace)) return 4;
        for (int i = 0; i < 4096; i++) if (workspace[SMALL_WORKSPACE_BYTES + i] != 0x5a) return 5;
    }
    return 0;
}
"""
)


@pytest.mark.parametrize("target", ["host", "arm64", pytest.param("armv7", marks=pytest.mark.slow)])
def test_any_alignment_and_no_byte_outside_the_workspace(
    target: str, network: SmallNetwork, tmp_path: Path
) -> None:
    """Image, logits and workspace at any address; on other CPUs under the emulator."""
    toolchain = find_toolchain(get_target(target))
    prefix = prefix_for(toolchain.target)
    built = build_artifact(
        network.program(toolchain, tmp_path / "work"), toolchain, network.self_test(), tmp_path
    )
    image = random_image(5)
    program = link_static(toolchain, UNALIGNED % {"image": c_floats(image)}, [built], tmp_path)
    logits = parse_logits(run(program, prefix))
    assert len(logits) > 10
    for found in logits.values():
        np.testing.assert_allclose(found, network.logits(image), atol=1e-4)
        assert found.tobytes() == logits["0"].tobytes()


WRONG_ARGUMENTS = """
#include "small.h"
#include <string.h>
int main(void)
{
    static unsigned char workspace[SMALL_WORKSPACE_BYTES];
    static float image[3 * SMALL_IMAGE_SIZE * SMALL_IMAGE_SIZE], logits[SMALL_CLASSES];
    static const uint8_t rgb[3 * SMALL_IMAGE_SIZE * SMALL_IMAGE_SIZE];
    const int null = SMALL_ERROR_NULL;
    if (small_run(NULL, logits, workspace) != null) return 1;
    if (small_run(image, NULL, workspace) != null) return 2;
    if (small_run(image, logits, NULL) != null) return 3;
    if (small_run_rgb8(NULL, logits, workspace) != null) return 4;
    if (small_run_rgb8(rgb, NULL, workspace) != null) return 5;
    if (small_run_rgb8(rgb, logits, NULL) != null) return 6;
    if (small_self_test(NULL) != null) return 7;
    if (small_threads_create(0) || small_threads_create(-1)) return 8;
    if (small_threads_create(SMALL_THREADS_MAX + 1)) return 9;
    if (small_threads_adopt(2, NULL, NULL)) return 10;
    small_threads *threads = small_threads_create(2);
    if (small_run_threads(NULL, logits, workspace, threads) != null) return 11;
    if (small_run_threads(image, logits, NULL, threads) != null) return 12;
    if (small_run_threads(image, logits, workspace, NULL) != SMALL_OK) return 13;
    small_threads_destroy(threads);
    small_threads_destroy(NULL);
    for (int code = -1; code < 8; code++)
        if (!small_strerror(code) || !*small_strerror(code)) return 14;
    if (strcmp(small_strerror(SMALL_OK), small_strerror(SMALL_ERROR_NULL)) == 0) return 15;
    if (small_workspace_bytes() != SMALL_WORKSPACE_BYTES) return 16;
    if (small_describe()->workspace_bytes != SMALL_WORKSPACE_BYTES) return 17;
    return 0;
}
"""


def test_wrong_arguments_get_a_code(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    run(link_static(host_toolchain, WRONG_ARGUMENTS, [artifact], tmp_path))


COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static long count;
__attribute__((visibility("default"))) long allocation_count(void) { return count; }
#define COUNTED(result, name, parameters, arguments)                                   \\
    __attribute__((visibility("default"))) result name parameters                      \\
    {                                                                                  \\
        result(*real) parameters;                                                      \\
        *(void **)&real = dlsym(RTLD_NEXT, #name);                                     \\
        count++;                                                                       \\
        return real arguments;                                                         \\
    }
COUNTED(void *, malloc, (size_t n), (n))
COUNTED(void *, realloc, (void *p, size_t n), (p, n))
COUNTED(int, posix_memalign, (void **p, size_t a, size_t n), (p, a, n))
COUNTED(void *, aligned_alloc, (size_t a, size_t n), (a, n))
COUNTED(void *, mmap, (void *p, size_t n, int a, int b, int c, long d), (p, n, a, b, c, d))
COUNTED(int, brk, (void *p), (p))
COUNTED(void *, sbrk, (long n), (n))
"""

COUNT_ALLOCATIONS = """
#include "small.h"
#include <stdio.h>
#include <stdlib.h>
long allocation_count(void) __attribute__((weak));
int main(void)
{
    static unsigned char workspace[SMALL_WORKSPACE_BYTES];
    static float image[3 * 8 * 8], logits[5];
    if (!allocation_count) return 1;
    long before = allocation_count();
    void *volatile memory = malloc(10000);
    free(memory);
    if (allocation_count() == before) return 2; /* the counter counts */
    small_threads *threads = small_threads_create(4);
    before = allocation_count();
    for (int i = 0; i < 100; i++)
        if (small_run(image, logits, workspace)
            || small_run_rgb8((const uint8_t *)image, logits, workspace)
            || small_run_threads(image, logits, workspace, threads)
            || small_self_test(workspace)) return 3;
    long in_run = allocation_count() - before;
    small_threads_destroy(threads);
    return in_run != 0;
}
"""


def test_run_allocates_nothing(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    (tmp_path / "counter.c").write_text(COUNTER)
    counter = tmp_path / "libcounter.so"
    host_toolchain.compile(tmp_path / "counter.c", tmp_path / "counter.o", ("-fno-builtin",))
    host_toolchain.link_shared(
        [tmp_path / "counter.o"],
        counter,
    )
    program = link_dynamic(host_toolchain, COUNT_ALLOCATIONS, [artifact], tmp_path)
    run(program, environment={"LD_PRELOAD": str(counter)})


def test_missing_cpu_feature_is_an_error_before_any_work(
    network: SmallNetwork, tmp_path: Path
) -> None:
    """A library for ARMv8.2 dotprod on an emulated Cortex-A72, which has none."""
    toolchain = find_toolchain(get_target("arm64-dotprod"))
    old, new = emulator_for(get_target("arm64")), emulator_for(toolchain.target)
    built = build_artifact(
        network.program(toolchain, tmp_path / "work"), toolchain, network.self_test(), tmp_path
    )
    source = """
    #include "small.h"
    #include <stdio.h>
    int main(void)
    {
        static unsigned char workspace[SMALL_WORKSPACE_BYTES];
        static float image[3 * 8 * 8], logits[5] = { 42 };
        int code = small_run(image, logits, workspace);
        printf("%s, %g", small_strerror(code), logits[0]);
        return small_run_threads(image, logits, workspace, NULL) != code;
    }
    """
    program = link_static(toolchain, source, [built], tmp_path)
    assert run(program, old).startswith("this CPU lacks an instruction")
    assert run(program, old).endswith(", 42")
    assert run(program, new).startswith("success")


def test_program_without_threads_links_without_them(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    """The archive's thread object stays out of a program that makes no threads."""
    source = """
    #include "small.h"
    int main(void)
    {
        static unsigned char workspace[SMALL_WORKSPACE_BYTES];
        return small_self_test(workspace);
    }
    """
    binary = link_static(host_toolchain, source, [artifact], tmp_path)
    run(binary)
    assert b"small_run_threads" not in binary.read_bytes()
    assert b"small_self_test" in binary.read_bytes()
