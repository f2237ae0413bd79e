"""When a configuration file counts as changed."""

from __future__ import annotations

from pathlib import Path

from proxy.server.watch import Watch


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    """A change counts when two looks in a row saw the same, and counts until the file was read."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("one")
    watch = Watch(file)
    assert not watch.look()
    file.write_text("half of tw")
    assert not watch.look()
    file.write_text("the whole of two")
    assert not watch.look()
    assert watch.look()
    assert watch.look()
    watch.taken()
    assert not watch.look()


def test_a_change_that_was_read_by_other_means_is_none(tmp_path: Path) -> None:
    """What SIGHUP has read already is not read a second time."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("one")
    watch = Watch(file)
    file.write_text("the next")
    watch.taken()
    assert not watch.look()
    assert not watch.look()


def test_a_swapped_link_to_the_directory_is_a_change(tmp_path: Path) -> None:
    """Kubernetes: sidecar.yaml → ..data/sidecar.yaml, ..data → ..2026_1, then ..data → ..2026_2."""
    for version in ("..2026_1", "..2026_2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "sidecar.yaml").write_text("same length")
    data, file = tmp_path / "..data", tmp_path / "sidecar.yaml"
    data.symlink_to("..2026_1")
    file.symlink_to("..data/sidecar.yaml")
    watch = Watch(file)
    fresh = tmp_path / "..data_tmp"
    fresh.symlink_to("..2026_2")
    fresh.replace(data)
    assert not watch.look()
    assert watch.look()


def test_a_file_that_vanished_is_a_change_too(tmp_path: Path) -> None:
    """Reading it then fails, and that is told."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("one")
    watch = Watch(file)
    file.unlink()
    assert not watch.look()
    assert watch.look()
