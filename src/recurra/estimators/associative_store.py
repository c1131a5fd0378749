"""A store that is read by content: patterns in, partial or noisy cues in, the stored patterns out."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ..core import tree
from ..core.catalog import find, members
from ..core.checks import sentence
from ..core.memory import AssociativeMemory, EnergyMemory, ErasableMemory, PairMemory
from ..memories.couplings import CouplingRule, coupling_rule
from ..training.files import write_atomically
from .store_file import option_of, packed, plain_option, unpacked

Kind = Literal["boolean", "binary", "bipolar", "real"]
PIECE = 1024  # cues that are read together
CHOICES = ("rule", "interaction")  # fields that make another memory of it
EXACT = "donot_use_mm_for_euclid_dist"  # large numbers with small differences would cancel
KEPT = 0.99  # overlap from which a pattern counts as kept


class Recollection(NamedTuple):
    """What cues brought back; sequences lead with B, one entry for each cue.

    Args:
        patterns: (B, ...) what the memory arrived at, in the kind and shape that were written.
        nearest: (B,) place of the stored pattern that is nearest to it, in the order of writing.
        names: (B,) its name.
        overlap: (B,) how near: 1 where they are equal, 0 where they have nothing in common, -1 for the opposite (for real
            vectors 2 a.b / (a.a + b.b) of their deviations from the mean of what is stored).
        certainty: (B,) probability, by the distances from the cue, that this stored pattern was meant and not another one,
            times the overlap (0 where that is negative).
        converged: (B,) did the memory come to rest?
        steps: (B,) updates it took.
    """

    patterns: np.ndarray[Any, Any]
    nearest: np.ndarray[Any, Any]
    names: list[str]
    overlap: np.ndarray[Any, Any]
    certainty: np.ndarray[Any, Any]
    converged: np.ndarray[Any, Any]
    steps: np.ndarray[Any, Any]


class Fullness(NamedTuple):
    """How full a store is.

    Args:
        patterns: stored.
        capacity: random patterns that theory says it can hold; NaN where no theory says.
        load: patterns / capacity.
        kept: share of the stored patterns that are their own recall (overlap of 0.99 at least, and none is nearer).
    """

    patterns: int
    capacity: float
    load: float
    kept: float


@dataclass(frozen=True)
class _Form:
    """What a user's patterns look like: kind, shape of one, type."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: str


