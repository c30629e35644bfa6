"""Who can be in a story: names, animals, relatives, trades; the common ones first.

Names go with a pronoun: girls and boys have lists of equal length, a pet's name ends in `f` or `m`
here (`Maxm` is Max, he).
"""

from __future__ import annotations

__all__ = ["ANIMALS", "BOYS", "GIRLS", "JOBS", "PETS", "RELATIVES", "YOUNG"]

GIRLS = """Lily Mia Anna Sue Lucy Amy Sara Jane Emma Molly Ella Mary Kate Rose Daisy Lisa Jenny
Nora Ruby Zoe Ivy Grace Alice Clara Eva Maya Lola Rita Tina Betty Holly Polly Nina Hannah Julia
Leah Olivia Sophie Maria Wendy Fiona Heidi Ingrid Yara Priya Aisha Carmen Freya Greta Hilda Mei
Nadia Olga Paula Rosa Selma Thea Uma Vera Willa"""

BOYS = """Tom Ben Sam Tim Jack Leo Dan Joe John Finn Bob Mark Peter Billy Adam Nick Luke Paul Will
Henry Oscar Theo Noah Jake Mike Fred Ted Ned Gus Hugo Owen Eli Ray Carl Simon David Oliver Lucas
Felix Arthur Victor Walter Ravi Omar Kofi Diego Emil Fritz Gino Hassan Igor Jamal Kenji Lars Mateo
Niko Otto Pablo Quinn Rufus"""

PETS = """Maxm Bellaf Spotm Cocof Lunaf Buddym Roxyf Benjim Pipm Mimif Rexm Goldief Teddym Fluffyf
Dukem Honeyf Rockym Pennyf Charliem Peachesf Biscuitm Cookief Tigerm Snowyf Bouncym Tillyf
Whiskersm Dotf Zigzagm Pepperf Rustym Bubblesf Wafflesm Hazelf Sparkym Mochif Barnabym Pearlf
Chesterm Clementinef"""

ANIMALS = """dog, cat, bird, bunny, rabbit, bear, duck, fox, mouse, frog, fish, puppy, kitten,
squirrel, pig, lion, owl, turtle, horse, cow, monkey, elephant, sheep, goat, hen, bee, deer,
chick, wolf, tiger, pony, lamb, hedgehog, penguin, giraffe, zebra, crab, snail, ant, parrot,
beaver, otter, mole, goose, swan, donkey, camel, kangaroo, panda, koala, dolphin, whale, seal,
raccoon, badger, crow, lizard, hamster, butterfly, ladybug, rooster, dragon, unicorn, crocodile,
hippo, peacock, octopus, moose, bat, weasel, gecko, walrus, llama, skunk, sparrow"""

YOUNG = """kitten, bird, puppy, duckling, bunny, mouse, frog, chick, lamb, fawn, squirrel,
hedgehog, calf, piglet, cub, foal, gosling, owlet, hamster, bee"""

RELATIVES = """grandma, aunt, uncle, cousin, teacher, big brother, big sister, neighbor, nanny,
grandpa, godmother, old friend, music teacher"""

JOBS = """farmer, baker, teacher, doctor, fisherman, shopkeeper, gardener, king, queen, painter,
pilot, policeman, fireman, nurse, sailor, chef, princess, knight, clown, builder, postman, wizard,
witch, tailor, hunter, miller, captain, carpenter, singer, dancer, shepherd, pirate, librarian,
plumber, magician, vet, dentist, mayor, potter, beekeeper"""
