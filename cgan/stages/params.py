"""Stage params: is all of params.yaml valid? The first stage, so that a wrong value costs no output.

A key that the file lacks has its default. DVC sees no change of a default, so this stage's output names those
that are in use, and every stage that reads params depends on it. What dvc.yaml names must stand in the file:
DVC removes outputs before it says that a key is missing.
"""

import json
from pathlib import Path
from typing import Any

from cgan.errors import ParamsError
from cgan.files import write_json
from cgan.params.sections import flatten
from cgan.pipeline.params_file import load_params, read_yaml
from cgan.project import PARAMS_CHECKED
from cgan.stages.runner import run_stage

PARAMS, DVC_YAML = Path("params.yaml"), Path("dvc.yaml")


def main() -> None:
    params = load_params(PARAMS)
    values, in_file = flatten(params.model_dump(by_alias=True)), flatten(params)
    # The ranges of a sweep are no params of their own.
    defaults = {
        key: value
        for key, value in values.items()
        if key not in in_file and not key.startswith("sweep.space.")
    }
    if DVC_YAML.is_file():
        require_named(read_yaml(DVC_YAML), in_file, values)
    write_json(PARAMS_CHECKED, {"valid": True} | ({"defaults": defaults} if defaults else {}))


def require_named(stages: Any, in_file: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise ParamsError for a section or key that a stage has under `params` and params.yaml lacks."""
    named = {name for stage in stages["stages"].values() for name in stage.get("params", ())}
    for name in sorted(named):
        if any(f"{key}.".startswith(f"{name}.") for key in in_file):
            continue
        key, default = next(item for item in values.items() if f"{item[0]}.".startswith(f"{name}."))
        section, _, key = key.partition(".")
        raise ParamsError(
            f"{PARAMS}: `{name}` is missing, and {DVC_YAML} names it, so DVC needs it there. Under "
            f"`{section}:` add `{key}: {json.dumps(default)}`, which is the default."
        )


if __name__ == "__main__":
    run_stage(main)
