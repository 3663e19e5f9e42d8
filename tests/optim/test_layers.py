"""Parameter groups by kind of layer."""

from __future__ import annotations

import torch
from torch import nn

from medgcsam.optim import GCSAM, parameter_groups


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.up_grouped = nn.ConvTranspose2d(4, 4, 2, groups=2)
        self.norm = nn.LayerNorm((3, 3))
        self.table = nn.Embedding(5, 4)
        self.tied = nn.Linear(4, 5)
        self.tied.weight = self.table.weight
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.cross = nn.MultiheadAttention(4, 2, kdim=3, vdim=3)
        self.lstm = nn.LSTM(4, 4)
        self.position = nn.Parameter(torch.zeros(1, 6, 4))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = Everything()
    grouped = [p for group in parameter_groups(model) for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}


def test_kinds_of_layer():
    model = Everything()
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        (group.get("transposed", 0), group.get("centralize")): {names[id(p)] for p in group["params"]}
        for group in parameter_groups(model, lr=0.5)
    }
    assert found[1, None] == {"up.weight"}
    assert found[2, None] == {"up_grouped.weight"}
    assert found[0, None] == {
        "conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "cross.q_proj_weight",
        "cross.k_proj_weight", "cross.v_proj_weight", "cross.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
    }  # fmt: skip
    rest = found[0, "none"]
    assert {"norm.weight", "table.weight", "position", "attention.bias_k", "conv.bias", "up.bias"} <= rest
    assert "tied.weight" not in rest | found[0, None]  # it is table.weight
    assert all(group["lr"] == 0.5 for group in parameter_groups(model, lr=0.5))


def test_the_optimizer_follows_the_groups():
    model = Everything()
    optimizer = GCSAM(parameter_groups(model), torch.optim.SGD, rho=1.0, lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn_like(p) + 1
    optimizer.ascend()
    e = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    zero = torch.zeros(4)
    torch.testing.assert_close(e["conv.weight"].sum((1, 2, 3)), zero, rtol=0, atol=1e-6)
    torch.testing.assert_close(e["up.weight"].sum((0, 2, 3)), zero, rtol=0, atol=1e-6)
    assert e["up.weight"].sum((1, 2, 3)).abs().min() > 1e-4
    for name in ("table.weight", "norm.weight", "position"):
        assert e[name].sum().abs() > 1e-2
