"""The page of an audit: what is in it, and what headless Chromium makes of it."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from levit_deploy.audit.page import PICTURE_SIDE, render_page
from tests.audit import sample
from tests.audit.browser import EXECUTABLE, Browser

AUDITS = {
    audit.__name__: audit
    for audit in (
        sample.passed,
        sample.not_enough,
        sample.failed,
        sample.unlabelled_float,
        sample.features,
        sample.many_classes,
        sample.hostile,
    )
}
needs_chromium = pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium: apt install chromium")
VOID = {"meta", "link", "br", "img", "wbr"}


class Outline(HTMLParser):
    """`tags`: names with their attributes, in order. Fails where an element is closed wrongly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self._open = [], []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=AUDITS)
def page(request):
    return render_page(AUDITS[request.param](), sample.pictures())


def test_the_page_is_well_formed_and_can_be_read_aloud(page):
    outline = Outline(page)
    assert len(outline.all("h1")) == 1
    assert outline.all("html")[0]["lang"] == "en"
    assert all(attributes.get("scope") in ("col", "row") for attributes in outline.all("th"))
    assert all(attributes["alt"] for attributes in outline.all("img"))
    named = {attributes["id"] for _, attributes in outline.tags if "id" in attributes}
    assert all(section["aria-labelledby"] in named for section in outline.all("section"))
    assert all(link["href"][1:] in named for link in outline.all("a"))


def test_the_page_needs_nothing_else(page):
    outline = Outline(page)
    assert outline.all("script") == []
    sources = [attributes.get("src") or attributes.get("href") for _, attributes in outline.tags]
    assert all(source.startswith(("data:", "#")) for source in sources if source)
    assert "url(" not in page
    assert "@import" not in page


def test_names_stay_names():
    page = render_page(sample.hostile(), sample.pictures())
    assert "<img src=x" not in page
    assert "</style><script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    page.encode()  # a file name that is not UTF-8 has become one that is


