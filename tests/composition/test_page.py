"""The page of documentation: each block of code runs, and its table says what is so."""

import importlib.util
from pathlib import Path

import pytest
import sklearn

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "try_composition.py"


def load_script():
    specification = importlib.util.spec_from_file_location("try_composition", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


page = load_script()
FIRST_LINES, SECTIONS = page.read_page()
TABLE = page.read_table()

_ran = []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_a_section_runs_and_as_many_images_pass_as_the_table_says(section):
    with sklearn.config_context():  # importing skada changes it
        for module in section.modules:
            pytest.importorskip(module)
    with page.drawn_photographs():
        passes = section.run(FIRST_LINES)
    assert passes == int(TABLE[section.title]["passes"])
    _ran.extend(section.modules)


def test_the_sections_that_ran_name_their_versions(closing_lines):
    if not _ran:
        pytest.skip("the sections themselves were not selected")
    closing_lines.append(f"docs/composition.md ran with {page.versions(_ran)}")
    assert "scikit-learn" in closing_lines[-1]


def test_the_table_has_a_row_for_each_section_with_the_versions_that_were_tried():
    assert list(TABLE) == ["all", *(section.title for section in SECTIONS)]
    assert len(SECTIONS) > 20
    for row in TABLE.values():
        assert row["newest"]
        assert row["lowest"]
