"""A page of HTML as a test reads it."""

from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags in order, checked for being closed; what they refer to; the text between them; the rows of its tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.ids, self.links, self.words = [], [], [], Counter(), [], []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert found["alt"]
            self.images.append(found["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if "id" in found:
            self.ids[found["id"]] += 1
        for key in ("src", "href", "xlink:href", "action", "data"):
            if key in found:
                self.links.append(found[key])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "title"}:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()
