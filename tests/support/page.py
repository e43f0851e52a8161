"""Reads a report as a browser would."""

import json
from html.parser import HTMLParser

from evaluation.report import write_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028\ud800\x00<!--"


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, embedded JSON, visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.data, self.inside = [], "", "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") if tag == "script" else tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data
        elif self.inside not in ("style", "script", None) or self.inside is None:
            self.text += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)

    @property
    def charts(self):
        return {chart["id"]: chart for chart in json.loads(self.data)["charts"]}


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))
