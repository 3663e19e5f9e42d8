"""Which words name a device."""

from __future__ import annotations

import pytest
import torch

from medgcsam.errors import ConfigError, MachineError
from medgcsam.training.device import choose_device


@pytest.mark.parametrize("name", ["tpu", "mps", "cuda:x", "", "cpu:0", "CPU"])
def test_another_word_is_refused_with_those_that_are_known(name) -> None:
    with pytest.raises(ConfigError, match=r"^--device: .* is no device; say auto, cpu, cuda, or cuda:1"):
        choose_device(name, key="--device")


def test_a_gpu_that_is_not_there_is_named_by_what_asked_for_it() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(MachineError, match=r"^--device: cuda:99 is not there .* or set --device=auto"):
        choose_device("cuda:99", key="--device")
