"""Several threads in generated kernels: ThreadSanitizer sees every load and store of a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tvm import runtime

from levit_deploy.compiler import codegen
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import KernelCall, Program
from levit_deploy.runtime.build import generate_sources
from levit_deploy.runtime.self_test import SelfTest
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.compiler.levit import exported_tiny
from tests.machine import require_native
from tests.runtime.c_program import run
from tests.runtime.test_threads import needs_thread_sanitizer

pytestmark = needs_thread_sanitizer

# A vector of AVX is more than ThreadSanitizer checks at once; tasks are cut alike everywhere.
TARGET = "x86-64"
SANITIZED = {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}


@pytest.fixture(scope="module")
def program() -> Program:
    require_native(get_target(TARGET), "ThreadSanitizer of vectors of SSE")
    return compile_model(exported_tiny(), get_target(TARGET))


@pytest.fixture(scope="module")
def sanitized_kernels(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of the program's kernels, from LLVM's code for them, instrumented."""
    folder = tmp_path_factory.mktemp("sanitized")
    code = folder / "kernels.ll"
    translate = codegen.translate

    def write_code(*arguments: object) -> runtime.Module:
        library = translate(*arguments)
        library.write_to_file(str(code), "ll")
        return library

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codegen, "translate", write_code)
        again = compile_model(exported_tiny(), get_target(TARGET))
    assert again == program
    text = code.read_text().replace("define dllexport", "define")
    functions = re.findall(r"^define .* (#\d+)", text, re.MULTILINE)
    for group in set(functions):
        # What LLVM found out of a function, such as that it does not synchronise, goes.
        pattern = rf'^(attributes {group} = \{{) .*?("target-cpu".*)$'
        text, found = re.subn(pattern, r"\1 sanitize_thread nounwind \2", text, flags=re.MULTILINE)
        assert found == 1
    code.write_text(text)
    output = folder / "kernels.o"
    zig = [sys.executable, "-m", "ziglang", "cc"]  # the product's options turn sanitizers off
    # memset and memcpy are called by these names, and intercepted.
    flags = ["-O1", "-fsanitize=thread", "-mllvm", "-tsan-instrument-memintrinsics=0"]
    subprocess.run([*zig, *flags, "-c", code, "-o", output], check=True, capture_output=True)
    return output


def link(program: Program, kernels: Path, source: str, folder: Path) -> Path:
    toolchain = find_toolchain(get_target(TARGET))
    self_test = SelfTest(logits=(0.0,) * program.classes, tolerance=0.0)
    generate_sources(program, toolchain, self_test, folder)
    (folder / "main.c").write_text(source)
    names = ["main", "program", "library", "tasks", "digest", "threads"]
    sources = [*(f"{name}.c" for name in names), "constants.c", str(kernels)]
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-lpthread"]
    subprocess.run(["cc", *flags, *sources, "-o", "main"], cwd=folder, check=True, timeout=600)
    return folder / "main"


NETWORK = """
#include "tiny.h"
#include <string.h>

static float image[3 * TINY_IMAGE_SIZE * TINY_IMAGE_SIZE];
static unsigned char rgb[3 * TINY_IMAGE_SIZE * TINY_IMAGE_SIZE];
static _Alignas(64) unsigned char workspace[TINY_WORKSPACE_BYTES];

int main(void)
{
    float expected[2][TINY_CLASSES], logits[TINY_CLASSES];
    for (int i = 0; i < 3 * TINY_IMAGE_SIZE * TINY_IMAGE_SIZE; i++) {
        rgb[i] = (unsigned char)(i * 7 + i / 250);
        image[i] = (float)rgb[i] / 64 - 2;
    }
    if (tiny_run(image, expected[0], workspace) || tiny_run_rgb8(rgb, expected[1], workspace))
        return 1;
    for (int count = 2; count <= 5; count++) {
        tiny_threads *threads = tiny_threads_create(count);
        for (int i = 0; i < 5; i++) {
            if (tiny_run_threads(image, logits, workspace, threads)) return 2;
            if (memcmp(logits, expected[0], sizeof logits)) return 3;
            if (tiny_run_rgb8_threads(rgb, logits, workspace, threads)) return 4;
            if (memcmp(logits, expected[1], sizeof logits)) return 5;
        }
        tiny_threads_destroy(threads);
    }
    return 0;
}
"""


def test_no_two_tasks_touch_the_same_memory(
    program: Program, sanitized_kernels: Path, tmp_path: Path
) -> None:
    run(link(program, sanitized_kernels, NETWORK, tmp_path), environment=SANITIZED)


def same_task_twice(call: KernelCall) -> str:
    """A C program in which two threads do all tasks of `call` on the same buffers."""
    pointers = ", ".join("void *" for _ in call.args)
    buffers = ", ".join(f"buffers[{i}]" for i in range(len(call.args)))
    return f"""
#include <pthread.h>
#include <stdint.h>

int32_t {call.symbol}({pointers}, int32_t, int32_t);
static _Alignas(64) unsigned char buffers[{len(call.args)}][1 << 20];

static void *all_tasks(void *unused)
{{
    {call.symbol}({buffers}, 0, {call.tasks});
    return unused;
}}

int main(void)
{{
    pthread_t thread;
    pthread_create(&thread, 0, all_tasks, 0);
    all_tasks(0);
    pthread_join(thread, 0);
    return 0;
}}
"""


def test_tasks_that_overlap_are_found(
    program: Program, sanitized_kernels: Path, tmp_path: Path
) -> None:
    """In one kernel of each kind."""
    for call in {call.kind: call for call in program.calls}.values():
        folder = tmp_path / call.symbol
        folder.mkdir()
        main = link(program, sanitized_kernels, same_task_twice(call), folder)
        done = subprocess.run([main], env=SANITIZED, capture_output=True, check=False)
        assert done.returncode == 66, call.kind
        assert call.symbol in done.stderr.decode()
