"""Audits as they could come out, for those who show them: figures made up, but of one piece."""

import functools
from dataclasses import replace

import numpy as np

from levit_deploy.audit.result import (
    Accuracy,
    Audited,
    AuditResult,
    ConfidenceBin,
    ConfusionCell,
    Cosine,
    Difference,
    Fidelity,
    Flip,
    FloatPlan,
    Latency,
    Limit,
    RunnerName,
    Sensitivity,
    Suspect,
    TensorFidelity,
)
from levit_deploy.audit.statistics import mcnemar, wilson
from levit_deploy.models.card import default_card
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import FAMILY

REFERENCE, ARTIFACT, QDQ = RunnerName.REFERENCE, RunnerName.ARTIFACT, RunnerName.QDQ
IMAGES = 500
HOSTILE_NAME = "<img src=x onerror=alert(1)>/`\u202e\x1b[31m\udcff'\"&.png"

AUDITED = Audited(
    name="build/levit_128s-arm64-dotprod-int8",
    model="levit_128s",
    precision="int8",
    target="arm64-dotprod",
    build_id="6f1d0c7be58d2a9403c7a1be",
    weights_digest="8c2f6f3a0f6f0f8f6d1a6e5b8f3f9f1f7a6d5c4b3a29181706f5e4d3c2b1a090",
    emulated=True,
    library_bytes=9_876_543,
    workspace_bytes=654_321,
    card=default_card(Origin.TIMM, FAMILY["levit_128s"]),
    classes=10,
    class_names=demo_images(DemoSplit.TEST).classes,
    labelled=True,
    source="demo",
    machine="AMD EPYC 9B14",
    images=IMAGES,
    images_digest="1b7e3a5c9d0f2e4a6b8c0d1e3f5a7b9c1d3e5f708192a3b4c5d6e7f8091a2b3c",
    skipped=0,
    taps_equal=True,
)


BINS = tuple(ConfidenceBin(10 * (i + 1), 0.4 + 0.06 * i, 0.35 + 0.064 * i) for i in range(10))


def not_enough() -> AuditResult:
    """8 bits cost 0.2 points on 500 images, which is too few to say so."""
    return AuditResult(
        audited=AUDITED,
        latencies=(),
        limits=(
            Limit("--max-drop", "top-1 accuracy lost, in percentage points", 0.5, 0.2, True),
            Limit("--min-agreement", "images with the same top-1, in percent", 98.0, 98.6, True),
        ),
        accuracies=(
            Accuracy(REFERENCE, wilson(472, IMAGES), wilson(499, IMAGES), 0.021, BINS),
            Accuracy(ARTIFACT, wilson(471, IMAGES), wilson(499, IMAGES), 0.023, BINS[1:]),
            Accuracy(QDQ, wilson(471, IMAGES), wilson(498, IMAGES), 0.022, BINS),
        ),
        differences=(
            Difference(ARTIFACT, REFERENCE, 3, 2, 0.2, mcnemar(3, 2)),
            Difference(QDQ, REFERENCE, 3, 2, 0.2, mcnemar(3, 2)),
            Difference(ARTIFACT, QDQ, 1, 1, 0.0, 1.0),
        ),
        fidelities=(
            fidelity(ARTIFACT, REFERENCE, wilson(493, IMAGES), 38.4, 0.99981, 0.0021, 0.74),
            fidelity(QDQ, REFERENCE, wilson(494, IMAGES), 38.6, 0.99982, 0.002, 0.71),
            fidelity(ARTIFACT, QDQ, wilson(498, IMAGES), 47.9, 0.99999, 0.0001, 0.21),
        ),
        flipped=7,
        flips=flips(7),
        confusion=(*right(), ConfusionCell(1, 9, 2, 1), ConfusionCell(3, 5, 7, 9)),
        tensors=tensors(),
        suspect=None,
        sensitivities=(),
    )


