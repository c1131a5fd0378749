"""Loops over arrays, written in plain Python and run as machine code.

What a step of a cell cannot express (single elements that are read and written in an order, branches on data, random numbers
of one's own) is written as a Python function over arrays, in a small typed part of the language. The function itself, run
by Python, is the readable reference: ``f.python(...)``.

    >>> import numpy as np
    >>> @compiled
    ... def running_sum(xs: f64_1d, out: f64_1d) -> None:
    ...     total = 0.0
    ...     for i in range(len(xs)):
    ...         total += xs[i]
    ...         out[i] = total
    >>> out = np.zeros(3)
    >>> running_sum(np.array([1.0, 2.0, 3.0]), out)
    >>> out.tolist()
    [1.0, 3.0, 6.0]

The language:

- arguments: arrays of 1 to 3 dimensions, `i8_1d` to `f64_3d`, of ``bool, i8, u8, i32, i64, u64, f32, f64``, contiguous and
  sharing no memory, and scalars ``int``, ``float``, ``np.uint64``, ``np.float32``. A function that returns a scalar may be
  called by other compiled functions.
- values: small integers are read as ``i64``; ``u64`` wraps around as in C and mixes with integer literals; ``f32`` mixed with
  literals stays ``f32``. A variable keeps the type of its first value.
- statements: assignment, ``for i in range``, ``while``, ``if``, ``break``, ``continue``, ``return``, ``pass``.
- calls: ``len, min, max, abs, int, float``, `u64`, `f32`, ``math.exp, log, sqrt, tanh, floor``, `local` (an array of its own),
  `thread` and `num_threads`, `popcount`.
- names from outside are constants: whole numbers and floats.

Indices are not checked in machine code, and negative ones do not count from the end; the reference finds what is out of range.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import math
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints, overload

import numpy as np
import torch

from ..core.checks import sentence
from . import build

_KINDS: dict[str, tuple[str, str, type]] = {
    "bool": ("i8", "i64", np.bool_),
    "i8": ("i8", "i64", np.int8),
    "u8": ("i8", "i64", np.uint8),
    "i32": ("i32", "i64", np.int32),
    "i64": ("i64", "i64", np.int64),
    "u64": ("i64", "u64", np.uint64),
    "f32": ("float", "f32", np.float32),
    "f64": ("double", "f64", np.float64),
}
"""Element -> how it is stored, the type it is read as, its NumPy type."""


bool_1d = Annotated[Any, "bool[:]"]
bool_2d = Annotated[Any, "bool[:,:]"]
bool_3d = Annotated[Any, "bool[:,:,:]"]
i8_1d = Annotated[Any, "i8[:]"]
i8_2d = Annotated[Any, "i8[:,:]"]
i8_3d = Annotated[Any, "i8[:,:,:]"]
u8_1d = Annotated[Any, "u8[:]"]
u8_2d = Annotated[Any, "u8[:,:]"]
u8_3d = Annotated[Any, "u8[:,:,:]"]
i32_1d = Annotated[Any, "i32[:]"]
i32_2d = Annotated[Any, "i32[:,:]"]
i32_3d = Annotated[Any, "i32[:,:,:]"]
i64_1d = Annotated[Any, "i64[:]"]
i64_2d = Annotated[Any, "i64[:,:]"]
i64_3d = Annotated[Any, "i64[:,:,:]"]
u64_1d = Annotated[Any, "u64[:]"]
u64_2d = Annotated[Any, "u64[:,:]"]
u64_3d = Annotated[Any, "u64[:,:,:]"]
f32_1d = Annotated[Any, "f32[:]"]
f32_2d = Annotated[Any, "f32[:,:]"]
f32_3d = Annotated[Any, "f32[:,:,:]"]
f64_1d = Annotated[Any, "f64[:]"]
f64_2d = Annotated[Any, "f64[:,:]"]
f64_3d = Annotated[Any, "f64[:,:,:]"]
_SCALARS = {int: "i64", float: "f64", np.uint64: "u64", np.float32: "f32", type(None): None}
_ARRAYS = {f"{kind}[{','.join(':' * rank)}]" for kind in _KINDS for rank in (1, 2, 3)}
_IN_PYTHON = threading.local()


def u64(value: int) -> np.uint64:
    """A number without sign, modulo 2^64."""
    return np.uint64(int(value) & 0xFFFF_FFFF_FFFF_FFFF)


def f32(value: float) -> np.float32:
    """A number of single precision."""
    return np.float32(value)


def local(kind: str, size: int) -> Any:
    """A zeroed array of constant size that lives as long as the call."""
    return np.zeros(size, _KINDS[kind][2])


def thread() -> int:
    """Number of the thread that runs."""
    return 0


def num_threads() -> int:
    """Threads that run the same call."""
    return 1


def popcount(word: int) -> int:
    """Bits that are one."""
    return (int(word) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()


class Compiled:
    """A function of the small language; calling it runs machine code.

    Args:
        function: with an annotation for every argument.
        reassociate: sums of floats may be reordered, so that they fill vector registers; results then differ from the
            reference by rounding.
    """

    def __init__(self, function: Callable[..., Any], reassociate: bool = False) -> None:
        functools.update_wrapper(self, function)
        self.function, self.reassociate, self.name = function, reassociate, function.__name__
        hints = get_type_hints(function, include_extras=True)
        self.returns = _kind(function.__name__, "return", hints.pop("return", None))
        self.kinds = {
            name: str(_kind(function.__name__, name, hints.get(name)))
            for name in inspect.signature(function).parameters
        }
        self._code: build.Code | None = None

    @property
    def text(self) -> str:
        """The program in LLVM's language."""
        from .loop_writer import module_of

        return module_of(self)

    def python(self, *arguments: Any) -> Any:
        """Run the function itself, in Python: slow, and the reference. Arrays are changed in place."""
        views = [
            _View(_array(self.name, name, value, kind)) if "[" in kind else _scalar(kind, value)
            for (name, kind), value in zip(self.kinds.items(), arguments, strict=True)
        ]
        before = getattr(_IN_PYTHON, "now", False)
        _IN_PYTHON.now = True
        try:
            with np.errstate(over="ignore"):
                return self.function(*views)
        finally:
            _IN_PYTHON.now = before

    def __call__(self, *arguments: Any, threads: int = 1) -> Any:
        """Run as machine code; as Python, with one warning, where there is no compiler.

        Args:
            arguments: NumPy arrays or CPU tensors, and numbers.
            threads: how many run the same call; each asks `thread` for its share.

        Raises:
            TypeError: an array is of another type, or not contiguous; a number of arguments is wrong.
            ValueError: an array has another number of dimensions.
        """
        if getattr(_IN_PYTHON, "now", False):
            return self.function(*arguments)
        where = self.name
        if self.returns is not None:
            raise TypeError(f"{where}: a function that returns a value can only be called by compiled functions.")
        if len(arguments) != len(self.kinds):
            raise TypeError(
                sentence(where, "arguments", f"{len(self.kinds)} ({', '.join(self.kinds)})", len(arguments))
            )
        words: list[int] = []
        kept = []
        for (name, kind), value in zip(self.kinds.items(), arguments):
            if "[" in kind:
                array = _array(where, name, value, kind)
                kept.append(array)
                words += [array.ctypes.data, *array.shape]
            else:
                words.append(_bits(kind, value))
        code = self._code or self._build()
        if code is None:
            return self.python(*arguments)
        data = (ctypes.c_int64 * len(words))(*[_signed(word) for word in words])
        build.run(code, "main", data, min(threads, build.most_threads()))
        return None

    def _build(self) -> build.Code | None:
        try:
            import llvmlite  # noqa: F401
        except ImportError:
            _warn_once()
            return None
        self._code = build.build(self.text, ("main",))
        return self._code


