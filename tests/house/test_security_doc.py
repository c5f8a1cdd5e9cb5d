"""What docs/security-rules.md says is there: every rule has its tests and its code, every limit its number."""

import ast
import functools
import importlib
import inspect
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security-rules.md").read_text(encoding="utf-8")

ROWS = {
    "A": 11,
    "B": 14,
    "C": 10,
    "D": 13,
    "E": 14,
    "F": 8,
    "G": 12,
    "H": 4,
    "I": 10,
    "J": 9,
    "K": 7,
    "L": 5,
    "M": 5,
    "N": 9,
    "P": 14,
    "Q": 8,
    "R": 8,
    "S": 11,
    "T": 8,
    "U": 8,
    "V": 9,
    "W": 10,
    "X": 9,
    "Y": 13,
    "Z": 11,
    "O": 10,
    "AA": 12,
    "AB": 10,
    "AC": 10,
}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


RULES = {row: rest for row, *rest in map(cells, re.findall(r"^\| [A-Z]{1,2}\d+ \|.*\|$", TEXT, re.MULTILINE))}
LIMITS = [cells(line) for line in TEXT.partition("## Limits")[2].partition("\n## ")[0].splitlines() if "`authz" in line]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


@functools.cache
def functions_of(file):
    path = ROOT.joinpath("tests", *file.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def resolve(name):
    """Return what a dotted name stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[length:], found)
    raise ModuleNotFoundError(name)


def value_of(symbol):
    """Return the value of a constant, or the default of the argument that is named in parentheses."""
    name, _, argument = symbol.rstrip(")").partition("(")
    found = resolve(name)
    return inspect.signature(found).parameters[argument].default if argument else found


def test_every_row_has_its_rule():
    assert list(RULES) == [f"{letter}{number + 1}" for letter, count in ROWS.items() for number in range(count)]


@pytest.mark.parametrize("row", RULES)
def test_a_rule_has_tests_that_exist(row):
    rule, tests, _ = RULES[row]
    named = [test.split("::") for test in quoted(tests)]

    assert named or rule.startswith("Not yet:")
    assert [name for file, name in named if name not in functions_of(file)] == []


@pytest.mark.parametrize("row", RULES)
def test_a_rule_has_code_that_exists(row):
    rule, _, code = RULES[row]
    named = quoted(code)

    assert named or rule.startswith("Not yet:")
    assert all(map(callable, map(resolve, named))) or row in ("A5", "P3")


@pytest.mark.parametrize(("limit", "symbol"), [(limit, quoted(code)[0]) for _, limit, code in LIMITS])
def test_a_limit_has_the_number_that_is_told(limit, symbol):
    numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", limit)]

    assert numbers == [value_of(symbol)]


def test_the_limits_are_told():
    assert len(LIMITS) > 20


def test_advisories_are_not_lost():
    """The attacks are named where they are carried out, by the id of a parameter or in a docstring."""
    named = set(re.findall(r"CVE-\d{4}-\d+|GHSA(?:-\w{4}){3}", (ROOT / "tests/issuer/test_attacks.py").read_text()))

    assert len(named) >= 33
