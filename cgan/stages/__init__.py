"""The stages of the pipeline, as DVC starts them: a thin module each, around calls of the library.

dvc.yaml calls them by their modules, and lists what each imports. May import: everything but the command
line.
"""

import importlib.util
import sys

# DVC starts `python` as PATH has it, though dvc itself may have been called by its path.
if missing := [name for name in ("pydantic", "torch") if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"Error: {sys.executable} was started for this stage, but has no {' and no '.join(missing)}. "
        "Activate the environment first (`source .venv/bin/activate`), or use `make repro`."
    )
