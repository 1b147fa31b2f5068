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
    rows = [{"source": source, "text": f"{source}{n % 3}"} for source in ("books", "words") for n in range(6)]
    assert report.most_of_a_source(rows) == 3
    assert report.most_of_a_source([]) == 0
