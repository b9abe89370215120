"""Mutation tests: changes the code in thousands of small ways; each change ought to fail a test.

    make mutants                        every module, 40 mutants of each, drawn by a seed
    make mutants MODULE=training/losses SAMPLE=0   every mutant of one module (or of several)
    make mutants FRESH=1                forgets earlier results, of these modules
    make mutants REPORT=1               prints the table of what is known, runs nothing

mutmut makes the mutants and keeps their state, one folder a module under .cgan/mutants. Stop it at any
time: the next call goes on. Results are kept until the mutated function changes; survivors are tried
again when the module's tests (modules.toml) change. The table and the survivors: .cgan/mutants/report.md.

Left out: text with a space in it and whatever a `raise` or a log call says (wording is the reviewer's),
type hints, constants of modules and fields of classes (read once, before a mutant can be switched on).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STATE = ROOT / ".cgan/mutants"
CONFIG = tomllib.loads((HERE / "modules.toml").read_text(encoding="utf-8"))
SEED = 1
# Decorators that may stay around a function while its body is exchanged.
OUTER = {"contextmanager", "property", "no_grad", "inference_mode"}
LOGGERS = {"log", "logger", "logging", "warnings"}
# A mutant is given so many times what its tests took, and so many seconds. Generous: on a busy machine
# the same tests can take far longer, and for a test that hangs there is pytest's own limit.
TIMES, MORE = 6, 240.0
VERDICTS = ("killed", "timeout", "equivalent", "survived", "no test")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("modules", nargs="*", default=[*CONFIG["tests"]])
    parser.add_argument("--sample", type=int, default=40, help="mutants of each module, 0 for all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the child's part, in a module's folder
    options = parser.parse_args()
    if options.one:
        run_one(options.one, options.sample, options.jobs)
        return
    if unknown := set(options.modules) - CONFIG["tests"].keys():
        parser.error(f"{', '.join(sorted(unknown))}: not in {HERE.name}/modules.toml")
    for module in [] if options.report else options.modules:
        folder = prepare(module, options.fresh)
        print(f"{module}:", flush=True)
        command = [sys.executable, str(HERE), "--one", module]
        command += ["--sample", str(options.sample), "--jobs", str(options.jobs)]
        # Forks and threads don't go together.
        quiet = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = {"PYTHONPATH": str(folder / "mutants")}
        with subprocess.Popen(command, cwd=folder, env=os.environ | quiet | path) as child:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                code = child.wait()  # it has got the Ctrl-C, too, and writes down what it knows
        if code:
            sys.exit(code)
    report()


def prepare(module: str, fresh: bool) -> Path:
    """A copy of the working tree with mutmut's settings for this module; unchanged files stay as
    they are, by whose times mutmut tells what to mutate anew."""
    folder = STATE / module.replace("/", ".")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout
    files = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for name in files - {"pyproject.toml"}:
        source, copy = ROOT / name, folder / name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    shutil.copy(HERE / "inside.py", folder / "cgan/_mutants.py")
    (folder / "mutants").mkdir(exist_ok=True)  # in time for the child's sys.path
    tests = [f"tests/{name}.py" for name in CONFIG["tests"][module]]
    settings = {
        "source_paths": ["cgan"],
        "only_mutate": [f"cgan/{module}.py"],
        "also_copy": sorted({name.split("/")[0] for name in files} - {"cgan", "pyproject.toml"}),
        "pytest_add_cli_args": ["-p", "cgan._mutants", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": [name for name in tests if (ROOT / name).exists()],
        "process_isolation": "forkserver",
        "on_dependency_change": "ignore",
    }
    toml = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{toml}\n", encoding="utf-8")
    return folder


def run_one(module: str, sample: int, jobs: int) -> None:
    """Mutate one module and try its mutants, in the folder made by `prepare`."""
    adapt()
    from mutmut import __main__ as mutmut
    from mutmut.state import state
    from mutmut.utils.format_utils import mangled_name_from_mutant_name as function_of

    begun = time.monotonic()
    path = Path(f"cgan/{module}.py")
    mutmut.set_mutant_under_test("mutant_generation")
    if not sys.stdout.isatty():
        mutmut.print_status = lambda *_, **__: None
    with mutmut.CatchOutput(spinner_title="Generating mutants"):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(1)
    data = mutmut.SourceFileMutationData(path=path)
    data.load()
    tests_changed(data)
    runner = mutmut.get_mutant_runner(jobs)
    mutmut.collect_or_load_stats(runner)
    mutmut.set_mutant_under_test("")
    results, seconds = data.exit_code_by_key, state().duration_by_test
    reach = {name: state().tests_by_mangled_function_name[function_of(name)] for name in results}

    def submit(name: str, tests: set[str]) -> None:
        expected = sum(seconds[test] for test in tests)
        limit = 2 * int(TIMES * expected + MORE)  # of CPU time; half of it by the clock
        runner.submit(name, sorted(tests), limit, expected)

    def take() -> None:
        mutmut._register_mutant_result(runner.wait_for_result(), dict.fromkeys(todo, data))

    chosen = sorted(results)
    if 0 < sample < len(chosen):
        chosen = random.Random(f"{SEED} {module}").sample(chosen, sample)
    # The limits are such that only a busy machine reaches them: not a verdict.
    todo = [n for n in chosen if results[n] is None or verdict(results[n]) == "timeout"]
    todo.sort(key=lambda name: sum(seconds[test] for test in reach[name]))
    checked = Path("checked")  # that these tests pass in the fork server, when nothing is changed
    try:
        if todo:
            runner.startup()
        if todo and not checked.exists():
            submit("no mutant", set().union(*reach.values()))
            if (code := runner.wait_for_result().exit_code) not in (0, 33):  # 33: no tests at all
                sys.exit(f"the tests of {module} fail with no mutant at all (pytest's code {code})")
            checked.touch()
        for count, name in enumerate(todo, 1):
            while not runner.has_capacity():
                take()
            submit(name, reach[name])
            if sys.stdout.isatty():
                print(f"\r  {count} of {len(todo)}", end="", flush=True)
        runner.signal_work_complete()
        while runner.pending_count():
            take()
    except BaseException:
        runner.stop_all_workers()
        raise
    finally:
        runner.shutdown()
        with Path("seconds").open("a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - begun:.0f}\n")


def tests_changed(data: Any) -> None:
    """Forget the survivors, and which tests reach what, when the tests are not those of last time."""
    wanted = CONFIG["tests"][data.path.relative_to("cgan").with_suffix("").as_posix()]
    files = [
        file
        for file in sorted(Path("tests").rglob("*.py"))
        if not file.stem.startswith("test_")
        or file.relative_to("tests").with_suffix("").as_posix() in wanted
    ]
    now = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    known = Path("tests.sha256")
    if known.exists() and known.read_text(encoding="utf-8") != now:
        for stale in ("mutants/mutmut-stats.json", "checked"):
            Path(stale).unlink(missing_ok=True)
        for name, code in data.exit_code_by_key.items():
            if code is not None and verdict(code) != "killed":
                data.exit_code_by_key[name] = None
        data.save()
    known.write_text(now, encoding="utf-8")


def verdict(code: int) -> str:
    from mutmut.stats import status_by_exit_code

    status = status_by_exit_code[code]
    # Pytest ends with 2 when a mutant lets a test's Ctrl-C through; a crash is noticed, too.
    return {"survived": "survived", "no tests": "no test", "timeout": "timeout"}.get(
        status, "killed"
    )


def describe(module: str, path: Path, name: str, code: int) -> tuple[str, str]:
    """What became of a mutant, and if it lives a line about it: place, change, the reason if known."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    found = verdict(code)
    if found == "killed":
        return found, ""
    diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
    minus, plus = ([line[1:].strip() for line in diff if line[0] == sign] for sign in "-+")
    was, now = " ".join(minus), " ".join(plus)
    function, owner = orig_function_and_class_names_from_key(name)
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if owner:
        tree = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == owner)
    body = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    lines = path.read_text(encoding="utf-8").splitlines()
    places = range(body.lineno, (body.end_lineno or 0) + 1)
    guess = body.lineno + int(re.findall(r"\d+", diff[0])[0])
    places = [n for n in places if lines[n - 1].strip() == minus[0]] or [guess]
    line = min(places, key=lambda n: abs(n - guess))
    change = {"module": module, "was": was, "now": now}
    for known in CONFIG.get("equivalent", []):
        if found == "survived" and known == change | {"why": known["why"]}:
            found, reason = "equivalent", f": {known['why']}"
            break
    else:
        reason = ""
    return found, f"- {path}:{line} ({found}): `{was}` → `{now or '(left out)'}`{reason}"


