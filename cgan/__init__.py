"""Trains class-conditional generators of labelled images, and measures their drawings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgan.data.images import Images as Images
    from cgan.data.read import read as read
    from cgan.drawing.generator import Generator as Generator
    from cgan.page.write_page import write_page as write_page
    from cgan.privacy.sharing import Sharing as Sharing
    from cgan.privacy.sharing import sharing as sharing
    from cgan.quality.comparison import Comparison as Comparison
    from cgan.quality.comparison import compare as compare
    from cgan.quality.evaluate import evaluate as evaluate
    from cgan.quality.evaluation import Evaluation as Evaluation
    from cgan.training.fit import Run as Run
    from cgan.training.fit import fit as fit
    from cgan.utility.evidence import Evidence as Evidence
    from cgan.utility.evidence import evidence as evidence

__version__ = "1.0.0"
_MODULES = {
    "Comparison": "cgan.quality.comparison",
    "Evaluation": "cgan.quality.evaluation",
    "Evidence": "cgan.utility.evidence",
    "Generator": "cgan.drawing.generator",
    "Images": "cgan.data.images",
    "Run": "cgan.training.fit",
    "Sharing": "cgan.privacy.sharing",
    "compare": "cgan.quality.comparison",
    "evaluate": "cgan.quality.evaluate",
    "evidence": "cgan.utility.evidence",
    "fit": "cgan.training.fit",
    "read": "cgan.data.read",
    "sharing": "cgan.privacy.sharing",
    "write_page": "cgan.page.write_page",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import cgan` must not wait for torch.
    if name in _MODULES:
        try:
            return getattr(importlib.import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "cgan").startswith("cgan"):
                raise
            advice = f"cgan.{name} needs {error.name}: install it with `pip install 'cgan[train]'`."
            raise ModuleNotFoundError(advice, name=error.name) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
