"""Commands for a developer's own machine: ``authz issuer``, ``authz demo`` and ``authz schema``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, write
from authz.errors import ConfigError
from authz.runtime.configuration import check_posix, extra
from authz.runtime.text.schema import did_you_mean

_NEEDS = "this command needs the extra 'demo'"


def issuer(
    *,
    listen: str = "127.0.0.1:9190",
    issuer_url: str | None = None,
    config: Path | None = None,
    keys: Path | None = None,
    allow_remote: bool = False,
    webhooks: str | None = None,
    print_config: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run a local WorkOS Connect for development. Never use it in production.

    Parameters
    ----------
    listen
        HOST:PORT; port 0 chooses a free one.
    issuer_url
        The issuer that tokens name, if it differs from the address.
    config
        YAML file of organizations, applications and their scopes; by default a built-in one.
    keys
        File of private keys, to keep them from run to run; created if it does not exist.
    allow_remote
        Permit an address that other machines can reach.
    webhooks
        Post what happens to organizations to this URL, signed, as WorkOS does.
    print_config
        Only print the built-in file, as a start for a --config of your own.

    """
    with extra("demo", _NEEDS):
        from authz.demo.issuer.directory import DEFAULT_FILE  # noqa: PLC0415 - the extra's
        from authz.demo.issuer.program import serve_issuer  # noqa: PLC0415 - the extra's
    if print_config:
        write(DEFAULT_FILE.read_text(encoding="utf-8"))
    else:
        serve_issuer(
            listen=listen,
            issuer_url=issuer_url,
            config=config,
            keys=keys,
            allow_remote=allow_remote,
            webhooks=webhooks,
        )
    return ALLOWED


def demo(*, keep: bool = False) -> int:
    """Show authz at work: two organizations, a real Envoy, and calls that must not get through.

    Parameters
    ----------
    keep
        Leave everything running, and print commands to try.

    """
    check_posix("demo")
    with extra("demo", _NEEDS):
        from authz.demo import demo as show  # noqa: PLC0415 - the extra's
    return show.run(keep=keep)


def schema(
    name: str | None = None,
    /,
    *,
    folder: Annotated[bool, Parameter(name="--dir", negative=())] = False,
) -> int:
    """Print the JSON Schema of a kind of file, by which editors complete and check it.

    Parameters
    ----------
    name
        The kind of file: policy, policy-test, organizations or config, for a file of settings.
    folder
        Print the folder that holds all of them instead.

    """
    place, end = Path(__file__).with_name("schemas"), ".schema.json"
    if folder:
        write(str(place))
        return ALLOWED
    names = sorted(path.name.removesuffix(end) for path in place.glob(f"*{end}"))
    if name not in names:
        known = f"; there are {', '.join(names)}"
        raise ConfigError(
            f"schema: missing{known}"
            if name is None
            else f"schema: unknown {name!a}{did_you_mean(name, names) or known}"
        )
    write((place / f"{name}{end}").read_text(encoding="utf-8"))
    return ALLOWED
