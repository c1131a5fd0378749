"""Laws about what only some cells can do: noise, feedback, a readout, a differential equation, several predecessors."""

from __future__ import annotations

import torch

from ..core import tree
from ..core.cell import (
    Cell,
    ConstrainedCell,
    ContinuousCell,
    FeedbackCell,
    JoinCell,
    Noisy,
    ReadoutCell,
    StochasticCell,
    Timed,
    VendorCell,
)
from ..core.controls import Controls
from ..engines.loop import Loop
from .compare import same
from .generate import case, generator_of, mask_for, prepared, random_like, sequence, sizes, state_of, weighted
from .law import Setting, broken, law
from .sequence_laws import attached
from .step_laws import floating


@law("A StochasticCell draws leaves (T, B, ...) from the generator alone; the same seed gives the same numbers.")
def noise(cell: Cell, setting: Setting) -> str | None:
    """`draw` and `draw_weights`; and a bare input counts as quiet."""
    if not isinstance(cell, StochasticCell):
        return "it is no StochasticCell."
    twin = prepared(cell, setting)
    num_steps, batch_size = max(1, setting.num_steps), setting.batch_size
    before = torch.get_rng_state()
    first, again = (
        (twin.draw(num_steps, batch_size, g), twin.draw_weights(g))
        for g in (generator_of(setting, 21), generator_of(setting, 21))
    )
    if not torch.equal(before, torch.get_rng_state()):
        broken("draw takes from torch's global generator although it is given one.")
    same("the noise of the same seed", first[0], again[0], 0.0)
    for leaf in tree.leaves(first[0]):
        if tuple(leaf.shape[:2]) != (num_steps, batch_size):
            broken(f"a leaf of the noise is {tuple(leaf.shape)}, it must lead with T={num_steps}, B={batch_size}.")
    parameters = dict(twin.named_parameters())
    for name, value in first[1].items():
        if name not in parameters:
            broken(f"draw_weights names {name!r}, which is no parameter.")
        if value.shape != parameters[name].shape:
            broken(f"draw_weights gives {name} the shape {tuple(value.shape)}.")
        same(f"the noisy {name} of the same seed", value, again[1][name], 0.0)
    x = tree.at(sequence(twin, 1, batch_size, generator_of(setting), noisy=False), 0).x
    state = state_of(twin, batch_size, generator_of(setting))
    same("a bare input", twin(x, state), twin(Noisy(x, None), state), 0.0)
    return None


@law("A FeedbackCell keeps feedback(y) in state.feedback; a forced value takes its place, and no gradient passes it.")
def feedback(cell: Cell, setting: Setting) -> str | None:
    """Two steps by hand against two steps forced by an engine, with and without a mask."""
    if not isinstance(cell, FeedbackCell):
        return "it is no FeedbackCell."
    twin, xs, state = case(cell, setting, min_rows=3)
    _, batch_size = sizes(xs)
    xs = sequence(twin, 2, batch_size, generator_of(setting, 22), setting.noisy)
    y, new = twin(tree.at(xs, 0), state)
    same("state.feedback after a step", new.feedback, twin.feedback(y), 0.0)

    forced = state_of(twin, batch_size, generator_of(setting, 23)).feedback
    twice = attached(tree.map(lambda f: torch.stack([f, f]), forced))
    for mask in (None, mask_for(setting, 2, batch_size)):
        if mask is not None:
            mask[0, 0], mask[0, 1] = True, False
        ys, _ = Loop()(twin, xs, state, Controls(forced=twice, force_mask=mask))
        seen = forced if mask is None else tree.where(mask[0], forced, new.feedback)
        wanted, _ = twin(tree.at(xs, 1), new._replace(feedback=seen))
        same("the output after a forced step", tree.at(ys, 1), wanted)
        total = weighted(ys, random_like(ys, generator_of(setting, 24)))
        reaching = [f for f in floating(twice) if f.requires_grad]
        if reaching and total.requires_grad:
            for gradient in torch.autograd.grad(total, reaching, allow_unused=True):
                if gradient is not None and bool((gradient != 0).any()):
                    broken("a gradient passes a forced value.")
    return None


