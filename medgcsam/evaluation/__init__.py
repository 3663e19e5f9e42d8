"""Predictions become numbers with intervals: plain functions on numpy arrays, the patient as the unit of sampling."""

from __future__ import annotations

from medgcsam.evaluation.bootstrap import PatientBootstrap, Replicates, statistic_of_sums
from medgcsam.evaluation.calibration import (
    apply_platt,
    apply_temperature,
    calibration_numbers,
    expected_calibration_error,
    fit_platt,
    fit_temperature,
    recalibration,
    reliability_bins,
)
from medgcsam.evaluation.classification import classification_metrics
from medgcsam.evaluation.curves import confusion_matrix, precision_recall_points, roc_points
from medgcsam.evaluation.intervals import Interval, bca, logit_interval, mann_whitney_score, wilson
from medgcsam.evaluation.operating_point import choose_operating_point, choose_operating_points
from medgcsam.evaluation.patients import effective_n, patient_codes, patient_strata
from medgcsam.evaluation.prevalence import predictive_values_at
from medgcsam.evaluation.ranking import Ranking, auroc_variance, auroc_with_interval
from medgcsam.evaluation.segmentation import case_metrics
from medgcsam.evaluation.segmentation_summary import Lines, segmentation_metrics
from medgcsam.evaluation.surfaces import SurfaceDistances, surface_distances

__all__ = [
    "Interval",
    "Lines",
    "PatientBootstrap",
    "Ranking",
    "Replicates",
    "SurfaceDistances",
    "apply_platt",
    "apply_temperature",
    "auroc_variance",
    "auroc_with_interval",
    "bca",
    "calibration_numbers",
    "case_metrics",
    "choose_operating_point",
    "choose_operating_points",
    "classification_metrics",
    "confusion_matrix",
    "effective_n",
    "expected_calibration_error",
    "fit_platt",
    "fit_temperature",
    "logit_interval",
    "mann_whitney_score",
    "patient_codes",
    "patient_strata",
    "precision_recall_points",
    "predictive_values_at",
    "recalibration",
    "reliability_bins",
    "roc_points",
    "segmentation_metrics",
    "statistic_of_sums",
    "surface_distances",
    "wilson",
]
