"""Class-conditional DCGAN on labelled image CSVs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgan.drawing.generator import Generator

__version__ = "0.2.0"
__all__ = ["Generator", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import cgan` must not wait for torch.
    if name == "Generator":
        from cgan.drawing.generator import Generator

        return Generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
