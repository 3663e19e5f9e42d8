"""Labels as text, as a manifest writes them, and as the numbers that training and evaluation use.

Classification: one class name. Multi-label: the names of what is present joined by ``|``; ``?NAME`` marks what is
not known, ``none`` says that nothing is present, and the empty text says that nobody looked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medgcsam.cohort.faults import nearest
from medgcsam.errors import ConfigError, DataError

NONE = "none"
NO_LABEL = "no label"
_SEPARATOR = "|"
_UNKNOWN = "?"
_REMEDY = "; correct the manifest, or data.classes."


def encode_labels(
    texts: Sequence[str], classes: Sequence[str], task: str, *, negative: str | None = None
) -> np.ndarray:
    """Label texts as numbers.

    Args:
        texts: n labels in the form of the module's docstring.
        classes: k class names; their order is the order of the numbers.
        task: "classification" or "multilabel".
        negative: another word for ``none``.

    Returns:
        classification: int64 (n,), index of the class. multilabel: float32 (n, k), 1 present, 0 absent, NaN not known
        (to be masked). Where a name is given both as present and as not known, present wins.

    Raises:
        DataError: a text that is no such label.
    """
    position = {name: index for index, name in enumerate(classes)}
    codes = {text: _encode(text, position, task, negative) for text in set(texts)}
    if task == "multilabel":
        return np.array([codes[text] for text in texts], dtype=np.float32).reshape(len(texts), len(classes))
    return np.array([codes[text] for text in texts], dtype=np.int64)


def _encode(text: str, position: Mapping[str, int], task: str, negative: str | None) -> int | np.ndarray:
    if task != "multilabel":
        if text not in position:
            raise DataError(_unknown_label(text, position) + _REMEDY)
        return position[text]
    if not text:
        return np.full(len(position), np.nan, np.float32)
    row = np.zeros(len(position), np.float32)
    parts = [part.strip() for part in text.split(_SEPARATOR)]
    for part in sorted(parts, key=lambda part: not part.startswith(_UNKNOWN)):
        if part in (NONE, negative) and part not in position:
            continue
        name = part.removeprefix(_UNKNOWN)
        if name not in position:
            raise DataError(_unknown_label(name, position) + _REMEDY)
        row[position[name]] = np.nan if part.startswith(_UNKNOWN) else 1
    return row


def decode_labels(array: np.ndarray, classes: Sequence[str], task: str) -> list[str]:
    """Label texts of numbers as ``encode_labels`` makes them, whose inverse it is up to the order of the names."""
    if task != "multilabel":
        return [classes[int(code)] for code in array]
    return [_join(row == 1, np.isnan(row), classes) for row in np.asarray(array, dtype=np.float32)]


def _join(present: np.ndarray, unknown: np.ndarray, classes: Sequence[str]) -> str:
    if unknown.all():
        return ""
    parts = [name for name, flag in zip(classes, present, strict=True) if flag]
    parts += [_UNKNOWN + name for name, flag in zip(classes, unknown, strict=True) if flag]
    return _SEPARATOR.join(parts) or NONE


def _unknown_label(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    if not name:
        return "a label is empty, which this task does not allow"
    return f"label {name!r} is not among the classes {', '.join(known)}{nearest(name, known)}"


@dataclass(frozen=True)
class LabelRules:
    """How the labels in a manifest become class names: ``raw`` maps every word of the file to its class.

    With ``classes`` None any label is taken as it is. ``task`` None allows what either task allows.
    """

    classes: tuple[str, ...] | None = None
    raw: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    negative: str | None = None
    task: str | None = None


def label_rules(
    classes: Sequence[str] | Mapping[str, Sequence[object]] | None,
    *,
    exclude_labels: Sequence[object] = (),
    negative: str | None = None,
    task: str | None = None,
) -> LabelRules:
    """Rules from the ``data`` section: ``classes`` is a list of names, or maps each class to the words that mean it.

    Raises:
        ConfigError: a word that means two classes or both a class and something to leave out, a class name given
            twice, or one that holds ``|`` or begins with ``?``.
    """
    exclude = frozenset(str(word) for word in exclude_labels)
    if classes is None:
        return LabelRules(exclude=exclude, negative=negative, task=task)
    mapping = classes if isinstance(classes, Mapping) else {str(name): [name] for name in classes}
    names = tuple(str(name) for name in classes)
    if len(set(names)) < len(names):
        raise ConfigError(f"data.classes names a class twice ({', '.join(names)}); name each once.")
    raw: dict[str, str] = {}
    for name, words in mapping.items():
        if _SEPARATOR in name or name.startswith(_UNKNOWN) or not name.strip():
            raise ConfigError(f"data.classes: {name!r} cannot be a class name (no '|', no leading '?', not empty).")
        for word in [words] if isinstance(words, str | int) else words:
            if raw.setdefault(str(word), name) != name:
                raise ConfigError(f"data.classes: the label {word!r} means both {raw[str(word)]!r} and {name!r}.")
    both = sorted(exclude & raw.keys())
    if both:
        raise ConfigError(f"data.exclude_labels: {', '.join(both)} also belongs to a class in data.classes; choose.")
    return LabelRules(names, raw, exclude, negative, task)


@dataclass(frozen=True)
class Translation:
    """A label in the words of the classes, or why its row is left out, or what is wrong with it."""

    label: str = ""
    excluded: str | None = None
    fault: str | None = None


def translate(text: str, rules: LabelRules) -> Translation:
    """One label of the manifest under the rules."""
    if text in rules.exclude:
        return Translation(text, excluded=f"label {text!r} left out")
    if not text:
        return Translation(excluded=NO_LABEL if rules.task == "classification" else None)
    if rules.classes is None:
        return Translation(NONE if text == rules.negative else text)
    if text in rules.raw:
        return Translation(rules.raw[text])
    if rules.task == "classification":
        return Translation(text, fault=_unknown_label(text, rules.raw))
    return _translate_parts(text, rules)


def _translate_parts(text: str, rules: LabelRules) -> Translation:
    """A multi-label text, part by part, put into the order of the classes."""
    present, unknown, negated = set(), set(), False
    for part in (part.strip() for part in text.split(_SEPARATOR)):
        word = part.removeprefix(_UNKNOWN)
        if part in (NONE, rules.negative):
            negated = True
        elif word in rules.exclude:
            return Translation(text, excluded=f"label {word!r} left out")
        elif word not in rules.raw:
            return Translation(text, fault=_unknown_label(word, rules.raw))
        else:
            (unknown if part.startswith(_UNKNOWN) else present).add(rules.raw[word])
    if negated and present:
        return Translation(text, fault=f"label {text!r} says both that nothing is present and that something is")
    flags = np.array([[name in present, name in unknown - present] for name in rules.classes])
    return Translation(_join(flags[:, 0], flags[:, 1], rules.classes))


def join_columns(values: Sequence[str], classes: Sequence[str], uncertain: str) -> Translation:
    """The label of a row that has one column per class, as CheXpert does: 1 present, 0 absent, -1 uncertain, empty.

    ``uncertain`` says what -1 becomes: "mask" (not known), "positive" or "negative". An empty cell is not known.
    """
    meanings = {"1": 1.0, "0": 0.0, "": np.nan, "-1": {"mask": np.nan, "positive": 1.0, "negative": 0.0}[uncertain]}
    row = np.empty(len(classes), np.float32)
    for index, (name, value) in enumerate(zip(classes, values, strict=True)):
        word = value.removesuffix(".0")
        if word not in meanings:
            return Translation(fault=f"label column of {name!r} holds {value!r}, not 1, 0, -1 or nothing")
        row[index] = meanings[word]
    return Translation(_join(row == 1, np.isnan(row), classes))
