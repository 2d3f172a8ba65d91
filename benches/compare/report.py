"""Medians, ratios within a round, and how they are printed."""

from statistics import median

BASELINE = "haproxy"
COLUMNS = {
    "rate": ("{unit}/s", "{:,.0f}"), "p50": ("p50 ms", "{:.3f}"), "p95": ("p95 ms", "{:.3f}"), "p99": ("p99 ms", "{:.3f}"),
    "cpu_us": ("cpu us/{one}", "{:.{digits}f}"), "server_us": ("server us/{one}", "{:.{digits}f}"), "rss_mib": ("RSS MiB", "{:.1f}"),
}
IDLE_COLUMNS = {
    "before_mib": ("RSS before MiB", "{:.1f}"), "after_mib": ("RSS after MiB", "{:.1f}"),
    "kib_per_client": ("KiB/client", "{:.2f}"), "login_ms": ("login+query ms", "{:.2f}"),
}
# What the project promises: a metric of a workload, as a ratio to the baseline or (None) as a value.
BARS = [
    ("point-text:8", "cpu_us", "ratio", 1.25, "processor time per point select, text, 8 clients"),
    ("point-prepared:8", "cpu_us", "ratio", 1.25, "processor time per point select, prepared, 8 clients"),
    ("rows:1", "cpu_us", "ratio", 1.20, "processor time per row of a 100,000-row result"),
    ("idle:5000", "kib_per_client", "value", 8.0, "resident KiB per idle client, 5,000 clients"),
]


def columns_of(workload):
    return IDLE_COLUMNS if workload.kind == "idle" else COLUMNS


def summarise(workload, rounds):
    """{endpoint: {metric: {"value": median, "ratio": median over the rounds of the ratio to the baseline}}}."""
    base = BASELINE if any(BASELINE in one for one in rounds) else None
    names = list(dict.fromkeys(name for one in rounds for name in one))
    result = {}
    for name in names:
        result[name] = {}
        for metric in columns_of(workload):
            pairs = [(one[name].get(metric), one.get(base, {}).get(metric)) for one in rounds if name in one]
            values = [value for value, _ in pairs if value is not None]
            ratios = [value / reference for value, reference in pairs if value is not None and reference]
            if values:
                result[name][metric] = {"value": median(values), "ratio": median(ratios) if ratios else None}
    return result


def _ratio(number):
    return "" if number is None else f"{number:.2f}"


def table(workload, rounds, summary):
    """The table of one workload: per metric the median, and beside it the ratio to the baseline."""
    unit, one, digits = ("rows", "row", 4) if workload.per_row else ("queries", "query", 2)
    columns = columns_of(workload)
    lines = [["endpoint"]]
    for title, _ in columns.values():
        lines[0] += [title.format(unit=unit, one=one), "x"]
    for name, metrics in summary.items():
        line = [name]
        for metric, (_, form) in columns.items():
            cell = metrics.get(metric)
            line += [form.format(cell["value"], digits=digits), _ratio(cell["ratio"])] if cell else ["-", ""]
        lines.append(line)
    text = layout(lines)
    for name in summary:
        seen = [one[name] for one in rounds if name in one]
        errors, lost = sum(o.get("errors", 0) for o in seen), sum(o.get("reconnects", 0) for o in seen)
        if errors or lost:
            text += f"\n{name}: {errors} ignored errors (deadlocks, lock waits), {lost} reconnects"
        if workload.kind == "idle" and "server_connections" in seen[0]:
            text += f"\n{name}: {seen[0]['server_connections']:,} connections to the server"
    return text


def layout(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


def overview(results):
    """One line per workload: rate and processor time of each endpoint, as ratios to the baseline."""
    names = list(dict.fromkeys(name for _, summary in results for name in summary if name != BASELINE))
    parts = []
    for metric, title in (("rate", "queries/s"), ("p99", "p99"), ("cpu_us", "processor time per query")):
        lines = [[title, *names]]
        for workload, summary in results:
            cells = [_ratio((summary.get(name, {}).get(metric) or {}).get("ratio")) or "-" for name in names]
            if any(cell != "-" for cell in cells):
                lines.append([workload.name, *cells])
        if len(lines) > 1:
            parts.append(layout(lines))
    return "\n\n".join(parts)


def bars(results, name="dbproxy"):
    """The bars this run measured: [(text, number, limit)]."""
    by_name = {workload.name: summary for workload, summary in results}
    found = []
    for workload, metric, field, limit, text in BARS:
        cell = by_name.get(workload, {}).get(name, {}).get(metric)
        if cell and cell[field] is not None:
            found.append((text + (f" / {BASELINE}" if field == "ratio" else ""), cell[field], limit))
    return found
