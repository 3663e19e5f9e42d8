"""Many runs, paired: the grid of settings, seeds and folds, its execution, and what it says about the settings."""

from __future__ import annotations

from medgcsam.study.compare import compare_runs, runs_table
from medgcsam.study.plan import PlannedRun, plan_runs

__all__ = ["PlannedRun", "compare_runs", "plan_runs", "runs_table"]
