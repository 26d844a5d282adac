import json

import pytest

from ase_student.files import folder_for_output, reason_of, replaced_when_complete


def test_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "data.txt"
    with replaced_when_complete(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_old_file_is_replaced(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("old")
    with replaced_when_complete(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_old_file_stays_after_an_error(tmp_path, error):
    path = tmp_path / "data.txt"
    path.write_text("old")

    def write_half():
        with replaced_when_complete(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folders_are_removed_after_an_error(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for folder in (old / "a" / "b", old):
        with folder_for_output(folder):
            assert folder.is_dir()
        with pytest.raises(ValueError, match="stop"), folder_for_output(folder):
            raise ValueError("stop")
        assert list(old.iterdir()) == []
    with pytest.raises(ValueError, match="stop"), replaced_when_complete(old / "c" / "d.txt"):
        raise ValueError("stop")
    assert list(old.iterdir()) == []
    with folder_for_output(old / "a" / "b"):
        (old / "a" / "kept.txt").touch()
    assert [path.name for path in (old / "a").iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("results"), "it has no 'results'"),
        (json.JSONDecodeError("Expecting value", "x", 0), "it is not JSON: Expecting value"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "it is not a text in UTF-8"),
        (TypeError("odd"), "TypeError: odd"),
    ],
)
def test_reasons_of_errors_are_readable(error, reason):
    assert reason_of(error).startswith(reason)


def test_no_file_is_left_after_an_error_or_without_content(tmp_path):
    path = tmp_path / "data.txt"
    with pytest.raises(ValueError, match="stop"), replaced_when_complete(path):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []
    # A block that writes nothing is an error too.
    with pytest.raises(FileNotFoundError), replaced_when_complete(path):
        pass
