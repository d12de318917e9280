"""A target of which some calls are torch's own: does what deviates still do so?

What is wrong with a loss in one kind of call shows wherever such a call is made. So whoever asks
why may have all calls of that kind answered by the function that the loss stands for: what is then
as it should be deviated for this reason, and what is not has one of its own.

A kind of call is known before it is made (:data:`CALLS`), or with its backward
(:data:`BACKWARDS`).
What a loss does beside its numbers is taken from it by other means (:data:`APART`).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from conformance.observer.state import Settings

Loss = Callable[..., Any]
SMALL, LARGE = 33, 2**16  # elements: beyond, a call is large, or very large


@dataclass(frozen=True)
class Call:
    """``reduction``: None where none is named. ``known``: where elements of earlier calls lay.
    ``weighted``: whether a weight is passed."""

    x: Tensor
    y: Tensor
    reduction: Any
    known: frozenset[int]
    weighted: bool

    @property
    def operands(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    @property
    def needs(self) -> tuple[bool, bool]:
        return self.x.requires_grad, self.y.requires_grad


def _transforms(*names: str) -> bool:
    """Whether a transform of ``torch.func`` is at work, of one of these kinds."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(str(level.key()).rpartition(".")[2] in names for level in stack)


def _elements(test: Callable[[Tensor], Tensor]) -> Callable[[Call], bool]:
    """Whether an element of an operand, or of their difference, is such a one."""

    def holds(call: Call) -> bool:
        x, y = (t.detach().double() for t in call.operands)
        dtype = torch.promote_types(call.x.dtype, call.y.dtype)
        own = [(x - y).to(dtype), (x - y).square().to(dtype)] if dtype.is_floating_point else []
        return any(bool(test(t).any()) for t in (*call.operands, *own))

    return holds


def _has_tangent(t: Tensor) -> bool:
    unpacked: Any = forward_ad.unpack_dual
    return unpacked(t).tangent is not None


def _subnormal(t: Tensor) -> Tensor:
    if not t.dtype.is_floating_point:
        return torch.zeros((), dtype=torch.bool)
    return (t != 0) & (t.abs() < 2**12 * torch.finfo(t.dtype).tiny)


def _huge(t: Tensor) -> Tensor:
    if not t.dtype.is_floating_point:
        return torch.zeros((), dtype=torch.bool)
    return t.abs() > torch.finfo(t.dtype).max / 16


def _inside_a_memory(t: Tensor) -> bool:
    """Whether its elements do not lie one after the other, or not from the start of its memory."""
    return not t.is_contiguous() or t.storage_offset() != 0


CALLS: dict[str, Callable[[Call], bool]] = {
    "always": lambda c: True,
    "empty": lambda c: 0 in (c.x.numel(), c.y.numel()),
    "same": lambda c: c.x is c.y,
    "scalar": lambda c: any(t.ndim == 0 for t in c.operands),
    "broadcast": lambda c: c.x.shape != c.y.shape,
    "integer": lambda c: not all(t.dtype.is_floating_point for t in c.operands),
    "two_dtypes": lambda c: c.x.dtype != c.y.dtype,
    "strided": lambda c: not all(t.is_contiguous() for t in c.operands),
    "layout": lambda c: any(_inside_a_memory(t) for t in c.operands),
    "conjugate": lambda c: any(t.is_neg() for t in c.operands),
    "large": lambda c: max(t.numel() for t in c.operands) > SMALL,
    "very_large": lambda c: max(t.numel() for t in c.operands) > LARGE,
    "nonfinite": _elements(lambda t: ~torch.isfinite(t)),
    "subnormal": _elements(_subnormal),
    "huge": _elements(_huge),
    "nonleaf": lambda c: any(t.grad_fn is not None for t in c.operands),
    "no_gradient": lambda c: not torch.is_grad_enabled() or not any(c.needs),
    "gradient": lambda c: torch.is_grad_enabled() and any(c.needs),
    "input_alone": lambda c: c.needs == (True, False),
    "target_alone": lambda c: c.needs == (False, True),
    "target_needs": lambda c: c.y.requires_grad,
    "both_need": lambda c: c.needs == (True, True),
    "default": lambda c: c.reduction is None,
    "weighted": lambda c: c.weighted,
    "known_memory": lambda c: any(t.data_ptr() in c.known for t in c.operands),
    "later": lambda c: bool(c.known),
    "forward": lambda c: any(_has_tangent(t) for t in c.operands),
    "jvp": lambda c: _transforms("Jvp") or CALLS["forward"](c),
    "vmap": lambda c: _transforms("Vmap"),
    "transformed": lambda c: _transforms("Grad", "Jvp", "Vmap", "Functionalize"),
    "meta": lambda c: c.x.is_meta or isinstance(c.x, FakeTensor),
    "autocast": lambda c: torch.is_autocast_enabled(c.x.device.type),
    "deterministic": lambda c: torch.are_deterministic_algorithms_enabled(),
    "anomaly": lambda c: torch.is_anomaly_enabled(),
    "threads": lambda c: torch.get_num_threads() > 1,
    "threaded": lambda c: threading.current_thread() is not threading.main_thread(),
}


