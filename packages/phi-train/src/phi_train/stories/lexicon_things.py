"""What a story is about: things to hold, food, places, furniture, looks; common ones first."""

from __future__ import annotations

__all__ = ["FAR_PLACES", "FOODS", "FURNITURE", "LOOKS", "PLACES", "TOOLS", "TOYS"]

TOYS = """ball, doll, kite, car, book, hat, boat, truck, box, drum, bear, balloon, train, blanket,
bag, cup, stick, ring, key, flower, robot, puzzle, crown, bell, coin, stone, shell, toy, jar,
spoon, scarf, wagon, bike, horn, map, lamp, bucket, basket, feather, mask, flute, whistle,
necklace, pencil, crayon, marble, ribbon, rope, umbrella, pillow, bottle, brush, button, candle,
clock, coat, cape, sword, shield, guitar, violin, trumpet, piano, camera, telescope, compass,
mirror, magnet, lantern, wand, bowl, teapot, plate, mug, jacket, sweater, glove, mitten, sock,
shoe, boot, belt, badge, bracelet, yo-yo, top, spade, rake, paintbrush, notebook, letter,
postcard, stamp, ticket, picture, poster, flag, tent, hammock, sled, scooter, skateboard, frisbee,
helmet, backpack, suitcase, purse, wallet, leaf, acorn, pinecone, crystal, diamond, pebble,
seashell, snowball, puppet, rocket, spaceship, dinosaur, castle, windmill"""

FOODS = """apple, cookie, cake, banana, egg, pear, orange, carrot, berry/berries, candy/candies,
nut, cherry/cherries, muffin, pancake, sandwich/sandwiches, peach/peaches, plum, grape, donut,
lemon, strawberry/strawberries, tomato/tomatoes, potato/potatoes, cupcake, biscuit, sausage, pie,
lollipop, bun, fig, cracker, melon, mango/mangoes, blueberry/blueberries, raspberry/raspberries,
pretzel, waffle, radish/radishes, turnip, onion, pickle, mushroom, peanut, walnut, chestnut,
coconut, pineapple, kiwi, apricot, olive, raisin, marshmallow, jellybean, noodle, dumpling,
burger, taco, bagel, croissant, popsicle, meatball, pepper, cucumber, bean, pea, corncob, almond,
papaya, macaroon"""

PLACES = """park, farm, beach, lake, zoo, river, store, school, pond, playground, market, library,
fair, circus, museum, pool, castle, station, harbor, bakery, theater, airport, mill, shop,
hospital, church, palace, bus stop, ice rink, lighthouse"""

FAR_PLACES = """forest/in, garden/in, woods/in, hill/on, house/in, field/in, yard/in, kitchen/in,
barn/in, cave/in, bridge/on, meadow/in, street/on, town/in, village/in, island/on, mountain/on,
tower/in, jungle/in, attic/in, orchard/in, desert/in, valley/in, cabin/in, treehouse/in, swamp/in,
stable/in, greenhouse/in, bookshop/in, shipyard/at, rooftop/on, courtyard/in"""

FURNITURE = """tree, bed, table, bush, rock, chair, box, couch, door, bench, log, rug, fence,
house, slide, wall, flowers, leaves, swing, basket, gate, shed, stairs, car, pillow, big stone,
sandbox, window, desk, shelf, cupboard, curtain, barrel, bucket, wagon, stump, hay, grass, bridge,
ladder, mat, piano, closet, sink, stove, fountain, well, boat, tent, mailbox, hedge, roses,
woodpile, cushion, blanket, bookcase, wardrobe, haystack, wheelbarrow, beehive"""

LOOKS = """red, big, blue, new, shiny, little, green, pretty, yellow, small, old, pink, soft,
white, black, brown, purple, nice, orange, round, golden, long, special, huge, fancy, colorful,
silver, funny, wooden, beautiful, sparkly, magic, tiny, bright, smooth, strange, plastic, warm,
heavy, striped, broken, gray, rusty, dusty, fuzzy, clean, cozy, lovely, dirty, spotted, expensive,
paper, loud, useful, rare, ancient, tall, glowing, crooked, rubber, velvet, checkered, turquoise,
squeaky, handmade, crimson, fragile, gigantic, mysterious, ordinary, elegant, delicate"""

TOOLS = """rope, stick, ladder, long branch, net, spoon, shovel, blanket, basket, hammer, bucket,
broom, hook, saw, ribbon, pole, boat, belt, scarf, string, crane, wheel, plank, umbrella, towel,
hose"""
