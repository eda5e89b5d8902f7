"""Personal data and secrets in both texts: how many and of which kind, never the value."""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from itertools import chain
from typing import ClassVar, Literal

from prequery.columns.base import Batch, RowColumn, Values, each

Kind = Literal[
    "email",
    "phone",
    "ip_address",
    "iban",
    "payment_card",
    "api_key",
    "private_key",
    "url_credentials",
    "placeholder",
]
"""What is found; a `placeholder` has the form of one of the others and is nobody's."""

SECRETS: frozenset[Kind] = frozenset({"api_key", "private_key", "url_credentials"})


class PersonalData(RowColumn):
    """Personal data and secrets in the instruction and in the response, found by their form.

    `*_personal_data_count` counts e-mail addresses, telephone numbers, public IP addresses, IBANs
    (with country length and checksum) and payment cards (issuer, length and Luhn checksum);
    `*_secret_count` API keys by well-known prefixes, private keys by their PEM header, and URLs
    with a password; `*_placeholder_count` what has such a form and is nobody's: reserved domains
    and addresses, fictional telephone numbers, published test cards, `sk-xxxx`, `user:password@`.
    `*_personal_data_kinds` names all that was found: sorted, with commas, empty where nothing was.
    Null only where the text is.

    A value is never given, only its kind. Names, postal addresses and identity numbers are not
    looked for: they have no form that tells them from other words. A telephone number is one that
    starts with `+`, has the North American form, or follows a word such as "phone" or "tel".

    Source:
        The forms are those of their standards: RFC 2606 and 6761 (names), ISO 13616 (IBAN),
        ISO 7812 (cards), RFC 7468 (PEM). presidio-analyzer looks for more, and needs spaCy; see
        the README for both on one labelled set.
    """

    name = "personal_data"
    hides = True
    version = 1
    reads = ("instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        f"{text}_{field}": dtype
        for text in ("instruction", "response")
        for field, dtype in (
            ("personal_data_count", "int32"),
            ("secret_count", "int32"),
            ("placeholder_count", "int32"),
            ("personal_data_kinds", "string"),
        )
    }

    def compute(self, batch: Batch) -> Values:
        """Look for every kind and count."""
        values: Values = {}
        for text in ("instruction", "response"):
            found = each(kinds, batch[text])
            values |= {
                f"{text}_personal_data_count": [_count(one, _is_personal) for one in found],
                f"{text}_secret_count": [_count(one, SECRETS.__contains__) for one in found],
                f"{text}_placeholder_count": [_count(one, _is_placeholder) for one in found],
                f"{text}_personal_data_kinds": [
                    None if one is None else ",".join(sorted(set(one))) for one in found
                ],
            }
        return values


def kinds(text: str) -> list[Kind]:
    """Return the kind of everything that is found, one after the other."""
    return list(
        chain(
            _emails(text),
            _phones(text),
            _ip_addresses(text),
            _ibans(text),
            _cards(text),
            _api_keys(text),
            _private_keys(text),
            _credentials(text),
        )
    )


def _is_placeholder(kind: Kind) -> bool:
    return kind == "placeholder"


def _is_personal(kind: Kind) -> bool:
    return kind not in SECRETS and kind != "placeholder"


def _count(found: list[Kind] | None, counts: Callable[[Kind], bool]) -> int | None:
    return None if found is None else sum(map(counts, found))


# Every pattern below takes time in proportion to the text, whatever the text: what repeats is
# possessive or short, and a lookbehind lets a run of characters be entered at its start alone.
_EMAIL = re.compile(r"(?<![\w.%+/-])([A-Za-z0-9._%+-]{1,64}+)@([A-Za-z0-9-][A-Za-z0-9.-]*+)")
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json"})
_SERVICES = frozenset({"git", "hg", "svn"})  # git@host:path is an address of software
_RESERVED = frozenset({"example", "test", "invalid", "localhost", "local", "internal"})
_DOCUMENTED = frozenset({"example.com", "example.org", "example.net", "domain.com", "email.com"})


