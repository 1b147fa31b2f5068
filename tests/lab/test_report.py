"""What reports say of shares and of the size of what they rest on."""

from prototokens.lab import report


def test_a_share_is_printed_with_its_exact_interval():
    assert report.share(48, 50) == "48 of 50 [86.3, 99.5]%"
    assert report.share(0, 6) == "0 of 6 [0.0, 45.9]%"
    assert report.share(0, 0) == "0 of 0"


def test_few_texts_leave_a_verdict_open():
    assert report.size_notes(20) == []
    (note,) = report.size_notes(6)
    assert "6 texts" in note
    assert "open" in note


def test_texts_are_counted_by_source():
    rows = [
        {"source": source, "text": f"{source}{n % 3}"}
        for source in ("books", "words")
        for n in range(6)
    ]
    assert report.most_of_a_source(rows) == 3
    assert report.most_of_a_source([]) == 0


def test_tables_of_one_mark_stand_apart_in_a_page(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(
        "Before.\n\n<!-- steps: made by x.py -->\nold\n<!-- end of steps -->\n\nAfter.\n",
        encoding="utf-8",
    )
    tables = [
        report.Table(f"steps-{number}", ["a"], [[number]], f"Caption {number}") for number in (1, 2)
    ]
    assert report.fill(page, tables)
    made = (
        "Before.\n\n<!-- steps: made by x.py -->\n\nCaption 1\n\n| a |\n|---|\n| 1 |\n\nCaption"
        " 2\n\n| a |\n|---|\n| 2 |\n\n"
        "<!-- end of steps -->\n\nAfter.\n"
    )
    assert page.read_text(encoding="utf-8") == made
    assert report.fill(page, tables)
    assert page.read_text(encoding="utf-8") == made
    assert not report.fill(page, [report.Table("other", ["a"], [[1]])])
