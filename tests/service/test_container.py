"""deploy/service: what its files say of each other, of this machine, and of the service."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families
from served import a_model, running

from cgan.params.reading import read_yaml
from cgan.service.served import COPIES, Keeper

FOLDER = ROOT / "deploy/service"
IMAGE = (FOLDER / "Containerfile").read_text()
COMPOSE = read_yaml(FOLDER / "compose.yaml")


def test_the_dashboard_asks_for_metrics_and_labels_that_the_service_has(tmp_path: Path) -> None:
    with running(Keeper(str(a_model(tmp_path / "generator.safetensors")))) as client:
        client.get("/draw?text=1")
        answer = client.get("/metrics").text
    samples = [each for of in text_string_to_metric_families(answer) for each in of.samples]
    labels = {label for sample in samples for label in sample.labels.items()}
    panels = json.loads((FOLDER / "grafana/service.json").read_text())["panels"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    assert set(re.findall(r"cgan_\w+", asked)) <= {sample.name for sample in samples}
    assert set(re.findall(r'(\w+)="(.+?)"', asked)) <= labels
    (job,) = read_yaml(FOLDER / "prometheus.yml")["scrape_configs"]
    (port,) = re.findall(r"EXPOSE (\d+)", IMAGE)
    assert (
        job["static_configs"] == [{"targets": [f"draw:{port}"]}] and "draw" in COMPOSE["services"]
    )


def test_containers_are_reached_from_this_machine_only_and_get_the_files_that_they_name() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            kept, _, _ = volume.partition(":")
            assert kept in COMPOSE["volumes"] or (FOLDER / kept).exists()


def test_the_image_is_built_from_what_is_here_and_its_user_may_keep_a_copy_of_the_champion() -> (
    None
):
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", IMAGE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    (home,) = re.findall(r"^WORKDIR (.+)$", IMAGE, re.MULTILINE)
    assert f"install -d -o cgan -g cgan {home}/{COPIES}\n" in IMAGE
    assert COMPOSE["services"]["draw"]["volumes"] == [f"served:{home}/{COPIES}"]
    assert re.findall(r"^USER (.+)$", IMAGE, re.MULTILINE)[-1] == "1000:1000"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    bounds = {re.split("[>=]", each)[0]: each for each in extras["pipeline"]}
    for asked in (bounds["mlflow"].replace("mlflow", "mlflow-skinny"), bounds["sqlalchemy"]):
        assert f'"{asked}"' in IMAGE
