"""The file of a store: tensors and a record in one safetensors file, with a checksum over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..memories.couplings import CouplingRule, coupling_rule, rule_record

FORMAT_VERSION = 2


def packed(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a file.

    Raises:
        TypeError: the record holds more than plain values.
    """
    from safetensors.torch import save

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT_VERSION, **record})
    return save(whole, {"recurra": text, "sha256": _digest(text, whole)})


def unpacked(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `packed` put into a file.

    Raises:
        ValueError: it is none of these files, of another version, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if "recurra" not in told:
        raise ValueError("it holds no record of a store")
    record = json.loads(told["recurra"])
    if not isinstance(record, dict):
        raise ValueError("its record is no dictionary")
    if record.get("format") != FORMAT_VERSION:
        raise ValueError(f"its format is {record.get('format')}, this is {FORMAT_VERSION}")
    if told.get("sha256") != _digest(told["recurra"], tensors):
        raise ValueError("its checksum is not that of its content")
    return record, tensors


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()


def plain_option(value: Any) -> Any:
    """As JSON has it; rules of couplings by name and fields."""
    return rule_record(value) if isinstance(value, CouplingRule) else value


def option_of(value: Any) -> Any:
    """What `plain_option` was given."""
    if isinstance(value, dict):
        return coupling_rule(**value)
    return tuple(value) if isinstance(value, list) else value
