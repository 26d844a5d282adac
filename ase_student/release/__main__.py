"""Turn a finished training into a published student."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ase_student import cli
from ase_student.checkpoint import load_student
from ase_student.files import file_sha256, replaced_when_complete
from ase_student.jobs.store import begin_job, check_job, only_writer
from ase_student.provenance import __version__
from ase_student.release.report import report
from ase_student.release.settings import ReleaseSettings, parser, settings_of
from ase_student.release.steps import STEPS, publish, verdict
from ase_student.validation.extras import progress_bar

#: Settings that do not change the results of the steps.
_NOT_IN_JOB = ("folder", "students", "force")
RESULTS = "results.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if the published student is better, 2 if the input is invalid."""
    arguments = parser().parse_args(argv)
    return cli.run(lambda: release(settings_of(arguments)))


def release(settings: ReleaseSettings) -> int:
    """Run all steps that are not complete, write the report, and publish if no figure is worse.

    Returns
    -------
    int
        0 if the student is published, 1 if it was not because it is worse.
    """
    job = job_of(settings)
    if job["before"] == job["weights_sha256"] and not settings.force:
        cli.say(f"'{settings.target}' already holds these weights; pass --force to make it again.")
        return 0
    if not check_job(settings.folder, job, "a release"):
        begin_job(settings.folder, job)
    with only_writer(settings.folder / RESULTS):
        results = run_steps(settings)
        reasons = verdict(settings, results)
        text = report(settings, results, reasons)
        with replaced_when_complete(settings.folder / "report.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        cli.say(text)
        if reasons and not settings.force:
            cli.say(
                f"not published: {'; '.join(reasons)}. Pass --force to replace the student anyway.",
                file=sys.stderr,
            )
            return 1
        publish(settings)
    cli.say(f"published '{settings.target}'")
    return 0


def job_of(settings: ReleaseSettings) -> dict[str, Any]:
    """Return the settings and files that determine the results of all steps."""
    chosen = {key: value for key, value in asdict(settings).items() if key not in _NOT_IN_JOB}
    before = settings.target / "weights.safetensors"
    return {
        **{key: str(value) for key, value in chosen.items()},
        "weights_sha256": load_student(settings.weights).sha256,
        "before": load_student(before).sha256 if before.is_file() else None,
        "data_sha256": [file_sha256(path) for path in settings.data],
        "version": __version__,
    }


def run_steps(settings: ReleaseSettings) -> dict[str, Any]:
    """Return the results of all steps; stored results are not computed again."""
    path = settings.folder / RESULTS
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    with progress_bar(len(STEPS), "step", initial=len(results), label=settings.name) as bar:
        for name, step in STEPS.items():
            if name in results:
                continue
            bar.set_postfix_str(name)
            results[name] = step(settings)
            with replaced_when_complete(path) as temporary:
                temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
            bar.update()
    return results


if __name__ == "__main__":
    sys.exit(main())
