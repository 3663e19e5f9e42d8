"""Few patients of a cohort, for a trial run that only asks whether everything works."""

from __future__ import annotations

import pandas


def few_patients(table: pandas.DataFrame, patients: int) -> pandas.DataFrame:
    """About ``patients`` patients, in the table's order: as many of each kind (labels seen, given partition, site).

    Keeping every kind means that a stratified split, given partitions and a site left out still work on the few.
    """
    keys = [name for name in ("partition", "site") if name in table]
    kinds = table.groupby("patient_id", sort=False).agg(
        {"label": lambda labels: "&".join(sorted(set(labels)))} | dict.fromkeys(keys, "first")
    )
    groups = kinds.groupby(list(kinds.columns), sort=True)
    each = max(6, patients // max(1, groups.ngroups))
    kept = {patient for _, group in groups for patient in group.index[:each]}
    few = table[table["patient_id"].isin(kept)].reset_index(drop=True)
    few.attrs.update(table.attrs)
    return few
