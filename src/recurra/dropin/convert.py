"""Swapping the layers inside a model."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from ..core.engine import Engine
from ..engines import Auto
from .recurrent import GRU, LSTM, RNN

M = TypeVar("M", bound=nn.Module)
_FACES: dict[type, type] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def convert(module: M, *, engine: Engine | None = None) -> M:
    """A copy of a model in which every ``torch.nn.LSTM``, ``GRU`` and ``RNN`` is the layer of the same name from here.

    Weights, hooks, training mode and ``state_dict`` are those of the original. A layer of a subclass stays as it is, for
    nobody knows what it does.

    Args:
        module: a layer or a model that contains some.
        engine: how the layers run; ``Auto()`` unless given.

    Example:
        >>> import torch
        >>> from recurra.engines import Hoisted
        >>> model = nn.ModuleDict({"encoder": nn.LSTM(3, 5), "head": nn.Linear(5, 2)})
        >>> convert(model, engine=Hoisted())["encoder"]
        LSTM(3, 5, engine=Hoisted())
    """
    module = copy.deepcopy(module)
    for inner in module.modules():
        face = _FACES.get(type(inner))
        if face is not None:
            inner.__class__ = face  # the same parameters, hooks and options; forward is ours from here on
            assert isinstance(inner, LSTM | GRU | RNN)
            inner.run_on(Auto() if engine is None else engine)
    return module
