"""deploy/service: what its files say of each other and of the service."""

import re
import tomllib

from conftest import ROOT

from cgan.pipeline.params_file import read_yaml

FOLDER = ROOT / "deploy/service"
COMPOSE = read_yaml(FOLDER / "compose.yaml")


def test_containers_are_reached_from_this_machine_only_and_get_the_files_that_they_name() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for kept in (volume.partition(":")[0] for volume in service.get("volumes", ())):
            assert kept in COMPOSE["volumes"] or (FOLDER / kept).exists()
    image = (FOLDER / "Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    assert re.findall(r"^USER (.+)$", image, re.MULTILINE)[-1] == "1000:1000"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = extras["optional-dependencies"]["pipeline"]
    bounds = {re.split("[>=]", each)[0]: each for each in needed}
    for asked in (bounds["mlflow"].replace("mlflow", "mlflow-skinny"), bounds["sqlalchemy"]):
        assert f'"{asked}"' in image
    tried = re.search(r"^mlflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tried and COMPOSE["services"]["mlflow"]["image"].endswith(f":v{tried[1]}")
