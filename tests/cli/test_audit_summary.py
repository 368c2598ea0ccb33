"""The audit in the terminal: one screen of 80 columns, whatever the audit found."""

import re
from dataclasses import replace

import pytest

from levit_deploy.commands.audit_summary import print_audit
from tests.audit import sample

COLUMNS, LINES = 80, 40  # lines besides the commands, which are never broken


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))

    def printed(result):
        print_audit(result)
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize(
    "audit",
    [
        sample.passed,
        sample.not_enough,
        sample.failed,
        sample.unlabelled_float,
        sample.features,
    ],
)
def test_it_fits_one_screen(audit, printed):
    lines = printed(audit()).splitlines()
    assert len(lines) <= LINES
    wide = [line for line in lines if len(line.rstrip()) > COLUMNS]
    assert all(line.startswith("  levit-deploy ") for line in wide)


def test_it_says_what_was_found(printed):
    assert printed(sample.passed()).startswith("PASSED Ship it: top-1 falls by 0.2 points")
    text = printed(sample.not_enough())
    assert text.startswith("NOT ENOUGH IMAGES 500 images cannot tell a drop of 0.5 points")
    assert re.search(r"library +9\.9 MB, 654\.3 kB workspace", text)
    assert re.search(r"latency +not measured, under an emulator", text)
    assert re.search(r"latency +1\.85 ms, one thread, AMD EPYC 9B14", printed(sample.passed()))
    assert re.search(
        r"Artifact +94\.2 % +91\.8 to 95\.9 % +99\.8 % +2\.3 % +98\.6 % +38\.4 dB", text
    )
    assert re.search(r"--max-drop 0\.5 +0\.2, holds", text)
    assert "3 lost, 2 won, not significant (p = 1.0)" in text
    assert "val/0/image_00000.png: airplane -> bird" in text

    text = printed(sample.failed())
    assert text.startswith("FAILED Do not ship")
    assert re.search(r"--max-drop 0\.5 +11\.6, BROKEN", text)
    assert re.search(r"suspect +blocks\.8\.m\.proj\.1", text)


def test_features_have_cosines_in_place_of_accuracy(printed):
    text = printed(sample.features())
    assert re.search(r"same neighbour +SQNR +cosine +worst", text)
    assert re.search(r"Artifact +94\.00 % +38\.4 dB +0\.99712 +0\.97310", text)
    assert re.search(r"--min-cosine 0\.99 +0\.99712, holds", text)


def test_without_labels_there_is_no_accuracy(printed):
    text = printed(sample.unlabelled_float())
    assert text.startswith("NOT JUDGED")
    assert "95 %" not in text
    assert "100.0 %" in text


def test_names_do_not_reach_the_terminal_as_commands(printed):
    result = sample.passed()
    flip = replace(result.flips[0], name="[red]\x1b[31m\u202e.png")
    text = printed(replace(result, flips=(flip,)))
    assert "[red]�[31m�.png: airplane -> bird" in text
    assert "\x1b" not in text
