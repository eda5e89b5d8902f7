"""What the servers of raw completions take and say, each in its own way.

All of them answer `POST /v1/completions`, OpenAI's legacy route, and each adds fields. A field left
out is not neutral: llama.cpp then keeps the 40 likeliest tokens, vLLM takes what the model's
generation_config.json says. So everything that changes a distribution is sent, in the words of the
server at hand, and what it has no word for is refused before the first row.

Source:
    llama.cpp: asked itself (the server inside xllamacpp), and tools/server/server-task.cpp.
    vLLM: vllm/entrypoints/openai/completion/{protocol,serving}.py. SGLang:
    python/sglang/srt/entrypoints/openai/{protocol,serving_completions,serving_tokenize}.py and
    srt/sampling/sampling_batch_info.py. TGI:
    its OpenAPI 3.3.6 and router/src/server.rs. The last three were read, not run.
"""

import json
import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import msgspec

from prequery import draws
from prequery.endpoint import Request
from prequery.errors import EndpointError
from prequery.recipe import Sampling
from prequery.transport import Count, FaultError

NO_WORD = {"repetition_penalty": 1.0}
"""Values that change nothing, so that no word for them is needed."""
IMPOSSIBLE = -1e30
"""llama.cpp writes the least float32 for the logarithm of 0."""


class Entry(msgspec.Struct):
    """A token in llama.cpp's list: `prob` after the samplers, or `logprob` before them."""

    bytes: list[int] | None = None
    prob: float | None = None
    logprob: float | None = None


class Logprobs(msgspec.Struct):
    """OpenAI's list of numbers, or llama.cpp's of entries."""

    token_logprobs: list[float | None] = []
    content: list[Entry] = []


class Choice(msgspec.Struct):
    """One completion. `stop_reason` is vLLM's, `matched_stop` SGLang's: a stop string, or an id.

    `prompt_logprobs` is vLLM's: for each token of the prompt a mapping from its id.
    """

    text: str
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: int | str | None = None
    matched_stop: int | str | None = None
    prompt_logprobs: list[dict[str, Entry] | None] | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counts them, the end-of-turn token included."""

    prompt_tokens: Count
    completion_tokens: Count


class Verbose(msgspec.Struct):
    """What llama.cpp adds when it is asked to be verbose."""

    stop_type: str = ""


class Completion(msgspec.Struct):
    """The body of an answer."""

    choices: list[Choice]
    usage: Usage
    verbose: Verbose | None = msgspec.field(name="__verbose", default=None)


@dataclass(frozen=True)
class Dialect:
    """OpenAI's own fields and no other: of a server that does not say what it is.

    Its `finish_reason` does not tell the end of a turn from a stop string, so both are `eos_token`.
    """

    name: ClassVar[str] = "an unknown server"
    sampling: ClassVar[frozenset[str]] = frozenset({"temperature", "top_p", "max_new_tokens"})
    """Fields of `Sampling` that it has a word for."""
    asks: ClassVar[frozenset[str]] = frozenset(
        {"prompt", "sampling", "seed", "stop", "logprobs", "reads", "plain"}
    )
    """Fields of `Request`: the same. Who cannot `read` says so, and leaves out nothing."""

    def check(self, request: Request, address: str) -> None:
        """Refuse what this server has no word for, and would leave out in silence.

        Raises:
            EndpointError: Naming the field.
        """
        parts: tuple[tuple[object, type, frozenset[str]], ...] = (
            (request.sampling, Sampling, self.sampling),
            (request, Request, self.asks),
        )
        for part, kind, known in parts:
            for one in fields(kind):
                value = getattr(part, one.name)
                idle = value is None or value == NO_WORD.get(one.name, _default(one))
                if one.name not in known and not idle:
                    raise EndpointError(
                        f"{self.name} cannot be told {one.name}: it would be left out in silence",
                        f"{address}, /v1/completions, {one.name}: {value!r}",
                        f"remove {one.name} from the recipe, or use a server that takes it",
                    )

    def parameters(self, request: Request, model: str) -> dict[str, Any]:
        """Return the fields of a request to a model, by the name in `/v1/models`."""
        sampling = request.sampling
        sent = {
            "model": model,
            "prompt": request.prompt,
            "max_tokens": sampling.max_new_tokens,
            "temperature": 0 if sampling.temperature is None else sampling.temperature,
            "top_p": 1 if sampling.top_p is None else sampling.top_p,
            "seed": self.seed(request),
            "stop": list(request.stop) or None,
            "logprobs": 1 if request.logprobs else None,
        }
        return {key: value for key, value in sent.items() if value is not None} | self.extra(
            request
        )

    def extra(self, request: Request) -> dict[str, Any]:
        """Return the fields that are no part of OpenAI's."""
        return {}

    def reading(self, request: Request, model: str) -> dict[str, Any] | None:
        """Return the fields that have the prompt read; null: its likelihood is never told."""
        return None

    def read(self, completion: Completion) -> list[float | None]:
        """Return the log-probability of each token of the prompt; null: not told."""
        return []

    def seed(self, request: Request) -> int | None:
        """Return the seed that is sent, which is the one that is recorded."""
        return None if request.sampling.temperature is None else request.seed

    def tokenize(self, text: str, plain: bool = False) -> dict[str, Any] | None:
        """Return the body for `/tokenize`; null where there is no such route.

        Args:
            text: To be split.
            plain: As of a request.
        """
        return None

    def finish(self, completion: Completion) -> str:
        """Return the reason to finish in TGI's words.

        Raises:
            FaultError: It was broken off, or says something else.
        """
        choice = completion.choices[0]
        if choice.finish_reason == "length":
            return "length"
        if choice.finish_reason in ("stop_sequence", "eos_token"):
            return choice.finish_reason  # TGI's own words, which it keeps for stop strings
        if choice.finish_reason != "stop":
            raise FaultError(f"finish_reason {choice.finish_reason!r:.40}")
        matched = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
        # A number is the id of an end-of-turn token other than the tokenizer's EOS.
        return "stop_sequence" if isinstance(matched, str) else "eos_token"


