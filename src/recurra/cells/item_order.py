"""Grossberg's item-and-order working memory: which item came when is stored as a gradient of activities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..core.cell import RK4, ContinuousCell, Euler, Solver, Timed
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree


class ItemOrderInput(NamedTuple):
    """items: (B, N) I, from 0 to 1, one item at a time; rehearse: (B,) r, the rehearsal wave, 0 or 1."""

    items: Tensor
    rehearse: Tensor


class ItemOrderOutput(NamedTuple):
    """stored: (B, N) x; performed: (B, N), above 0 only for the one item that is being performed."""

    stored: Tensor
    performed: Tensor


class ItemOrderState(NamedTuple):
    """x: (B, N) stored activities; y: (B, N) their second level; z: (B, N) the competition for being performed."""

    x: Tensor
    y: Tensor
    z: Tensor


class ItemOrderCell(ContinuousCell[ItemOrderOutput, ItemOrderState]):
    """STORE: a working memory of two levels for a list of items, with a field that performs them.

        dx_i/dt = (A I_i + y_i - x_i sum_k x_k) I - s x_i p_i          I = sum_k I_k
        dy_i/dt = (x_i - y_i) [1 - I]^+
        dz_i/dt = -D z_i + (1 - z_i) r (G x_i + g z_i^2) - z_i r sum_{k != i} (G x_k + g z_k^2)
        p_i = [z_i - 1/2]^+                                            output, y = (x, p)

    While an item is there, x moves; between items, y takes over what x holds. Each new item scales all that are stored by one
    factor, so that their ratios stay (the long-term memory invariance principle). With items and pauses long enough,

        S_n^2 = A + S_{n-1},  S_0 = 0          x_i = A / (S_i S_{i+1} ... S_n) after n items,  x_i / x_{i+1} = 1 / S_i

    so that earlier items are the stronger ones (primacy) as long as S_i < 1, later ones (recency) from there on: recency
    throughout for A >= 1, a bow for smaller A, primacy throughout a short list for small A.

    A pulse of the rehearsal wave r starts a contest, in which at most one z comes above 1/2: that of the strongest
    item. The item is performed and switches itself off; the next pulse performs the next one.

    Args:
        num_items: N.
        strength: A, of a new item.
        self_inhibition: s, 1/s, how fast an item that is performed switches itself off.
        decay: D, 1/s, of the contest; between two pulses it must have time to fall well below D / g.
        gain: G, 1/s, how strongly stored activities drive the contest.
        contrast: g, 1/s, of the contest's signal, which is faster than linear.
        solver: of the differential equations; steps well below 1 / (D + G + g) while r is on, below 1 / D else.
    State:
        x: (B, N) stored activities.
        y: (B, N) second level.
        z: (B, N) contest.
    Raises:
        ValueError: no item, a strength, decay, gain or contrast that is not above 0, a self-inhibition below 0.
    Source:
        Bradski, Carpenter & Grossberg 1994, "STORE working memory networks for storage and recall of arbitrary temporal
        sequences", Biological Cybernetics 71:469-480, doi:10.1007/BF00198465 (abstract read; equations of x and y from
        memory); Grossberg 1978, "Behavioral contrast in short term memory", Journal of Mathematical Psychology
        17:199-219, for the principle
    Differs:
        The contest z is written out as a shunting field with a signal faster than linear; the papers say that the
        largest activity is performed first and then inhibits itself.
    Cost:
        About 30 N flops for each evaluation of the derivative and 3 N state values.
    Example:
        >>> from recurra.layers import Recurrent
        >>> memory = ItemOrderCell(3, strength=0.05)
        >>> items = torch.zeros(6, 1, 3)  # item 2, pause, item 0, pause, item 1, pause
        >>> items[0, 0, 2] = items[2, 0, 0] = items[4, 0, 1] = 1
        >>> items = items.repeat_interleave(150, 0)
        >>> gaps = torch.full((900, 1), 0.2)
        >>> ys, _ = Recurrent(memory)(Timed(ItemOrderInput(items, torch.zeros(900, 1)), gaps))
        >>> ys.stored[-1, 0].argsort(descending=True).tolist()
        [2, 0, 1]
    """

    source = "Bradski, Carpenter & Grossberg 1994, Biological Cybernetics 71:469-480, doi:10.1007/BF00198465"

    def __init__(
        self,
        num_items: int,
        *,
        strength: float = 0.1,
        self_inhibition: float = 50.0,
        decay: float = 1.0,
        gain: float = 10.0,
        contrast: float = 100.0,
        solver: Solver | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, num_items=num_items)
        for name, value in {"strength": strength, "decay": decay, "gain": gain, "contrast": contrast}.items():
            if not value > 0:
                raise ValueError(sentence(where, name, "above 0", value))
        if not self_inhibition >= 0:
            raise ValueError(sentence(where, "self_inhibition", "at least 0", self_inhibition))
        self.num_items, self.strength, self.self_inhibition = num_items, strength, self_inhibition
        self.decay, self.gain, self.contrast = decay, gain, contrast
        self.solver = RK4() if solver is None else solver
        self.constants: Tensor
        values = torch.tensor([strength, self_inhibition, decay, gain, contrast], device=device, dtype=dtype)
        self.register_buffer("constants", values)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Two items, gentle constants, a learned start."""
        yield cls(2, strength=0.5, self_inhibition=2.0, contrast=3.0, solver=Euler()).learn_initial_state()

    @property
    def input_spec(self) -> Tree:
        """Items, the rehearsal wave, and the time gap."""
        given = ItemOrderInput(Leaf((self.num_items,), None, 0.0, 1.0), Leaf((), None, 0.0, 1.0))  # type: ignore[arg-type]
        return Timed(given, Leaf((), None, 0.0, 0.05))  # type: ignore[arg-type]

    @property
    def output_spec(self) -> Tree:
        """What is stored, what is performed."""
        return ItemOrderOutput(Leaf((self.num_items,)), Leaf((self.num_items,)))  # type: ignore[arg-type]

    @property
    def state_spec(self) -> Tree:
        """Activities of at least 0; z up to 1."""
        stored = Leaf((self.num_items,), None, 0.0)
        return ItemOrderState(stored, stored, Leaf((self.num_items,), None, 0.0, 1.0))  # type: ignore[arg-type]

    def hint(self) -> str:
        """How the cell was built."""
        return f"The cell was built with num_items={self.num_items}."

    def initial_state(self, batch_size: int) -> ItemOrderState:
        """Nothing is stored."""
        return ItemOrderState(*(self.initial(name, batch_size, self.num_items) for name in "xyz"))

    def derivative(self, x: Tree, state: ItemOrderState) -> ItemOrderState:
        """``d(x, y, z)/dt``."""
        strength, inhibition, decay, gain, contrast = self.constants.unbind()
        there = x.items.sum(-1, keepdim=True)
        stored = (strength * x.items + state.y - state.x * state.x.sum(-1, keepdim=True)) * there
        stored = stored - inhibition * state.x * torch.relu(state.z - 0.5)
        copied = (state.x - state.y) * torch.relu(1 - there)
        drive = x.rehearse.unsqueeze(-1) * (gain * state.x + contrast * state.z * state.z)
        contest = drive - state.z * (decay + drive.sum(-1, keepdim=True))
        return ItemOrderState(stored, copied, contest)

    def observe(self, state: ItemOrderState) -> ItemOrderOutput:
        """x and p."""
        return ItemOrderOutput(state.x, torch.relu(state.z - 0.5))
