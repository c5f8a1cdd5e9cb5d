"""Fuzz one target until it fails or the time is over: ``python -m fuzz TARGET [libFuzzer options] FOLDER...``."""

import importlib
import logging
import sys

import atheris

TARGETS = ("token", "jwks", "check", "memo")


def main() -> None:
    """Run the target that the first argument names, with only our own code instrumented."""
    name, *options = sys.argv[1:]
    if name not in TARGETS:
        sys.exit(f"choose a target: {', '.join(TARGETS)}")
    logging.disable()
    with atheris.instrument_imports(include=["authz"]):
        target = importlib.import_module(f"fuzz.fuzz_{name}")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        mutated: bytes = target.mutate(data, seed, lambda part: atheris.Mutate(part, max_size))
        return mutated[:max_size]

    atheris.Setup([sys.argv[0], *options], target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
