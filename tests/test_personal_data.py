"""Personal data and secrets on a labelled set: what is found, as what, and what is left alone.

Values are invented. Keys are put together here, so that no scanner takes this file for a leak.
"""

import random
import string
from collections import Counter

import pytest

from prequery import columns
from prequery.columns.personal_data import Kind, kinds
from prequery.columns.run import measure

CHANCE = random.Random(5)


def key(start: str, chars: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return start + "".join(CHANCE.choices(alphabet, k=chars))


def pem(name: str) -> str:
    head, foot = (f"-----{word} {name}-----" for word in ("BEGIN", "END"))
    return f"{head}\n{key('', 64)}\n{key('', 64)}\n{foot}"


POSITIVE: dict[str, tuple[Kind, ...]] = {
    "Write to maria.keller+news@posteo.de before Friday.": ("email",),
    "<jan_de_vries@student.uva.nl>": ("email",),
    "mailto:o'brien.k@tcd.ie, cc: office@tcd.ie.": ("email", "email"),
    "Call me on +44 20 7946 1234 after six.": ("phone",),
    "+4915112345678": ("phone",),
    "My number is (312) 867-2009, ask for Lou.": ("phone",),
    "212.736.5000 or 1-800-273-8255": ("phone", "phone"),
    "Tel.: 030 20971234": ("phone",),
    "Phone number: 0171 2345678": ("phone",),
    "我的手机号是 13912345678,请联系我": ("phone",),
    "It was logged from 93.184.216.34 at noon.": ("ip_address",),
    "peer 2a00:1450:4001:0830:0000:0000:0000:200e timed out": ("ip_address",),
    "peer 2a00:1450:4001:830::200e timed out": ("ip_address",),
    "Pay to DE89 3704 0044 0532 0130 00 BIC COBADEFFXXX": ("iban",),
    "IBAN GB29NWBK60161331926819.": ("iban",),
    "NO93 8601 1117 947": ("iban",),
    "card 4539 1488 0343 6467, exp 04/27": ("payment_card",),
    "5425233430109903": ("payment_card",),
    "3742-454554-00126": ("payment_card",),
    key("AWS_ACCESS_KEY_ID=AKIA", 16, string.ascii_uppercase + "234567"): ("api_key",),
    key("token: ghp_", 36): ("api_key",),
    key("github_pat_", 82): ("api_key",),
    key("glpat-", 20): ("api_key",),
    key('openai.api_key = "sk-', 48) + '"': ("api_key",),
    key("sk-proj-", 64): ("api_key",),
    key("STRIPE=sk_live_", 24): ("api_key",),
    key("AIza", 35): ("api_key",),
    key("login(hf_", 34, string.ascii_letters) + ")": ("api_key",),
    key("xoxb-123456789012-", 24): ("api_key",),
    f"Bearer {key('eyJ', 33)}.{key('eyJ', 60)}.{key('', 43)}": ("api_key",),
    pem("RSA PRIVATE " + "KEY"): ("private_key",),
    'key = "' + pem("PRIVATE " + "KEY").replace("\n", "\\n") + '"': ("private_key",),
    "postgres://app:Tr0ub4dor@db.acme-shop.io:5432/main": ("url_credentials",),
    "https://ci:" + key("", 20) + "@git.acme-shop.io/x.git": ("url_credentials",),
}

NEGATIVE = (
    "At 10:30:45 on 2024-01-15 the total was 1,234,567.89.",
    "3.14159265358979323846264338327950288",
    "ISBN 978-3-16-148410-0, doi:10.1000/182",
    "git clone git@github.com:acme/tools.git",
    "npm install react@18.2.0 @types/node@20.1.4",
    '<img src="logo@2x.png" srcset="logo@3x.png">',
    "@app.route('/users/<int:id>')",
    "pip 23.0.1, Windows 10.0.19045, Chrome/120.0.6099.130, version 1.2.3.4, v4.3.2.1",
    'brotli>=1.2.0.2; foo == 1.0.0.4; version="1.0.5.0"',
    "np.array(['+1980-02-29 01:02:03Z']); G1.order() == 19508428800",
    "OID 1.3.6.1.4.1.311.21.20",
    "std::vec::Vec::<u8>::new() and a::b::c::d",
    "MAC 00:1B:44:11:3A:B7",
    "for i in range(1000000000, 9999999999): pass",
    "The loan of 250 300 4000 people; 1 2 3 4 5 6 7 8 9 10 11 12 13",
    "x = 1+12345678 + 2*34567890",
    "Unix time 1700000000, in milliseconds 1700000000000",
    "4539148803436468 fails the checksum; 1234 5678 9012 3456 has no issuer",
    "DE89 3704 0044 0532 0130 01 fails the checksum",
    "UUID 123e4567-e89b-12d3-a456-426614174000",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 5304a88d5b1a4c0f9d7e6b3a2c1f0e9d8c7b6a59",
    ".sk-toggleable__content-collapsed { max-height: 0 }",
    "#sk-container-id-1 div.sk-estimator:hover",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUF\n",
    "http://localhost:8080/a@b and https://site.org/@user/post:1@2",
    "The ratio is 16:9:4:1, the score 3:2:1:0.",
    "Figure 2.3.1.4-b and §1.2.3",
    "Alice met Bob in Paris on 12/05/1998; they paid $1,200.",
)

PLACEHOLDER = (
    "john.doe@example.com",
    "you@mail.example",
    "Call (555) 123-4567.",
    "123-456-7890",
    "212-555-0147",
    "+15005550199",
    "ping 192.168.1.1",
    "http://[::ffff:192.168.0.1]/",
    "dns 8.8.8.8",
    "bind 0.0.0.0",
    "doc 192.0.2.1",
    "4111 1111 1111 1111",
    "4242424242424242",
    "AKIAIOSFODNN7" + "EXAMPLE",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    key("sk_test_", 24),
    "-----BEGIN PRIVATE " + "KEY-----\n...\n",
    "mysql://user:password@localhost/db",
    "redis://:${REDIS_PASSWORD}@cache.acme-shop.io",
    "https://bob:secret1@example.org/",
)


@pytest.mark.parametrize(("text", "expected"), POSITIVE.items())
def test_what_is_somebodys_is_found_as_what_it_is(text: str, expected: tuple[Kind, ...]) -> None:
    assert kinds(text) == list(expected)


@pytest.mark.parametrize("text", NEGATIVE)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize("text", PLACEHOLDER)
def test_what_is_nobodys_is_a_placeholder(text: str) -> None:
    assert kinds(text) == ["placeholder"]


def test_everything_in_one_text_is_found_at_once() -> None:
    found = kinds("\n".join([*POSITIVE, *NEGATIVE, *PLACEHOLDER]))

    expected = Counter(kind for each in POSITIVE.values() for kind in each)
    assert Counter(found) == expected | Counter({"placeholder": len(PLACEHOLDER)})


def test_rows_have_counts_and_kinds_and_never_a_value() -> None:
    secret = key("ghp_", 36)
    said = f"kim@posteo.de, lou@posteo.de, you@example.com, {secret}"
    measured = measure(
        [columns.load("personal_data", "test")],
        {"id": ["a", "b", "c"], "instruction": [said, "", None], "response": ["Hi.", None, secret]},
    )

    assert measured == {
        "instruction_personal_data_count": [2, 0, None],
        "instruction_secret_count": [1, 0, None],
        "instruction_placeholder_count": [1, 0, None],
        "instruction_personal_data_kinds": ["api_key,email,placeholder", "", None],
        "response_personal_data_count": [0, None, 0],
        "response_secret_count": [0, None, 1],
        "response_placeholder_count": [0, None, 0],
        "response_personal_data_kinds": ["", None, "api_key"],
    }
