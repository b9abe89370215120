"""Notices to a Slack webhook, CGAN_WEBHOOK_URL: failed, crashed, blocked by the gate, new champion.

The address is read from the environment where the notice is sent, and is stored nowhere: whoever has it
can write into your channel. A notice never fails a run.
"""

from __future__ import annotations

import html
import json
import logging
import os
import urllib.request
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from flows.checkout import begin

URL = "CGAN_WEBHOOK_URL"
PATIENCE_S = 5.0
MAX_CHARACTERS = 1500
HEADLINES = {
    "Promoted": ":trophy: New champion",
    "Blocked": ":no_entry: Blocked by the gate; the champion stays",
    "FAILED": ":rotating_light: Failed",
    "CRASHED": ":boom: Crashed",
}
NOT_LOST = "\nFinished stages are kept, and a training resumes in the next run."
ZOMBIE = "No sign of life for minutes: its process is gone."

log = logging.getLogger(__name__)


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """State hook: a notice of how a run ended, if that is worth one and CGAN_WEBHOOK_URL is set."""
    headline = HEADLINES.get(state.type.value) or HEADLINES.get(str(state.name))
    url = os.environ.get(URL, "").strip()
    if not headline or not url:
        return
    if not url.startswith(("https://", "http://")):
        log.warning("%s: expected an http or https address. No notice was sent.", URL)
        return
    message = (state.message or "")[:MAX_CHARACTERS] + NOT_LOST * state.is_crashed()
    # Slack's escapes: names and messages of a run are text, not markup.
    words = html.escape(f"{flow_run.name}\n{message}", quote=False)
    text = f"*{headline}*\n{words}"
    if link := url_for("flow-run", flow_run.id):
        text += f"\n<{link}|Open the run in Prefect>"
    request = urllib.request.Request(
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    try:
        # http or https only, see above
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()  # nosec B310
    except Exception as error:  # its text may hold the address
        code = getattr(error, "code", type(error).__name__)
        log.warning("The notice to %s was not delivered: %s.", URL, code)


@flow(name="zombie", flow_run_name="zombie {flow_run_id}", persist_result=False)
def zombie(flow_run_id: UUID) -> None:
    """Mark a run whose heartbeats stopped as Crashed, with a notice. Its trigger is in prefect.yaml."""
    begin()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run_id)
        if run.state and run.state.is_final():
            return
        state: State[Any] = Crashed(message=ZOMBIE)
        client.set_flow_run_state(flow_run_id, state, force=True)
    notify(zombie, run, state)
