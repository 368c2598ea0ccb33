"""Several threads on one image: the same bits, and no way to hang."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from levit_deploy.compiler.program import Program
from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact, generate_sources
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import prefix_for
from tests.runtime.c_program import link_static, run
from tests.runtime.small_network import SmallNetwork, random_image, random_rgb


@pytest.mark.parametrize("count", range(1, 17))
def test_same_bits_for_every_thread_count(artifact: Artifact, count: int) -> None:
    alone, together = Library(artifact.folder), Library(artifact.folder, threads=count)
    for seed in range(20):
        image, rgb = random_image(seed), random_rgb(seed)
        assert together.run(image).tobytes() == alone.run(image).tobytes()
        assert together.run_rgb8(rgb).tobytes() == alone.run_rgb8(rgb).tobytes()
    together.close()


@pytest.mark.parametrize("count", [-1, 0, 17])
def test_impossible_thread_count(artifact: Artifact, count: int) -> None:
    with pytest.raises(DeployError, match=f"`{count}` threads"):
        Library(artifact.folder, threads=count)


@pytest.mark.parametrize("threads_each", [1, 3])
def test_eight_callers_at_once(artifact: Artifact, threads_each: int) -> None:
    """Each with its own workspace, and in one case its own set of threads."""
    expected = [Library(artifact.folder).run(random_image(seed)).tobytes() for seed in range(8)]
    wrong = []

    def call(seed: int) -> None:
        library = Library(artifact.folder, threads=threads_each)
        image = random_image(seed)
        wrong.extend(i for i in range(200) if library.run(image).tobytes() != expected[seed])
        library.close()

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
        assert not caller.is_alive()
    assert not wrong


def test_child_of_a_fork_computes_without_the_parents_threads(artifact: Artifact) -> None:
    library = Library(artifact.folder, threads=4)
    image = random_image(0)
    expected = library.run(image).tobytes()
    child = os.fork()
    if child == 0:
        right = library.run(image).tobytes() == expected
        library.close()
        own = Library(artifact.folder, threads=4)
        os._exit(0 if right and own.run(image).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert library.run(image).tobytes() == expected
    library.close()


def test_process_ends_while_threads_live(artifact: Artifact) -> None:
    script = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from levit_deploy.runtime.loader import Library\n"
        "library = Library(Path(sys.argv[1]), threads=16)\n"
        "library.run(numpy.zeros((3, 8, 8), numpy.float32))\n"
    )
    command = [sys.executable, "-c", script, str(artifact.folder)]
    subprocess.run(command, check=True, timeout=60)


def wait_until_asleep(threads: Sequence[int]) -> None:
    stats = [Path(f"/proc/self/task/{thread}/stat") for thread in threads]
    until = time.monotonic() + 60
    while any(stat.read_text().rpartition(") ")[2][0] != "S" for stat in stats):
        assert time.monotonic() < until, "threads do not come to rest"
        time.sleep(0.001)


def test_threads_may_run_where_they_might_before(artifact: Artifact) -> None:
    """All on one CPU first, where each meets others, and then wherever they may."""
    others = set(os.listdir("/proc/self/task"))
    library, image = Library(artifact.folder, threads=4), random_image(0)
    expected = library.run(image).tobytes()
    everywhere = os.sched_getaffinity(0)
    threads = [0, *(int(thread) for thread in set(os.listdir("/proc/self/task")) - others)]
    assert len(threads) == 4
    try:
        for cpus in ({min(everywhere)}, everywhere):
            wait_until_asleep(threads[1:])  # one that comes late may be about to move
            for thread in threads:
                os.sched_setaffinity(thread, cpus)
            for _ in range(300):
                assert library.run(image).tobytes() == expected
            wait_until_asleep(threads[1:])
            assert all(os.sched_getaffinity(thread) == cpus for thread in threads)
    finally:
        os.sched_setaffinity(0, everywhere)
        library.close()


PARALLEL_FOR = """
#include "small.h"
#include <string.h>

static void *workspace_of_another;
static small_threads *threads;
static float image[3 * 8 * 8], logits[5], nested[5];
static int calls, nested_code;

/* The last first, and in between a second run on the same threads. */
static void backwards(void *context, int count, void (*task)(void *, int), void *argument)
{
    *(int *)context += count;
    for (int i = count - 1; i >= 0; i--)
        task(argument, i);
    nested_code = small_run_threads(image, nested, workspace_of_another, threads);
}

