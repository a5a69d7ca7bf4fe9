"""Whether an answer is only a refusal in English, or a placeholder for no answer ("N/A").

Every sentence must be a refusal or a courtesy, so that no description is taken for one.
"""

from __future__ import annotations

import re

_IMAGE = r"(?:images?|pictures?|photos?|photographs?|attachments?|files?)\b"
_ANY_IMAGE = rf"(?:(?:the|this|that|your|an?|any) )?{_IMAGE}"
_DO = r"(?:describ|process|load|open|read|view|access|display|analy[sz]|see|retriev)(?:e|ed|n)?"
_CANNOT = r"(?:can'?t|cannot|can not|won'?t|will not|could(?: not|n'?t))"
_I_AM = r"i(?:'?m| am) (?:just |only )?"
_SORRY = rf"(?:(?:{_I_AM})?(?:so |very )?sorry|i apologi[sz]e|(?:my )?apologies|unfortunately|regrettably)"
_PEOPLE = r"(?:\w+ ){0,3}?(?:people|persons?|individuals?|who|someone|anyone|faces?)\b"

# Beginnings of the sentences of a refusal, in lower case.
_BEGINNINGS = (
    rf"i {_CANNOT} (?:assist|help|provide|describe|process|fulfil|comply|discuss|satisfy|answer|analy[sz]e)",
    rf"i {_CANNOT} (?:(?:see|view|access|open) {_ANY_IMAGE}|(?:identify|recogni[sz]e|name) {_PEOPLE})",
    rf"{_I_AM}(?:unable to|not (?:able|allowed|permitted|comfortable))\b",
    rf"(?:{_I_AM}|as )an? (?:[\w-]+ ){{0,3}}?(?:ai|language model|assistant)\b",
    r"i (?:must|have to|refuse to|need to) (?:respectfully )?(?:decline|refuse)",
    rf"i (?:don'?t|do not) (?:see|have) (?:an?|any|the|access to) {_IMAGE}",
    rf"(?:it (?:seems|looks|appears) (?:like |that )?)?(?:there is )?no {_IMAGE} (?:was |is )?(?:provided|attached)",
)
# Whole sentences of one.
_WHOLE = (
    rf"{_SORRY}|i refuse|n/a|none|null|nil|nan|undefined|\[image\]?",
    rf"(?:no )?(?:{_ANY_IMAGE}|description)(?: is| was)? (?:not )?(?:available|found)|no (?:{_IMAGE}|description)",
    rf"(?:error\W+)?(?:unable to|failed to|{_CANNOT}) {_DO} {_ANY_IMAGE}(?: file)?|{_ANY_IMAGE} {_CANNOT} be {_DO}",
)
_COURTESIES = (
    r"if (?:you|there)|please|let me know|feel free|how (?:can|may) i|thank|hello|hi\b|(?:would|can|could) you"
    r"|i(?:'d| would) be (?:happy|glad)|i can (?:help|assist|try|only)"
)
_REFUSAL = re.compile(rf"(?:{_SORRY}\W+)?(?:{'|'.join(_BEGINNINGS)})|(?:{'|'.join(_WHOLE)})\W*\Z")
_COURTESY = re.compile(_COURTESIES)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+|\b(?:but|however)\b")
_APOSTROPHES = str.maketrans("’‘ʼ`", "''''")
_LONGEST = 2000


def is_refusal(text: str) -> bool:
    """Return whether a text refuses to describe, or says that there is no image or no answer, and nothing else."""
    if len(text) > _LONGEST:
        return False
    sentences = [part.lstrip(" \t*_#>,-") for part in _SENTENCES.split(text.lower().translate(_APOSTROPHES))]
    refusing = [sentence for sentence in sentences if _REFUSAL.match(sentence)]
    return bool(refusing) and all(
        sentence in refusing or _COURTESY.match(sentence) for sentence in sentences if re.search(r"\w", sentence)
    )
