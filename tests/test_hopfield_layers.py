"""Hopfield layers: one step is attention, more steps go down the energy, masked patterns do not exist."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from recurra.layers import HopfieldAssociation, HopfieldLookup, HopfieldPooling, hopfield_recall
from recurra.memories import ModernHopfield


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).detach().abs().max())


def test_one_step_is_attention_in_value_and_gradient():
    q, k, v = normal(2, 3, 5, 8), normal(2, 3, 7, 8, seed=1), normal(2, 3, 7, 4, seed=2)
    mask = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(3)) < 0.7
    mask[..., 0] = True
    gradients = []
    for function in (hopfield_recall, scaled_dot_product_attention):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        extra = {"mask": mask} if function is hopfield_recall else {"attn_mask": mask}
        found = function(*inputs, **extra)
        gradients.append([found.detach(), *torch.autograd.grad(found.square().sum(), inputs)])
    for ours, theirs in zip(*gradients):
        assert gap(ours, theirs) <= 1e-7


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stored_size", [12, 6])
def test_one_step_is_torchs_attention_layer(bias, stored_size):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, bias=bias, kdim=stored_size, vdim=stored_size, batch_first=True).double()
    layer = HopfieldAssociation.from_attention(attention)
    queries, stored = normal(4, 5, 12), normal(4, 7, stored_size, seed=1)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 5])[:, None]
    wanted, _ = attention(queries, stored, stored, key_padding_mask=~mask)
    assert gap(layer(queries, stored, mask=mask), wanted) <= 1e-7


def test_many_steps_are_the_memory():
    memory = ModernHopfield(16, beta=0.4, tolerance=1e-12)
    stored, cues = normal(6, 16), normal(9, 16, seed=1)
    for num_steps in (1, 2, 5):
        value = cues
        for _ in range(num_steps):
            value = memory.update(stored, value)
        found = hopfield_recall(cues, stored, stored, beta=0.4, num_steps=num_steps)
        assert gap(found, value) <= 1e-12
    found = hopfield_recall(cues, stored, stored, beta=0.4, num_steps=500, tolerance=1e-12)
    assert gap(found, memory.read(stored, cues).value) <= 1e-9


def test_a_tolerance_ends_each_query_by_itself():
    stored, cues = normal(6, 16), normal(9, 16, seed=1)
    together = hopfield_recall(cues, stored, stored, beta=0.3, num_steps=100, tolerance=1e-2)
    alone = torch.cat([hopfield_recall(c[None], stored, stored, beta=0.3, num_steps=100, tolerance=1e-2) for c in cues])
    assert gap(together, alone) <= 1e-12


def layers() -> list[tuple[nn.Module, int]]:
    torch.manual_seed(1)
    made = [
        (HopfieldAssociation(8, 6, 5, num_heads=2, num_steps=3, beta=0.7), 2),
        (HopfieldPooling(8, 3, 5, num_heads=2, head_size=3, num_steps=2), 1),
        (HopfieldLookup(8, 11, 5, num_heads=4, num_steps=2), 1),
    ]
    return [(layer.double(), number) for layer, number in made]


@pytest.mark.parametrize("index", range(3))
def test_gradients(index):
    layer, number = layers()[index]
    inputs = [normal(2, 3, 8).requires_grad_(), normal(2, 4, 6, seed=1).requires_grad_()][:number]
    assert torch.autograd.gradcheck(layer, inputs)
    layer(*inputs).sum().backward()
    assert all(
        p.grad is not None and bool((p.grad != 0).any()) for name, p in layer.named_parameters() if name != "key.bias"
    )


@pytest.mark.parametrize("num_steps", [1, 3])
def test_what_is_masked_does_not_exist(num_steps):
    torch.manual_seed(0)
    layer = HopfieldAssociation(8, num_steps=num_steps).double()
    pooling = HopfieldPooling(8, 2, num_steps=num_steps).double()
    queries, stored = normal(3, 4, 8), normal(3, 6, 8, seed=1)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    for found, wanted in (
        (layer(queries, stored, mask=mask), lambda row, n: layer(queries[row, None], stored[row, None, :n])),
        (pooling(stored, mask=mask), lambda row, n: pooling(stored[row, None, :n])),
    ):
        for row, n in enumerate((6, 2, 4)):
            assert gap(found[row], wanted(row, n)[0]) <= 1e-12


@pytest.mark.parametrize("num_steps", [1, 3])
def test_an_empty_set_recalls_zero_and_passes_no_nan_back(num_steps):
    layer = HopfieldPooling(4, num_steps=num_steps)
    with torch.no_grad():
        layer.output.bias.fill_(0.25)
    x = torch.randn(2, 3, 4, requires_grad=True)
    found = layer(x, mask=torch.tensor([[False] * 3, [True] * 3]))
    assert found[0].tolist() == [[0.25] * 4]
    found.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in (x, *layer.parameters()))
    assert bool((x.grad[0] == 0).all())


def test_pooling_does_not_look_at_the_order():
    layer = HopfieldPooling(8, 2, num_steps=2).double()
    x = normal(3, 6, 8)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x), layer(x[:, order]), atol=1e-12)


def test_dropout_draws_only_while_training():
    layer = HopfieldLookup(8, 20, dropout=0.5)
    x = torch.randn(2, 3, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_lookup_learns_a_table():
    """Eight prototypes with labels: the layer alone, from random weights, gets them all right."""
    torch.manual_seed(0)
    prototypes, labels = torch.randn(8, 16), torch.arange(8) % 3
    layer = HopfieldLookup(16, 12, 3, beta=1.0)
    adam = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(60):
        x = prototypes + 0.1 * torch.randn(8, 16)
        loss = nn.functional.cross_entropy(layer(x[:, None]).squeeze(1), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.equal(layer(prototypes[:, None]).squeeze(1).argmax(-1), labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: HopfieldAssociation(8, num_heads=3),
            r"HopfieldAssociation: num_heads must be a divisor of 8, got 3\. Or give",
        ),
        (lambda: HopfieldLookup(8, 0), r"^HopfieldLookup: num_patterns must be at least 1, got 0\."),
        (lambda: HopfieldPooling(8, beta=0.0), r"^HopfieldPooling: beta must be positive and finite, got 0\.0\."),
        (
            lambda: HopfieldPooling(8, dropout=1.0),
            r"^HopfieldPooling: dropout must be a probability in \[0, 1\), got 1\.0\.",
        ),
        (lambda: HopfieldPooling(8)(torch.zeros(3, 8)), r"^HopfieldPooling: x must be \(B, L, 8\), got \(3, 8\)\."),
        (
            lambda: HopfieldPooling(8)(torch.zeros(2, 3, 8), mask=torch.ones(3, 2) > 0),
            r"^HopfieldPooling: mask must be \(2, 3\) or \(2, 1, 3\), got \(3, 2\)\.",
        ),
        (
            lambda: HopfieldAssociation.from_attention(nn.MultiheadAttention(8, 2, add_bias_kv=True)),
            r"^HopfieldAssociation: attention must be plain, with keys and values of one size, got",
        ),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(
        TypeError, match=r"^HopfieldPooling: mask must be bool, True where something may be recalled, got float32"
    ):
        HopfieldPooling(8)(torch.zeros(2, 3, 8), mask=torch.ones(2, 3))
