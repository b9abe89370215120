"""The extras of this package, such as `pipeline` in `pip install 'cgan[pipeline]'`."""

import importlib.metadata
import re

PACKAGES = {  # what is imported of a distribution, where that has another name
    "psycopg2-binary": "psycopg2",
    "ruamel.yaml": "ruamel",
    "scikit-learn": "sklearn",
}


def extras_with(module: str) -> list[str]:
    """The extras that bring a module."""
    extras, package = [], module.partition(".")[0]
    installed = importlib.metadata.distributions(name="cgan")
    for requirement in [line for distribution in installed for line in distribution.requires or []]:
        match = re.match(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if match and package == PACKAGES.get(match[1].lower(), match[1].lower().replace("-", "_")):
            extras.append(match[2])
    return extras
