"""What models answered: names, labels and buckets as the GenAI conventions have them, whatever peers tell."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy.dialects.part import Finish, Text, Usage
from proxy.telemetry import Answer, Telemetry
from proxy.telemetry.answers import LABEL_LENGTH, MOST_ERRORS, MOST_MODELS
from tests.support.answers import answer

GPT = {
    "route": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_operation_name": "chat",
    "gen_ai_response_model": "gpt",
}


def shown(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """Return the value that a scrape shows for a sample of GPT's, or None where it shows none."""
    value: float | None = telemetry.registry.get_sample_value(name, {**GPT, **labels})
    return value


def counted(*answers: Answer) -> Telemetry:
    """Return the telemetry of a process in which these ended."""
    telemetry = Telemetry()
    for each in answers:
        telemetry.answered("chat", each)
    return telemetry


def test_tokens() -> None:
    """In and out are one histogram, told apart by type; what is a part of them is counted beside it."""
    usage = Usage(
        input_tokens=1000,
        output_tokens=60,
        cached_input_tokens=700,
        cache_write_input_tokens=200,
        reasoning_tokens=40,
    )
    telemetry = counted(answer(usage), answer(usage))
    name = "gen_ai_client_token_usage"
    for kind, tokens, below, above in (("input", 1000, "256.0", "1024.0"), ("output", 60, "16.0", "64.0")):
        assert shown(telemetry, f"{name}_sum", gen_ai_token_type=kind) == 2 * tokens
        assert shown(telemetry, f"{name}_bucket", gen_ai_token_type=kind, le=below) == 0
        assert shown(telemetry, f"{name}_bucket", gen_ai_token_type=kind, le=above) == 2
    for kind, tokens in (("cache_read_input", 700), ("cache_write_input", 200), ("reasoning_output", 40)):
        assert shown(telemetry, f"gen_ai_client_inference_usage_{kind}_tokens_total") == 2 * tokens


def test_times() -> None:
    """To the first token, from one to the next, and to the end; in seconds."""
    telemetry = counted(answer(Text("first"), Text("last"), Usage(output_tokens=4)))
    for name, seconds, labels in (
        ("time_to_first_token", 0.5, {}),
        ("time_per_output_token", 0.5, {}),
        ("request_duration", 3.0, {"error_type": ""}),
    ):
        assert shown(telemetry, f"gen_ai_server_{name}_seconds_sum", **labels) == pytest.approx(seconds), name
        assert shown(telemetry, f"gen_ai_server_{name}_seconds_count", **labels) == 1, name


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("gen_ai_client_token_usage", [4**power for power in range(14)]),
        ("gen_ai_server_time_per_output_token_seconds",
         [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]),
        ("gen_ai_server_request_duration_seconds",
         [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]),
        ("gen_ai_server_time_to_first_token_seconds",
         [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]),
    ],
)  # fmt: skip
def test_the_buckets_are_those_of_the_conventions(name: str, bounds: list[float]) -> None:
    """A dashboard that is made for other servers fits. Beyond them there may be some for slower models."""
    telemetry = counted(answer(Text("first"), Text("last"), Usage(input_tokens=1, output_tokens=4)))
    (family,) = (metric for metric in telemetry.collect() if metric.name == name)
    shown_bounds = list(dict.fromkeys(s.labels["le"] for s in family.samples if "le" in s.labels))
    assert [float(bound) for bound in shown_bounds[: len(bounds)]] == bounds
    assert all(float(bound) > bounds[-1] for bound in shown_bounds[len(bounds) :])


def test_an_error_is_told_by_its_class() -> None:
    """The duration tells good answers from those that failed, as the conventions want it."""
    telemetry = counted(answer(), answer(error="overloaded_error"), answer(error="truncated"))
    for error in ("", "overloaded_error", "truncated"):
        assert shown(telemetry, "gen_ai_server_request_duration_seconds_count", error_type=error) == 1


def test_every_choice_has_a_finish_reason() -> None:
    """An answer may be several."""
    telemetry = counted(answer(Finish("stop", "stop"), Finish("length", "length", choice=1)))
    for reason in ("stop", "length"):
        assert shown(telemetry, "sidecar_finish_reasons_total", reason=reason) == 1


def test_what_was_not_told_is_not_counted() -> None:
    """A stream that broke off before its usage has no tokens: none, and not zero."""
    telemetry = counted(answer(error="truncated"))
    assert shown(telemetry, "gen_ai_client_token_usage_count", gen_ai_token_type="input") is None
    assert shown(telemetry, "gen_ai_server_time_to_first_token_seconds_count") is None
    assert shown(telemetry, "gen_ai_server_request_duration_seconds_count", error_type="truncated") == 1


# Peers


def test_a_peer_cannot_make_time_series_without_end() -> None:
    """The attack: an upstream that tells another model, and another error, with every answer."""
    telemetry = counted(*(answer(model=f"m{number}", error=f"e{number}") for number in range(500)))
    labels = telemetry.answers["chat"].by_labels
    assert len(labels) == MOST_MODELS + 1
    assert sum(len(stats.durations) for stats in labels.values()) <= 2 * MOST_MODELS
    name = "gen_ai_server_request_duration_seconds_count"
    other = shown(telemetry, name, gen_ai_response_model="other", error_type="_OTHER")
    assert other == 500 - MOST_MODELS
    assert shown(telemetry, name, gen_ai_response_model="m1", error_type="e1") == 1
    assert shown(telemetry, name, gen_ai_response_model=f"m{MOST_ERRORS}", error_type="_OTHER") == 1


@pytest.mark.parametrize("model", ["\ud83d", 'a"b\n\\', "\x9b2J", "é", "x" * 100_000])
def test_a_scrape_survives_any_name(model: str) -> None:
    """The attack: a name that no encoding takes, that ends its line, or that is a book."""
    telemetry = counted(answer(Usage(input_tokens=1), model=model, error=model))
    page = generate_latest(telemetry.registry).decode("ascii")
    names = {
        sample.labels["gen_ai_response_model"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "gen_ai_response_model" in sample.labels
    }
    (name,) = names
    assert 0 < len(name) <= LABEL_LENGTH


@pytest.mark.parametrize("figure", [-1, 10**400])
def test_tokens_that_cannot_be_are_not_counted(figure: int) -> None:
    """The attack: a figure that no float holds, at which every scrape would fail from then on."""
    usage = Usage(input_tokens=figure, output_tokens=figure, cached_input_tokens=figure)
    telemetry = counted(answer(Text("first"), Text("last"), usage))
    assert b"gen_ai_server_time_to_first_token_seconds_sum" in generate_latest(telemetry.registry)
    assert shown(telemetry, "gen_ai_client_token_usage_count", gen_ai_token_type="output") is None
    assert shown(telemetry, "gen_ai_client_inference_usage_cache_read_input_tokens_total") == 0
