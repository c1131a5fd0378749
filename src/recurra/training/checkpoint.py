"""The whole state of a training run in one file, without pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import write_atomically

FORMAT_VERSION = 1
FOLDER = "checkpoints"
KEPT = 2  # the newest ones; the older is for the case that the newer is damaged on the disk

Tensors = dict[str, Tensor]


class DamagedCheckpoint(ValueError):
    """A file that is no whole checkpoint of this library."""


# --- values as JSON and tensors --------------------------------------------------------------------------------------


def pack(value: Any, tensors: Tensors, prefix: str) -> Any:
    """A value as JSON; its tensors go into ``tensors`` under names that begin with ``prefix``.

    Args:
        value: None, numbers, texts, tensors, and tuples, NamedTuples, lists and dicts (with text keys) of them.
        tensors: filled.
        prefix: of the names.

    Raises:
        TypeError: anything else in it.

    Example:
        >>> tensors = {}
        >>> pack((1, torch.zeros(2)), tensors, "carry")
        {'tuple': [{'value': 1}, {'tensor': 'carry.1', 'home': True}]}
        >>> unpack(_, tensors)
        (1, tensor([0., 0.]))
    """
    if isinstance(value, Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"tensor": prefix, "home": value.device.type == "cpu"}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, tuple | list):
        inside = [pack(v, tensors, f"{prefix}.{i}") for i, v in enumerate(value)]
        if hasattr(value, "_fields"):
            return {"named": class_name(type(value)), "fields": inside}
        return {"list" if isinstance(value, list) else "tuple": inside}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: pack(v, tensors, f"{prefix}.{k}") for k, v in value.items()}}
    raise TypeError(f"checkpoint: {prefix} must be made of tensors, numbers and tuples, got {type(value).__name__}.")


def unpack(
    packed: Any, tensors: Tensors, classes: Mapping[str, type] | None = None, device: torch.device | None = None
) -> Any:
    """The inverse of `pack`.

    Args:
        packed: what `pack` returned.
        tensors: with the values.
        classes: the NamedTuples that may occur, by `class_name`; nothing is ever imported because a file says so.
        device: where tensors go that were not on the CPU.

    Raises:
        DamagedCheckpoint: another form, a tensor or a class that is not there.
    """
    match packed:
        case {"value": value}:
            return value
        case {"tensor": name, "home": home}:
            if name not in tensors:
                raise DamagedCheckpoint(f"it has no tensor {name}")
            return tensors[name].clone() if home or device is None else tensors[name].to(device)
        case {"named": name, "fields": inside}:
            if name not in (classes or {}):
                raise DamagedCheckpoint(f"it has a {name}, which this run does not have")
            assert classes is not None
            return classes[name](*(unpack(v, tensors, classes, device) for v in inside))
        case {"tuple": inside}:
            return tuple(unpack(v, tensors, classes, device) for v in inside)
        case {"list": inside}:
            return [unpack(v, tensors, classes, device) for v in inside]
        case {"dict": inside}:
            return {k: unpack(v, tensors, classes, device) for k, v in inside.items()}
    raise DamagedCheckpoint(f"it has a value of another form: {str(packed)[:60]}")


def class_name(kind: type) -> str:
    """A class's module and name."""
    return f"{kind.__module__}:{kind.__qualname__}"


def classes_in(value: Any) -> dict[str, type]:
    """The NamedTuples inside a value, by `class_name`."""
    found: dict[str, type] = {}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        found[class_name(type(value))] = type(value)
    if isinstance(value, tuple | list | dict):
        for child in value.values() if isinstance(value, dict) else value:
            found |= classes_in(child)
    return found


# --- files -----------------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, num_done: int, state: dict[str, Any], tensors: Tensors, *, rank: int = 0) -> Path:
    """Write ``checkpoints/UPDATE.safetensors`` atomically, then remove all but the newest ones.

    Args:
        folder: of the run.
        num_done: updates made.
        state: JSON.
        tensors: the rest.
        rank: the process; others than the first write a part beside the checkpoint.

    Raises:
        OSError: the place cannot be written; the checkpoints that are there stay.
    """
    from safetensors.torch import save

    text = json.dumps(state)
    meta = {"format_version": str(FORMAT_VERSION), "state": text, "sha256": _digest(text, tensors)}
    path = part_of(folder / FOLDER / f"{num_done:09d}.safetensors", rank)
    write_atomically(path, save(tensors, metadata=meta))
    if rank == 0:
        for old in checkpoints(folder)[KEPT:]:
            old.unlink(missing_ok=True)
            for part in old.parent.glob(f"{old.stem}.rank*"):
                part.unlink(missing_ok=True)
    return path


def part_of(path: Path, rank: int) -> Path:
    """Where a process puts its part of a checkpoint."""
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    inside = folder / FOLDER
    names = [p.name for p in inside.iterdir() if p.suffix == ".safetensors"] if inside.is_dir() else []
    return [inside / name for name in sorted(names, reverse=True) if name.removesuffix(".safetensors").isdigit()]


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Read what `write_checkpoint` wrote.

    Raises:
        DamagedCheckpoint: damaged, foreign, or written by a newer version; says what is wrong with it.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = path.read_bytes()
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        meta = json.loads(data[8 : 8 + size])["__metadata__"]
        version, text, digest = meta["format_version"], meta["state"], meta["sha256"]
        state = json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"it is no checkpoint ({error})") from None
    if not str(version).isdigit() or int(version) > FORMAT_VERSION:
        raise DamagedCheckpoint(f"its format_version is {version}, and this recurra reads up to {FORMAT_VERSION}")
    if _digest(text, tensors) != digest:
        raise DamagedCheckpoint("its checksum is not the one of its content")
    return state, tensors


def remove_checkpoints(folder: str | os.PathLike[str]) -> None:
    """Remove the checkpoints of a run that is over, and their folder if nothing else is in it."""
    inside = Path(folder) / FOLDER
    for path in checkpoints(Path(folder)):
        path.unlink(missing_ok=True)
    for part in Path(folder).glob(".*.part"):
        part.unlink(missing_ok=True)
    if inside.is_dir():
        for part in (*inside.glob("*.rank*"), *inside.glob(".*.part")):  # a .part is of a process that was killed
            part.unlink(missing_ok=True)
        if not any(inside.iterdir()):
            inside.rmdir()


def _digest(text: str, tensors: Tensors) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        t = tensors[name]
        sha.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        sha.update(_bytes_of(t))
    return sha.hexdigest()


def _bytes_of(t: Tensor) -> Any:
    flat = t.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""


def with_prefix(prefix: str, named: Iterable[tuple[str, Tensor]]) -> Tensors:
    """Copies on the CPU under ``prefix.name``."""
    return {f"{prefix}.{name}": t.detach().to("cpu", copy=True).contiguous() for name, t in named}


def below_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under ``prefix.name``, by name."""
    start = prefix + "."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
