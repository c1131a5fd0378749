"""dropin.LSTM, GRU and RNN beside torch's own: the same numbers, gradients, draws, weights and complaints on every engine."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, rnn

import recurra
from recurra import dropin
from recurra.core import MeanSquaredError, members
from recurra.core.rule import Chunk
from recurra.engines import Auto, Checkpointed, Hoisted, Loop, Vendor
from recurra.layers import Recurrent
from recurra.training import fit

NAMES = ("LSTM", "GRU", "RNN")
ENGINES = [item() for item in members("engines").values()]


class Case(NamedTuple):
    """A layer and what it is given."""

    name: str
    options: dict[str, Any]
    input: Any
    hx: Any
    training: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any option of the constructor, any form of input, with and without a first state; float64."""
    name = draw(st.sampled_from(NAMES))
    hidden_size = draw(st.integers(2, 4))
    options: dict[str, Any] = {
        "input_size": draw(st.integers(1, 3)),
        "hidden_size": hidden_size,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dtype": torch.float64,
    }
    if options["num_layers"] > 1:
        options["dropout"] = draw(st.sampled_from([0.0, 0.4, 1.0]))
    if name == "LSTM":
        options["proj_size"] = draw(st.integers(0, hidden_size - 1))
    if name == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    form = draw(st.sampled_from(["batched", "unbatched", "packed", "packed and sorted"]))
    num_steps, batch_size = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    width = options["input_size"]
    given: Any
    if form == "unbatched":
        given, lead = tensor(num_steps, width), ()
    elif form == "batched":
        lead = (batch_size,)
        given = tensor(batch_size, num_steps, width) if options["batch_first"] else tensor(num_steps, batch_size, width)
    else:
        lead = (batch_size,)
        lengths = draw(st.lists(st.integers(1, num_steps), min_size=batch_size, max_size=batch_size))
        ordered = form == "packed and sorted"
        lengths = sorted(lengths, reverse=True) if ordered else lengths
        given = rnn.pack_sequence([tensor(n, width) for n in lengths], enforce_sorted=ordered)
    hx = None
    if draw(st.booleans()):
        count = options["num_layers"] * (2 if options["bidirectional"] else 1)
        hx = tensor(count, *lead, options.get("proj_size") or hidden_size)
        hx = (hx, tensor(count, *lead, hidden_size)) if name == "LSTM" else hx
    return Case(name, options, given, hx, draw(st.booleans()))


def leaves(value: Any) -> list[Tensor]:
    if value is None:
        return []
    return [value] if isinstance(value, Tensor) else [leaf for v in value for leaf in leaves(v)]


def fresh(value: Any) -> Any:
    """The same values as new leaves that ask for a gradient."""
    if value is None:
        return None
    if isinstance(value, rnn.PackedSequence):
        return value._replace(data=fresh(value.data))
    return tuple(map(fresh, value)) if isinstance(value, tuple) else value.clone().requires_grad_()


