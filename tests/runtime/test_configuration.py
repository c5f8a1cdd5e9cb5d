"""What configuration refers to outside the process: packages of an extra, and files that hold a secret."""

from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.runtime.configuration import extra, read_secret


@pytest.mark.parametrize("package", ["", "yaml"])
def test_a_missing_extra_is_named_with_its_command(package: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"^it needs the extra 'policy': pip install 'grpc-org-authz\[policy\]'$"),
        extra("policy", "it needs the extra 'policy'", package=package),
    ):
        raise ModuleNotFoundError(name="yaml.parser")


def test_another_package_that_is_missing_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), extra("policy", "it needs the extra", package="yaml"):
        raise ModuleNotFoundError(name="yamllint")


def test_the_error_can_be_of_another_class() -> None:
    with pytest.raises(LookupError, match=r"grpc-org-authz\[otel\]"), extra("otel", "it", error=LookupError):
        raise ModuleNotFoundError(name="opentelemetry")


def test_blanks_and_a_byte_order_mark_are_no_part_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"\xef\xbb\xbf hidden \r\n")

    assert read_secret(path, "api_key_file") == "hidden"


@pytest.mark.parametrize("content", [None, b"\xff hidden"])
def test_a_secret_that_cannot_be_read_is_not_shown(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^api_key_file: '.*secret' cannot be read$"):
        read_secret(path, "api_key_file")
