"""deploy/service: what its files say of each other and of the service."""

import re

from conftest import ROOT

from cgan.pipeline.params_file import read_yaml

FOLDER = ROOT / "deploy/service"


def test_containers_are_reached_from_this_machine_only() -> None:
    for service in read_yaml(FOLDER / "compose.yaml")["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    image = (FOLDER / "Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
