"""``medgcsam`` and ``python -m medgcsam``: run a verb; turn an expected error into one sentence and an exit code."""

from __future__ import annotations

import sys

from medgcsam.errors import MedgcsamError


def main() -> None:
    """Entry point of the command line. ``--debug``, anywhere in the command, adds the traceback to an error.

    With ``--json``, an error of a command that has printed no result is ``{"error", "exit_code"}`` on stdout as well.
    """
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv.remove("--debug")
    from medgcsam.cli import app, options

    options.json_printed = False
    try:
        app()
    except Exception as error:
        import traceback  # not needed by a command that succeeds

        if debug:
            traceback.print_exc()
        if isinstance(error, MedgcsamError):
            sys.exit(_explained(str(error), error.exit_code))
        where = traceback.extract_tb(error.__traceback__)[-1]
        sentence = (
            f"This is a bug in medgcsam: {type(error).__name__} in {where.name} ({error}); "
            "run the same command with --debug and report what it prints."
        )
        sys.exit(_explained(sentence, 1))


def _explained(sentence: str, exit_code: int) -> int:
    print(sentence, file=sys.stderr, flush=True)
    from medgcsam.cli import options

    if "--json" in sys.argv[1:] and not options.json_printed:
        options.print_json({"error": sentence, "exit_code": exit_code})
    return exit_code


if __name__ == "__main__":
    main()
