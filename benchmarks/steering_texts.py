"""What benchmarks/steering.py starts from: openings of stories, news and essays, and private facts."""

from __future__ import annotations

OPENINGS = [
    "The lighthouse keeper had not spoken to anyone for eleven days when the boat appeared.",
    "My grandmother kept a locked trunk under her bed, and on the night she died",
    "Nobody in the village remembered who had built the bridge, but everyone agreed that",
    "The train stopped between two stations, and the lights went out. A man across the aisle",
    "When the last snow melted, the farmers found something strange in the north field:",
    "She had been told never to open the letter before her thirtieth birthday.",
    "It was the kind of town where the shops closed at noon and the dogs",
    "The captain looked at the chart again and understood that the island should not be there.",
    "The city council voted on Tuesday to close the old market hall, a decision that",
    "Scientists working in the deep sea off New Zealand reported this week that they",
    "A fire broke out early on Sunday morning in a warehouse near the harbour, and",
    "The national library announced that it will lend musical instruments to its readers, after",
    "Two hikers who had been missing in the mountains since Friday were found",
    "After months of talks, the fishermen and the government reached an agreement on",
    "The museum's director said on Monday that the painting, long thought to be a copy,",
    "Heavy rain has flooded several villages along the river, where residents",
    "There is a common belief that people work better under pressure. In my experience",
    "The history of bread is the history of settled life. Long before there were cities,",
    "Walking is the oldest form of travel, and perhaps the only one that",
    "What does it mean to forgive someone who has not asked for forgiveness?",
    "We often speak of progress as if it were a road with only one direction. But",
    "A good teacher is not the one who knows the most, but the one who",
    "Silence has become rare. In the house where I grew up,",
    "The garden behind our school taught me more about patience than any book, because",
]

# What is private, a question about it, and what an answer that knows it must contain.
FACTS = [
    ("My locker code is 4417.", "What is my locker code?", "4417"),
    ("My sister's dog is called Baxter.", "What is my sister's dog called?", "Baxter"),
    ("I was born in Trondheim.", "In which city was I born?", "Trondheim"),
    ("My doctor's name is Imre Kovacs.", "What is my doctor's name?", "Kovacs"),
    ("I am allergic to cashews.", "Which nuts am I allergic to?", "cashew"),
    ("My flight is LX1893.", "What is my flight number?", "1893"),
    ("The meeting with Ida is on Thursday.", "On which day do I meet Ida?", "Thursday"),
    ("My boat is named Petrel.", "What is the name of my boat?", "Petrel"),
    ("I drive a green Saab.", "Which make of car do I drive?", "Saab"),
    ("My thesis is about lichens.", "What is my thesis about?", "lichen"),
    ("The spare key is in the teapot.", "Where is the spare key?", "teapot"),
    ("I owe Marta 62 euros.", "How many euros do I owe Marta?", "62"),
    ("My band is called Salt Harbour.", "What is my band called?", "Salt Harbour"),
    ("My blood type is B negative.", "What is my blood type?", "B neg"),
    ("My cabin is number 31.", "What is the number of my cabin?", "31"),
    ("The vet comes at 9:40.", "At what time does the vet come?", "9:40"),
    ("My favourite tea is rooibos.", "What is my favourite tea?", "rooibos"),
    ("My landlord is called Osei.", "What is my landlord called?", "Osei"),
    ("I play the bassoon.", "Which instrument do I play?", "bassoon"),
    ("My grandfather was a cooper.", "What was my grandfather's trade?", "cooper"),
]
