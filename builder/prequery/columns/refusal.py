"""Responses that refuse, and texts that sound like an assistant introducing itself."""

import re
from collections.abc import Mapping
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values, each

# A refusal comes first. Further down, somebody in a story or a letter is sorry.
BEGINNING_CHARS = 400
# An apology opens the text or is not the text's own.
OPENING_CHARS = 60


class Refusal(RowColumn):
    """English refusals and assistant boilerplate, by kind.

    Each field names the kinds that were found, sorted, with commas; it is empty where none was,
    and so for any text that is not English. Null only where the text is.

    `response_refusal`, of the first 400 characters: `apology` ("I'm sorry, but"), `cannot` ("I
    can't help with that"), `ability` ("I don't have access to the internet") and `policy` ("against
    my guidelines"). `ability` alone is often followed by an answer.

    `response_boilerplate`, anywhere: `identity` ("As an AI language model"), `feelings` ("I don't
    have personal opinions"), `cutoff` ("my knowledge cutoff"), `offer` ("Let me know if you have
    any questions"); at its start `opener` ("Certainly!") and `praise` ("Great question!").

    `instruction_assistant_voice`, of the first 400 characters: the instruction speaks as an
    assistant does, so the model answered where it was to ask: `identity` ("I am an AI"), `offer`
    ("How can I help you today?"), `opener`, `praise`, `presentation` ("Here is a list of"), and
    `refusal` ("I cannot assist with").

    These are phrases, not an understanding of the text: a refusal in other words is missed, and a
    story whose hero says "I can't help you" within its first lines is taken for one.
    """

    name = "refusal"
    version = 1
    reads = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "response_refusal": "string",
        "response_boilerplate": "string",
        "instruction_assistant_voice": "string",
    }

    def compute(self, batch: Batch) -> Values:
        """Look for phrases."""
        return {
            "response_refusal": each(refusal, batch["response"]),
            "response_boilerplate": each(boilerplate, batch["response"]),
            "instruction_assistant_voice": each(assistant_voice, batch["instruction"]),
        }


_CANNOT = (
    r" (?:i|we) (?:cannot|can not|could not|am unable to|am not able to|will not|must decline to)"
)
_HELP = (
    r"(?: (?:really|simply|be able to|directly|ethically|in good conscience))?"
    r" (?:help (?!but )|assist|provide|fulfill?|satisfy|comply|create|write|generate|produce|"
    r"engage|answer|support|give (?:you|advice)|offer|discuss|participate|continue with|promote|"
    r"do that|do this|"
    r"share|recommend|encourage|condone|complete this|complete that|respond to)"
)
_SENSE = (
    r" (?:access|browse|open|view|see|hear|watch|listen|search|look up|download|play|display|"
    r"physically|experience|feel|remember|recall|predict|know)"
)
_REFUSALS = {
    "cannot": re.compile(
        _CANNOT + _HELP + r"| i (?:am not|do not feel) comfortable | i must decline "
        r"| i have to decline | i am not going to (?:help|write|provide|do) "
    ),
    "ability": re.compile(
        _CANNOT + _SENSE + r"| i do not have (?:the (?:ability|capability|capacity)|real time|"
        r"(?:any |direct |personal )?access|(?:a )?physical|information (?:on|about)) "
    ),
    "policy": re.compile(
        r" (?:against|violates?|violating|outside) (?:my|our|the|openai's|content)"
        r"(?: \w{1,20}){0,3} (?:guidelines|policy|policies|programming|principles|rules) "
        r"| (?:it is|it would be|that is|this is) (?:not (?:appropriate|ethical|legal|acceptable)|"
        r"illegal|unethical|inappropriate|irresponsible) (?:to|for me to) "
    ),
}
_APOLOGY = re.compile(
    r" (?:i am (?:\w{1,10} )?(?:sorry|afraid)|i apologi[sz]e|my apologies|apologies|sorry) "
    r"(?:but|however|that i|i (?:cannot|am unable|do not|am not|will not)|for (?:the|any)) "
)
_MACHINE = r"(?:ai|artificial intelligence|(?:large )?language model|virtual assistant|chatbot)"
_IDENTITY = re.compile(
    rf" as an? {_MACHINE} (?:language model|assistant|model|system|chatbot|program|developed|"
    r"created|trained|designed|i|my|it is) | as a (?:large )?language model "
    rf"| i am (?:just |only |merely |simply )?an? "
    rf"(?:{_MACHINE}|computer program|text based|machine) "
)
_BOILERPLATE = {
    "identity": _IDENTITY,
    "feelings": re.compile(
        r" i (?:do not|cannot) (?:have|possess|hold|experience) "
        r"(?:personal |any |real |human |the )?(?:opinion|feeling|emotion|belief|preference|"
        r"experience|thought|consciousness)s? "
    ),
    "cutoff": re.compile(
        r" (?:knowledge cut ?off|my (?:last|latest|most recent) (?:\w{1,12} )?"
        r"(?:update|training)|"
        r"my training data|as of my ) "
    ),
    "offer": re.compile(
        r" (?:how (?:can|may) i (?:help|assist)|is there anything else (?:i|you|that)|"
        r"(?:please )?feel free to (?:ask|reach out|let me know)|"
        r"let me know if (?:you|there|this)|i hope this (?:helps|information)|"
        r"i am here to (?:help|assist)|i would be (?:happy|glad) to (?:help|assist)|"
        r"what (?:can|would) (?:i do for you|you like (?:me|help))) "
    ),
}
_PRAISE = re.compile(
    r" (?:(?:that is|what) an? )?(?:great|good|excellent|interesting|fantastic|wonderful) "
    r"(?:question|idea|choice) | thank(?:s| you) for (?:your question|asking|sharing|reaching out) "
)
# "Sure enough" and "Of course I know him" are no openers.
_OPENER = re.compile(r"\s*(?:certainly|sure|sure thing|of course|absolutely|definitely)\s*[!,.:]")
_SPEAKING = re.compile(
    rf" as an? {_MACHINE}(?: \w{{1,20}}){{0,2}} i (?:do|am|cannot|can|have|will|would|must|strive) "
    rf"| i am (?:just |only )?an? (?:{_MACHINE}|computer program) "
)
_PRESENTATION = re.compile(
    r" (?:here (?:is|are) (?:a|an|the|some|your|my|one|\w{1,12} (?:ways|tips|steps|ideas|examples|"
    r"suggestions|possible)) |below (?:is|are) (?:a|an|the|some) |the following is an? )"
)


