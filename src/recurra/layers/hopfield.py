"""Modern Hopfield networks as layers: association, pooling and lookup.

Batches come first, as with `torch.nn.TransformerEncoderLayer`: what is stored is a set, and a set has no time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..core.checks import check_positive, check_probability, sentence


def hopfield_recall(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    beta: float | None = None,
    num_steps: int = 1,
    tolerance: float = 0.0,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What the keys nearest to the queries stand for, after updates of the queries among the keys:

        z <- softmax(beta z K^T) K     (num_steps - 1 times, or until z stands still)
        y  = softmax(beta z K^T) V

    One step is `torch.nn.functional.scaled_dot_product_attention`, and calls it; so does every further one.

    Args:
        queries: (..., L, E).
        keys: (..., S, E).
        values: (..., S, V).
        beta: inverse temperature; None is 1 / sqrt(E).
        num_steps: at least 1; the most with a tolerance.
        tolerance: a query stands still once no number of it moves by more; 0 takes all steps (and looks at no data, so that
            it compiles whole).
        mask: (..., L, S) or (..., 1, S) bool, True where a query may recall; a query that may recall nothing recalls zeros.
        dropout: probability with which a stored pattern is left out of the last step.
    Source:
        Ramsauer et al. 2020, Hopfield Networks is All You Need, arXiv:2008.02217, equation 3
    Example:
        >>> q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 4)
        >>> hopfield_recall(q, k, v, num_steps=3).shape
        torch.Size([2, 3, 4])
    """
    z, still = queries, None
    for _ in range(num_steps - 1):
        new = scaled_dot_product_attention(z, keys, keys, attn_mask=mask, scale=beta)
        if tolerance > 0:
            near = (new - z).abs().amax(-1, keepdim=True) <= tolerance
            new = new if still is None else torch.where(still, z, new)
            still = near if still is None else still | near
            if bool(still.all()):
                z = new
                break
        z = new
    found = scaled_dot_product_attention(z, keys, values, attn_mask=mask, dropout_p=dropout, scale=beta)
    if mask is None:
        return found
    return found.masked_fill(~mask.any(-1, keepdim=True), 0.0)


class _Recalling(nn.Module):
    """What the three layers share: heads, and how they recall."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        beta: float | None,
        num_steps: int,
        tolerance: float,
        dropout: float,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, num_heads=num_heads, head_size=head_size, num_steps=num_steps)
        check_probability(where, dropout=dropout)
        if beta is not None and not 0 < beta < math.inf:
            raise ValueError(sentence(where, "beta", "positive and finite", beta))
        if not 0 <= tolerance < math.inf:
            raise ValueError(sentence(where, "tolerance", "at least 0", tolerance))
        self.num_heads, self.head_size, self.beta = num_heads, head_size, beta
        self.num_steps, self.tolerance, self.dropout = num_steps, tolerance, dropout

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, R*E) -> (B, R, L, E)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def _recall(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Heads (B, R, L, E), (B, R, S, E), (B, R, S, E) -> (B, L, R*E)."""
        if mask is not None:
            self._check_mask(mask, queries, keys)
            mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]  # (B, 1, 1 or L, S)
        dropout = self.dropout if self.training else 0.0
        found = hopfield_recall(
            queries,
            keys,
            values,
            beta=self.beta,
            num_steps=self.num_steps,
            tolerance=self.tolerance,
            mask=mask,
            dropout=dropout,
        )
        return found.transpose(-2, -3).flatten(-2)

    def _check_mask(self, mask: Tensor, queries: Tensor, keys: Tensor) -> None:
        batch, wanted, stored = keys.shape[0], queries.shape[-2], keys.shape[-2]
        if mask.dtype != torch.bool:
            got = str(mask.dtype).removeprefix("torch.")
            raise TypeError(sentence(type(self).__name__, "mask", "bool, True where something may be recalled", got))
        if tuple(mask.shape) not in ((batch, stored), (batch, wanted, stored)):
            shapes = f"({batch}, {stored}) or ({batch}, {wanted}, {stored})"
            raise ValueError(sentence(type(self).__name__, "mask", shapes, tuple(mask.shape)))

    def _check_input(self, name: str, x: Tensor, size: int) -> None:
        if x.ndim != 3 or x.shape[-1] != size:
            raise ValueError(sentence(type(self).__name__, name, f"(B, L, {size})", tuple(x.shape)))

    def extra_repr(self) -> str:
        """How it recalls."""
        return f"num_heads={self.num_heads}, beta={self.beta}, num_steps={self.num_steps}, tolerance={self.tolerance}"


