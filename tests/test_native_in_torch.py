"""The native engine inside torch: compilation, export, torch.func, autocast, DDP, second derivatives."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from recurra.cells import ElmanCell, GRUCell, IndRNNCell, LSTMCell
from recurra.core import Cell, Controls, tree
from recurra.engines import Hoisted, Loop, Native
from recurra.layers import Bidirectional, Recurrent
from recurra.native import operators
from recurra.wrappers import Stack


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    """No compiled code of other tests; a warning (a cell that runs on Hoisted after all) is an error."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    """A layer in a net."""

    def __init__(self, cell: Cell, width: int) -> None:
        super().__init__()
        self.layer = Recurrent(cell, engine=Native())
        self.readout = nn.Linear(width, 2)

    def forward(self, xs: Tensor, lengths: Tensor | None = None, reset: Tensor | None = None) -> Any:
        """Read out every step."""
        ys, state = self.layer(xs, lengths=lengths, reset=reset)
        return self.readout(ys), state


def loops_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the native functions that were called, as a list that grows."""
    from recurra.native import plan

    seen: list[str] = []
    call = plan.Plan.call

    def noted(self: Any, name: str, arrays: Any, *rest: Any) -> None:
        if type(arrays[0]) is Tensor:
            seen.append(name)
        call(self, name, arrays, *rest)

    monkeypatch.setattr(plan.Plan, "call", noted)
    return seen


