from pathlib import Path

from tests.settings.reference import document


def test_the_reference_of_settings_is_what_the_settings_say():
    """Run ``make settings`` if this fails."""
    assert (Path(__file__).parents[2] / "docs/settings.md").read_text(encoding="utf-8") == document()
