"""How the code of two runs differs, as far as this clone and the runs know."""

from __future__ import annotations

import re
from typing import Any

from cgan import git
from cgan.project import project_root

LONGEST = 30_000  # characters; GitHub takes 65,536 in a comment


def code_facts(*runs: dict[str, Any]) -> dict[str, Any]:
    """`origin`: what each run was made from. `stat` and `patch` are empty for equal or unknown code."""
    root, lines, made, found = project_root(), [], [], ["", ""]
    for name, run in zip("AB", runs, strict=True):
        origin, patch = run["lineage"]["origin"], run.get("patch", b"")
        commit = origin.get("commit", "")
        line = f"{name}: commit {commit[:10]}" if commit else f"{name}: made outside of git"
        if git.has_commit(root, commit):
            made.append((commit, patch))
        elif commit:
            line += f" (not in this clone: git fetch origin {commit})"
        if patch:
            changed = re.findall(rb'^diff --git "?a/(.+?)"? "?b/', patch, re.MULTILINE)
            names = b", ".join(changed).decode(errors="replace")
            line += f", with uncommitted changes of {names:.300}"
        elif origin.get("dirty") == "true":
            line += ", with uncommitted changes (not shown: only its run in MLflow may have them)"
        lines.append(f"{line}.")
    if len(made) == len(runs):
        try:
            found = git.code_between(root, *made)
            lines += [] if found[0] else [f"No known difference in {', '.join(git.CODE)}."]
        except git.GitError as error:
            lines.append(f"They cannot be compared: {error}")
    stat, patch = found
    if len(patch) > LONGEST:
        shown = patch[:LONGEST].rpartition("\n")[0]
        more = len(patch.splitlines()) - len(shown.splitlines())
        patch = f"{shown}\n… {more:,} more lines"
    return {"origin": " ".join(lines), "stat": stat, "patch": patch}
