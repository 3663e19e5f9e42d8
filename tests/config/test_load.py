"""Loading: all faults at once, with line and suggestion; overrides, variables, paths; and back again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medgcsam.config import Config, dump, find_config, load, shipped_folder, shipped_names
from medgcsam.errors import ConfigError

MINIMAL = "name: lungs\ndata:\n  manifest: cases.csv\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a configuration `job.yaml` into an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str) -> str:
        Path("job.yaml").write_text(text, encoding="utf-8")
        return "job.yaml"

    return _write


def faults(path: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


def test_a_minimal_file_is_enough(write) -> None:
    config = load(write(MINIMAL))
    assert (config.name, config.task, config.setting) == ("lungs", "classification", "gcsam")
    assert config.source == Path("job.yaml").absolute()


def test_a_misspelt_key_names_file_line_and_nearest_key(write) -> None:
    path = write(MINIMAL + "optimizer:\n  lr: 1e-3\n  roh: 0.1\n")
    assert faults(path) == ["job.yaml:6: optimizer.roh: unknown key; did you mean 'rho'?"]


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one(write) -> None:
    (fault,) = faults(write(MINIMAL + "epochs: 3\n"))
    assert fault.startswith("job.yaml:4: epochs: ")
    assert "'training.epochs'" in fault


def test_a_key_like_no_other_lists_those_there_are(write) -> None:
    (fault,) = faults(write(MINIMAL + "schedule:\n  zzz: 1\n"))
    assert "warmup_epochs" in fault


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ("optimizer:\n  rho: -0.1", "optimizer.rho", "0 or more, but is -0.1"),
        ("optimizer:\n  lr: 0", "optimizer.lr", "greater than 0"),
        ("optimizer:\n  lr: '1e-3'", "optimizer.lr", "without quotes"),
        ("optimizer:\n  name: gcsma", "optimizer.name", "did you mean 'gcsam'?"),
        ("optimizer:\n  lr: .inf", "optimizer.lr", "a number"),
        ("training:\n  epochs: 2.5", "training.epochs", "a whole number"),
        ("training:\n  epochs: true", "training.epochs", "a whole number, but is true"),
        ("training:\n  device: gpu", "training.device", "'cuda:1'"),
        ("split:\n  stratify: yes", "split.stratify", "true or false, but is 'yes'"),
        ("split:\n  test_from: 2024-02-30", "split.test_from", "YYYY-MM-DD"),
        ("image:\n  size: [64]", "image.size", "too few"),
        ("image:\n  channels: 0", "image.channels", "1 or more"),
        ("data.x: 1", "data.x", "unknown key"),
        ("evaluation: 3", "evaluation", "a section"),
        ("report:\n  title: 1.5", "report.title", "in quotes"),
        ("network:\n  name: 'small'\n  width:", "network.width", "a whole number, but is empty"),
    ],
)
def test_a_wrong_value_says_what_would_be_right(write, lines: str, key: str, words: str) -> None:
    line = 4 + lines.count("\n")
    (fault,) = faults(write(MINIMAL + lines + "\n"))
    assert fault.startswith(f"job.yaml:{line}: {key}: ")
    assert words in fault


def test_all_faults_come_at_once_in_the_order_of_the_file(write) -> None:
    path = write(
        "name: a b\ndata:\n  manifest: ${NO_SUCH_VARIABLE}\n  columns: {pateint_id: X}\nsplit:\n  fold: 7\n"
        "optimizer:\n  roh: 1\n  rho: -1\ntraining:\n  epochs: x\n  seed: 1\n  seed: 2\n"
    )
    found = faults(path, "image.size=-4", "nonsense")
    lines = [fault.split(": ")[0].removeprefix("job.yaml:") for fault in found[:8]]
    assert lines == ["1", "3", "4", "6", "8", "9", "11", "13"]
    assert {fault.split(": ")[0] for fault in found[8:]} == {"--set image.size=-4", "--set nonsense"}


def test_a_missing_key_is_told_with_its_section(write) -> None:
    assert faults(write("name: x\ntraining:\n  epochs: 3\ndata:\n  classes: [a, b]\n")) == [
        "job.yaml:4: data.manifest: this key is required"
    ]


def test_a_key_written_twice_is_a_fault(write) -> None:
    (fault,) = faults(write(MINIMAL + "image:\n  size: 64\n  size: 32\n"))
    assert fault.startswith("job.yaml:6: image.size: this key is written twice (first at job.yaml:5)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("just words", "consists of"),
        ("name: x\n\tdata: y\n", "job.yaml:2: this is not valid YAML"),
        ("name: a: b\n", "job.yaml:1: this is not valid YAML"),
        ("a: &a [*a]\n", "expand without end"),
        ("name: x\n---\nname: y\n", "not valid YAML"),
        (MINIMAL + "report: {title: !!python/name:os.system ''}\n", "not allowed"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_plain_fault(write, text: str, words: str) -> None:
    (fault,) = faults(write(text))
    assert words in fault


def test_a_file_that_is_no_text_is_a_plain_fault(write) -> None:
    path = write(MINIMAL)
    Path(path).write_bytes(b"\xff\xfe\x00name")
    assert "UTF-8" in faults(path)[0]


def test_aliases_that_multiply_are_stopped(write) -> None:
    levels = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "expand without end" in faults(write(f"k0: &k0 [1]\n{levels}"))[0]


def test_scalars_mean_what_they_look_like(write) -> None:
    config = load(
        write(
            "name: 7\ndata: {manifest: m.csv, classes: [No, Yes, 1e]}\n"
            "optimizer: {lr: 1e-3, weight_decay: 0, betas: [.5, 1E-2]}\nsplit: {by: site, test_site: 01}\n"
        )
    )
    assert config.name == "7"
    assert config.data.classes == ("No", "Yes", "1e")
    assert config.split.test_site == "01"
    assert (config.optimizer.lr, config.optimizer.betas) == (0.001, (0.5, 0.01))
    assert isinstance(config.optimizer.weight_decay, float)


def test_classes_may_say_which_labels_mean_them(write) -> None:
    config = load(write("name: x\ndata:\n  manifest: m.csv\n  classes:\n    0: [0, normal]\n    ill: [1, 2]\n"))
    assert config.data.classes == {"0": ("0", "normal"), "ill": ("1", "2")}


def test_a_section_with_all_its_lines_commented_out_is_empty(write) -> None:
    assert load(write(MINIMAL + "augment:\n  # scale: 0.1\n")) == load(write(MINIMAL))


def test_overrides_win_and_are_read_as_yaml(write) -> None:
    path = write(MINIMAL + "training:\n  epochs: wrong\n  batch_size: 8\n")
    config = load(path, ["training.epochs=3", "image.size=[32, 48]", "report.title='5'", "data.classes=[a, b]"])
    assert (config.training.epochs, config.training.batch_size) == (3, 8)
    assert config.image.size == (32, 48)
    assert (config.report.title, config.data.classes) == ("5", ("a", "b"))
    assert load(path, ["training.epochs=3", "training.epochs=4"]).training.epochs == 4


def test_faults_of_overrides_name_the_override(write) -> None:
    path = write(MINIMAL)
    assert faults(path, "optimizer.roh=0.1") == [
        "--set optimizer.roh=0.1: optimizer.roh: unknown key; did you mean 'rho'?"
    ]
    assert faults(path, "name.first=x")[0].startswith("--set name.first=x: name has no keys below it")
    assert "section.key=value" in faults(path, "epochs")[0]
    assert faults(path, "data.classes=[a")[0].startswith("--set data.classes=[a: this is not valid YAML")


def test_variables_are_replaced_and_take_their_type(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE", "north")
    monkeypatch.setenv("EPOCHS", "4")
    monkeypatch.setenv("EMPTY", "")
    path = write(
        "name: ${SITE}-${NUMBER:-2}\ndata:\n  manifest: '${SITE}.csv'\n"
        'training:\n  epochs: ${EPOCHS}\n  seed: ${EMPTY:-5}\nreport:\n  title: $${SITE} and "\n'
        "  funding: '${EPOCHS}'\n"
    )
    config = load(path, ["image.size=${SIZE:-40}"])
    assert config.name == "north-2"
    assert Path(config.data.manifest).name == "north.csv"
    assert (config.training.epochs, config.training.seed, config.image.size) == (4, 5, (40, 40))
    assert (config.report.title, config.report.funding) == ('${SITE} and "', "4")


def test_an_unset_variable_is_a_fault_with_its_line(write) -> None:
    path = write(MINIMAL + "report:\n  title: for ${NO_SUCH_VARIABLE}\n  contact: ${1x}\n")
    first, second = faults(path)
    assert first.startswith("job.yaml:5: report.title: the environment variable NO_SUCH_VARIABLE is not set")
    assert second.startswith("job.yaml:6: report.contact: ")


def test_a_variable_cannot_bring_in_structure(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "x\noutput:\n  keep_patient_ids: true")
    config = load(write(MINIMAL + "report:\n  title: ${EVIL}\n"))
    assert config.output.keep_patient_ids is False


def test_paths_count_from_the_file_and_those_of_overrides_from_here(write, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "job.yaml").write_text(MINIMAL + "  root: ../images\nnetwork: {weights: /w/x.pt}\n")
    config = load("study/job.yaml")
    assert config.data.manifest == str(folder / "cases.csv")
    assert config.data.root == str(tmp_path / "images")
    assert config.network.weights == str(Path("/w/x.pt"))
    assert config.output.folder == str(folder / "runs")
    assert load("study/job.yaml", ["data.root=pixels"]).data.root == str(tmp_path / "pixels")


def test_a_shipped_configuration_writes_below_the_current_folder(write, tmp_path: Path) -> None:
    config = load("chest_xray.yaml")
    assert config.source == shipped_folder("configs") / "chest_xray.yaml"
    assert config.output.folder == str(tmp_path / "runs")
    assert Path(config.data.manifest) == shipped_folder("data_manifests") / "chest_xray_phantom.yaml"


def test_a_copy_of_a_shipped_configuration_still_finds_its_data(write, tmp_path: Path) -> None:
    shipped = load("chest_xray.yaml")
    text = (shipped_folder("configs") / "chest_xray.yaml").read_text("utf-8")
    write(text)
    assert load("job.yaml").data.manifest == shipped.data.manifest


@pytest.mark.parametrize("name", shipped_names("configs"))
def test_a_dump_loads_as_an_equal_configuration(write, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("MEDGCSAM_DATA", "somewhere")
    for setting in (None, *load(name).compare.optimizers):
        config = load(name, setting=setting)
        again = load(write(dump(config)))
        assert again == config
        assert again.setting == config.setting
        assert dump(again) == dump(config)


def test_a_dump_keeps_awkward_texts(write) -> None:
    texts = [
        "yes",
        "1e-3",
        "01",
        "null",
        "2024-01-01",
        "~",
        "a: b # c",
        "${X}",
        "$${X}",
        "ü\n\u2028x",
        "12:30:00",
        "=",
        "<<",
    ]
    for text in texts:
        config = Config.model_validate({"name": "x", "data": {"manifest": "/m.csv"}, "report": {"title": text}})
        assert load(write(dump(config)), ["output.folder=runs"]).report.title == text


def test_a_dump_names_no_folder_of_the_package(write) -> None:
    values = yaml.safe_load(dump(load("chest_xray.yaml")))
    assert values["data"]["manifest"] == "data_manifests/chest_xray_phantom.yaml"
    assert "source" not in values


def test_a_configuration_cannot_be_changed(write) -> None:
    config = load(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 3
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


def test_differences_make_configurations_unequal(write) -> None:
    path = write(MINIMAL)
    assert load(path) == load(path)
    assert load(path) != load(path, ["optimizer.rho=0.1"])


def test_lookup_prefers_here_then_configs_then_shipped(write, tmp_path: Path) -> None:
    assert find_config("chest_xray.yaml") == find_config("chest_xray") == shipped_folder("configs") / "chest_xray.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "chest_xray.yaml").write_text(MINIMAL)
    assert find_config("chest_xray.yaml") == tmp_path / "configs" / "chest_xray.yaml"
    (tmp_path / "chest_xray.yaml").write_text(MINIMAL)
    assert find_config("chest_xray.yaml") == tmp_path / "chest_xray.yaml"
    assert find_config("configs/chest_xray.yaml") == tmp_path / "configs" / "chest_xray.yaml"


def test_an_unknown_name_tells_where_it_looked_and_what_there_is(write) -> None:
    with pytest.raises(ConfigError) as caught:
        find_config("chest_xry.yaml")
    text = str(caught.value)
    assert "current folder" in text
    assert "./configs" in text
    assert all(name in text for name in shipped_names("configs"))
    assert text.endswith("Did you mean chest_xray.yaml?")
    with pytest.raises(ConfigError, match="does not exist"):
        find_config("folder/chest_xray.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        find_config("../" + Path.cwd().name)
