import assert from 'node:assert/strict';

/** A plot of lines. The x axis may be logarithmic. */
export interface Plot {
  title: string;
  xLabel: string;
  yLabel: string;
  /** `log` for batch sizes and numbers of nodes, which are powers apart. */
  xScale: 'linear' | 'log';
  lines: { label: string; points: readonly { x: number; y: number }[] }[];
}

const width = 720;
const height = 400;
const frame = { left: 84, right: 24, top: 48, bottom: 56 };
const innerWidth = width - frame.left - frame.right;
const innerHeight = height - frame.top - frame.bottom;
const legendRowHeight = 20;
/**
 * These differ in lightness too, and are readable on white and on black: the file draws no background
 * and follows the reader's color scheme.
 */
const colors = ['#2f6fde', '#d9662b', '#2d9d62', '#a45cc9', '#c23b57', '#8a8f98'];
const style = `
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .grid { stroke: #8c959f; stroke-opacity: 0.35 }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }`;

/** The plot as an SVG document. The y axis starts at zero, so that heights can be compared. */
export function plotSvg(plot: Plot): string {
  const points = plot.lines.flatMap((line) => line.points);
  assert(points.length > 0, 'a plot needs a point');
  const yTicks = niceTicks(Math.max(...points.map(({ y }) => y)));
  const yMax = yTicks.at(-1) as number;
  const toX = scaleX(
    points.map(({ x }) => x),
    plot.xScale,
  );
  const toY = (y: number): number => frame.top + innerHeight * (1 - y / yMax);
  const xTicks =
    plot.xScale === 'log'
      ? [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b)
      : niceTicks(Math.max(...points.map(({ x }) => x)));
  const total = height + legendRowHeight * plot.lines.length;
  const parts = [
    `<text class="title" x="${frame.left}" y="26">${escaped(plot.title)}</text>`,
    ...yTicks.map((tick) => yTick(tick, toY(tick))),
    ...xTicks.map((tick) => xTick(tick, toX(tick))),
    `<text x="${frame.left + innerWidth / 2}" y="${height - 12}" text-anchor="middle">${escaped(plot.xLabel)}</text>`,
    `<text transform="translate(16 ${frame.top + innerHeight / 2}) rotate(-90)" text-anchor="middle">${escaped(plot.yLabel)}</text>`,
    ...plot.lines.flatMap((line, index) => drawLine(line, index, toX, toY)),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${total}" width="${width}" height="${total}" role="img">\n` +
    `<title>${escaped(plot.title)}</title>\n<style>${style}\n</style>\n${parts.join('\n')}\n</svg>\n`
  );
}

/** Round numbers from zero to at least `max`, four to eight of them. */
export function niceTicks(max: number): number[] {
  assert(max >= 0 && Number.isFinite(max));
  if (max === 0) return [0, 1];
  const magnitude = 10 ** Math.floor(Math.log10(max));
  const step = [0.2, 0.25, 0.5, 1, 2].map((factor) => factor * magnitude).find((s) => max / s <= 7);
  assert(step !== undefined, 'two of a magnitude of ten is enough for ten of it');
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, index) =>
    Number((index * step).toPrecision(12)),
  );
}

function scaleX(values: readonly number[], scale: Plot['xScale']): (x: number) => number {
  const position = (x: number): number => (scale === 'log' ? Math.log(x) : x);
  const least = scale === 'log' ? position(Math.min(...values)) : 0;
  const most = position(Math.max(...values));
  const span = most - least;
  // A single value is drawn in the middle.
  if (span === 0) return () => frame.left + innerWidth / 2;
  return (x) => frame.left + (innerWidth * (position(x) - least)) / span;
}

function yTick(value: number, y: number): string {
  return (
    `<line class="grid" x1="${frame.left}" x2="${frame.left + innerWidth}" y1="${place(y)}" y2="${place(y)}"/>` +
    `<text x="${frame.left - 8}" y="${place(y + 4)}" text-anchor="end">${shortNumber(value)}</text>`
  );
}

function xTick(value: number, x: number): string {
  const y = frame.top + innerHeight;
  return (
    `<line class="grid" x1="${place(x)}" x2="${place(x)}" y1="${y}" y2="${y + 5}"/>` +
    `<text x="${place(x)}" y="${y + 20}" text-anchor="middle">${shortNumber(value)}</text>`
  );
}

function drawLine(
  { label, points }: Plot['lines'][number],
  index: number,
  toX: (x: number) => number,
  toY: (y: number) => number,
): string[] {
  const color = colors[index % colors.length];
  const sorted = [...points].sort((a, b) => a.x - b.x);
  const at = sorted.map(({ x, y }) => `${place(toX(x))},${place(toY(y))}`);
  // Samples of a minute are too many for a dot each.
  const dots = sorted.length > 20 ? [] : sorted;
  const y = height + legendRowHeight * index;
  return [
    `<polyline points="${at.join(' ')}" fill="none" stroke="${color}" stroke-width="2"/>`,
    ...dots.map(
      (point) =>
        `<circle cx="${place(toX(point.x))}" cy="${place(toY(point.y))}" r="4" fill="${color}"/>`,
    ),
    `<rect x="${frame.left}" y="${y - 4}" width="14" height="4" fill="${color}"/>`,
    `<text x="${frame.left + 22}" y="${y + 3}">${escaped(label)}</text>`,
  ];
}

/** `1.5 M`, `200 k`. */
export function shortNumber(value: number): string {
  const [divisor, unit] = value >= 1e6 ? [1e6, ' M'] : value >= 1e4 ? [1e3, ' k'] : [1, ''];
  return `${Number((value / divisor).toPrecision(3))}${unit}`;
}

function place(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
