import pytest

from benchmarks.harness.markdown_blocks import filled

NOTES = "# Title\n\nOf <!-- count --> runs.\n\n## One\n\nWhat follows.\n\n<!-- rows -->\n\n## Two\n\n<!-- others -->\n"


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text(NOTES)
    return path


def test_parts_stand_where_their_marks_are(notes):
    text = filled(notes, count="3", rows=["| a |", "| b |"], others="rest")
    assert text == "# Title\n\nOf 3 runs.\n\n## One\n\nWhat follows.\n\n| a |\n| b |\n\n## Two\n\nrest\n"


def test_a_section_without_its_part_is_left_out(notes):
    assert filled(notes, count="3", rows=None, others="rest") == "# Title\n\nOf 3 runs.\n\n## Two\n\nrest\n"
    assert filled(notes, count="3", rows="x", others=None).endswith("## One\n\nWhat follows.\n\nx\n")


@pytest.mark.parametrize("parts", [{"count": "3"}, {"count": "3", "rows": "", "others": "", "more": ""}])
def test_marks_and_parts_belong_together(notes, parts):
    with pytest.raises(ValueError, match=r"notes\.md has marks for \['count', 'others', 'rows'\], but there are parts"):
        filled(notes, **parts)
