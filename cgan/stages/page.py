"""Stage page: the run as one HTML file, with the generator in it."""

from cgan.files import write_text
from cgan.model.hardware import compute_deterministically
from cgan.page.run_page import run_page
from cgan.params.reading import load_params
from cgan.project import RUN_PAGE, home
from cgan.stages.runner import log, run_stage


def main() -> None:
    compute_deterministically()
    page = run_page(load_params(), home())
    write_text(RUN_PAGE, page)
    log.info("%s: %.1f MB; it opens in any browser, offline.", RUN_PAGE, len(page.encode()) / 1e6)


if __name__ == "__main__":
    run_stage(main)
