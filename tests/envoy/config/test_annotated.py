"""YAML with comments."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from authz.envoy.config.annotated import Document, render

DATA = {
    "clusters": [{"name": "a", "checks": {"interval": "1s"}}, {"name": "b", "checks": {"interval": "2s"}}],
    "n": [1],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
)


def test_comment_stands_above_its_part_and_is_indented_like_it() -> None:
    text = render([Document(data=DATA, comments={"*/clusters/b": "The other.", "*/b/checks/interval": "Longer."})])

    assert text == (
        "clusters:\n- name: a\n  checks:\n    interval: 1s\n"
        "# The other.\n- name: b\n  checks:\n    # Longer.\n    interval: 2s\nn:\n- 1\n"
    )


def test_comment_is_said_once() -> None:
    assert render([Document(data=DATA, comments={"*/interval": "Often."})]).count("# Often.") == 1


def test_element_without_a_name_goes_by_its_index() -> None:
    assert render([Document(data=DATA, comments={"/n/0": "One."})]).endswith("n:\n# One.\n- 1\n")


def test_title_keeps_its_lines_and_long_ones_are_wrapped() -> None:
    lines = render([Document(data={}, title="First.\n" + "word " * 40)]).splitlines()

    assert lines[0] == "# First."
    assert len(lines) == 4
    assert all(line.startswith("# ") and len(line) <= 110 for line in lines[:-1])


def test_documents_are_one_stream() -> None:
    assert list(yaml.safe_load_all(render([Document(data={"a": 1}), Document(data=[2])]))) == [{"a": 1}, [2]]


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=3))
def test_comments_change_nothing_of_what_is_read(data: object) -> None:
    document = Document(data=data, title="Above.", comments={"*": "First.", "/*/*": "In."})

    assert yaml.safe_load(render([document])) == data
