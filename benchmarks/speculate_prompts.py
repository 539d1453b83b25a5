"""Prompts of benchmarks/speculate.py: answers that copy what they read, and answers that do not."""

from __future__ import annotations

TEXTS = (
    "The ferry to the northern islands leaves the harbour at seven in the morning and returns "
    "shortly after nine in the evening. Passengers with bicycles pay four crowns extra, and dogs "
    "travel free of charge as long as they stay on the lower deck. In winter the ferry does not run "
    "on Mondays.",
    "Our library lends books for four weeks and films for one week. Readers who return an item late "
    "pay twenty cents for each day, up to a limit of five euros. Children under twelve pay nothing, "
    "but their parents are reminded by letter. Every book can be renewed twice unless another "
    "reader has asked for it.",
    "Marta Lindqvist founded the bakery in 1987 together with her brother Jonas. They began with "
    "two ovens in a former garage on Mill Street and sold forty loaves a day. Today the company has "
    "eleven shops, employs one hundred and thirty people, and still uses the sourdough that Marta "
    "brought from her village.",
    "The pump must be switched off before the lid is opened. Wait until the red lamp goes out, then "
    "turn the lid to the left and lift it. Rinse the filter under warm water without soap and let "
    "it dry for an hour. Put the filter back with the arrow pointing up, close the lid, and switch "
    "the pump on again.",
    "The meeting of the garden club took place on Thursday in the old school house. Nineteen "
    "members were present. The treasurer reported that the club has 2,340 euros and that the new "
    "greenhouse will cost about 1,900 euros. After a short discussion the members agreed to build "
    "it in the spring.",
    "Barn owls hunt at night and find their prey by ear. Their feathers are so soft that a mouse "
    "cannot hear them coming. A pair of owls with young ones catches more than twenty mice in a "
    "single night. They nest in barns, church towers and hollow trees, and they return to the same "
    "place every year.",
    "Dear Ms Okafor, thank you for your order of 14 March. We are sorry to tell you that the blue "
    "lamp is out of stock until the end of April. We can send you the green lamp at once, or keep "
    "your order and send the blue lamp as soon as it arrives. Please let us know what you prefer. "
    "Kind regards, Tom Reed.",
    "The bridge over the Verna was built between 1902 and 1906 from granite that came by train from "
    "the quarries of Holm. It is 212 metres long and has seven arches. During the flood of 1954 the "
    "middle arch was damaged, and for two years a wooden bridge carried the traffic of the whole "
    "valley.",
    "def total_price(items, discount):\n"
    "    total = 0\n"
    "    for item in items:\n"
    "        total = total + item.price * item.quantity\n"
    "    if discount > 0:\n"
    "        total = total - total * discount\n"
    "    return round(total, 2)",
    "Apply the paint in two thin coats rather than one thick coat. The first coat needs about four "
    "hours to dry at room temperature, the second needs six. Do not paint when it rains or when the "
    "wall is colder than eight degrees. Clean the brushes with water as long as the paint on them "
    "is still wet.",
)

ASKED = {
    "quote": "Repeat the following text word for word, and write nothing else.\n\n{}",
    "edit": "Write the following text again. Replace every number by a larger one, and change nothing "
    "else.\n\n{}",
    "summarise": "Summarise the following text in two sentences, with words of the text.\n\n{}",
}

OPEN = (
    "Why is the sky blue?",
    "Tell me a short story about a lighthouse.",
    "How do I learn to play the guitar?",
    "What is the difference between weather and climate?",
    "Write a poem about autumn.",
    "Give me ideas for a birthday party for a child of eight.",
    "Explain what a database index is.",
    "What should I cook tonight with potatoes and eggs?",
    "How does a bicycle stay upright?",
    "Describe a city that you would like to visit.",
    "Write a function in Python that reverses a list.",
    "What are the advantages of trains over planes?",
    "How can I sleep better?",
    "Explain photosynthesis to a child.",
    "What makes a good teacher?",
    "Tell me about the history of chess.",
    "How do vaccines work?",
    "Write a letter to a friend who moved away.",
    "What is a black hole?",
    "Give three tips for a job interview.",
    "How do I keep basil alive in my kitchen?",
    "What is the purpose of a contract?",
    "Describe the taste of a lemon.",
    "How do I write unit tests?",
    "What do economists mean by inflation?",
    "Invent a name and a slogan for a bakery.",
    "Why do cats purr?",
    "Explain how a refrigerator works.",
    "What is the best way to learn a language?",
    "Write the beginning of a detective novel.",
)


def prompts(pairs: int) -> dict[str, list[tuple[str, str]]]:
    """For each group so many (kind, prompt): the copying kinds in turn, and open questions.

    >>> {group: len(rows) for group, rows in prompts(7).items()}
    {'copies': 7, 'open': 7}
    """
    copies = [(kind, ask.format(text)) for text in TEXTS for kind, ask in ASKED.items()]
    return {
        "copies": [copies[i % len(copies)] for i in range(pairs)],
        "open": [("open", OPEN[i % len(OPEN)]) for i in range(pairs)],
    }
