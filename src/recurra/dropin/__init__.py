"""The faces of ``torch.nn.LSTM``, ``GRU`` and ``RNN``: swap an import, keep the script.

    - from torch.nn import LSTM
    + from recurra.dropin import LSTM

Constructor, parameter names, ``state_dict``, inputs, packed sequences, outputs, errors and the first random weights under
one seed are those of ``torch.nn``; so is the speed, since torch's own kernels run it by default. What comes with the swap:

- ``engine=``: how the layer runs over time, for example ``Checkpointed()`` for sequences that do not fit into memory. Every
  engine gives the same numbers, and derivatives of any order where torch's kernels have only the first.
- ``cell()``: the layer as a Recurra cell that shares its weights, ready for any learning rule (`recurra.learning`), for
  wrappers and for streaming step by step.
- `convert`: swaps the layers inside a model that was built somewhere else.

Example:
    >>> import torch
    >>> from recurra.dropin import LSTM
    >>> from recurra.engines import Checkpointed
    >>> theirs = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True)
    >>> ours = LSTM(3, 5, num_layers=2, bidirectional=True, engine=Checkpointed(every=4))
    >>> ours.load_state_dict(theirs.state_dict())
    <All keys matched successfully>
    >>> xs = torch.randn(9, 2, 3)
    >>> torch.allclose(ours(xs)[0], theirs(xs)[0], atol=1e-6)
    True
"""

from .convert import convert
from .recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "convert"]
