"""The model as the server sees it: tokens in, tokens out.

What llama.cpp does differently from TGI is made up for here. What cannot be made up for:

- Where one character takes several tokens, llama.cpp reports only the last of them. The others' ids
  are found from the bytes; their log-probabilities are not known, and so None.
- Greedy answers carry the model's own log-probabilities, before a repetition penalty or a grammar;
  TGI's are taken after. Sampled answers carry those after every warper, as TGI's do.
- ``frequency_penalty`` is subtracted once per occurrence, as documented; TGI's code divides it by
  the length of the text.
"""

import asyncio
import json
import math
import mmap
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from prequery.draws import fold
from prequery.errors import LocalError
from prequery.local import llamacpp
from prequery.local.llamacpp import EngineError, Llama, RefusedError
from prequery.local.vocabulary import Piece, Vocabulary
from prequery.local.weights import Weights

# A float32 score divided by much less than this overflows; the answers are the same already here.
LOWEST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How to draw tokens, in TGI's terms. The defaults change nothing.

    Attributes:
        max_new_tokens: Tokens to generate at most.
        seed: Of the draws, 64 bits; None decodes greedily.
        temperature: Divides the scores, before all of the following.
        top_k: How many tokens to keep; 0 keeps all.
        top_p: Which share of the probability to keep, from the top; 1 keeps all.
        typical_p: Which share to keep, from the most typical; 1 keeps all.
        repetition_penalty: For every token of the prompt and of the answer so far; 1 is none.
        frequency_penalty: Per earlier occurrence; 0 is none.
        top_n_tokens: How many most likely tokens to report at every position.
        grammar: From :meth:`Engine.json_grammar` or :meth:`Engine.regex_grammar`.
    """

    max_new_tokens: int
    seed: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    top_n_tokens: int = 0
    grammar: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A token that could stand at a position.

    Attributes:
        id: Of the token.
        bytes: What it adds to the text; nothing for a control token.
        logprob: Natural logarithm of its probability; None where llama.cpp did not report it.
        special: The text of a control token, None for any other token.
    """

    id: int
    bytes: bytes
    logprob: float | None = None
    special: str | None = None


@dataclass(frozen=True)
class Generated(Candidate):
    """A generated token.

    Attributes:
        is_eos: The model ended its answer with it.
        top: The most likely tokens of this position, as many as were asked for.
    """

    is_eos: bool = False
    top: tuple[Candidate, ...] = ()


@asynccontextmanager
async def load(
    weights: Weights, *, slots: int, threads: int, max_total_tokens: int, exact: bool
) -> AsyncIterator["Engine"]:
    """Load a model.

    Args:
        weights: The model.
        slots: How many answers are generated at the same time.
        threads: How many CPU threads generate them.
        max_total_tokens: Room in each slot, for the tokens of a prompt and its answer.
        exact: Reuse no computation between requests. With one slot this makes greedy answers
            repeatable too, at two to three times the time.

    Raises:
        LocalError: The engine is not installed, or cannot load the weights.
    """
    async with llamacpp.run(
        weights, slots=slots, threads=threads, max_total_tokens=max_total_tokens
    ) as llama:
        # No route lists the vocabulary; but every token is a candidate for the next position, and
        # candidates come with their bytes (0.3 s for 49,152 tokens).
        body = {"prompt": [0], "n_predict": 1, "n_probs": 2**20, "grammar": 'root ::= "a"'}
        answer = msgspec.json.decode(await llama.ask("/completion", body), type=llamacpp.Completion)
        candidates = answer.completion_probabilities[0].top_logprobs
        props = json.loads(await llama.ask("/props"))
        engine = Engine(
            llama,
            Vocabulary(Piece(one.id, bytes(one.bytes)) for one in candidates),
            slots=slots,
            max_total_tokens=max_total_tokens,
            exact=exact,
            chat_template=props["chat_template"] if _has_chat_template(weights) else None,
        )
        await engine.learn_ends(props["bos_token"], props["eos_token"])
        yield engine


