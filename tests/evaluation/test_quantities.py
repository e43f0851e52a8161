import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.quantities import clock, compact, duration


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (41_234, "41.2k"),
        (1.21e6, "1.21M"),
        (999.4, "999"),
        (999.7, "1k"),
        (999_960, "1M"),
        (4e12, "4T"),
        (0.5, "0.5"),
        (12, "12"),
        (3.4e-5, "3.4e-05"),
    ],
)
def test_compact(value, text):
    assert compact(value) == text


def test_a_gap_stands_before_the_suffix_only():
    assert (compact(1.3e6, " "), compact(12, " ")) == ("1.3 M", "12")


@given(st.floats(1e-3, 1e17))
def test_compact_is_right_to_three_digits(value):
    text = compact(value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    assert float(text.rstrip("kMGT")) * factor == pytest.approx(value, rel=0.0051)
    assert "e+" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.51, "0.51 s"),
        (9.97, "10 s"),
        (48, "48 s"),
        (72, "1 min 12 s"),
        (3600 * 3 + 300, "3 h 05 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (3599.6, "1:00:00"), (5025, "1:23:45"), (97_000, "27 h"), (864_000, "10.0 d")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_it_imports_nothing_heavy():
    code = "import sys, evaluation.quantities, evaluation.run_state; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
