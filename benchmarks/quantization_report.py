"""The records of `benchmarks.quantization` and `.quantization_speed` -> docs/quantization.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quantization_record import FLOAT, RECORD, Result
from benchmarks.quantizers import LIBRARY, MODEL, OTHER_RECIPES, OURS, PEERS

SPEED_RECORD = Path(__file__).with_name("quantization_speed.json")
SIGMAS = (0.0, 1.0, 1.5, 2.0)  # 0 is the net itself
MOST, FEWER = 2000, 500  # test images
PACKAGES = {"levit-deploy": "levit_deploy", "ONNX Runtime": "onnxruntime", "NNCF": "nncf"}

# By the command that it names.
STEM = """\
## The stem

Its first convolution reads the image and stays float32. What 8 bits cost in each of the others:
signal-to-noise ratio of the logits if it alone is rounded, all else being float32, and of the 8-bit
model, of 44.7 dB, if its activations too get 8 bits, a range for each channel. On the first 200
test images, by `python -m benchmarks.stem_bits`.

| what is rounded | second | third | fourth |
|---|---|---|---|
| weights, nearest | 44.2 dB | 47.0 dB | 52.9 dB |
| weights, as calibration rounds them | **59.4 dB** | **60.1 dB** | **63.8 dB** |
| activations | 44.4 dB | 46.1 dB | 48.7 dB |
| activations, of the 8-bit model | 41.5 dB | 42.3 dB | 43.1 dB |

Activations keep their 16 bits, though the fourth convolution's could do with 8. Weights get 8
where, on pictures kept back, the error of the convolution's outputs is 55 dB below them; without
pictures nobody knows, and they have 16. That is worth a third of the products where ARM multiplies
bytes, and nothing on x86: `vpdpbusd` does twice the products of `vpdpwssd`, and it takes two.

""".splitlines()


def document(results: Sequence[Result]) -> str:
    lines = [
        "# Quantization",
        "",
        "Made by `python -m benchmarks.quantization --output docs/quantization.md`, which explains",
        f"itself, from `benchmarks/{RECORD.name}` and `benchmarks/{SPEED_RECORD.name}`.",
        "",
        "The demonstration net, LeViT-128S, is calibrated on 512 training images and tested on",
        "labelled images that it never saw. Outliers: the same function with a residual stream",
        "that is hard to quantize: its channels are multiplied by exp(sigma N(0, 1)).",
        "",
        *accuracy(results),
        *fidelity(results),
        "## Beside others",
        "",
        "Same answers as fp32 PyTorch, and the signal-to-noise ratio of the logits, with the same",
        f"calibration images. On the first {MOST} test images; * on the first {FEWER}. A dash was",
        "not measured. Without pictures: ranges from what the BatchNorms saw in training,",
        "which is what `--precision int8` does where `--data` is not given.",
        "",
        *matrix([*OURS, *PEERS], results),
        f"Versions: {versions(results)}.",
        "ONNX Runtime quantizes per channel; u8s8: types of activations and weights. On CPUs",
        "without 8-bit dot products its u8s8 saturates and is worse; this one has them.",
        "",
        "## Other recipes",
        "",
        *matrix([LIBRARY, *OTHER_RECIPES], results),
        *STEM,
    ]
    if SPEED_RECORD.exists():
        lines += speed(json.loads(SPEED_RECORD.read_text()))
    return "\n".join(lines).rstrip() + "\n"


def accuracy(results: Sequence[Result]) -> Iterator[str]:
    yield from ["## The library", ""]
    yield "| network | images | top-1, fp32 PyTorch | top-1, int8 library | same answer | SQNR |"
    yield "|---|---|---|---|---|---|"
    for r in results:
        if (r.method, r.reference) == (LIBRARY, FLOAT):
            cells = f"{r.reference_top1:.2f} % | {r.top1:.2f} % | {r.agreement:.2f} %"
            yield f"| {network_name(r.sigma)} | {r.images} | {cells} | {r.sqnr_db:.1f} dB |"
    yield ""


def fidelity(results: Sequence[Result]) -> Iterator[str]:
    yield "Against its own 8-bit ONNX model in ONNX Runtime, optimisations off:"
    yield from ["", "| network | images | same answer | largest error | SQNR |"]
    yield "|---|---|---|---|---|"
    for r in results:
        if (r.method, r.reference) == (LIBRARY, MODEL):
            cells = f"{r.agreement:.2f} % | {r.largest_error:.1e} | {r.sqnr_db:.1f} dB"
            yield f"| {network_name(r.sigma)} | {r.images} | {cells} |"
    yield from ["", "The largest error is a fraction of the logits' range.", ""]


def matrix(methods: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """Agreement with fp32 and SQNR, by method and network."""
    yield f"| method | {' | '.join(map(network_name, SIGMAS))} |"
    yield "|---" * (len(SIGMAS) + 1) + "|"
    for method in methods:
        found = {r.sigma: r for r in results if (r.method, r.reference) == (method, FLOAT)}
        cells = [matrix_cell(found[sigma]) if sigma in found else "-" for sigma in SIGMAS]
        yield f"| {method} | {' | '.join(cells)} |"
    yield ""


def matrix_cell(result: Result) -> str:
    star = "" if result.images == MOST else "*"
    return f"{result.agreement:.1f} %, {result.sqnr_db:.1f} dB{star}"


def speed(record: dict[str, Any]) -> Iterator[str]:
    """Of LeViT-128S with 1000 classes, one thread: time and size of everything, then the ratios."""
    wall = {row["name"]: row["min_wall_us"] for row in record["latencies"]}
    cpu = {row["name"]: row["min_cpu_us"] for row in record["latencies"]}
    yield from ["## Speed and size", ""]
    yield "LeViT-128S, 1000 classes, one thread; minimum over interleaved rounds, measured by"
    yield "`python -m benchmarks.quantization_speed`. ONNX Runtime uses whatever the machine has,"
    yield f"{record['machine'].removeprefix('this machine: ')}, `host` is code for"
    yield f"{record['code']}; code for x86-64-v3 uses no 8-bit dot product."
    yield from ["", "| | time | CPU time | library |", "|---|---|---|---|"]
    for name in wall:
        size = record["library_bytes"].get(name.removeprefix("levit-deploy "))
        megabytes = f"{size / 1e6:.2f} MB" if size else "-"
        yield f"| {name} | {wall[name] / 1e3:.2f} ms | {cpu[name] / 1e3:.2f} ms | {megabytes} |"
    fastest = min((n for n in wall if n.startswith("ONNX Runtime int8")), key=wall.__getitem__)
    yield from ["", "| ratio | of time | of CPU time |", "|---|---|---|"]
    for target in dict.fromkeys(name.split()[-1] for name in record["library_bytes"]):
        ours = f"levit-deploy int8 {target}"
        for other in (f"levit-deploy fp32 {target}", fastest):
            ratios = f"{wall[ours] / wall[other]:.3f} | {cpu[ours] / cpu[other]:.3f}"
            yield f"| {ours} to {other} | {ratios} |"
    yield ""


def network_name(sigma: float) -> str:
    return f"outliers, sigma {sigma:g}" if sigma else "the net itself"


def versions(results: Sequence[Result]) -> str:
    found = {
        f"{name} {result.version}"
        for result in results
        for name in PACKAGES
        if result.method.startswith(name)
    }
    return ", ".join(sorted(found))