def gradients(net: nn.Module, run: Any, *args: Any) -> list[Tensor]:
    """Outputs, state and gradients."""
    net.zero_grad()
    ys, state = run(*args)
    (ys.square().sum() + sum(leaf.sum() for leaf in tree.leaves(state))).backward()
    values = [ys, *tree.leaves(state)]
    return [*(v.detach() for v in values), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """All the same."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


CASES = {
    "lstm": lambda: (LSTMCell(3, 5), 5),
    "output is the state": lambda: (GRUCell(3, 4), 4),
    "learned start": lambda: (ElmanCell(3, 4).learn_initial_state(), 4),
    "stack": lambda: (Stack(LSTMCell(3, 4), GRUCell(4, 5)), 5),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("controlled", [False, True])
def test_compiles_without_a_graph_break(case: str, controlled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Net(*CASES[case]())
    xs = torch.randn(6, 3, 3)
    controls = (torch.tensor([6, 0, 4]), torch.rand(6, 3) < 0.3) if controlled else ()
    wanted = gradients(net, net, xs, *controls)
    seen = loops_run(monkeypatch)
    found = gradients(net, torch.compile(net, fullgraph=True, backend="aot_eager"), xs, *controls)
    assert {"forward", "backward"} <= set(seen)
    close(found, wanted)


def test_a_compiled_layer_takes_any_number_of_steps_and_rows() -> None:
    torch.manual_seed(0)
    net = Net(LSTMCell(3, 5), 5)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, fullgraph=True, backend=counter, dynamic=True)
    for steps, rows in ((5, 4), (9, 7), (17, 6), (6, 2)):
        xs = torch.randn(steps, rows, 3)
        close(gradients(net, compiled, xs), gradients(net, net, xs))
    assert counter.frame_count <= 2


def test_a_training_step_compiled() -> None:
    torch.manual_seed(0)
    xs, targets = torch.randn(6, 4, 3), torch.randn(6, 4, 2)
    losses = []
    for compiled in (False, True):
        torch.manual_seed(1)
        net = Net(LSTMCell(3, 5), 5)
        run = torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        found = []
        for _ in range(5):
            loss = (run(xs)[0] - targets).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        losses.append(torch.stack(found))
    close([losses[0]], [losses[1]])
    assert losses[0][-1] < losses[0][0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # within torch
def test_inductor_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    net = Net(LSTMCell(3, 5), 5)
    xs = torch.randn(6, 3, 3)
    close(gradients(net, torch.compile(net, fullgraph=True), xs), gradients(net, net, xs))


def test_without_gradients_the_compiled_layer_keeps_nothing() -> None:
    net = Net(GRUCell(3, 4), 4)
    xs = torch.randn(6, 3, 3)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close([compiled(xs)[0]], [net(xs)[0]])
    with torch.inference_mode():
        close([compiled(xs)[0]], [net(xs)[0]])


def test_a_cell_without_native_form_compiles_too() -> None:
    class Sorted(ElmanCell):
        def advance(self, projected: Tensor, state: Any) -> Any:
            return super().advance(projected, state._replace(h=state.h.sort(-1).values))

    net = Net(Sorted(2, 3), 3)
    xs = torch.randn(3, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason, said once
        close(
            gradients(net, torch.compile(net, fullgraph=True, backend="aot_eager"), xs),
            gradients(net, lambda x: (lambda r: (net.readout(r[0]), r[1]))(Loop()(net.layer.cell, x)), xs),
        )


@pytest.mark.parametrize("case", ["lstm", "stack", "output is the state"])
def test_export(case: str) -> None:
    torch.manual_seed(0)
    net = Net(*CASES[case]())
    xs = torch.randn(6, 3, 3)
    program = torch.export.export(net, (xs,))
    assert "recurra" in str(program.graph)
    again = program.module()
    wanted = net(xs)[0]
    del net
    close([again(xs)[0]], [wanted])


def test_export_with_free_sizes() -> None:
    torch.manual_seed(0)
    net = Net(LSTMCell(3, 5), 5)
    sizes = ({0: torch.export.Dim("T", min=2, max=500), 1: torch.export.Dim("B", min=2, max=100)}, None, None)
    program = torch.export.export(net, (torch.randn(6, 3, 3), None, None), dynamic_shapes=sizes)
    for steps, rows in ((6, 3), (11, 7)):
        xs = torch.randn(steps, rows, 3)
        close([program.module()(xs, None, None)[0]], [net(xs)[0]])


def test_a_program_of_another_process_says_what_is_missing() -> None:
    with pytest.raises(
        ValueError, match=r"^Native: a compiled program's plan must be made in this process, got none\."
    ):
        operators.find("unknown")


def test_operators_obey_torchs_rules() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(2, 3).double()
    torch.compile(lambda x: Native()(cell, x), fullgraph=True, backend="eager")(
        torch.randn(3, 2, 2, dtype=torch.float64)
    )
    name, plan = next((n, p) for n, p in reversed(operators._PLANS.items()) if p.bits == 64 and p.variant.backward)
    xs = torch.randn(3 * 2, 2, dtype=torch.float64)
    imports = [t.detach().requires_grad_() for t in plan.traced.before(list(cell.parameters()), [xs])]
    states = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    args = (name, imports, states, [], None, None, 3, 2)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.recurra.loop, args, test_utils=checks)


def test_functional_call_with_other_parameters() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 5)
    other = {n: torch.randn_like(p).requires_grad_() for n, p in cell.named_parameters()}
    xs = torch.randn(5, 2, 3)
    results = []
    for engine in (Native(), Loop()):
        layer = Recurrent(cell, engine=engine)
        ys, _ = functional_call(layer, {f"cell.{n}": p for n, p in other.items()}, (xs,))
        results.append([ys.detach(), *torch.autograd.grad(ys.square().sum(), list(other.values()))])
    close(*results)


def test_parameters_that_are_slices_of_one_vector() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 5)
    flat = torch.randn(sum(p.numel() for p in cell.parameters()), requires_grad=True)
    xs = torch.randn(5, 2, 3)
    results = []
    for engine in (Native(), Loop()):
        parts = flat.split([p.numel() for p in cell.parameters()])
        named = {f"cell.{n}": t.view_as(p) for (n, p), t in zip(cell.named_parameters(), parts)}
        ys, _ = functional_call(Recurrent(cell, engine=engine), named, (xs,))
        results.append([ys.detach(), *torch.autograd.grad(ys.square().sum(), [flat])])
    close(*results)


def test_vmap_over_inputs_is_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 5)
    xs, lengths = torch.randn(4, 6, 2, 3), torch.tensor([3, 6])
    reset = torch.rand(4, 6, 2) < 0.3
    seen = loops_run(monkeypatch)

    def run(x: Tensor, restart: Tensor) -> Any:
        return Native()(cell, x, None, Controls(lengths, restart))

    ys, state = vmap(run)(xs, reset)
    assert seen[-1:] == ["forward"]
    before = len(seen)
    vmap(run)(xs, reset)
    assert len(seen) == before + 1
    for i in range(4):
        wanted, last = Loop()(cell, xs[i], None, Controls(lengths, reset[i]))
        close([ys[i], state.h[i], state.c[i]], [wanted, last.h, last.c])
    moved, _ = vmap(lambda x: Native()(cell, x), in_dims=2, out_dims=1)(xs.movedim(0, 2))
    close([moved[:, 1]], [Loop()(cell, xs[1])[0]])


def test_vmap_has_gradients() -> None:
    torch.manual_seed(0)
    cell = GRUCell(3, 4)
    xs = torch.randn(4, 6, 2, 3)
    found = []
    for engine in (Native(), Loop()):
        inputs = xs.clone().requires_grad_()
        ys, _ = vmap(lambda x, e=engine: e(cell, x))(inputs)
        found.append([ys.detach(), *torch.autograd.grad(ys.square().sum(), [inputs, *cell.parameters()])])
    close(*found)


def test_vmap_over_parameters_is_an_ensemble() -> None:
    cells = [ElmanCell(3, 4) for _ in range(3)]
    parameters = {
        n: torch.stack([dict(c.named_parameters())[n].detach() for c in cells])
        for n in dict(cells[0].named_parameters())
    }
    xs = torch.randn(5, 2, 3)
    layer = Recurrent(cells[0], engine=Native())
    ys = vmap(lambda p: functional_call(layer, {f"cell.{n}": t for n, t in p.items()}, (xs,))[0])(parameters)
    close(list(ys), [Loop()(c, xs)[0] for c in cells])


JIT = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, for jvp


@JIT
@pytest.mark.parametrize("cell", [LSTMCell(3, 4), IndRNNCell(3, 4)])
def test_torch_func(cell: Cell) -> None:
    """Through the reference, and without a warning."""
    xs = torch.randn(5, 2, 3)
    parameters = dict(cell.named_parameters())
    found: list[list[Tensor]] = []
    for engine in (Native(), Hoisted()):

        def loss(p: dict[str, Tensor], x: Tensor, e: Any = engine) -> Tensor:
            return (
                functional_call(Recurrent(cell, engine=e), {f"cell.{n}": t for n, t in p.items()}, (x,))[0]
                .square()
                .sum()
            )

        each = vmap(grad(loss), in_dims=(None, 1))(parameters, xs.unsqueeze(2))
        tangent = jvp(lambda x, f=loss: f(parameters, x), (xs,), (torch.ones_like(xs),))
        found.append([*grad(loss)(parameters, xs).values(), *each.values(), *tangent])
    close(*found)


@JIT
def test_forward_mode_derivatives() -> None:
    cell = GRUCell(3, 4)
    xs = torch.randn(5, 2, 3)
    found = []
    for engine in (Native(), Loop()):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(xs, torch.ones_like(xs))
            found.append([torch.autograd.forward_ad.unpack_dual(engine(cell, dual)[0]).tangent])
    close(*found)


def test_autocast() -> None:
    cell = LSTMCell(3, 4)
    xs = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = Native()(cell, xs)[0], Hoisted()(cell, xs)[0]
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


def test_gradcheck_and_gradgradcheck_by_parameters() -> None:
    torch.manual_seed(0)
    cell = GRUCell(2, 2).double()
    names, values = zip(*cell.named_parameters())
    xs = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    layer = Recurrent(cell, engine=Native())

    def run(x: Tensor, *leaves: Tensor) -> Tensor:
        return functional_call(layer, {f"cell.{n}": t for n, t in zip(names, leaves)}, (x,))[0]

    given = (xs, *(v.detach().clone().requires_grad_() for v in values))
    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


class _Reads(ElmanCell):
    """Reads a memory that it never changes."""

    def initial_state(self, batch_size: int) -> Any:
        """The last output and a memory."""
        return super().initial_state(batch_size), self.initial("memory", batch_size, self.hidden_size, value=0.5)

    def advance(self, projected: Tensor, state: Any) -> Any:
        """With the memory as a second input."""
        y, new = super().advance(projected * state[1], state[0])
        return y, (new, state[1])


def test_constant_leaves_compile() -> None:
    torch.manual_seed(0)
    cell = _Reads(3, 4)
    state = tree.map(torch.rand_like, cell.initial_state(2))
    xs = torch.randn(4, 2, 3)
    compiled = torch.compile(lambda x, s: Native()(cell, x, s), fullgraph=True, backend="aot_eager")
    ys, last = compiled(xs, state)
    wanted, other = Loop()(cell, xs, state)
    close([ys, *tree.leaves(last)], [wanted, *tree.leaves(other)])


def test_both_directions_compile() -> None:
    torch.manual_seed(0)
    layer = Bidirectional(LSTMCell(3, 4), LSTMCell(3, 4), engine=Native())
    xs, lengths = torch.randn(5, 2, 3), torch.tensor([5, 3])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    close([compiled(xs, lengths=lengths)[0]], [layer(xs, lengths=lengths)[0]])


def _one_of_two(rank: int, file: str, queue: Any) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(Net(LSTMCell(3, 5), 5))
    torch.manual_seed(1)
    xs = torch.randn(6, 4, 3)[:, 2 * rank : 2 * rank + 2]
    ys, _ = net(xs)
    ys.square().sum().backward()
    queue.put((rank, [p.grad.tolist() for p in net.parameters() if p.grad is not None]))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_one_of_two, args=(rank, str(tmp_path / "meet"), queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=200) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    torch.manual_seed(0)
    net = Net(LSTMCell(3, 5), 5)
    torch.manual_seed(1)
    net(torch.randn(6, 4, 3))[0].square().sum().backward()
    whole = [p.grad / 2 for p in net.parameters() if p.grad is not None]  # DDP takes the mean of both
    close([torch.tensor(g) for g in found[0]], whole)
    assert found[0] == found[1]


class _Leaky(ElmanCell):
    """Keeps a share of its last output."""

    share = 0.5

    def advance(self, projected: Tensor, state: Any) -> Any:
        """With the share, and more of it in evaluation."""
        _, new = super().advance(projected, state)
        keep = self.share if self.training else 0.9
        h = keep * state.h + (1 - keep) * new.h
        return h, new._replace(h=h)


def test_a_changed_option_makes_another_plan() -> None:
    torch.manual_seed(0)
    cell = _Leaky(3, 4)
    cell.share = 0.25
    net = Recurrent(cell, engine=Native())
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    xs = torch.randn(5, 2, 3)
    seen = []
    for change in (lambda: None, lambda: setattr(cell, "share", 0.75), net.eval):
        change()
        seen.append(compiled(xs)[0])
        close([seen[-1]], [Loop()(cell, xs)[0]])
    assert not torch.allclose(seen[0], seen[1])
    assert not torch.allclose(seen[1], seen[2])
