"""Modes that see operators (``torch.utils._python_dispatch``), at no more than they cost."""

from __future__ import annotations

import sys
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Torch keeps Dynamo out of a mode by importing it, which takes a second: where nothing else
    has imported it, there is none to keep out."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]
        kept: Any = cls.__torch_dispatch__  # torch has wrapped it, or has not
        plain = getattr(kept, "__wrapped__", kept)

        def dispatch(*args: Any, **kwargs: Any) -> Any:
            return (kept if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

        cls.__torch_dispatch__ = dispatch  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]


class Through(Mode):
    """Runs each operator as it is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))
