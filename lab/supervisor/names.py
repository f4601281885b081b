"""Names for instances that were given none: easy to say, hard to mistake for one another."""

from __future__ import annotations

import secrets

MANNERS = """
able agile amber bold brave brisk calm candid clear civil cosy deft eager early fair fond frank gentle glad
grand handy honest humble jolly keen kind lively loyal lucid mellow merry mild neat noble placid plain polite
prompt proud quick quiet ready robust sharp sincere sober solid spry steady stout sunny swift tidy vivid warm
wise
"""
ANIMALS = """
badger beaver bison bittern chough civet condor coot crane curlew dabchick dormouse dunlin eider ermine falcon
ferret finch gannet gecko godwit grebe heron hoopoe ibex jackdaw kestrel kite lapwing lark lemur linnet lynx
marten merlin mole newt nuthatch oriole osprey otter ouzel owl pipit plover puffin quail raven robin sable
shrike siskin smew stoat stork swallow swift tapir teal tern thrush turnstone vole wagtail weasel whimbrel
wigeon wren yak
"""


def random_name() -> str:
    """One of some four thousand."""
    return f"{secrets.choice(MANNERS.split())}-{secrets.choice(ANIMALS.split())}"
