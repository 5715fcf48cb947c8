"""A check for other programs: Markdown for a pull request, JUnit XML, annotations of GitHub Actions."""

from xml.etree import ElementTree

from kdbench.gate.tables import LEGEND, columns, explanations, outcome_counts, power_line, provisional, speed_reason
from kdbench.gate.verdict import EXIT_CODES, CheckResult, Outcome, Verdict
from kdbench.report.escape import words

QUIET = (Outcome.IDENTICAL, Outcome.PASS)
NEWS = (Outcome.SLOWER, Outcome.FASTER)


def markdown(check: CheckResult) -> str:
    """A comment: the summary, what needs a look, and all cells folded away."""
    passed = check.exit_code == 0
    head = (
        f"### kdbench check: {'passed' if passed else 'failed'}\n\n{outcome_counts(check)} ({check.baseline.protocol})."
    )
    lines = [f"* {words(line)}" for line in explanations(check)]
    loud = [verdict for verdict in check.verdicts if verdict.outcome not in QUIET or verdict.speed in NEWS]
    blocks = [head, "\n".join(lines), _table(loud)]
    everything = _table(list(check.verdicts))
    blocks.append(f"<details><summary>All cells</summary>\n\n{everything}\n\n</details>" if everything else "")
    blocks += [provisional(check.baseline), power_line(check), LEGEND]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _table(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    rows = [columns(verdict, full=True) for verdict in verdicts]
    lines = [list(rows[0]), [":--" if name in ("outcome", "pair", "method") else "--:" for name in rows[0]]]
    lines += [[words(text) for text in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def junit(check: CheckResult) -> str:
    """JUnit XML: a test case a cell, and one for each throughput that was held against the baseline's."""
    suite = ElementTree.Element("testsuite", name=f"kdbench check {check.baseline.protocol}")
    failures = errors = 0
    for verdict in check.verdicts:
        cases = [("accuracy", verdict.outcome, verdict.reason)]
        if verdict.speed is not None:
            cases.append(("throughput", verdict.speed, "" if verdict.speed is Outcome.PASS else speed_reason(verdict)))
        for what, outcome, reason in cases:
            class_name = f"{check.baseline.suite}.{verdict.pair or 'all'}"
            case = ElementTree.SubElement(
                suite, "testcase", classname=class_name, name=f"{verdict.method} {what}", time="0"
            )
            if outcome in EXIT_CODES and (what == "accuracy" or check.fail_on_speed):
                # A difference in the numbers is a failure, a number that is not there an error.
                kind = "failure" if outcome in (Outcome.WORSE, Outcome.BETTER, Outcome.SLOWER) else "error"
                failures, errors = failures + (kind == "failure"), errors + (kind == "error")
                ElementTree.SubElement(case, kind, message=reason, type=outcome.value).text = reason
            elif outcome not in QUIET:
                ElementTree.SubElement(case, "system-out").text = f"{outcome.value} {reason}"
    counts = {"tests": len(suite), "failures": failures, "errors": errors, "skipped": 0, "time": 0}
    suite.attrib |= {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def annotations(check: CheckResult) -> list[str]:
    """Workflow commands of GitHub Actions, which show up at the pull request."""
    lines = []
    for verdict in check.verdicts:
        where = f"{verdict.method} on {verdict.pair}" if verdict.pair else verdict.method
        if verdict.outcome in EXIT_CODES:
            lines.append(_annotation("error", verdict.outcome, where, verdict.reason))
        elif verdict.outcome in (Outcome.CLEARED, Outcome.NEW_METHOD):
            lines.append(_annotation("notice", verdict.outcome, where, verdict.reason))
        fails = check.fail_on_speed and verdict.speed in EXIT_CODES
        if verdict.speed is not None and (fails or verdict.speed in NEWS):
            level = "error" if fails else "warning"
            lines.append(_annotation(level, verdict.speed, where, speed_reason(verdict)))
    return lines


def _annotation(level: str, outcome: Outcome, where: str, reason: str) -> str:
    """`::error title=...::...`, escaped as the runner reads it."""
    message = f"{where}: {reason}".replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    title = f"kdbench {outcome.value}".replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={title}::{message}"