int main(void)
{
    static unsigned char workspace[SMALL_WORKSPACE_BYTES], other[SMALL_WORKSPACE_BYTES];
    float expected[5];
    for (int i = 0; i < 3 * 8 * 8; i++) image[i] = (float)i / 50;
    if (small_run(image, expected, workspace)) return 1;
    workspace_of_another = other;
    for (int count = 2; count <= SMALL_THREADS_MAX; count++) {
        calls = 0;
        memset(logits, 0, sizeof logits);
        threads = small_threads_adopt(count, backwards, &calls);
        if (!threads || small_run_threads(image, logits, workspace, threads)) return 2;
        if (memcmp(logits, expected, sizeof logits)) return 3;
        if (calls != 3 * count) return 4; /* three steps for a float image */
        if (nested_code != SMALL_ERROR_BUSY) return 5;
        small_threads_destroy(threads);
    }
    return 0;
}
"""


def test_callers_own_parallel_for(
    artifact: Artifact, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    run(link_static(host_toolchain, PARALLEL_FOR, [artifact], tmp_path))


RACE = """
#include "small.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static float image[3 * 8 * 8], expected[5];

static void *caller(void *argument)
{
    unsigned char *workspace = malloc(SMALL_WORKSPACE_BYTES);
    float logits[5];
    (void)argument;
    for (int count = 1; count <= 5; count += 2) {
        small_threads *threads = small_threads_create(count);
        for (int i = 0; i < 100; i++) {
            memset(logits, 0, sizeof logits);
            if (small_run_threads(image, logits, workspace, threads)) exit(1);
            if (memcmp(logits, expected, sizeof logits)) exit(2);
            if (i % 20 == 0) usleep(2000); /* long enough for the workers to fall asleep */
        }
        small_threads_destroy(threads);
    }
    free(workspace);
    return NULL;
}

int main(void)
{
    static unsigned char workspace[SMALL_WORKSPACE_BYTES];
    pthread_t callers[3];
    for (int i = 0; i < 3 * 8 * 8; i++) image[i] = (float)i / 50;
    if (small_run(image, expected, workspace)) return 3;
    for (int i = 0; i < 3; i++) pthread_create(&callers[i], NULL, caller, NULL);
    for (int i = 0; i < 3; i++) pthread_join(callers[i], NULL);
    return 0;
}
"""


needs_thread_sanitizer = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler with ThreadSanitizer: apt-get install gcc"
)


@needs_thread_sanitizer
def test_thread_sanitizer_finds_nothing(
    program: Program, network: SmallNetwork, host_toolchain: Toolchain, tmp_path: Path
) -> None:
    """All C of the library and the kernels, instrumented."""
    generate_sources(program, host_toolchain, network.self_test(), tmp_path)
    (tmp_path / "main.c").write_text(RACE)
    kernels = Path(__file__).with_name("kernels.c")
    names = ["main", "program", "library", "tasks", "digest", "threads"]
    sources = [*(f"{name}.c" for name in names), "constants.c", str(kernels)]
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-DNAME_OF_KERNELS=small", "-lpthread"]
    subprocess.run(["cc", *flags, *sources, "-o", "race"], cwd=tmp_path, check=True, timeout=600)
    run(tmp_path / "race", environment={"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"})


@pytest.mark.parametrize("target", ["arm64", "armv7"])
def test_threads_of_other_cpus(target: str, network: SmallNetwork, tmp_path: Path) -> None:
    toolchain = find_toolchain(get_target(target))
    prefix = prefix_for(toolchain.target)
    built = build_artifact(
        network.program(toolchain, tmp_path / "work"), toolchain, network.self_test(), tmp_path
    )
    run(link_static(toolchain, RACE, [built], tmp_path), prefix)


@needs_thread_sanitizer
def test_thread_sanitizer_can_find_something(tmp_path: Path) -> None:
    """The same compiler and options report a race that is there."""
    (tmp_path / "main.c").write_text(
        "#include <pthread.h>\nstatic int x;\n"
        "static void *f(void *p) { x++; return p; }\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, f, 0); x++; pthread_join(t, 0);"
        " return 0; }\n"
    )
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "main.c", "-lpthread", "-o", "race"]
    subprocess.run(["cc", *flags], cwd=tmp_path, check=True, timeout=600)
    done = subprocess.run(
        [tmp_path / "race"], env={"TSAN_OPTIONS": "exitcode=66"}, capture_output=True, check=False
    )
    assert done.returncode == 66
