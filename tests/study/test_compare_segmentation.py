"""comparison.json of segmentations, from hand-made cases.csv, against the same numbers made with pandas and numpy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import t

from medgcsam.config import Config, dump, load
from medgcsam.errors import DataError
from medgcsam.journal import Journal
from medgcsam.recipes.comparison_table import say_comparison
from medgcsam.run_folder import RunFolder, read_json, read_table, write_json, write_table, write_text
from medgcsam.scoring_segmentation import segmentation_document
from medgcsam.study import PlannedRun, compare_runs, plan_runs, runs_table
from medgcsam.study.segmentation import draws, read_run

SETTINGS = {"adam": {"name": "adamw"}, "sam": {}, "gcsam": {}}
DIAGONAL = 90.0
METRICS = {"dice": "dice", "nsd": "nsd", "hd95_mm": "hd95"}


@pytest.fixture
def config(tmp_path: Path):
    """``config(structures, **compare)``: a configuration whose data are never read."""

    def make(*structures: str, replicates: int = 200, **compare) -> Config:
        content = {
            "name": "made",
            "task": "segmentation",
            "data": {"manifest": "none.csv", "structures": {name: [name] for name in structures}},
            "evaluation": {"replicates": replicates},
            "optimizer": {"name": "gcsam", "start": 0.6},
            "output": {"folder": str(tmp_path / "runs")},
            "compare": {"optimizers": SETTINGS, "seeds": [0, 1], "folds": [0, 1]} | compare,
        }
        path = tmp_path / "made.yaml"
        path.write_text(yaml.safe_dump(content))
        return load(path)

    return make


def cases_table(
    structures: tuple[str, ...], patients: int, fold: int, *, shift: float, noise: int, unit: str
) -> pd.DataFrame:
    """1 to 3 images per patient; what is hard is shared by all models of a fold, ``noise`` seeds what is the run's own.

    The first structure is in every reference; of others a part is absent, missed or invented.
    """
    shared, own = np.random.default_rng([fold, patients]), np.random.default_rng([fold, noise])
    lines = []
    for patient in range(patients):
        centre = shared.normal(0.7, 0.1)
        for image in range(int(shared.integers(1, 4))):
            for number, structure in enumerate(structures):
                absent, missed = shared.random(2) < ((0, 0) if number == 0 else (0.4, 0.2))
                status = ("both_empty", "false_positive")[own.integers(2)] if absent else ("ok", "missed")[int(missed)]
                dice = np.clip(centre + shift + shared.normal(0, 0.05) + own.normal(0, 0.02), 0.01, 0.99)
                values = {
                    "ok": (dice, dice**0.5, 30 * (1 - dice)), "missed": (0.0, 0.0, DIAGONAL),
                    "false_positive": (0.0, np.nan, np.nan), "both_empty": (np.nan, np.nan, np.nan),
                }[status]  # fmt: skip
                lines.append(
                    {"case": f"{fold}c{patient}-{image}", "patient": f"{fold}p{patient}", "partition": "test",
                     "structure": structure, "status": status}
                    | dict(zip(("dice", "nsd", "hd95"), values, strict=True)) | {"asd": values[2]}
                    | {"reference_size": 0.0 if absent else 5.0 + patient, "predicted_size": 4.0, "size_error": 0.5}
                    | {"unit": unit, "size_unit": "ml" if unit == "mm" else "px"}
                    | {"lesions_reference": 1, "lesions_found": 1, "lesions_false": 0}
                )  # fmt: skip
    table = pd.DataFrame(lines)
    # A case of validation, which a comparison must not see.
    other = table.iloc[: len(structures)].assign(partition="validation", case="v", patient="v", dice=0.001)
    return pd.concat([table, other])


def write_run(
    run: PlannedRun,
    structures: tuple[str, ...],
    *,
    patients: int = 12,
    shift: float = 0.0,
    unit: str = "mm",
    full: bool = False,
) -> tuple[PlannedRun, RunFolder]:
    """One finished run; ``full`` writes all of metrics.json, not only what a comparison reads of it."""
    folder, noise = run.folder, 1 + run.seed + sum(map(ord, run.setting))
    about = {"patients": patients, "fold": run.fold, "unit": unit}
    write_table(folder.cases, cases_table(structures, **about, shift=shift, noise=noise))
    write_table(folder.baseline, cases_table(structures, **about, shift=-0.1, noise=0))
    write_text(folder.config, dump(run.config))
    document = {"task": "segmentation", "structures": list(structures), "patients": "known"}
    if full:
        cases = read_table(folder.cases)
        document = segmentation_document(cases, run.config.evaluation, structures=structures, patients_known=True)
    document |= {
        "nsd_tolerance": dict.fromkeys(structures, 2.0),
        "baseline": {"method": f"best fixed threshold: lesion >= {run.fold}"},
        "synthetic": True, "title": "Made up", "notes": "", "selection": {"epoch": 3, "metric": "validation dice"},
        "cost": {"seconds": 10.0, "gradient_evaluations": 100.0}, "sharpness": {"value": 0.1},
    }  # fmt: skip
    write_json(folder.metrics, document)
    return run, folder


def made(config: Config, structures: tuple[str, ...], **settings: dict) -> list[tuple[PlannedRun, RunFolder]]:
    return [write_run(run, structures, **settings.get(run.setting, {})) for run in plan_runs(config)]


def mean_of(path: Path, column: str) -> float:
    """Mean over structures of means over patients of means over images, of what the reference shows."""
    table = pd.read_csv(path)
    table = table[(table["partition"] == "test") & table["status"].isin(["ok", "missed"])]
    return table.groupby(["structure", "patient"])[column].mean().groupby("structure").mean().mean()


def pair_of(document: dict, a: str, b: str, metric: str = "dice") -> dict:
    return next(p for p in document["pairs"] if (p["a"], p["b"], p["metric"]) == (a, b, metric))


def test_each_run_has_the_numbers_of_its_cases_and_of_its_metrics_json(config) -> None:
    structures = ("organ", "lesion")
    loaded = config(*structures)
    runs = made(loaded, structures, **{name: {"full": True} for name in SETTINGS})
    document = compare_runs(runs, loaded)
    assert (document["task"], document["primary_metric"]) == ("segmentation", "dice")
    assert (document["structures"], list(document["metrics"])) == (list(structures), list(METRICS))
    assert document["metrics"]["hd95_mm"] == {"words": "HD95 (mm)", "less_is_better": True}
    values = {}
    for run, folder in runs:
        lines = document["settings"][run.setting]["runs"]
        line = next(line for line in lines if (line["seed"], line["fold"]) == (run.seed, run.fold))
        test = read_json(folder.metrics)["partitions"]["test"]
        for metric, column in METRICS.items():
            assert line[metric] == pytest.approx(mean_of(folder.cases, column), abs=1e-9)
            assert line[metric] == pytest.approx(test[metric]["value"], abs=1e-9)
            values.setdefault((run.setting, metric), []).append(line[metric])
    for (setting, metric), found in values.items():
        entry = document["settings"][setting][metric]
        assert entry["value"] == pytest.approx(np.mean(found))
        assert entry["low"] < entry["value"] < entry["high"]
        assert entry["method"].endswith("log scale" if metric == "hd95_mm" else "logit scale")
    table = runs_table(document)
    assert ",".join(table.columns) == (
        "setting,seed,fold,dice,nsd,hd95_mm,seconds,gradient_evaluations,best_epoch,sharpness"
    )
    assert len(table) == 12
    assert not table.isna().any().any()


def test_more_dice_and_less_distance_are_better(config) -> None:
    loaded = config("lesion", seeds=[0, 1, 2])
    document = compare_runs(made(loaded, ("lesion",), gcsam={"shift": 0.1}), loaded)
    dice, distance = (pair_of(document, "gcsam", "adam", metric) for metric in ("dice", "hd95_mm"))
    assert (dice["family"], dice["verdict"], distance["family"]) == ("primary", "better", "exploratory")
    assert dice["low"] > 0 > distance["high"]
    assert distance["verdict"] == "better"
    assert dice["equivalence"]["margin"] == 0.01
    assert distance["equivalence"] is None


def test_out_of_fold_difference_to_the_baseline_is_that_of_the_patients(config) -> None:
    """Every patient once in five folds, one seed: a stratified mean, whose standard error has a formula."""
    loaded = config("lesion", replicates=4000, seeds=[3], folds=[0, 1, 2, 3, 4])
    few = {name: {"patients": 6} for name in SETTINGS}
    runs = made(loaded, ("lesion",), **few)
    document = compare_runs(runs, loaded)
    folds = []
    for _, folder in (pair for pair in runs if pair[0].setting == "gcsam"):
        own, threshold = (
            pd.read_csv(path).query("partition == 'test'").groupby("patient")["dice"].mean()
            for path in (folder.cases, folder.baseline)
        )
        folds.append((own - threshold).to_numpy())
    assert [len(fold) for fold in folds] == [6] * 5
    mean = np.mean(np.concatenate(folds))
    error = np.sqrt(sum(np.var(fold, ddof=1) / len(fold) for fold in folds)) / 5
    pair = pair_of(document, "gcsam", "baseline")
    assert pair["difference"] == pytest.approx(mean, abs=1e-9)
    # 30 patients less a mean per fold.
    assert (pair["high"] - pair["low"]) / 2 == pytest.approx(t.ppf(0.975, 25) * error, rel=0.05)
    assert pair["low"] > 0
    assert pair["family"] == "exploratory"
    assert "cost" not in pair
    assert "patients only" in pair["method"]
    assert document["settings"]["gcsam"]["dice"]["n_patients"] == 30


def test_several_seeds_prove_the_network_against_the_baseline(config) -> None:
    loaded = config("lesion", seeds=[0, 1, 2])
    document = compare_runs(made(loaded, ("lesion",), adam={"shift": -0.1}), loaded)
    better, same = (pair_of(document, name, "baseline") for name in ("sam", "adam"))
    assert (better["verdict"], better["text"]) == ("better", "better than the sanity baseline")
    assert better["p"] < 0.05
    assert same["low"] < 0 < same["high"]
    assert same["text"].endswith(("to the sanity baseline", "against the sanity baseline"))
    baseline = document["settings"]["baseline"]
    assert baseline["method"] == "best fixed threshold, made anew in each fold"
    assert [fold["method"] for fold in baseline["folds"]] == [f"best fixed threshold: lesion >= {k}" for k in (0, 1)]
    assert baseline["dice"]["value"] == pytest.approx(np.mean([fold["dice"] for fold in baseline["folds"]]))


def test_pictures_without_spacing_have_their_distance_in_pixels(config) -> None:
    loaded = config("lesion", seeds=[0], folds=[1])
    runs = made(loaded, ("lesion",), **{name: {"unit": "px"} for name in SETTINGS})
    document = compare_runs(runs, loaded)
    assert list(document["metrics"]) == ["dice", "nsd", "hd95_px"]
    stream = io.StringIO()
    say_comparison(document, Journal(stream=stream))
    text = stream.getvalue()
    head = next(line for line in text.splitlines() if line.startswith("setting"))
    assert head.split("  ")[1].strip() == "Dice [95% interval]"
    assert all(word in head for word in ("SD of seeds", "NSD", "HD95 (px)"))
    gcsam = next(line for line in text.splitlines() if line.startswith("gcsam "))
    assert f"  {document['settings']['gcsam']['hd95_px']['value']:.1f}  " in gcsam, (
        "pixels to a tenth, as nobody sees more"
    )
    assert f"  {document['settings']['gcsam']['nsd']['value']:.3f}  " in gcsam
    assert "difference in Dice [95% interval]" in text
    assert "gcsam - baseline" in text
    assert "sanity baseline: best fixed threshold: lesion >= 1; Dice 0." in text
    assert "tested on 12 patients" in text


def hide(runs: list[tuple[PlannedRun, RunFolder]], structure: str, keep=lambda run, table: False) -> None:
    """The references of these runs show the structure no more, but where ``keep(run, table)`` says so."""
    gone = dict.fromkeys(("dice", "nsd", "hd95", "asd"), "") | {"status": "both_empty", "reference_size": "0"}
    for run, folder in runs:
        for path in (folder.cases, folder.baseline):
            table = read_table(path)
            rows = (table["structure"] == structure) & ~np.asarray(keep(run, table))
            table.loc[rows, list(gone)] = list(gone.values())
            write_table(path, table)


def told(document: dict) -> str:
    stream = io.StringIO()
    say_comparison(document, Journal(stream=stream))
    return stream.getvalue()


def test_a_fold_that_shows_nothing_has_no_say_and_is_named(config) -> None:
    loaded = config("lesion", seeds=[0, 1], folds=[0, 1, 2])
    runs = made(loaded, ("lesion",))
    without = compare_runs([pair for pair in runs if pair[0].fold != 1], loaded)
    hide([pair for pair in runs if pair[0].fold == 1], "lesion")
    document = compare_runs(runs, loaded)
    over = "mean over 2 folds of 3 (fold 1 has no test case for it)"
    for name in ("gcsam", "baseline"):
        entry, expected = (one["settings"][name]["dice"] for one in (document, without))
        assert entry["value"] == pytest.approx(expected["value"])
        assert entry["low"] == pytest.approx(expected["low"], rel=1e-3)
        assert entry["n_patients"] == expected["n_patients"] == 24
        assert over in entry["method"]
        assert "folds" not in expected
    pair, expected = (pair_of(one, "gcsam", "baseline") for one in (document, without))
    assert pair["difference"] == pytest.approx(expected["difference"])
    assert pair["low"] is not None
    assert over in pair["method"]
    assert f"Dice: {over}" in told(document)


def test_no_fold_that_shows_anything_is_no_mean_and_says_so(config) -> None:
    loaded = config("lesion", seeds=[0, 1])
    runs = made(loaded, ("lesion",))
    hide(runs, "lesion")
    document = compare_runs(runs, loaded)
    entry, pair = document["settings"]["gcsam"]["dice"], pair_of(document, "gcsam", "baseline")
    assert (entry["value"], entry["low"], entry["n_patients"]) == (None, None, 0)
    assert entry["reason"] == pair["reason"] == "it cannot be computed from these cases"
    assert (pair["difference"], pair["verdict"]) == (None, "inconclusive")
    assert "not estimable" in told(document)


def test_each_structure_is_averaged_over_the_folds_that_show_it(config) -> None:
    """A lesion that one fold of three shows counts as much as the organ that all show, not a third of it."""
    loaded = config("organ", "lesion", seeds=[0, 1], folds=[0, 1, 2])
    runs = made(loaded, ("organ", "lesion"))
    hide(runs, "lesion", keep=lambda run, table: run.fold == 0)
    document = compare_runs(runs, loaded)
    tables = {(run.setting, run.seed, run.fold): folder for run, folder in runs}

    def of_structure(path: Path, structure: str) -> float:
        table = pd.read_csv(path).query("partition == 'test' and structure == @structure")
        return table[table["status"].isin(["ok", "missed"])].groupby("patient")["dice"].mean().mean()

    def mean(setting: str, file: str) -> float:
        organ = np.mean([of_structure(getattr(tables[setting, s, f], file), "organ") for s in (0, 1) for f in range(3)])
        lesion = np.mean([of_structure(getattr(tables[setting, s, 0], file), "lesion") for s in (0, 1)])
        return (organ + lesion) / 2

    entry, pair = document["settings"]["gcsam"]["dice"], pair_of(document, "gcsam", "baseline")
    assert entry["value"] == pytest.approx(mean("gcsam", "cases"))
    assert pair["difference"] == pytest.approx(mean("gcsam", "cases") - mean("gcsam", "baseline"))
    over = "each structure over the folds whose test cases show it: organ 3, lesion 1"
    assert over in entry["method"]
    assert over in pair["method"]
    assert over in told(document)
    assert entry["low"] < entry["value"] < entry["high"]


def test_a_structure_of_two_patients_leaves_no_interval_and_says_so(config) -> None:
    loaded = config("organ", "lesion", seeds=[0, 1])
    runs = made(loaded, ("organ", "lesion"))

    def first(run: PlannedRun, table: pd.DataFrame) -> pd.Series:
        shown = table[(table["structure"] == "lesion") & table["status"].isin(["ok", "missed"])]
        return table["patient"] == shown["patient"].iloc[0]

    hide(runs, "lesion", keep=first)
    document = compare_runs(runs, loaded)
    entry, pair = document["settings"]["gcsam"]["dice"], pair_of(document, "gcsam", "adam")
    assert (entry["low"], pair["low"], pair["p"], pair["verdict"]) == (None, None, None, "inconclusive")
    assert entry["value"] is not None
    assert entry["reason"] == pair["reason"] == "too few patients for an interval: lesion 2, where 3 are needed"


def test_one_seed_is_not_tested_and_nothing_beside_the_interval_denies_it(config) -> None:
    loaded = config("lesion", seeds=[0])
    document = compare_runs(made(loaded, ("lesion",)), loaded)
    pair = pair_of(document, "gcsam", "baseline")
    assert pair["low"] > 0
    assert (pair["p"], pair["verdict"]) == (None, "inconclusive")
    assert pair["text"] == "not tested, as there is one seed (the interval is of patients only)"
    between = pair_of(document, "gcsam", "adam")["text"]
    assert between.startswith("not tested, as there is one seed; at equal epochs, with as many gradient evaluations")
    text = told(document)
    assert "inconclusive" not in text
    assert "intervals are over patients only, nothing is tested" in text


def test_the_mean_of_few_patients_has_its_own_variance(config) -> None:
    """The variance of a mean of n, s^2 / n; drawing n of n would make it smaller by 1 / n."""
    loaded = config("organ")
    _, folder = write_run(plan_runs(loaded)[0], ("organ",), patients=5)
    metrics = read_json(folder.metrics)
    tested = read_run(folder, metrics)
    codes = np.unique(tested.patients, return_inverse=True)[1]
    weights = np.concatenate(list(draws(tested, metrics, codes, 5, replicates=20_000, seed=1)))
    assert weights.shape == (20_000, 5)
    assert (weights >= 0).all()
    assert weights.sum(axis=1) == pytest.approx(np.full(20_000, 5.0))
    values = np.array([0.9, 0.2, 0.5, 0.55, 0.7])
    assert np.var(weights @ values / 5) == pytest.approx(np.var(values, ddof=1) / 5, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[1:], "no line for a structure"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "has two lines for 'organ'"),
        (lambda table: table.drop(columns="nsd"), "column 'nsd' is missing"),
        (lambda table: table.assign(dice="x"), "missing or damaged"),
        (lambda table: table.assign(partition="validation"), "no test case"),
    ],
)
def test_damaged_cases_are_refused(config, change, message) -> None:
    loaded = config("organ", "lesion")
    run, folder = write_run(plan_runs(loaded)[0], ("organ", "lesion"))
    write_table(folder.cases, change(read_table(folder.cases)))
    with pytest.raises(DataError, match=message):
        compare_runs([(run, folder)], loaded)


def test_runs_measured_with_other_references_or_tolerances_are_not_paired(config) -> None:
    loaded = config("lesion", seeds=[0], folds=[0])
    runs = made(loaded, ("lesion",))
    folder = runs[-1][1]
    facts, table = read_json(folder.metrics), read_table(folder.cases)
    write_json(folder.metrics, facts | {"nsd_tolerance": {"lesion": 9.0}})
    with pytest.raises(DataError, match="not tested on the same cases"):
        compare_runs(runs, loaded)
    write_json(folder.metrics, facts)
    compare_runs(runs, loaded)
    write_table(folder.cases, table.assign(reference_size="77"))
    with pytest.raises(DataError, match="not tested on the same cases"):
        compare_runs(runs, loaded)
