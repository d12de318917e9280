"""What a target says of itself, as data: it crosses the wall, and nothing of the target does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.cases.domain import FULL, Domain

if TYPE_CHECKING:  # with NumPy, which the command line does not need
    from reference.losses import Loss

DEVICES = ("cpu", "cuda")  # the kinds; a test holds them in step with ``targets``
# The claims that count only where the loss takes these parameters.
TAKING = {"weight": frozenset({"weight"}), "legacy": frozenset({"size_average", "reduce"})}


class UnknownLoss(ValueError):
    """A loss that has no specification. The message is for users."""

    def __init__(self, name: str) -> None:
        from reference.losses import LOSSES

        super().__init__(f"unknown loss {name!r}. Known: {', '.join(LOSSES)}")


@dataclass(frozen=True)
class Claimed:
    """Name and claims of a target (see ``targets.Target``), and where it was found.

    ``fingerprint``: SHA-256 of its sources. ``script``: where a script finds the loss, as
    ``module:attribute`` or ``file.py:attribute``; empty where it has no such name. ``loss_of``: the
    name of its specification; ``parameters``: those of it that the target takes. Of the
    specification: the ``function`` of torch that it stands for, and ``refused``, values of
    parameters that must raise.
    """

    name: str
    claims: frozenset[str]
    reductions: tuple[str, ...]
    dtypes: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    source: str = ""
    fingerprint: str = ""
    script: str = ""
    domain: Domain = FULL
    loss_of: str = "mse"
    parameters: tuple[str, ...] = ()
    function: str = "mse_loss"
    refused: tuple[tuple[str, float], ...] = ()

    @property
    def specification(self) -> Loss:
        """The specification by which it is judged."""
        from reference.losses import LOSSES

        return LOSSES[self.loss_of]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Claimed:
        """From what an observer says, but for claims that its loss does not make or that it lacks
        the parameters for.

        Raises ValueError where ``data`` is none, and UnknownLoss.
        """
        from reference.losses import LOSSES

        lists = ("claims", "reductions", "dtypes", "devices", "parameters")
        texts = ("name", "source", "fingerprint", "script", "loss_of")
        try:
            if not all(isinstance(w, str) for name in lists for w in data[name]):
                raise ValueError("a claim that is no text")
            if not all(isinstance(data[name], str) for name in texts):
                raise ValueError("a name that is no text")
            if data["loss_of"] not in LOSSES:
                raise UnknownLoss(data["loss_of"])
            loss = LOSSES[data["loss_of"]]
            lacking = _lacking(loss, frozenset(data["parameters"]))
            return cls(
                data["name"],
                frozenset(data["claims"]) - loss.unclaimed - lacking,
                tuple(data["reductions"]),
                tuple(data["dtypes"]),
                tuple(data["devices"]),
                data["source"],
                data["fingerprint"],
                data["script"],
                Domain.from_json(data["domain"]),
                loss.name,
                tuple(p.name for p in loss.parameters if p.name in data["parameters"]),
                loss.function,
                tuple((p.name, value) for p in loss.parameters for value in p.refused),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what a target claims: {error!r}") from error


def _lacking(loss: Loss, parameters: frozenset[str]) -> frozenset[str]:
    """The claims that are not made: torch's own does not take what they are about, or the target
    has no such ``parameters``."""
    taken = {"weight": bool(loss.formula.weight), "legacy": loss.legacy}
    return frozenset(c for c, names in TAKING.items() if not (taken[c] and names <= parameters))
