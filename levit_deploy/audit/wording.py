"""How figures and names are written, on the page and in the terminal: 0.986 -> `98.6 %`."""

from __future__ import annotations

import math

from levit_deploy.audit.result import MIN_COSINE, Difference, Limit, Output, RunnerName, Share

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

RUNNERS = {
    RunnerName.REFERENCE: "PyTorch",
    RunnerName.ARTIFACT: "Artifact",
    RunnerName.QDQ: "8-bit model",
}

# Of the answers of each kind of output: what they are called, and what is said of their share.
ANSWERS = {
    Output.CLASSES: "same top-1",
    Output.LOGIT: "same sign",
    Output.FEATURES: "same neighbour",
}
ALL_STAY = {
    Output.CLASSES: "all answers stay the same",
    Output.LOGIT: "all signs stay the same",
    Output.FEATURES: "all images keep their nearest neighbour",
}
SOME_STAY = {
    Output.CLASSES: "of the answers stay the same",
    Output.LOGIT: "of the signs stay the same",
    Output.FEATURES: "of the images keep their nearest neighbour",
}


def number(value: float, digits: int = 2) -> str:
    """With a real minus and separated thousands; `digits` after the point."""
    text = f"{value:,.{digits}f}"
    zero = not text.strip("-0.,")
    return text.lstrip("-") if zero else text.replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """`number` of a change: `+0.20`, and 0 without a sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def short(value: float, digits: int = 2) -> str:
    """`number` without idle zeros: 0.50 -> 0.5."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def found(limit: Limit) -> str:
    """The value that a limit is held against."""
    return short(limit.value, _digits_of(limit))


def bound(limit: Limit) -> str:
    """What is set."""
    return short(limit.limit, _digits_of(limit))


def _digits_of(limit: Limit) -> int:
    return 5 if limit.option == MIN_COSINE else 2


def percent(fraction: float, digits: int = 1) -> str:
    return f"{number(100 * fraction, digits)}{SPACE}%"


def share(value: Share) -> str:
    """As many digits as so many images can tell apart."""
    return percent(value.value, _digits(value))


def interval(value: Share) -> str:
    """`97.1 to 99.3 %`."""
    digits = _digits(value)
    return f"{number(100 * value.low, digits)} to {percent(value.high, digits)}"


def points(value: float) -> str:
    """Percentage points: `1 point`, `0.2 points`."""
    text = short(value)
    return f"{text}{SPACE}point" if text == "1" else f"{text}{SPACE}points"


def decibels(value: float | None) -> str:
    """`None` is an error of zero."""
    return "exact" if value is None else f"{number(value, 1)}{SPACE}dB"


def bytes_text(count: int) -> str:
    """Decimal units, as storage is sold: `1.2 MB`."""
    if count < 1000:
        return f"{count}{SPACE}B"
    value, unit = (count / 1e3, "kB") if count < 1_000_000 else (count / 1e6, "MB")
    return f"{number(value, 1)}{SPACE}{unit}"


def milliseconds(us: float) -> str:
    """Three digits: `1.85 ms`, `0.0421 ms`."""
    return f"{small(us / 1e3)}{SPACE}ms"


def rounded(count: int) -> str:
    """To two digits, upwards: 1537 -> `1,600`."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return f"{math.ceil(count / unit) * unit:,}"


def probability(p: float) -> str:
    """`p = 0.73`, `p < 0.001`."""
    if p < 0.001:
        return f"p{SPACE}<{SPACE}0.001"
    digits = 1 if p > 0.995 else 2 if p >= 0.1 else 3
    return f"p{SPACE}={SPACE}{p:.{digits}f}"


def significance(difference: Difference) -> str:
    """`not significant (p = 1.0)`."""
    word = "significant" if difference.significant else "not significant"
    return f"{word} ({probability(difference.p_value)})"


def small(value: float) -> str:
    """Three digits of a positive number that may be near zero: `0.00214`, `3.4 × 10⁻⁷`, `0`."""
    if value == 0.0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    if int(exponent) >= -4:
        return number(value, max(0, 2 - int(exponent)))
    raised = str(int(exponent)).translate(_RAISED)
    return f"{mantissa}{SPACE}\N{MULTIPLICATION SIGN}{SPACE}10{raised}"


def listing(names: tuple[str, ...]) -> str:
    """`a`, `b` and `c`."""
    quoted = ["`{}`".format(name.replace("`", "'")) for name in names]
    return " and ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else quoted[0]


def _digits(value: Share) -> int:
    return 1 if value.total <= 1000 else 2
