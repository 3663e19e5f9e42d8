"""Weights from files: names of other libraries, other channels, other heads, and files that must be refused."""

from __future__ import annotations

import os
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from medgcsam.errors import ConfigError
from medgcsam.networks import build_network, load_weights


def network(name: str, *, channels: int = 1, outputs: int = 2, seed: int = 0):
    torch.manual_seed(seed)
    config = SimpleNamespace(name=name, weights=None, freeze_stem=False, dropout=0.0, width=8)
    return build_network(config, channels=channels, outputs=outputs).eval()


def saved(content, folder, name: str = "weights.pt"):
    torch.save(content, folder / name)
    return folder / name


def same_output(one, other, *, channels: int = 1) -> None:
    images = torch.rand(2, channels, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(one(images), other(images))


@pytest.mark.parametrize("name", ["small", "resnet18"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"module.model.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 7},
        lambda state: {"epoch": 7, "network": state, "progress": {"history": [1.0]}},
    ],
    ids=["plain", "data-parallel", "nested prefixes", "lightning", "own checkpoint"],
)
def test_wrapped_state_dicts(tmp_path, name, wrap):
    donor, taker = network(name, seed=1), network(name, seed=2)
    report = load_weights(taker, saved(wrap(donor.state_dict()), tmp_path))
    assert len(report.loaded) == len(donor.state_dict())
    assert (report.missing, report.unexpected, report.reshaped) == ((), (), ())
    same_output(donor, taker)


def torchvision_densenet(key: str, *, old: bool) -> str:
    key = key.replace("class_layers.out", "classifier").replace(".layers.", ".")
    return re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key) if old else key


@pytest.mark.parametrize("old", [False, True])
def test_torchvision_names_of_densenet(tmp_path, old):
    donor, taker = network("densenet121", seed=1), network("densenet121", seed=2)
    state = {torchvision_densenet(key, old=old): value for key, value in donor.state_dict().items()}
    assert f"features.denseblock4.denselayer16.{'conv.2' if old else 'conv2'}.weight" in state
    report = load_weights(taker, saved(state, tmp_path))
    assert (report.missing, report.unexpected) == ((), ())
    same_output(donor, taker)


def test_torchvision_names_of_resnet_are_ours():
    names = set(network("resnet18", channels=3, outputs=1000).state_dict())
    assert len(names) == 122  # entries of torchvision's resnet18 state_dict
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias", "fc.bias"} <= names
    assert "layer2.0.downsample.0.bias" not in names


def test_lukemelas_names_of_efficientnet(tmp_path):
    donor, taker = network("efficientnet-b0", seed=1), network("efficientnet-b0", seed=2)
    state = {re.sub(r"_blocks\.\d+\.(\d+)\.", r"_blocks.\1.", key): value for key, value in donor.state_dict().items()}
    assert "_blocks.15._project_conv.weight" in state
    report = load_weights(taker, saved(state, tmp_path))
    assert (report.missing, report.unexpected) == ((), ())
    same_output(donor, taker)


@pytest.mark.parametrize("name", ["small", "densenet121", "resnet18", "efficientnet-b0"])
def test_colour_weights_in_a_gray_network_are_exact_for_gray_images(tmp_path, name):
    colour, gray = network(name, channels=3, seed=1), network(name, seed=2)
    report = load_weights(gray, saved(colour.state_dict(), tmp_path))
    assert len(report.reshaped) == 1
    assert report.missing == ()
    images = torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(gray(images), colour(images.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)
        report = load_weights(colour, saved(gray.state_dict(), tmp_path))
        assert len(report.reshaped) == 1
        torch.testing.assert_close(gray(images), colour(images.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)


def test_a_head_for_other_classes_is_left_out_and_named(tmp_path):
    donor, taker = network("resnet18", outputs=1000, seed=1), network("resnet18", seed=2)
    head = taker.fc.weight.clone()
    report = load_weights(taker, saved(donor.state_dict(), tmp_path))
    assert report.missing == report.unexpected == ("fc.weight", "fc.bias")
    assert torch.equal(taker.fc.weight, head)
    assert torch.equal(taker.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert "2 left as initialised (fc.weight, fc.bias)" in str(report)


def test_what_the_file_has_too_much_is_named(tmp_path):
    state = network("small").state_dict() | {"decoder.weight": torch.zeros(3)}
    assert load_weights(network("small", seed=1), saved(state, tmp_path)).unexpected == ("decoder.weight",)


@pytest.mark.parametrize(
    "content",
    [{}, {"a": torch.zeros(2)}, [1, 2], {"conv1.weight": 3}, {"bn1.num_batches_tracked": torch.tensor(5)}],
)
def test_a_file_that_fits_nowhere_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match=r"nothing in .* fits"):
        load_weights(network("resnet18"), saved(content, tmp_path))


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["MEDGCSAM_TEST_PAYLOAD"],)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGCSAM_TEST_PAYLOAD", str(tmp_path / "ran"))
    path = saved({"stages.0.0.weight": Payload()}, tmp_path)
    with pytest.raises(ConfigError, match="could run code"):
        load_weights(network("small"), path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)  # the payload is real
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_missing_and_damaged_files_are_refused(tmp_path, size):
    path = saved(network("small").state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        load_weights(network("small"), path)
    with pytest.raises(ConfigError, match=r"there is no file .*absent\.pt"):
        load_weights(network("small"), tmp_path / "absent.pt")
    with pytest.raises(ConfigError, match="there is no file"):
        load_weights(network("small"), tmp_path)


def test_safetensors_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="needs the package safetensors"):
        load_weights(network("small"), tmp_path / "w.safetensors")


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    donor, taker = network("small", seed=1), network("small", seed=2)
    safetensors.save_file(donor.state_dict(), tmp_path / "w.safetensors")
    assert load_weights(taker, tmp_path / "w.safetensors").missing == ()
    same_output(donor, taker)
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_weights(taker, tmp_path / "w.safetensors")
