"""The generated domains: equal everywhere, different from one another, and true to their rules."""

from __future__ import annotations

import math
import re
from collections import Counter
from hashlib import sha256
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.streams.generated import DOMAINS, MONTHS, documents, facts_of_month, generate, letter_map
from clbench.streams.generated_code import FUNCTIONS
from clbench.streams.generated_prose import FACTS, Language

SIZE = 60_000
FAR = [name for name in DOMAINS if name not in MONTHS]


def text_of(name: str, **settings: float) -> str:
    return "".join(generate(name, SIZE, **settings))  # type: ignore[arg-type]


def cross_entropy(text: str, model: str) -> float:
    """Nats per character of `text` under the add-one bigram statistics of `model`."""
    pairs, firsts = Counter(pairwise(model)), Counter(model)
    return -sum(math.log((pairs[a, b] + 1) / (firsts[a] + 128)) for a, b in pairwise(text)) / (len(text) - 1)


PINNED = {
    "prose": "c85b645355955ea2",
    "prose2": "b1b5467dca73b1ad",
    "code": "d6d6f3b9e1dbc0a2",
    "math": "33eee974797bed09",
    "cipher": "fc91d39bca5a656a",
    "month1": "ff423e91704d2bfd",
    "month2": "f5250278ab06cf05",
    "month3": "4f430dbee5f1fe77",
    "month4": "b2f9ac113a011c76",
    "month5": "d2672693a4525439",
    "month6": "68193b6b862a8b5f",
}


@pytest.mark.parametrize("name", DOMAINS)
def test_the_text_is_the_same_on_every_machine(name: str) -> None:
    assert sha256(text_of(name).encode()).hexdigest()[:16] == PINNED[name]


