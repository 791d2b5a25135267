from __future__ import annotations

from html.parser import HTMLParser

from fllm_export import Bundle

VOID = {"meta", "rect", "line"}


class Balance(HTMLParser):
    """Collects tags that are closed wrongly, and everything that would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_report_is_one_whole_page_with_the_measured_numbers(tiny_bundle: Bundle) -> None:
    page = (tiny_bundle.path / "reports" / "report.html").read_text()
    balance = Balance()
    balance.feed(page)
    assert not balance.wrong
    assert not balance.open
    assert not balance.outside
    assert "<script" not in page
    parity = tiny_bundle.parity()
    for depth, value in parity.recall.items():
        assert f">recall@{depth}</text>" in page
        assert f">{value:.4f}</text>" in page
    assert sum(parity.recall_counts.values()) == parity.texts
    assert f"recall@{parity.k}" in page
