"""What a scrape of `pgrecall monitor` says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from pgrecall.ops.monitor.service import Monitor

DURATION = "pgrecall_recorded_operation_duration_seconds"


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def __call__(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return float(value)


def scrape(monitor: Monitor) -> Scrape:
    return Scrape(monitor.scrape())
