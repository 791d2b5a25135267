from __future__ import annotations

import pytest

from fllm_export.coldstart.mark import Mark


class Stopped(Exception):
    """Raised while files are written."""


def test_a_mark_stands_for_whole_files_of_its_key_alone(tmp_path):
    file = tmp_path / "pairs"
    old, new = (Mark(tmp_path / "mark", key, (file,)) for key in ("old", "new"))
    assert not old.stands()
    with old.renewed():
        file.write_text("old")
        assert not old.stands()
    assert old.stands()
    assert not new.stands()
    file.unlink()
    assert not old.stands()


def write_half(mark):
    with mark.renewed():
        mark.files[0].write_text("new")
        raise Stopped


def test_no_mark_stands_after_files_were_half_written(tmp_path):
    files = tmp_path / "one", tmp_path / "two"
    old, new = (Mark(tmp_path / "mark", key, files) for key in ("old", "new"))
    with old.renewed():
        for file in files:
            file.write_text("old")
    with pytest.raises(Stopped):
        write_half(new)
    assert not old.stands()
    assert not new.stands()