class HopfieldAssociation(_Recalling):
    """Association of two sets: every query recalls from what is stored beside it.

        Q = X W_q,  K = Y W_k,  V = Y W_v              for each head
        z <- softmax(beta z K^T) K                     from z = Q, num_steps - 1 times
        output = concat_heads(softmax(beta z K^T) V) W_o

    With one step it is multi-head attention, and can take the weights of one.

    Args:
        query_size: D, features of a query.
        stored_size: features of a stored pattern; None is D.
        output_size: O; None is D.
        num_heads: R.
        head_size: E, the size of the space in which queries and keys meet; None is D / R.
        beta: inverse temperature; None is 1 / sqrt(E). Larger ones recall single patterns, smaller ones means.
        num_steps: updates; the most of them with a tolerance.
        tolerance: a query stands still once no number of it moves by more; 0 takes all steps.
        bias: of the four linear maps.
        dropout: probability with which a stored pattern is left out while training.
    Raises:
        ValueError: sizes below 1, D not divisible by R without a head size, a wrong shape.
        TypeError: a mask that is not bool.
    Source:
        Ramsauer et al. 2020, arXiv:2008.02217, section 3 (layer "Hopfield")
    Differs:
        No layer normalisation of the inputs.
    Cost:
        2 B R L S E (num_steps + 1) flops beside the linear maps.
    Example:
        >>> layer = HopfieldAssociation(8, num_heads=2, num_steps=3)
        >>> layer(torch.randn(4, 5, 8), torch.randn(4, 7, 8)).shape
        torch.Size([4, 5, 8])
    """

    def __init__(
        self,
        query_size: int,
        stored_size: int | None = None,
        output_size: int | None = None,
        *,
        num_heads: int = 1,
        head_size: int | None = None,
        beta: float | None = None,
        num_steps: int = 1,
        tolerance: float = 0.0,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        where = "HopfieldAssociation"
        stored_size, output_size = stored_size or query_size, output_size or query_size
        check_positive(where, query_size=query_size, stored_size=stored_size, output_size=output_size)
        super().__init__(
            num_heads, _head_size(where, query_size, num_heads, head_size), beta, num_steps, tolerance, dropout
        )
        self.query_size, self.stored_size, self.output_size = query_size, stored_size, output_size
        inner = self.num_heads * self.head_size
        self.query = nn.Linear(query_size, inner, bias)
        self.key = nn.Linear(stored_size, inner, bias)
        self.value = nn.Linear(stored_size, inner, bias)
        self.output = nn.Linear(inner, output_size, bias)

    @classmethod
    def from_attention(
        cls, attention: nn.MultiheadAttention, *, num_steps: int = 1, tolerance: float = 0.0
    ) -> HopfieldAssociation:
        """A layer with the weights of ``attention``, to which one step is equal (batch first).

        Raises:
            ValueError: an attention with extra keys (``bias_k``, ``add_zero_attn``), or with keys and values of two sizes.

        Example:
            >>> attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            >>> x = torch.randn(3, 5, 8)
            >>> HopfieldAssociation.from_attention(attention)(x, x).allclose(attention(x, x, x)[0], atol=1e-6)
            True
        """
        if attention.bias_k is not None or attention.add_zero_attn or attention.kdim != attention.vdim:
            got = "bias_k, add_zero_attn or two sizes"
            raise ValueError(sentence(cls.__name__, "attention", "plain, with keys and values of one size", got))
        layer = cls(
            attention.embed_dim,
            attention.kdim,
            num_heads=attention.num_heads,
            num_steps=num_steps,
            tolerance=tolerance,
            bias=attention.in_proj_bias is not None,
            dropout=attention.dropout,
        ).to(attention.out_proj.weight)
        weights = (
            attention.in_proj_weight.chunk(3)
            if attention.in_proj_weight is not None
            else (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        )
        biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        maps = (layer.query, layer.key, layer.value, layer.output)
        pairs = (*zip(weights, biases), (attention.out_proj.weight, attention.out_proj.bias))
        with torch.no_grad():
            for linear, (weight, shift) in zip(maps, pairs):
                linear.weight.copy_(weight)
                if linear.bias is not None and shift is not None:
                    linear.bias.copy_(shift)
        return layer

    def forward(self, queries: Tensor, stored: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """(B, L, O) for queries (B, L, D) and stored patterns (B, S, D_stored).

        Args:
            queries: (B, L, D).
            stored: (B, S, D_stored); None recalls from the queries themselves.
            mask: (B, S) or (B, L, S) bool, True where something may be recalled.
        """
        stored = queries if stored is None else stored
        self._check_input("queries", queries, self.query_size)
        self._check_input("stored", stored, self.stored_size)
        found = self._recall(
            self._split(self.query(queries)), self._split(self.key(stored)), self._split(self.value(stored)), mask
        )
        return self.output(found)


class HopfieldPooling(_Recalling):
    """Pooling of a set of any size: learned queries recall from it.

        K = Y W_k,  V = Y W_v                          for each head
        z <- softmax(beta z K^T) K                     from the learned Q (N, E), num_steps - 1 times
        output = concat_heads(softmax(beta z K^T) V) W_o

    The order of the set does not matter; masked members do not exist.

    Args:
        input_size: D, features of a member of the set.
        num_queries: N, rows of the output.
        output_size: O; None is D.
        num_heads: R.
        head_size: E; None is D / R.
        beta: inverse temperature; None is 1 / sqrt(E).
        num_steps: updates; the most of them with a tolerance.
        tolerance: a query stands still once no number of it moves by more; 0 takes all steps.
        bias: of the linear maps.
        dropout: probability with which a member is left out while training.
    Raises:
        ValueError: sizes below 1, D not divisible by R without a head size, a wrong shape.
        TypeError: a mask that is not bool.
    Source:
        Ramsauer et al. 2020, arXiv:2008.02217, section 3 (layer "HopfieldPooling")
    Cost:
        2 B R N S E (num_steps + 1) flops beside the linear maps.
    Example:
        >>> HopfieldPooling(8, num_heads=2)(torch.randn(4, 7, 8)).shape
        torch.Size([4, 1, 8])
    """

    def __init__(
        self,
        input_size: int,
        num_queries: int = 1,
        output_size: int | None = None,
        *,
        num_heads: int = 1,
        head_size: int | None = None,
        beta: float | None = None,
        num_steps: int = 1,
        tolerance: float = 0.0,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        where = "HopfieldPooling"
        output_size = output_size or input_size
        check_positive(where, input_size=input_size, num_queries=num_queries, output_size=output_size)
        super().__init__(
            num_heads, _head_size(where, input_size, num_heads, head_size), beta, num_steps, tolerance, dropout
        )
        self.input_size, self.output_size = input_size, output_size
        inner = self.num_heads * self.head_size
        self.queries = nn.Parameter(torch.randn(num_heads, num_queries, self.head_size))
        self.key = nn.Linear(input_size, inner, bias)
        self.value = nn.Linear(input_size, inner, bias)
        self.output = nn.Linear(inner, output_size, bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """(B, N, O) for sets (B, S, D).

        Args:
            x: (B, S, D).
            mask: (B, S) bool, True for what is a member of the set.
        """
        self._check_input("x", x, self.input_size)
        queries = self.queries.expand(x.shape[0], -1, -1, -1)
        return self.output(self._recall(queries, self._split(self.key(x)), self._split(self.value(x)), mask))


class HopfieldLookup(_Recalling):
    """Lookup in a learned table: every input recalls from patterns that are parameters.

        Q = X W_q                                      for each head
        z <- softmax(beta z K^T) K                     learned K (M, E), num_steps - 1 times
        output = concat_heads(softmax(beta z K^T) V) W_o    learned V (M, E)

    A layer of prototypes: with large beta it is a learned nearest neighbour, with small beta a layer of hidden units.

    Args:
        input_size: D, features of an input.
        num_patterns: M, rows of the table.
        output_size: O; None is D.
        num_heads: R.
        head_size: E; None is D / R.
        beta: inverse temperature; None is 1 / sqrt(E).
        num_steps: updates; the most of them with a tolerance.
        tolerance: a query stands still once no number of it moves by more; 0 takes all steps.
        bias: of the linear maps.
        dropout: probability with which a pattern is left out while training.
    Raises:
        ValueError: sizes below 1, D not divisible by R without a head size, a wrong shape.
    Source:
        Ramsauer et al. 2020, arXiv:2008.02217, section 3 (layer "HopfieldLayer")
    Differs:
        Keys and values are learned as they are, without linear maps of their own.
    Cost:
        2 B R L M E (num_steps + 1) flops beside the linear maps.
    Example:
        >>> HopfieldLookup(8, 20, num_heads=2)(torch.randn(4, 5, 8)).shape
        torch.Size([4, 5, 8])
    """

    def __init__(
        self,
        input_size: int,
        num_patterns: int,
        output_size: int | None = None,
        *,
        num_heads: int = 1,
        head_size: int | None = None,
        beta: float | None = None,
        num_steps: int = 1,
        tolerance: float = 0.0,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        where = "HopfieldLookup"
        output_size = output_size or input_size
        check_positive(where, input_size=input_size, num_patterns=num_patterns, output_size=output_size)
        super().__init__(
            num_heads, _head_size(where, input_size, num_heads, head_size), beta, num_steps, tolerance, dropout
        )
        self.input_size, self.output_size = input_size, output_size
        self.query = nn.Linear(input_size, self.num_heads * self.head_size, bias)
        self.keys = nn.Parameter(torch.randn(num_heads, num_patterns, self.head_size))
        self.values = nn.Parameter(torch.randn(num_heads, num_patterns, self.head_size))
        self.output = nn.Linear(self.num_heads * self.head_size, output_size, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, O) for inputs (B, L, D)."""
        self._check_input("x", x, self.input_size)
        keys, values = (table.expand(x.shape[0], -1, -1, -1) for table in (self.keys, self.values))
        return self.output(self._recall(self._split(self.query(x)), keys, values, None))


def _head_size(where: str, size: int, num_heads: int, head_size: int | None) -> int:
    check_positive(where, num_heads=num_heads)
    if head_size is not None:
        return head_size
    if size % num_heads:
        hint = "Or give head_size."
        raise ValueError(sentence(where, "num_heads", f"a divisor of {size}", num_heads, hint))
    return size // num_heads
