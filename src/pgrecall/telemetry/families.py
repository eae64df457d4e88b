"""Metrics as ``prometheus_client`` takes them, named and explained by the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pgrecall.telemetry.catalogue import BUCKETS, METRICS

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily


def gauge(name: str, values: Sequence[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    """Return a gauge with its values, each with the values of its labels."""
    family = GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def counter(name: str, values: Sequence[tuple[tuple[str, ...], float]]) -> CounterMetricFamily:
    """Return a counter with its values, each with the values of its labels."""
    family = CounterMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def counting(name: str, registry: CollectorRegistry) -> Counter:
    """Register a counter that this process counts by itself."""
    return Counter(name, METRICS[name].help, METRICS[name].labels, registry=registry)


def timing(name: str, registry: CollectorRegistry) -> Histogram:
    """Register a histogram of durations that this process measures by itself."""
    metric = METRICS[name]
    return Histogram(name, metric.help, metric.labels, buckets=BUCKETS, registry=registry)
