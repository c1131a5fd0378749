"""Real-time recurrent learning with an influence that is a Kronecker product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Direction
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines.unroll import draw
from .forward import ForwardRule
from .linearised import Stretch, _Inputs, flat_size, jacobians, learning, moving
from .nobacktrack import balance
from .step_graph import remembered


class KFRTRLCarry(NamedTuple):
    """What goes along, for every parameter (rows, cols) that learns.

    Args:
        state: (B, ...).
        of_inputs: (B, cols) each.
        of_units: (B, S, rows) each; their product with the others stands for the influence.
        rng: of noise and signs.
    """

    state: Tree
    of_inputs: tuple[Tensor, ...]
    of_units: tuple[Tensor, ...]
    rng: Tensor


@dataclass(frozen=True)
class KFRTRL(ForwardRule):
    """Kronecker-factored real-time recurrent learning: the influence is estimated by one product for each weight matrix.

    The immediate influence of a weight matrix W in W a is a product, d s / d W = M (x) a; it is kept as one product for
    each parameter:

        u' = c1 p1 u + c2 p2 a,   A' = c1 D A / p1 + c2 M / p2,   p1 = sqrt(|D A| / |u|),  p2 = sqrt(|M| / |a|)
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1} A_{t-1}) (x) u_{t-1})

    with random signs c1, c2: E[A (x) u] is the influence that `RTRL` carries, while the parameters stay.

    Raises:
        TypeError: as `UORO`; a parameter whose immediate influence is no product: a matrix that is used twice in a step, or on
            more than one vector.
    Source:
        Mujika, Meier & Steger 2018, "Approximating real-time recurrent learning with random Kronecker factors", NeurIPS,
        arXiv:1805.10842 (from memory)
    Differs:
        One product for each parameter, biases too (with a = 1), in place of one for all weights of a layer: a gate may then
        use its inputs and its recurrent units apart.
    Cost:
        O(S n) memory for each weight matrix of n rows and each row of the batch, O(S^2 n) time. The derivatives of a step are
        found whole here, S backward passes and O(S P) memory while a chunk is learned from.
    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), KFRTRL()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.of_inputs[0].shape, carry.of_units[0].shape  # of the input weights
        (torch.Size([2, 3]), torch.Size([2, 5, 5]))
    """

    unbiased: ClassVar[bool] = True
    exempt: ClassVar[dict[str, str]] = {
        "exact": "It is an estimate: right on average over its random signs.",
        "rows_add": "Every row draws its own signs, so a row alone has others than in a batch.",
        "padding": "As for rows: a row alone draws other signs.",
    }

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose parameters feed the state by one product each."""
        reason = super().supports(cell, loss)
        if reason is not None:
            return reason
        assert isinstance(cell, Cell)
        if any(isinstance(m, Cell) and m.initial_values is not None for m in cell.modules()):
            return "it draws the influence of products, and a learned initial state is none; use RTRL()."
        odd: list[str] = remembered(cell, "products", tree.leaves(cell.state_spec), lambda: _no_products(cell))
        if odd:
            return f"the immediate influence of {odd[0]} is no Kronecker product; use UORO()."
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> KFRTRLCarry:
        """The initial state, and no influence."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        size = flat_size(state)
        forms = [_form(p) for p in learning(cell).values()]
        blank = torch.zeros(0, dtype=cell.dtype, device=cell.device)
        return KFRTRLCarry(
            state,
            tuple(blank.new_zeros(batch_size, cols) for _, cols in forms),
            tuple(blank.new_zeros(batch_size, size, rows) for rows, _ in forms),
            torch.Generator().manual_seed(seed).get_state(),
        )

    def follow(
        self, cell: Cell, carry: KFRTRLCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[KFRTRLCarry, Direction]:
        """See `ForwardRule.follow`."""
        num_steps, rows, size = made.wanted.shape
        parameters = learning(cell)
        forms = [_form(p) for p in parameters.values()]
        us, units = list(carry.of_inputs), list(carry.of_units)
        totals = [torch.zeros_like(p).detach().reshape(form) for p, form in zip(parameters.values(), forms)]
        if size and num_steps:
            shape = (num_steps, len(forms), 2, rows)
            signs = torch.randint(0, 2, shape, generator=generator).to(made.wanted) * 2 - 1
            free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(made.wanted.device)
            for t, (passed, immediate) in enumerate(jacobians(cell, made)):
                pieces = immediate.split([n * m for n, m in forms], 2)
                for k, form in enumerate(forms):
                    u, unit = us[k], units[k]
                    if made.restarted is not None:
                        unit = torch.where(made.restarted[t][:, None, None] & free[:, None], 0.0, unit)
                    totals[k] = totals[k] + torch.einsum("bs,bsn,bm->nm", made.wanted[t], unit, u)
                    a, fed = _factors(pieces[k].unflatten(2, form))
                    forward = torch.bmm(passed, unit)
                    keep = balance(_length(forward), _length(u))
                    give = balance(_length(fed), _length(a))
                    one, two = signs[t, k, 0][:, None], signs[t, k, 1][:, None]
                    new_u = one * keep * u + two * give * a
                    new_unit = (one / keep)[..., None] * forward + (two / give)[..., None] * fed
                    if made.alive is not None:
                        alive = made.alive[t][:, None]
                        new_u = torch.where(alive, new_u, u)
                        new_unit = torch.where(alive[..., None], new_unit, unit)
                    us[k], units[k] = new_u, new_unit
        direction = {n: part.reshape(p.shape) for (n, p), part in zip(parameters.items(), totals)}
        return carry._replace(of_inputs=tuple(us), of_units=tuple(units)), direction


def _form(p: Tensor) -> tuple[int, int]:
    """(rows, cols) of a parameter; vectors have one column."""
    return (int(p.shape[0]), p.numel() // max(1, int(p.shape[0]))) if p.ndim > 1 else (p.numel(), 1)


def _length(value: Tensor) -> Tensor:
    """(B, 1)."""
    return value.flatten(1).norm(dim=1, keepdim=True)


def _factors(immediate: Tensor) -> tuple[Tensor, Tensor]:
    """a (B, cols) of length one, or zero, and M (B, S, rows), whose product is the immediate influence (B, S, rows, cols)."""
    rows = immediate.flatten(1, 2)
    lengths = rows.norm(dim=2)
    longest = rows[torch.arange(len(rows), device=rows.device), lengths.argmax(1)]
    length = longest.norm(dim=1, keepdim=True)
    a = longest / torch.where(length > 0, length, 1.0)
    return a, torch.einsum("bsnm,bm->bsn", immediate, a)


def _no_products(cell: Cell) -> list[str]:
    """The parameters whose immediate influence, at a random place, is not a product."""
    generator = torch.Generator().manual_seed(0)

    def wild(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf[None]
        return torch.randn(1, *leaf.shape, generator=generator, dtype=leaf.dtype).to(leaf.device)

    with torch.no_grad():
        states = tree.map(wild, cell.initial_state(2))
        xs = tree.map(lambda leaf: wild(leaf[0]), zeros(cell.input_spec, 1, 2, dtype=cell.dtype, device=cell.device))
        drawn = draw(cell, xs, generator)
        xs = Noisy(xs, drawn.noise) if isinstance(cell, StochasticCell) else xs
    size = flat_size(cell.initial_state(1))
    nothing = torch.zeros((), dtype=cell.dtype)
    wanted = torch.zeros(1, 2, size, dtype=cell.dtype, device=cell.device)
    made = Stretch({}, wanted, None, None, nothing, nothing, None, None, _Inputs(xs, states, None, None))
    parameters, found = learning(cell), []
    tolerance = 1e3 * torch.finfo(cell.dtype).eps
    for _, immediate in jacobians(cell, made):
        pieces = immediate.split([p.numel() for p in parameters.values()], 2)
        for (name, p), piece in zip(parameters.items(), pieces):
            whole = piece.unflatten(2, _form(p))
            a, fed = _factors(whole)
            rest = whole - torch.einsum("bsn,bm->bsnm", fed, a)
            if float(rest.abs().max()) > tolerance * max(1e-30, float(whole.abs().max())):
                found.append(name)
    return found
