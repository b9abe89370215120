"""Class-conditional DCGAN on labelled images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgan.attacks.sharing import Sharing
    from cgan.disclosure import sharing
    from cgan.drawing.generator import Generator
    from cgan.evaluation import Evaluation
    from cgan.fitting import Run, fit
    from cgan.images import Images
    from cgan.page.write_page import write_page
    from cgan.quality.evaluate import evaluate
    from cgan.readers.sources import read
    from cgan.usefulness import Evidence, evidence

__version__ = "0.2.0"
__all__ = [
    "Evaluation",
    "Evidence",
    "Generator",
    "Images",
    "Run",
    "Sharing",
    "__version__",
    "evaluate",
    "evidence",
    "fit",
    "read",
    "sharing",
    "write_page",
]
_MODULES = {
    "Evaluation": "cgan.evaluation",
    "Evidence": "cgan.usefulness",
    "Generator": "cgan.drawing.generator",
    "Images": "cgan.images",
    "Run": "cgan.fitting",
    "Sharing": "cgan.attacks.sharing",
    "evaluate": "cgan.quality.evaluate",
    "evidence": "cgan.usefulness",
    "fit": "cgan.fitting",
    "read": "cgan.readers.sources",
    "sharing": "cgan.disclosure",
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
