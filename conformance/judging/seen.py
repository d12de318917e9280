"""What was seen of a target, as data: tensors as arrays, and what happened around them."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference.formats import Floats


@dataclass(frozen=True)
class Seen:
    """A tensor that a target gave back. ``values``: float64, of its shape."""

    values: Floats
    dtype: str
    device: str


@dataclass
class Observation:
    """All that was seen in one run; what did not happen stays None or empty.

    ``rubbish``: what came back instead of a tensor. ``raised``, ``raised_backward``: the exception
    as text. ``gradients``: for each operand that needs one; a missing gradient is None.
    ``changed``: the tensors handed in whose memory or version counter was not as before.
    ``attributes``: the operands whose ``requires_grad``, ``.grad``, memory, strides or dtype were
    not as before.
    ``settings``: what the call changed in torch's settings (put back since).
    """

    value: Seen | None = None
    rubbish: str | None = None
    raised: str | None = None
    requires_grad: bool = False
    raised_backward: str | None = None
    gradients: dict[str, Seen | None] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    alias: str | None = None
    settings: list[str] = field(default_factory=list)
