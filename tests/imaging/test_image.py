from __future__ import annotations

import numpy as np
import pytest

from medgcsam.imaging import Image, pixel_digest


def _image(array: np.ndarray, **options: object) -> Image:
    return Image(array=array, unit="raw", **options)


def test_an_image_checks_that_its_parts_fit_together():
    array = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="unit"):
        Image(array=array, unit="grey")
    with pytest.raises(ValueError, match="shape"):
        _image(array[0])
    with pytest.raises(ValueError, match="shape"):
        _image(array[:, :0])
    with pytest.raises(ValueError, match="affine"):
        _image(array, affine=np.eye(3))
    with pytest.raises(ValueError, match="spacing"):
        _image(array, spacing=(1.0, 1.0, 1.0))
    assert _image(array, spacing=(1.0, 2.0)).spatial_shape == (2, 3)


def test_pixel_digest_sees_pixels_shape_and_type_but_not_memory_layout():
    array = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    digest = pixel_digest(_image(array))
    assert digest == pixel_digest(_image(array.copy(), spacing=(1.0, 1.0)))
    assert digest == pixel_digest(_image(np.asfortranarray(array)))
    assert digest == pixel_digest(_image(array.astype(">f4")))
    assert digest != pixel_digest(_image(array.reshape(1, 6, 4)))
    assert digest != pixel_digest(_image(array.astype(np.float64)))
    changed = array.copy()
    changed[0, 3, 5] += 1
    assert digest != pixel_digest(_image(changed))
