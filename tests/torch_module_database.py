"""Runs torch's own test cases for LSTM, GRU and RNN on the layers of `recurra.dropin`; prints how many there were.

A program of its own, since the import of torch's collection changes torch for the whole process.
"""

from __future__ import annotations

import collections
import json
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_db

from recurra import dropin
from recurra.engines import Auto, Checkpointed, Loop

warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
KIND: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}


def leaves(value: Any) -> list[Tensor]:
    """The tensors of nested tuples."""
    return [value] if isinstance(value, Tensor) else [leaf for v in value for leaf in leaves(v)]


def main() -> None:
    """Every entry, in both modes, on three engines."""
    count: collections.Counter[str] = collections.Counter()
    for info in module_db:
        if info.module_cls not in (nn.LSTM, nn.GRU, nn.RNN):
            continue
        face = getattr(dropin, info.module_cls.__name__)
        for training in (False, True):
            inputs = info.module_inputs_func(info, **KIND, requires_grad=True, training=training)
            for one in inputs:
                made, called = one.constructor_input, one.forward_input
                for engine in (Auto(), Loop(), Checkpointed(every=2)):
                    layer = face(*made.args, **made.kwargs, **KIND, engine=engine).train(training)
                    twin = info.module_cls(*made.args, **made.kwargs, **KIND).train(training)
                    twin.load_state_dict(layer.state_dict())
                    answer = leaves(layer(*called.args, **called.kwargs))
                    known = [leaves(twin(*called.args, **called.kwargs))]
                    if one.reference_fn is not None:
                        known.append(leaves(one.reference_fn(twin, *called.args, **called.kwargs)))
                    for theirs in known:
                        for a, b in zip(answer, theirs, strict=True):
                            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
                    sum(a.sum() for a in answer).backward()  # type: ignore[union-attr]
                    sum(a.sum() for a in known[0]).backward()  # type: ignore[union-attr]
                    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
                        assert a.grad is not None
                        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)
                    count[face.__name__] += 1
    print(json.dumps(count))


if __name__ == "__main__":
    main()
