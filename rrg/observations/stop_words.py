"""English stop words of the n-gram pipeline (spec cmeaa §5b, step 4): the 179 of NLTK's list, and `xx`, a blanked-out word.

The released n-gram lists depend on exactly these words: they decide which ends of a phrase are stripped.
"""

from __future__ import annotations

_PRONOUNS = """
    i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his himself she
    she's her hers herself it it's its itself they them their theirs themselves what which who whom this that that'll these those
"""
_VERBS = """
    am is are was were be been being have has had having do does did doing can will should should've don don't ain aren aren't
    couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't haven haven't isn isn't ma mightn mightn't mustn mustn't
    needn needn't shan shan't shouldn shouldn't wasn wasn't weren weren't won won't wouldn wouldn't
"""
_PARTICLES = """
    a an the and but if or because as until while of at by for with about against between into through during before after above
    below to from up down in out on off over under again further then once here there when where why how all any both each few
    more most other some such no nor not only own same so than too very just now s t d ll m o re ve y
"""

STOP_WORDS = frozenset((_PRONOUNS + _VERBS + _PARTICLES + " xx").split())