class Engine:
    """A loaded model. Made by :func:`load`.

    Attributes:
        version: Of xllamacpp.
        waiting: How many requests wait for a slot.
        running: How many requests are with llama.cpp, which works on as many as it has slots.
        bos: The token that the tokenizer puts before every text, where it does.
    """

    def __init__(
        self,
        llama: Llama,
        vocabulary: Vocabulary,
        *,
        slots: int,
        max_total_tokens: int,
        exact: bool,
        chat_template: str | None,
    ) -> None:
        self.version = llama.version
        self.waiting = 0
        self.running = 0
        self.bos: int | None = None
        self._llama = llama
        self._vocabulary = vocabulary
        self._max_total_tokens = max_total_tokens
        self._exact = exact
        self._chat_template = chat_template
        self._turns = asyncio.Semaphore(slots + llamacpp.LOOKAHEAD)
        self._bos_text = ""
        self._eos = Generated(-1, b"")
        self._special_texts: dict[int, str] = {}
        self._proven_grammars: set[str] = set()

    async def learn_ends(self, bos_text: str, eos_text: str) -> None:
        """Learn the ids of the two ends of a text from their spelling."""
        eos = await self.tokenize(eos_text, add_special=False)
        if len(eos) != 1:
            raise LocalError(
                f"this model ends its answers with {eos_text!r}, which is not one token",
                "its GGUF metadata",
                "serve the GGUF file of another model",
            )
        self._eos = Generated(eos[0].id, b"", special=eos_text, is_eos=True)
        # Where the tokenizer adds BOS, it adds it to an empty text too.
        added = await self.tokenize("", add_special=True)
        self.bos = added[0].id if added else None
        self._bos_text = bos_text

    async def is_healthy(self) -> bool:
        """Tell whether llama.cpp answers."""
        try:
            await asyncio.wait_for(self._llama.ask("/health"), timeout=5)
        except (EngineError, RefusedError, TimeoutError):
            return False
        return True

    async def tokenize(self, text: str, *, add_special: bool) -> list[Piece]:
        """Tokenise a text; control tokens that are spelled out in it become single ids.

        Args:
            text: What to tokenise.
            add_special: Add the tokens that the tokenizer puts around a whole input.
        """
        body = {"content": text, "add_special": add_special, "with_pieces": True}
        answer = msgspec.json.decode(
            await self._llama.ask("/tokenize", body), type=llamacpp.Tokenized
        )
        return [
            Piece(one.id, one.piece.encode() if isinstance(one.piece, str) else bytes(one.piece))
            for one in answer.tokens
        ]

    async def apply_template(self, messages: Sequence[dict[str, str]]) -> str:
        """Render messages with the model's own template, up to where the assistant would answer.

        Raises:
            RefusedError: The model has no chat template, or it does not take these messages.
        """
        template = self._chat_template
        if template is None:
            raise RefusedError("template not found")
        answer = json.loads(await self._llama.ask("/apply-template", {"messages": messages}))
        prompt: str = answer["prompt"]
        # Where its tokenizer adds BOS, llama.cpp takes off the BOS that the template wrote.
        wrote_bos = "bos_token" in template or (self._bos_text and self._bos_text in template)
        if self.bos is not None and wrote_bos and not prompt.startswith(self._bos_text):
            return self._bos_text + prompt
        return prompt

    async def json_grammar(self, schema: dict[str, Any]) -> str:
        """Return the grammar of a JSON schema.

        Raises:
            RefusedError: It cannot be compiled.
        """
        # Where blanks are free, a small model pads them until its tokens run out.
        compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
        return await self._prove(f"start: %json {json.dumps(compact)}")

    async def regex_grammar(self, pattern: str) -> str:
        """Return the grammar of a regular expression that the whole answer matches.

        Raises:
            RefusedError: It cannot be compiled.
        """
        # The literal that it becomes ends at a bare slash, and cannot hold a line break.
        escaped = re.sub(
            r"\\.|[/\n\r]",
            lambda found: {"/": r"\/", "\n": r"\n", "\r": r"\r"}.get(found[0], found[0]),
            pattern,
            flags=re.DOTALL,
        )
        return await self._prove(f"start: /{escaped}/")

    async def _prove(self, rule: str) -> str:
        # llama.cpp does not report a grammar that it cannot compile, it generates without one. So
        # push the end of the answer to the front: only a missing grammar lets it through.
        grammar = f"%llguidance {{}}\n{rule}"
        if grammar not in self._proven_grammars:
            body = {
                "prompt": [self._eos.id],
                "n_predict": 1,
                "temperature": 0,
                "logit_bias": [[self._eos.id, 1000]],
                "grammar": grammar,
            }
            answer = msgspec.json.decode(
                await self._llama.ask("/completion", body), type=llamacpp.Completion
            )
            if answer.stop_type == "eos":
                raise RefusedError("it cannot be compiled, or it allows an empty answer")
            self._proven_grammars.add(grammar)
        return grammar

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Generated, None]:
        """Generate tokens one after the other, as soon as a slot is free.

        More than ``max_new_tokens`` may come. Close the iterator to free the slot.

        Args:
            prompt: Token ids.
            sampling: How to draw.

        Raises:
            EngineError: llama.cpp did not answer, or broke off.
            RefusedError: llama.cpp cannot serve this request.
        """
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            async with (
                aclosing(self._llama.stream(self._body(prompt, sampling))) as events,
                aclosing(self._tokens(events)) as tokens,
            ):
                async for token in tokens:
                    yield token
        finally:
            self.running -= 1
            self._turns.release()

    def _body(self, prompt: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        greedy = sampling.seed is None
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": sampling.max_new_tokens + llamacpp.OVERRUN,
            "cache_prompt": not self._exact,
            # TGI's order; llama.cpp's own puts the temperature last.
            "samplers": ["penalties", "temperature", "top_k", "top_p", "typ_p"],
            "temperature": 0 if greedy else max(sampling.temperature, LOWEST_TEMPERATURE),
            "seed": fold(sampling.seed or 0),
            # Every one of them, always: llama.cpp's defaults are top_k 40 and min_p 0.05.
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": 0.0,
            "typical_p": sampling.typical_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": self._max_total_tokens,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": 0.0,
            "n_probs": max(1, sampling.top_n_tokens),
            # After greedy sampling every probability is 1, which tells nothing.
            "post_sampling_probs": not greedy,
        }
        return body if sampling.grammar is None else {**body, "grammar": sampling.grammar}

    async def _tokens(
        self, events: AsyncIterator[llamacpp.Completion]
    ) -> AsyncGenerator[Generated, None]:
        """Turn llama.cpp's events into one token after the other."""
        counted = 0
        # Only the next event tells whether a control token was the end of the answer.
        control: Generated | None = None
        async for event in events:
            ended = event.stop_type == "eos"
            if control is not None:
                yield replace(control, is_eos=ended)
            elif ended:
                # The end itself was kept back behind an unfinished character.
                yield self._eos
            control = None
            for reported in event.completion_probabilities:
                kept_back = event.tokens_predicted - counted - 1
                for id_ in self._kept_back(reported, kept_back):
                    yield Generated(id_, self._vocabulary.bytes_of(id_))
                top = [await self._candidate(one) for one in _top(reported)]
                token = await self._candidate(reported)
                generated = Generated(
                    token.id, token.bytes, token.logprob, token.special, top=tuple(top)
                )
                if generated.special is None:
                    yield generated
                else:
                    control = generated
            counted = event.tokens_predicted

    def _kept_back(self, reported: llamacpp.Reported, count: int) -> list[int]:
        """Find the tokens that llama.cpp kept back before this one: they only began a character."""
        own = self._vocabulary.bytes_of(reported.id)
        before = bytes(reported.bytes[: len(reported.bytes) - len(own)])
        return self._vocabulary.split(before, count) or []

    async def _candidate(self, one: llamacpp.Candidate) -> Candidate:
        logprob = one.logprob
        if one.prob is not None:
            logprob = math.log(one.prob) if one.prob > 0 else None
        own = self._vocabulary.bytes_of(one.id)
        return Candidate(one.id, own, logprob, None if own else await self._special_text(one.id))

    async def _special_text(self, token: int) -> str:
        if token not in self._special_texts:
            answer = json.loads(await self._llama.ask("/detokenize", {"tokens": [token]}))
            self._special_texts[token] = answer["content"]
        return self._special_texts[token]


def _top(reported: llamacpp.Reported) -> list[llamacpp.Candidate]:
    return reported.top_logprobs or reported.top_probs


def _has_chat_template(weights: Weights) -> bool:
    """Look for a chat template in the file: llama.cpp serves ChatML for a model without one.

    The name of a metadata key stands in the file as it is.
    """
    with (
        weights.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
    ):
        return view.find(b"tokenizer.chat_template") != -1
