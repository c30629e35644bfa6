"""The words: every class that a template can draw from. To add a word, write it into a list.

A list starts with the common words; Zipf weights make them dominate, so a new word is best added
near the end. `a, b, c` are separated by commas (or by spaces where no entry has a space in it).
"""

from __future__ import annotations

from phi_train.stories.lexicon_people import ANIMALS, BOYS, GIRLS, JOBS, PETS, RELATIVES, YOUNG
from phi_train.stories.lexicon_things import (
    FAR_PLACES,
    FOODS,
    FURNITURE,
    LOOKS,
    PLACES,
    TOOLS,
    TOYS,
)
from phi_train.stories.words import Word, WordClass, character, place, plain, thing

__all__ = ["CLASSES"]

SMALL = (
    "little small young kind happy tiny sweet brave clever funny shy playful gentle quiet curious"
)
SMALL += " friendly cheerful lonely smart fluffy silly polite busy lively sleepy careful fearless"
SMALL += " thoughtful lazy messy stubborn bouncy graceful daring"

FINE = (
    "nice pretty special good big old new useful lovely funny shiny precious soft strong wonderful"
)

WEATHER = "sunny warm nice hot cold windy rainy bright cloudy cool snowy fine foggy chilly lovely"
WEATHER += " breezy quiet frosty golden misty stormy"

GLAD = "happy proud glad excited pleased thankful cheerful joyful surprised calm grateful relieved"
GLAD += " delighted merry content amazed hopeful thrilled"

SAD = "sad upset worried angry lonely unhappy cross sorry scared tired gloomy confused nervous"
SAD += " grumpy disappointed jealous ashamed miserable heartbroken"

HOBBIES = """play, run, sing, dance, draw, paint, swim, read books, jump, climb trees, play
outside, tell stories, look at the stars, pick flowers, help people, build towers, make new
friends, explore, catch bugs, count birds, splash in puddles, bake, collect rocks, ride a bike,
fly kites, play games, dig holes, watch clouds, chase butterflies, play music, roll down hills,
write letters, learn new words, feed ducks, skip rope, whistle, whisper secrets, solve puzzles,
plant flowers, hum tunes, spin around, juggle, search for treasure, imagine dragons, blow bubbles,
knit, wear hats, play the piano, do magic tricks, sew"""

SIGHTS = """a rainbow, a big tree, a butterfly, a red bird, a river, a bee, a blue flower, a pond,
a big rock, a snail, a white cloud, a funny hat, a spider, a nest, a waterfall, an old house, a
yellow leaf, a beetle, a bus, a plane, a fire truck, a windmill, a ladybug, a caterpillar, a green
frog, a tractor, a statue, a mushroom, a balloon in the sky, a boat with a flag, a marching band,
a cricket, a dragonfly, a worm, a scarecrow, a purple bush, a pile of leaves, a puddle, a chimney,
a hot air balloon, a robin, a nice old lady, a policeman, a parade, a bridge of stone, a
lighthouse"""

TRAPS = """a tree, a hole, the mud, a net, a box, a fence, a bush, a well, the river, a bucket, a
trap, a pipe, a pond, a ditch, thorns, a puddle, a jar, a chimney, a ladder, the weeds, a drain"""

NOISES = (
    "noise bang sound boom crash roar thump crack howl growl splash rumble hiss buzz scream squeak"
)
NOISES += " thud screech"

FEARS = """the dark, the storm, monsters, the noise, thunder, ghosts, deep water, big dogs, bees,
the wind, spiders, heights, lightning, shadows, the doctor, bats, giants, dragons"""

BODY = "knee leg arm hand foot head toe finger nose elbow ear tail back chin ankle thumb tummy"

PLANTS = """flower, tree, sunflower, rose, pumpkin, apple tree, carrot, plant, bush, tulip, daisy,
tomato plant, lily flower, bean plant, cabbage, watermelon, cherry tree, vine, strawberry bush"""

VIRTUES = """share, be kind, help others, listen, say sorry, be brave, tell the truth, be careful,
be a good friend, work together, ask for help, never give up, be patient, try again, be honest,
take turns, forgive, be gentle, care for others, be thankful, trust your friends, stay calm"""

GAMES = """played, laughed, danced, sang, ran, jumped, smiled, played games, told stories, swam,
cheered, walked, rested, giggled, talked, clapped, ate cake, drew pictures, hopped, skipped,
napped, played tag, built a fort, played hide and seek, painted, sang songs, flew kites, made a
picnic"""

