"""Noise on the state."""

import pytest
import torch

from recurra.cells import ElmanCell, LSTMCell
from recurra.core import Noisy
from recurra.engines import Loop, Native
from recurra.layers import Recurrent
from recurra.wrappers import StateNoise


def test_the_noise_is_added_to_every_leaf_and_the_output_shows_it() -> None:
    """One step: what the cell says, and the drawn numbers."""
    cell = LSTMCell(2, 3, generator=torch.Generator().manual_seed(0))
    noisy, x = StateNoise(cell, 0.5), torch.ones(4, 2)
    drawn = noisy.draw(1, 4, torch.Generator().manual_seed(1))
    y, state = noisy.step(
        Noisy(x, type(drawn)(type(drawn.own)(*(leaf[0] for leaf in drawn.own)), None)), noisy.initial_state(4)
    )
    quiet_y, quiet_state = cell(x)
    torch.testing.assert_close(state.h, quiet_state.h + drawn.own.h[0])
    torch.testing.assert_close(state.c, quiet_state.c + drawn.own.c[0])
    torch.testing.assert_close(y, quiet_y + drawn.own.h[0])


def test_its_standard_deviation() -> None:
    """Over many numbers."""
    drawn = StateNoise(ElmanCell(2, 50), 0.3).draw(100, 20, torch.Generator().manual_seed(0))
    assert float(drawn.own.h.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(drawn.own.h.mean())) < 0.01


@pytest.mark.parametrize("engine", [Loop(), Native()])
def test_quiet_in_evaluation_and_noisy_in_training(engine: object) -> None:
    """In evaluation, and without sigma, it is the cell."""
    cell, xs = ElmanCell(2, 3), torch.randn(5, 4, 2)
    plain, _ = Recurrent(cell, engine=engine)(xs)
    layer = Recurrent(StateNoise(cell, 0.2), engine=engine)
    assert not torch.allclose(layer(xs)[0], plain)
    torch.testing.assert_close(layer.eval()(xs)[0], plain)
    torch.testing.assert_close(Recurrent(StateNoise(cell, 0.0), engine=engine)(xs)[0], plain)


def test_no_negative_noise() -> None:
    """It says so."""
    with pytest.raises(ValueError, match="StateNoise: std must be at least 0, got -1"):
        StateNoise(ElmanCell(2, 3), -1)
