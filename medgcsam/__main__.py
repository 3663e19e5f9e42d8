"""``medgcsam`` and ``python -m medgcsam``: run a verb; turn an expected error into one sentence and an exit code."""

from __future__ import annotations

import sys

from medgcsam.errors import Interrupted, MedgcsamError

STOPPED = "Stopped by SIGINT; run the same command again."
CTRL_C = 130
"""What typer gives back for Ctrl-C in a verb that does not answer it itself."""


def main() -> None:
    """Entry point of the command line. ``--debug``, anywhere in the command, adds the traceback to an error.

    With ``--json``, an error of a command that has printed no result is ``{"error", "exit_code"}`` on stdout as well.
    """
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv.remove("--debug")
    try:
        from medgcsam.cli import app, options

        options.json_printed = False
        code = app(standalone_mode=False)
        sys.exit(code if code != CTRL_C else _explained(STOPPED, Interrupted.exit_code))
    except KeyboardInterrupt:
        sys.exit(_explained(STOPPED, Interrupted.exit_code))
    except Exception as error:
        if hasattr(error, "format_message"):  # the command line itself is wrong: typer shows how it is used
            error.show()
            sys.exit(_explained(error.format_message(), error.exit_code, shown=True))
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


def _explained(sentence: str, exit_code: int, *, shown: bool = False) -> int:
    if not shown:
        print(sentence, file=sys.stderr, flush=True)
    from medgcsam.cli import options

    if "--json" in sys.argv[1:] and not options.json_printed:
        options.print_json({"error": sentence, "exit_code": exit_code})
    return exit_code


if __name__ == "__main__":
    main()
