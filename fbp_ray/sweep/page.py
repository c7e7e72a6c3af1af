"""The results of a sweep as one HTML page that needs nothing else: tables, and the plots inside it."""

from __future__ import annotations

import base64
import html

from fbp_ray.sweep.results import Results, ranked_and_others
from fbp_ray.sweep.table import value

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .2em .7em; text-align: right; }
th { border-bottom: 1px solid #888; } tr.best { font-weight: bold; } tr.front td:first-child::after { content: " *"; }
tr.failed { color: #a00; } td.reason { text-align: left; } img { max-width: 100%; margin: 1em 0; }
"""
CAPTIONS = {
    "pareto.png": "What PSNR costs in SSIM",
    "parameters.png": "What each setting does",
    "parallel.png": "All settings at once",
    "curves.png": "How the trials learned",
}


def as_page(name: str, results: Results, plots: dict[str, bytes], settings: str) -> str:
    """The page.

    Args:
        name: of the sweep.
        results: its trials.
        plots: PNGs by file name.
        settings: of the best trial, as YAML; "" where there is none.
    """
    baseline = results.baseline
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        f"<p>{len(results.outcomes)} trials, ranked by {results.metric} on the validation part. The best Hann has "
        f"{baseline.hann_psnr:.3f} dB (cut-off {baseline.hann_psnr_cutoff:.2f}) and SSIM "
        f"{baseline.hann_ssim:.4f} (cut-off {baseline.hann_ssim_cutoff:.2f}). "
        "A star: no other trial is better in both PSNR and SSIM.</p>",
        _table(results),
    ]
    for file, content in plots.items():
        picture = base64.b64encode(content).decode()
        caption = html.escape(CAPTIONS[file])
        parts.append(f'<h2>{caption}</h2><img alt="{caption}" src="data:image/png;base64,{picture}">')
    if settings:
        parts.append(f"<h2>The settings of the best</h2><pre>{html.escape(settings)}</pre>")
    head = f'<meta charset="utf-8"><title>{html.escape(name)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _table(results: Results) -> str:
    headings = ["trial", *results.keys, "PSNR dB", "over FBP", "SSIM", "over FBP", results.metric]
    headings += ["best epoch", "epochs", "seconds", "status", ""]
    rows = ["<tr>" + "".join(f"<th>{html.escape(heading)}</th>" for heading in headings) + "</tr>"]
    for rank, outcome in enumerate(ranked_and_others(results)):
        figures = ["", "", "", "", ""]
        if outcome.number in results.merits:
            psnr, ssim = outcome.metrics["psnr"], outcome.metrics["ssim"]
            figures = [f"{psnr:.3f}", f"{psnr - results.baseline.hann_psnr:+.3f}"]
            figures += [f"{ssim:.4f}", f"{ssim - results.baseline.hann_ssim:+.4f}"]
            figures += [f"{results.merits[outcome.number]:.3f}"]
        cells = [outcome.name, *(value(outcome.parameters[key]) for key in results.keys), *figures]
        cells += [str(outcome.best_epoch or ""), str(outcome.epochs), f"{outcome.seconds:.1f}", outcome.status]
        kinds = ["best"] * (rank == 0 and bool(results.merits)) + ["front"] * (outcome.number in results.front)
        kinds += ["failed"] * (outcome.status == "failed")
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        reason = f'<td class="reason">{html.escape(outcome.reason)}</td>'
        rows.append(f'<tr class="{" ".join(kinds)}">{row}{reason}</tr>')
    return f"<table>{''.join(rows)}</table>"
