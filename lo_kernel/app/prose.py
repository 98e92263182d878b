"""A small corpus for simulated learners: phrases of school essays, written for this package.

:func:`essay` puts sentences of one topic together. What comes out is plain text that a reducer for words,
sentences or paragraphs finds something in; it says nothing about any real learner.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["TOPICS", "Topic", "essay"]


@dataclass(frozen=True, slots=True)
class Topic:
    """Sentences of one essay: a few to open with, many to support, a few to close with."""

    openings: tuple[str, ...]
    supports: tuple[str, ...]
    closings: tuple[str, ...]


TOPICS: tuple[Topic, ...] = (
    Topic(
        openings=(
            "Every school should have a garden that belongs to the students.",
            "Behind our gym there is a strip of grass that nobody uses.",
            "The first tomato I ever grew was small, green and completely mine.",
        ),
        supports=(
            "A garden turns a page about photosynthesis into something you can touch.",
            "Students who water a plant every morning learn to notice small changes.",
            "The compost heap shows that waste is only a word for things in the wrong place.",
            "Some people say that there is no time for it, but ten minutes a day are enough.",
            "When the beans failed in May, we had to find out why and try again.",
            "Vegetables from the beds could go to the kitchen and make lunch taste of something.",
            "It costs less than a single new computer, and it does not need an update.",
            "Quiet students often become the experts, because plants do not mind who asks first.",
            "In the summer holidays the neighbours have offered to look after the beds.",
        ),
        closings=(
            "A garden is slow, and that is exactly why a school needs one.",
            "We already have the soil and the sun; all that is missing is a key to the gate.",
        ),
    ),
    Topic(
        openings=(
            "Phones should stay in the locker until the last bell has rung.",
            "On Monday our class tried a whole day without phones.",
            "I reach for my phone before I know what I want from it.",
        ),
        supports=(
            "Without a screen at the table, lunch was louder and much longer.",
            "A message that waits for an hour is hardly ever a worse message.",
            "Teachers lose minutes in each lesson, and the minutes add up to days.",
            "On the other hand, a phone is a dictionary, a camera and a calculator.",
            "Parents want to reach their children, although the office has a telephone too.",
            "Rules work better when the people who follow them helped to write them.",
            "The hardest part was the bus ride, because there was nothing to hide behind.",
            "One friend said that she felt bored first and curious afterwards.",
            "A ban teaches obedience, while an agreement teaches judgement.",
        ),
        closings=(
            "So I would not forbid phones, I would give them a place and a time.",
            "In the end it is not about the phone but about who decides when to look up.",
        ),
    ),
    Topic(
        openings=(
            "The river in our town has changed its colour three times in my life.",
            "Old maps show our river with twice as many bends as it has today.",
            "If you stand on the iron bridge at six in the morning, you can hear the water think.",
        ),
        supports=(
            "My grandfather caught eels where there is a parking lot now.",
            "When the banks were straightened, the water became faster and the floods higher.",
            "Our measurements show more oxygen below the weir than above it.",
            "Farmers need the meadows, and the river needs them too, but only for a few weeks.",
            "A single willow holds more soil than a concrete wall of the same length.",
            "Last spring volunteers pulled four bicycles and a piano out of the mud.",
            "Cities upstream decide what arrives here, so we cannot solve this alone.",
            "The kingfisher came back in the second year, before any of us expected it.",
            "Clean water looks like nothing at all, which makes it difficult to argue for.",
        ),
        closings=(
            "A river remembers its old bed, and we should help it to find the way.",
            "What we do to the river this year, the sea will know by the next.",
        ),
    ),
    Topic(
        openings=(
            "The most important invention in our house is the kitchen table.",
            "Nobody in my family can cook from a recipe, and everybody can cook.",
            "My aunt says that bread is patience with flour in it.",
        ),
        supports=(
            "Homework, quarrels and birthday cakes have all left marks on the wood.",
            "When guests arrive, another chair appears, and the soup becomes thinner and better.",
            "We speak two languages at dinner and argue in a third one.",
            "My brother measures with a cup, my mother with her hand, and I with my phone.",
            "The smell of onions in butter means that somebody has decided to stay at home.",
            "It is easier to tell the truth while you are peeling potatoes.",
            "On Fridays the youngest person chooses, so we have eaten a lot of pancakes.",
            "A dish that failed is remembered for longer than one that worked.",
            "Somewhere between the salt and the plates I learned how to listen.",
        ),
        closings=(
            "One day I will own a table, and I hope that it gets scratched quickly.",
            "That is why I think of home when I think of something that is nearly burning.",
        ),
    ),
    Topic(
        openings=(
            "People will live on Mars, but I do not want to be one of the first.",
            "A ticket to Mars would have to be a ticket for one direction.",
            "Before we move to another planet, we should unpack on this one.",
        ),
        supports=(
            "The journey takes about seven months in a room of the size of a bus.",
            "Nothing grows in the dust there unless you bring the water and the light.",
            "A message needs up to twenty minutes, so nobody could ever interrupt you.",
            "Robots have worked on Mars for years, and they never ask when they can go home.",
            "Still, many useful things were invented on the way to somewhere else.",
            "Explorers of the past took courage with them, and also diseases and flags.",
            "The money could pay for schools, although money for one is rarely given to the other.",
            "Low gravity sounds like fun until you read what it does to bones.",
            "Children born there might find our sky too blue and our air too heavy.",
        ),
        closings=(
            "I would send a camera, a seed and a good question, and wait for the answer here.",
            "Mars can wait, since it has had some practice.",
        ),
    ),
)

_LINKS = ("For example, ", "At the same time, ", "Besides, ", "Of course, ", "In my opinion, ")
_KEEP_CAPITAL = ("I ", "Mars", "May", "Monday")


def essay(rng: random.Random) -> list[str]:
    """The pieces of one essay in the order in which they are typed: sentences, each with the blank after it.

    Joined they are the whole text: two or three paragraphs, divided by an empty line.

    >>> pieces = essay(random.Random(1))
    >>> "".join(pieces).count("\\n\\n") in (1, 2)
    True
    """
    topic = rng.choice(TOPICS)
    supports = rng.sample(topic.supports, rng.randint(5, len(topic.supports)))
    breaks = {0, len(supports) // 2} if rng.random() < 0.5 else {len(supports) // 2}
    pieces = [rng.choice(topic.openings)]
    for index, sentence in enumerate(supports):
        if rng.random() < 0.25:
            start = sentence if sentence.startswith(_KEEP_CAPITAL) else sentence[0].lower() + sentence[1:]
            sentence = rng.choice(_LINKS) + start
        pieces[-1] += "\n\n" if index in breaks else " "
        pieces.append(sentence)
    pieces[-1] += " "
    pieces.append(rng.choice(topic.closings))
    return pieces