class AssociativeStore:
    """Stores patterns in an associative memory and completes partial or noisy cues.

    Patterns are booleans, {0, 1}, {-1, +1} or real numbers, of any shape (a row of bits, an image); what they are is found
    out when the first are written, and the memory gets them in its own alphabet. What is unknown in a cue is NaN. Real vectors
    may have any scale: where no options are given, those that suit it are found.

    Args:
        memory: a memory of ``recurra list memories`` by name, or its class.
        threshold: real numbers above it are 1 and others 0, before they are stored; None leaves them real.
        seed: of what fills the unknown parts of a cue.
        options: fields of the memory, such as ``{"beta": 8.0}`` or ``{"rule": "Storkey"}``.

    Raises:
        ValueError: there is no such memory, it has no such option, or it brings back no parts of its cues.
        TypeError: a threshold or a seed that is no number.

    Example:
        >>> import numpy as np
        >>> letters = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 1, 0, 0]])
        >>> store = AssociativeStore("Hopfield").write(letters, names=["a", "b"])
        >>> found = store.recall(np.array([[1, 1, 1, 1, 0, 0, 0, 1]]))
        >>> found.patterns.tolist(), found.names
        ([[1, 1, 1, 1, 0, 0, 0, 0]], ['a'])
    """

    def __init__(
        self,
        memory: str | type[AssociativeMemory[Any]] = "ModernHopfield",
        *,
        threshold: float | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        kind = find("memories", memory, "AssociativeStore", "memory") if isinstance(memory, str) else memory
        if not (isinstance(kind, type) and issubclass(kind, AssociativeMemory)):
            raise TypeError(sentence("AssociativeStore", "memory", "the name or class of a memory", repr(memory)))
        self._kind: type[AssociativeMemory[Any]] = kind
        fields: list[str] = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        unknown = [name for name in options or {} if name not in fields[1:]]
        if unknown:
            hint = f"It has {', '.join(fields[1:])}." if fields[1:] else ""
            raise ValueError(sentence("AssociativeStore", "options", f"fields of {kind.__name__}", unknown[0], hint))
        if threshold is not None and (not _is_number(threshold) or not math.isfinite(threshold)):
            raise TypeError(sentence("AssociativeStore", "threshold", "a finite number or None", repr(threshold)))
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
            raise TypeError(sentence("AssociativeStore", "seed", "a whole number from 0", repr(seed)))
        self.threshold, self.seed = threshold, int(seed)
        self.options = {name: _option(kind, name, value) for name, value in (options or {}).items()}
        self._suited: AssociativeMemory[Any] | None = None  # found when it is asked for
        self._memory: AssociativeMemory[Any] | None = None
        self._state: Any = None
        self._form: _Form | None = None
        self._patterns = torch.zeros(0, 0)  # (M, K) in the memory's alphabet
        self._names: list[str] = []

    # --- what is in it ---

    @property
    def memory(self) -> AssociativeMemory[Any]:
        """The memory inside, with the settings that suit what is stored.

        Raises:
            ValueError: nothing was written yet, so its size is not known.
        """
        if self._memory is None:
            raise ValueError("AssociativeStore: nothing was written yet. Call write first.")
        if self._suited is None:
            self._suited = self._memory if self.options else self._memory.suited(self._patterns)
        return self._suited

    @property
    def kind(self) -> type[AssociativeMemory[Any]]:
        """The class of the memory inside."""
        return self._kind

    @property
    def names(self) -> list[str]:
        """Of the stored patterns, in the order of writing."""
        return list(self._names)

    @property
    def patterns(self) -> np.ndarray[Any, Any]:
        """(M, ...) the stored patterns as they were written.

        Raises:
            ValueError: nothing was written yet, so their shape is not known.
        """
        if self._form is None:
            raise ValueError("AssociativeStore: nothing was written yet. Call write first.")
        return self._decoded(self._patterns)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"AssociativeStore({self._kind.__name__!r}{options}): {len(self)} patterns"

    # --- in, out ---

    def write(self, patterns: Any, names: Sequence[str] | None = None) -> AssociativeStore:
        """Store patterns.

        Args:
            patterns: (M, ...) booleans, 0 and 1, -1 and +1, or real numbers; an array, a tensor or nested lists.
            names: one for each; None numbers them, from 0 or from the largest number among the names.

        Returns:
            Itself.

        Raises:
            ValueError: another shape or kind than before; numbers that the memory cannot store; a name that is taken.
        """
        array = self._read("patterns", patterns)
        form = self._form_of(array)
        if self._form is not None and form.shape != self._form.shape:
            raise ValueError(sentence("AssociativeStore", "patterns", f"(M, {_list(self._form.shape)})", array.shape))
        if self._form is not None and not (form.kind == "bipolar" and self._form.kind == "binary" and self._all_ones):
            form = self._same_kind("patterns", array, form)
        taken_numbers = [int(name) for name in self._names if name.isdecimal() and len(name) < 16]
        first = max([len(self) - 1, *taken_numbers]) + 1
        chosen = [str(first + i) for i in range(len(array))] if names is None else [str(name) for name in names]
        if len(chosen) != len(array):
            raise ValueError(sentence("AssociativeStore", "names", f"{len(array)}, one for each pattern", len(chosen)))
        taken = next((n for i, n in enumerate(chosen) if n in self._names or n in chosen[:i]), None)
        if taken is not None:
            raise ValueError(sentence("AssociativeStore", "names", "all different", f"{taken} twice"))
        size = int(np.prod(form.shape))
        memory = self._made(size) if self._memory is None else self._memory
        coded = self._coded(array, form, memory)
        state = memory.empty() if self._memory is None else self._state
        state = self._written(memory, state, coded)
        self._memory, self._state, self._form, self._suited = memory, state, form, None
        self._patterns = torch.cat([self._patterns.reshape(-1, size).to(coded.dtype), coded])
        self._names += chosen
        return self

    def _made(self, size: int) -> AssociativeMemory[Any]:
        """The memory for so many units."""
        try:
            memory = self._kind.sized(size, size)
        except (ValueError, TypeError):
            memory = None
        if memory is None or memory.value_size != size:
            want = "one that brings back what its cue is a part of"
            raise ValueError(sentence("AssociativeStore", "memory", want, self._kind.__name__))
        return dataclasses.replace(memory, **self.options) if self.options else memory  # type: ignore[type-var]

    @property
    def _all_ones(self) -> bool:
        """Is there nothing that tells 0 and 1 from -1 and +1?"""
        return bool((self._patterns == 1).all())

    def recall(self, cues: Any) -> Recollection:
        """Complete cues.

        Args:
            cues: (B, ...) of the kind and shape of what was written, or one of them; NaN is unknown.

        Raises:
            ValueError: nothing is stored; another shape or kind.
        """
        memory = self.memory
        coded, known = self._cues(cues)
        pieces = [memory.read(self._state, coded[i : i + PIECE]) for i in range(0, len(coded), PIECE)]
        value = torch.cat([piece.value for piece in pieces])
        nearest, overlap = self._nearest(value)
        certainty = self._posterior(coded, known).gather(1, nearest[:, None])[:, 0] * overlap.clamp(min=0)
        return Recollection(
            self._decoded(value),
            nearest.numpy(),
            [self._names[i] for i in nearest.tolist()],
            overlap.numpy(),
            certainty.numpy(),
            torch.cat([piece.converged for piece in pieces]).numpy(),
            torch.cat([piece.steps for piece in pieces]).numpy(),
        )

    def steps(self, cues: Any, count: int = 3) -> list[np.ndarray[Any, Any]]:
        """Configurations on the way from the cues to their recall, for those who want to look.

        Args:
            cues: as for `recall`.
            count: how many, evenly over the steps of the slowest cue; none for a memory without a trajectory.

        Returns:
            Arrays (B, ...) of the kind and shape that were written; between 0 and 1 where letters are on their way in a
            memory of real numbers.
        """
        memory = self.memory
        coded, _ = self._cues(cues)
        if not isinstance(memory, EnergyMemory):
            return []
        path = memory.trajectory(self._state, coded)
        if not isinstance(path, Tensor):
            return []
        places = [round((i + 1) * (len(path) - 1) / (count + 1)) for i in range(count)]
        if memory.alphabet == "real" and self._form is not None and self._form.kind != "real":
            soft = ((path + 1) / 2).clamp(0, 1).numpy()
            return [soft[place].reshape(len(coded), *self._form.shape) for place in places]
        return [self._decoded(path[place]) for place in places]

    def _cues(self, cues: Any) -> tuple[Tensor, Tensor]:
        """In the memory's alphabet, and which units are known."""
        memory = self.memory
        assert self._form is not None
        if not len(self):
            raise ValueError("AssociativeStore: nothing is stored. Call write first.")
        array = self._read("cues", cues, unknown=True)
        single = array.shape == self._form.shape
        array = array[None] if single else array
        if array.shape[1:] != self._form.shape:
            raise ValueError(sentence("AssociativeStore", "cues", f"(B, {_list(self._form.shape)})", array.shape))
        flat = array.reshape(len(array), -1)
        known = (
            torch.from_numpy(~np.isnan(flat)) if flat.dtype.kind == "f" else torch.ones(flat.shape, dtype=torch.bool)
        )
        filled = np.where(known.numpy(), flat, self._sample(flat.dtype)) if not bool(known.all()) else flat
        form = self._same_kind("cues", filled.reshape(array.shape), self._form_of(filled.reshape(array.shape)))
        coded = self._completed(self._coded(filled.reshape(array.shape), form, memory), known, memory)
        return coded, known

    def forget(self, which: int | str) -> AssociativeStore:
        """Take one pattern out.

        Args:
            which: its name or number.

        Returns:
            Itself.

        Raises:
            ValueError: there is none of that name or number.
        """
        memory = self.memory
        at: Any = self._names.index(which) if isinstance(which, str) and which in self._names else which
        if isinstance(at, bool) or not isinstance(at, str | int | np.integer):
            raise TypeError(sentence("AssociativeStore", "which", "one name or number", repr(which)))
        if isinstance(at, str) or not -len(self) <= at < len(self):
            have = f"one of {', '.join(self._names[:5])}{', ...' if len(self) > 5 else ''}" if len(self) else "stored"
            raise ValueError(sentence("AssociativeStore", "which", have, repr(which)))
        at %= len(self)
        gone = self._patterns[at : at + 1]
        left = torch.cat([self._patterns[:at], self._patterns[at + 1 :]])
        if isinstance(memory, ErasableMemory):
            self._state = memory.erase(self._state, gone, gone if isinstance(memory, PairMemory) else None)
        else:  # written again without it
            self._state = self._written(memory, memory.empty(), left) if len(left) else memory.empty()
        self._patterns, self._suited = left, None
        self._names.pop(at)
        return self

    def fullness(self) -> Fullness:
        """How many patterns it holds, how many theory says it can hold, and how many it keeps."""
        memory = self.memory
        capacity, kept = memory.capacity(), float("nan")
        if len(self):
            pieces = [memory.read(self._state, p).value for p in self._patterns.split(PIECE)]
            value = torch.cat(pieces).to(self._patterns.dtype)
            own = self._overlap(value, self._patterns)
            _, best = self._nearest(value)
            kept = float(((own >= KEPT) & (own >= best - 1e-12)).double().mean())
        return Fullness(len(self), capacity, len(self) / capacity, kept)

    # --- on the disk ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one safetensors file.

        Raises:
            ValueError: nothing was written yet.
            OSError: the place cannot be written.
        """
        memory, form = self.memory, self._form
        assert form is not None
        tensors = {f"state{i}": leaf for i, leaf in enumerate(tree.leaves(self._state))}
        record = {
            "memory": type(memory).__name__,
            "threshold": self.threshold,
            "seed": self.seed,
            "form": dataclasses.asdict(form),
            "names": self._names,
        }
        for name, value in self.options.items():
            try:
                packed({name: plain_option(value)}, {})
            except TypeError:
                want = "plain values or rules of the house, to be saved"
                raise ValueError(sentence("AssociativeStore", f"options[{name!r}]", want, repr(value))) from None
        record["options"] = {name: plain_option(value) for name, value in self.options.items()}
        write_atomically(path, packed(record, {**tensors, "patterns": self._patterns}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AssociativeStore:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none of these files, or damaged.
        """
        where = Path(path)
        if not where.is_file():
            got = f"{where}, {'a folder' if where.is_dir() else 'not there'}"
            raise FileNotFoundError(sentence("AssociativeStore", "path", "a file that save wrote", got))
        try:
            record, tensors = unpacked(where)
            options = {name: option_of(value) for name, value in record["options"].items()}
            store = cls(record["memory"], threshold=record["threshold"], seed=record["seed"], options=options)
            form = record["form"]
            store._form = _Form(form["kind"], tuple(map(int, form["shape"])), str(np.dtype(form["dtype"])))
            store._patterns, store._names = tensors["patterns"], list(map(str, record["names"]))
            size = int(np.prod(store._form.shape))
            fits = form["kind"] in get_args(Kind) and store._patterns.shape == (len(store._names), size)
            if not fits:
                raise ValueError("sizes do not fit")
            store._memory = store._made(size)
            like = store._memory.empty()
            store._state = tree.unflatten(like, [tensors[f"state{i}"] for i in range(len(tree.leaves(like)))])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                sentence("AssociativeStore", "path", "a file that save wrote", f"{where} ({str(error).rstrip('.')})")
            ) from None
        return store

    # --- what patterns are ---

    def _read(self, name: str, given: Any, unknown: bool = False) -> np.ndarray[Any, Any]:
        """As an array of booleans or numbers, finite but for what is unknown."""
        if isinstance(given, Tensor):
            given = given.detach().cpu().to_dense()
            given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
        try:
            array = np.asarray(given)
        except ValueError:
            raise ValueError(
                sentence("AssociativeStore", name, "an array of equal rows", "rows of many sizes")
            ) from None
        if array.dtype.kind not in "biuf":
            raise TypeError(sentence("AssociativeStore", name, "booleans or numbers", str(array.dtype)))
        if array.ndim < (1 if unknown else 2) or not array.size:
            raise ValueError(sentence("AssociativeStore", name, "(M, ...), with at least one pattern", array.shape))
        if array.dtype.kind == "f" and (np.isinf(array).any() or (not unknown and np.isnan(array).any())):
            raise ValueError(sentence("AssociativeStore", name, "finite numbers", "NaN or infinity"))
        if self.threshold is not None and array.dtype.kind != "b":
            bits = np.where(array > self.threshold, 1.0, 0.0)
            array = np.where(np.isnan(array), np.nan, bits) if array.dtype.kind == "f" else bits
        return array

    def _form_of(self, array: np.ndarray[Any, Any]) -> _Form:
        kind: Kind = "real"
        if array.dtype.kind == "b":
            kind = "boolean"
        elif np.isin(array, (0, 1)).all():
            kind = "binary"
        elif np.isin(array, (-1, 1)).all():
            kind = "bipolar"
        return _Form(kind, array.shape[1:], str(array.dtype))

    def _same_kind(self, name: str, array: np.ndarray[Any, Any], form: _Form) -> _Form:
        """The form of what is stored, if this can be meant by it: ones alone are binary and bipolar."""
        assert self._form is not None
        letters: dict[Kind, tuple[int, ...]] = {"boolean": (0, 1), "binary": (0, 1), "bipolar": (-1, 1)}
        if self._form.kind == "real" or np.isin(array, letters[self._form.kind]).all():
            return self._form
        want = {"boolean": "booleans", "binary": "of 0 and 1", "bipolar": "of -1 and 1"}[self._form.kind]
        got = f"{form.kind} numbers from {array.min():g} to {array.max():g}"
        hint = "A store with a threshold takes any numbers." if form.kind == "real" else ""
        raise ValueError(sentence("AssociativeStore", name, f"{want}, as what is stored", got, hint))

    def _sample(self, dtype: np.dtype[Any]) -> Any:
        """A number that stands for what is unknown until it is filled."""
        assert self._form is not None
        return np.asarray(1 if self._form.kind == "bipolar" else 0, dtype=dtype)

    def _coded(self, array: np.ndarray[Any, Any], form: _Form, memory: AssociativeMemory[Any]) -> Tensor:
        """(M, K) in the memory's alphabet."""
        wide = np.float64 if form.kind == "real" else np.float32
        flat = torch.from_numpy(np.ascontiguousarray(array.reshape(len(array), -1).astype(wide)))
        if form.kind == "real":
            if memory.alphabet != "real":
                want = f"of two values for {type(memory).__name__} (0 and 1, -1 and 1, or booleans)"
                got = f"numbers from {array.min():g} to {array.max():g}"
                real = sorted(name for name, kind in _memories() if kind.alphabet == "real")
                hint = f"Give a threshold, or take a memory of real vectors ({', '.join(real)})."
                raise ValueError(sentence("AssociativeStore", "patterns", want, got, hint))
            return flat
        signs = flat if form.kind == "bipolar" else 2 * flat - 1
        return (signs + 1) / 2 if memory.alphabet == "binary" else signs

    def _completed(self, coded: Tensor, known: Tensor, memory: AssociativeMemory[Any]) -> Tensor:
        """Fill what is unknown: nothing where the alphabet has a word for it, else the mean, or a coin's toss."""
        if bool(known.all()):
            return coded
        if memory.alphabet == "real" and memory.takes_unknown:
            filling = torch.full_like(coded, torch.nan)
        elif memory.alphabet in ("binary", "ternary") or memory.takes_unknown:
            filling = torch.zeros_like(coded)
        elif memory.alphabet == "real":
            filling = self._patterns.mean(0).expand_as(coded)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            filling = 2.0 * torch.randint(0, 2, coded.shape, generator=generator) - 1
        return torch.where(known, coded, filling.to(coded.dtype))

    def _decoded(self, value: Tensor) -> np.ndarray[Any, Any]:
        assert self._form is not None
        shape, kind, dtype = (len(value), *self._form.shape), self._form.kind, np.dtype(self._form.dtype)
        if kind == "real":
            return value.numpy().reshape(shape).astype(dtype if dtype.kind == "f" else np.float64)
        up = value > (0.5 if self.memory.alphabet == "binary" else 0.0)
        if kind == "boolean":
            return up.numpy().reshape(shape)
        signs = torch.where(up, 1, 0 if kind == "binary" else -1)
        return signs.numpy().reshape(shape).astype(dtype)

    # --- how near ---

    def _written(self, memory: AssociativeMemory[Any], state: Any, coded: Tensor) -> Any:
        return memory.write(state, coded, coded if isinstance(memory, PairMemory) else None)

    def _nearest(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The stored pattern nearest to each recall, and how near; real vectors by their distance."""
        alphabet, real = self.memory.alphabet, self._form is not None and self._form.kind == "real"
        places, nearness = [], []
        for v in value.to(self._patterns.dtype).split(PIECE):
            near = torch.cdist(v, self._patterns, compute_mode=EXACT).argmin(1) if real else None
            if near is None:
                near = _overlaps(v, self._patterns, alphabet).argmax(1)
            places.append(near)
            nearness.append(self._overlap(v, self._patterns[near]))
        return torch.cat(places), torch.cat(nearness)

    def _overlap(self, value: Tensor, patterns: Tensor) -> Tensor:
        """(B,) how near they are, one to one."""
        real = self._form is not None and self._form.kind == "real"
        middle = self._patterns.mean(0) if real and len(self) > 1 else 0.0
        return _overlaps(value - middle, patterns - middle, self.memory.alphabet, paired=True)

    def _posterior(self, coded: Tensor, known: Tensor) -> Tensor:
        """(B, M) probability that a cue is a noisy version of each pattern, by the known part.

        Letters are wrong independently, with the frequency that the nearest pattern shows; real numbers have normal errors
        of the variance that it shows.
        """
        found = []
        middle = self._patterns.mean(0)  # or large numbers with small differences would cancel
        stored = self._patterns - middle
        floor = 1e-6 * float(stored.square().mean()) or 1e-300
        for cue, mask in zip(coded.split(PIECE), known.split(PIECE)):
            weight, cue = mask.to(cue.dtype), torch.where(mask, cue - middle, 0.0)
            square = cue.square().sum(1, keepdim=True) - 2 * cue @ stored.T
            distance = (square + weight @ stored.square().T).clamp(min=0)
            count = weight.sum(1, keepdim=True).clamp(min=1)
            least = distance.min(1, keepdim=True).values
            if self._form is not None and self._form.kind == "real":
                found.append(torch.softmax(-0.5 * distance / (least / count + floor), 1))
                continue
            unit = 1.0 if self.memory.alphabet == "binary" else 4.0
            wrong = (least / unit + 0.5) / (count + 1)
            odds = torch.log((1 - wrong).clamp(min=1e-6) / wrong).clamp(min=0)
            found.append(torch.softmax(-distance / unit * odds, 1))
        return torch.cat(found)


def _overlaps(value: Tensor, patterns: Tensor, alphabet: str, paired: bool = False) -> Tensor:
    """(B, M) overlaps, or (B,) of pairs: agreement of letters, 2 a.b / (a.a + b.b) of real numbers."""
    if alphabet == "binary":
        value, patterns = 2 * value - 1, 2 * patterns - 1
    if alphabet == "real":
        own, other = value.square().sum(1), patterns.square().sum(1)
        if paired:
            return _ratio(2 * (value * patterns).sum(1), own + other)
        return _ratio(2 * value @ patterns.T, own[:, None] + other)
    return (value * patterns).mean(1) if paired else value @ patterns.T / value.shape[1]


def _ratio(upper: Tensor, lower: Tensor) -> Tensor:
    """Nothing and nothing are equal."""
    return torch.where(lower > 0, upper / torch.where(lower > 0, lower, 1.0), 1.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _option(kind: type[AssociativeMemory[Any]], name: str, value: Any) -> Any:
    """A rule of couplings may be called by its name, a number may be NumPy's."""
    if not isinstance(value, str):
        return value.item() if isinstance(value, np.generic) else value
    field = next(each for each in dataclasses.fields(kind) if each.name == name)  # type: ignore[arg-type]
    default = field.default_factory() if callable(field.default_factory) else field.default
    return coupling_rule(value) if isinstance(default, CouplingRule) else value


def _memories() -> list[tuple[str, type[AssociativeMemory[Any]]]]:
    return [(name, kind) for name, kind in members("memories").items() if issubclass(kind, AssociativeMemory)]


def _list(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def stores() -> Iterator[tuple[str, type[AssociativeMemory[Any]], dict[str, Any]]]:
    """Memories that bring back what their cue is a part of: a label, the class, and options of a store.

    Each memory with its defaults, and with what its examples have in place of them, such as another rule.
    """
    for name, kind in _memories():
        try:
            memory = kind.sized(16, 16)
        except (ValueError, TypeError):
            continue
        if memory.key_size == memory.value_size == 16:
            yield name, kind, {}
            for example in kind.examples():
                other = {k: v for k, v in _options(example).items() if v != _options(memory).get(k)}
                if other and len(other) == 1 and next(iter(other)) in CHOICES:
                    choice = next(iter(other.values()))
                    yield f"{name}, {choice if isinstance(choice, str) else type(choice).__name__}", kind, other


def _options(memory: AssociativeMemory[Any]) -> dict[str, Any]:
    """Fields but the first, which is the size."""
    names: list[str] = [field.name for field in dataclasses.fields(memory)] if dataclasses.is_dataclass(memory) else []
    return {name: getattr(memory, name) for name in names[1:]}