@dataclass(frozen=True)
class Backward:
    """``others``: whether there was another call since; ``changed``: an operand, in place."""

    g: Tensor
    others: bool
    changed: bool

    @property
    def uneven(self) -> bool:
        flat = self.g.detach().reshape(-1)
        return bool(flat.numel()) and not bool((flat == flat[0]).all())


BACKWARDS: dict[str, Callable[[Backward], bool]] = {
    "grad_output": lambda b: not bool((b.g.detach() == 1).all()),
    "grad_output_uneven": lambda b: b.uneven,
    "grad_output_layout": lambda b: _inside_a_memory(b.g),
    "grad_output_nonfinite": lambda b: not bool(torch.isfinite(b.g.detach()).all()),
    "interleaved": lambda b: b.others,
    "changed_operand": lambda b: b.changed,
    "graph": lambda b: torch.is_grad_enabled(),
}


class StandIn:
    """A loss with torch's own beside it. ``when``: the kind of call that this answers;
    ``reductions``: it has one of these. ``part``: of such a call, what is torch's: all, value,
    gradient, gradient.input or gradient.target.
    """

    def __init__(
        self, own: Loss, torchs: Loss, when: str, reductions: Sequence[str], part: str
    ) -> None:
        self.own, self.torchs, self.when, self.part = own, torchs, when, part
        self.reductions, self.calls, self.known = frozenset(reductions), 0, frozenset[int]()

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.when in APART:
            return APART[self.when](self.own, args, named)
        call = self._call(args, named)
        if call is None or not self._reduced(call):
            return self.own(*args, **named)
        if self.when != "integer" and not any(t.dtype.is_floating_point for t in call.operands):
            return self.own(*args, **named)  # torch's raises: that is no answer
        if call.reduction is None and self.when == "always" and not self._is_mean(call):
            return self.own(*args, **named)
        self.calls += 1
        if self.when == "second_backward":
            return _first_backward(self.own, self.torchs, call, named)
        if self.when in BACKWARDS:
            return self._chosen(call, args, named)
        chosen = self._holds(call)
        if not (torch.compiler.is_compiling() or _transforms("Grad", "Jvp", "Vmap")):
            self.known |= {t.data_ptr() for t in call.operands}
        if not chosen:
            return self.own(*args, **named)
        if self.part == "all":
            return self.torchs(*args, **named)
        if self.part.startswith("gradient."):
            return self._of_one(call, named)
        return self._part(self.own(*args, **named), self.torchs(*args, **named))

    def _of_one(self, call: Call, named: dict[str, Any]) -> Any:
        """The gradient of one operand is torch's, that of the other the loss's own."""
        x, y = call.operands
        own, torchs = [x, _cut(y)], [_cut(x), y]
        if self.part == "gradient.input":
            own, torchs = [_cut(x), y], [x, _cut(y)]
        rest = {k: v for k, v in named.items() if k not in ("input", "target", "reduction")}
        reduction = "mean" if call.reduction is None else call.reduction
        first = self.own(*own, reduction=reduction, **rest)
        second = self.torchs(*torchs, reduction=reduction, **rest)
        if not isinstance(first, Tensor) or first.shape != second.shape:
            return first
        return _applied(_Both, first, second)

    def _call(self, args: Sequence[Any], named: dict[str, Any]) -> Call | None:
        """None where it is no call of two tensors."""
        found = dict(zip(("input", "target", "reduction"), args, strict=False)) | named
        x, y = found.get("input"), found.get("target")
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            return None
        weighted = isinstance(found.get("weight"), Tensor)
        return Call(x, y, found.get("reduction"), self.known, weighted)

    def _reduced(self, call: Call) -> bool:
        if call.reduction is None:  # torch's default, where the loss has the same
            return "mean" in self.reductions
        return call.reduction in self.reductions

    def _is_mean(self, call: Call) -> bool:
        """Whether without a reduction the loss gives the mean, be that right or wrong."""
        found = [self.own(*call.operands), self.own(*call.operands, reduction="mean")]
        shapes = {t.shape if isinstance(t, Tensor) else None for t in found}
        return len(shapes) == 1 and torch.allclose(found[0], found[1], equal_nan=True)

    def _holds(self, call: Call) -> bool:
        try:
            return CALLS[self.when](call)
        except (RuntimeError, NotImplementedError, TypeError):
            return False  # of tensors without data, say

    def _part(self, own: Any, torchs: Any) -> Any:
        """The one's value with the other's gradient."""
        if not isinstance(own, Tensor) or own.shape != torchs.shape or own.dtype != torchs.dtype:
            return torchs if self.part == "value" else own
        value, graph = (torchs, own) if self.part == "value" else (own, torchs)
        return _applied(_Chosen, value.detach(), graph, lambda g: True)

    def _chosen(self, call: Call, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """The loss's own value; its gradient, where the kind of backward is another one."""
        gate = _Gate()
        own = self.own(*map(gate, args), **{name: gate(value) for name, value in named.items()})
        torchs = self.torchs(*args, **named)
        if not isinstance(own, Tensor) or own.shape != torchs.shape or own.dtype != torchs.dtype:
            return own
        number, versions = self.calls, [t._version for t in call.operands]

        def chosen(g: Tensor) -> bool:
            changed = versions != [t._version for t in call.operands]
            try:
                gate.closed = BACKWARDS[self.when](Backward(g, self.calls > number, changed))
            except (RuntimeError, NotImplementedError, TypeError):
                gate.closed = False
            return gate.closed

        return _applied(_Chosen, own, torchs, chosen)


def _applied(function: Any, *args: Any) -> Any:
    return function.apply(*args)


class _Chosen(torch.autograd.Function):
    """The first value, with the gradient of the second where that is ``chosen``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor, chosen: Callable[[Tensor], bool]) -> Tensor:
        return first.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.chosen = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        return (None, g, None) if ctx.chosen(g) else (g, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].clone()


class _Gate:
    """What operands of a loss pass through: where it is ``closed`` no gradient comes back."""

    def __init__(self) -> None:
        self.closed = False

    def __call__(self, value: Any) -> Any:
        return _applied(_Gated, value, self) if isinstance(value, Tensor) else value


class _Gated(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, gate: _Gate) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.gate = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return (None if ctx.gate.closed else gradients[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].view_as(tangents[0])


class _Both(torch.autograd.Function):
    """The first value, with the gradients of both."""

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        return first.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0] + tangents[1]


def _cut(tensor: Tensor) -> Tensor:
    """With a gradient, where it needs one, that goes nowhere."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


class _FirstBackward(torch.autograd.Function):
    """A loss whose first backward is its own and whose later ones are torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, own: Loss, torchs: Loss) -> Tensor:
        ctx.operands = [_cut(x), _cut(y)]
        ctx.copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in (x, y)]
        ctx.torchs, ctx.walked = torchs, False
        with torch.enable_grad():
            ctx.result = own(*ctx.operands)
        return ctx.result.detach()  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        operands, result, kept = ctx.operands, ctx.result, True
        if ctx.walked:
            operands, kept = ctx.copies, False
            with torch.enable_grad():
                result = ctx.torchs(*operands)
        ctx.walked = True
        needing = [t for t in operands if t.requires_grad]
        found = iter(torch.autograd.grad(result, needing, gradients, kept, allow_unused=True))
        return *(next(found) if t.requires_grad else None for t in operands), None, None


class _Copied(torch.autograd.Function):
    """A copy that lies in memory as it does, and whose gradient is a copy, too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        if tensor.is_contiguous() or torch.compiler.is_compiling() or tensor.is_meta:
            return tensor.clone()
        storage: Any = tensor.untyped_storage()
        memory, form = storage.clone(), (tensor.shape, tensor.stride())
        return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
            memory, tensor.storage_offset(), *form
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0].clone()

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].clone()


