// Line charts of the report and of the live page, drawn by uPlot in the colours of the page.
"use strict";

const Charts = (() => {
  const N_COLOURS = 8;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (n) => css(`--s${n % N_COLOURS}`);
  const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);

  function number(value, unit = "") {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    let text;
    if (unit === "s" && size > 0 && size < 1) return size < 1e-3 ? `${(value * 1e6).toPrecision(3)} µs` : `${(value * 1e3).toPrecision(3)} ms`;
    if (size >= 1e9) text = `${(value / 1e9).toPrecision(3)} G`;
    else if (size >= 1e6) text = `${(value / 1e6).toPrecision(3)} M`;
    else if (size >= 1e4) text = `${(value / 1e3).toPrecision(3)} k`;
    else if (Number.isInteger(value)) text = String(value);
    else text = size < 1e-4 && size > 0 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
    return unit ? `${text}${text.endsWith("k") || text.endsWith("M") || text.endsWith("G") ? "" : " "}${unit}` : text;
  }

  // All series on one axis of times; where one has no sample its line goes on.
  function table(chart) {
    const parts = chart.series.map((one) => [one.times, one.mean, ...(banded(chart, one) ? [one.high, one.low] : [])]);
    return parts.length > 1 ? uPlot.join(parts) : parts[0];
  }

  const banded = (chart, one) => chart.series.length <= 3 && Boolean(one.low && one.high);

  // chart: {unit, series: [{label, times: [s], mean, low?, high?}]}
  function build(holder, chart) {
    const axis = {
      stroke: css("--quiet"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false },
      font: `${Math.round(rem() * 0.78)}px system-ui, sans-serif`,
    };
    const series = [{}];
    const bands = [];
    const data = table(chart);
    const sparse = data[0].length < 30;
    chart.series.forEach((one, n) => {
      const stroke = colour(n);
      series.push({ label: one.label, stroke, width: 1.6, points: { show: sparse, size: 4 } });
      if (banded(chart, one)) {
        const edge = { stroke: "transparent", width: 0, points: { show: false } };
        series.push(edge, { ...edge });
        bands.push({ series: [series.length - 2, series.length - 1], fill: `${stroke}30` });
      }
    });
    holder.textContent = "";
    const plot = new uPlot({
      width: holder.clientWidth, height: holder.clientHeight,
      series, bands, legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => extent(low, high) } },
      axes: [
        { ...axis, values: clock, space: rem() * 5 },
        { ...axis, size: rem() * 4, values: (_, ticks) => ticks.map((v) => number(v, chart.unit === "s" ? "s" : "")) },
      ],
      hooks: { setCursor: [(u) => legend(holder, chart, u.cursor.idx === null ? null : u.posToVal(u.cursor.left, "x"))] },
    }, data, holder);
    legend(holder, chart, null);
    return plot;
  }

  const FORMATS = { s: uPlot.fmtDate("{HH}:{mm}:{ss}"), min: uPlot.fmtDate("{HH}:{mm}"), d: uPlot.fmtDate("{MM}-{DD}") };

  function clock(_, ticks, axis, space, step) {
    const format = FORMATS[step < 60 ? "s" : step < 86400 ? "min" : "d"];
    // At midnight the day is of more use than the time.
    return ticks.map((t) => {
      const date = new Date(t * 1000);
      const isMidnight = step >= 60 && date.getHours() + date.getMinutes() === 0;
      return (isMidnight ? FORMATS.d : format)(date);
    });
  }

  // Rates and counts are read from 0; what is far above it is not.
  function extent(low, high) {
    if (low === null || high === null) return [0, 1];
    if (low >= 0 && low < 0.6 * high) low = 0;
    if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
    return [low === 0 ? 0 : low - (high - low) * 0.06, high + (high - low) * 0.08];
  }

  function legend(holder, chart, time) {
    const list = holder.parentElement.querySelector(".legend");
    if (!list) return;
    list.textContent = "";
    chart.series.forEach((one, n) => {
      const at = time === null ? lastOf(one.mean) : nearest(one.times, time);
      const item = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.background = colour(n);
      const value = document.createElement("b");
      value.textContent = number(one.mean[at], chart.unit);
      item.append(mark, `${one.label} `, value);
      list.append(item);
    });
  }

  function lastOf(values) {
    let n = values.length - 1;
    while (n > 0 && (values[n] === null || values[n] === undefined)) n -= 1;
    return n;
  }

  function nearest(times, time) {
    let low = 0;
    let high = times.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] < time) low = middle; else high = middle;
    }
    return time - times[low] < times[high] - time ? low : high;
  }

  // Draw now, and again when the colours or the width change. Gives a function that takes
  // the newest data.
  function keep(holder, get) {
    let plot = null;
    let shown = "";
    const draw = () => {
      if (plot) plot.destroy();
      const chart = get();
      shown = chart.series.map((one) => one.label).join("\n");
      plot = build(holder, chart);
    };
    const update = () => {
      const chart = get();
      if (chart.series.map((one) => one.label).join("\n") !== shown) return draw();
      plot.setData(table(chart));
      return legend(holder, chart, null);
    };
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    new ResizeObserver(() => {
      if (plot && Math.abs(plot.width - holder.clientWidth) > 2) {
        plot.setSize({ width: holder.clientWidth, height: holder.clientHeight });
      }
    }).observe(holder);
    return update;
  }

  return { build, keep, number, colour };
})();
