"""One function writes every decimal, and the full number travels with it."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgcsam.report.numbers import decimal, duration, tagged, tagged_count, tagged_interval, whole


@given(st.floats(-1e6, 1e6))
def test_a_decimal_is_within_half_a_unit_of_the_last_digit_and_never_minus_zero(value: float):
    text = decimal(value)
    assert re.fullmatch(r"-?\d+\.\d{3}", text)
    assert abs(float(text) - value) <= 0.0005 + 1e-9
    assert not (float(text) == 0 and text.startswith("-"))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, True, "0.5"])
def test_what_is_no_number_is_not_estimable(value: object):
    assert decimal(value) == "not estimable"
    assert "<data" not in tagged(value)


@given(st.floats(0, 1))
def test_the_tag_carries_the_full_number(value: float):
    found = re.fullmatch(r'<data value="([^"]+)">([^<]+)</data>', str(tagged(value)))
    assert float(found.group(1)) == value
    assert found.group(2) == decimal(value)


def test_counts_have_commas_and_are_rounded_only_in_words():
    assert whole(1234567) == "1,234,567"
    assert str(tagged_count(1234)) == '<data value="1234">1,234</data>'
    assert str(tagged_count(680.0)) == '<data value="680">680</data>'
    assert tagged_count(12.4) == "12"
    assert whole(None) == "not recorded"


def test_intervals_say_which_end_is_open():
    assert tagged_interval({"low": 0.8611, "high": 0.9512}).striptags() == "0.861 to 0.951"
    assert tagged_interval({"low": 2.5, "high": None}).striptags() == "2.500 to no limit"
    assert tagged_interval({"low": None, "high": None}).striptags() == "–"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "not recorded")]
)
def test_durations_are_words(seconds: float | None, words: str):
    assert duration(seconds) == words