@law("A ReadoutCell's output is its linear readout of its features, and its features carry the state on as step does.")
def readout(cell: Cell, setting: Setting) -> str | None:
    """``y = W phi + b``."""
    if not isinstance(cell, ReadoutCell):
        return "it is no ReadoutCell."
    twin, xs, state = case(cell, setting)
    x = tree.at(xs, 0)
    with torch.no_grad():
        phi, new = twin.features(x, state)
        same("the readout of the features", (twin.readout(phi), new), twin(x, state))
    return None


@law("Over a gap of no time the state of a ContinuousCell stays as it is.")
def no_time(cell: Cell, setting: Setting) -> str | None:
    """``dt = 0``."""
    if not isinstance(cell, ContinuousCell):
        return "it is no ContinuousCell."
    twin, xs, state = case(cell, setting)
    x = tree.at(xs, 0)
    with torch.no_grad():
        y, new = twin(Timed(x.x, torch.zeros_like(x.dt_s)), state)
        same("the state after no time", new, state)
        same("the output after no time", y, twin.observe(state))
    return None


@law("In a JoinCell a predecessor that the mask leaves out changes nothing, whatever stands in its place.")
def absent(cell: Cell, setting: Setting) -> str | None:
    """Two places, one predecessor, other numbers in the second place; values and gradients."""
    if not isinstance(cell, JoinCell):
        return "it is no JoinCell."
    twin, xs, _ = case(cell, setting)
    x, (_, batch_size) = tree.at(xs, 0), sizes(xs)
    first, second = (state_of(twin, batch_size, generator_of(setting, 25 + i)) for i in range(2))
    mask = torch.ones(batch_size, 2, dtype=torch.bool, device=setting.device)
    mask[:, 1] = False
    results = []
    for scale in (1.0, -50.0):
        other = tree.map(lambda s, scale=scale: s * scale if tree.is_differentiable(s) else s, second)
        joined = attached(tree.map(lambda *s: torch.stack(s, 1), first, other))
        outputs = twin.join(x, joined, mask)
        total = weighted(outputs, random_like(outputs, generator_of(setting, 28)))
        wanted = [s for s in tree.leaves(joined) if s.requires_grad]
        found = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else ()
        for gradient in found:
            if gradient is not None and bool((gradient[:, 1] != 0).any()):
                broken("a gradient reaches a predecessor that is not there.")
        results.append(tree.detach(outputs))
    same("the node with other numbers in an empty place", results[1], results[0])
    return None


@law("A ConstrainedCell's constrain puts parameters back into their set: a second time changes nothing.")
def constrained(cell: Cell, setting: Setting) -> str | None:
    """After a random change of all parameters; none is replaced by another tensor."""
    if not isinstance(cell, ConstrainedCell):
        return "it is no ConstrainedCell."
    twin = prepared(cell, setting)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(3 * random_like(p, generator_of(setting, 29)))
        kept = {name: id(p) for name, p in twin.named_parameters()}
        twin.constrain()
        once = tuple(p.clone() for p in twin.parameters())
        twin.constrain()
        same("a parameter after constrain, called again,", tuple(p.detach() for p in twin.parameters()), once, 0.0)
    if {name: id(p) for name, p in twin.named_parameters()} != kept:
        broken("constrain replaces a parameter by another tensor.")
    return None


@law("A VendorCell's state goes to torch's form and back unchanged.")
def vendor(cell: Cell, setting: Setting) -> str | None:
    """That the layer gives the same numbers is a law of the engine `Vendor`."""
    if not isinstance(cell, VendorCell):
        return "it is no VendorCell."
    twin, _, state = case(cell, setting)
    if twin.vendor() is None:
        return "one of its options has no equal in torch."
    same("the state after to_vendor and from_vendor", twin.from_vendor(twin.to_vendor(state)), state, 0.0)
    return None
