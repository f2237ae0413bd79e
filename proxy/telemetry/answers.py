"""What models answered, by model: tokens, times and ends, in the words of OpenTelemetry's GenAI conventions.

The conventions name metrics for clients and for model servers. A sidecar stands between the two: it counts
tokens as a client does, and measures the provider as if it were the server.
https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md

Model names and codes of errors are a peer's words. So both are bounded, in number and in length: each is
a time series, or a dozen of them, for as long as the process lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from proxy.dialects.summary import Summary
from proxy.telemetry.counters import FIRST_EVENT_BUCKETS, Histogram

#: Tokens of one answer; the buckets of gen_ai.client.token.usage.
TOKEN_BUCKETS = tuple(4**power for power in range(14))
#: Seconds from one token to the next; the buckets of gen_ai.server.time_per_output_token.
TOKEN_TIME_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
#: Seconds that an answer lasts: the buckets of gen_ai.server.request.duration, and longer ones for models
#: that think first.
ANSWER_BUCKETS = (*(2**power / 100 for power in range(14)), 163.84, 327.68, 655.36)

#: Most models of one route that have labels of their own. The others share one.
MOST_MODELS = 100
OTHER_MODEL = "other"

#: Most codes of errors of one route that have a label of their own. The others share the conventions' word.
MOST_ERRORS = 30
OTHER_ERROR = "_OTHER"

#: Characters of a label that a peer has chosen.
LABEL_LENGTH = 100


class Answer(NamedTuple):
    """One stream of a model, at its end.

    ``provider`` and ``operation`` are the conventions' words. ``error`` is the class of what went wrong: the
    provider's own code, or the reason for which the stream ended; nothing where nothing did. ``duration`` is
    in seconds.
    """

    provider: str
    operation: str
    model: str
    error: str
    duration: float
    summary: Summary


class Labels(NamedTuple):
    """What tells the figures of a route apart."""

    provider: str
    operation: str
    model: str


#: The same as names of labels, behind that of the route.
LABELS = ["route", "gen_ai_provider_name", "gen_ai_operation_name", "gen_ai_response_model"]


class ModelStats:
    """Everything counted for one model of a route. What no answer has told is not there, or zero."""

    __slots__ = (
        "cache_reads",
        "cache_writes",
        "durations",
        "finishes",
        "first_tokens",
        "input_tokens",
        "output_tokens",
        "reasoning",
        "token_times",
    )

    def __init__(self) -> None:
        self.input_tokens = Histogram(TOKEN_BUCKETS)
        self.output_tokens = Histogram(TOKEN_BUCKETS)
        self.cache_reads = 0
        self.cache_writes = 0
        self.reasoning = 0
        self.first_tokens = Histogram(FIRST_EVENT_BUCKETS)
        self.token_times = Histogram(TOKEN_TIME_BUCKETS)
        self.durations: dict[str, Histogram] = {}  # by error
        self.finishes: Counter[str] = Counter()  # by reason

    def count(self, answer: Answer, error: str) -> None:
        """Count an answer, as far as it has told of itself. ``error`` is its error's label."""
        summary, usage = answer.summary, answer.summary.usage
        if error not in self.durations:
            self.durations[error] = Histogram(ANSWER_BUCKETS)
        self.durations[error].observe(answer.duration)
        for histogram, figure in (
            (self.input_tokens, usage.input_tokens),
            (self.output_tokens, usage.output_tokens),
            (self.first_tokens, summary.time_to_first_token),
            (self.token_times, summary.time_per_token),
        ):
            if figure is not None:
                histogram.observe(figure)
        self.cache_reads += usage.cached_input_tokens or 0
        self.cache_writes += usage.cache_write_input_tokens or 0
        self.reasoning += usage.reasoning_tokens or 0
        for finish in summary.finishes.values():
            self.finishes[finish.reason] += 1