def everything(layer: nn.Module, case: Case) -> list[Tensor]:
    """Outputs, states, and the gradients of input, first state and parameters of a weighted sum over all of them."""
    given, hx = fresh(case.input), fresh(case.hx)
    layer.train(case.training)
    torch.manual_seed(11)  # of the dropout
    ys, end = layer(given, hx)
    if isinstance(case.input, rnn.PackedSequence):
        assert isinstance(ys, rnn.PackedSequence)
        assert torch.equal(ys.batch_sizes, case.input.batch_sizes)
        for a, b in zip(ys[2:], case.input[2:]):
            assert a is b
    out = leaves(ys.data if isinstance(ys, rnn.PackedSequence) else ys) + leaves(end)
    total = sum((torch.sin(y + i) * torch.arange(1, y.numel() + 1).view(y.shape)).sum() for i, y in enumerate(out))
    data = given.data if isinstance(given, rnn.PackedSequence) else given
    wanted = [data, *leaves(hx), *layer.parameters()]
    return [*out, *torch.autograd.grad(total, wanted)]


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@settings(max_examples=40)
@given(case=cases())
def test_numbers_and_gradients_are_those_of_torch(engine: Any, case: Case) -> None:
    theirs = getattr(nn, case.name)(**case.options)
    ours = getattr(dropin, case.name)(**case.options, engine=engine)
    ours.load_state_dict(theirs.state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        pairs = list(zip(everything(ours, case), everything(theirs, case), strict=True))
    for mine, their in pairs:
        torch.testing.assert_close(mine, their, rtol=1e-10, atol=1e-10)


@settings(max_examples=60)
@given(case=cases(), seed=st.integers(0, 99))
def test_first_weights_names_and_text_are_those_of_torch(case: Case, seed: int) -> None:
    torch.manual_seed(seed)
    theirs = getattr(nn, case.name)(**case.options)
    after = torch.get_rng_state()
    torch.manual_seed(seed)
    ours = getattr(dropin, case.name)(**case.options)
    assert torch.equal(torch.get_rng_state(), after)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert repr(ours) == repr(theirs)
    assert [[w.shape for w in layer] for layer in ours.all_weights] == [
        [w.shape for w in l] for l in theirs.all_weights
    ]
    assert isinstance(ours, type(theirs))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.flatten_parameters()


# --- torch's own collection of test cases ---------------------------------------------------------------------------


def test_torchs_own_module_database_passes() -> None:
    pytest.importorskip("expecttest", reason="torch's collection of test cases imports it")
    program = Path(__file__).with_name("torch_module_database.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = json.loads(done.stdout)
    assert set(count) == set(NAMES)
    assert min(count.values()) >= 90


# --- complaints ---------------------------------------------------------------------------------------------------

X = torch.zeros(4, 2, 3)
BAD_OPTIONS: list[dict[str, Any]] = [
    {"hidden_size": 0},
    {"input_size": 0},
    {"hidden_size": 2.0},
    {"input_size": "3"},
    {"num_layers": 0},
    {"dropout": 1.5},
    {"dropout": True},
    {"bias": 1},
    {"batch_first": 1},
    {"proj_size": 9},
    {"proj_size": -1},
    {"nonlinearity": "gelu"},
    {"unknown": 1},
]
BAD_CALLS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "four dimensions": lambda name: (X[None],),
    "one dimension": lambda name: (X[0, 0],),
    "no step": lambda name: (X[:0],),
    "other features": lambda name: (X[..., :2],),
    "other dtype": lambda name: (X.double(),),
    "state of other dimensions": lambda name: (X, pair(name, torch.zeros(1, 5))),
    "state of other batch": lambda name: (X, pair(name, torch.zeros(1, 3, 5))),
    "state of other layers": lambda name: (X, pair(name, torch.zeros(2, 2, 5))),
    "three states": lambda name: (X, (torch.zeros(1, 2, 5),) * 3),
    "no tensor": lambda name: ([[0.0]],),
    "unbatched with batched state": lambda name: (X[:, 0], pair(name, torch.zeros(1, 1, 5))),
    "packed, other features": lambda name: (rnn.pack_sequence([X[:3, 0, :2], X[:2, 0, :2]]),),
    "packed, other dtype": lambda name: (rnn.pack_sequence([X[:3, 0].double()]),),
    "packed, state of other batch": lambda name: (rnn.pack_sequence([X[:3, 0]]), pair(name, torch.zeros(1, 3, 5))),
}


def pair(name: str, h: Tensor) -> Any:
    return (h, h) if name == "LSTM" else h


def complaint(action: Callable[[], Any]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_options_are_refused_as_torch_refuses_them(name: str, options: dict[str, Any]) -> None:
    options = {"input_size": 3, "hidden_size": 5, **options}
    theirs, ours = (complaint(lambda home=home: getattr(home, name)(**options)) for home in (nn, dropin))  # type: ignore[misc]
    assert theirs is not None
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)


@pytest.mark.parametrize("engine", [Auto(), Vendor(), Loop(), Checkpointed()], ids=str)
@pytest.mark.parametrize("what", BAD_CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_calls_are_refused_as_torch_refuses_them(name: str, what: str, engine: Any) -> None:
    if name == "LSTM" and what == "packed, state of other batch":
        pytest.skip("torch takes it without a word, and reads the rows that it needs")
    given = BAD_CALLS[what](name)
    theirs = complaint(lambda: getattr(nn, name)(3, 5)(*given))
    ours = complaint(lambda: getattr(dropin, name)(3, 5, engine=engine)(*given))
    assert theirs is not None
    assert type(ours) is type(theirs), f"{ours!r}, and torch {theirs!r}"
    if not what.startswith("packed"):  # there torch leaves some complaints to its kernels
        assert str(ours) == str(theirs)


def test_the_warning_about_dropout_of_one_layer_is_there() -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        dropin.GRU(3, 5, dropout=0.5)


def test_an_engine_must_be_one() -> None:
    message = "LSTM: engine must be an Engine such as Auto(), got str."
    with pytest.raises(TypeError, match=re.escape(message)):
        dropin.LSTM(3, 5, engine="loop")


# --- what scripts do with layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Auto(), Hoisted()], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_copies_and_files(name: str, engine: Any) -> None:
    layer = getattr(dropin, name)(3, 5, num_layers=2, bidirectional=True, engine=engine)
    ys, _ = layer(X)
    for other in (copy.deepcopy(layer), copy.copy(layer)):
        assert torch.equal(other(X)[0], ys)
        assert other.engine == engine
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight_hh_l1.zero_()
    assert torch.equal(layer(X)[0], ys)
    assert not torch.equal(other(torch.ones_like(X))[0], layer(torch.ones_like(X))[0])
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    theirs = getattr(nn, name)(3, 5, num_layers=2, bidirectional=True)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(theirs(X)[0], ys)


@pytest.mark.parametrize("engine", [Auto(), Loop(), Checkpointed(every=2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_whole_modules_are_saved_pruned_and_normalised(name: str, engine: Any) -> None:
    layer, theirs = getattr(dropin, name)(3, 5, num_layers=2, engine=engine), getattr(nn, name)(3, 5, num_layers=2)
    theirs.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.engine == engine
    assert torch.equal(again(X + 1)[0], layer(X + 1)[0])
    for change in (
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: prune.l1_unstructured(m, "weight_ih_l1", amount=0.5),
        lambda m: m.to(torch.bfloat16),
    ):
        pair = [copy.deepcopy(layer), copy.deepcopy(theirs)]
        for one in pair:
            change(one)
        dtype = pair[0].bias_ih_l0.dtype
        ours, known = (one((X + 1).to(dtype))[0] for one in pair)
        assert ours.dtype == known.dtype
        torch.testing.assert_close(ours, known, atol=1e-6 if dtype == torch.float32 else 3e-2, rtol=0)


@pytest.mark.parametrize("engine", [Auto(), Loop()], ids=str)
def test_dtype_can_change_afterwards(engine: Any) -> None:
    layer = dropin.LSTM(3, 5, engine=engine)
    before = layer(X + 1)[0]
    after = layer.double()((X + 1).double())[0]
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before)
    torch.testing.assert_close(layer.float()(X + 1)[0], before)


def test_meta_device_and_empty_weights() -> None:
    layer = dropin.GRU(3, 5, device="meta", engine=Hoisted())
    assert layer.weight_ih_l0.is_meta
    assert layer.to_empty(device="cpu").weight_ih_l0.device.type == "cpu"


@pytest.mark.parametrize("engine", [Auto(), Loop()], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_functional_calls_and_parametrizations_are_seen(name: str, engine: Any) -> None:
    layer, theirs = getattr(dropin, name)(3, 5, engine=engine), getattr(nn, name)(3, 5)
    zeros = {key: torch.zeros_like(value) for key, value in layer.named_parameters()}
    assert torch.func.functional_call(layer, zeros, (X + 1,))[0].abs().max() == 0
    theirs.load_state_dict(layer.state_dict())
    for one in (layer, theirs):
        parametrize.register_parametrization(one, "weight_hh_l0", Half())
    torch.testing.assert_close(layer(X + 1)[0], theirs(X + 1)[0])


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def test_many_nets_in_one_vmap() -> None:
    nets = [dropin.LSTM(3, 5, num_layers=2) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)  # type: ignore[arg-type]
    answer = torch.func.vmap(lambda p: torch.func.functional_call(nets[0], p, (X + 1,))[0])(stacked)
    torch.testing.assert_close(answer, torch.stack([net(X + 1)[0] for net in nets]))


def test_higher_derivatives_with_an_engine() -> None:
    layer = dropin.GRU(2, 2, dtype=torch.float64, engine=Hoisted())
    xs = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (xs,))


def test_the_engine_can_be_changed_at_any_time() -> None:
    layer = dropin.RNN(3, 5, num_layers=2, engine=Loop())
    ys, _ = layer(X + 1)
    assert layer.run_on(Hoisted()) is layer
    torch.testing.assert_close(layer(X + 1)[0], ys)
    assert repr(layer) == "RNN(3, 5, num_layers=2, engine=Hoisted())"


def test_autocast() -> None:
    layer = dropin.LSTM(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(X)[0].dtype == nn.LSTM(3, 5)(X)[0].dtype


# --- cells ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"proj_size": 2}, {"nonlinearity": "relu"}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_cell_shares_the_weights(name: str, options: dict[str, Any]) -> None:
    if ("proj_size" in options and name != "LSTM") or ("nonlinearity" in options and name != "RNN"):
        pytest.skip("this layer has no such option")
    torch.manual_seed(0)  # a net of rectified units may be dead with others
    layer = getattr(dropin, name)(3, 5, num_layers=2, **options).eval()
    cell = layer.cell()
    assert {id(p) for p in cell.parameters()} == {id(p) for p in layer.parameters()}
    for engine in ENGINES:
        torch.testing.assert_close(Recurrent(cell, engine)(X + 1)[0], layer(X + 1)[0])
    before = layer(X + 1)[0]
    chunk = Chunk(X + 1, torch.zeros(4, 2, before.shape[-1]))
    fit(cell, [chunk], MeanSquaredError(), num_epochs=3)
    assert layer(X + 1)[0].square().sum() < before.square().sum()


def test_cells_of_both_directions() -> None:
    layer = dropin.GRU(3, 5, num_layers=2, bidirectional=True)
    assert layer.cell(1, reverse=True).weight_ih is layer.weight_ih_l1_reverse
    assert layer.cell(0).weight_ih is layer.weight_ih_l0
    for call, message in (
        (lambda: layer.cell(), "GRU: layer must be given where bidirectional=True, got None."),
        (lambda: layer.cell(2), "GRU: layer must be in 0..1, got 2."),
        (
            lambda: dropin.GRU(3, 5).cell(0, reverse=True),
            "GRU: reverse must be False where bidirectional=False, got True.",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_convert_swaps_what_is_inside() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5, bidirectional=True, batch_first=True)
            self.inner = nn.Sequential(nn.Linear(10, 3), nn.GRU(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.rnn(x)[0])[0]

    model = Tagger().eval()
    swapped = dropin.convert(model, engine=Hoisted())
    assert type(swapped.rnn) is dropin.LSTM
    assert type(swapped.inner[1]) is dropin.GRU
    assert type(model.rnn) is nn.LSTM
    assert not swapped.training
    assert swapped.rnn.engine == Hoisted()
    torch.testing.assert_close(swapped(X), model(X))
    model.load_state_dict(swapped.state_dict(), strict=True)
    assert type(dropin.convert(nn.RNN(3, 5))) is dropin.RNN


def test_the_package_offers_it() -> None:
    assert recurra.dropin is dropin
    assert "dropin" in dir(recurra)