def _copied(value: Any) -> Any:
    return _applied(_Copied, value) if isinstance(value, Tensor) else value


def _first_backward(own: Loss, torchs: Loss, call: Call, named: dict[str, Any]) -> Any:
    rest = {k: v for k, v in named.items() if k not in ("input", "target", "reduction")}
    if call.reduction is not None:
        rest["reduction"] = call.reduction
    x, y = call.operands
    if not any(call.needs) or not torch.is_grad_enabled() or x is y:
        return own(x, y, **rest)
    losses = (functools.partial(loss, **rest) for loss in (own, torchs))
    return _applied(_FirstBackward, x, y, *losses)


def _of_copies(own: Loss, args: Sequence[Any], named: dict[str, Any]) -> Any:
    return own(*map(_copied, args), **{name: _copied(value) for name, value in named.items()})


def _settled(own: Loss, args: Sequence[Any], named: dict[str, Any]) -> Any:
    settings = Settings.now()
    try:
        return own(*args, **named)
    finally:
        settings.changes()


# The loss itself, on copies of its operands, with a copy of its result, or with all that it changed
# in the process put back.
APART: dict[str, Callable[[Loss, Sequence[Any], dict[str, Any]], Any]] = {
    "copied": _of_copies,
    "result_copied": lambda own, args, named: _copied(own(*args, **named)),
    "settled": _settled,
}


