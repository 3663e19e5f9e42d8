"""Weights from a local file into a network: what fits, with a list of what does not; nothing in it is executed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medgcsam.errors import ConfigError


@dataclass(frozen=True)
class WeightsReport:
    """What ``load_weights`` did, as names of tensors.

    ``loaded`` as they are; ``reshaped``: loaded after the stem was fitted to another number of channels;
    ``missing``: of the network, left as initialised; ``unexpected``: of the file, not used, whether for their name or
    their shape.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __str__(self) -> str:
        def few(names: tuple[str, ...]) -> str:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            return f" ({shown})" if names else ""

        return (
            f"{len(self.loaded)} tensors loaded, {len(self.reshaped)} reshaped{few(self.reshaped)}, "
            f"{len(self.missing)} left as initialised{few(self.missing)}, "
            f"{len(self.unexpected)} of the file not used{few(self.unexpected)}"
        )


def load_weights(module: nn.Module, path: str | Path) -> WeightsReport:
    """Load what fits of a weights file (.pt, .pth of tensors, or .safetensors) into ``module``.

    Names may carry the prefixes of wrappers (``module.``, ``model.``) and follow torchvision (DenseNet, ResNet) or
    lukemelas' EfficientNet. A first convolution of three channels is summed over them for one channel, which is exact
    for gray images repeated three times; of one channel it is repeated and divided by three. A tensor of another
    shape, such as a head for other classes, is left out. Checkpoints of this package are accepted.

    Raises ``ConfigError`` for a missing or damaged file, for one that could run code when loaded, and where nothing
    fits.
    """
    own = module.state_dict()
    translate = _translator(module)
    stem = next(name for name, weight in own.items() if weight.ndim == 4)
    fitting, loaded, reshaped, unexpected = {}, [], [], []
    for file_name, tensor in read_weights(path).items():
        name = translate(file_name)
        target = own.get(name)
        if target is not None and tensor.shape == target.shape:
            loaded.append(name)
        elif name == stem and (fitted := _fit_channels(tensor, target)) is not None:
            tensor = fitted
            reshaped.append(name)
        else:
            unexpected.append(file_name)
            continue
        fitting[name] = tensor
    if not [name for name in fitting if fitting[name].ndim > 0]:  # counters of batches fit every network
        raise ConfigError(f"network.weights: nothing in {path} fits this network: choose a file made for it.")
    module.load_state_dict(fitting, strict=False)
    missing = tuple(name for name in own if name not in fitting)
    return WeightsReport(tuple(loaded), missing, tuple(unexpected), tuple(reshaped))


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, on the CPU; raises as ``load_weights`` does."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"network.weights: there is no file {path}: correct the path or set it to null.")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise ConfigError(
                f"network.weights: {path} needs the package safetensors: install it, or save the weights as .pt."
            ) from None
        reader: Callable[[], Any] = lambda: load_file(path)  # noqa: E731
    else:
        reader = lambda: torch.load(path, map_location="cpu", weights_only=True)  # noqa: E731
    try:
        content = reader()
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"network.weights: {path} holds more than tensors and could run code when loaded, or is damaged: save its "
            "state_dict alone."
        ) from error
    except Exception as error:  # the readers raise RuntimeError, EOFError, KeyError, OSError and classes of their own
        raise ConfigError(f"network.weights: {path} cannot be read as a file of tensors: save a state_dict.") from error
    return _tensors(content)


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    """The tensors of a state_dict, or of the one that a checkpoint holds under one of the customary keys."""
    if not isinstance(content, Mapping):
        return {}
    for key in ("state_dict", "model_state_dict", "network", "model"):
        if isinstance(content.get(key), Mapping):
            return _tensors(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _translator(module: nn.Module) -> Callable[[str], str]:
    """From the names of a file to those of ``module``."""
    own = set(module.state_dict())
    # lukemelas counts the blocks of an EfficientNet through; MONAI groups them in stages and keeps the number.
    blocks = {name.split(".")[2]: name.split(".")[1] for name in own if name.startswith("_blocks.")}

    def translate(name: str) -> str:
        while name not in own and name.startswith(("module.", "model.", "_orig_mod.", "network.")):
            name = name.split(".", 1)[1]
        parts = name.split(".")
        if name in own:
            return name
        if parts[0] == "classifier":  # torchvision's DenseNet
            parts[:1] = ["class_layers", "out"]
        if len(parts) > 3 and parts[2].startswith("denselayer") and parts[3] != "layers":
            rest = [parts[3] + parts[4], *parts[5:]] if parts[4].isdigit() else parts[3:]  # norm.1 of the first files
            parts[3:] = ["layers", *rest]
        if parts[0] == "_blocks" and len(parts) > 1 and parts[1] in blocks:
            parts.insert(1, blocks[parts[1]])
        return ".".join(parts)

    return translate


def _fit_channels(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """The first convolution's weight for another number of input channels, 3 to 1 or 1 to 3; None where it cannot."""
    if tensor.ndim != 4 or tensor.shape[:1] + tensor.shape[2:] != target.shape[:1] + target.shape[2:]:
        return None
    if (tensor.shape[1], target.shape[1]) == (3, 1):
        return tensor.sum(dim=1, keepdim=True)
    if (tensor.shape[1], target.shape[1]) == (1, 3):
        return tensor.expand(-1, 3, -1, -1) / 3
    return None
