"""The output folder of `predict`: nothing is lost, nothing is replaced unasked, and its networks are one set."""

from __future__ import annotations

import csv
import io

import pytest

from medgcsam.errors import ConfigError, DataError, MachineError
from medgcsam.recipes import prediction_folder as module
from medgcsam.recipes.prediction_folder import prediction_folder

NETWORKS = {"run-1": "aa", "run-0": "bb"}


def opened(folder, asked=(), networks=NETWORKS, overwrite=False, sizes=("liver_ml", "liver_pixels")):
    return prediction_folder(folder, networks, list(asked), columns=["mask"], sizes=sizes, overwrite=overwrite)


def line(name, status="done", **cells):
    return {"image": name, "status": status, "reason": "", "path": f"/in/{name}", "source": "d", **cells}


def rows(folder):
    with open(folder / "predictions.csv", newline="") as table:
        return list(csv.DictReader(table))


def with_mask(folder, name):
    (folder / "masks").mkdir(exist_ok=True)
    (folder / "masks" / f"{name}.nii.gz").write_bytes(b"mask")
    return line(name, mask=f"masks/{name}.nii.gz")


def test_a_line_is_there_as_soon_as_its_image_is_finished_and_costs_no_new_table(tmp_path, monkeypatch) -> None:
    written = []
    monkeypatch.setattr(module, "write_text", lambda path, text: (written.append(path), path.write_text(text)))
    with opened(tmp_path) as folder:
        for number in range(50):
            folder.add(line(f"{number}.png", liver_ml=0.1 * number))
            assert [row["image"] for row in rows(tmp_path)][-1] == f"{number}.png"
        assert len(written) <= 2  # the first line, and the first size
    assert [row["liver_ml"] for row in rows(tmp_path)][:4] == ["0", "0.1", "0.2", "0.3"]


def test_the_last_line_of_an_image_counts_and_the_order_is_that_of_the_input(tmp_path) -> None:
    with opened(tmp_path, ["/in/a", "/in/b"]) as folder:
        folder.add(line("b", "failed", reason="one,\ntwo"))
        folder.add(line("a"))
    assert [row["image"] for row in rows(tmp_path)] == ["a", "b"]
    with opened(tmp_path, ["/in/b", "/in/c"]) as folder:
        folder.add(line("b"))
        folder.add(line("c"))
        assert len(rows(tmp_path)) == 4
    assert [(row["image"], row["status"]) for row in rows(tmp_path)] == [("a", "done"), ("b", "done"), ("c", "done")]


def test_half_a_line_of_a_killed_command_is_no_line(tmp_path) -> None:
    with opened(tmp_path) as folder:
        folder.add(line("a"))
        folder.add(line("b"))
    table = tmp_path / "predictions.csv"
    for half in (b"c,done", b'"c,done\n', b"c,done,,/in/c,d,"):
        before = table.read_bytes()
        table.write_bytes(before + half)
        with opened(tmp_path) as folder:
            assert list(folder.lines) == ["/in/a", "/in/b"]
            folder.add(line("b"))
        assert table.read_bytes() == before
    table.write_bytes(before.replace(b"b,done", b"b,done,,,,,,,"))
    with pytest.raises(DataError, match="line 3 is damaged"), opened(tmp_path):
        raise AssertionError


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch) -> None:
    class Full(io.FileIO):
        def __init__(self, path, mode, buffering):
            super().__init__(path, mode)

        def write(self, data):
            return super().write(data[:5])

    with opened(tmp_path) as folder:
        folder.add(line("a"))
        before = (tmp_path / "predictions.csv").read_bytes()
        monkeypatch.setattr(module, "open", Full, raising=False)
        with pytest.raises(MachineError, match="disk is full"):
            folder.add(line("b"))
        assert (tmp_path / "predictions.csv").read_bytes() == before


def test_a_result_without_its_file_is_none(tmp_path) -> None:
    with opened(tmp_path) as folder:
        folder.add(with_mask(tmp_path, "a"))
        folder.add(line("x", mask="masks/../../x.nii.gz"))
        assert folder.has_result("/in/a")
        assert not folder.has_result("/in/b")
        (tmp_path / "masks" / "a.nii.gz").unlink()
        assert not folder.has_result("/in/a")


def test_a_file_that_the_new_line_has_not_is_removed(tmp_path) -> None:
    outside = tmp_path / "x.nii.gz"
    outside.write_bytes(b"mine")
    with opened(tmp_path / "out") as folder:
        folder.add(with_mask(tmp_path / "out", "a"))
        folder.add(line("a", "failed", mask=""))
        folder.add(line("b", mask="masks/../../x.nii.gz"))
        folder.add(line("b", "failed"))
    assert not (tmp_path / "out" / "masks" / "a.nii.gz").exists()
    assert outside.exists()


def test_other_networks_replace_all_or_nothing(tmp_path) -> None:
    others = {"run-0": "cc"}
    with opened(tmp_path) as folder:
        folder.add(with_mask(tmp_path, "a"))
        folder.add(with_mask(tmp_path, "b"))
    before = (tmp_path / "predictions.csv").read_bytes(), (tmp_path / "networks.json").read_bytes()
    for asked, overwrite in ((["/in/a", "/in/b"], False), (["/in/a"], True)):
        with pytest.raises(ConfigError, match="other networks"), opened(tmp_path, asked, others, overwrite):
            raise AssertionError
        assert before == ((tmp_path / "predictions.csv").read_bytes(), (tmp_path / "networks.json").read_bytes())
    with opened(tmp_path, networks=dict(reversed(NETWORKS.items()))) as folder:
        assert len(folder.lines) == 2  # the same, in another order
    with opened(tmp_path, ["/in/a", "/in/b"], others, overwrite=True) as folder:
        assert not folder.lines
        assert not list((tmp_path / "masks").iterdir())
    with opened(tmp_path, ["/in/a"]) as folder:
        assert not folder.lines  # where no line is left, the folder is free


def test_folders_of_something_else_are_left_alone(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: x\n")
    (tmp_path / "run" / "predictions.csv").write_text("case,p_a\n")
    with pytest.raises(ConfigError, match="folder of a run"), opened(tmp_path / "run"):
        raise AssertionError
    assert len(list((tmp_path / "run").iterdir())) == 2
    (tmp_path / "mine").mkdir()
    for text, words in (("a,b\n1,2\n", "not a table of"), ("image,status,reason,source\n", "this version")):
        (tmp_path / "mine" / "predictions.csv").write_text(text)
        with pytest.raises(ConfigError, match=words), opened(tmp_path / "mine"):
            raise AssertionError
        assert (tmp_path / "mine" / "predictions.csv").read_text() == text


def test_an_interrupted_command_leaves_its_lines_in_order(tmp_path) -> None:
    def interrupted():
        with opened(tmp_path, ["/in/a", "/in/b"]) as folder:
            for name in "bba":
                folder.add(line(name))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [row["image"] for row in rows(tmp_path)] == ["a", "b"]


def test_rows_without_an_image_are_told_of_once(tmp_path) -> None:
    with opened(tmp_path) as folder:
        folder.add(line("m.csv, line 3", "failed"))
        folder.add(line("a", "failed"))
    with opened(tmp_path) as folder:
        folder.forget_failed("/in/m.csv, line ")
    assert [row["image"] for row in rows(tmp_path)] == ["a"]
