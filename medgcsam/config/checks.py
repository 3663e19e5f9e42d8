"""What no single key can say: keys that contradict or need each other."""

from __future__ import annotations

from collections.abc import Iterator

from medgcsam.config.document import KeyPath
from medgcsam.config.network import CLASSIFIERS, SEGMENTERS
from medgcsam.config.optimizer_rules import contradictions
from medgcsam.config.tree import Config

Finding = tuple[tuple[KeyPath, ...], str]


def cross_checks(config: Config) -> Iterator[Finding]:
    """Each contradiction as (the keys it is about, the one to change first; what is wrong with that)."""
    yield from _labels(config)
    yield from _task(config)
    yield from _split(config)
    yield from _training(config)
    yield from _optimizers(config)
    yield from _evaluation(config)
    yield from _compare(config)


def _labels(config: Config) -> Iterator[Finding]:
    data = config.data
    multilabel = config.task == "multilabel"
    classes, positive, negative = ("data", "classes"), ("data", "positive"), ("data", "negative")
    if data.classes is not None:
        names = list(data.classes)
        least = {"classification": 2}.get(config.task, 1)
        if len(names) < least:
            yield (
                (classes, ("task",)),
                f"a {config.task} task needs at least {least} classes, but there is {len(names)}",
            )
        if len(set(names)) < len(names):
            yield (classes,), "a class is named twice"
        if data.positive is not None and data.positive not in names:
            yield (positive, classes), f"{data.positive!r} is not in data.classes ({', '.join(names)})"
        if data.negative in names:
            yield (negative, classes), f"{data.negative!r} means none of the classes, so it cannot be one of them"
        if data.label_columns is not None and set(data.label_columns) != set(names):
            yield (("data", "label_columns"), classes), "must name the same classes as data.classes"
    words = list(data.classes or ())
    if isinstance(data.classes, dict):
        words = [word for group in data.classes.values() for word in group]
        for word in sorted({word for word in words if words.count(word) > 1}):
            yield (classes,), f"the label {word!r} is given to a class twice"
    for word in sorted(set(words) & set(data.exclude_labels)):
        yield (("data", "exclude_labels"), classes), f"{word!r} is also in data.classes; keep it in one of the two"
    if multilabel and data.positive is not None:
        yield (positive, ("task",)), "has no meaning in a multilabel task, where every class is a finding; delete it"
    for key in ("negative", "label_columns"):
        if not multilabel and getattr(data, key) is not None:
            yield (("data", key), ("task",)), "is for `task: multilabel` only"


def _task(config: Config) -> Iterator[Finding]:
    """Keys that are of another task."""
    task, select, name = ("task",), ("training", "select"), ("network", "name")
    segmentation = config.task == "segmentation"
    if config.training.select == ("auroc" if segmentation else "dice"):
        other = "dice" if segmentation else "auroc"
        yield (
            (select, task),
            f"cannot be {config.training.select!r} for `task: {config.task}`; take {other!r} or 'loss'",
        )
    known = SEGMENTERS if segmentation else CLASSIFIERS
    if config.network.name not in known:
        yield (name, task), f"{config.network.name!r} is not for `task: {config.task}`; take one of {', '.join(known)}"
    if not segmentation:
        for section, key in _SEGMENTATION_ONLY:
            if getattr(getattr(config, section), key) != type(getattr(config, section)).model_fields[key].default:
                yield ((section, key), task), "is for `task: segmentation` only"
        if config.image.intensity == "foreground":
            yield (("image", "intensity"), task), "'foreground' is for `task: segmentation` only"
        if config.image.channels not in (1, 3):
            said = f"must be 1 (gray) or 3 (colour) for `task: {config.task}`, but is {config.image.channels}"
            yield (("image", "channels"), task), f"{said}; segmentation alone takes other numbers"
        return
    if config.network.freeze_stem:
        yield (("network", "freeze_stem"), task), "has no effect on networks for segmentation; delete it"
    if config.training.label_smoothing:
        yield (("training", "label_smoothing"), task), "has no effect on segmentation; delete it"
    size, spacing = config.patches.size, config.image.spacing
    for key, value in ((("patches", "size"), size), (("image", "spacing"), spacing)):
        if config.image.dimensions != "auto" and value not in ("auto", None) and len(value) != config.image.dimensions:
            yield (key, ("image", "dimensions")), f"needs {config.image.dimensions} numbers, one per axis"
    for name in ("clip", "mean", "std"):
        value = getattr(config.image, name)
        each = value[0] if name == "clip" and value not in ("auto", None) else value
        if isinstance(each, tuple) and len(value) != config.image.channels:
            yield (
                (("image", name), ("image", "channels")),
                f"has values for {len(value)} channels, where image.channels is {config.image.channels}",
            )


