"""The JSON Schemas for editors say what the loaders accept, and every file that we show or write names its own."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz import cli
from authz.demo.issuer.directory import DEFAULT_FILE, load_directory
from authz.errors import ConfigError
from authz.policy import Policy
from authz.policy.explain.cases import Cases
from authz.policy.text.lines import Lines
from authz.runtime.text.document import read
from authz.runtime.text.schema import as_json, modeline
from tests.house.schemas import FOLDER, SCHEMAS, validator_of
from tests.policy.test_schema import FULL

ROOT = Path(__file__).parents[2]
VALIDATORS = {name: validator_of(schema) for name, schema in SCHEMAS.items()}
TESTED = Policy.from_document(FULL)
CASES = [
    {
        "name": "t",
        "method": "/s/m",
        "verb": "GET",
        "organization": "org_a",
        "client": "c",
        "scopes": ["a", "b"],
        "headers": {"x": "1"},
        "principal": "spiffe://a/b",
        "expect": "allowed",
        "rule": "r",
    },
    {"name": "u", "method": "/s/m", "expect": "public", "rule": ""},
    {"name": "v", "method": "/other", "organization": "org_b", "expect": "denied"},
]
LINE = {
    "id": "org_a",
    "tenant": "t-1",
    "name": "A",
    "groups": ["beta", "eu"],
    "status": "active",
    "quota": "gold",
    "labels": {"a": "b"},
}
ORGANIZATIONS = read(DEFAULT_FILE).data


def load_policy(path: Path) -> None:
    Policy.from_file(path)


def load_line(path: Path) -> None:
    for number, _ in Lines(str(path)):
        assert number == 1


def load_cases(path: Path) -> None:
    Cases.from_file(path, TESTED)


GOOD: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "policy": (FULL, load_policy),
    "policy-test": (CASES, load_cases),
    "organization": (LINE, load_line),
    "organizations": (ORGANIZATIONS, load_directory),
}
# What takes the place of a part: each kind, at and beyond each limit, and what a pattern may misread.
JUNK = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        30,
        30.5,
        1_000_001,
        "",
        "x",
        "a b",
        "a,b",
        "a\n",
        "\u00e9",
        "\u00a0",
        "\ufeff",
    ),
    *("/a", "/a b", "*", "/a*", "org_1", "client_1", "GET", "get", "suspended", "local", "m2m", "public", "denied"),
    *("a" * 128, "a" * 129, "a" * 257, [], {}, [""], ["a"], ["a", "a"], [{}], {"a": "b"}, {"": ""}, {"a": {}}),
]
KEYS = ["x", "", "name", "status", "expect", "type", "burst", "verb", "max_age", "a b", "rule", "override", "scopes"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each part of a document is."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        yield from places(part, (*path, step))


def part_of(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Return ``document`` with a few parts replaced, left out or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(document))))
        act = draw(st.sampled_from(["replace", "remove", "add"]))
        junk = copy.deepcopy(draw(st.sampled_from(JUNK)))
        if act == "add":
            part = part_of(document, path)
            if isinstance(part, dict):
                part[draw(st.sampled_from(KEYS))] = junk
            elif isinstance(part, list):
                part.append(junk)
        elif not path:
            document = junk if act == "replace" else document
        elif act == "replace":
            part_of(document, path[:-1])[path[-1]] = junk
        else:
            del part_of(document, path[:-1])[path[-1]]
    return document


def is_accepted(load: Callable[[Path], object], folder: Path, document: Any) -> bool:
    file = folder / "file.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    try:
        load(file)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name", GOOD)
def test_what_the_loader_accepts_is_valid(name: str, tmp_path: Path) -> None:
    document, load = GOOD[name]
    seen = {True: 0, False: 0}

    @settings(max_examples=400)
    @given(changed(document))
    def check(document: Any) -> None:
        accepted = is_accepted(load, tmp_path, document)
        seen[accepted] += 1
        assert not accepted or VALIDATORS[name].is_valid(document)

    check()
    assert seen[True] > 10
    assert seen[False] > 100


# A schema sees one value at a time, and no other file.
DIFFERENCES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "no-rules-and-no-proto": ("policy", lambda d: d.pop("allow_rules")),
    "override-without-a-proto": ("policy", lambda d: d.update(override=True)),
    "two-rules-of-a-name": ("policy", lambda d: d["allow_rules"].append({"name": "r"})),
    "name-like-that-of-a-proto": ("policy", lambda d: d["allow_rules"][0].update(name="proto:/a.B/C")),
    "rule-that-never-decides": ("policy", lambda d: d["allow_rules"].append({**d["allow_rules"][0], "name": "s"})),
    "unknown-organization": ("policy", lambda d: d["allow_rules"][0]["source"].update(organizations=["org_x"])),
    "unknown-group": ("policy", lambda d: d["allow_rules"][0]["source"].update(groups=["x"])),
    "unknown-quota": ("policy", lambda d: d["organizations"]["org_a"].update(quota="x")),
    "quota-that-no-organization-has": (
        "policy",
        lambda d: d["quotas"].update(x={"burst": 1, "requests_per_second": 1}),
    ),
    "pseudo-header": (
        "policy",
        lambda d: d["allow_rules"][0]["request"]["headers"].append({"key": ":path", "values": ["/"]}),
    ),
    "whole-number-with-a-point": ("policy", lambda d: d["quotas"]["gold"].update(burst=20.0)),
    "unknown-rule": ("policy-test", lambda d: d[0].update(rule="x")),
    "client-twice": ("organizations", lambda d: d["organizations"][0]["applications"].append(first_application(d))),
    "organization-twice": ("organizations", lambda d: d["organizations"].append(d["organizations"][0])),
}


def first_application(document: Any) -> Any:
    return {**document["organizations"][0]["applications"][0]}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_only_what_a_schema_cannot_say_is_left_to_the_loader(case: str, tmp_path: Path) -> None:
    name, change = DIFFERENCES[case]
    document = copy.deepcopy(GOOD[name][0])
    change(document)

    assert VALIDATORS[name].is_valid(document)
    assert not is_accepted(GOOD[name][1], tmp_path, document)


REFUSED: dict[str, tuple[str, Callable[[Any], None]]] = {
    "test-without-an-organization": ("policy-test", lambda d: d[0].pop("organization")),
    "test-that-expects-nothing": ("policy-test", lambda d: d[0].pop("expect")),
    "two-scopes-in-one": ("policy-test", lambda d: d[0].update(scopes=["a b"])),
    "unknown-key-of-a-test": ("policy-test", lambda d: d[0].update(procedure="/a")),
    "small-verb": ("policy-test", lambda d: d[0].update(verb="get")),
    "mapping-for-tests": ("policy-test", lambda d: d.__setitem__(slice(None), [[]])),
    "no-organizations": ("organizations", lambda d: d["organizations"].clear()),
    "no-applications": ("organizations", lambda d: d["organizations"][0]["applications"].clear()),
    "two-lines": ("organizations", lambda d: d["organizations"][0].update(name="a\nb")),
    "line-break-at-the-end": ("organizations", lambda d: d.update(audience="client_1\n")),
    "number-in-metadata": ("organizations", lambda d: d["organizations"][0].update(metadata={"a": 1})),
    "unknown-type": ("organizations", lambda d: d["organizations"][0]["applications"][0].update(type="spa")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_schema_refuses_the_loader_refuses(case: str, tmp_path: Path) -> None:
    name, change = REFUSED[case]
    document = copy.deepcopy(GOOD[name][0])
    assert is_accepted(GOOD[name][1], tmp_path, document)
    change(document)

    assert not VALIDATORS[name].is_valid(document)
    assert not is_accepted(GOOD[name][1], tmp_path, document)


def test_each_schema_that_is_shipped_is_up_to_date() -> None:
    """Run ``make schemas`` if this fails."""
    shipped = {path.name.removesuffix(".schema.json"): path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}

    # The other one is written from the settings, and tested with them.
    shipped.pop("config")
    assert shipped == {name: as_json(schema) for name, schema in SCHEMAS.items()}


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])

    assert SCHEMAS[name]["$id"] == f"https://grpc-org-authz.dev/latest/schemas/{name}.schema.json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_key_has_a_title_and_a_description(name: str) -> None:
    def bare(schema: Any, name: str) -> Iterator[str]:
        if "title" not in schema:
            yield name
        for key, value in schema.get("properties", {}).items():
            if "description" not in value:
                yield f"{name}.{key}"
            yield from bare(value, f"{name}.{key}")
        for part in ("items", "propertyNames", "additionalProperties"):
            if isinstance(schema.get(part), dict):
                yield from bare(schema[part], f"{name}.{part}")

    assert list(bare(SCHEMAS[name], name)) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_command_prints_each_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema", name]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMAS[name]

    assert cli.run(["schema", "--dir"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / f"{name}.schema.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), f"authz: schema: missing; there are {', '.join(sorted({'config', *SCHEMAS}))}\n"),
        (("polizy",), "authz: schema: unknown 'polizy'; did you mean 'policy'?\n"),
        (("../x",), f"authz: schema: unknown '../x'; there are {', '.join(sorted({'config', *SCHEMAS}))}\n"),
    ],
)
def test_a_schema_that_is_not_there_is_an_error(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["schema", *arguments]) == 2
    assert capsys.readouterr().err == said


def shown() -> Iterator[tuple[str, str]]:
    """Yield where each file of these kinds is shown or shipped, and its text."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")]):
        for block in re.findall(r"(?ms)^```yaml\n(.*?)^```$", path.read_text(encoding="utf-8")):
            named = re.match(r"# ([\w.-]+)\n", block)
            if named is not None and re.search(
                r"(?m)^(allow_rules|deny_rules|.* expect|  expect|.*applications):", block
            ):
                yield f"{path.name}: {named[1]}", block
    folders = ("authz", "deploy", "examples")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?m)^(allow_rules|deny_rules|organizations|- expect|  expect):", text):
            yield str(path.relative_to(ROOT)), text


SHOWN = dict(shown())


def test_files_of_these_kinds_are_shown() -> None:
    assert {"policy.md: policy.yaml", "policy.md: policy.test.yaml"} <= SHOWN.keys()
    assert "authz/demo/issuer/organizations.yaml" in SHOWN


@pytest.mark.parametrize("place", SHOWN)
def test_each_file_names_a_schema_by_which_it_is_valid(place: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(SHOWN[place], encoding="utf-8")
    name = next((name for name in SCHEMAS if f"{modeline(name)}\n" in SHOWN[place]), None)

    assert name is not None
    VALIDATORS[name].validate(read(tmp_path / "file.yaml").data)
