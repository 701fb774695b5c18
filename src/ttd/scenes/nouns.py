"""The words of the synthetic scenes: nouns with the emoji that draws each, background names, filler words."""

from __future__ import annotations

_NOUNS = {
    "animal": """
        dog 1F415 cat 1F408 horse 1F40E cow 1F404 pig 1F416 sheep 1F411 goat 1F410 camel 1F42A elephant 1F418
        rabbit 1F407 squirrel 1F43F hedgehog 1F994 bat 1F987 koala 1F428 panda 1F43C chicken 1F414 penguin 1F427
        duck 1F986 owl 1F989 eagle 1F985 swan 1F9A2 flamingo 1F9A9 peacock 1F99A parrot 1F99C frog 1F438
        crocodile 1F40A turtle 1F422 lizard 1F98E snake 1F40D whale 1F433 dolphin 1F42C fish 1F41F shark 1F988
        octopus 1F419 snail 1F40C butterfly 1F98B bee 1F41D ladybug 1F41E spider 1F577 crab 1F980 lobster 1F99E
        shrimp 1F990 gorilla 1F98D fox 1F98A lion 1F981 tiger 1F405 zebra 1F993 giraffe 1F992 kangaroo 1F998
        rhinoceros 1F98F dinosaur 1F995 unicorn 1F984 deer 1F98C sloth 1F9A5
    """,
    "food": """
        apple 1F34E pear 1F350 tangerine 1F34A lemon 1F34B banana 1F34C watermelon 1F349 grapes 1F347
        strawberry 1F353 cherries 1F352 pineapple 1F34D coconut 1F965 kiwi 1F95D tomato 1F345 eggplant 1F346
        avocado 1F951 broccoli 1F966 cucumber 1F952 corn 1F33D carrot 1F955 garlic 1F9C4 onion 1F9C5 bread 1F35E
        croissant 1F950 pretzel 1F968 cheese 1F9C0 hamburger 1F354 pizza 1F355 sandwich 1F96A taco 1F32E
        sushi 1F363 donut 1F369 cookie 1F36A cake 1F382 chocolate 1F36B lollipop 1F36D honey 1F36F
    """,
    "plant": "rose 1F339 sunflower 1F33B tulip 1F337 cactus 1F335 palm 1F334 tree 1F333 mushroom 1F344 clover 1F340",
    "vehicle": """
        car 1F697 taxi 1F695 bus 1F68C truck 1F69A tractor 1F69C bicycle 1F6B2 motorcycle 1F3CD train 1F682
        airplane 2708 helicopter 1F681 rocket 1F680 sailboat 26F5 ship 1F6A2 ambulance 1F691 canoe 1F6F6 scooter 1F6F4
    """,
    "thing": """
        umbrella 2602 clock 23F0 phone 1F4F1 laptop 1F4BB camera 1F4F7 television 1F4FA book 1F4D5 guitar 1F3B8
        violin 1F3BB trumpet 1F3BA drum 1F941 piano 1F3B9 key 1F511 lock 1F512 hammer 1F528 scissors 2702 chair 1FA91
        couch 1F6CB bed 1F6CF bulb 1F4A1 candle 1F56F balloon 1F388 gift 1F381 crown 1F451 hat 1F452 shirt 1F455
        dress 1F457 sneaker 1F45F boot 1F462 backpack 1F392 football 26BD basketball 1F3C0 kite 1FA81 robot 1F916
        skull 1F480 teapot 1FAD6 wine 1F377 anchor 2693
    """,
    "building": "house 1F3E0 castle 1F3F0 church 26EA tent 26FA factory 1F3ED fountain 26F2 hospital 1F3E5 tower 1F5FC",
}


def _pairs(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


CODEPOINTS: dict[str, str] = {noun: code for text in _NOUNS.values() for noun, code in _pairs(text)}
"""Noun -> hexadecimal code point of its emoji."""

CATEGORIES: dict[str, str] = {noun: kind for kind, text in _NOUNS.items() for noun, _ in _pairs(text)}
"""Noun -> animal, food, plant, vehicle, thing or building."""

NOUNS: tuple[str, ...] = tuple(CODEPOINTS)

BACKGROUNDS: tuple[str, ...] = (
    "grass",
    "sky",
    "sand",
    "water",
    "snow",
    "brick",
    "wood",
    "night",
    "stone",
    "tiles",
)

WORDS: tuple[str, ...] = (*NOUNS, *BACKGROUNDS)
"""All that can be in a scene; the classes of written sets in this order."""

STYLES: tuple[str, ...] = ("openmoji", "noto")
