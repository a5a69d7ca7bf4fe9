"""Which language a text is in, as far as its script and its commonest words say so for sure.

What is asked here is only whether a prompt and a description are in different languages. A handful of words that every
text uses answers that without a model of each language, and says nothing where it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SCRIPTS = {
    "latin": r"A-Za-z\u00AA\u00BA\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F\u1E00-\u1EFF",
    "greek": r"\u0370-\u03FF\u1F00-\u1FFF",
    "cyrillic": r"\u0400-\u052F",
    "armenian": r"\u0531-\u058F",
    "hebrew": r"\u05D0-\u05EA",
    "arabic": r"\u0620-\u064A\u0671-\u06D3\u0750-\u077F",
    "indic": r"\u0900-\u0DFF",
    "thai": r"\u0E01-\u0E4E",
    "georgian": r"\u10A0-\u10FF",
    "hangul": r"\u1100-\u11FF\uAC00-\uD7A3",
    "chinese or japanese": r"\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF",
}
_LETTERS = {script: re.compile(f"[{letters}]") for script, letters in _SCRIPTS.items()}
_ASCII = re.compile("[\x00-\x7f]+")
_NO_ASCII_LETTERS = re.compile("[^A-Za-z]+")

# Words that texts about anything use, and those that ask for a description.
_WORDS = {
    "english": "the a an of and is are with on in to it its at by from that this which there has have as for or "
    "be was his her their while into behind against under over near other one two both not but "
    "describe image what",
    "german": "der die das und ist ein eine einen einem einer mit auf im in den dem von zu es sind sich aus "
    "vor an am nicht auch wird hat haben hinter unter neben links rechts dieses bild beschreibe "
    "beschreiben bitte was",
    "french": "le la les un une des du de et est sont avec sur dans en au aux par pour qui que il elle ce "
    "cette ses son sa se derrière devant sous plus pas décris décrivez image détail quoi",
    "spanish": "el la los las un una unos de del y es está están con en sobre que se su sus por para al hay "
    "como más lo tiene detrás esta este imagen describe describa qué",
    "portuguese": "o a os as um uma de do da dos das e é está estão com em no na nos nas que se por para ao há "
    "como mais seu sua tem atrás esta este imagem descreva não",
    "italian": "il lo la i gli le un una uno di del della dei delle e è sono con su sul sulla in nel nella che "
    "si per al alla da dal non come più ha questa questo immagine descrivi cosa",
    "dutch": "de het een en van is zijn met op in te dat die voor aan er naar door bij uit niet ook wordt "
    "heeft onder achter naast deze dit afbeelding beschrijf wat",
    "scandinavian": "och en ett är med på av som den det i till för har inte sig från över under bakom vid og et er "
    "af til fra ikke ligger står billedet bilden bildet beskriv",
    "polish": "i w na z jest są się to nie do od po za przez który która które jego jej oraz przed obok ten ta "
    "te obraz opisz co",
    "czech": "a v na z je jsou se to s do od po za který která které jeho její před vedle ten ta tento "
    "obrázek popiš co",
    "romanian": "și si un o de la pe cu în este sunt din care ce nu se al ale lui ei această imagine descrie",
    "turkish": "ve bir bu ile için üzerinde olan var de da olarak gibi çok görüntüyü resmi açıkla tanımla arka",
    "hungarian": "a az egy és van vannak nem hogy is ez meg mint vagy alatt mögött előtt kép képet írd le",
    "finnish": "ja on ovat se ei että joka jossa kanssa alla päällä takana edessä tämä kuva kuvaa kuvassa",
    "indonesian": "yang dan di dengan sebuah seorang ini itu pada dari untuk ke adalah tidak atas latar gambar "
    "jelaskan",
    "vietnamese": "một và của có trên với là trong những các được cho này đang màu người ảnh mô tả hình",
}
_FUNCTION_WORDS = {language: frozenset(listed.split()) for language, listed in _WORDS.items()}
_ANY_FUNCTION_WORD = frozenset().union(*_FUNCTION_WORDS.values())
# Words of the one that are no words of the other.
_ONLY = {
    (one, other): listed - _FUNCTION_WORDS[other]
    for one, listed in _FUNCTION_WORDS.items()
    for other in _FUNCTION_WORDS
}

# A prompt that names one of these, or says "language", may want an answer in it. (One that says "English" is nearly
# always in English.)
_NAMES = (
    "language languages translate arabic bengali chinese mandarin cantonese czech danish dutch finnish french german "
    "greek hebrew hindi hungarian indonesian italian japanese korean norwegian persian polish portuguese romanian "
    "russian spanish swedish thai turkish ukrainian urdu vietnamese deutsch deutscher englisch englische englisches "
    "englischer sprache français française anglais anglaise langue español inglés idioma italiano inglese lingua "
    "português inglês língua engels nederlands taal engelska svenska język angielsku polsku английском русском"
)
_LANGUAGE_NAMES = frozenset(_NAMES.split())

_LEAST_LETTERS = 12
_LEAST_WORDS = 12
_LEAST_SHARE = 0.15


@dataclass(frozen=True)
class Language:
    """What is known of a language: its script, and its name where its words gave it away."""

    script: str
    name: str | None


def language_of(text: str, words: Sequence[str]) -> Language | None:
    """Return the language of a prompt; None where not even its script is clear.

    Args:
        text: the prompt.
        words: its words in small letters.
    """
    script = _script_of(text)
    if script is None:
        return None
    hits = sorted(
        ((sum(word in listed for word in words), name) for name, listed in _FUNCTION_WORDS.items()), reverse=True
    )
    (most, best), (second, _) = hits[:2]
    return Language(script, best if script == "latin" and most > second else None)


def names_a_language(words: Sequence[str]) -> bool:
    """Return whether a prompt speaks of languages, so that the answer may be in another one."""
    return not _LANGUAGE_NAMES.isdisjoint(words)


def differs(text: str, words: Sequence[str], expected: Language) -> bool:
    """Return whether a text is for sure in another language; short texts never are.

    Args:
        text: the answer.
        words: its words in small letters.
        expected: the language of the prompt.
    """
    script = "latin" if text.isascii() else _script_of(text)
    if script != expected.script:
        return script is not None and len(_LETTERS[script].findall(text)) >= _LEAST_LETTERS
    if expected.name is None or len(words) < _LEAST_WORDS:
        return False
    enough = _LEAST_SHARE * len(words)
    if sum(map(_FUNCTION_WORDS[expected.name].__contains__, words)) >= 2 * enough:
        return False
    common = [word for word in words if word in _ANY_FUNCTION_WORD]
    return any(_outweighs(common, name, expected.name, enough) for name in _FUNCTION_WORDS if name != expected.name)


def _outweighs(common: Sequence[str], name: str, expected: str, enough: float) -> bool:
    theirs = sum(map(_ONLY[name, expected].__contains__, common))
    return theirs >= max(5, enough) and theirs >= 4 * sum(map(_ONLY[expected, name].__contains__, common))


def _script_of(text: str) -> str | None:
    """Return the script of more than half of the letters that belong to any."""
    beyond_ascii = _ASCII.sub("", text)
    counts = {script: len(letters.findall(beyond_ascii)) for script, letters in _LETTERS.items()}
    counts["latin"] += len(_NO_ASCII_LETTERS.sub("", text))
    most = max(counts, key=counts.__getitem__)
    return most if 2 * counts[most] > sum(counts.values()) else None