@dataclass(frozen=True)
class Vllm(Dialect):
    """vLLM. Its log-probabilities are those of the model, before temperature and penalties."""

    name = "vllm"
    sampling = Dialect.sampling | {"top_k", "repetition_penalty"}
    asks = Dialect.asks | {"control", "grammar", "schema"}

    def extra(self, request: Request) -> dict[str, Any]:
        """Send a template's prompt as it stands, with its own BOS, and show the control tokens.

        A stop string that is a control token is only found in a text that shows it.
        """
        # Before 0.12 it was called guided_regex, and what is unknown there is left out in silence.
        form = _grammar(request, regex="regex", schema="json")
        grammar = {"structured_outputs": form} if form else {}
        return (
            _neutral(request.sampling)
            | grammar
            | {
                "add_special_tokens": request.plain,
                "skip_special_tokens": False,
                "spaces_between_special_tokens": False,
            }
        )

    def reading(self, request: Request, model: str) -> dict[str, Any]:
        """Ask for the prompt's own tokens and for no others beside them."""
        return self.parameters(request, model) | {"max_tokens": 1, "prompt_logprobs": 0}

    def read(self, completion: Completion) -> list[float | None]:
        """Each token is a mapping of its id alone; the first, which follows on nothing, is null."""
        told = completion.choices[0].prompt_logprobs or []
        return [next(iter(one.values())).logprob if one else None for one in told]

    def tokenize(self, text: str, plain: bool = False) -> dict[str, Any]:
        """As `extra` sends it."""
        return {"prompt": text, "add_special_tokens": plain}


@dataclass(frozen=True)
class Sglang(Dialect):
    """SGLang. It adds the tokenizer's BOS.

    Its log-probabilities are those after the temperature and before top_k and top_p.

    Args:
        heeds_seeds: It does in its deterministic mode, where all requests without one get the
            same; in the other it does not, and no seed is sent or recorded. Null: it hides that.
    """

    name = "sglang"
    sampling = Dialect.sampling | {"top_k", "repetition_penalty"}
    asks = Dialect.asks | {"control", "grammar", "schema"}

    heeds_seeds: bool | None = None

    def seed(self, request: Request) -> int | None:
        """Send none that would have no effect."""
        return None if self.heeds_seeds is False else super().seed(request)

    def extra(self, request: Request) -> dict[str, Any]:
        """As vLLM's; it takes no `add_special_tokens`."""
        # It wants its schema as text.
        form = _grammar(request, regex="regex", schema="json_schema")
        grammar = {k: v if isinstance(v, str) else json.dumps(v) for k, v in form.items()}
        return _neutral(request.sampling) | grammar | {"skip_special_tokens": False}

    def reading(self, request: Request, model: str) -> dict[str, Any]:
        """Ask for the prompt back, with log-probabilities."""
        whole = self.parameters(request, model)
        return whole | {"max_tokens": 1, "echo": True, "logprobs": 1}

    def read(self, completion: Completion) -> list[float | None]:
        """The prompt's stand before those of the answer."""
        return logprobs(completion.choices[0])[: completion.usage.prompt_tokens]

    def tokenize(self, text: str, plain: bool = False) -> dict[str, Any]:
        """As it reads a prompt: with the tokenizer's special tokens."""
        return {"prompt": text, "add_special_tokens": True}


