"""Where a value is: which units a number was computed from, followed through every operation of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_COPIES = ("_to_copy", "clone", "copy_", "copy", "contiguous", "lift_fresh", "alias")
_CONTRACTIONS = ("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv", "addbmm")


class Where(NamedTuple):
    """The places of the elements of a tensor.

    Args:
        places: (..., N) bool, the places that an element belongs to; none for a constant or a random number.
        event: (...) int64, the number of a read from afar in an element's history; -1 for none.
    """

    places: Tensor
    event: Tensor


class Event(NamedTuple):
    """A read from afar: the operation, and the places whose values met in it."""

    operation: str
    places: tuple[int, ...]


class _Memory(NamedTuple):
    storage: Any  # kept, so that its address is not given to another one
    places: Tensor
    event: Tensor


class Places(TorchDispatchMode):
    """Follows every element of every tensor: which places, of N, the numbers it was made from belong to.

    A unit is a place; a connection is two. The rules are those of messages that go along connections:

        pointwise operation    belongs to the places of all operands together
        sum, product of matrices, norm
                               a term belongs to the places of its factors; the sum to those that all its terms have in common
                               (a unit gathers what its connections bring), or, where there are none, to all of them together

    What belongs to more than two places was read from afar: no unit and no connection holds it. An element that is exactly
    zero belongs nowhere, so a mask or a diagonal is seen as what it leaves out. Views share the record of their storage. An
    operation with no rule that does more than move elements is taken to read everything.

    Args:
        num_places: N.
        meeting: keep in ``met`` the pairs of places that met element by element, and those that would have to be one place for
            the terms of a product to be at connections.
    Example:
        >>> seen = Places(4)
        >>> weight, x = torch.rand(2, 2), torch.rand(2)
        >>> seen.place(x, [[0], [1]]); seen.place(weight, [[[2, 0], [2, 1]], [[3, 0], [3, 1]]])
        >>> with seen:
        ...     y, length = weight @ x, x.square().sum()
        >>> seen.where(y).places.int().tolist(), seen.where(length).places.int().tolist()
        ([[0, 0, 1, 0], [0, 0, 0, 1]], [1, 1, 0, 0])
    """

    def __init__(self, num_places: int, *, meeting: bool = False) -> None:
        super().__init__()
        self.num_places, self.meeting = num_places, meeting
        self.events: list[Event] = []
        self.met: list[tuple[int, int]] = []
        self._memory: dict[int, _Memory] = {}
        self._known: dict[tuple[str, tuple[int, ...]], int] = {}

    # --- the record ---

    def place(self, tensor: Tensor, places: Any) -> None:
        """Say where the elements of a tensor are: nested lists of lists of places, or a mask (..., N)."""
        mask = places if isinstance(places, Tensor) else _mask(places, self.num_places)
        mask = mask.expand(*tensor.shape, self.num_places)
        self._write(tensor, Where(mask, torch.full(tensor.shape, -1)))

    def where(self, tensor: Tensor) -> Where:
        """What is known of the elements of a tensor."""
        memory = self._memory.get(tensor.untyped_storage()._cdata)
        if memory is None:
            return Where(torch.zeros(*tensor.shape, self.num_places, dtype=torch.bool), torch.full(tensor.shape, -1))
        index = _elements(tensor)
        return Where(memory.places[index], memory.event[index])

    def _write(self, tensor: Tensor, found: Where) -> None:
        key = tensor.untyped_storage()._cdata
        if key not in self._memory:
            count = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
            self._memory[key] = _Memory(
                tensor.untyped_storage(),
                torch.zeros(count, self.num_places, dtype=torch.bool),
                torch.full((count,), -1),
            )
        index = _elements(tensor).reshape(-1)
        self._memory[key].places[index] = found.places.reshape(-1, self.num_places)
        self._memory[key].event[index] = found.event.reshape(-1)

    # --- operations ---

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and not leaf.is_meta]
        before = [self.where(t) for t in inputs]
        values = [t.clone() for t in inputs] if func._schema.is_mutable else inputs
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        held = {t.untyped_storage()._cdata for t in inputs}
        changes = func._schema.is_mutable
        for result in outputs:
            if result.is_meta or (not changes and result.untyped_storage()._cdata in held):
                continue  # only a shape, or a view
            found = self._rule(func, args, kwargs, values, before, result) if before else None
            if found is not None:
                zero = result == 0
                places = found.places & ~zero[..., None]
                self._write(result, Where(places, torch.where(zero, -1, found.event)))
            elif changes:
                self.place(result, torch.zeros(self.num_places, dtype=torch.bool))
        return out

    def _rule(
        self, func: Any, args: Any, kwargs: Any, values: list[Tensor], before: list[Where], result: Tensor
    ) -> Where | None:
        name = func._schema.name.partition("::")[2]
        plain = name.rstrip("_")
        if (
            name.endswith("_like")
            or name.startswith("new_")
            or plain in ("fill", "zero", "random", "bernoulli", "normal")
        ):
            return None
        if plain in _COPIES or name in _COPIES:
            return self._pointwise(name, values[-1:], before[-1:], result)
        if plain == "where" and len(values) == 3:
            return _chosen(values[0], before, result)
        if plain in ("masked_fill", "masked_fill_scalar") and len(values) == 2:
            return _chosen(values[1], [before[1], _free(result, self.num_places), before[0]], result)
        if name == "embedding":
            table = before[0]
            places = table.places.all(0).expand(*result.shape, self.num_places)
            return Where(places, table.event.amax().expand(result.shape))
        if name == "embedding_dense_backward":
            chosen = torch.nn.functional.one_hot(values[1].reshape(-1), result.shape[0]).T.to(result.dtype)
            grad, where = values[0].flatten(0, -2), before[0]
            rows = Where(where.places.flatten(0, -3), where.event.flatten(0, -2))
            return self._contraction("mm", [chosen, grad], [_free(chosen, self.num_places), rows], result)
        if plain in _CONTRACTIONS:
            return self._contraction(plain, values, before, result)
        if torch.Tag.pointwise in func.tags:
            return self._pointwise(name, values, before, result)
        moved = self._moved(func, args, kwargs, before, values, result)
        if moved is not None:
            return moved
        if (torch.Tag.reduction in func.tags or plain in ("sum", "mean", "linalg_vector_norm", "norm")) and len(
            values
        ) == 1:
            return self._reduction(name, func, args, kwargs, before[0], values[0], result)
        everything = torch.stack([b.places.reshape(-1, self.num_places).any(0) for b in before]).any(0)
        event = max([int(b.event.max()) for b in before if b.event.numel()], default=-1)
        whole = everything.expand(*result.shape, -1)
        return self._judge(name, Where(whole, torch.full(result.shape, event)))

    def _pointwise(self, name: str, values: Sequence[Tensor], before: Sequence[Where], result: Tensor) -> Where:
        places = torch.zeros(*result.shape, self.num_places, dtype=torch.bool)
        event = torch.full(result.shape, -1)
        for value, one in zip(values, before):
            if value.ndim > result.ndim:
                continue
            self._meet(places, one.places.expand_as(places))
            places = places | one.places
            event = torch.maximum(event, one.event.expand_as(event))
        return self._judge(name, Where(places, event))

    def _meet(self, left: Tensor, right: Tensor) -> None:
        """Remember the pairs of places of operands that are at one place each."""
        if not self.meeting:
            return
        single = (left.sum(-1) == 1) & (right.sum(-1) == 1)
        if bool(single.any()):
            a, b = left[single].int().argmax(-1), right[single].int().argmax(-1)
            self.met += [(int(i), int(j)) for i, j in zip(a, b) if i != j]

    def _contraction(self, name: str, values: list[Tensor], before: list[Where], result: Tensor) -> Where:
        added = name.startswith("add") or name == "baddbmm"
        (left, right), (a, b) = values[-2:], before[-2:]
        if name == "mv" or name == "addmv":
            right, b = right[:, None], Where(b.places[:, None], b.event[:, None])
        if name == "dot":
            left, a = left[None], Where(a.places[None], a.event[None])
            right, b = right[:, None], Where(b.places[:, None], b.event[:, None])
        real = (left[..., :, :, None] != 0) & (right[..., None, :, :] != 0)  # (..., m, k, n)
        pa, pb = a.places[..., :, :, None, :], b.places[..., None, :, :, :]
        places = (pa | pb) & real[..., None]
        event = torch.maximum(a.event[..., :, :, None], b.event[..., None, :, :])
        axis = real.ndim - 2
        gathered = self._gather(name, Where(places, torch.where(real, event, -1)), real, axis)
        if name == "addbmm":
            gathered = self._gather(name, gathered, gathered.places.any(-1), 0)
        found = Where(gathered.places.reshape(*result.shape, self.num_places), gathered.event.reshape(result.shape))
        self._ends(places, gathered.places, axis)
        if added and bool((values[0] != 0).any()):
            return self._pointwise(name, [values[0], result], [before[0], found], result)
        return found

    def _ends(self, places: Tensor, gathered: Tensor, axis: int) -> None:
        """Remember what would have to be one place for the terms of a product to be at connections."""
        if not self.meeting:
            return
        left = places & ~gathered.unsqueeze(axis)
        two = (places.sum(-1) == 3) & (left.sum(-1) == 2)
        for term in left[two]:
            i, j = term.nonzero()[:, 0].tolist()
            self.met.append((i, j))

    def _gather(self, name: str, terms: Where, real: Tensor, axis: int) -> Where:
        """A sum over an axis of terms."""
        judged = self._judge(name, terms)
        somewhere = terms.places.any(-1) & real
        common = (terms.places | ~somewhere[..., None]).all(axis) & somewhere.any(axis)[..., None]
        union = terms.places.any(axis)
        places = torch.where(common.any(-1, keepdim=True), common, union)
        event = judged.event.amax(axis) if judged.event.shape[axis] else judged.event.sum(axis) - 1
        return self._judge(name, Where(places, event))

    def _reduction(
        self, name: str, func: Any, args: Any, kwargs: Any, before: Where, value: Tensor, result: Tensor
    ) -> Where:
        """Which axes an operation summed over is read off what it does to an input of zeros and ones."""
        dims = _summed(func, args, kwargs, value, result)
        real, terms = value != 0, before
        for dim in sorted(dims, reverse=True):
            terms = self._gather(name, terms, real, dim)
            real = real.any(dim)
        return Where(terms.places.reshape(*result.shape, self.num_places), terms.event.reshape(result.shape))

    def _moved(
        self, func: Any, args: Any, kwargs: Any, before: list[Where], values: list[Tensor], result: Tensor
    ) -> Where | None:
        """For an operation that only moves elements: found by moving their numbers, and checked against the result."""
        count, tables = 0, []
        numbered: dict[int, Tensor] = {}
        originals = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for original, value, one in zip(originals, values, before):
            if not value.is_floating_point():
                continue
            numbers = torch.arange(count + 1, count + 1 + value.numel(), dtype=torch.float64).reshape(value.shape)
            numbered[id(original)] = numbers
            tables.append((value.reshape(-1), one))
            count += value.numel()
        if not tables or (func._schema.is_mutable and not values[0].is_floating_point()):
            return None
        try:
            given = tree_map(lambda leaf: numbered.get(id(leaf), leaf), (args, kwargs))
            out = func(*given[0], **given[1])
        except (RuntimeError, TypeError, ValueError):
            return None
        out = out[0] if isinstance(out, tuple | list) else out
        if not isinstance(out, Tensor) or out.shape != result.shape or not result.is_floating_point():
            return None
        index = out.round().to(torch.int64).reshape(-1)
        flat = torch.cat([result.new_zeros(1), *(v.to(result.dtype) for v, _ in tables)])
        if bool((out != out.round()).any()) or bool((index < 0).any()) or bool((index > count).any()):
            return None
        if not torch.equal(flat[index], result.reshape(-1)):
            return None
        nowhere = torch.zeros(1, self.num_places, dtype=torch.bool)
        places = torch.cat([nowhere, *(w.places.reshape(-1, self.num_places) for _, w in tables)])
        event = torch.cat([torch.full((1,), -1), *(w.event.reshape(-1) for _, w in tables)])
        return Where(places[index].reshape(*result.shape, self.num_places), event[index].reshape(result.shape))

    def _judge(self, name: str, found: Where) -> Where:
        """Number what belongs to more than two places."""
        far = (found.places.sum(-1) > 2) & (found.event < 0)
        if not bool(far.any()):
            return found
        event = found.event.clone()
        rows, which = found.places[far].unique(dim=0, return_inverse=True)
        numbers = []
        for row in rows:
            key = name, tuple(row.nonzero()[:, 0].tolist())
            if key not in self._known:
                self._known[key] = len(self.events)
                self.events.append(Event(*key))
            numbers.append(self._known[key])
        event[far] = torch.tensor(numbers)[which]
        return Where(found.places, event)


def _elements(tensor: Tensor) -> Tensor:
    """(...) the place of each element in its storage."""
    count = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
    return torch.as_strided(torch.arange(count), tensor.shape, tensor.stride(), tensor.storage_offset())


def _mask(places: Any, num_places: int) -> Tensor:
    if all(isinstance(p, int) for p in places):
        mask = torch.zeros(num_places, dtype=torch.bool)
        mask[list(places)] = True
        return mask
    return torch.stack([_mask(p, num_places) for p in places])


def _free(result: Tensor, num_places: int) -> Where:
    return Where(torch.zeros(*result.shape, num_places, dtype=torch.bool), torch.full(result.shape, -1))


def _chosen(condition: Tensor, before: Sequence[Where], result: Tensor) -> Where:
    """What a condition chose; the condition is a pattern, not a value."""
    yes, no = before[1], before[2]
    shape = result.shape
    mask = condition.expand(shape)
    places = torch.where(mask[..., None], yes.places.expand(*shape, -1), no.places.expand(*shape, -1))
    return Where(places, torch.where(mask, yes.event.expand(shape), no.event.expand(shape)))


def _summed(func: Any, args: Any, kwargs: Any, value: Tensor, result: Tensor) -> list[int]:
    """The axes that an operation of one tensor takes together."""
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args)), **kwargs}
    dims = given.get("dim")
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return list(range(value.ndim))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return [d % value.ndim for d in dims] if value.ndim else []
