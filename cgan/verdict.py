"""A verdict with its reasons and tables: one report as JSON, as Markdown and for a terminal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgan.files import write_json, write_text
from cgan.markdown import in_markdown


@dataclass
class Report:
    """A verdict with its reasons. `facts`: further entries of the JSON file. `sections`: tables in Markdown
    by their headings."""

    title: str
    verdict: str
    summary: str
    reasons: list[str]
    time: str
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)

    def body(self, picture: str = "") -> str:
        """All but the title, in Markdown; `picture` comes after the summary."""
        parts = [in_markdown(self.summary), picture]
        parts.append("\n".join(f"- {in_markdown(reason)}" for reason in self._other_reasons()))
        parts += [f"## {heading}\n\n{text}" for heading, text in self.sections.items()]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _other_reasons(self) -> list[str]:
        """The reasons that the summary does not give already."""
        return [reason for reason in self.reasons if reason not in self.summary]

    def write(self, json_path: Path, text_path: Path) -> None:
        fields = {key: getattr(self, key) for key in ("verdict", "summary", "reasons", "time")}
        write_json(json_path, fields | self.facts)
        write_text(text_path, f"# {self.title}: {self.verdict}\n\n{self.body()}")

    def say(self, say: Callable[[str], None], source: Path | str) -> None:
        """Say the verdict and the reasons, line by line; `source`: the file that has every number."""
        say(f"{self.verdict.upper()}: {self.summary}")
        for reason in self._other_reasons():
            say(f"  - {reason}")
        say(f"  {source} has every number.")