class Answers:
    """The figures of one route, by model. Bounded: a peer names the models, and the errors."""

    __slots__ = ("_errors", "by_labels")

    def __init__(self) -> None:
        self.by_labels: dict[Labels, ModelStats] = {}
        self._errors: set[str] = set()

    def count(self, answer: Answer) -> None:
        """Count one stream that has ended."""
        labels = Labels(answer.provider, answer.operation, label(answer.model))
        error = _known(label(answer.error), self._errors, MOST_ERRORS, OTHER_ERROR) if answer.error else ""
        self._of(labels).count(answer, error)

    def _of(self, labels: Labels) -> ModelStats:
        stats = self.by_labels.get(labels)
        if stats is None and len(self.by_labels) >= MOST_MODELS:
            labels = labels._replace(model=OTHER_MODEL)
            stats = self.by_labels.get(labels)
        if stats is None:
            stats = self.by_labels[labels] = ModelStats()
        return stats


def label(word: str) -> str:
    """Return a peer's word as a label: short, and ASCII that prints.

    A lone surrogate, which JSON can spell, would otherwise make every scrape fail from then on.
    """
    word = word[:LABEL_LENGTH]
    if word.isascii() and word.isprintable():
        return word
    return "".join(letter if " " <= letter <= "~" else "?" for letter in word)


def _known(word: str, known: set[str], most: int, other: str) -> str:
    """Return ``word`` if it is among ``known``, or can still become so."""
    if word not in known and len(known) >= most:
        return other
    known.add(word)
    return word


#: The figures of all routes, by route.
Routes = Mapping[str, Answers]

HISTOGRAMS: tuple[tuple[str, str, str, Callable[[ModelStats], Mapping[str, Histogram]]], ...] = (
    (
        "gen_ai_client_token_usage", "Tokens of an answer", "gen_ai_token_type",
        lambda stats: {"input": stats.input_tokens, "output": stats.output_tokens},
    ),
    (
        "gen_ai_server_request_duration_seconds", "From the request to the end of the answer", "error_type",
        lambda stats: stats.durations,
    ),
    (
        "gen_ai_server_time_to_first_token_seconds", "From the request to the first token", "",
        lambda stats: {"": stats.first_tokens},
    ),
    (
        "gen_ai_server_time_per_output_token_seconds", "From one token to the next", "",
        lambda stats: {"": stats.token_times},
    ),
)  # fmt: skip
COUNTERS: tuple[tuple[str, str, str, Callable[[ModelStats], Mapping[str, int]]], ...] = (
    (
        "gen_ai_client_inference_usage_cache_read_input_tokens", "Of the input tokens, those from a cache",
        "", lambda stats: {"": stats.cache_reads},
    ),
    (
        "gen_ai_client_inference_usage_cache_write_input_tokens", "Of the input tokens, those put into one",
        "", lambda stats: {"": stats.cache_writes},
    ),
    (
        "gen_ai_client_inference_usage_reasoning_output_tokens", "Of the output tokens, those of reasoning",
        "", lambda stats: {"": stats.reasoning},
    ),
    ("sidecar_finish_reasons", "Answers by why they ended", "reason", lambda stats: stats.finishes),
)  # fmt: skip


def families(routes: Routes) -> Iterator[Metric]:
    """Yield what is counted for each route and model. What never was told has no sample."""
    for name, help_text, extra, read in HISTOGRAMS:
        histogram = HistogramMetricFamily(name, help_text, labels=_names(extra))
        for labels, figures in _rows(routes, extra, read):
            if any(figures.counts):
                histogram.add_metric(labels, figures.buckets(), figures.total)
        yield histogram
    for name, help_text, extra, read_counts in COUNTERS:
        counter = CounterMetricFamily(name, help_text, labels=_names(extra))
        for labels, count in _rows(routes, extra, read_counts):
            counter.add_metric(labels, count)
        yield counter


Value = TypeVar("Value")


def _names(extra: str) -> list[str]:
    return [*LABELS, extra] if extra else LABELS


def _rows(
    routes: Routes, extra: str, read: Callable[[ModelStats], Mapping[str, Value]]
) -> Iterator[tuple[list[str], Value]]:
    for route, answers in routes.items():
        for labels, stats in answers.by_labels.items():
            for value, figure in read(stats).items():
                yield [route, *labels, value] if extra else [route, *labels], figure