def _emails(text: str) -> Iterator[Kind]:
    if "@" in text:
        # What stands between a URL's password and its host looks like an address.
        text = _CREDENTIALS.sub("://", text)
        for local, domain in _EMAIL.findall(text):
            host = domain.rstrip(".-").lower()
            top = host.rpartition(".")[2]
            dotted = "." in host and ".." not in host and 2 <= len(top) <= 24 and top.isalpha()
            if dotted and top not in _FILES and local not in _SERVICES:
                yield "placeholder" if _is_reserved(host) else "email"


def _is_reserved(host: str) -> bool:
    labels = host.split(".")
    return labels[-1] in _RESERVED or ".".join(labels[-2:]) in _DOCUMENTED


_PHONE = re.compile(
    r"(?<![\w+.,=/-])(?:\+(?![0-9]{4}-[0-9]{2}-)[1-9]|\(?[0-9])"
    r"(?:[ ().-]{0,2}+[0-9]){6,14}+(?![\w-])",
    re.ASCII,
)
# Three numbers with spaces between them are three numbers more often than a telephone's.
_AMERICAN = re.compile(
    r"(?:\+?1[ .-]{1,2})?(?:\([0-9]{3}\)[ .-]{0,2}[0-9]{3}[ .-]|[0-9]{3}([.-])[0-9]{3}\1)[0-9]{4}"
)
_CALLED = re.compile(
    r"(?:\b(?:(?:tele)?(?:phone|fax|fon)|tel|mobile?|cell|whatsapp|handy)\b|手机|电话|手機|電話)"
    r"[^0-9\n]*$"
)
_CALLED_CHARS = 24  # before a number, in which a word may say that it is one to call


def _phones(text: str) -> Iterator[Kind]:
    for found in _PHONE.finditer(text):
        said = found[0]
        digits = "".join(filter(str.isdigit, said))
        if _AMERICAN.fullmatch(said) or (said.startswith("+1") and len(digits) == 11):
            digits = digits[-10:]
            assigned = digits[0] > "1" and digits[3] > "1" and not digits.startswith("555")
            fictional = digits[3:8] == "55501"
            yield "phone" if assigned and not fictional else "placeholder"
        elif said[0] == "+":
            yield "phone"
        else:
            before = text[max(found.start() - _CALLED_CHARS, 0) : found.start()].lower()
            if _CALLED.search(before):
                yield "phone"


_IPV4 = re.compile(r"(?<![\w.-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){3,7}(?![\w:]|\.[0-9])")
# Four numbers with dots between them are also a version or a section.
_NUMBERED = re.compile(r"(?:[=<>~!]=|(?:version|release|section|chapter|figure)[^\w\n]*)\s?$")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})


def _ip_addresses(text: str) -> Iterator[Kind]:
    # Hardly a text has two colons so close together, and looking for that is cheap.
    sixes = _IPV6.finditer(text) if _COLONS.search(text) else ()
    for found in chain(_IPV4.finditer(text), sixes):
        if _NUMBERED.search(text[max(found.start() - 12, 0) : found.start()].lower()):
            continue
        try:
            address = ip_address(found[0])
        except ValueError:
            continue
        own = address.is_global and not address.is_multicast and found[0] not in _RESOLVERS
        yield "ip_address" if own else "placeholder"


_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}[0-9]{2})((?: ?[A-Z0-9]{1,4}){3,8}+)")
# ISO 13616: how many characters an IBAN of each country has.
_IBAN_CHARS = {
    country: chars
    for chars, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FO GL NL"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU"),
        (31, "MT SC"),
        (32, "LC"),
    )
    for country in countries.split()
}


