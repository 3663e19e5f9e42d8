"""comparison.json from simulated runs: the numbers of each run, honest means, pairs and verdicts."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medgcsam.errors import DataError
from medgcsam.run_folder import read_json, read_table, write_json, write_table
from medgcsam.study import compare_runs, runs_table
from medgcsam.study.classification import MEASURES

METRICS = MEASURES.names
THREE = {"adam": {"name": "adamw"}, "sam": {}, "gcsam": {}}
GRID = {"optimizers": THREE, "seeds": [0, 1, 2], "folds": [0, 1]}


def pair_of(document, a, b, metric="auroc"):
    return next(p for p in document["pairs"] if (p["a"], p["b"], p["metric"]) == (a, b, metric))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_each_run_has_the_numbers_of_its_own_metrics_json(config, study, kind) -> None:
    task = "multilabel" if kind == "multilabel" else "classification"
    loaded = config(compare={"optimizers": THREE, "seeds": [0, 1]}, task=task, data={"manifest": "none.csv"})
    runs = study(loaded, kind=kind, full=True)
    document = compare_runs(runs, loaded)
    for run, folder in runs:
        line = next(line for line in document["settings"][run.setting]["runs"] if line["seed"] == run.seed)
        test = read_json(folder.metrics)["partitions"]["test"]
        for metric in METRICS:
            assert line[metric] == pytest.approx(test[metric]["value"], abs=1e-9)
    for setting in THREE:
        entry = document["settings"][setting]["auroc"]
        assert entry["low"] < entry["value"] < entry["high"]
        assert (entry["n_patients"], entry["n_images"]) == (test["auroc"]["n_patients"], test["auroc"]["n_images"])


def test_means_are_over_folds_and_seeds_and_never_pool_scores(config, study) -> None:
    """A model whose scores all lie higher in one fold has the same AUROC in it; pooled scores would not."""
    loaded = config(compare=GRID)
    runs = study(loaded)
    moved = []
    for run, folder in runs:
        table = read_table(folder.predictions)
        if run.fold == 1:
            odds = table["p_opacity"] / table["p_normal"] * 50
            table["p_opacity"], table["p_normal"] = odds / (1 + odds), 1 / (1 + odds)
        areas = roc_auc_score(table["label"] == "opacity", table["p_opacity"])
        moved.append((run.setting, areas))
        write_table(folder.predictions, table)
    document = compare_runs(runs, loaded)
    for setting in THREE:
        expected = np.mean([area for name, area in moved if name == setting])
        assert document["settings"][setting]["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
    difference = pair_of(document, "gcsam", "adam")["difference"]
    values = {name: document["settings"][name]["auroc"]["value"] for name in THREE}
    assert difference == pytest.approx(values["gcsam"] - values["adam"], abs=1e-9)


def test_sd_of_seeds_is_that_of_the_fold_means(config, study) -> None:
    loaded = config(compare=GRID)
    setting = compare_runs(study(loaded), loaded)["settings"]["sam"]
    means = [np.mean([run["auroc"] for run in setting["runs"] if run["seed"] == seed]) for seed in (0, 1, 2)]
    assert setting["auroc"]["sd_seeds"] == pytest.approx(np.std(means, ddof=1))


def test_a_clear_winner_is_better_and_says_its_price(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded, gcsam={"skill": 3.0, "passes": 140.0}, sam={"passes": 200.0})
    document = compare_runs(runs, loaded)
    pair = pair_of(document, "gcsam", "adam")
    assert pair["verdict"] == "better"
    assert pair["family"] == "primary"
    assert pair["p"] <= pair["p_holm"] < 0.05
    assert pair["low"] > 0
    assert pair["text"] == "better at equal epochs, with 1.40 times the gradient evaluations"
    assert pair["cost"] == {"seconds": pytest.approx(1.4), "gradient_evaluations": pytest.approx(1.4)}
    for metric in ("brier", "log_loss"):
        loss = pair_of(document, "gcsam", "adam", metric)
        assert loss["difference"] < 0
        assert loss["verdict"] == "better"
        assert loss["p_holm"] is None


def test_the_loser_is_worse(config, study) -> None:
    loaded = config(compare=GRID)
    document = compare_runs(study(loaded, gcsam={"skill": 0.3}), loaded)
    assert pair_of(document, "gcsam", "sam")["verdict"] == "worse"
    assert pair_of(document, "gcsam", "sam", "log_loss")["verdict"] == "worse"


def test_likes_are_equivalent_within_a_wide_margin_and_inconclusive_within_a_tiny_one(config, study) -> None:
    wide, narrow = (config(compare=GRID | {"margin": margin}) for margin in (0.1, 1e-5))
    runs = study(wide)
    assert pair_of(compare_runs(runs, wide), "gcsam", "adam")["verdict"] == "equivalent"
    again = pair_of(compare_runs(runs, narrow), "gcsam", "adam")
    assert again["verdict"] == "inconclusive"
    assert "margin was changed after the runs began" in again["text"]


def test_pairing_by_patient_is_sharper_than_two_intervals(config, study) -> None:
    loaded = config(compare=GRID)
    document = compare_runs(study(loaded, **{name: {"own_noise": 0.05} for name in THREE}), loaded)
    entry, pair = document["settings"]["gcsam"]["auroc"], pair_of(document, "gcsam", "adam")
    assert pair["high"] - pair["low"] < 0.3 * (entry["high"] - entry["low"])


def test_same_predictions_are_no_difference_and_no_test(config, study) -> None:
    loaded = config(compare=GRID)
    document = compare_runs(study(loaded, **{name: {"own_noise": 0.0} for name in THREE}), loaded)
    pair = pair_of(document, "gcsam", "sam")
    assert pair["difference"] == 0
    assert pair["p"] is None
    assert pair["verdict"] == "inconclusive"
    assert "same number" in pair["reason"]


def test_families_are_fixed_and_the_rest_is_exploratory(config, study) -> None:
    loaded = config(compare=GRID | {"optimizers": {**THREE, "ema": {"name": "adam"}}})
    document = compare_runs(study(loaded), loaded)
    primary = [(p["a"], p["b"], p["metric"]) for p in document["pairs"] if p["family"] == "primary"]
    assert primary == [("gcsam", "adam", "auroc"), ("gcsam", "sam", "auroc")]
    assert len([p for p in document["pairs"] if p["b"] != "baseline"]) == 6 * len(METRICS)
    against = [(p["a"], p["metric"]) for p in document["pairs"] if p["b"] == "baseline"]
    assert sorted(against) == [(name, "auroc") for name in sorted((*THREE, "ema"))]
    assert all(p["b"] != "gcsam" for p in document["pairs"])
    assert all((p["p_holm"] is None) == (p["family"] == "exploratory") for p in document["pairs"])


def test_one_seed_tests_nothing(config, study) -> None:
    loaded = config(compare=GRID | {"seeds": [4]})
    document = compare_runs(study(loaded, gcsam={"skill": 4.0}), loaded)
    pair = pair_of(document, "gcsam", "adam")
    assert pair["low"] > 0
    assert pair["p"] is None
    assert pair["verdict"] == "inconclusive"
    assert "patients only" in pair["method"]


def test_failed_runs_leave_their_seed_out_of_the_means(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded)
    gone = next(pair for pair in runs if (pair[0].setting, pair[0].seed, pair[0].fold) == ("sam", 1, 0))
    kept = [pair for pair in runs if pair is not gone]
    document = compare_runs(kept, loaded, failed=[(gone[0], ValueError("no memory"))])
    assert document["failed"] == [{"setting": "sam", "seed": 1, "fold": 0, "error": "no memory"}]
    assert pair_of(document, "gcsam", "sam")["n_seeds"] == 2
    assert pair_of(document, "gcsam", "adam")["n_seeds"] == 3
    assert len(document["settings"]["sam"]["runs"]) == 5


def test_a_setting_that_failed_altogether_does_not_make_the_family_smaller(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded, gcsam={"skill": 1.7})
    whole = compare_runs(runs, loaded)
    part = compare_runs([pair for pair in runs if pair[0].setting != "sam"], loaded)
    assert pair_of(part, "gcsam", "sam")["difference"] is None
    assert pair_of(part, "gcsam", "sam")["verdict"] == "inconclusive"
    p = pair_of(whole, "gcsam", "adam")["p"]
    assert pair_of(part, "gcsam", "adam")["p_holm"] == pytest.approx(min(1, 2 * p))
    assert "sam" not in part["settings"]


def test_the_baseline_stands_beside_per_fold(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded)
    baseline = compare_runs(runs, loaded)["settings"]["baseline"]
    assert [fold["fold"] for fold in baseline["folds"]] == [0, 1]
    tables = [read_table(folder.baseline) for run, folder in runs if (run.setting, run.seed) == ("sam", 0)]
    areas = [roc_auc_score(table["label"] == "opacity", table["p_opacity"]) for table in tables]
    assert [fold["auroc"] for fold in baseline["folds"]] == pytest.approx(areas)
    assert baseline["auroc"]["value"] == pytest.approx(np.mean(areas))
    assert baseline["auroc"]["low"] < np.mean(areas) < baseline["auroc"]["high"]


def test_a_setting_is_also_paired_with_the_baseline(config, study) -> None:
    """The baseline shares the cases' noise, so the pair is sharper than the two apart."""
    loaded = config(compare=GRID)
    document = compare_runs(study(loaded, sam={"skill": 3.0}), loaded)
    pair = pair_of(document, "sam", "baseline")
    sam, baseline = (document["settings"][name]["auroc"] for name in ("sam", "baseline"))
    assert pair["difference"] == pytest.approx(sam["value"] - baseline["value"], abs=1e-9)
    assert 0 < pair["low"] < pair["high"] < sam["high"] - baseline["low"]
    assert (pair["family"], pair["p_holm"], pair["verdict"]) == ("exploratory", None, "better")
    assert pair["text"] == "better than the sanity baseline"
    assert "cost" not in pair


