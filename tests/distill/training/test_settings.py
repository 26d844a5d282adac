"""Settings of training: allowed values, and reading them from a file."""

from pathlib import Path

import pytest

pytest.importorskip("h5py")

from ase_student.distill.training.settings import (
    SHAPES,
    TrainingSettings,
    architecture_of,
    read_settings,
)

BUDGETS = {"original": 427_292, "tiny": 77_203, "ultra-tiny": 21_459}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; given 0."),
        ({"learning_rate": -1.0}, "learning_rate must be above 0; given -1.0."),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"stress_weight": -0.1}, "stress_weight must not be negative"),
        ({"seed": -1}, "seed must not be negative"),
        ({"split_seed": -1}, "split_seed must not be negative"),
        ({"energy_weight": 0.0}, "energy_weight must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay must be in"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"split": "element"}, "split must be one of"),
    ],
)
def test_invalid_values_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)


@pytest.mark.parametrize("settings", [{"epochs": 2.5}, {"epochs": True}, {"learning_rate": "fast"}])
def test_values_of_other_types_are_refused(settings: dict) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(settings))} must be"):
        TrainingSettings(**settings)


def test_an_integer_may_stand_for_a_float() -> None:
    assert TrainingSettings(max_gradient_norm=1).max_gradient_norm == 1.0


def test_a_file_gives_settings_and_architecture(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("epochs = 3\n[architecture]\nfeatures = 48\n", encoding="utf-8")
    assert read_settings(path) == ({"epochs": 3}, {"features": 48})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"unknown key 'epoch'; allowed: epochs, .*\. Did you mean 'epochs'\?"),
        ("[architecture]\nwidth = 3", "unknown key 'width' in .architecture.; allowed: features"),
        ("[architecture]\nelements = [1]", "unknown key 'elements' in .architecture."),
        ("architecture = 3", "must be a table"),
        ("epochs = ", "is not TOML"),
    ],
)
def test_mistakes_in_a_file_name_the_file_and_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_settings(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of settings at"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize("name", SHAPES)
def test_students_have_at_most_their_documented_numbers_of_parameters(name: str) -> None:
    torch = pytest.importorskip("torch")
    from ase_student.networks.painn import PaiNN

    elements = (1, 6, 7, 8, 9, 15, 16, 17)
    network = PaiNN(architecture_of(name, elements), dict.fromkeys(elements, 0.0))
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 0.9 * BUDGETS[name] < n_parameters <= BUDGETS[name]
    assert torch.is_tensor(network.reference)