def passed() -> AuditResult:
    """The same shares and more of 50,000 images, on the machine itself."""
    few, many = not_enough(), 100 * IMAGES
    first, *others = few.fidelities
    latency = Latency("AMD EPYC 9B14", 150, 1852.4, 1903.0)
    return replace(
        few,
        audited=replace(AUDITED, images=many, emulated=False),
        latencies=(latency,),
        limits=few.limits,
        differences=(
            Difference(ARTIFACT, REFERENCE, 300, 200, 0.2, mcnemar(300, 200)),
            *few.differences[1:],
        ),
        fidelities=(replace(first, agreement=wilson(49_300, many)), *others),
    )


def features() -> AuditResult:
    """An artifact without a head: nothing to label."""
    few = not_enough()
    card = replace(AUDITED.card, heads=0)
    first = few.fidelities[0]
    cosine = Cosine(0.99712, 0.9731, 0.9812, 0.9921, 0.9984)
    return replace(
        few,
        audited=replace(
            AUDITED, card=card, classes=384, class_names=(), labelled=False, images=5000
        ),
        limits=(
            Limit("--min-agreement", "images with the same nearest neighbour", 90.0, 94.0, True),
            Limit("--min-cosine", "cosine of the features", 0.99, 0.99712, True),
        ),
        accuracies=(),
        differences=(),
        fidelities=(replace(first, agreement=wilson(4700, 5000), cosine=cosine, divergence=None),),
        flipped=300,
        flips=(),
        confusion=(),
    )


def many_classes() -> AuditResult:
    """A thousand classes, some of them called others."""
    result, classes = passed(), 1000
    names = tuple(f"class {i}" for i in range(classes))
    cells = [ConfusionCell(i, i, 40 + i % 9, 40 + i % 7) for i in range(classes)]
    cells += [ConfusionCell(i, i * 7 % classes, i % 4, i % 5) for i in range(1, classes, 3)]
    cells.sort(key=lambda cell: (cell.label, cell.predicted))
    return replace(
        result,
        audited=replace(result.audited, classes=classes, class_names=names),
        confusion=tuple(cells),
    )


def right():
    """Images of each class that are called by their names."""
    return tuple(ConfusionCell(i, i, 47 - i % 2, 46 - i % 3) for i in range(10))


def fidelity(runner, reference, agreement, sqnr_db, mean, divergence, largest_error):
    """Cosines that lie about as those of images do."""
    cosine = Cosine(mean, *(1 - (1 - mean) * times for times in (9, 5, 3, 0.7)))
    return Fidelity(
        runner, reference, agreement, sqnr_db, cosine, None, divergence, largest_error, 0
    )