def test_a_fold_without_a_baseline_leaves_the_pairs_with_it_out(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded)
    for run, folder in runs:
        if run.fold == 1:
            folder.baseline.unlink()
    assert not [p for p in compare_runs(runs, loaded)["pairs"] if p["b"] == "baseline"]


def test_runs_about_other_cases_are_not_paired(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded)
    folder = runs[-1][1]
    write_table(folder.predictions, read_table(folder.predictions).iloc[:-1])
    write_table(folder.baseline, read_table(folder.baseline).iloc[:-1])
    with pytest.raises(DataError, match="not tested on the same cases"):
        compare_runs(runs, loaded)


def test_the_document_is_strict_json_and_the_same_again(config, study) -> None:
    loaded = config(compare=GRID)
    runs = study(loaded)
    text = json.dumps(compare_runs(runs, loaded), allow_nan=False)
    assert json.dumps(compare_runs(runs, loaded), allow_nan=False) == text


def test_one_line_per_run(config, study) -> None:
    loaded = config(compare=GRID)
    table = runs_table(compare_runs(study(loaded), loaded))
    assert len(table) == 18
    columns = "setting,seed,fold,auroc,auprc,brier,log_loss,seconds,gradient_evaluations,best_epoch,sharpness"
    assert ",".join(table.columns) == columns
    assert not table.isna().any().any()


def test_the_sharpness_of_a_run_stands_beside_its_numbers(config, study) -> None:
    """An older run without one leaves the field empty."""
    loaded = config(compare=GRID)
    runs = study(loaded, sam={"skill": 2.5})
    planned, folder = runs[0]
    write_json(folder.metrics, {k: v for k, v in read_json(folder.metrics).items() if k != "sharpness"})
    settings = compare_runs(runs, loaded)["settings"]
    assert {run["sharpness"] for run in settings["sam"]["runs"]} == {0.025}
    first = {"seed": planned.seed, "fold": planned.fold}
    assert [run["sharpness"] for run in settings[planned.setting]["runs"] if first.items() <= run.items()] == [None]


def test_comparing_needs_no_torch() -> None:
    code = "import sys, medgcsam.study; assert not {'torch', 'monai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
