"""The addresses of the service: what each tells, who may ask, and how OpenAPI describes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import SECURE, a_model, detail, running, running_file
from served import client as client
from served import model as model

from cgan.service.app import Service, policy_for
from cgan.service.served import Keeper
from cgan.serving.generator import Generator


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/draw", 422, "`text`: required, found nothing"),
        ("/draw?text=1&labels=1", 422, "`labels`: there is no such field"),
        ("/draw?text=1&seed=x", 422, "found 'x'"),
        (
            "/draw?text=1&seed=9999999999999999999",
            422,
            "`seed`: expected a value less than or equal to",
        ),
        ("/draw?" + "&".join(f"a{i}=1" for i in range(2000)), 422, "And 1,996 more."),
        ("/nowhere", 404, "there is no such address. There are /openapi.json, /, /draw, /model"),
        ("/draw/", 404, "there is no such address"),
        ("/docs", 404, "there is no such address"),
        ("/..%2f..%2fetc/passwd", 404, "there is no such address"),
        ("/%0d%0aSet-Cookie:x", 404, "there is no such address"),
    ],
)
def test_f74_an_address_without_sense_is_refused_with_the_reason(
    path: str, status: int, words: str, client: httpx.Client
) -> None:
    answer = client.get(path)
    assert (answer.status_code, words in detail(answer)) == (status, True), answer.text


@pytest.mark.parametrize(("method", "path"), [("PUT", "/draw"), ("POST", "/")])
def test_another_method_is_refused_in_words(method: str, path: str, client: httpx.Client) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert "GET, HEAD" in answer.headers["allow"]
    assert f"expected {answer.headers['allow']}, found '{method}'" in detail(answer)


# ------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.0.7", 421),
        ("", 421),
    ],
)
def test_a_name_that_was_turned_to_this_machine_is_refused(
    host: str, status: int, client: httpx.Client
) -> None:
    for path in ("/", "/draw?text=1", "/model", "/metrics"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == status
    if status != 200:
        assert "expected this machine, such as localhost or 127.0.0.1" in detail(answer)


@pytest.mark.parametrize(
    ("names", "host", "status"),
    [(["Box"], "box:8000", 200), (["box"], "other", 421), (None, "any.example", 200)],
)
def test_its_own_name_is_taken_and_any_where_others_may_ask(
    names: list[str] | None, host: str, status: int, model: Path
) -> None:
    with running(Service(Keeper(str(model))), names) as client:
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_a_page_of_another_site_may_show_few_drawings_and_read_nothing(
    client: httpx.Client,
) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    few = client.get(f"/draw?text={'1' * 64}", headers=foreign)
    assert few.status_code == 200
    assert few.headers["cross-origin-resource-policy"] == "cross-origin"
    many = client.get("/draw?text=1&count=65", headers=foreign)
    assert many.status_code == 403
    assert "a page of another site, for which at most 64 drawings are made at once" in detail(many)
    assert client.get("/draw?text=1&count=65").status_code == 200
    for path in ("/", "/model", "/metrics", "/openapi.json"):
        assert client.get(path).headers["cross-origin-resource-policy"] == "same-origin"
    posted = client.post("/draw", json={"text": "1"})
    assert posted.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in few.headers if name.startswith("access-control")]


# ------------------------------------------------------------------------------- what each tells


def test_model_tells_facts_and_what_is_not_known_is_null(client: httpx.Client, model: Path) -> None:
    facts = Generator.load(model).facts
    for path in ("/", "/model", "/draw?text=1"):
        assert client.get(path).headers["cgan-model-digest"] == facts["digest"]
    found = client.get("/model").json()
    assert found["facts"] == facts
    assert (found["classes"], found["shape"], found["source"]) == (10, [28, 28], str(model))
    assert found["metrics"] is found["passport"] is found["version"] is None


def about(asked: str) -> dict[str, Any]:
    served = Keeper(asked).current
    assert served
    return served.about()


def test_model_tells_the_quality_that_evaluate_found_of_this_generator(tmp_path: Path) -> None:
    path = a_model(tmp_path / "models/generator.safetensors")
    report = {
        "conditional_accuracy": {"value": 0.9, "floor": 1.0, "by_class": [0.8, 1.0]},
        "passport": {"generator_digest": Generator.load(path).facts["digest"], "seed": 1},
    }
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/evaluation.json").write_text(json.dumps(report))
    known = about(str(path))
    assert known["metrics"]["conditional_accuracy"] == 0.9
    assert known["real_images"]["conditional_accuracy"] == 1.0
    assert known["passport"]["seed"] == 1
    a_model(path, seed=1)  # the report is of another one now
    assert about(str(path))["metrics"] is None


def test_model_tells_the_quality_that_the_packages_own_file_states() -> None:
    found = about("digits")
    assert found["metrics"]["conditional_accuracy"] > 0.98
    assert found["real_images"]["conditional_accuracy"] > 0.98
    assert found["passport"]["generator_digest"] == found["digest"]


def test_it_lives_and_is_ready(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"alive": True}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["registry"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ready.json()["model"]["since"])
    for path in ("/", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 10


def test_metrics_count_requests_and_drawings(model: Path) -> None:
    with running_file(model) as client:
        for _ in range(3):
            client.post("/draw", json={"text": "2024"})
        client.post("/draw", json={"text": "x"})
        client.get("/nowhere")
        client.request("BREW", "/draw")
        text = client.get("/metrics").text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["cgan_requests_total", "/draw", "200", "POST"] == 3
    assert found["cgan_requests_total", "/draw", "422", "POST"] == 1
    assert found["cgan_requests_total", "404", "GET", "other"] == 1
    assert found["cgan_requests_total", "/draw", "405", "other"] == 1
    assert found["cgan_request_seconds_count", "/draw"] == 5
    assert found["cgan_drawings_total",] == 12
    assert found["cgan_in_flight",] == 1  # the question itself
    assert found["cgan_model_info", "", "", Generator.load(model).facts["digest"]] == 1


def test_openapi_has_an_operation_with_examples_for_each_address(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/", "/draw", "/model", "/healthz", "/readyz", "/metrics"}
    post = document["paths"]["/draw"]["post"]
    for example in document["components"]["schemas"]["DrawRequest"]["examples"]:
        assert client.post("/draw", json=example).status_code == 200
    forms = set(post["responses"]["200"]["content"])
    assert forms == {"image/png", "application/json", "text/csv", "application/x-npz"}
    assert "HTTPValidationError" not in json.dumps(document)
    operations = [
        each["operationId"] for path in document["paths"].values() for each in path.values()
    ]
    assert len(operations) == len(set(operations))


def test_the_page_may_run_its_own_scripts_and_ask_for_nothing(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy == policy_for(answer.text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy
    assert "unsafe-eval" not in policy
    assert all(name in answer.headers for name in SECURE)
