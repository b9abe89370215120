"""Put the automations of silent.yaml and notices.yaml into the Prefect server at PREFECT_API_URL.
One that is there and differs is replaced.

    python -m flows.automations [BLOCK]

BLOCK is where notices go: the slug of a notification block of that server, such as `slack-webhook/cgan`.
"""

import argparse
import contextlib
import sys
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from cgan.errors import CganError
from cgan.pipeline.params_file import read_yaml
from flows.repro import say

SILENT, NOTICES = (Path(__file__).with_name(f"{name}.yaml") for name in ("silent", "notices"))


def apply(block: str = "") -> list[str]:
    """Returns the names of the automations. Raises CganError where the server has no such block."""
    contents = [read_yaml(SILENT)]
    if block:
        contents.append(read_yaml(NOTICES))
        contents[-1]["actions"][0]["block_document_id"] = _id_of(block)
    with get_client(sync_client=True) as client:
        for each in contents:
            wanted = AutomationCore.model_validate(each)
            present = client.read_automations_by_name(wanted.name)
            # Only what differs is replaced: a new automation has seen no heartbeat yet, so a run that has
            # stopped sending them would stay Running.
            if [AutomationCore.model_validate(one.model_dump()) for one in present] == [wanted]:
                continue
            client.create_automation(wanted)  # first, so that there is one even if this fails
            for outdated in present:
                client.delete_automation(outdated.id)
    return [each["name"] for each in contents]


def _id_of(block: str) -> str:
    kind, _, name = block.partition("/")
    with contextlib.suppress(ObjectNotFound), get_client(sync_client=True) as client:
        return str(client.read_block_document_by_name(name, kind).id)
    raise CganError(
        f"{block[:100]} is no block of this Prefect server. Make one on its page Blocks, such as a Slack "
        "Webhook named cgan, and give its slug: slack-webhook/cgan."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.automations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("block", nargs="?", default="", metavar="BLOCK")
    try:
        for name in apply(parser.parse_args().block):
            say(f"Automation `{name}` is in the server.")
    except (CganError, httpx.TransportError, PrefectHTTPStatusError) as error:
        sys.stderr.write(f"Error: {error or type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
