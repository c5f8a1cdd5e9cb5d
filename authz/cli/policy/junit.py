"""The results of ``authz policy check`` and ``test`` as JUnit XML.

The form is the one that pytest writes and GitLab and Jenkins read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from authz.errors import ConfigError
from authz.policy.explain.cases import Outcome, Results
from authz.runtime.text.printable import printable

_MAX_CHARACTERS = 16_384


class Suite(NamedTuple):
    """The tests of one policy, and how they ended.

    Args:
        file: the policy.
        tests: the file that says what is tried, or ``""``.
        results: the results; ``None`` if a file is wrong.
        error: what is wrong with it, or ``""``.

    """

    file: str
    tests: str
    results: Results | None
    error: str = ""


def save(file: Path, command: str, suites: Sequence[Suite]) -> None:
    """Write the document into a file; a policy that is wrong is an error in it.

    Args:
        file: where to.
        command: whose results they are.
        suites: the results.

    Raises:
        ConfigError: the file cannot be written.

    """
    try:
        file.write_bytes(_document(command, suites))
    except OSError as error:
        raise ConfigError(f"junit: {str(file)!a} cannot be written ({error.strerror})") from None


def _document(command: str, suites: Sequence[Suite]) -> bytes:
    root = Element("testsuites", name=command)
    children = list(map(_suite, suites))
    root.extend(children)
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(child.get(count, "0")) for child in children)))
    root.set("time", f"{sum(float(child.get('time', '0')) for child in children):.6f}")
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(suite: Suite) -> Element:
    outcomes = () if suite.results is None else suite.results.outcomes
    failures = sum(each.failure is not None for each in outcomes)
    element = Element(
        "testsuite",
        name=_xml(suite.file),
        tests=str(len(outcomes) + bool(suite.error)),
        failures=str(failures),
        errors=str(int(bool(suite.error))),
        skipped="0",
        time=f"{sum(each.seconds for each in outcomes):.6f}",
    )
    if suite.error:
        case = SubElement(element, "testcase", classname=_xml(suite.file), name="read", time="0.000000")
        SubElement(case, "error", message=_xml(suite.error)).text = _xml(suite.error)
    element.extend(_case(suite, each) for each in outcomes)
    return element


def _case(suite: Suite, outcome: Outcome) -> Element:
    time = f"{outcome.seconds:.6f}"
    case = Element("testcase", name=_xml(outcome.name), classname=_xml(suite.file), file=_xml(suite.tests), time=time)
    if outcome.failure is not None:
        SubElement(case, "failure", message=_xml(outcome.failure)).text = _xml(outcome.failure)
    return case


def _xml(text: str) -> str:
    # XML has no control characters, not even as references, and no lone surrogates.
    return printable(text, _MAX_CHARACTERS)
