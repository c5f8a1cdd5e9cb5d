"""Organizations are the same, whether a policy lists them or a file with one on each line; there may be millions."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import ConfigError
from authz.organizations.organization import Organization
from authz.organizations.quota import Quota
from authz.policy import Policy
from authz.policy.listing import Draft, Listing
from authz.policy.text import lines, organizations
from authz.policy.text.schema import check_organization
from authz.policy.text.usual import Usual
from authz.runtime.text.document import Fault, unique

RULES: dict[str, Any] = {"name": "ledger", "allow_rules": [{"name": "all"}]}
ACME = {"tenant": "t-1", "groups": ["beta", "eu"], "status": "suspended", "quota": "gold", "name": "Acme", "labels": {}}

IDS = st.from_regex(r"[!#-+\--\[\]-~]{1,8}", fullmatch=True)
WORDS = st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,3}", fullmatch=True)
KNOWN = st.fixed_dictionaries(
    {},
    optional={
        "tenant": IDS,
        "groups": st.lists(WORDS, max_size=3, unique=True),
        "status": st.sampled_from(["active", "suspended"]),
        "quota": st.just("gold"),
        # Tabs and line breaks are what divides them here.
        "name": st.text(st.sampled_from('a\t\n\r!,é\ud800\U0001f600"\\'), max_size=6),
        "labels": st.dictionaries(st.text(min_size=1, max_size=3), st.text(st.sampled_from('a\t\n"é'), max_size=3)),
    },
)


def write(folder: Path, content: bytes | str, **more: object) -> Path:
    """Write a policy, and the file that lists its organizations."""
    (folder / "orgs.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / "policy.json"
    path.write_text(json.dumps({**RULES, "organizations_file": "orgs.jsonl", **more}))
    return path


def in_lines(listed: dict[str, Any]) -> str:
    return "".join(f"{json.dumps({'id': org_id, **known})}\n" for org_id, known in listed.items())


def listing(**known: dict[str, Any]) -> Listing:
    draft = Draft({}, None, len(known))
    for org_id, each in known.items():
        draft.add(org_id, each)
    return draft.listing()


# ---- What is listed ----


@given(listed=st.dictionaries(IDS, KNOWN, min_size=1, max_size=30))
def test_a_file_of_lines_says_what_the_same_list_in_the_policy_says(
    listed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan: dict[str, Any] = {"quotas": {"gold": {"concurrent_streams": 2}}, "default_quota": "gold"}
    beside = Policy.from_file(write(tmp_path_factory.mktemp("lines"), in_lines(listed), **plan))
    within = Policy.from_document({**RULES, **plan, "organizations": listed})

    assert dict(beside.organizations) == dict(within.organizations)
    assert beside.organizations == {org_id: known(each) for org_id, each in listed.items()}
    assert set(beside.organizations.suspended()) == {
        org_id for org_id, each in listed.items() if each.get("status") == "suspended"
    }
    assert len(beside.organizations) == len(listed)


def known(given: dict[str, Any]) -> Organization:
    return Organization(
        given.get("tenant", ""),
        frozenset(given.get("groups", ())),
        given.get("status") == "suspended",
        given.get("labels", {}),
        given.get("name", ""),
        Quota("gold", concurrent_streams=2),
    )


@given(org_id=st.text(st.sampled_from("ab\t\n\udc80é?"), max_size=6))
def test_only_the_id_itself_finds_an_organization(org_id: str) -> None:
    found = listing(a={"groups": ["b"]}, b={"tenant": "a"}, **{"?": {}})

    assert (org_id in found) == (org_id in {"a", "b", "?"}) == (found.get(org_id) is not None)


def test_an_id_that_goes_on_like_a_line_finds_none() -> None:
    # So many, because the two share a bucket by chance only.
    found = listing(**{f"org_{number}": {"groups": ["eu"]} for number in range(5_000)})

    assert [number for number in range(5_000) if found.get(f"org_{number}\t\teu") is not None] == []


def test_an_organization_that_calls_again_is_the_same_object() -> None:
    found = listing(org_a={"groups": ["eu"]}, org_b={"groups": ["eu"]})
    once, other = found.get("org_a"), found.get("org_b")

    assert found.get("org_a") is once is found["org_a"]
    assert once is not None
    assert other is not None
    assert once.groups is other.groups


def test_to_go_through_all_remembers_none() -> None:
    found = listing(org_a={"tenant": "t"})

    assert [each for each in found.values() if each is found.get("org_a")] == []
    assert found["org_a"] is found.get("org_a")


def test_who_uses_a_listing_while_it_is_let_go_finds_what_is_in_it() -> None:
    used = listing(**{f"org_{number}": {"tenant": f"t{number}"} for number in range(10_000)})
    for _ in used.let_go():
        assert used["org_7"].tenant == "t7"

    assert len(dict(used)) == 10_000


def test_what_is_let_go_is_freed_in_parts_of_its_own() -> None:
    draft = Draft({}, None, 10_000)
    for number in range(10_000):
        draft.add(f"org_{number}", {})
    steps = sum(1 for _ in draft.listing().let_go())

    assert steps >= 8


def test_rules_may_name_what_the_file_lists(tmp_path: Path) -> None:
    rule = {"name": "eu", "source": {"groups": ["eu"], "organizations": ["org_acme"]}}
    policy = Policy.from_file(write(tmp_path, '{"id": "org_acme", "groups": ["eu"]}\n', allow_rules=[rule]))

    assert [each.name for each in policy.rules] == ["eu"]
    with pytest.raises(ConfigError, match=r":1: unknown group 'eu'; no organization is in it"):
        Policy.from_file(write(tmp_path, '{"id": "org_acme"}\n', allow_rules=[rule]))


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_marks_of_other_systems_and_empty_lines_are_nothing(begin: str, end: str, tmp_path: Path) -> None:
    policy = Policy.from_file(write(tmp_path, f'{begin}{{"id": "org_a"}}\n{{"id": "org_b"}}{end}'))

    assert set(policy.organizations) == {"org_a", "org_b"}


def test_lines_longer_than_a_piece_are_read_whole(tmp_path: Path) -> None:
    long = {f"org_{number}": {"name": "x" * 60_000 + str(number)} for number in range(5)}
    policy = Policy.from_file(write(tmp_path, in_lines(long)))

    assert {org_id: each.name[60_000:] for org_id, each in policy.organizations.items()} == {
        f"org_{number}": str(number) for number in range(5)
    }


def test_each_content_has_a_digest_of_its_own(tmp_path: Path) -> None:
    contents = [
        '{"id": "org_a"}',
        '{"id": "org_b"}',
        '{"id": "org_a"}\n{"id": "org_b"}',
        '{"id": "org_a", "tenant": "b"}',
    ]
    digests = [Policy.from_file(write(tmp_path, content)).digest for content in [*contents, contents[0]]]

    assert len(set(digests)) == len(contents)
    assert digests[0] == digests[-1]


# ---- Lines like others ----

PARTS = [
    *('"id": "a"', '"id":"b"', '"id": "c d"', '"tenant": "t"', '"tenant": ""', '"name": "n"', '"name": "\\u00e9"'),
    *('"name": "a\tb"', '"name": 1', '"groups": ["x"]', '"groups": ["x", "x"]', '"groups": ["id"]', '"groups": "x"'),
    *(
        '"status": "suspended"',
        '"status": "name"',
        '"status": "id"',
        '"labels": {"name": "n"}',
        '"labels": {"id": "x"}',
    ),
    *('"quota": "gold"', '"x": "id"', '"id"', '"name": "\\"id\\": \\"b\\""', '{"id": "b"}', '"labels": {}'),
]
LINES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(lambda parts: f"{{{', '.join(parts)}}}")


@given(texts=st.lists(LINES, min_size=1, max_size=12))
def test_a_line_like_an_earlier_one_says_what_it_says_alone(texts: list[str]) -> None:
    usual = Usual()
    for text in [*texts, *texts]:
        quick, alone = usual.read(text), said(text)

        assert quick is None or quick == alone
        if alone is not None:
            usual.note(text, alone)


def said(text: str) -> dict[str, Any] | None:
    """Return what the full check makes of a line."""
    try:
        given: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
        check_organization(given)
    except (Fault, ValueError):
        return None
    return given


def test_a_line_is_like_an_earlier_one_whatever_its_id_tenant_and_name() -> None:
    usual, text = Usual(), '{"id": "org_a", "groups": ["eu"], "tenant": "t", "name": "n"}'
    usual.note(text, json.loads(text))
    other = '{"id": "org_b", "groups": ["eu"], "tenant": "u", "name": "\u00e9"}'

    assert usual.read(other) == json.loads(other)
    assert usual.read(other.replace("eu", "us")) is None


# ---- What is wrong ----


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"id": "org_b", "tenent": "t"}', ":2: tenent: unknown key 'tenent'; did you mean 'tenant'?"),
        ('{"tenant": "t"}', ":2: 'id' is missing"),
        ('{"id": "org b"}', ":2: id: 'org b' is not an identifier: visible ASCII without quotes, commas, backslashes"),
        ('{"id": "org_a"}', ":2: id: 'org_a' is listed twice"),
        ('{"id": "org_b", "id": "org_c"}', ":2: the key 'id' is given twice"),
        ('{"id": "org_b", "groups": ["x", "x"]}', ":2: groups[1]: 'x' is given twice"),
        ('{"id": "org_b", "groups": "x"}', ":2: groups: must be a list, not text"),
        ('{"id": "org_b", "quota": "gld"}', ":2: quota: unknown quota 'gld'; did you mean 'gold'?"),
        ('{"id": "org_b"', ":2:15: not JSON: Expecting ',' delimiter"),
        ('{"id": "org_b"} {"id": "org_c"}', ":2:17: not JSON: Extra data"),
        ('{"id": NaN}', ":2: id: must be text, not a number; put it in quotes"),
        ('["org_b"]', ":2: must be a mapping, not a list"),
        ("[" * 5000, ":2: nested too deeply, or a number too long"),
        ('{"id": "' + "x" * 70_000 + '"}', ":2: longer than 64 KiB"),
        (b'{"id": "\xff"}', ":2: is not UTF-8 text"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(line: bytes | str, error: str, tmp_path: Path) -> None:
    content = b'{"id": "org_a", "quota": "gold"}\n' + (line if isinstance(line, bytes) else line.encode())
    path = write(tmp_path, content, quotas={"gold": {"concurrent_streams": 1}})

    with pytest.raises(ConfigError) as caught:
        Policy.from_file(path)

    assert str(caught.value) == f"{tmp_path}/orgs.jsonl{error}"


def test_a_plan_that_no_line_names_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "org_a"}', quotas={"gold": {"concurrent_streams": 1}})

    with pytest.raises(ConfigError, match=r"no organization has the quota 'gold'"):
        Policy.from_file(path)


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with (tmp_path / "orgs.jsonl").open("wb") as file:
        file.truncate(lines.MAX_BYTES)

    with pytest.raises(ConfigError, match=r"orgs\.jsonl:1: longer than 64 KiB"):
        Policy.from_file(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with (tmp_path / "orgs.jsonl").open("wb") as file:
        file.truncate(lines.MAX_BYTES + 1)

    with pytest.raises(ConfigError, match=r"orgs\.jsonl: longer than 512 MiB$"):
        Policy.from_file(path)


def test_more_organizations_than_a_policy_may_list_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organizations, "MAX_ORGANIZATIONS", 2)
    content = in_lines({"org_a": {}, "org_b": {}, "org_c": {}})

    with pytest.raises(ConfigError, match=r"orgs\.jsonl:3: more than 2 organizations; let a directory know them$"):
        Policy.from_file(write(tmp_path, content))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("gone.jsonl", "cannot be read (No such file or directory)"),
        ("pipe", "is no regular file"),
        (".", "is no regular file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(path: str, error: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError) as caught:
        Policy.from_file(write(tmp_path, "", organizations_file=path))

    assert str(caught.value) == f"{tmp_path}/{path}: {error}"


def longer(path: Path, _content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(b"".join(b'{"id": "org_%06d"}\n' % number for number in range(5_000)))
    new.replace(path)


def shorter(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def another_of_this_length(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content.replace(b"org", b"new"))
    new.replace(path)


def none(path: Path, _content: bytes) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [longer, shorter, another_of_this_length, none])
@pytest.mark.parametrize("after", [0, 1])
def test_no_part_of_a_file_that_changes_meanwhile_is_taken_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, bytes], None], after: int
) -> None:
    """Before it is opened, or between two pieces of it. An organization that a list lacks is not suspended by it."""
    content = b"".join(b'{"id": "org_%06d"}\n' % number for number in range(2_000))
    path, pieces = write(tmp_path, content), lines.Lines._pieces  # noqa: SLF001 - the moment is what counts

    def changing(self: lines.Lines) -> Iterator[bytes]:
        if after == 0:
            change(tmp_path / "orgs.jsonl", content)
        for number, piece in enumerate(pieces(self), 1):
            yield piece
            if number == after:
                change(tmp_path / "orgs.jsonl", content)

    monkeypatch.setattr(lines.Lines, "_pieces", changing)
    if after and change in (longer, another_of_this_length):
        # A new file took its place; the old one was read to its end.
        assert len(Policy.from_file(path).organizations) == 2_000
    else:
        with pytest.raises(ConfigError, match=r"orgs\.jsonl(: has changed while it was read; read it again|:\d+.*)$"):
            Policy.from_file(path)


def test_only_one_place_lists_the_organizations(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "org_a"}', organizations={"org_b": {}})

    with pytest.raises(
        ConfigError, match=r"policy\.json:1: give organizations, or the file that lists them, not both$"
    ):
        Policy.from_file(path)


def test_a_document_that_is_no_file_reads_none() -> None:
    with pytest.raises(ConfigError, match=r"only a policy that is read from a file may name a file beside it$"):
        Policy.from_document({**RULES, "organizations_file": "/etc/passwd"})


# ---- Every command ----


def test_each_command_about_policies_knows_the_file(tmp_path: Path) -> None:
    rule = {"name": "eu", "source": {"groups": ["eu"]}}
    path = write(tmp_path, in_lines({"org_acme": {"groups": ["eu"], "tenant": "t-1"}}), allow_rules=[rule])
    case = {"name": "acme", "method": "/a.B/C", "organization": "org_acme", "expect": "allowed", "rule": "eu"}
    (tmp_path / "policy.test.json").write_text(json.dumps([case]))

    def ran(*arguments: str) -> str:
        command = [sys.executable, "-m", "authz", "policy", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert ran("check", str(path)) == f"{path}: ledger: 0 deny rules, 1 allow rule, 1 organization\n"
    assert ran("test", str(path)).endswith("1 passed, 0 failed\n")
    assert "eu" in ran("explain", str(path), "--method", "/a.B/C", "--organization", "org_acme")