@pytest.mark.parametrize("name", DOMAINS)
def test_more_text_begins_with_less_text_and_the_seed_changes_it(name: str) -> None:
    some, more = generate(name, SIZE // 2), generate(name, SIZE)
    assert more[: len(some)] == some
    assert sum(map(len, some)) >= SIZE // 2 > sum(map(len, some[:-1]))
    assert generate(name, SIZE // 2, seed=1) != some
    assert len(set(more)) == len(more)
    assert all(text.isascii() and text.endswith("\n") for text in more)


def test_domains_are_learnable_and_distinct() -> None:
    halves = {name: (text[: SIZE // 2], text[SIZE // 2 :]) for name in FAR if (text := text_of(name))}
    for name, (_, held_out) in halves.items():
        own = cross_entropy(held_out, halves[name][0])
        assert own < math.log(len(set(held_out))) - 0.1
        for other in halves:
            if other != name:
                assert cross_entropy(held_out, halves[other][0]) > own + 0.02, (name, other)


def test_prose2_is_a_weaker_shift_than_code_or_cipher() -> None:
    prose = text_of("prose")
    far = {name: cross_entropy(text_of(name), prose) for name in FAR}
    assert far["prose"] < far["prose2"] < min(far["code"], far["math"], far["cipher"])


def test_an_untouched_alphabet_is_prose() -> None:
    assert generate("cipher", SIZE, kappa=0.0) == generate("prose", SIZE)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_kappa_moves_more_letters(first: float, second: float) -> None:
    low, high = sorted((letter_map(first), letter_map(second)), key=len)
    moved = {letter for letter, image in low.items() if ord(image) != letter}
    assert moved <= {letter for letter, image in high.items() if ord(image) != letter}
    assert len(low) in (2 * round(26 * min(first, second)), len(high))
    assert sorted(low) == sorted(map(ord, low.values()))  # a permutation: nothing is lost


def test_the_share_of_changed_characters_grows_with_kappa() -> None:
    prose = text_of("prose")
    changed = [
        sum(a != b for a, b in zip(prose, text_of("cipher", kappa=kappa), strict=True))
        for kappa in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert changed[0] == 0 and all(a < b for a, b in pairwise(changed))
    letters = sum(map(str.isalpha, prose))
    assert changed[-1] == letters


def test_subject_and_verb_agree() -> None:
    language = Language(seed=0)
    singular, plural = map(set, language.determiners)
    checked = 0
    for text in islice(documents("prose"), 100):
        for sentence in re.split(r"[.\n]+", text):
            words = sentence.lower().split()
            if not words or words[0] not in singular | plural:
                continue
            verb = next(
                i for i, word in enumerate(words) if word in verbs(language) and words[i - 1] not in singular | plural
            )
            assert words[verb].endswith("ne") == (words[0] in plural), sentence
            checked += 1
    assert checked > 200


def verbs(language: Language) -> set[str]:
    return {stem + ending for stem in language.verbs.words for ending in ("t", "ne")}


def test_facts_are_told_the_same_way_each_time() -> None:
    facts = Language(seed=0).facts
    assert len(facts) == FACTS == len({(subject, relation) for subject, relation, _ in facts})
    text = "".join(generate("prose", 400_000))
    known = {(subject, relation): thing for subject, relation, thing in facts}
    told = re.findall(r"\b([A-Z]\w+) (\w+) ([A-Z]\w+)\.", text)
    assert len(told) > 1000 and all(known[subject, relation] == thing for subject, relation, thing in told)
    assert set(known) == {(subject, relation) for subject, relation, _ in told}


@pytest.mark.parametrize(("month", "drift"), [(1, 0.0), (1, 0.25), (2, 0.1), (5, 1.0)])
def test_each_month_changes_the_given_share_of_the_facts(month: int, drift: float) -> None:
    before, after = facts_of_month(month, drift), facts_of_month(month + 1, drift)
    assert [fact[:2] for fact in before] == [fact[:2] for fact in after]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == round(drift * FACTS)


def test_more_drift_changes_the_same_facts_and_more() -> None:
    first, few, many = facts_of_month(1, 0), facts_of_month(2, 0.1), facts_of_month(2, 0.4)
    changed = [{i for i in range(FACTS) if table[i] != first[i]} for table in (few, many)]
    assert changed[0] < changed[1] and all(few[i] == many[i] for i in changed[0])
    assert first == Language(seed=0).facts == facts_of_month(6, 0)


def test_a_month_tells_its_own_facts_in_half_of_its_sentences() -> None:
    text = "".join(generate("month4", 100_000, drift=0.5))
    told = re.findall(r"\b([A-Z]\w+) (\w+) ([A-Z]\w+)\.", text)
    assert len(told) > 1000 and set(told) <= set(facts_of_month(4, 0.5))
    assert not set(told) <= set(facts_of_month(3, 0.5))
    assert len(told) / text.count(".") == pytest.approx(0.5, abs=0.03)


def test_half_of_the_vocabulary_of_prose2_is_new() -> None:
    first, second = Language(seed=0), Language(seed=0, replaced=0.5)
    for kind in ("nouns", "verbs", "adjectives", "adverbs"):
        old, new = getattr(first, kind).words, getattr(second, kind).words
        assert sum(a == b for a, b in zip(old, new, strict=True)) == len(old) // 2
        assert not (set(new) - set(old)) & set(old) and len(set(new)) == len(new)


def test_arithmetic_is_true() -> None:
    lines = text_of("math").split()
    assert len(lines) > 1000
    for line in lines:
        numbers = [int(number) for number in re.findall(r"\d+", line)]
        if "%" in line:
            left, right, modulus, result = numbers
            assert line == f"{left}*{right}%{modulus}={result}" and left * right % modulus == result
        else:
            left, right, result = numbers
            assert line == f"{left}+{right}={result}" and left + right == result


def test_code_binds_names_before_using_them_and_nests_brackets() -> None:
    deepest = 0
    for program in generate("code", SIZE):
        scopes: list[set[str]] = [set()]
        arity: dict[str, int] = {}
        for line in program.splitlines():
            body = line.strip()
            if body == "}":
                scopes.pop()
            assert line.startswith("  " * (len(scopes) - 1)) and not line[2 * (len(scopes) - 1) :].startswith(" ")
            if header := re.fullmatch(r"fn (\w+)\((.*)\) \{", body):
                scopes.append(set(header[2].split(", ")))
                arity[header[1]] = len(header[2].split(", "))
                continue
            read = body.split("=", 1)[1] if re.match(r"(let )?\w+ = ", body) else body
            for name in re.findall(r"[a-z]\w*", read):
                if name in FUNCTIONS:
                    (call,) = re.findall(rf"{name}\(([^)]*)\)", read)[:1]
                    assert len(call.split(", ")) == arity[name]
                elif name not in ("if", "while", "return"):
                    assert any(name in scope for scope in scopes), (name, program)
            if bound := re.match(r"let (\w+) = ", body):
                scopes[-1].add(bound[1])
            if body.endswith("{"):
                scopes.append(set())
            deepest = max(deepest, len(scopes) - 1)
        assert len(scopes) == 1
    assert deepest == 3


def test_an_unknown_domain_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean prose"):
        generate("prsoe", 10)
