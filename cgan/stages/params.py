"""Stage params: is all of params.yaml valid? The first stage, so that a wrong value costs no output."""

from cgan.files import write_json
from cgan.params.reading import load_params
from cgan.project import PARAMS_CHECKED
from cgan.stages.runner import run_stage


def main() -> None:
    load_params()
    write_json(PARAMS_CHECKED, {"valid": True})


if __name__ == "__main__":
    run_stage(main)
