"""Whether an answer refuses to describe, or says that it got no image: the stock phrases of models, in ten languages.

A description may well speak of what cannot be seen, or of a sign that says "Sorry". So a refusal must stand at the
beginning, and next to nothing may be said besides. What a program says where there is no answer ("N/A", "Error: could
not load image") must be a whole sentence: in a description, such words go on.
"""

from __future__ import annotations

import re

_START = r"[\s*_#>-]*"
_IMAGE = r"(?:images?|pictures?|photos?|photographs?|attachments?|files?|visual content)\b"
_CANNOT = r"(?:can'?t|cannot|can not|won'?t|will not|couldn'?t|could not)"
_I_CANNOT = rf"i (?:really |simply |just )?{_CANNOT} (?:\w+ )?"
_I_AM = r"i(?:'?m| am) (?:\w+ly |also |so )?"
_APOLOGY = r"(?:sorry|i apologi[sz]e|my apologies|apologies)"

# What a refusal begins with, in small letters.
_PHRASES = (
    rf"{_I_AM}sorry\s*(?:[,.!;:]|but\b|for\b|that\b|i\b|$)",
    rf"(?:{_APOLOGY}|unfortunately|regrettably)\b[^.!?\n]{{0,50}}?\b(?:i {_CANNOT}|{_I_AM}(?:unable|not))\b",
    rf"{_APOLOGY}\s*(?:[,.!;:]\s*)?(?:but\b|$)",
    rf"{_I_CANNOT}(?:assist|help|provide|describe|process|view|fulfil|comply|discuss|generate|answer|analy[sz]e|engage)",
    rf"{_I_CANNOT}(?:access|open|share|support|offer|create|complete|do (?:that|this))\b",
    rf"{_I_CANNOT}(?:identify|recogni[sz]e|determine|say|tell you|name)\b"
    r"[^.!?\n]{0,30}\b(?:people|persons?|individuals?|who|someone|anyone|faces?|identit)",
    rf"{_I_CANNOT}(?:see|view|display) (?:the |this |that |any |your |an )?{_IMAGE}",
    rf"{_I_AM}(?:unable|not (?:able|allowed|permitted|designed|equipped|comfortable))\b",
    rf"{_I_AM}(?:just |only )?an? (?:[\w-]+ ){{0,3}}?(?:ai|artificial intelligence|language model)\b",
    r"as an? (?:[\w-]+ ){0,3}?(?:ai|artificial intelligence|language model|assistant|chatbot|text-based)\b",
    r"i (?:don'?t|do not) (?:have the (?:ability|capability|capacity)|feel comfortable)",
    r"i (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)",
    r"(?:the|this|your) (?:request|content|image|prompt)\b[^.!?\n]{0,40}(?:violat|goes against|flagged)[^.!?\n]{0,60}"
    r"(?:polic|guideline|filter|safety)",
    # No image arrived.
    rf"i (?:don'?t|do not) (?:\w+ly )?(?:see|have) (?:an?|any|the|access to)\b[^.!?\n]{{0,20}}{_IMAGE}",
    rf"(?:it (?:seems|looks|appears)(?: like| that)? )?(?:there (?:is|was) )?no {_IMAGE} (?:\w+ ){{0,2}}?"
    r"(?:provided|attached|uploaded|included|shared)",
    r"it (?:seems|looks|appears)(?: like| that)? you (?:haven'?t|have not|didn'?t|did not)\b[^.!?\n]{0,30}" + _IMAGE,
    rf"please (?:upload|provide|share|attach|send) (?:the |an? |your )?{_IMAGE}",
    # German, Spanish, French, Italian, Portuguese, Dutch, Russian, Chinese, Japanese, Korean.
    r"(?:es )?tut mir (?:sehr )?leid\b",
    r"(?:leider )?(?:kann ich|ich kann)\b[^.!?\n]{0,40}\b(?:nicht|keine)\b[^.!?\n]{0,30}"
    r"(?:helfen|beschreiben|identifizieren|erkennen)",
    r"(?:lo siento|lamento|disculpa|perdón)\b[^.!?\n]{0,20}\bno (?:puedo|es posible)",
    r"no puedo (?:ayudar|identificar|asistir|describir|ver la imagen|proporcionar)",
    r"(?:je suis )?(?:désolée?|navrée?)\b[^.!?\n]{0,20}\bje ne (?:peux|suis)",
    r"je ne (?:peux|suis) pas (?:en mesure |capable )?(?:d'|de )?(?:vous )?(?:aider|identifier|décrire|fournir|voir)",
    r"mi dispiace\b[^.!?\n]{0,20}\bnon (?:posso|sono)",
    r"non posso (?:aiutar|identificare|descrivere|fornire|assister)",
    r"(?:sinto muito|(?:me )?desculpe|lamento)\b[^.!?\n]{0,20}\bnão (?:posso|consigo)",
    r"não (?:posso|consigo) (?:ajudar|identificar|descrever|fornecer|ver a imagem)",
    r"(?:het spijt me|sorry)\b[^.!?\n]{0,20}\bik kan\b",
    r"(?:извините|простите|к сожалению)\b[^.!?\n]{0,20}\bя не (?:могу|в состоянии)",
    r"я не могу (?:помочь|определить|описать|идентифицировать)",
    r"(?:很|非常)?(?:抱歉|对不起|對不起)[，,。！\s]",
    r"我(?:无法|不能|無法)(?:协助|帮助|提供|识别|描述|查看|看到|協助|幫助|識別)",
    r"(?:大変)?申し訳(?:ありません|ございません)",
    r"죄송(?:합니다|하지만|해요)",
)
# What a program, or a model in its place, says where there is no answer, in small letters; whole sentences.
_DO = r"(?:describe|process|load|open|read|view|see|access|display|analy[sz]e|decode|render|retrieve|identify|find)"
_DONE = (
    r"(?:described|processed|loaded|opened|read|viewed|seen|accessed|displayed|analy[sz]ed|decoded|rendered|retrieved"
    r"|identified|found)"
)
_THE_IMAGE = rf"(?:(?:the|this|that|your|an?|any|input|provided|given) ){{0,2}}{_IMAGE}"
_TAIL = r"(?: (?:file|data|content|properly|correctly|in detail|at this time|at the moment|right now|here))?"
_NOTHING_SAID = (
    r"n/a|none|null|nil|nan|undefined|i refuse|[<\[(]image",
    rf"no (?:{_IMAGE}|description|caption|answer|response)(?: (?:is |was )?(?:available|found|possible|given))?",
    rf"(?:{_THE_IMAGE}|(?:the )?description) (?:is |was )?(?:not (?:available|found|provided)|unavailable|missing)",
    rf"(?:unable to|not able to|failed to|{_CANNOT}) {_DO} {_THE_IMAGE}{_TAIL}",
    rf"{_THE_IMAGE} (?:{_CANNOT} be|(?:is|was) unable to be|failed to be) {_DONE}{_TAIL}",
    rf"{_THE_IMAGE} failed to (?:load|open|display|render)",
    rf"(?:an )?(?:error|failure) (?:while |when |in )?(?:loading|processing|reading|opening|decoding) {_THE_IMAGE}",
)
# What comes around a refusal and says nothing about an image.
_COURTESIES = (
    r"if (?:you|there)|please|let me know|feel free|is there (?:any|some)|how (?:can|may|else)",
    r"i(?:'d| would) be (?:happy|glad)|i can (?:help|assist|provide|describe|try|offer|only|still|instead)|i hope",
    r"i(?:'m| am) (?:here|happy|designed)|you (?:can|could|may|might)|my (?:guidelines|policies|purpose|training)",
    r"thank|hello|hi\b|instead|(?:would|can|could) you|(?:error|exception)\s*(?::|$)",
)
_REFUSAL = re.compile(f"{_START}(?:{'|'.join(_PHRASES)})")
_NO_ANSWER = re.compile(rf"{_START}(?:{'|'.join(_NOTHING_SAID)})[\W_]*")
_COURTESY = re.compile(f"{_START}(?:{'|'.join(_COURTESIES)})")
_PIECES = re.compile(r"(?<=[.!?。！？])\s*|\n+|:\s|\b(?:but|however)\b,?\s*")
_WORD = re.compile(r"\w+")
_APOSTROPHES = str.maketrans("’‘ʼ`", "''''")

_LONGEST = 2000
_ENOUGH_WORDS = 12
_FEW_WORDS = 4


def is_refusal(text: str) -> bool:
    """Return whether a text opens with a refusal, after courtesies at most, and then says less than a dozen words.

    Of a sentence that no person says ("N/A"), less than four words may follow.
    """
    start = text[:_LONGEST].lower().translate(_APOSTROPHES)
    if not (_REFUSAL.match(start) or _COURTESY.match(start) or _NO_ANSWER.match(start)):
        return False
    enough, content = 0, 0
    for piece in _PIECES.split(start):
        if _REFUSAL.match(piece):
            enough = _ENOUGH_WORDS
        elif _NO_ANSWER.fullmatch(piece):
            enough = max(enough, _FEW_WORDS)
        elif not _COURTESY.match(piece) and _WORD.search(piece):
            if not enough:
                return False
            content += len(_WORD.findall(piece))
    return content < enough
