"""A small artificial language: documents with word frequencies, grammar and facts that a model can learn."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from clbench.rng import derive_seed

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aeiou"
TOPICS = 8
FACTS = 200
SHARE_OF_FACTS = 0.15

Fact = tuple[str, str, str]
"""Subject, relation and object."""


def pick(random: Random, items: Sequence[str]) -> str:
    """One item, all equally likely. Built on `random()`, the one draw that Python keeps equal over versions."""
    return items[int(random.random() * len(items))]


class Zipf:
    """Draws ranks 0..n-1, rank k with probability proportional to 1 / (k + 1)."""

    def __init__(self, n: int) -> None:
        self.cumulated = list(accumulate(1.0 / (k + 1) for k in range(n)))

    def draw(self, random: Random) -> int:
        return bisect(self.cumulated, random.random() * self.cumulated[-1])


def pseudo_words(seed: int, kind: str, n: int, syllables: tuple[int, int], taken: set[str]) -> list[str]:
    """`n` pronounceable words, distinct and not `taken` (to which they are added), the shorter ones first."""
    random = Random(derive_seed(seed, "words", kind))
    words: list[str] = []
    while len(words) < n:
        count = syllables[0] + int(random.random() * (syllables[1] - syllables[0] + 1))
        word = "".join(pick(random, CONSONANTS) + pick(random, VOWELS) for _ in range(count))
        if random.random() < 0.4:
            word += pick(random, "lmnrst")
        if word not in taken:
            taken.add(word)
            words.append(word)
    return sorted(words, key=len)


class WordClass:
    """Words of one part of speech: Zipf over all of them, or over those of the document's topic."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.by_topic = [words[topic::TOPICS] for topic in range(TOPICS)]
        self.all_ranks = Zipf(len(words))
        self.topic_ranks = Zipf(len(words) // TOPICS)

    def draw(self, random: Random, topic: int) -> str:
        if random.random() < 0.5:
            return self.by_topic[topic][self.topic_ranks.draw(random)]
        return self.words[self.all_ranks.draw(random)]


class Language:
    """Grammar, vocabulary and facts of one pseudo-language.

    Sentence -> Fact | NounPhrase VerbPhrase [Adverb] [Conjunction Sentence]
    NounPhrase -> Determiner [Adjective] Noun [Preposition NounPhrase]
    VerbPhrase -> Verb [NounPhrase | Preposition NounPhrase]

    Agreement: a verb and its subject share their number (verb endings -t and -ne, plural nouns in -s, two sets of
    determiners), whatever stands between them. Facts: a fixed table of (subject, relation, object), each pair of
    subject and relation once; they are always told the same way.

    seed: of the language, not of the documents. replaced: share of the open-class words exchanged for new ones.
    reverse_topics: whether the rarest topic becomes the most frequent. share_of_facts: how many of the sentences tell a
    fact.
    """

    def __init__(
        self,
        seed: int,
        replaced: float = 0.0,
        reverse_topics: bool = False,
        share_of_facts: float = SHARE_OF_FACTS,
    ) -> None:
        taken: set[str] = set()
        closed = pseudo_words(seed, "closed", 30, (1, 1), taken)
        self.determiners = (closed[:5], closed[5:10])
        self.prepositions = closed[10:20]
        self.conjunctions = closed[20:24]
        open_words = {
            kind: pseudo_words(seed, kind, n, length, taken)
            for kind, n, length in [
                ("noun", 400, (2, 3)),
                ("verb", 200, (2, 3)),
                ("adjective", 160, (2, 3)),
                ("adverb", 40, (2, 2)),
            ]
        }
        if replaced:
            open_words = {kind: _exchange(seed, kind, words, replaced, taken) for kind, words in open_words.items()}
        self.nouns, self.verbs, self.adjectives, self.adverbs = map(WordClass, open_words.values())
        self.facts = _fact_table(seed, taken)
        self.topic_ranks = Zipf(TOPICS)
        self.reverse_topics = reverse_topics
        self.share_of_facts = share_of_facts

    def document(self, random: Random) -> str:
        """About 400 bytes: 2 to 4 paragraphs of 2 to 5 sentences on one topic."""
        topic = self.topic_ranks.draw(random)
        if self.reverse_topics:
            topic = TOPICS - 1 - topic
        paragraphs = []
        for _ in range(2 + int(random.random() * 3)):
            sentences = [self._sentence(random, topic) for _ in range(2 + int(random.random() * 4))]
            paragraphs.append(" ".join(sentences))
        return "\n".join(paragraphs) + "\n"

    def _sentence(self, random: Random, topic: int) -> str:
        if random.random() < self.share_of_facts:
            return " ".join(self.facts[int(random.random() * len(self.facts))]) + "."
        words: list[str] = []
        self._clause(random, topic, words.append)
        while random.random() < 0.2:
            words.append(pick(random, self.conjunctions))
            self._clause(random, topic, words.append)
        text = " ".join(words)
        return text[0].upper() + text[1:] + "."

    def _clause(self, random: Random, topic: int, say: Callable[[str], None]) -> None:
        plural = random.random() < 0.4
        self._noun_phrase(random, topic, plural, say)
        say(self.verbs.draw(random, topic) + ("ne" if plural else "t"))
        complement = random.random()
        if complement < 0.25:
            say(pick(random, self.prepositions))
        if complement < 0.75:
            self._noun_phrase(random, topic, random.random() < 0.4, say)
        if random.random() < 0.15:
            say(self.adverbs.draw(random, topic))

    def _noun_phrase(self, random: Random, topic: int, plural: bool, say: Callable[[str], None]) -> None:
        say(pick(random, self.determiners[plural]))
        if random.random() < 0.35:
            say(self.adjectives.draw(random, topic))
        say(self.nouns.draw(random, topic) + ("s" if plural else ""))
        if random.random() < 0.15:
            say(pick(random, self.prepositions))
            self._noun_phrase(random, topic, random.random() < 0.4, say)


def drifted(facts: Sequence[Fact], seed: int, slices: int, rate: float) -> list[Fact]:
    """The table of facts that many time slices later: in each, round(rate * n) facts, chosen by key, get another
    object. The facts that change at one rate also change at any larger one."""
    table = list(facts)
    objects = sorted({thing for _, _, thing in facts})
    for number in range(1, slices + 1):
        chosen = sorted(range(len(table)), key=lambda i: derive_seed(seed, "drift", number, i))
        for i in chosen[: round(rate * len(table))]:
            subject, relation, old = table[i]
            others = [thing for thing in objects if thing != old]
            table[i] = (subject, relation, pick(Random(derive_seed(seed, "drift to", number, i)), others))
    return table


def _exchange(seed: int, kind: str, words: list[str], share: float, taken: set[str]) -> list[str]:
    """The words with exactly round(share * n) of them, chosen by key, exchanged for new ones of the same ranks."""
    chosen = sorted(range(len(words)), key=lambda i: derive_seed(seed, "exchange", kind, i))
    chosen = sorted(chosen[: round(share * len(words))])
    fresh = pseudo_words(seed, f"new {kind}", len(chosen), (2, 3), taken)
    changed = list(words)
    for position, word in zip(chosen, fresh, strict=True):
        changed[position] = word
    return changed


def _fact_table(seed: int, taken: set[str]) -> list[Fact]:
    subjects = [word.capitalize() for word in pseudo_words(seed, "subject", 80, (2, 3), taken)]
    relations = pseudo_words(seed, "relation", 8, (2, 2), taken)
    objects = [word.capitalize() for word in pseudo_words(seed, "object", 60, (2, 3), taken)]
    random = Random(derive_seed(seed, "facts"))
    facts: dict[tuple[str, str], str] = {}
    while len(facts) < FACTS:
        facts.setdefault((pick(random, subjects), pick(random, relations)), pick(random, objects))
    return [(subject, relation, thing) for (subject, relation), thing in facts.items()]
