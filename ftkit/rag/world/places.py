"""What is said and asked of towns and museums, and pages about places that nobody asks for."""

from __future__ import annotations

from ftkit.rag.world.wording import Kind, Relation

TOWN = Kind(
    nouns=("",),
    openings=("{it} is a town on a river.", "{it} is a small town in the hills.", "{it} is a town of red roofs."),
    fillers=(
        "The bridge was repaired after a flood.",
        "Lime trees line the main street.",
        "The choir has won several prizes.",
        "Trains stop here once an hour.",
        "The school has a large garden.",
        "In winter the pond is used for skating.",
        "The church tower can be climbed.",
    ),
    relations=(
        Relation(
            name="mayor",
            value="person",
            sentences=(
                "The mayor of {it} is {value}.",
                "The office of mayor is held by {value}.",
                "{value} is the mayor of {it}.",
            ),
            questions=(
                "Who is the mayor of {it}?",
                "Who holds the office of mayor in {it}?",
                "What is the name of the mayor of {it}?",
                "Who leads the local government of {it}?",
            ),
        ),
        Relation(
            name="postcode",
            value="postcode",
            sentences=(
                "The postcode of {it} is {value}.",
                "Letters to {it} carry the postcode {value}.",
                "The post office uses the postcode {value}.",
            ),
            questions=(
                "What is the postcode of {it}?",
                "Which postcode do letters to {it} carry?",
                "Which postcode does the post office use for {it}?",
                "What has to be written on a parcel to {it} besides the name of the place?",
            ),
        ),
        Relation(
            name="charter",
            value="charter year",
            sentences=(
                "{it} received its charter in {value}.",
                "The charter of {it} was granted in {value}.",
                "The oldest charter dates from {value}.",
            ),
            questions=(
                "In which year did {it} receive its charter?",
                "From which year does the charter of {it} date?",
                "In which year was a charter granted to {it}?",
                "When did {it} gain its municipal rights?",
            ),
        ),
        Relation(
            name="market_hours",
            value="market hours",
            sentences=(
                "The market of {it} is held from {value}.",
                "The market hours in {it} are {value}.",
                "A market takes place on weekdays from {value}.",
            ),
            questions=(
                "What are the market hours in {it}?",
                "From when to when is the market of {it} held?",
                "Between what times does the market of {it} take place?",
                "When do the traders of {it} have their stalls open?",
            ),
        ),
    ),
)

MUSEUM = Kind(
    article="the ",
    nouns=("Museum", "Gallery", "Archive", "Library", "Aquarium"),
    openings=(
        "{it} lies in a quiet park.",
        "{it} occupies a former barracks.",
        "{it} is a favourite of school classes.",
    ),
    fillers=(
        "Photography is allowed without flash.",
        "The rooms can be reached by lift.",
        "Concerts are given in the courtyard.",
        "Coats and bags are left at the entrance.",
        "The roof was renewed some years ago.",
        "Dogs have to stay outside.",
        "A reading room is being planned.",
    ),
    relations=(
        Relation(
            name="opening_hours",
            value="opening hours",
            sentences=(
                "{it} is open daily from {value}.",
                "The opening hours of {it} are {value}.",
                "The doors are open from {value} every day.",
            ),
            questions=(
                "What are the opening hours of {it}?",
                "From when to when is {it} open?",
                "During which hours are the doors of {it} open?",
                "Between what times can visitors enter {it}?",
            ),
        ),
        Relation(
            name="curator",
            value="person",
            sentences=(
                "The curator of {it} is {value}.",
                "{value} is the curator of {it}.",
                "The present curator is {value}.",
            ),
            questions=(
                "Who is the curator of {it}?",
                "What is the name of the curator of {it}?",
                "Who is at present the curator of {it}?",
                "Which person looks after the collection of {it}?",
            ),
        ),
        Relation(
            name="admission",
            value="admission",
            sentences=(
                "Admission to {it} is {value}.",
                "A ticket to {it} costs {value}.",
                "The price of a ticket is {value}.",
            ),
            questions=(
                "How much is admission to {it}?",
                "What does a ticket to {it} cost?",
                "What is the price of a ticket to {it}?",
                "How much must a visitor pay to get into {it}?",
            ),
        ),
        Relation(
            name="sponsor",
            value="company",
            leads_to="company",
            sentences=(
                "{it} is sponsored by {value}.",
                "The sponsor of {it} is {value}.",
                "The main sponsor is {value}.",
            ),
            questions=(
                "Who sponsors {it}?",
                "Which company is the sponsor of {it}?",
                "What is the name of the main sponsor of {it}?",
                "Which firm supports {it} with money?",
            ),
            bridges=("the company that sponsors {it}", "the sponsor of {it}"),
        ),
    ),
)

NOISE = Kind(
    article="the ",
    nouns=("marsh", "footpath", "forest", "waterfall", "moor"),
    openings=(
        "{it} is popular with walkers.",
        "{it} is described in several guidebooks.",
        "{it} is hard to find.",
    ),
    fillers=(
        "Good boots are recommended.",
        "Herons are often seen in the early morning.",
        "After heavy rain the way may be closed.",
        "There are two benches and a small shelter.",
        "Cycling is not permitted.",
        "Orchids flower here in spring.",
        "Wardens ask that litter be taken home.",
        "Fog can come up quickly.",
        "Fires are forbidden throughout the year.",
        "A signpost shows the way back.",
    ),
)
