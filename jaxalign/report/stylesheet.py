"""CSS of the page: one column of text, plots in a grid, light and dark."""

from jaxalign.report.style import COLOURS


def stylesheet() -> str:
    """CSS without a single address: fonts are the reader's own."""
    light, dark = (
        "".join(f"--{name}:{pair[at]};" for name, pair in COLOURS.items()) for at in (0, 1)
    )
    return (
        f":root{{color-scheme:light dark;{light}--paper:#ffffff;--shade:#f5f6f8}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}--paper:#14171b;--shade:#1d2126}}}}\n"
        f"{_RULES}"
    )


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",sans-serif;
 font-variant-numeric:tabular-nums}
main,header,footer,nav{max-width:74rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:3.5rem}
h1{font-size:clamp(1.7rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;font-weight:650;
 margin:.35rem 0 1.5rem;text-wrap:balance;overflow-wrap:anywhere}
h2{font-size:1.4rem;line-height:1.25;letter-spacing:-.012em;font-weight:650;margin:0 0 .6rem}
h3{font-size:1rem;font-weight:650;margin:2.25rem 0 .75rem}
p{margin:0 0 1rem;max-width:44rem;text-wrap:pretty}
section{padding:3.25rem 0 0;scroll-margin-top:1rem}
.kind{color:var(--muted);font-size:.9rem;letter-spacing:.01em;margin:0}
.lead,.note{color:var(--muted)}
.note{font-size:.875rem;line-height:1.55}
nav{display:flex;flex-wrap:wrap;gap:.35rem 1.35rem;padding-top:1.6rem;font-size:.925rem}
a{color:var(--blue);text-decoration:none;text-underline-offset:.2em}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--blue);outline-offset:3px;border-radius:2px}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:1.1rem 2rem;
 margin:0;
 padding:1.1rem 0;border-top:1px solid var(--grid);border-bottom:1px solid var(--grid)}
.facts dt{font-size:.8rem;color:var(--muted)}
.facts dd{margin:0;font-weight:550;overflow-wrap:anywhere}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));
 gap:2rem 2.5rem;
 margin:1.5rem 0}
.plots.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,18.5rem),1fr));
 gap:1.25rem 1.75rem}
figure{margin:0;min-width:0;max-width:34rem}
.small figure{max-width:24rem}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figure svg text{font-family:inherit;font-variant-numeric:tabular-nums}
figcaption{color:var(--muted);font-size:.875rem;line-height:1.5;margin-top:.5rem;max-width:34rem}
.scroll{overflow-x:auto;margin:1.25rem -1.25rem;padding:0 1.25rem}
table{border-collapse:collapse;min-width:min(100%,40rem);font-size:.875rem;line-height:1.35}
th,td{padding:.6rem .55rem;text-align:right;vertical-align:baseline;white-space:nowrap;
 border-bottom:1px solid var(--grid)}
thead th{color:var(--muted);font-weight:500;font-size:.78rem;vertical-align:bottom;
 white-space:normal;
 min-width:3.4rem;border-bottom-color:var(--muted)}
th:first-child,td:first-child{text-align:left;padding-left:0;position:sticky;left:0;
 background:var(--paper)}
tbody th{font-weight:550}
td small{display:block;color:var(--muted);font-size:.75rem}
.dot{display:inline-block;width:.6rem;height:.6rem;border-radius:50%;margin-right:.55rem}
.meaning{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
 gap:.9rem 2rem;margin:1.25rem 0 0;font-size:.875rem;line-height:1.5}
.meaning dt{font-weight:600}
.meaning dd{margin:0;color:var(--muted)}
details{margin:1rem 0}
summary{cursor:pointer;color:var(--blue);padding:.45rem 0;width:fit-content}
.notes{padding-left:1.1rem;max-width:44rem;color:var(--muted);font-size:.925rem}
.notes li{margin-bottom:.5rem}
.aside{align-self:center}
.sample{border-top:1px solid var(--grid);padding:1.5rem 0 1.75rem}
.prompt{font-weight:600;margin:0 0 1rem;overflow-wrap:anywhere;white-space:pre-wrap}
.answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));
 gap:1.25rem 2rem}
.answer h4{font-size:.85rem;font-weight:600;margin:0 0 .3rem;display:flex;flex-wrap:wrap;
 align-items:center;gap:.15rem .6rem}
.answer p{margin:0;font-size:.95rem;line-height:1.55;overflow-wrap:anywhere;white-space:pre-wrap}
.score{font-weight:500;font-size:.78rem;border-radius:.3rem;padding:.08rem .45rem;color:var(--ink)}
.model{color:var(--muted);font-weight:400;font-size:.78rem}
.bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:.45rem 1rem;
 align-items:center;max-width:44rem;margin:1rem 0;font-size:.9rem}
.bars i{display:block;height:.55rem;border-radius:.28rem;background:var(--blue);min-width:2px}
.settings td,.settings th{text-align:left;white-space:normal;overflow-wrap:anywhere;
 padding:.35rem .8rem .35rem 0}
.settings th{font-weight:450;color:var(--muted);white-space:nowrap}
.settings td{font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace;font-size:.82rem}
footer{padding:4rem 1.25rem 3rem;color:var(--muted);font-size:.85rem}
@media (max-width:40rem){header{padding-top:2rem}section{padding-top:2.5rem}
 thead th{min-width:4rem}th,td{padding:.55rem .6rem}th.long{white-space:normal;min-width:8rem}}
@media print{nav{display:none}section,figure,.sample{break-inside:avoid}}
"""
