"""The command line: one file per verb. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import typer

from medgcsam.cli import check, compare, doctor, evaluate, identify, import_, predict, report, split, train
from medgcsam.cli.options import print_version

app = typer.Typer(
    name="medgcsam",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="--debug, anywhere in a command, adds the traceback to an error.",
)


@app.callback()
def _medgcsam(
    version: bool = typer.Option(False, "--version", callback=print_version, is_eager=True, help="Print the version."),
) -> None:
    """Train networks on your own medical images with GCSAM, and report honestly against SAM and Adam."""


app.command("import", epilog=import_.EXAMPLE)(import_.import_)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("check", epilog=check.EXAMPLE)(check.check)
app.command("split", epilog=split.EXAMPLE)(split.split)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("identify", epilog=identify.EXAMPLE)(identify.identify)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
