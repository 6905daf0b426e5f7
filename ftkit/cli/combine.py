"""``ftkit combine``: several LoRA adapters of one base into one export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.errors import UsageError


def combine(  # noqa: PLR0913 - a parameter an option
    adapters: Annotated[
        list[Path], typer.Argument(help="Run folders and adapter exports, all of one base.", metavar="ADAPTER...")
    ],
    weights: Annotated[str, typer.Option(help="One for each adapter: 0.7,0.3. Negative ones: --weights=1,-0.5.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    how: Annotated[
        str,
        typer.Option(help="linear: the weighted sum of the updates; ties; dare_linear; dare_ties.", metavar="HOW"),
    ] = "linear",
    density: Annotated[
        float | None, typer.Option(help="Share of each update that ties and dare keep. 0.5 unless told.")
    ] = None,
    majority_sign: Annotated[
        str | None,
        typer.Option(help="How ties elects signs: total (unless told), or frequency.", metavar="BY"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of dare's draws. 0 unless told.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="Of an adapter. The sum of the adapters' ranks unless told.")
    ] = None,
    kind: Annotated[str, typer.Option("--to", help="A kind that `ftkit export` has.", metavar="KIND")] = "adapter",
    dtype: Annotated[str, typer.Option(help="Of the stored weights, as far as the kind has several.")] = "auto",
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder with the adapters' base model.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Combine LoRA adapters of one base, prove the result, and show what each task lost."""
    numbers = _numbers(weights)
    from ftkit.pipeline.combining import combine as write

    combined = write(
        adapters, output, weights=numbers, how=how, density=density, majority_sign=majority_sign, seed=seed,
        rank=rank, to=kind, dtype=dtype, base=base, quiet=quiet,
    )  # fmt: skip
    if as_json:
        print_json(combined.to_dict())
        return
    for line in [] if quiet else _lines(combined.facts):
        typer.echo(line)
    typer.echo(output)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights {text!r}: is not a list of numbers", fix="Write them with commas between: --weights 0.7,0.3"
        ) from None


def _lines(facts: dict[str, Any]) -> list[str]:
    """How far the combination is from each adapter, as a table."""
    width = max(7, *(len(source["name"]) for source in facts["sources"]))
    lines = [f"{'adapter':{width}}  weight  KL from it  KL base from it  same top token"]
    lines += [
        f"{source['name']:{width}}  {source['weight']:6g}  {source['kl_mean']:10.3g}  {source['base_kl_mean']:15.3g}"
        f"  {100 * source['top1_agreement']:12.1f} %"
        for source in facts["sources"]
    ]
    if truncation := facts["truncation"]:
        lines.append(
            f"rank {facts['rank']} loses {100 * truncation['lost']:.1f} % of the combined update's length "
            f"({100 * truncation['worst_lost']:.1f} % in {truncation['worst_layer']})"
        )
    return lines