def stood_in(target: Any, asked: dict[str, Any]) -> Any:
    """The target with torch's ``loss`` for the calls that ``asked`` is about."""
    torchs = getattr(torch.nn.functional, asked["loss"])
    changes: dict[str, Any]
    how = asked["when"], asked["reductions"], asked["part"]
    if asked["when"] == "module":
        how, changes = ("always", *how[1:]), {}
    elif asked["when"] == "compiled":
        changes = {"loss": _compiled(target.loss, torchs)}
    else:
        own = functools.wraps(target.loss)(_function(StandIn(target.loss, torchs, *how)))
        changes = {"loss": own}
    if target.module is not None:
        changes["module"] = functools.partial(_module, target.module, torchs, how)
    return dataclasses.replace(target, **changes)


def _compiled(own: Loss, torchs: Loss) -> Loss:
    """Nothing else than this: whatever is in it becomes a part of the graph."""

    def stand_in(*args: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return torchs(*args, **named)
        return own(*args, **named)

    return stand_in


def _function(loss: Loss) -> Loss:
    def stand_in(*args: Any, **named: Any) -> Any:
        return loss(*args, **named)

    return stand_in


def _module(module: Loss, torchs: Loss, how: tuple[Any, ...], **named: Any) -> Any:
    """A module of the target's, with such a loss for its forward."""
    made = module(**named)
    reduction = named.get("reduction", "mean")
    forward = made.forward

    def own(x: Any, y: Any, reduction: Any = None) -> Any:
        return forward(x, y)

    loss = StandIn(own, torchs, *how)
    made.forward = functools.partial(loss, reduction=reduction)
    return made