def report() -> None:
    """Print the table and the survivors of all modules with results; keep both in a file."""
    head = ("module", "mutants", "tried", *VERDICTS, "score", "seconds")
    rows, living, total = [], [], [0] * (3 + len(VERDICTS))
    for module in CONFIG["tests"]:
        folder, path = STATE / module.replace("/", "."), Path(f"cgan/{module}.py")
        if not (folder / f"mutants/{path}.meta").exists():
            continue
        with contextlib.chdir(folder):
            results = json.loads(Path(f"mutants/{path}.meta").read_text(encoding="utf-8"))[
                "exit_code_by_key"
            ]
            tried = {name: code for name, code in results.items() if code is not None}
            found = [describe(module, path, name, code) for name, code in tried.items()]
            spent = Path("seconds")
            seconds = (
                sum(map(int, spent.read_text(encoding="utf-8").split())) if spent.exists() else 0
            )
        living += [text for _, text in found if text]
        verdicts = [verdict for verdict, _ in found]
        row = [len(results), len(tried), *map(verdicts.count, VERDICTS), seconds]
        total = [a + b for a, b in zip(total, row, strict=True)]
        rows.append((module, row))
    table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in [*rows, ("all", total)]:
        counted = row[1] - row[3] - row[4]
        score = f"{row[2] / counted:.1%}" if counted else "–"
        table.append(f"| {name} | {' | '.join(map(str, row[:-1]))} | {score} | {row[-1]} |")
    text = "\n".join([*table, "", *living])
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def adapt() -> None:
    """Teach mutmut this project's ways (see the module's docstring, and inside.py)."""
    import libcst as cst
    from mutmut.mutation import file_mutation, mutators

    def text(node: cst.BaseString) -> Any:
        # One change of a text will do, and none of a message.
        if isinstance(node, cst.SimpleString) and " " not in node.value:
            yield from list(mutators.operator_string(node))[:1]

    def outer(function: Any) -> bool:
        names = [d.decorator for d in function.decorators]
        names = [n.func if isinstance(n, cst.Call) else n for n in names]
        last = [n.attr.value if isinstance(n, cst.Attribute) else n.value for n in names]
        return bool(last) and set(last) <= OUTER

    def skip(visitor: Any, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and outer(node):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            owner = node.func.value
            if isinstance(owner, cst.Name) and owner.value in LOGGERS:
                return True
        return isinstance(node, cst.Raise) or original_skip(visitor, node)

    def arrange(function: Any, mutants: Any, class_name: str | None) -> Any:
        empty, nodes, filled, names = original_arrange(function, mutants, class_name)
        if outer(function):  # around the switch once, not around each body again
            nodes = [nodes[0], *(n.with_changes(decorators=()) for n in nodes[1:])]
        return empty, nodes, filled, names

    original_skip = file_mutation.MutationVisitor._skip_node_and_children
    original_arrange = file_mutation.function_trampoline_arrangement
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrange
    file_mutation.mutation_operators = [
        (kind, text if operator is mutators.operator_string else operator)
        for kind, operator in mutators.mutation_operators
    ]
    imports = "\n\nfrom cgan._mutants import mutated as _mutmut_mutated, MutantDict\n"
    file_mutation.trampoline_impl_cst = list(cst.parse_module(imports).body)


if __name__ == "__main__":
    main()
