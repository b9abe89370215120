"""One thin module a DVC stage: read params, read inputs, call the core, write outputs.

May import: everything but reports, the registry and the command line. dvc.yaml lists what each stage imports.
"""

import importlib.util
import sys

# DVC starts `python` as PATH has it, though dvc itself may have been called by its path.
if missing := [name for name in ("pydantic", "torch") if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"Error: {sys.executable} was started for this stage, but has no {' and no '.join(missing)}. "
        "Activate the environment first (`source .venv/bin/activate`), or use `make repro`."
    )
