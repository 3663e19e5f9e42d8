"""Masks whose files are named as the structures that they hold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pillow

from medgcsam.errors import DataError
from medgcsam.imaging import Image, read_label

MASK = np.zeros((7, 5), np.uint8)
MASK[2:5, 1:3] = 1
LIKE = Image(array=np.zeros((1, 7, 5), np.float32), unit="display", spacing=(0.2, 0.3))


def _picture(tmp_path, array, name="mask.png"):
    Pillow.fromarray(array).save(tmp_path / name)
    return tmp_path / name


def test_the_names_of_files_are_met_by_wildcards(tmp_path):
    other = np.zeros_like(MASK)
    other[0, 3:] = 1
    names = ["p0_kidney.png", "P0_Tumour.png"]
    paths = [_picture(tmp_path, one * 255, name=name) for one, name in zip((MASK, other), names, strict=True)]
    tumour = read_label(paths, LIKE, names={"*tumour*": 1})
    np.testing.assert_array_equal(tumour.array[0], other)
    assert tumour.source["structures_left_out"] == ("p0_kidney",)
    both = read_label(paths, LIKE, names={"*tumour*": 1, "p?_kidney|*kidney": 2}, overlapping=True)
    np.testing.assert_array_equal(both.array, [other, MASK])
    np.testing.assert_array_equal(read_label(paths, LIKE, names={"lesion|*": 1}).array[0], MASK | other)
    with pytest.raises(DataError, match="P0_Tumour', which several classes name"):
        read_label(paths, LIKE, names={"*tumour*": 1, "p0*": 2})


def test_several_masks_of_0_and_1_need_names_or_numbers(tmp_path):
    other = np.zeros_like(MASK)
    other[0, 3:] = 1
    paths = [_picture(tmp_path, MASK * 255, name="a.png"), _picture(tmp_path, other * 255, name="b.png")]
    for names in ({"kidney": 1, "tumour": 2}, {"*tumour*": 1}, {"lesion": 1}):
        with pytest.raises(DataError, match=r"a.png is one of several masks, .* none of the structures"):
            read_label(paths, LIKE, names=names)
    np.testing.assert_array_equal(read_label(paths, LIKE, names={"lesion|1": 1}).array[0], MASK | other)
    numbered = [_picture(tmp_path, MASK * 3, name="c.png"), _picture(tmp_path, other * 2, name="d.png")]
    label = read_label(numbered, LIKE, names={"liver": 1, "kidney": 2, "tumour": 3})
    np.testing.assert_array_equal(label.array[0], MASK * 3 + other * 2)


def test_one_mask_of_0_and_1_is_what_its_file_says_or_the_first_class(tmp_path):
    names = {"kidney": 1, "*tumour*": 2}
    np.testing.assert_array_equal(read_label(_picture(tmp_path, MASK), LIKE, names=names).array[0], MASK)
    tumour = read_label(_picture(tmp_path, MASK, name="p1_tumour.png"), LIKE, names=names)
    np.testing.assert_array_equal(tumour.array[0], MASK * 2)
    channels = read_label(tmp_path / "p1_tumour.png", LIKE, names=names, overlapping=True)
    np.testing.assert_array_equal(channels.array, [MASK * 0, MASK])
    numbered = read_label(tmp_path / "p1_tumour.png", LIKE, names={"1": 1, "tumour|2": 2})
    np.testing.assert_array_equal(numbered.array[0], MASK)
