"""Networks: the published architectures, frozen stems, and nothing fetched from anywhere."""

from __future__ import annotations

import copy
import pickle
import socket
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from medgcsam.errors import ConfigError
from medgcsam.networks import GRADCAM_LAYER, STEM, SmallNet, build_network, count_parameters

NAMES = list(STEM)
LIGHT = [name for name in NAMES if name != "resnet50"]  # which differs from resnet18 by its blocks alone


def config(name: str, **changes) -> SimpleNamespace:
    return SimpleNamespace(**({"name": name, "freeze_stem": False, "dropout": 0.0, "width": 16} | changes))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize(("name", "channels"), [*((name, 1) for name in NAMES), ("small", 3), ("resnet50", 3)])
def test_any_size_to_logits_and_every_weight_learns(name, channels):
    torch.manual_seed(0)
    module = build_network(config(name), channels=channels, outputs=5)
    module(torch.rand(2, channels, 40, 50)).square().sum().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    module.eval()
    with torch.no_grad():
        assert module(torch.rand(1, channels, 32, 32)).shape == (1, 5)


# Parameters for 1000 classes and three channels as torchvision documents them.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("densenet121", 7_978_856), ("efficientnet-b0", 5_288_548)],
)
def test_architectures_are_the_published_ones(name, parameters):
    assert count_parameters(build_network(config(name), channels=3, outputs=1000)) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_stem_of_a_resnet_has_stride_two(name):
    module = build_network(config(name), channels=1, outputs=2)
    assert (module.conv1.kernel_size, module.conv1.stride, module.conv1.padding) == ((7, 7), (2, 2), (3, 3))
    sizes = []
    module.layer1.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-2:]))
    module.eval()(torch.rand(1, 1, 64, 64))
    assert sizes == [(16, 16)]


def test_the_small_network_is_small_and_its_width_counts():
    assert 0.2e6 < count_parameters(SmallNet()) < 0.4e6
    assert count_parameters(SmallNet(width=8)) < count_parameters(SmallNet(width=12)) < count_parameters(SmallNet())


@pytest.mark.parametrize("width", [1, 5, 12])
def test_every_width_of_the_small_network_works(width):
    assert SmallNet(width=width)(torch.rand(1, 1, 32, 32)).shape == (1, 2)


def test_the_small_network_treats_each_image_alone_when_it_predicts():
    module = SmallNet()
    images = torch.rand(4, 1, 40, 40)
    module(images)
    module.eval()
    torch.testing.assert_close(module(images)[:1], module(images[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_dropout_acts_before_the_head_in_training_only(name):
    torch.manual_seed(0)
    plain = build_network(config(name), channels=1, outputs=2)
    dropped = build_network(config(name, dropout=0.5), channels=1, outputs=2)
    assert list(plain.state_dict()) == list(dropped.state_dict())
    dropped.load_state_dict(plain.state_dict())
    images = torch.rand(2, 1, 32, 32)
    plain.eval(), dropped.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(images), dropped(images))
        for module in dropped.modules():
            if "dropout" in type(module).__name__.lower() or type(module).__name__ == "Head":
                module.train()
        assert not torch.allclose(plain(images), dropped(images), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", LIGHT)
def test_a_frozen_stem_stays_as_it_is(name):
    torch.manual_seed(0)
    module = build_network(config(name, freeze_stem=True), channels=1, outputs=2)
    module = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    stem = [module.get_submodule(part) for part in STEM[name]]
    before = [copy.deepcopy(part.state_dict()) for part in stem]
    frozen = sum(p.numel() for part in stem for p in part.parameters())
    assert count_parameters(module) - count_parameters(module, trainable=True) == frozen > 0
    module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(torch.rand(2, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    for part, state in zip(stem, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        moved = [b for n, b in module.named_buffers() if n.endswith("num_batches_tracked")]
        assert any(int(counter) for counter in moved)  # the others do train


@pytest.mark.parametrize("name", NAMES)
def test_the_gradcam_layer_gives_activations_and_gradients(name):
    torch.manual_seed(0)
    module = build_network(config(name), channels=1, outputs=2).eval()
    seen = {}
    layer = module.get_submodule(GRADCAM_LAYER[name])
    layer.register_forward_hook(lambda _, __, output: seen.update(activations=output))
    layer.register_full_backward_hook(lambda _, __, gradients: seen.update(gradients=gradients[0]))
    module(torch.rand(1, 1, 64, 64))[0, 1].backward()
    assert seen["activations"].shape == seen["gradients"].shape
    assert seen["activations"].shape[-1] >= 2
    assert bool(seen["gradients"].abs().sum() > 0)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        build_network(config("resnet-18"), channels=1, outputs=2)
    with pytest.raises(ConfigError, match="known are small"):
        build_network(config("?"), channels=1, outputs=2)
