"""The files in deploy/: the installed versions know what they set, systemd and compose can read them."""

import getpass
import re
import shutil
import subprocess
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import click
import pytest
import yaml
from conftest import ROOT
from mlflow import __file__ as mlflow_package
from mlflow import environment_variables
from mlflow.cli import cli as mlflow
from mlflow.server.security_utils import should_block_cors_request
from mlflow.version import VERSION as MLFLOW_VERSION
from packaging.version import Version
from prefect.settings import Settings
from prefect.settings.base import PrefectBaseSettings

from flows import production

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "shared/compose.yaml").read_text())["services"]
OF_SERVERS = production.settings()


def known_to_prefect(of: type[PrefectBaseSettings] = Settings) -> set[str]:
    """The variables of its settings."""
    names: set[str] = set()
    for name, schema in (of.model_json_schema().get("$defs") or {}).items():
        for field in schema.get("properties", {}).values():
            names.update(field.get("supported_environment_variables", ()))
        assert name
    for field in of.model_json_schema()["properties"].values():
        names.update(field.get("supported_environment_variables", ()))
    return names


def known_to_mlflow() -> set[str]:
    options = mlflow.commands["server"].params
    named = {option.envvar for option in options if isinstance(option.envvar, str)}
    return named | {name for name in vars(environment_variables) if name.startswith("MLFLOW_")}


def test_what_the_servers_are_told_is_known_to_them_and_read_alike_by_all_who_read_it() -> None:
    wanted = set(OF_SERVERS)
    for service in COMPOSE.values():
        wanted |= set(service.get("environment", ()))
    prefects = {name for name in wanted if name.startswith("PREFECT_")}
    mlflows = {name for name in wanted if name.startswith("MLFLOW_")}
    assert len(prefects) > 8 and prefects <= known_to_prefect()
    # The compose file has a version of its own, and an older one does not know all that it is told.
    constrained = re.findall(
        r"^mlflow==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    if Version(MLFLOW_VERSION) < Version(constrained[0]):
        mlflows &= set(OF_SERVERS)
    assert mlflows and mlflows <= known_to_mlflow()
    by_shell = subprocess.check_output(
        ["sh", "-c", "set -a; . deploy/servers.env; env"], cwd=ROOT, text=True, env={}
    )
    assert set(map("=".join, OF_SERVERS.items())) <= set(by_shell.splitlines())


def test_make_up_and_the_shared_servers_are_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OF_SERVERS:
        monkeypatch.delenv(name, raising=False)
    env = production._environment(tmp_path, production.PORTS)
    assert OF_SERVERS.items() <= env.items()
    for name in ("prefect", "mlflow"):
        assert COMPOSE[name]["env_file"] == "../servers.env"
    for name in ("cgan-worker.service", "cgan.service"):
        assert re.search(
            r"^(EnvironmentFile=.*/deploy/servers.env|ExecStart=make up)$",
            (DEPLOY / "systemd" / name).read_text(),
            re.MULTILINE,
        )
    # In supervisord.conf nothing stands against it.
    configuration = RawConfigParser()
    configuration.read(production.CONFIGURATION)
    for section in configuration.values():
        assert not any(name in section.get("environment", "") for name in OF_SERVERS)


def test_the_shared_servers_are_these_versions_and_each_password_is_asked_for() -> None:
    pinned = dict(
        line.split("==", 1)
        for line in (ROOT / "constraints.txt").read_text().split()
        if "==" in line
    )
    assert COMPOSE["prefect"]["image"].startswith(f"prefecthq/prefect:{pinned['prefect']}-")
    built = COMPOSE["mlflow"]["build"]["dockerfile_inline"]
    assert f"mlflow:v{pinned['mlflow']}\n" in built and f"[auth]=={pinned['mlflow']}" in built
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "psycopg2-binary" in built and any(
        "psycopg2" in each for each in extras["optional-dependencies"]["postgres"]
    )
    text = (DEPLOY / "shared/compose.yaml").read_text()
    asked = re.findall(r"\$\{(\w+):\?\}", text)
    example = (DEPLOY / "shared/example.env").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) - set(asked) == {"MLFLOW_ARTIFACTS_DESTINATION"}
    for service, published in ((name, each.get("ports")) for name, each in COMPOSE.items()):
        assert bool(published) == (service == "caddy"), "what does not encrypt is not reached"
    at = COMPOSE["mlflow"]["environment"]["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"]
    assert should_block_cors_request(at, "POST", []), "of its own pages"
    assert not should_block_cors_request(at, "POST", [at])
    proxied = re.findall(r"reverse_proxy (\w+):(\d+)", (DEPLOY / "shared/Caddyfile").read_text())
    assert proxied == [("prefect", "4200"), ("mlflow", "5000")]


def test_mlflow_s_passwords_are_as_its_own_but_kept_for_a_minute() -> None:
    """To check one costs nearly half a CPU second: a status of two cores at work took 3 to 9 s an answer."""
    shipped, ours = RawConfigParser(), RawConfigParser()
    text = (Path(mlflow_package).parent / "server/auth/basic_auth.ini").read_text()
    shipped.read_string(text)
    ours.read(DEPLOY / "mlflow-auth.ini")
    changed = {"auth_cache_ttl_seconds": "60"}
    assert dict(ours["mlflow"]) == changed | {
        name: value
        for name, value in shipped["mlflow"].items()
        if name in ("default_permission", "database_uri", "admin_username")
    }
    known = all(f"# {name} = 0" in text for name in changed)
    assert known or Version(MLFLOW_VERSION) < Version("3.17"), (
        "it knows that, and has another default"
    )
    service = COMPOSE["mlflow"]
    at = service["environment"]["MLFLOW_AUTH_CONFIG_PATH"]
    assert f"../mlflow-auth.ini:{at}:ro" in service["volumes"]


def test_the_commands_of_compose_are_commands() -> None:
    command = COMPOSE["mlflow"]["command"].split()
    assert command[:2] == ["mlflow", "server"]
    server = mlflow.commands["server"]
    with click.Context(server) as context:
        _, left, _ = server.make_parser(context).parse_args(command[2:])
    assert left == []


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker")
def test_docker_can_read_the_compose_file(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    example = (DEPLOY / "shared/example.env").read_text()
    filled = re.sub(r"^(\w+)=$", r"\1=x", example, flags=re.MULTILINE)
    (tmp_path / "deploy/shared/.env").write_text(filled)
    command = ["docker", "compose", "config", "--quiet"]
    subprocess.run(command, cwd=tmp_path / "deploy/shared", check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
@pytest.mark.parametrize("name", ["cgan-worker", "cgan"])
def test_systemd_can_read_the_units(tmp_path: Path, name: str) -> None:
    """With this clone in the place of theirs."""
    unit = tmp_path / f"{name}.service"
    python = ROOT / ".venv/bin/python"
    text = (DEPLOY / "systemd" / unit.name).read_text().replace("/srv/cgan", str(ROOT))
    text = text.replace(str(python), shutil.which("python3") or "/usr/bin/python3")
    text = text.replace("User=cgan", f"User={getpass.getuser()}")
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(text.replace("Restart=", "Restart=sometimes-"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert "Failed to parse" in done.stderr, "it can fail"
