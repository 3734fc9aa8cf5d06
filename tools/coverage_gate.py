"""Fail unless the tests took every line and every branch of the packages that decide.

Reads the coverage data that `make test` has just collected. Silent when all is well, so that
pytest's own summary closes the run.
"""

import io
import sys

from coverage import Coverage

FULLY_COVERED = ("domain", "service", "cache")


def main() -> None:
    """Report the gaps of each package and exit with 1 if there is one."""
    coverage = Coverage()
    coverage.load()
    measured = sorted(coverage.get_data().measured_files())
    gaps = []
    for package in FULLY_COVERED:
        pattern = f"*/statekeep_server/{package}/*"
        if not any(f"/statekeep_server/{package}/" in name for name in measured):
            gaps.append(f"{package}: no test has run it")
            continue
        report = io.StringIO()
        total = coverage.report(
            include=[pattern], file=report, show_missing=True, skip_covered=True, precision=2
        )
        if total < 100.0:
            gaps.append(f"{package}: {total:.2f} % of lines and branches\n{report.getvalue()}")
    if gaps:
        sys.exit("coverage must be 100 %, and is not:\n" + "\n".join(gaps))


if __name__ == "__main__":
    main()