_SEGMENTATION_ONLY = (
    ("data", "overlapping"), ("data", "faulty_masks"), ("image", "dimensions"), ("image", "spacing"),
    ("image", "clip"), ("image", "mean"), ("image", "std"), ("augment", "flip_depth"), ("patches", "size"),
    ("patches", "per_image"), ("patches", "foreground"), ("patches", "memory_gb"), ("network", "levels"),
    ("network", "deep_supervision"), ("training", "loss"), ("inference", "overlap"), ("inference", "mirror"),
    ("inference", "components"), ("inference", "stitch"), ("evaluation", "nsd_tolerance"),
)  # fmt: skip


def _split(config: Config) -> Iterator[Finding]:
    split = config.split
    by = ("split", "by")
    if split.by == "folds" and split.fold >= split.folds:
        yield (
            (("split", "fold"), ("split", "folds"), by),
            f"must be less than split.folds ({split.folds}), as folds count from 0, but is {split.fold}",
        )
    for kind, key in (("site", "test_site"), ("date", "test_from"), ("file", "file")):
        value = getattr(split, key)
        if split.by == kind and value is None:
            yield (("split", key), by), f"is needed by `split.by: {kind}`"
        if split.by != kind and value is not None:
            yield (("split", key), by), f"has no effect unless `split.by` is {kind!r}, but it is {split.by!r}"


def _training(config: Config) -> Iterator[Finding]:
    training = config.training
    warmup = config.schedule.warmup_epochs
    if warmup > training.epochs:
        yield (
            (("schedule", "warmup_epochs"), ("training", "epochs")),
            f"must not be more than training.epochs ({training.epochs}), but is {warmup:g}",
        )
    if training.precision == "fp16" and training.device == "cpu":
        yield (
            (("training", "precision"), ("training", "device")),
            "'fp16' needs a GPU; with `device: cpu` use 'fp32' or 'bf16'",
        )
    if config.network.freeze_stem and config.network.weights is None:
        yield (
            (("network", "freeze_stem"), ("network", "weights")),
            "needs network.weights: frozen random layers would learn nothing",
        )


def _optimizers(config: Config) -> Iterator[Finding]:
    """The optimizer section, and the settings of a comparison where the fault is theirs alone."""
    batch_size = config.training.batch_size
    common = list(contradictions(config.optimizer, batch_size=batch_size))
    sections = [(("optimizer",), common)]
    for name, optimizer in config.compare.optimizers.items():
        own = [finding for finding in contradictions(optimizer, batch_size=batch_size) if finding not in common]
        sections.append((("compare", "optimizers", name), own))
    for head, findings in sections:
        for keys, message in findings:
            yield tuple((*head, key) for key in keys), message


def _evaluation(config: Config) -> Iterator[Finding]:
    point = config.evaluation.operating_point
    rule, target = (("evaluation", "operating_point", key) for key in ("rule", "target"))
    if point.rule != "youden" and point.target is None:
        yield (target, rule), f"is needed by `rule: {point.rule}`, such as 0.95"
    if point.rule == "youden" and point.target is not None:
        yield (target, rule), "has no effect with `rule: youden`; choose 'sensitivity' or 'specificity'"


def _compare(config: Config) -> Iterator[Finding]:
    compare, split = config.compare, config.split
    if len(set(compare.seeds)) < len(compare.seeds):
        yield (("compare", "seeds"),), "a seed is named twice"
    if compare.folds is None:
        return
    folds = ("compare", "folds")
    if len(set(compare.folds)) < len(compare.folds):
        yield (folds,), "a fold is named twice"
    if split.by != "folds":
        yield (folds, ("split", "by")), f"has no effect unless `split.by` is 'folds', but it is {split.by!r}"
    elif max(compare.folds) >= split.folds:
        yield (folds, ("split", "folds")), f"must all be less than split.folds ({split.folds}), as folds count from 0"