def refusal(text: str) -> str:
    """Return how a response refuses: kinds, sorted, with commas."""
    begun = _plain(text[:BEGINNING_CHARS])
    kinds = [kind for kind, pattern in _REFUSALS.items() if pattern.search(begun)]
    apology = _APOLOGY.search(begun, 0, OPENING_CHARS)
    return ",".join(sorted([*kinds, "apology"] if apology else kinds))


def boilerplate(text: str) -> str:
    """Return what an assistant says whatever the question: kinds, sorted, with commas."""
    said = _plain(text)
    kinds = [kind for kind, pattern in _BOILERPLATE.items() if pattern.search(said)]
    return ",".join(sorted(kinds + _opening(text)))


def assistant_voice(text: str) -> str:
    """Return how an instruction sounds like an assistant: kinds, sorted, with commas."""
    begun = _plain(text[:BEGINNING_CHARS])
    kinds = _opening(text)
    if _SPEAKING.search(begun):
        kinds.append("identity")
    if _BOILERPLATE["offer"].search(begun):
        kinds.append("offer")
    if _PRESENTATION.match(begun):
        kinds.append("presentation")
    if _REFUSALS["cannot"].search(begun):
        kinds.append("refusal")
    return ",".join(sorted(kinds))


def _opening(text: str) -> list[str]:
    start = text[:OPENING_CHARS].lower()
    kinds = ["opener"] if _OPENER.match(start) else []
    return [*kinds, "praise"] if _PRAISE.match(_plain(start)) else kinds


_WORDS = re.compile(r"[\w']+")
_WRITTEN_OUT = (
    (" i'm ", " i am "),
    (" i'd ", " i would "),
    (" can't ", " cannot "),
    (" won't ", " will not "),
    (" don't ", " do not "),
    (" couldn't ", " could not "),
    (" here's ", " here is "),
    (" that's ", " that is "),
    (" it's ", " it is "),
)


def _plain(text: str) -> str:
    """Return the words in lower case with one space around each, short forms written out."""
    found = _WORDS.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    plain = f" {' '.join(found)} "
    if "'" in plain:
        for short, long in _WRITTEN_OUT:
            plain = plain.replace(short, long)
    return plain
