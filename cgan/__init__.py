"""Class-conditional DCGAN on labelled images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgan.attacks.sharing import Sharing, sharing
    from cgan.downstream.evidence import Evidence, evidence
    from cgan.drawing.generator import Generator
    from cgan.evaluation import Evaluation
    from cgan.fitting import Run, fit
    from cgan.images import Images
    from cgan.page.write_page import write_page
    from cgan.quality.comparison import Comparison, compare
    from cgan.quality.evaluate import evaluate
    from cgan.readers.sources import read

__version__ = "0.2.0"
__all__ = [
    "Comparison",
    "Evaluation",
    "Evidence",
    "Generator",
    "Images",
    "Run",
    "Sharing",
    "__version__",
    "compare",
    "evaluate",
    "evidence",
    "fit",
    "read",
    "sharing",
    "write_page",
]
_MODULES = {
    "Comparison": "cgan.quality.comparison",
    "Evaluation": "cgan.evaluation",
    "Evidence": "cgan.downstream.evidence",
    "Generator": "cgan.drawing.generator",
    "Images": "cgan.images",
    "Run": "cgan.fitting",
    "Sharing": "cgan.attacks.sharing",
    "compare": "cgan.quality.comparison",
    "evaluate": "cgan.quality.evaluate",
    "evidence": "cgan.downstream.evidence",
    "fit": "cgan.fitting",
    "read": "cgan.readers.sources",
    "sharing": "cgan.attacks.sharing",
    "write_page": "cgan.page.write_page",
}


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
