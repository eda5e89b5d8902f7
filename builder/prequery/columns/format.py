"""What both texts are made of besides prose, and whether they end where they should."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from prequery.columns.base import Batch, RowColumn, Values, each


@dataclass(frozen=True)
class Shape:
    r"""Markdown and LaTeX in one text, and how it ends.

    Args:
        headings: Lines that start with one to six `#` and a space.
        code_blocks: Fences of three or more backticks or tildes that were opened.
        code_languages: What the fences name: in lower case, sorted, with commas.
        list_items: Lines that start with a bullet or a number.
        tables: Delimiter rows of tables, such as `|---|---|`.
        formulas: LaTeX between dollars, in `\(...\)`, `\[...\]`, or an environment.
        ends_with_colon: The last character is a colon, emphasis aside.
        unfinished: Why it seems to break off, with commas: `code_fence` (the last one is open),
            else of the last paragraph `bracket` (one is open), `quote` (one is open) and `sentence`
            (its last line is prose without a sentence's end, and no signature). Empty: it does not.
    """

    headings: int
    code_blocks: int
    code_languages: str
    list_items: int
    tables: int
    formulas: int
    ends_with_colon: bool
    unfinished: str


_DTYPES = {int: "int32", str: "string", bool: "bool"}


class Format(RowColumn):
    """Markdown, code, LaTeX and the ending of the instruction and of the response.

    The fields of `Shape`, for either text. All but code blocks is looked for outside of them.
    Lines in setext form, indented code and HTML are not recognised. An instruction often has no
    sentence's end and is complete all the same: "write a poem about rain". Null only where the
    text is.
    """

    name = "format"
    version = 1
    reads = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        f"{text}_{field.name}": _DTYPES[field.type]  # type: ignore[index]
        for text in ("instruction", "response")
        for field in fields(Shape)
    }

    def compute(self, batch: Batch) -> Values:
        """Look at every text once."""
        values: Values = {name: [] for name in self.features}
        for text in ("instruction", "response"):
            for found in each(shape, batch[text]):
                told = dict.fromkeys(_NAMES) if found is None else asdict(found)
                for name, value in told.items():
                    values[f"{text}_{name}"].append(value)
        return values


_NAMES = [field.name for field in fields(Shape)]

# Possessive or short wherever something repeats: no text makes these slow.
_FENCE = re.compile(r"^[ \t]{0,12}+(`{3,}+|~{3,}+)[ \t]{0,9}+([^`\n]*+)$", re.MULTILINE)
_LANGUAGE = re.compile(r"\{?\.?([\w+#-]{1,20}+)(?![\w+#-])")
# A newline is found five times as fast as the start of a line is.
_HEADING = re.compile(r"\n {0,3}+#{1,6}+[ \t]")
_LIST_ITEM = re.compile(r"\n[ \t]{0,12}+(?:[-*+•]|[0-9]{1,3}+[.)])[ \t]{1,9}+\S")
_TABLE = re.compile(
    r"\n[ \t]{0,3}+\|?(?:[ \t]*+:?-++:?[ \t]*+\|)++(?:[ \t]*+:?-++:?)?[ \t]*+$", re.MULTILINE
)
_INLINE_FORMULA = re.compile(r"(?<![\\$\w])\$(?![\s$])[^$\n]{1,200}+(?<![\s\\])\$(?![\w$])")
_FORMULA_MARK = re.compile(r"\$\$|\\[()[\]]|\\(?:begin|end)\{[a-z]{1,12}+\*?\}")
_CLOSES = {"$$": "$$", "\\(": "\\)", "\\[": "\\]"}


def shape(text: str) -> Shape:
    """Measure one text."""
    prose, languages, is_open = _without_code(text)
    lines = f"\n{prose}"
    marked = "$" in prose or "\\" in prose
    return Shape(
        headings=len(_HEADING.findall(lines)) if "#" in prose else 0,
        code_blocks=len(languages),
        code_languages=",".join(sorted(set(languages) - {""})),
        list_items=len(_LIST_ITEM.findall(lines)),
        tables=len(_TABLE.findall(lines)) if "|" in prose else 0,
        formulas=_formulas(prose) if marked else 0,
        ends_with_colon=text.rstrip(_BLANK + "*_").endswith((":", "\N{FULLWIDTH COLON}")),
        unfinished="code_fence" if is_open else ",".join(_missing(prose)),
    )


def _without_code(text: str) -> tuple[str, list[str], bool]:
    """Return the text with a mark for each code block, their languages, whether one is open.

    A fence closes with as many or more of the same character and nothing behind them.
    """
    if "```" not in text and "~~~" not in text:
        return text, [], False
    prose: list[str] = []
    languages: list[str] = []
    fence, start = "", 0
    for found in _FENCE.finditer(text):
        marks, named = found.groups()
        if not fence:
            language = _LANGUAGE.match(named)
            languages.append(language[1].lower() if language else "")
            prose.append(text[start : found.start()])
            fence = marks
        elif marks.startswith(fence) and not named.strip():
            prose.append(_CODE)
            fence, start = "", found.end()
    return "".join(prose) + ("" if fence else text[start:]), languages, bool(fence)


def _formulas(prose: str) -> int:
    """Count what is opened and closed; inside of a formula nothing else opens."""
    count, closing = len(_INLINE_FORMULA.findall(prose)), ""
    for found in _FORMULA_MARK.finditer(prose):
        mark = found[0]
        if closing:
            if mark == closing:
                count, closing = count + 1, ""
        elif mark.startswith("\\begin"):
            closing = mark.replace("begin", "end")
        else:
            closing = _CLOSES.get(mark, "")
    return count


_BLANK = " \t\r\n\f\v\u00a0\u3000"
_CODE = "\ufffc"  # OBJECT REPLACEMENT CHARACTER, in place of a code block
_LAST_CHARS = 4000  # of a paragraph that is looked at
_PARAGRAPHS = re.compile(r"\n[ \t]*+\n")
# Inline code, formulas and emoticons: their brackets and quotes are none of the text's.
_ASIDE = re.compile(
    rf"`[^`\n]{{1,400}}+`|\$\$[^$]{{1,400}}+\$\$|{_INLINE_FORMULA.pattern}"
    r"|\\[(\[].{1,400}?\\[)\]]|[:;]-?[()]",
    re.DOTALL,
)
_OPENING = frozenset("([{\uff08\u300c\u300e\u3010\u300a")
_BRACKET = re.compile(r"[()\[\]{}\uff08\uff09\u300a-\u300f\u3010\u3011]")
_SIGNED = re.compile(r",[ \t]*+\n\s*+\S++(?:[ \t]\S++){0,3}+$")  # Best regards, Jamie
_INCHES = re.compile(r'[0-9]"')
# Sentence ends of Latin, CJK, Arabic, Urdu, Devanagari, Armenian, Ethiopic, Burmese and Khmer.
_ENDS = (
    *(".", "!", "?", "\u2026", "\u203d", "\u3002", "\uff01", "\uff1f", "\uff0e"),
    *("\u061f", "\u06d4", "\u0964", "\u0965", "\u0589", "\u1362", "\u104b", "\u17d4"),
)
# Closing quotes and brackets, marks of emphasis, and what joins or varies emoji.
_AFTER_END = _BLANK + "\"'*_`)]}>~\u201d\u2019\u00bb\u300d\u300f\uff09\u3011\u300b\u200d\ufe0f"
_NOT_PROSE = re.compile(
    rf"[ \t]{{0,12}}+(?:[-*+•][ \t]|[0-9]{{1,3}}+[.)][ \t]|\#{{1,6}}+[ \t]|\||{_CODE}|-{{3,}}+$)"
)


def _missing(prose: str) -> list[str]:
    """Say what the last paragraph lacks."""
    whole = prose.rstrip(_BLANK)
    if not whole:
        return []
    start = 0
    for found in _PARAGRAPHS.finditer(whole, max(len(whole) - _LAST_CHARS, 0)):
        start = found.end()
    paragraph = whole[max(start, len(whole) - _LAST_CHARS) :]
    bare = _ASIDE.sub(" ", paragraph)
    missing = ["bracket"] if _is_bracket_open(bare) else []
    straight = bare.count('"')
    is_odd = straight % 2 and (straight - len(_INCHES.findall(bare))) % 2
    if is_odd or bare.count("\u201c") > bare.count("\u201d"):
        missing.append("quote")
    last = whole.rpartition("\n")[2]
    if not _NOT_PROSE.match(last) and not _ends(whole) and not _SIGNED.search(whole[-80:]):
        missing.append("sentence")
    return missing


def _is_bracket_open(bare: str) -> bool:
    depth = 0
    for bracket in _BRACKET.findall(bare):
        depth = max(depth + (1 if bracket in _OPENING else -1), 0)
    return depth > 0


def _ends(whole: str) -> bool:
    """Tell a sentence's end, behind closing marks and emoji; a formula ends one too."""
    end = whole[-40:].rstrip(_AFTER_END)
    while end and ord(end[-1]) >= 0x2190 and not end[-1].isalpha() and end[-1] not in _ENDS:
        end = end[:-1].rstrip(_AFTER_END)
    return not end or end.endswith(_ENDS) or whole.endswith(("$", "\\]", "\\)"))
