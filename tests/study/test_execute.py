"""Running the grid: what is skipped, what fails, what stops everything."""

from __future__ import annotations

import io

import pytest

from medgcsam.errors import ConfigError, Interrupted, MachineError
from medgcsam.journal import Journal
from medgcsam.run_folder import write_json
from medgcsam.study import PlannedRun, plan_runs
from medgcsam.study import execute as module
from medgcsam.study.execute import duration, execute_runs

GRID = {"optimizers": {"adam": {"name": "adamw"}, "gcsam": {}}, "seeds": [0, 1, 2]}


@pytest.fixture
def trained(monkeypatch) -> dict:
    """A stand-in for training that notes what it was given; ``trained["errors"]`` says which runs fail."""
    seen: dict = {"runs": [], "errors": {}}

    def train(config, *, restart, smoke, journal):
        run = PlannedRun(config)
        seen["runs"].append((run.setting, run.seed))
        if error := seen["errors"].get((run.setting, run.seed)):
            raise error
        write_json(run.folder.metrics, {"cost": {"seconds": 60.0, "gradient_evaluations": 1}})
        return run.folder.path

    monkeypatch.setattr(module, "train", train)
    return seen


def said(runs, **options) -> tuple[module.Outcome, str]:
    stream = io.StringIO()
    return execute_runs(runs, journal=Journal(stream=stream), **options), stream.getvalue()


def test_all_runs_in_order(config, trained) -> None:
    runs = plan_runs(config(compare=GRID))
    outcome, text = said(runs)
    assert [run for run, _ in outcome.finished] == runs
    assert outcome.partial_failure() is None
    assert "run 1 of 6 (adam, seed 0, fold 0)" in text
    assert "run 6 of 6 (gcsam, seed 2, fold 0), about 1 s left" in text


def test_finished_runs_tell_how_long_the_rest_will_take(config, trained) -> None:
    runs = plan_runs(config(compare=GRID))
    for run in runs[:2]:
        write_json(run.folder.metrics, {"cost": {"seconds": 240.0, "gradient_evaluations": 1}})
    text = said(runs)[1]
    assert "run 2 of 6 (gcsam, seed 0, fold 0) is finished already" in text
    assert "run 3 of 6 (adam, seed 1, fold 0), about 16 min left" in text


def test_one_failing_run_does_not_stop_the_others(config, trained) -> None:
    trained["errors"] = {("gcsam", 1): MachineError("out of memory.")}
    outcome, text = said(plan_runs(config(compare=GRID)))
    assert len(trained["runs"]) == 6
    assert len(outcome.finished) == 5
    assert "this run failed: out of memory." in text
    failure = outcome.partial_failure()
    assert failure.exit_code == 5
    assert "1 of 6 runs failed (gcsam, seed 1, fold 0)" in str(failure)
    assert "out of memory" in str(failure)


def test_where_all_fail_the_first_error_is_the_error(config, trained) -> None:
    runs = plan_runs(config(compare=GRID))
    trained["errors"] = {(run.setting, run.seed): ConfigError(f"wrong {run.setting}") for run in runs}
    with pytest.raises(ConfigError, match="wrong adam"):
        said(runs)


def test_a_signal_stops_everything_at_once(config, trained) -> None:
    trained["errors"] = {("gcsam", 0): Interrupted("Stopped by SIGTERM.")}
    with pytest.raises(Interrupted):
        said(plan_runs(config(compare=GRID)))
    assert trained["runs"] == [("adam", 0), ("gcsam", 0)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (720, "12 min"), (12000, "3 h 20 min"), (7199, "2 h 0 min")]
)
def test_durations_are_said_as_people_do(seconds, text) -> None:
    assert duration(seconds) == text