def _ibans(text: str) -> Iterator[Kind]:
    for start, rest in _IBAN.findall(text):
        # Words in capitals may follow, so the country says where it ends.
        account = (start + rest.replace(" ", ""))[: _IBAN_CHARS.get(start[:2], 0)]
        if len(account) == _IBAN_CHARS.get(start[:2]):
            number = "".join(str(int(char, 36)) for char in account[4:] + account[:4])
            if int(number) % 97 == 1:
                yield "iban"


_CARD = re.compile(
    r"(?<![\w.+-])(?:[0-9]{13,19}+"
    r"|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}"
    r"|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}+)(?![\w-]|\.[0-9])",
    re.ASCII,
)
_ISSUED = re.compile(
    r"4(?:.{12}|.{15}|.{18})|5[1-5].{14}|2(?:2[2-9]|[3-6].|7[01]).{13}|2720.{12}|3[47].{13}"
    r"|3(?:0[0-5]|[68].).{11}|6(?:011|4[4-9].|5..).{12}|35.{14}"
)
# Numbers that payment providers publish to test with.
_TEST_CARDS = frozenset(
    {
        "4111111111111111",
        "4242424242424242",
        "4012888888881881",
        "5555555555554444",
        "5105105105105100",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "3530111333300000",
    }
)


def _cards(text: str) -> Iterator[Kind]:
    for found in _CARD.finditer(text):
        digits = found[0].replace(" ", "").replace("-", "")
        if _ISSUED.fullmatch(digits) and _luhn(digits):
            yield "placeholder" if digits in _TEST_CARDS else "payment_card"


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


_API_KEY = re.compile(
    r"(?<![\w-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}+|github_pat_\w{60,255}+|glpat-[\w-]{20,64}+"
    r"|xox[abposr]-[A-Za-z0-9-]{20,255}+"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}+"
    r"|sk-[\w-]{20,255}+"
    r"|AIza[\w-]{35}|hf_[A-Za-z]{34}|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{50,255}+"
    r"|SG\.[\w-]{22}\.[\w-]{43}"
    r"|eyJ[\w-]{10,1024}+\.eyJ[\w-]{10,2048}+\.[\w-]{20,1024}+"
    r")(?![\w-])",
    re.ASCII,
)
_DISTINCT = 10  # characters that a random key has at the least


def _api_keys(text: str) -> Iterator[Kind]:
    for found in _API_KEY.finditer(text):
        key = found[0]
        varied = len(set(key)) >= _DISTINCT and key.lower() != key
        if key.startswith("sk-") and not (varied and any(map(str.isdigit, key))):
            # `sk-` also begins names in style sheets; with x or stars behind it, it is a blank.
            if len(set(key[3:])) <= 3:
                yield "placeholder"
        else:
            blank = "EXAMPLE" in key or "_test_" in key or not varied
            yield "placeholder" if blank else "api_key"


_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
    r"(?P<content>(?:\\[nr]|\s){0,4}+(?:[A-Za-z0-9+/=]{40}|Proc-Type|Version:))?"
)


def _private_keys(text: str) -> Iterator[Kind]:
    if "PRIVATE KEY" in text:
        for found in _PRIVATE_KEY.finditer(text):
            yield "private_key" if found["content"] else "placeholder"


_CREDENTIALS = re.compile(
    r"""://[^\s/:@"'<>]{0,64}+:([^\s/@"'<>]{1,128}+)@(\[|[\w.-]{1,255}+)""", re.ASCII
)
_BLANK_PASSWORD = re.compile(
    r"[${\[(*%]|x+$|\.+$|(?:your|my|db)?[_-]?(?:pass(?:word|wd)?|pwd|pw|secret|token|key)\d{0,3}$|your",
    re.IGNORECASE,
)


def _credentials(text: str) -> Iterator[Kind]:
    if "://" in text:
        for password, host in _CREDENTIALS.findall(text):
            blank = _BLANK_PASSWORD.match(password) or _is_reserved(host.rstrip(".").lower())
            yield "placeholder" if blank else "url_credentials"