@dataclass(frozen=True)
class LlamaCpp(Dialect):
    """llama.cpp's server.

    It adds BOS where the model's metadata says so. Seeds have 32 bits there, and it cuts longer
    ones: they are folded here, and what is sent is recorded.

    Args:
        context: Tokens that a slot has room for.
    """

    name = "llamacpp"
    sampling = Dialect.sampling | {"top_k", "repetition_penalty"}
    asks = Dialect.asks | {"schema"}

    context: int = 0

    def extra(self, request: Request) -> dict[str, Any]:
        """Sample as TGI does: the temperature first, and no sampler of llama.cpp's own."""
        sampling = request.sampling
        return {
            "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "top_k": sampling.top_k or 0,
            "min_p": 0,
            "repeat_penalty": sampling.repetition_penalty or 1,
            "repeat_last_n": self.context,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "mirostat": 0,
            "dynatemp_range": 0,
            # As TGI's. After greedy sampling every probability is 1, which tells nothing.
            "post_sampling_probs": sampling.temperature is not None,
            "verbose": True,
            "response_fields": ["stop_type"],
            **_grammar(request, regex="", schema="json_schema"),
        }

    def seed(self, request: Request) -> int | None:
        """Fold the seed to 32 bits."""
        seed = super().seed(request)
        return None if seed is None else draws.fold(seed)

    def tokenize(self, text: str, plain: bool = False) -> dict[str, Any]:
        """As it reads a prompt."""
        return {"content": text, "add_special": True, "parse_special": True}

    def finish(self, completion: Completion) -> str:
        """Tell the end of a turn from a stop string, which are both `stop`.

        Where the server is not verbose the tokens tell: an end-of-turn token is listed without
        text, and those of a stop string are left out.
        """
        said = super().finish(completion)
        if said != "eos_token":
            return said
        if completion.verbose is not None and completion.verbose.stop_type:
            return "eos_token" if completion.verbose.stop_type == "eos" else "stop_sequence"
        logprobs = completion.choices[0].logprobs
        ended = logprobs is not None and logprobs.content and not logprobs.content[-1].bytes
        return "eos_token" if ended else "stop_sequence"


@dataclass(frozen=True)
class TgiCompletions(Dialect):
    """TGI's own route of this kind, which gives no log-probabilities.

    It takes a model's name for that of an adapter, and counts in `usage` no prompt tokens but those
    whose log-probabilities it has: `x-prompt-tokens` says how many there are.
    """

    name = "text-generation-router"
    sampling = Dialect.sampling | {"repetition_penalty"}

    def parameters(self, request: Request, model: str) -> dict[str, Any]:
        """Leave out a `top_p` of 1, which TGI refuses, and what it does not know."""
        sent = super().parameters(request, model)
        moot = {"model", "logprobs"} | ({"top_p"} if sent["top_p"] == 1 else set())
        return {key: value for key, value in sent.items() if key not in moot}

    def extra(self, request: Request) -> dict[str, Any]:
        """Add the one field that it has beyond OpenAI's."""
        penalty = request.sampling.repetition_penalty
        return {} if penalty is None else {"repetition_penalty": penalty}


def logprobs(choice: Choice) -> list[float | None]:
    """Return natural logarithms, null for a token that came without one."""
    listed = choice.logprobs
    if listed is None:
        return []
    return listed.token_logprobs or [_logarithm(entry) for entry in listed.content]


def _logarithm(entry: Entry) -> float | None:
    if entry.prob is not None:
        return math.log(entry.prob) if entry.prob > 0 else None
    possible = entry.logprob is not None and entry.logprob > IMPOSSIBLE
    return entry.logprob if possible else None


def _grammar(request: Request, regex: str, schema: str) -> dict[str, Any]:
    """Return what the answer must follow, under the server's own names."""
    if request.schema is not None:
        return {schema: request.schema}
    return {regex: request.grammar} if request.grammar else {}


def _neutral(sampling: Sampling) -> dict[str, Any]:
    return {
        "top_k": sampling.top_k or -1,
        "min_p": 0,
        "repetition_penalty": sampling.repetition_penalty or 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }


def _default(one: Any) -> Any:
    return None if one.default is MISSING else one.default
