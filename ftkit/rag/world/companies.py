"""What is said and asked of companies and of what they make."""

from __future__ import annotations

from ftkit.rag.world.names import TRADES
from ftkit.rag.world.wording import Kind, Relation

COMPANY = Kind(
    nouns=TRADES,
    openings=("{it} is a company.", "{it} is a family business.", "{it} is a company of moderate size."),
    fillers=(
        "Guided tours can be arranged in summer.",
        "A history of the company is in preparation.",
        "Most of the work is still done by hand.",
        "Apprentices are taken on every autumn.",
        "The canteen is known for its soup.",
        "An annual report is sent on request.",
        "The old chimney is a listed monument.",
    ),
    relations=(
        Relation(
            name="head_office",
            value="town",
            leads_to="town",
            sentences=(
                "{it} has its head office in {value}.",
                "The head office of {it} is in {value}.",
                "The company is run from its head office in {value}.",
            ),
            questions=(
                "In which town is the head office of {it}?",
                "In which town does {it} have its headquarters?",
                "Which town is the seat of {it}?",
                "Where is {it} based?",
            ),
            bridges=("the town where {it} has its head office", "the town that is the seat of {it}"),
        ),
        Relation(
            name="founder",
            value="person",
            sentences=(
                "{it} was founded by {value}.",
                "The founder of {it} was {value}.",
                "The company was the idea of its founder, {value}.",
            ),
            questions=(
                "Who founded {it}?",
                "Who was the founder of {it}?",
                "Which person established {it}?",
                "Who set up {it}?",
            ),
        ),
        Relation(
            name="founded",
            value="founding year",
            sentences=(
                "{it} was founded in {value}.",
                "The year of foundation is {value}.",
                "The company has been in business since {value}.",
            ),
            questions=(
                "In which year was {it} founded?",
                "Since what year has {it} been in business?",
                "What is the year of foundation of {it}?",
                "When did {it} begin to trade?",
            ),
        ),
        Relation(
            name="director_since",
            value="date",
            sentences=(
                "The present director of {it} has been in office since {value}.",
                "The company has had the same director since {value}.",
                "The director was appointed on {value}.",
            ),
            questions=(
                "Since what date has {it} had its present director?",
                "On what date was the director of {it} appointed?",
                "From which day has {it} been under its current director?",
                "When did the current head of {it} take up the post?",
            ),
        ),
        Relation(
            name="supplier",
            value="company",
            leads_to="company",
            sentences=(
                "{it} buys its raw material from {value}.",
                "The main supplier of {it} is {value}.",
                "Raw material is supplied by {value}.",
            ),
            questions=(
                "Who is the main supplier of {it}?",
                "Which company supplies {it} with raw material?",
                "From which company does {it} buy its raw material?",
                "Which firm delivers what {it} needs?",
            ),
            bridges=("the company that supplies {it}", "the main supplier of {it}"),
        ),
    ),
)

PRODUCT = Kind(
    article="the ",
    nouns=("kettle", "lantern", "barometer", "bicycle", "stove", "telescope", "compass", "toaster", "gramophone"),
    openings=(
        "{it} is meant for everyday use.",
        "{it} is found in many households.",
        "{it} is a classic of plain design.",
    ),
    fillers=(
        "Spare parts are kept in stock.",
        "A manual is enclosed.",
        "The handle is made of beech wood.",
        "Reviewers praised its plain looks.",
        "It should be stored in a dry place.",
        "A carrying case is available as an extra.",
        "It is delivered in a cardboard box.",
    ),
    relations=(
        Relation(
            name="maker",
            value="company",
            leads_to="company",
            sentences=(
                "{it} is made by {value}.",
                "The maker of {it} is {value}.",
                "It comes from the workshops of {value}.",
            ),
            questions=(
                "Who makes {it}?",
                "Which company is the maker of {it}?",
                "From whose workshops does {it} come?",
                "By which firm is {it} manufactured?",
            ),
            bridges=("the company that makes {it}", "the manufacturer of {it}"),
        ),
        Relation(
            name="price",
            value="price",
            sentences=(
                "{it} costs {value}.",
                "The list price of {it} is {value}.",
                "It is sold at a price of {value}.",
            ),
            questions=(
                "How much does {it} cost?",
                "What is the price of {it}?",
                "At what price is {it} sold?",
                "How much must a buyer pay for {it}?",
            ),
        ),
        Relation(
            name="warranty",
            value="warranty",
            sentences=(
                "{it} comes with a warranty of {value}.",
                "The warranty on {it} runs for {value}.",
                "It is under warranty for {value}.",
            ),
            questions=(
                "How long is the warranty on {it}?",
                "How many months of warranty come with {it}?",
                "For how long does the warranty of {it} run?",
                "For what period are faults of {it} repaired free of charge?",
            ),
        ),
        Relation(
            name="colour_code",
            value="colour code",
            sentences=(
                "The colour code of {it} is {value}.",
                "{it} is painted in the colour {value}.",
                "The paint has the colour code {value}.",
            ),
            questions=(
                "What is the colour code of {it}?",
                "In which colour is {it} painted?",
                "Which code does the paint of {it} have?",
                "Which shade is needed to touch up a scratch on {it}?",
            ),
        ),
    ),
)