def failed() -> AuditResult:
    """One layer's scale is wrong by 8."""
    good = not_enough()
    wrong = tuple(
        replace(t, sqnr_db=3.1 + 0.07 * i, cosine=0.71, clipped=0.04, range_used=1.0)
        if i >= 18
        else t
        for i, t in enumerate(good.tensors)
    )
    return replace(
        good,
        limits=(
            Limit("--max-drop", "top-1 accuracy lost, in percentage points", 0.5, 11.6, False),
            Limit("--min-agreement", "images with the same top-1, in percent", 98.0, 84.0, False),
        ),
        accuracies=(
            good.accuracies[0],
            Accuracy(ARTIFACT, wilson(414, IMAGES), wilson(480, IMAGES), 0.097, BINS[:3]),
            good.accuracies[2],
        ),
        differences=(
            Difference(ARTIFACT, REFERENCE, 66, 8, 11.6, mcnemar(66, 8)),
            good.differences[1],
        ),
        fidelities=(
            fidelity(ARTIFACT, REFERENCE, wilson(420, IMAGES), 6.2, 0.87, 0.41, 9.3),
            *good.fidelities[1:],
        ),
        flipped=80,
        flips=flips(14),
        confusion=(
            *right(),
            *(ConfusionCell(i % 10, (i + 3) % 10, 2, 14 - i // 2) for i in range(10)),
        ),
        tensors=wrong,
        suspect=Suspect(
            ("blocks.8.m.proj.1",),
            "blocks.8",
            "`blocks.8` has 4.4 dB against the float reference where 8 bits allow 34.2 dB; "
            "all before it is right",
        ),
        sensitivities=sensitivities(),
        plan=FloatPlan(0.5, ("blocks.8.m.proj.1",), 0.008, 0.4, 256),
    )


def unlabelled_float() -> AuditResult:
    """An fp32 artifact on images without labels, no limits, all equal."""
    exact = fidelity(ARTIFACT, REFERENCE, wilson(64, 64), 131.2, 1.0, 3.1e-12, 2.1e-5)
    return replace(
        not_enough(),
        audited=replace(
            AUDITED,
            precision="fp32",
            class_names=(),
            labelled=False,
            images=64,
            taps_equal=None,
            emulated=False,
        ),
        limits=(),
        accuracies=(),
        differences=(),
        fidelities=(exact,),
        flipped=0,
        flips=(),
        confusion=(),
        tensors=(),
    )


def hostile() -> AuditResult:
    """Names that want to be markup, or to break the line."""
    good = failed()
    first, second, *others = good.flips
    return replace(
        good,
        audited=replace(
            AUDITED,
            name=HOSTILE_NAME,
            class_names=(HOSTILE_NAME, "c" * 200) * 5,
            source="/x" * 200,
            machine="</style><script>1</script>",
        ),
        flips=(replace(first, name=HOSTILE_NAME), replace(second, name="n" * 300), *others),
        tensors=(replace(good.tensors[0], tensor=HOSTILE_NAME, layer=HOSTILE_NAME), *good.tensors),
        suspect=Suspect((HOSTILE_NAME, "b" * 200), HOSTILE_NAME, HOSTILE_NAME),
    )


def flips(count):
    return tuple(
        Flip(
            index=11 * i,
            name=f"val/{i % 10}/image_{11 * i:05d}.png",
            label=i * 7 % 10,
            reference_class=(i * 7 + (i % 3 > 0)) % 10,
            artifact_class=(i * 7 + (0, 2, 3)[(i + 1) % 3]) % 10,
            reference_margin=4.0 / (1 + i),
            artifact_margin=0.9 / (1 + i % 5),
        )
        for i in range(count)
    )


@functools.cache
def pictures():
    """By index, model-sized."""
    images = demo_images(DemoSplit.TEST).images
    return {i: images[i].repeat(7, axis=0).repeat(7, axis=1) for i in range(0, len(images), 11)}


def layers():
    """The linear layers of a LeViT-128S and what each reads."""
    stream = "patch_embed.tokens"
    for block in range(22):
        name = f"blocks.{block}"
        if block in (4, 12):
            yield f"{name}.kv", stream
            yield f"{name}.proj.1", f"{name}.proj.0"
            stream = f"{name}.proj.1"
        elif block in (5, 13) or block % 2:
            yield f"{name}.m.0", stream
            yield f"{name}.m.2", f"{name}.m.1"
            stream = name
        else:
            yield f"{name}.m.qkv", stream
            yield f"{name}.m.proj.1", f"{name}.m.proj.0"
            stream = name
    yield "head", "head.mean"


def tensors():
    random = np.random.default_rng(0)
    return tuple(
        TensorFidelity(
            tensor=tensor,
            layer=layer,
            images=64,
            sqnr_db=float(round(46 - 0.25 * i + random.normal() * 2.5, 2)),
            cosine=0.9998,
            low=-4.1,
            high=5.3 + i,
            seen_low=-3.92,
            seen_high=5.1 + i,
            range_used=0.97,
            clipped=0.0 if i % 4 else 0.00012,
        )
        for i, (layer, tensor) in enumerate(layers())
    )


def sensitivities():
    return tuple(
        Sensitivity(name, 6.0 / (1 + i) - 0.2, 0.012 / (1 + i), 0.004 + 0.001 * (i % 7))
        for i, (name, _) in enumerate(layers())
    )