def test_the_same_audit_gives_the_same_bytes():
    first, second = (render_page(sample.failed(), sample.pictures()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("audit", [sample.passed, sample.failed])
def test_pictures_are_those_of_the_flips(audit):
    result = audit()
    sources = [image["src"] for image in Outline(render_page(result, sample.pictures())).all("img")]
    shown = [flip for flip in result.flips if flip.index in sample.pictures()]
    assert len(sources) == len(shown)
    for flip, source in zip(shown, sources, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert picture.size == (PICTURE_SIDE, PICTURE_SIDE)
        original = Image.fromarray(sample.pictures()[flip.index]).resize(picture.size)
        error = np.abs(np.asarray(picture, float) - np.asarray(original, float)).mean()
        assert error < 3


def test_classes_are_called_by_their_names_if_they_have_any():
    result = sample.passed()
    flip = result.flips[1]
    assert (flip.label, flip.reference_class, flip.artifact_class) == (7, 8, 0)
    named = render_page(result, sample.pictures())
    assert "<strong>ship → airplane</strong>" in named
    assert "class ship for the reference, airplane for the artifact" in named
    assert ", label horse" in named
    assert "cat called dog" in named
    nameless = replace(result, audited=replace(result.audited, class_names=()))
    numbered = render_page(nameless, sample.pictures())
    assert "<strong>8 → 0</strong>" in numbered
    assert ", label 7" in numbered
    assert "3 called 5" in numbered


STROKE = re.compile(r'class="cell (right|wrong)"[^>]*opacity="([\d.]+)" d="([^"]+)"')


@pytest.mark.parametrize("audit", [sample.not_enough, sample.many_classes])
def test_every_cell_of_both_matrices_has_its_stroke(audit):
    result = audit()
    page = render_page(result, {})
    drawn = {"PyTorch": set(), "Artifact": set()}
    for name, cells in drawn.items():
        svg = page.partition(f"Confusion matrix of {name}")[2].partition("</svg>")[0]
        for kind, _, path in STROKE.findall(svg):
            for x, y, length in re.findall(r"M([-\d.]+) ([\d.]+)h([\d.]+)", path):
                column, row = float(x) + float(length) / 2 - 0.5, float(y) - 0.5
                assert (kind == "right") == (round(column) == row)
                cells.add((int(row), round(column)))
    counts = {(c.label, c.predicted): c for c in result.confusion}
    assert drawn["PyTorch"] == {cell for cell, c in counts.items() if c.reference_count}
    assert drawn["Artifact"] == {cell for cell, c in counts.items() if c.artifact_count}


def test_what_each_class_costs():
    """Of cats the reference calls 46 right and 7 dogs, the artifact 46 and 9."""
    page = render_page(sample.not_enough(), {}).replace("\N{NO-BREAK SPACE}", " ")
    classes = page.partition('id="classes"')[2].partition("</section>")[0]
    rows = re.findall(r">([a-z]+)</th><td[^>]*>(\d+)</td><td[^>]*>([\d.]+) %", classes)
    shares = {name: (int(images), float(right)) for name, images, right in rows}
    assert shares["cat"] == (53, pytest.approx(100 * 46 / 53, abs=0.05))
    assert len(shares) == 10


def test_the_diagram_has_a_dot_for_each_bin():
    result = sample.passed()
    page = render_page(result, {})
    diagram = page.partition('id="reliability"')[2].partition("</section>")[0]
    for accuracy in result.accuracies:
        curve = diagram.partition(f'<g class="{accuracy.runner}">')[2].partition("</g>")[0]
        dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', curve)
        found = [(float(x) / 100, 1 - float(y) / 100) for x, y in dots]
        wanted = [(one.confidence, one.accuracy) for one in accuracy.bins]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert "Calibration error: PyTorch 2.1" in diagram


def test_the_page_leads_with_the_verdict_then_size_and_time():
    page = render_page(sample.passed(), {}).replace("\N{NO-BREAK SPACE}", " ")
    order = ("<h1>Passed", "9.9 MB", "1.85 ms", 'id="accuracy"', 'id="classes"', 'id="confusion"')
    order = (*order, 'id="reliability"', 'id="card"')
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    emulated = render_page(sample.not_enough(), {})
    assert "not measured: under an emulator times say nothing" in emulated


def test_the_card_is_on_the_page():
    result = sample.passed()
    page = render_page(result, {})
    for name, value, _ in result.audited.card.rows():
        assert name.replace("_", " ").capitalize() in page
        assert value in page
    assert "assumed: timm evaluates so" in page


def test_colours_are_named_once():
    """Every other rule takes them by name, so they mean the same everywhere."""
    style = render_page(sample.passed(), {}).partition("<style>")[2].partition("</style>")[0]
    named, _, rules = style.partition("* { box-sizing")
    assert "--artifact: #" in named
    assert re.findall(r"#[0-9a-f]{3,6}\b", rules) == []


def test_a_flip_without_a_picture_says_so():
    page = render_page(sample.passed(), {})
    assert page.count("no picture") == len(sample.passed().flips)


def test_each_tensor_has_its_bar_and_its_row():
    result = sample.failed()
    page = render_page(result, {})
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', page)]
    assert heights == pytest.approx([t.sqnr_db for t in result.tensors], abs=0.01)
    assert re.findall(r'<rect class="marked"[^>]*><title>([^:]*)', page) == ["blocks.9.m.0"]
    assert all(f'title="{t.tensor}"' in page for t in result.tensors)


def test_logits_alone_can_be_wrong():
    result = sample.failed()
    page = render_page(replace(result, suspect=replace(result.suspect, tensor="logits")), {})
    assert "Every quantized tensor is right, <code>logits</code> is not." in page
    assert 'class="marked"' not in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("audit", AUDITS)
def test_chromium_shows_the_page(browser, audit, width, scheme, tmp_path):
    path = tmp_path / "audit.html"
    path.write_text(render_page(AUDITS[audit](), sample.pictures()))
    browser.open(path, width=width, scheme=scheme)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    beyond = f"[...document.querySelectorAll('body *')].filter(e => {OUTSIDE})"
    assert browser.evaluate(f"{beyond}.map(e => e.outerHTML.slice(0, 200))") == []
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), (
        "a picture is not shown"
    )

    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width
        corner = shot.convert("L").getpixel((2, shot.height - 2))
    assert corner > 200 if scheme == "light" else corner < 60


# Elements that stick out at the right; those clipped away on purpose have a position of their own.
OUTSIDE = (
    "e.getBoundingClientRect().right > innerWidth + 1 && getComputedStyle(e).clipPath === 'none'"
)


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("audit", AUDITS)
def test_text_stands_out_from_its_ground(browser, audit, scheme, tmp_path):
    """Contrast of at least 4.5 to 1, WCAG 2.2 success criterion 1.4.3, formula as given there."""
    path = tmp_path / "audit.html"
    path.write_text(render_page(AUDITS[audit](), {}))
    browser.open(path, width=1280, scheme=scheme)
    for selector in ("h1", ".sentence", ".meta a", "h2", ".soft", ".key dt", "td", "pre"):
        colours = browser.evaluate(COLOURS.replace("SELECTOR", selector))
        if colours is not None:
            assert contrast(*colours) >= 4.5, f"{selector}: {colours}"


COLOURS = """(() => {
  const element = document.querySelector("SELECTOR");
  if (!element) return null;
  let ground = element;
  const behind = e => getComputedStyle(e).backgroundColor;
  while (behind(ground) === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  return [getComputedStyle(element).color, behind(ground)];
})()"""


def contrast(*colours):
    def luminance(colour):
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)
