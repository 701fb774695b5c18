"""`ttd data agreement`: how far two annotators agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ttd.cli.output import printable, table
from ttd.cli.results_file import json_line

if TYPE_CHECKING:
    from ttd.annotate.agreement import Agreement, Disagreement

MOST_LISTED = 20


@click.command("agreement")
@click.argument("first")
@click.argument("second")
@click.option("--stop-words", is_flag=True, help="Count stop words and punctuation, too.")
@click.option("--out", metavar="FILE", help="Everything as JSON, with all disagreements.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def agreement(first: str, second: str, stop_words: bool, out: str | None, as_json: bool) -> int:
    """Compare two annotators' TagMask sets of the same data: their words and their masks.

    \b
    ttd data agreement set-of-anna set-of-ben
    ttd data agreement set-of-anna set-of-ben --out agreement.json

    Cohen's kappa of the words (1: always the same decision, 0: no better than chance), the IoU of the masks, and the
    captions on which the two differ.
    """
    from ttd.annotate.agreement import agreement as compare
    from ttd.atomic import whole_file

    found = compare(first, second, stop_words=stop_words)
    if out is not None:
        record = {"command": sys.argv, "first": first, "second": second, **found.to_dict()}
        with whole_file(Path(out)) as part:
            part.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if as_json:
        click.echo(json_line(found.to_dict()))
    else:
        click.echo(_figures(found))
        for one in found.disagreements[:MOST_LISTED]:
            click.echo(f"  {printable(one.id)}: {printable(_sentence(one))}")
        if len(found.disagreements) > MOST_LISTED:
            click.echo(f"  … and {len(found.disagreements) - MOST_LISTED:,} more (--out FILE names them all)")
    for identifier, reason in found.skipped[:MOST_LISTED]:
        click.echo(f"  skipped {printable(identifier)}: {printable(reason)}", err=True)
    return 1 if found.skipped else 0


def _figures(found: Agreement) -> str:
    rows = [
        ("captions of both", f"{found.captions:,}", f"{found.only_first:,} and {found.only_second:,} of one alone"),
        ("words: same decision", _number(found.equal), f"{found.words:,} decisions"),
        ("words: Cohen's kappa", _number(found.kappa), ""),
        ("words: F1", _number(found.f1), ""),
        ("captions' masks: IoU", _number(found.caption_iou), f"{found.masks:,} of both, {found.one_mask:,} of one"),
        ("words' masks: IoU", _number(found.word_iou), f"{found.word_masks:,} of both"),
        ("captions that differ", f"{len(found.disagreements):,}", ""),
    ]
    return table(("agreement", "value", "over"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sentence(one: Disagreement) -> str:
    parts = []
    if one.only_first:
        parts.append(f"only the first: {', '.join(one.only_first)}")
    if one.only_second:
        parts.append(f"only the second: {', '.join(one.only_second)}")
    if one.unlike:
        parts.append(f"drawn differently: {', '.join(one.unlike)}")
    if one.iou is not None:
        parts.append(f"mask IoU {one.iou:.2f}")
    return "; ".join(parts)
