"""Master keys come from a private place, or not at all."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from webhook_gateway.crypto.master_keys import MasterKeysUnusable, load_master_keys, make_key_file, new_master_key
from webhook_gateway.settings import Settings

KEY = new_master_key()


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def key_file(directory: Path, text: str = KEY, mode: int = 0o600) -> Path:
    path = directory / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_new_key_is_32_random_bytes_with_a_name() -> None:
    name, encoded = KEY.split(":")
    assert name
    assert len(base64.b64decode(encoded, validate=True)) == 32
    assert new_master_key() != KEY


def test_the_first_line_of_the_file_wraps_and_the_others_still_open(tmp_path: Path) -> None:
    old = new_master_key()
    loaded = load_master_keys(settings(master_key_file=key_file(tmp_path, f"{KEY}\n{old}\n")))
    assert loaded.newest == KEY.split(":")[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_may_touch_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    with pytest.raises(MasterKeysUnusable, match=f"chmod 600 {path}"):
        load_master_keys(settings(master_key_file=path))


@pytest.mark.parametrize("text", ["", "name-without-key", "short:YWJj", pytest.param(f"{KEY},broken:!!!", id="second")])
def test_a_key_that_is_none_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(MasterKeysUnusable) as refused:
        load_master_keys(settings(master_key_file=key_file(tmp_path, text)))
    assert KEY.split(":")[1] not in str(refused.value)
    assert "YWJj" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MasterKeysUnusable, match=f"{tmp_path / 'gone'} can't be read"):
        load_master_keys(settings(master_key_file=tmp_path / "gone"))


def test_without_a_key_production_does_not_start() -> None:
    with pytest.raises(MasterKeysUnusable, match="webhook-gateway keys master"):
        load_master_keys(settings())


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(MasterKeysUnusable, match="keep one"):
        load_master_keys(settings(master_keys=KEY, master_key_file=key_file(tmp_path)))


def test_development_makes_a_private_file_once_however_many_start(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: make_key_file(tmp_path / "data"), range(32)))
    (path,) = paths
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208
    known = settings(development=True, data=tmp_path / "data")
    assert load_master_keys(known).newest == load_master_keys(known).newest