TIMES = """all day, until dark, in the sun, for a long time, every day, until bedtime, all
afternoon, in the grass, under the stars, for hours, until dinner, in the garden, under a tree,
all morning, in the rain, until the moon came up, by the fire, on the hill, all summer"""

# What one is told not to do, and what one then did.
RULES = {
    "run so fast": "ran so fast",
    "climb the tree": "climbed the tree",
    "go near the water": "went near the water",
    "touch the stove": "touched the stove",
    "jump on the bed": "jumped on the bed",
    "climb the wall": "climbed the wall",
    "run on the ice": "ran on the ice",
    "play near the road": "played near the road",
    "pull the cat": "pulled the cat",
    "open the gate": "opened the gate",
    "stand on the chair": "stood on the chair",
    "go into the cave": "went into the cave",
    "play with fire": "played with fire",
    "swing so high": "swung so high",
    "eat the berries": "ate the berries",
    "slide on the stairs": "slid on the stairs",
    "wake the bear": "woke the bear",
    "poke the bees": "poked the bees",
    "throw stones": "threw stones",
    "hide in the barn": "hid in the barn",
    "cross the bridge": "crossed the bridge",
    "kick the bucket": "kicked the bucket",
}


def _split(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(",")] if "," in text else text.split()


def _plain(name: str, text: str, *, zipf: float = 2.2, shift: float = 2.0) -> WordClass:
    return WordClass(name, [plain(word) for word in _split(text)], zipf=zipf, shift=shift)


def _people(text: str, *, she: bool) -> list[Word]:
    return [character(name, she=she) for name in text.split()]


def _classes() -> list[WordClass]:
    girls, boys = _people(GIRLS, she=True), _people(BOYS, she=False)
    pets = [character(name[:-1], she=name[-1] == "f") for name in PETS.split()]
    friends = [name for pair in zip(girls[1::2], boys[1::2], strict=True) for name in pair]
    toys = [thing(word) for word in _split(TOYS)]
    foods = [thing(*entry.split("/")) for entry in _split(FOODS)]
    places = [place(name, "at") for name in _split(PLACES)]
    far_places = [place(*entry.split("/")) for entry in _split(FAR_PLACES)]
    return [
        # Heroes and friends have different names, first and later places and things too: a reader
        # (or a small model) can tell from the word alone which part it plays.
        WordClass("girl", girls[::2], zipf=2.2),
        WordClass("boy", boys[::2], zipf=2.2),
        WordClass("hero_pet", pets[::2], zipf=2.2),
        WordClass("friend", friends[:44], zipf=2.2, shift=4.0),
        WordClass("guest", friends[44:], zipf=2.0),
        WordClass("friend_pet", pets[1::2], zipf=2.2),
        WordClass("toy", toys[::2], zipf=2.2),
        WordClass("present", toys[1::2], zipf=2.2),
        WordClass("food", foods[::2], zipf=2.2),
        WordClass("treat", foods[1::2], zipf=2.2),
        WordClass("place", places, zipf=2.2),
        WordClass("far_place", far_places, zipf=2.2),
        WordClass("rule", [Word(do, past=did) for do, did in RULES.items()], zipf=2.0, shift=0.5),
        _plain("animal", ANIMALS),
        _plain("young", YOUNG, shift=1.0),
        _plain("relative", RELATIVES, shift=0.5),
        _plain("job", JOBS),
        _plain("look", LOOKS),
        _plain("fine", FINE),
        _plain("furniture", FURNITURE),
        _plain("tool", TOOLS),
        _plain("small", SMALL, shift=1.0),
        _plain("weather", WEATHER),
        _plain("glad", GLAD, shift=1.0),
        _plain("sad", SAD, shift=1.0),
        _plain("hobby", HOBBIES),
        _plain("sight", SIGHTS),
        _plain("trap", TRAPS),
        _plain("noise", NOISES),
        _plain("fear", FEARS),
        _plain("body", BODY),
        _plain("plant", PLANTS),
        _plain("virtue", VIRTUES),
        _plain("game", GAMES),
        _plain("time", TIMES),
        _plain("number", "two three four five", shift=1.0),
    ]


CLASSES: dict[str, WordClass] = {words.name: words for words in _classes()}
"""All classes by name."""
