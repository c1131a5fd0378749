"""Tokens on the disk: texts larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.checks import sentence


def smallest_dtype(num_tokens: int) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and int32 that holds the tokens 0 to ``num_tokens`` - 1.

    Example:
        >>> smallest_dtype(256), smallest_dtype(257)
        (dtype('uint8'), dtype('uint16'))
    """
    return np.dtype(np.uint8 if num_tokens <= 256 else np.uint16 if num_tokens <= 65536 else np.int32)


@dataclass(frozen=True)
class TokenFile:
    """A ``.npy`` file of tokens, mapped into memory: only what is read is loaded. `TokenStream` takes it as its tokens.

    Args:
        path: written by `write`, or by ``numpy.save``: one dimension of uint8, uint16, int32 or int64.
    Raises:
        FileNotFoundError: no such file.
        ValueError: another file.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = TokenFile.write(Path(folder, "a.npy"), [np.arange(3), np.arange(2)], smallest_dtype(3))
        ...     len(file), file[1:4].tolist()
        (5, [1, 2, 0])
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                sentence("TokenFile", str(self.path), "a .npy file of tokens", f"another ({error})")
            ) from None
        if array.ndim != 1 or array.dtype not in (np.uint8, np.uint16, np.int32, np.int64):
            got = f"{array.dtype} {array.shape}"
            raise ValueError(sentence("TokenFile", str(self.path), "(N,) of uint8, uint16, int32 or int64", got))
        object.__setattr__(self, "array", array)

    @classmethod
    def write(
        cls, path: str | os.PathLike[str], blocks: Iterable[np.ndarray[Any, Any]], dtype: np.dtype[Any]
    ) -> TokenFile:
        """Write tokens block by block, beside the place and then into it.

        Args:
            path: where to, with the ending ``.npy``; missing folders are made.
            blocks: of tokens.
            dtype: how to keep them, see `smallest_dtype`.

        Raises:
            OSError: the place cannot be written; nothing is left behind.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(beside, "wb") as file:
                num = 0
                _write_header(file, num, dtype)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype=dtype).data)
                    num += len(block)
                file.seek(0)
                _write_header(file, num, dtype)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        return cls(path)

    @property
    def shape(self) -> tuple[int]:
        """(N,)."""
        return (len(self),)

    @property
    def ndim(self) -> int:
        """One."""
        return 1

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.array)  # type: ignore[attr-defined]

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Tokens as int64: a slice, or those at the places of a tensor of any shape."""
        places = index.cpu().numpy() if isinstance(index, Tensor) else index
        return torch.from_numpy(self.array[places].astype(np.int64))  # type: ignore[attr-defined]


def _write_header(file: Any, num: int, dtype: np.dtype[Any]) -> None:
    """The header of a ``.npy`` file, 128 bytes long whatever the number."""
    text = f"{{'descr': '{np.lib.format.dtype_to_descr(dtype)}', 'fortran_order': False, 'shape': ({num},), }}"
    file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n")
