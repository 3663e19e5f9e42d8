"""A study's runs, one after the other: finished ones are skipped, a failing one does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medgcsam.errors import Interrupted, MedgcsamError, PartialFailure
from medgcsam.journal import Journal, stopwatch
from medgcsam.run_folder import RunFolder, read_json
from medgcsam.study.plan import PlannedRun
from medgcsam.training import train
from medgcsam.training.smoke import smoke_config


@dataclass
class Outcome:
    """What became of the runs of a study."""

    finished: list[tuple[PlannedRun, RunFolder]] = field(default_factory=list)
    failed: list[tuple[PlannedRun, MedgcsamError]] = field(default_factory=list)

    def partial_failure(self) -> PartialFailure | None:
        """The error that names the runs that failed, with the first one's reason; None where none did."""
        if not self.failed:
            return None
        names = "; ".join(str(run) for run, _ in self.failed)
        reason = self.failed[0][1]
        return PartialFailure(
            f"{len(self.failed)} of {len(self.failed) + len(self.finished)} runs failed ({names}), the first because: "
            f"{reason} The others are done; mend the cause and run the same command again."
        )


def execute_runs(
    runs: Sequence[PlannedRun], *, restart: bool = False, smoke: bool = False, journal: Journal | None = None
) -> Outcome:
    """Train each run; unfinished ones go on from their last epoch. ``restart`` begins all of them anew.

    Raises:
        Interrupted: a signal came; nothing more is started.
        MedgcsamError: the first error, where no run at all came to its end.
    """
    journal = journal or Journal()
    clock = _Clock(runs, smoke=smoke, restart=restart)
    outcome = Outcome()
    for number, run in enumerate(runs, start=1):
        skipped = clock.is_finished(run)
        if not skipped:
            journal.say()
        state = " is finished already" if skipped else clock.left(runs[number - 1 :])
        journal.say(f"run {number} of {len(runs)} ({run}){state}")
        try:
            with stopwatch() as seconds:
                # A journal of its own: each run's log holds its own lines only.
                own = Journal(quiet=journal.quiet, stream=journal.stream)
                path = train(run.config, restart=restart, smoke=smoke, journal=own)
                clock.note(run, seconds(), skipped=skipped)
            outcome.finished.append((run, RunFolder(path)))
        except Interrupted:
            raise
        except MedgcsamError as error:
            journal.say(f"this run failed: {error}")
            outcome.failed.append((run, error))
    if not outcome.finished:
        raise outcome.failed[0][1]
    return outcome


class _Clock:
    """How long runs of each setting take, and so how long the rest will."""

    def __init__(self, runs: Sequence[PlannedRun], *, smoke: bool, restart: bool) -> None:
        self.smoke, self.restart = smoke, restart
        self.taken: dict[str, list[float]] = {}
        for run in runs:
            if self.is_finished(run):
                # What a finished run took is the first guess at what others of its setting will take.
                cost = read_json(self._folder(run).metrics)["cost"]["seconds"]
                self.taken.setdefault(run.setting, []).append(cost)

    def _folder(self, run: PlannedRun) -> RunFolder:
        return PlannedRun(smoke_config(run.config)).folder if self.smoke else run.folder

    def is_finished(self, run: PlannedRun) -> bool:
        return not self.restart and self._folder(run).finished()

    def note(self, run: PlannedRun, seconds: float, *, skipped: bool) -> None:
        if not skipped:
            self.taken.setdefault(run.setting, []).append(seconds)

    def left(self, runs: Sequence[PlannedRun]) -> str:
        """``, about 12 min left`` for these runs, or nothing where no run was timed yet."""
        if not self.taken:
            return ""
        means = {setting: sum(times) / len(times) for setting, times in self.taken.items()}
        # A setting that has not run yet is guessed at the slowest one's time.
        seconds = sum(means.get(run.setting, max(means.values())) for run in runs if not self.is_finished(run))
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
