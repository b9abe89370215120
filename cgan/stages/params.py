"""Stage params: is all of params.yaml valid? The first stage, so that a wrong value costs no output.

A key that the file lacks has its default. DVC sees no change of a default, so this stage's output names those
that are in use, and every stage that reads params depends on it.
"""

import json
from pathlib import Path
from typing import Any

from cgan.base.errors import ParamsError
from cgan.base.files import write_json
from cgan.params.sections import flatten
from cgan.pipeline.params_file import load_params, read_yaml
from cgan.pipeline.project import PARAMS_CHECKED
from cgan.stages.runner import run_stage

PARAMS, DVC_YAML = Path("params.yaml"), Path("dvc.yaml")


def main() -> None:
    params = load_params(PARAMS)
    in_file, values = flatten(params), flatten(params.model_dump(by_alias=True))
    lacking = {key: value for key, value in values.items() if key not in in_file}
    if DVC_YAML.is_file():
        require_named(read_yaml(DVC_YAML)["stages"], in_file, lacking)
    # The ranges of a sweep are no params of their own.
    used = {key: lacking[key] for key in lacking if not key.startswith("sweep.space.")}
    write_json(PARAMS_CHECKED, {"valid": True} | ({"defaults": used} if used else {}))


def require_named(stages: Any, in_file: dict[str, Any], lacking: dict[str, Any]) -> None:
    """Raise ParamsError for a section or key that a stage has under `params` and params.yaml lacks: DVC would
    remove outputs before it says so."""
    for name in sorted({name for stage in stages.values() for name in stage.get("params", ())}):
        if not any(f"{key}.".startswith(f"{name}.") for key in in_file):
            whole = next(key for key in lacking if f"{key}.".startswith(f"{name}."))
            section, _, key = whole.partition(".")
            raise ParamsError(
                f"{PARAMS}: `{name}` is missing, and {DVC_YAML} names it. Under `{section}:` add `{key}: "
                f"{json.dumps(lacking[whole])}`, which is the default."
            )


if __name__ == "__main__":
    run_stage(main)