@overload
def compiled(function: Callable[..., Any]) -> Compiled: ...
@overload
def compiled(*, reassociate: bool = False) -> Callable[[Callable[..., Any]], Compiled]: ...
def compiled(function: Callable[..., Any] | None = None, *, reassociate: bool = False) -> Any:
    """Make a function of the small language (see the module) a `Compiled` one.

    Args:
        function: with an annotation for every argument.
        reassociate: let sums of floats be reordered.
    """
    if function is None:
        return lambda f: Compiled(f, reassociate)
    return Compiled(function, reassociate)


@functools.lru_cache(maxsize=1)
def _warn_once() -> None:
    text = "Compiled loops: llvmlite is not installed, so they run in Python, a hundred times slower."
    warnings.warn(f"{text} `pip install llvmlite` brings it.", RuntimeWarning, stacklevel=4)


def _kind(where: str, name: str, hint: Any) -> str | None:
    """What an annotation says."""
    if hint is None and name == "return":
        return None
    if hint in _SCALARS and (hint is not type(None) or name == "return"):
        return _SCALARS[hint]
    found = get_args(hint)
    if len(found) != 2 or found[1] not in _ARRAYS:
        raise TypeError(sentence(where, name, "annotated like f64_2d or int", repr(hint)))
    return str(found[1])


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _bits(kind: str, value: Any) -> int:
    """The eight bytes of a scalar, as a number."""
    if kind in ("f64", "f32"):
        return int(np.float64(value).view(np.int64))
    return int(value)


def _scalar(kind: str, value: Any) -> Any:
    made: dict[str, Callable[[Any], Any]] = {"f64": float, "f32": np.float32, "u64": u64}
    return made.get(kind, int)(value)


def _array(where: str, name: str, value: Any, kind: str) -> np.ndarray[Any, Any]:
    """The memory of an array or tensor, checked."""
    element, _, rest = kind.partition("[")
    rank = rest.count(":")
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise TypeError(sentence(where, name, "on the CPU", f"a tensor on {value.device}"))
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(sentence(where, name, "an array or a tensor", type(value).__name__))
    wanted = np.dtype(_KINDS[element][2])
    if value.dtype == np.int64 and element == "u64":
        value = value.view(np.uint64)
    if value.dtype != wanted:
        raise TypeError(sentence(where, name, f"of {wanted}", str(value.dtype)))
    if value.ndim != rank:
        raise ValueError(sentence(where, name, f"of {rank} dimensions", value.ndim))
    if not value.flags.c_contiguous:
        raise TypeError(sentence(where, name, "contiguous", f"strides {value.strides}"))
    return value


class _View:
    """An array for the reference: what is read has the types of the language."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.shape = array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        value = self.array[index]
        if isinstance(value, np.bool_ | np.integer) and not isinstance(value, np.uint64):
            return int(value)
        return float(value) if isinstance(value, np.float64) else value

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.array.dtype.kind in "iu" and self.array.dtype != np.uint64:
            bits = 8 * self.array.dtype.itemsize
            value = int(value) & (2**bits - 1)
            value = value - 2**bits if self.array.dtype.kind == "i" and value >= 2 ** (bits - 1) else value
        self.array[index] = value


def source_of(function: Callable[..., Any]) -> str:
    """The text of a function, as if it stood by itself."""
    return textwrap.dedent(inspect.getsource(function))


MATHEMATICS = {math.exp: "exp", math.log: "log", math.sqrt: "sqrt", math.tanh: "tanh", math.floor: "floor"}
