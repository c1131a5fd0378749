"""A plan in words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .graph import ELEMENTWISE, FLOAT, Node
from .lower import Evaluator, Loop, Product, Program, Reduce, Slot, whole
from .plan import Plan
from .trace import Import

_FREE = {"stop", "copy", "cast"}


@dataclass(frozen=True)
class Cost:
    """Of one step of one row.

    Args:
        products: multiplications and additions of products with weights, counted as two flops each.
        elementwise: flops of everything else; a function such as tanh counts once.
        stored: bytes written that outlive the step.
    """

    products: int
    elementwise: int
    stored: int


def explain(plan: Plan, rows: int = 32) -> list[tuple[str, str]]:
    """What the compiler does with a step: (word, sentence) pairs.

    Args:
        plan: with a backward part.
        rows: B, for the predicted time.
    """
    traced = plan.traced
    lines: list[tuple[str, str]] = []
    hoisted, flops = [], 0
    for one in traced.imports:
        if one.per_step and one.node.op == "call_function":
            name = str(getattr(one.node.target, "__name__", one.node.target)).split(".")[0]
            hoisted.append(f"{name} {_shape(one.shape)}")
            flops += _product_flops(one)
    inside = "nothing: the products of the input are computed in the loop, their weights fit into the cache"
    lines.append(
        ("hoisted", ", ".join(hoisted) + f"; {flops:,} flops" if hoisted else inside if plan.fold else "nothing")
    )
    for word, program in (("forward", plan.forward_program), ("backward", plan.backward_program)):
        lines += [(word, sentence) for sentence in _stages(program, plan.state_slots(program))]
    kept = [f"{kind} {index}" for kind, index in plan.forward_buffers if kind in ("saved", "states")]
    forward, backward = cost(plan, plan.forward_program), cost(plan, plan.backward_program)
    over = "; gradients are written over what is saved" if plan.overwrites else ""
    lines.append(("stored", f"{forward.stored:,} bytes a step and row for the backward part ({', '.join(kept)}){over}"))
    weights = sum(node.size for node in plan.forward_program.weights) * plan.bits // 8
    sharing = "; for a single row the threads share every step" if "forward_shared" in plan.code.functions else ""
    lines.append(("weights", f"{weights:,} bytes, packed once for all steps{sharing}"))
    gradients = [f"{w.shape[0]} x {w.shape[1]}" for _, w, _ in plan.weight_gradients]
    lines.append(("after", "gradients of weights, one product each: " + (", ".join(gradients) or "none")))
    for word, found in (("forward", forward), ("backward", backward)):
        total = found.products + found.elementwise
        lines.append((word, f"{total:,} flops a step and row, {found.products:,} of them in products"))
    rate = product_rate(plan.dtype)
    both = (forward.products + backward.products) * rows
    lines.append(
        (
            "limit",
            f"{rate / 1e9:.0f} GF/s in torch's own products here: a step of {rows} rows, both ways, takes "
            f"{1e6 * both / rate:.1f} microseconds in its products at least",
        )
    )
    return lines


def cost(plan: Plan, program: Program) -> Cost:
    """Counted on the stages."""
    products = sum(2 * s.k * s.n for s in program.stages if isinstance(s, Product))
    count = 0
    for stage in program.stages:
        if isinstance(stage, Loop | Reduce):
            shape = stage.shape if isinstance(stage, Loop) else stage.value.shape
            size = 1
            for n in shape:
                size *= n
            count += size * (_operations(program, stage) + isinstance(stage, Reduce))
    width = plan.bits // 8
    written = {s.slot for s in program.stages if isinstance(s, Product | Reduce)}
    written |= {store.slot for s in program.stages if isinstance(s, Loop) for store in s.stores}
    stored = sum(s.size * (width if s.dtype == FLOAT else 8) for s in written if s.mode == "time")
    return Cost(products, count, stored)


def _operations(program: Program, stage: Loop | Reduce) -> int:
    """Elementary operations for one element of a loop."""
    seen: list[str] = []

    def apply(node: Node, _: list[None]) -> None:
        if node.op in ELEMENTWISE and node.op not in _FREE:
            seen.append(node.op)

    shape = stage.shape if isinstance(stage, Loop) else stage.value.shape
    evaluate = Evaluator(program.places, shape, lambda *_: None, apply)
    if isinstance(stage, Loop):
        for store in stage.stores:
            (evaluate.define if store.defines else evaluate)(store.value, store.index(stage.shape))
    else:
        evaluate(stage.value, whole(shape))
    return len(seen)


def _stages(program: Program, recurrent: set[Slot]) -> list[str]:
    found, before = [], set[Slot]()
    for stage in program.stages:
        if isinstance(stage, Product):
            onto = ""
            if stage.start is not None:
                fixed = " onto a bias" if stage.start.mode == "fixed" else " onto the hoisted term"
                onto = " onto the product before" if stage.start in before else fixed
            before.add(stage.slot)
            kind = "recurrent weight" if stage.source in recurrent else "weight"
            found.append(f"product with a {kind} {stage.k} x {stage.n}{onto}")
        elif isinstance(stage, Reduce):
            found.append(
                f"{stage.what} over {_shape(stage.value.shape)}, {_operations(program, stage)} operations in it"
            )
        elif isinstance(stage, Loop):
            many = f"{len(stage.stores)} result" + ("s" if len(stage.stores) > 1 else "")
            found.append(f"one loop over {_shape(stage.shape)}: {_operations(program, stage)} operations, {many}")
    return found


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) if shape else "1"


def _product_flops(one: Import) -> int:
    node: Any = one.node
    if not str(node.target).startswith(("aten.addmm", "aten.mm")):
        return 0
    a, b = node.args[-2:]
    return int(2 * a.meta["val"].shape[1] * b.meta["val"].shape[1])


def product_rate(dtype: torch.dtype, size: int = 512) -> float:
    """Flops per second of torch's own matrix product, the best of a few."""
    a = torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
