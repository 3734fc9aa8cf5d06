"""A page of metrics as a busy server would have it: every name and label, and made-up numbers."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from statekeep_server.telemetry import names
from statekeep_server.telemetry.instruments import Kind, Metric, label_of

VALUES = {
    names.LABEL_PATH: ("STANDARD", "OPTIMIZED"),
    names.LABEL_OUTCOME: ("PERSISTED", "SKIPPED"),
    names.LABEL_RESULT: ("hit", "miss", "right", "wrong", "persisted", "lost"),
    names.LABEL_STATE: ("used", "idle", "limit"),
    names.LABEL_REASON: ("OVERLOADED", "CHANGED"),
    names.RPC_STATUS: ("OK", "DATA_LOSS"),
}
"""Values of the labels that queries choose by; other labels have one made-up value."""


def page(scrapes: int) -> str:
    """Write the page: all that counts has grown since the last time."""
    return "\n".join(line for metric in names.METRICS for line in _lines(metric, scrapes)) + "\n"


def _lines(metric: Metric, scrapes: int) -> Iterator[str]:
    for values in itertools.product(*(VALUES.get(label, ("some",)) for label in metric.labels)):
        labels = [
            f'{label_of(label)}="{value}"'
            for label, value in zip(metric.labels, values, strict=True)
        ]
        match metric.kind:
            case Kind.HISTOGRAM:
                for count, bound in enumerate((*metric.bounds, "+Inf"), start=1):
                    bucket = _labels([*labels, f'le="{bound}"'])
                    yield f"{metric.prometheus}_bucket{bucket} {count * scrapes}"
                count = (len(metric.bounds) + 1) * scrapes
                yield f"{metric.prometheus}_sum{_labels(labels)} {count / 100}"
                yield f"{metric.prometheus}_count{_labels(labels)} {count}"
            case Kind.COUNTER:
                yield f"{metric.prometheus}{_labels(labels)} {scrapes}"
            case Kind.GAUGE:
                yield f"{metric.prometheus}{_labels(labels)} 1"


def _labels(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


@contextmanager
def made_up_exporter() -> Iterator[str]:
    """Serve the page on loopback; yield `host:port`."""
    scrapes = itertools.count(1)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = page(next(scrapes)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
