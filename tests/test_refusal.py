"""Refusals and assistant boilerplate on a labelled set of openings."""

import pytest

from prequery import columns
from prequery.columns.refusal import assistant_voice, boilerplate, refusal
from prequery.columns.run import measure

REFUSALS = {
    "I'm sorry, but I can't help with that.": "apology,cannot",
    "I\u2019m sorry, but I can\u2019t assist with that request.": "apology,cannot",
    "I am very sorry, but I cannot provide instructions for that.": "apology,cannot",
    "I cannot create explicit content, but I'd be happy to write something else.": "cannot",
    "I can't satisfy your request, I'm just an AI.": "cannot",
    "I apologize, but I'm not able to fulfill this request.": "apology,cannot",
    "As an AI language model, I don't have access to real-time information.": "ability",
    "I'm unable to browse the internet or open links.": "ability",
    "I don't have the ability to play music.": "ability",
    "It is illegal to pick a lock that is not yours. I won't help you do that.": "cannot,policy",
    "This request goes against my ethical guidelines.": "policy",
    "I am not comfortable writing that.": "cannot",
    "Sorry, I cannot answer this question.": "apology,cannot",
}
NO_REFUSALS = (
    "",
    "I'm sorry to hear that you are not feeling well! Here is what helps.",
    "I cannot help but admire the structure of this poem.",
    "Sure, here is the code. It cannot fail.",
    "The function cannot access the variable, because it is private.",
    "To decline politely, you can say that you are busy.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Dear Anna,\n\n"
    + "thank you for your kind letter, it made my day. " * 10
    + "I cannot help you.",
)
BOILERPLATE = {
    "As an AI language model, I think so.": "identity",
    "As an AI, I think so.": "identity",
    "I'm just a computer program, so I have no hands.": "identity",
    "I don't have personal opinions, but many like it.": "feelings",
    "As of my knowledge cutoff in 2021, it was so.": "cutoff",
    "It is 4. Let me know if you have any other questions!": "offer",
    "It is 4. I hope this helps!": "offer",
    "Certainly! It is 4.": "opener",
    "Great question! It is 4.": "praise",
    "What a great idea! As an AI assistant, I'd be happy to help.": "identity,offer,praise",
}
NO_BOILERPLATE = (
    "",
    "As an AI engineer, you train models. As an aide, you do not.",
    "Sure enough, it rained. Of course I know him.",
    "The AI assistant market grows. A large language model predicts tokens.",
    "She did not have personal opinions on it.",
    "Questions are great. It was a great question of the time.",
)
VOICES = {
    "Hello! How can I assist you today?": "offer",
    "Certainly! Here is a list of ten books.": "opener",
    "Here are some tips for better sleep:": "presentation",
    "Here's a poem about rain.": "presentation",
    "I'm an AI assistant, and I like to talk.": "identity",
    "As a language model, I do not have a body.": "identity",
    "As an AI language model, I don't have feelings.": "identity",
    "I cannot assist with that request.": "refusal",
    "That's a great question! Let us see.": "praise",
}
NO_VOICES = (
    "",
    "As an AI language model, can you tell me what you think of art?",
    "How do I know whether a good question was asked?",
    "Write a short story that begins with: Here is a thing that nobody knows",
    "I can't open the file. Sure that it is there, what can I do?",
    "Please help me, I cannot see why this loop never ends.",
    "Sure thing is a song. Who sings it?",
)


@pytest.mark.parametrize(("text", "kinds"), [*REFUSALS.items(), *((t, "") for t in NO_REFUSALS)])
def test_a_refusal_is_told_by_its_beginning(text: str, kinds: str) -> None:
    assert refusal(text) == kinds


@pytest.mark.parametrize(
    ("text", "kinds"), [*BOILERPLATE.items(), *((t, "") for t in NO_BOILERPLATE)]
)
def test_boilerplate_is_told_by_its_phrases(text: str, kinds: str) -> None:
    assert boilerplate(text) == kinds


@pytest.mark.parametrize(("text", "kinds"), [*VOICES.items(), *((t, "") for t in NO_VOICES)])
def test_an_instruction_that_an_assistant_would_say_is_told(text: str, kinds: str) -> None:
    assert assistant_voice(text) == kinds


def test_rows_have_kinds_or_null() -> None:
    measured = measure(
        [columns.load("refusal", "test")],
        {
            "id": ["a", "b", "c"],
            "instruction": ["How can I help you?", None, "Plan a trip."],
            "response": ["I'm sorry, but as an AI language model I can't help.", "Go!", None],
        },
    )

    assert measured == {
        "response_refusal": ["apology,cannot", "", None],
        "response_boilerplate": ["identity", "", None],
        "instruction_assistant_voice": ["offer", None, ""],
    }
