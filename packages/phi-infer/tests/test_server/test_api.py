"""What clients get is what the generator makes, alone or together, whole or streamed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from phi_infer import load
from phi_model import save_checkpoint

openai = pytest.importorskip("openai")

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPTS = [
    "The bear",
    "Der Bär süßt",
    "",
    "日本語 und",
    "The bear was glad, the bear was big. " * 3,
]


def close(value):
    """Sums are taken in another order in a batch."""
    return pytest.approx(value, abs=1e-4)


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as found:
        yield found


@pytest.mark.parametrize("temperature", [0, 0.9])
def test_a_text_is_the_generators(server, temperature):
    for seed, prompt in enumerate(PROMPTS):
        options = {"max_tokens": 25, "temperature": temperature, "seed": seed}
        expected = server.generator.complete(prompt, **options)
        status, got = server.ask(COMPLETIONS, {"prompt": prompt, **options})
        assert status == 200
        [choice] = got["choices"]
        assert choice["text"] == expected.text
        assert choice["finish_reason"] == ("length" if expected.finish == "length" else "stop")
        assert got["usage"] == {
            "prompt_tokens": len(server.generator.prompt_ids(prompt)),
            "completion_tokens": len(expected.ids),
            "total_tokens": len(server.generator.prompt_ids(prompt)) + len(expected.ids),
        }
        events = list(server.stream(COMPLETIONS, {"prompt": prompt, **options}))
        assert "".join(e["choices"][0]["text"] for e in events) == expected.text
        reasons = [e["choices"][0]["finish_reason"] for e in events]
        assert reasons[-1] == choice["finish_reason"]
        assert set(reasons[:-1]) <= {None}


def test_many_clients_at_once_get_what_each_gets_alone(server):
    """More than there are slots, with prompts and lengths of their own."""

    def ask(i):
        body = {"prompt": PROMPTS[i % 5], "seed": i, "max_tokens": 5 + 7 * i % 40}
        if i % 2:
            events = server.stream(COMPLETIONS, body)
            return "".join(e["choices"][0]["text"] for e in events)
        return server.ask(COMPLETIONS, body)[1]["choices"][0]["text"]

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(24)))
    for i, text in enumerate(got):
        expected = server.generator.generate(
            PROMPTS[i % 5], seed=i, temperature=1.0, max_tokens=5 + 7 * i % 40
        )
        assert text == expected, i


def test_every_setting_reaches_the_sampler(server):
    options = {
        "max_tokens": 30, "temperature": 1.3, "top_k": 50, "top_p": 0.9, "min_p": 0.01,
        "repeat_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": -0.3, "seed": 5,
    }  # fmt: skip
    expected = server.generator.generate("The", **options, logit_bias={40: 5.0, 41: -100})
    body = options | {"prompt": "The", "logit_bias": {"40": 5, "41": -100}}
    assert server.ask(COMPLETIONS, body)[1]["choices"][0]["text"] == expected


def test_stop_strings_end_a_text(server):
    whole = server.generator.generate("The bear", seed=3, temperature=1.0, max_tokens=40)
    stop = whole[len(whole) // 2 :][:2]
    body = {"prompt": "The bear", "seed": 3, "max_tokens": 40, "stop": [stop, "never so"]}
    [choice] = server.ask(COMPLETIONS, body)[1]["choices"]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    streamed = server.stream(COMPLETIONS, body)
    assert "".join(e["choices"][0]["text"] for e in streamed) == choice["text"]


def test_several_prompts_and_several_texts_of_each(server):
    ids = [int(i) for i in server.generator.tokenizer.encode("The bear")]
    body = {"prompt": ["The", "A"], "n": 2, "seed": 10, "max_tokens": 8}
    choices = server.ask(COMPLETIONS, body)[1]["choices"]
    assert [c["index"] for c in choices] == [0, 1, 2, 3]
    for i, choice in enumerate(choices):
        prompt = ["The", "The", "A", "A"][i]
        expected = server.generator.generate(prompt, seed=10 + i, temperature=1.0, max_tokens=8)
        assert choice["text"] == expected
    texts = [""] * 4
    for event in server.stream(COMPLETIONS, body):
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == [c["text"] for c in choices]
    start = server.generator.prompt_ids("")
    of_ids = server.ask(COMPLETIONS, {"prompt": start + ids, "seed": 1, "max_tokens": 8})
    expected = server.generator.generate("The bear", seed=1, temperature=1.0, max_tokens=8)
    assert of_ids[1]["choices"][0]["text"] == expected


def test_without_a_seed_texts_differ(server):
    body = {"prompt": "The", "max_tokens": 12, "n": 4, "temperature": 1.5}
    choices = server.ask(COMPLETIONS, body)[1]["choices"]
    assert len({choice["text"] for choice in choices}) > 1


def test_openais_client_completes(server, client):
    expected = server.generator.complete("The", seed=2, temperature=1.0, max_tokens=9, log_probs=3)
    got = client.completions.create(model="x", prompt="The", seed=2, max_tokens=9, logprobs=3)
    assert got.choices[0].text == expected.text
    log_probs = got.choices[0].logprobs
    assert log_probs.token_logprobs == close([choice.log_prob for choice in expected.choices])
    assert len(log_probs.tokens) == len(log_probs.text_offset) == len(expected.ids)
    for found, choice in zip(log_probs.top_logprobs, expected.choices, strict=True):
        assert max(found.values()) == close(choice.alternatives[0][1])
    stream = client.completions.create(
        model="x", prompt="The", seed=2, max_tokens=9, stream=True, logprobs=3,
        stream_options={"include_usage": True},
    )  # fmt: skip
    events = list(stream)
    assert "".join(e.choices[0].text for e in events[:-1]) == expected.text
    streamed = [p for e in events[:-1] for p in e.choices[0].logprobs.token_logprobs]
    assert streamed == log_probs.token_logprobs
    lengths = [len(token) for token in log_probs.tokens]
    assert log_probs.text_offset == [sum(lengths[:i]) for i in range(len(lengths))]
    offsets = [at for e in events[:-1] for at in e.choices[0].logprobs.text_offset]
    assert offsets == log_probs.text_offset
    assert events[-1].usage == got.usage


def test_openais_client_chats(server, client):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "A story!"},
    ]
    prompt = "Be kind.\n\nUser: Hi\nAssistant: Hello.\nUser: A story!\nAssistant:"
    options = {"seed": 4, "temperature": 0.7}
    expected = server.generator.complete(
        prompt, max_tokens=12, stop="\nUser:", log_probs=2, **options
    )
    got = client.chat.completions.create(
        model="x", messages=messages, max_completion_tokens=12, logprobs=True, top_logprobs=2,
        **options,
    )  # fmt: skip
    assert got.choices[0].message.content == expected.text
    assert got.choices[0].message.role == "assistant"
    token_bytes = server.generator.tokenizer.token_bytes
    for found, choice in zip(got.choices[0].logprobs.content, expected.choices, strict=True):
        assert bytes(found.bytes) == token_bytes(choice.id)
        assert found.logprob == close(choice.log_prob)
        others = [t.logprob for t in found.top_logprobs]
        assert others == close([p for _, p in choice.alternatives])
    stream = client.chat.completions.create(
        model="x", messages=messages, max_tokens=12, stream=True, **options
    )
    deltas = [event.choices[0] for event in stream]
    assert deltas[0].delta.role == "assistant"
    assert "".join(d.delta.content or "" for d in deltas) == expected.text
    assert deltas[-1].finish_reason == got.choices[0].finish_reason


def test_openais_client_lists_models_and_reads_errors(client):
    [model] = client.models.list().data
    assert model.id == client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError, match="max_tokens must be between") as caught:
        client.completions.create(model="x", prompt="a", max_tokens=10**9)
    assert caught.value.param == "max_tokens"


def test_facts_of_the_model(server):
    facts = server.ask("/v1/models")[1]["data"][0]["phi"]
    config = server.generator.config
    assert facts["kind"] == config.kind
    assert facts["parameters"] == config.n_parameters
    assert ("state_bytes" in facts) == (config.kind == "rwkv7")
    if config.kind == "rwkv7":
        state = server.generator.new_step().state
        assert facts["state_bytes"] == sum(array.nbytes for array in state.arrays.values())


def test_health_and_metrics_count(start):
    server = start()
    assert server.ask("/health") == (200, {"status": "ok"})
    for _ in range(3):
        server.ask(
            COMPLETIONS, {"prompt": "The bear", "max_tokens": 4, "logit_bias": {"299": -100}}
        )
    server.ask(COMPLETIONS, {"max_tokens": "x"})
    server.ask("/nowhere")
    status, text = server.ask("/metrics")
    assert status == 200
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert rows['phi_infer_requests_total{path="/v1/completions",status="200"}'] == "3"
    assert rows['phi_infer_requests_total{path="/v1/completions",status="400"}'] == "1"
    assert rows['phi_infer_requests_total{path="other",status="404"}'] == "1"
    n_prompt = len(server.generator.prompt_ids("The bear"))
    assert rows["phi_infer_prompt_tokens_total"] == str(3 * n_prompt)
    assert rows["phi_infer_generated_tokens_total"] == "12"
    assert rows["phi_infer_time_to_first_token_seconds_count"] == "3"
    assert rows["phi_infer_running"] == rows["phi_infer_waiting"] == "0"


def test_no_tokens_asked_for(server):
    status, got = server.ask(COMPLETIONS, {"prompt": "The", "max_tokens": 0})
    assert (status, got["choices"][0]["text"], got["choices"][0]["finish_reason"]) == (
        200, "", "length",
    )  # fmt: skip


def test_a_model_that_diverged_fails_its_request_alone(tmp_path, make_model, tokenizer, start):
    """Texts whose logits are not finite end with an error; the server goes on."""
    model = make_model(1)
    for name, value in model.parameters.items():
        if "gain" in name:
            value[...] = float("nan")
    path = tmp_path / "nan.phi"
    save_checkpoint(path, model, tokenizer=tokenizer.to_bytes())
    server = start(load(path))
    for _ in range(2):
        status, got = server.ask(COMPLETIONS, {"prompt": "The"})
        assert status == 500
        assert "not finite" in got["error"]["message"]
    [event] = server.stream(COMPLETIONS, {"prompt": "The"})
    assert "not finite" in event["error"]["message"]
    assert server.ask("/health")[0] == 200
    assert server.engine.n_running == 0
