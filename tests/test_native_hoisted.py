"""The laws' sizes are so small that products of the input are computed in the loop; here they are hoisted, on every cell."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.core import Controls, tree
from recurra.engines import Loop, Native
from recurra.engines import native as engine
from recurra.testing import Setting
from recurra.testing.generate import case
from recurra.testing.settings import instances

CELLS = {name: cell for name, cell in instances("cells") if name.endswith("-0")}


@pytest.mark.parametrize("name", CELLS)
def test_hoisted_products_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LITTLE", 0)
    cell, xs, state = case(CELLS[name], Setting(num_steps=6, batch_size=3, dtype=torch.float64))
    reset = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    xs = tree.map(lambda t: t.requires_grad_() if t.is_floating_point() else t, xs)
    found: list[list[Tensor]] = []
    for run in (Native(silent=True), Loop()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ys, last = run(cell, xs, state, Controls(reset=reset))
        values: list[Any] = [v if v.is_floating_point() else v.double() for v in tree.leaves((ys, last))]
        total = torch.stack([v.sin().sum() for v in values]).sum()
        wanted = [p for p in (*cell.parameters(), *tree.leaves(xs)) if p.requires_grad]
        grads = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad and wanted else ()
        found.append([*values, *(torch.zeros_like(p) if g is None else g for g, p in zip(grads, wanted))])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
