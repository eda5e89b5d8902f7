"""The control experiment of the method: does a base model write requests too?

The same number of draws, sampling and seeds, from a base model and from an aligned one, side by
side. A base model is sent what its own chat template puts before a user's words, where it has one
that its tokenizer fits; else the aligned model's prefix as plain text, which is a handicap, because
it was never trained on such a header.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from prequery.endpoint import Answer, Asks, Info, Request
from prequery.errors import EndpointError, PrefixError, RecipeError
from prequery.fleet import Fleet
from prequery.local import control
from prequery.local import weights as embedded
from prequery.local.process import start
from prequery.local.weights import Weights
from prequery.prefix import Prefix, derive, prove
from prequery.probe import REQUEST_RULE, Verdict, is_finished, is_request, judge, sample
from prequery.recipe import LOCAL, Sampling, check_url

OWN_TEMPLATE = "the prefix of its own chat template"
Z_95 = 1.959964


@dataclass(frozen=True)
class Subject:
    """A model to draw from.

    Args:
        place: Its endpoint's address, or weights that are served as long as they are needed.
        token: Bearer token of the address.
        exact: Weights are served one request at a time: the same draws are then the same texts.
            Else some quantisations, Gemma's Q4_K among them, write others beside other requests.
    """

    place: str | Weights
    token: str | None = None
    exact: bool = False

    @contextmanager
    def served(self, say: Callable[[str], None]) -> Iterator[str]:
        """Yield its address."""
        if isinstance(self.place, str):
            yield self.place
        else:
            with start(weights=self.place, exact=self.exact, say=say) as address:
                yield address


@dataclass(frozen=True)
class Share:
    """A counted share.

    Args:
        count: How many.
        of: Of how many.
    """

    count: int
    of: int

    @property
    def ratio(self) -> float | None:
        """The share, 0 to 1; null of none."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of all possible draws lies, at 95 %.

        Source:
            Wilson, 1927, the score interval: unlike the textbook one it stays inside [0, 1] and
            is no point at 0 and 1.
        """
        if not self.of:
            return 0.0, 1.0
        share, squared = self.count / self.of, Z_95**2 / self.of
        middle = (share + squared / 2) / (1 + squared)
        half = Z_95 * math.sqrt(share * (1 - share) / self.of + squared / self.of / 4)
        half /= 1 + squared
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Side:
    """What was drawn from one of the two models.

    Args:
        info: What its endpoint says of itself.
        prefix: What it was sent.
        sent: In words, what that is.
        plain: The prefix is another model's.
        answers: One for each draw, in the order of their seeds.
    """

    info: Info
    prefix: Prefix
    sent: str
    plain: bool
    answers: Sequence[Answer]

    @property
    def verdict(self) -> Verdict:
        """What the draws show."""
        return judge(self.answers, self.prefix)

    @property
    def shares(self) -> dict[str, Share]:
        """The shares that are compared, by name."""
        found = self.verdict
        return {
            "finished": Share(found.finished, found.drawn),
            "requests": Share(found.requests, found.drawn),
            "distinct": Share(found.distinct, found.finished),
        }

    def to_json(self) -> dict[str, Any]:
        """Return all of it, each draw included."""
        return {
            "model": self.info.model_id,
            "revision": self.info.model_sha,
            "weights_sha256": self.info.weights_sha256,
            "sent": self.sent,
            "plain_text": self.plain,
            "prefix": self.prefix.text,
            "stop": list(self.prefix.stop),
            **{
                name: {"count": share.count, "of": share.of, "ratio": share.ratio}
                | {"low": share.interval[0], "high": share.interval[1]}
                for name, share in self.shares.items()
            },
            "logprob_mean": self.verdict.logprob_mean,
            "draws": [
                {
                    "text": answer.text,
                    "seed": answer.seed,
                    "finish_reason": answer.finish_reason,
                    "tokens": answer.generated_tokens,
                    "finished": is_finished(answer),
                    "request": is_request(answer, self.prefix),
                }
                for answer in self.answers
            ],
        }


@dataclass(frozen=True)
class Comparison:
    """Both sides.

    Args:
        base: Of the base model.
        aligned: Of the aligned model.
        sampling: Of every draw.
    """

    base: Side
    aligned: Side
    sampling: Sampling

    def sentence(self) -> str:
        """Say what the difference shows and what it cannot show."""
        base, aligned = self.base.shares["requests"], self.aligned.shares["requests"]
        drawn = (
            f"Of {aligned.of} draws each, under the same sampling and seeds, the aligned model "
            f"wrote {aligned.count} requests and the base model {base.count}"
        )
        if aligned.interval[0] > base.interval[1]:
            shown = (
                "the intervals do not meet, so neither the sampling nor the text of a prefix "
                "brings requests forth by itself"
            )
        elif aligned.interval[1] < base.interval[0]:
            shown = (
                "the intervals do not meet and the base model leads, so this aligned model does "
                "not do what the method needs"
            )
        else:
            shown = "the intervals meet, so chance may be all the difference"
        plain = ", here even plain text to it," if self.base.plain else ""
        return (
            f"{drawn}: {shown}; that alignment is the cause this cannot show, because the two "
            "may also differ in family, size and quantisation, and a header that a base model "
            f"was not trained on{plain} is a handicap."
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "sampling": {key: asdict(self.sampling)[key] for key in Sampling.__dataclass_fields__},
            "request_rule": REQUEST_RULE,
            "interval": "Wilson, 95 %",
            "base": self.base.to_json(),
            "aligned": self.aligned.to_json(),
            "sentence": self.sentence(),
        }


def find(name: str, say: Callable[[str], None]) -> str | Weights:
    """Return where a model is that a user named.

    Args:
        name: An address, `local`, the name of packaged weights, or the path of a GGUF file.
        say: Takes one line at a time for the user to read.

    Raises:
        RecipeError: It is none of them.
        LocalError: The weights are not there, or not the pinned ones.
    """
    if "://" in name:
        return check_url(name, "--compare")
    packaged = {LOCAL: embedded.install, control.NAME: control.bring}
    if name in packaged:
        return packaged[name](say)
    if name.lower().endswith(".gguf") or Path(name).is_file():
        return embedded.from_file(Path(name))
    close = get_close_matches(name, packaged, 1)
    raise RecipeError(
        f"{name!r} is no model that can be asked",
        "--compare",
        (f"did you mean {close[0]}? " if close else "")
        + f"name an address, {', '.join(packaged)}, or the path of a GGUF file",
    )


async def compare(
    base: Subject,
    aligned: Subject,
    sampling: Sampling,
    count: int,
    say: Callable[[str], None],
    drawn: Callable[[], None] = lambda: None,
) -> Comparison:
    """Draw from both, one after the other.

    Args:
        base: The base model.
        aligned: The aligned model. It comes first, because its prefix may be sent to the other.
        sampling: Of every draw.
        count: Draws from each.
        say: Takes one line at a time for the user to read.
        drawn: Called after each draw.

    Raises:
        EndpointError: One does not answer, or does not continue raw prompts.
        PrefixError: The aligned model's template cannot be split.
        LocalError: Weights cannot be served.
    """

    async def side(subject: Subject, given: Prefix | None) -> Side:
        with subject.served(say) as address:
            async with Fleet([address], subject.token, say=say) as endpoint:
                endpoint.check(Request(prompt="", sampling=sampling))
                prefix, sent = (
                    (await derive(endpoint), OWN_TEMPLATE)
                    if given is None
                    else await _own_or_given(endpoint, given)
                )
                if prefix.ids:
                    await prove(endpoint, prefix, sampling)
                answers = await sample(endpoint, prefix, sampling, count, True, drawn)
                return Side(await endpoint.info(), prefix, sent, sent != OWN_TEMPLATE, answers)

    second = await side(aligned, None)
    return Comparison(await side(base, second.prefix), second, sampling)


async def _own_or_given(endpoint: Asks, given: Prefix) -> tuple[Prefix, str]:
    """Return what to send to a base model, and in words what that is."""
    try:
        return await derive(endpoint), OWN_TEMPLATE
    except (EndpointError, PrefixError) as error:
        reason = error.what
    markers = given.stop
    whole = [marker for marker in markers if await _is_one_token(endpoint, marker)]
    text, ids = await _without_second_bos(endpoint, given.text)
    prefix = replace(given, text=text, ids=ids, bos="as its endpoint adds it")
    return prefix, (
        f"the aligned model's prefix as plain text, because none of its own can be had ({reason}); "
        f"{len(whole)} of the {len(markers)} markers {', '.join(map(repr, markers))} are single "
        "tokens to it, and a header that it was not trained on is a handicap"
    )


async def _is_one_token(endpoint: Asks, marker: str) -> bool:
    once, twice = await endpoint.tokenize(marker), await endpoint.tokenize(marker * 2)
    # The difference is free of BOS.
    return once is not None and twice is not None and len(twice) - len(once) == 1


async def _without_second_bos(endpoint: Asks, text: str) -> tuple[str, tuple[int, ...]]:
    """Take BOS off a text where the endpoint adds the same again."""
    ids = tuple(await endpoint.tokenize(text) or ())
    if len(ids) > 1 and ids[0] == ids[1]:
        shorter = text[text.find(">") + 1 :]
        rest = tuple(await endpoint.tokenize(shorter) or ())
        if rest == ids[1:]:
            return shorter, rest
    return text, ids
